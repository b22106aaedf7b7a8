//! How results get out of Lua: cells of declared fields, attributes, documents, reasons. Everything is checked here and
//! nothing is trusted: a table may hold itself, a text may be no UTF-8.

use crate::event::Event;
use crate::stages::transform::fields::{Draft, Fields, Problem, Scalar, absent, cell, event_type, occurred_at};
use mlua::{MultiValue, Table, Value};
use tidegate_schemas::document::{Document, DocumentBuilder};
use tidegate_schemas::limits::{RESULT_DEPTH_MAX, RESULT_FIELDS_MAX, RESULT_ROWS_MAX};
use tidegate_schemas::row::{Cell, Row};
use tidegate_schemas::table::{Field, FieldType};
use tidegate_schemas::verdict::{Code, Rejection, StageName, cut};

/// What a scalar counts of the result's bytes.
const SCALAR_BYTES: usize = 8;
/// Integers beyond it cross as texts.
const EXACT: i64 = 1 << 53;
/// A script's own code goes into metrics and tables.
const CODE_BYTES_MAX: usize = 64;

/// What is left of one event's result.
pub(crate) struct Budget(usize);

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(bytes)
    }
    fn take(&mut self, bytes: usize) -> Result<(), Problem> {
        self.0 = self.0.checked_sub(bytes).ok_or_else(|| Problem::new(Code::OutputTooLarge, "the result passes its bytes"))?;
        Ok(())
    }
}

/// Calls `f` with the value as a scalar: texts live only as long as Lua lends them.
fn with_scalar<R>(value: &Value, f: impl FnOnce(Scalar<'_>) -> R) -> R {
    match value {
        Value::Number(n) => f(Scalar::Float(*n)),
        Value::Integer(i) => f(Scalar::Int(*i)),
        Value::Boolean(b) => f(Scalar::Bool(*b)),
        Value::Nil => f(Scalar::Null),
        Value::LightUserData(_) if value.is_null() => f(Scalar::Null),
        Value::String(text) => match text.to_str() {
            Ok(text) => f(Scalar::Text(&text)),
            Err(_) => f(Scalar::Other("a string of bytes that are no UTF-8")),
        },
        other => f(Scalar::Other(name_of(other))),
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Table(_) => "table",
        Value::Buffer(_) => "buffer",
        Value::Function(_) => "function",
        other => other.type_name(),
    }
}

/// The cell of a declared field.
fn field_cell(field: &Field, value: &Value, budget: &mut Budget) -> Result<Cell, Problem> {
    if matches!(value, Value::Nil) {
        return absent(field);
    }
    if field.kind == FieldType::Json && !value.is_null() {
        let text = json(value, budget).map_err(|p| p.below(&field.name))?;
        return Ok(Cell::Text(text.into()));
    }
    let cell = with_scalar(value, |scalar| match (field.kind, scalar) {
        // Where a number cannot hold the integer, a text does.
        (FieldType::I64, Scalar::Text(text)) => match text.parse::<i64>() {
            Ok(i) if i.unsigned_abs() > EXACT.unsigned_abs() => cell(field, Scalar::Int(i)),
            _ => cell(field, scalar),
        },
        _ => cell(field, scalar),
    })?;
    budget.take(if let Cell::Text(text) = &cell { text.len() } else { SCALAR_BYTES })?;
    Ok(cell)
}

/// The row whose declared fields the driver returned in order, `occurred_at` and `event_type` after them.
pub(crate) fn cells(fields: &Fields<'_>, event: &Event, values: MultiValue, budget: &mut Budget) -> Result<Row, Problem> {
    let mut draft = Draft { cells: fields.empty(), ..Draft::default() };
    let mut values = values.into_iter();
    let mut next = || values.next().unwrap_or(Value::Nil);
    for declared in &fields.declared {
        draft.cells[declared.cell] = field_cell(declared.field, &next(), budget)?;
    }
    draft.occurred_at = with_scalar(&next(), occurred_at)?;
    draft.event_type = with_scalar(&next(), event_type)?;
    Ok(fields.row(event, draft))
}

/// A row, or a list of rows.
pub(crate) fn rows(fields: &Fields<'_>, event: &Event, table: &Table, budget: &mut Budget) -> Result<Vec<Row>, Problem> {
    let len = table.raw_len();
    if len == 0 {
        return Ok(vec![row(fields, event, table, budget)?]);
    }
    if len > RESULT_ROWS_MAX {
        return Err(Problem::new(Code::OutputTooLarge, format!("{len} rows, above {RESULT_ROWS_MAX}")));
    }
    for pair in table.pairs::<Value, Value>() {
        let (key, _) = pair.map_err(unreadable)?;
        if !matches!(key, Value::Integer(i) if i >= 1 && i as u64 <= len as u64) {
            let detail = format!(
                "transform returned a list of rows that has the field {} as well: return a row, or a list of rows",
                key_text(&key)?
            );
            return Err(Problem::new(Code::ResultInvalid, detail));
        }
    }
    let mut rows = Vec::with_capacity(len);
    for i in 1..=len {
        let step = (i - 1).to_string();
        match get(table, i as i64).map_err(|p| p.below(&step))? {
            Value::Table(table) => rows.push(row(fields, event, &table, budget).map_err(|p| p.below(&step))?),
            other => return Err(Problem::new(Code::ResultInvalid, format!("a row is a table, not {}", name_of(&other))).below(&step)),
        }
    }
    Ok(rows)
}

fn row(fields: &Fields<'_>, event: &Event, table: &Table, budget: &mut Budget) -> Result<Row, Problem> {
    if table.is_empty() {
        // Neither a row nor `nil`: taken as either, something would be made up, or lost in silence.
        let detail = "transform returned an empty table: return nil to leave an event out, or a row with a value";
        return Err(Problem::new(Code::ResultInvalid, detail));
    }
    let mut draft = Draft { cells: fields.empty(), ..Draft::default() };
    for declared in &fields.declared {
        let value = get(table, declared.field.name.as_str())?;
        draft.cells[declared.cell] = field_cell(declared.field, &value, budget)?;
    }
    for (number, pair) in table.pairs::<Value, Value>().enumerate() {
        if number >= RESULT_FIELDS_MAX {
            return Err(Problem::new(Code::OutputTooLarge, format!("a row of more than {RESULT_FIELDS_MAX} fields")));
        }
        let (key, value) = pair.map_err(unreadable)?;
        let name = key_text(&key)?;
        match name.as_str() {
            "occurred_at" => draft.occurred_at = with_scalar(&value, occurred_at)?,
            "event_type" => draft.event_type = with_scalar(&value, event_type)?,
            name if fields.index(name).is_some() || value.is_null() => {}
            name => {
                let text = match &value {
                    Value::String(text) => text.to_str().ok().map(|t| t.to_owned()),
                    _ => Some(json(&value, budget).map_err(|p| p.below(name))?),
                };
                let text = text.ok_or_else(|| Problem::new(Code::WrongType, format!("{name} is no UTF-8")).below(name))?;
                budget.take(name.len() + text.len())?;
                draft.attributes.push((name.into(), text.into()));
            }
        }
    }
    Ok(fields.row(event, draft))
}

fn get(table: &Table, key: impl mlua::IntoLua) -> Result<Value, Problem> {
    table.raw_get(key).map_err(unreadable)
}

fn unreadable(error: mlua::Error) -> Problem {
    Problem::new(Code::ResultInvalid, error.to_string())
}

fn key_text(key: &Value) -> Result<String, Problem> {
    match key {
        Value::String(text) => text.to_str().map(|t| t.to_owned()).map_err(|_| Problem::new(Code::ResultInvalid, "a key is no UTF-8")),
        Value::Integer(i) => Ok(i.to_string()),
        other => Err(Problem::new(Code::ResultInvalid, format!("a key is a {}", name_of(other)))),
    }
}

/// A value as JSON text.
fn json(value: &Value, budget: &mut Budget) -> Result<String, Problem> {
    let mut out = String::new();
    document(value, budget)?.root().write_json(&mut out);
    Ok(out)
}

/// A value as a document.
pub(crate) fn document(value: &Value, budget: &mut Budget) -> Result<Document, Problem> {
    let mut builder = DocumentBuilder::default();
    build(value, &mut builder, 0, budget)?;
    Ok(builder.finish())
}

fn build(value: &Value, out: &mut DocumentBuilder, depth: usize, budget: &mut Budget) -> Result<(), Problem> {
    budget.take(SCALAR_BYTES)?;
    match value {
        Value::Table(table) if depth >= RESULT_DEPTH_MAX => {
            let _ = table;
            Err(Problem::new(Code::OutputTooLarge, format!("nested deeper than {RESULT_DEPTH_MAX} levels")))
        }
        Value::Table(table) => container(table, out, depth, budget),
        value => with_scalar(value, |scalar| {
            match scalar {
                Scalar::Null => out.null(),
                Scalar::Bool(b) => out.bool(b),
                Scalar::Int(i) => out.int(i),
                Scalar::Float(f) if f.is_finite() => out.float(f),
                Scalar::Float(f) => return Err(Problem::new(Code::WrongType, format!("{f} is no number of JSON"))),
                Scalar::Text(text) => {
                    budget.take(text.len())?;
                    out.text(text);
                }
                Scalar::Other(name) => return Err(Problem::new(Code::WrongType, format!("a {name} is no JSON"))),
            }
            Ok(())
        }),
    }
}

/// A table whose keys are 1 to n is a list, any other an object; an empty one is an object. Keys are sorted: their order in
/// Lua depends on how the table grew.
fn container(table: &Table, out: &mut DocumentBuilder, depth: usize, budget: &mut Budget) -> Result<(), Problem> {
    let len = table.raw_len();
    let mut pairs: Vec<(String, Value)> = Vec::new();
    let mut in_list = 0;
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair.map_err(unreadable)?;
        budget.take(SCALAR_BYTES / 2)?;
        in_list += usize::from(matches!(key, Value::Integer(i) if i >= 1 && i as u64 <= len as u64));
        let name = key_text(&key)?;
        pairs.push((name, value));
    }
    let at = out.open();
    if len > 0 && in_list == pairs.len() {
        for i in 1..=len {
            let value = get(table, i as i64)?;
            build(&value, out, depth + 1, budget).map_err(|p| p.below(&(i - 1).to_string()))?;
        }
        out.close_list(at, len as u32);
        return Ok(());
    }
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, value) in &pairs {
        budget.take(name.len())?;
        out.text(name);
        build(value, out, depth + 1, budget).map_err(|p| p.below(name))?;
    }
    out.close_map(at, pairs.len() as u32);
    Ok(())
}

/// A decoder's `errors`: a text, or a list of texts.
pub(crate) fn errors(value: &Value) -> Rejection {
    let mut texts = Vec::new();
    match value {
        Value::Table(table) => {
            texts.extend(table.sequence_values::<Value>().take(16).map(|v| v.map_or_else(|e| e.to_string(), |v| text_of(&v))))
        }
        other => texts.push(text_of(other)),
    }
    Rejection::new(StageName::Decode, Code::DecodeFailed, texts.join("; "))
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string_lossy(),
        other => json(other, &mut Budget::new(1_024)).unwrap_or_else(|_| name_of(other).to_owned()),
    }
}

/// A validator's results other than `true`: the first reason with its place, and what else was wrong.
pub(crate) fn reasons(verdict: &Value, why: &Value) -> Rejection {
    let invalid = |what: String| Rejection::new(StageName::Validate, Code::ResultInvalid, what);
    if !matches!(verdict, Value::Boolean(false)) {
        return invalid(format!("validate returns true or false, not {}", name_of(verdict)));
    }
    let mut reasons: Vec<Rejection> = Vec::new();
    match why {
        Value::Table(table) if table.raw_len() > 0 => {
            reasons.extend(table.sequence_values::<Value>().take(16).map(|v| v.map_or_else(|e| invalid(e.to_string()), |v| reason(&v))));
        }
        other => reasons.push(reason(other)),
    }
    let mut reasons = reasons.into_iter();
    let first = reasons.next().unwrap_or_else(|| invalid("no reason".into()));
    together(first, reasons)
}

/// One rejection for several: the first one's code and place, and a detail that names the others.
pub(crate) fn together(mut first: Rejection, others: impl Iterator<Item = Rejection>) -> Rejection {
    let named: Vec<String> = others.map(|r| if r.pointer.is_empty() { r.code } else { format!("{} at {}", r.code, r.pointer) }).collect();
    if !named.is_empty() {
        let separator = if first.detail.is_empty() { "" } else { "; " };
        let detail = format!("{}{separator}also {}", first.detail, named.join(", "));
        first.detail = cut(detail, tidegate_schemas::limits::REJECTION_DETAIL_BYTES_MAX);
    }
    first
}

fn reason(why: &Value) -> Rejection {
    let mut rejection = Rejection::new(StageName::Validate, Code::Invalid, "");
    let member = |table: &Table, name: &str| match table.raw_get::<Value>(name) {
        Ok(Value::Nil) | Err(_) => None,
        Ok(value) if value.is_null() => None,
        Ok(value) => Some(text_of(&value)),
    };
    match why {
        Value::Table(table) => {
            if let Some(code) = member(table, "code").filter(|c| !c.is_empty()) {
                rejection.code = cut(code, CODE_BYTES_MAX);
            }
            rejection.detail = cut(member(table, "detail").unwrap_or_default(), tidegate_schemas::limits::REJECTION_DETAIL_BYTES_MAX);
            rejection = rejection.at(member(table, "pointer").unwrap_or_default());
        }
        Value::Nil => {}
        other => rejection.detail = cut(text_of(other), tidegate_schemas::limits::REJECTION_DETAIL_BYTES_MAX),
    }
    rejection
}
