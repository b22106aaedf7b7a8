//! Declared fields: from a value, wherever it comes from, to a cell of the declared type, or a problem.

use hashbrown::HashMap;
use std::ops::Range;
use std::sync::Arc;
use tidegate_schemas::document::Kind;
use tidegate_schemas::limits::{EVENT_TYPE_BYTES_MAX, ROW_BYTES_MAX, TIMESTAMP_YEAR_MAX, TIMESTAMP_YEAR_MIN};
use tidegate_schemas::row::Cell;
use tidegate_schemas::rows::Rows;
use tidegate_schemas::table::{Field, FieldType, Table};
use tidegate_schemas::time::{self, Micros};
use tidegate_schemas::verdict::{Code, Rejection, StageName};

/// A value that may become a cell.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    /// Anything else, by its name.
    Other(&'static str),
}

/// Why a value becomes no cell.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) code: Code,
    pub(crate) detail: String,
    pub(crate) pointer: String,
}

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), pointer: String::new() }
    }
    /// Puts a step in front of the pointer.
    #[must_use]
    pub(crate) fn below(mut self, step: &str) -> Self {
        self.pointer = format!("/{}{}", step.replace('~', "~0").replace('/', "~1"), self.pointer);
        self
    }
    pub(crate) fn into_rejection(self, stage: StageName) -> Rejection {
        Rejection::new(stage, self.code, self.detail).at(self.pointer)
    }
}

/// The declared fields of a template version with their places in its table.
pub(crate) struct Fields<'a> {
    /// As the template declares them.
    pub(crate) declared: Vec<Declared<'a>>,
    by_name: HashMap<&'a str, usize>,
    default_type: Arc<str>,
}

/// A declared field.
#[derive(Clone, Copy)]
pub(crate) struct Declared<'a> {
    pub(crate) field: &'a Field,
    /// Its place in the table.
    pub(crate) cell: usize,
    /// Between what its numbers are; nothing that is not finite is.
    low: f64,
    high: f64,
}

impl<'a> Declared<'a> {
    fn new(field: &'a Field, cell: usize) -> Self {
        Self { field, cell, low: field.min.unwrap_or(f64::MIN), high: field.max.unwrap_or(f64::MAX) }
    }
    fn has(&self, number: f64) -> bool {
        number >= self.low && number <= self.high
    }
}

impl<'a> Fields<'a> {
    /// The table has all of the template's fields, by the catalog. `default_type` is the template's id.
    pub(crate) fn new(fields: &'a [Field], table: &Table, default_type: &str) -> Self {
        let places: HashMap<&str, usize> = table.fields.iter().enumerate().map(|(i, c)| (c.name.as_str(), i)).collect();
        let declared: Vec<Declared<'a>> =
            fields.iter().filter_map(|field| Some(Declared::new(field, *places.get(field.name.as_str())?))).collect();
        let by_name = declared.iter().enumerate().map(|(i, d)| (d.field.name.as_str(), i)).collect();
        Self { declared, by_name, default_type: default_type.into() }
    }

    /// The index of a declared field.
    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Ends the row under way, with what the event knows where the transform did not say. The caller takes it back where it
    /// is larger than a row may be.
    pub(crate) fn end(&self, event: &crate::event::Event, mut draft: Draft, rows: &mut Rows) -> Result<(), Problem> {
        draft.attributes.sort();
        let occurred_at = draft.occurred_at.or(event.occurred_at).unwrap_or(event.origin.received_at);
        let event_type = draft.event_type.as_ref().or(event.event_type.as_ref()).unwrap_or(&self.default_type);
        rows.end(occurred_at, event_type, draft.attributes);
        let bytes = rows.bytes(rows.len() - 1);
        if bytes > ROW_BYTES_MAX {
            return Err(Problem::new(Code::OutputTooLarge, format!("a row of about {bytes} bytes, above {ROW_BYTES_MAX}")));
        }
        Ok(())
    }
}

/// What a row under way has beside its declared fields.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) occurred_at: Option<Micros>,
    pub(crate) event_type: Option<Arc<str>>,
    pub(crate) attributes: Vec<(Box<str>, Box<str>)>,
}

impl<'a> From<Kind<'a>> for Scalar<'a> {
    fn from(kind: Kind<'a>) -> Self {
        match kind {
            Kind::Null => Self::Null,
            Kind::Bool(b) => Self::Bool(b),
            Kind::Int(i) => Self::Int(i),
            Kind::Uint(u) => Self::Float(u as f64),
            Kind::Float(f) => Self::Float(f),
            Kind::Text(text) => Self::Text(text),
            Kind::List(_) => Self::Other("list"),
            Kind::Map(_) => Self::Other("object"),
        }
    }
}

impl Scalar<'_> {
    /// As users call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Int(_) | Self::Float(_) => "number",
            Self::Text(_) => "text",
            Self::Other(name) => name,
        }
    }
}

/// Milliseconds since 1970, up to 2096, that are a time without a closer look.
const USUAL_MILLIS: Range<i64> = 0..4_000_000_000_000;

/// Sets what most scalars are: a number, boolean or time in milliseconds, of the declared type and within its bounds. Whether it
/// was one.
#[inline(always)]
pub(crate) fn set_plain(declared: Declared<'_>, scalar: Scalar<'_>, rows: &mut Rows) -> bool {
    let cell = declared.cell;
    match (declared.field.kind, scalar) {
        (FieldType::F64, Scalar::Float(number)) if declared.has(number) => rows.set_f64(cell, number),
        (FieldType::F64, Scalar::Int(number)) if declared.has(number as f64) => rows.set_f64(cell, number as f64),
        (FieldType::I64, Scalar::Int(number)) if declared.has(number as f64) => rows.set_i64(cell, number),
        (FieldType::Bool, Scalar::Bool(value)) => rows.set(cell, Cell::Bool(value)),
        (FieldType::Timestamp, Scalar::Int(millis)) if USUAL_MILLIS.contains(&millis) => rows.set(cell, Cell::Timestamp(millis * 1_000)),
        _ => return false,
    }
    true
}

/// The cell of a scalar; fields of type `json` are the caller's.
pub(crate) fn cell<'a>(field: &Field, scalar: Scalar<'a>) -> Result<Cell<'a>, Problem> {
    let wrong = |what: &str| {
        let problem = Problem::new(Code::WrongType, format!("{} is {}, not {what}", field.name, scalar.name()));
        Err(problem.below(&field.name))
    };
    if matches!(scalar, Scalar::Null) {
        return absent(field);
    }
    let cell = match (field.kind, scalar) {
        (FieldType::Bool, Scalar::Bool(b)) => Cell::Bool(b),
        (FieldType::I64, Scalar::Int(i)) => Cell::I64(i),
        (FieldType::I64, Scalar::Float(f)) if f.fract() == 0.0 && f.abs() < 9.2e18 => Cell::I64(f as i64),
        (FieldType::I64, Scalar::Float(f)) if f.is_finite() => return wrong("an integer of 64 bits"),
        (FieldType::F64, Scalar::Int(i)) => Cell::F64(i as f64),
        (FieldType::F64, Scalar::Float(f)) if f.is_finite() => Cell::F64(f),
        (FieldType::I64 | FieldType::F64, Scalar::Float(f)) => return wrong(&format!("finite ({f})")),
        (FieldType::Text, Scalar::Text(text)) => Cell::Text(text.into()),
        (FieldType::Timestamp, _) => match timestamp(scalar) {
            Ok(at) => Cell::Timestamp(at),
            Err(NoTime::Beyond) => return Err(NoTime::Beyond.problem(&field.name, scalar)),
            Err(NoTime::Unreadable) => return wrong("milliseconds since 1970 or RFC 3339"),
        },
        (FieldType::Bool, _) => return wrong("a boolean"),
        (FieldType::I64, _) => return wrong("an integer"),
        (FieldType::F64, _) => return wrong("a number"),
        (FieldType::Text, _) => return wrong("a text"),
        (FieldType::Json, _) => return wrong("JSON"),
    };
    within(field, cell)
}

/// The cell of a field without a value.
pub(crate) fn absent(field: &Field) -> Result<Cell<'static>, Problem> {
    if field.required {
        return Err(Problem::new(Code::Required, format!("{} is required", field.name)).below(&field.name));
    }
    Ok(Cell::Null)
}

fn within<'a>(field: &Field, cell: Cell<'a>) -> Result<Cell<'a>, Problem> {
    let number = match &cell {
        Cell::I64(i) => *i as f64,
        Cell::F64(f) => *f,
        _ => return Ok(cell),
    };
    let outside = |bound: f64, word: &str| {
        Err(Problem::new(Code::OutOfRange, format!("{} is {number}, {word} {bound}", field.name)).below(&field.name))
    };
    match (field.min, field.max) {
        (Some(min), _) if number < min => outside(min, "below"),
        (_, Some(max)) if number > max => outside(max, "above"),
        _ => Ok(cell),
    }
}

/// Why a value is no timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoTime {
    /// Neither milliseconds since 1970 nor RFC 3339 text.
    Unreadable,
    /// A time that not every reader of a table holds.
    Beyond,
}

impl NoTime {
    /// For people: what is wrong with the value that stands under this name.
    pub(crate) fn detail(self, name: &str, scalar: Scalar<'_>) -> String {
        let shown = match scalar {
            Scalar::Int(i) => i.to_string(),
            Scalar::Float(f) => f.to_string(),
            Scalar::Text(text) => format!("{text:?}"),
            other => other.name().to_owned(),
        };
        match self {
            Self::Unreadable => format!("{name} is {shown}: neither milliseconds since 1970 nor RFC 3339 text"),
            Self::Beyond => {
                format!("{name} is {shown}: outside the years {TIMESTAMP_YEAR_MIN} to {TIMESTAMP_YEAR_MAX}, which tables hold")
            }
        }
    }

    fn problem(self, name: &str, scalar: Scalar<'_>) -> Problem {
        let code = if self == Self::Beyond { Code::OutOfRange } else { Code::WrongType };
        Problem::new(code, self.detail(name, scalar)).below(name)
    }
}

/// Milliseconds since 1970, or RFC 3339 text.
pub(crate) fn timestamp(scalar: Scalar<'_>) -> Result<Micros, NoTime> {
    let at = match scalar {
        Scalar::Int(i) => time::from_millis(i as f64).ok_or(NoTime::Beyond),
        Scalar::Float(f) if f.is_finite() => time::from_millis(f).ok_or(NoTime::Beyond),
        Scalar::Text(text) => time::parse(text).ok_or_else(|| if time::is_beyond(text) { NoTime::Beyond } else { NoTime::Unreadable }),
        _ => Err(NoTime::Unreadable),
    }?;
    if time::STORABLE.contains(&at) { Ok(at) } else { Err(NoTime::Beyond) }
}

/// `occurred_at` as a transform returned it.
pub(crate) fn occurred_at(scalar: Scalar<'_>) -> Result<Option<Micros>, Problem> {
    match scalar {
        Scalar::Null => Ok(None),
        _ => timestamp(scalar).map(Some).map_err(|no| no.problem("occurred_at", scalar)),
    }
}

/// What is wrong with an event's type of so many bytes.
pub(crate) fn event_type_bytes(bytes: usize) -> Problem {
    Problem::new(Code::OutOfRange, format!("event_type has {bytes} bytes; it has 1 to {EVENT_TYPE_BYTES_MAX}"))
}

/// `event_type` as a transform returned it.
pub(crate) fn event_type(scalar: Scalar<'_>) -> Result<Option<Arc<str>>, Problem> {
    match scalar {
        Scalar::Null => Ok(None),
        Scalar::Text(text) if (1..=EVENT_TYPE_BYTES_MAX).contains(&text.len()) => Ok(Some(text.into())),
        Scalar::Text(text) => Err(event_type_bytes(text.len()).below("event_type")),
        _ => Err(Problem::new(Code::WrongType, "event_type is no text").below("event_type")),
    }
}
