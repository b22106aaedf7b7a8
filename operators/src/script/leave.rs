//! How results get out of Lua: cells of declared fields, attributes, documents, reasons. Everything is checked here and
//! nothing is trusted: a table may hold itself, a text may be no UTF-8. Metatables are not asked.

mod container;

pub(crate) use container::{Containers, document};

use crate::event::Event;
use crate::script::driver::{Name, names};
use crate::script::enter::exact;
use crate::stages::transform::fields::{Declared, Draft, Fields, Problem, Scalar, absent, cell, event_type, occurred_at, set_plain};
use tidegate_schemas::limits::{REJECTION_DETAIL_BYTES_MAX, RESULT_FIELDS_MAX, RESULT_ROWS_MAX};
use tidegate_schemas::row::Cell;
use tidegate_schemas::rows::Rows;
use tidegate_schemas::table::{Field, FieldType};
use tidegate_schemas::verdict::{Code, Rejection, StageName, cut};

/// What a scalar counts of the result's bytes.
const SCALAR_BYTES: usize = 8;
/// Reasons and errors of one event that are told.
const REASONS_MAX: usize = 16;
/// A script's own code goes into metrics and tables.
const CODE_BYTES_MAX: usize = 64;

/// What is left of one event's result.
#[derive(Clone, Copy)]
pub(crate) struct Budget(usize);

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(bytes)
    }
    #[inline]
    fn take(&mut self, bytes: usize) -> Result<(), Problem> {
        match self.0.checked_sub(bytes) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => Err(Problem::new(Code::OutputTooLarge, "the event's result has more bytes than limits.result_bytes allows")),
        }
    }
}

/// A value that Lua lends for reading. It is not changed meanwhile, and what a closure gets lives no longer than its call.
pub(crate) trait Lent: Sized {
    /// Where a pair of a table is.
    type Place;
    /// What it is, as scripts call it.
    fn name(&self) -> &'static str;
    /// Whether it is nil.
    fn is_nil(&self) -> bool;
    /// Whether it is a table.
    fn is_table(&self) -> bool;
    /// The text of a string, what is no UTF-8 replaced.
    fn text_lossy(&self) -> Option<String>;
    /// The value as a scalar; what is none by its name.
    fn scalar<R>(&self, f: impl FnOnce(Scalar<'_>) -> R) -> R;
    /// How many elements a table has from 1 on.
    fn len(&self) -> usize;
    /// How many pairs a table has, counted up to `most`, and whether `meet` was told of all that are members: of each by its
    /// number among the declared fields, `occurred_at` and `event_type`. Who does not walk in order tells of none.
    fn count(&self, most: usize, meet: impl FnMut(usize, Scalar<'_>)) -> (usize, bool);
    /// Element `i` of a table, from 1.
    fn element<R>(&self, i: usize, f: impl FnOnce(&Self) -> R) -> R;
    /// The member of a table, or nil.
    fn member<R>(&self, name: Name<'_>, f: impl FnOnce(&Self) -> R) -> R;
    /// Every pair of a table: key, value and place.
    fn each<E>(&self, f: impl FnMut(&Self, &Self, Self::Place) -> Result<(), E>) -> Result<(), E>;
    /// The value at a place that `each` gave.
    fn at<R>(&self, place: &Self::Place, f: impl FnOnce(&Self) -> R) -> R;
}

/// A number of Lua as a scalar: an integer where it is one.
#[inline]
pub(crate) fn number(n: f64) -> Scalar<'static> {
    let i = n as i64;
    // Neither -0.0 nor what was cut off in the cast.
    if (i as f64).to_bits() == n.to_bits() && i != i64::MAX { Scalar::Int(i) } else { Scalar::Float(n) }
}

pub(crate) fn is_null(value: &impl Lent) -> bool {
    value.scalar(|scalar| matches!(scalar, Scalar::Null))
}

/// Sets a declared field of the row under way.
fn set(declared: Declared<'_>, value: &impl Lent, budget: &mut Budget, rows: &mut Rows) -> Result<(), Problem> {
    let field = declared.field;
    if field.kind == FieldType::Json && !is_null(value) {
        let text = json(value, budget).map_err(|p| p.below(&field.name))?;
        rows.set(declared.cell, Cell::Text(text.into()));
        return Ok(());
    }
    value.scalar(|scalar| {
        rows.set(declared.cell, scalar_cell(field, scalar, budget)?);
        Ok(())
    })
}

/// The cell of a declared field that is not of type `json`.
fn scalar_cell<'a>(field: &Field, scalar: Scalar<'a>, budget: &mut Budget) -> Result<Cell<'a>, Problem> {
    let cell = match (field.kind, scalar) {
        (_, Scalar::Null) => return absent(field),
        // Where a number cannot hold the integer, a text does.
        (FieldType::I64, Scalar::Text(text)) => match text.parse::<i64>() {
            Ok(i) if exact(i).is_none() => cell(field, Scalar::Int(i)),
            _ => cell(field, scalar),
        },
        _ => cell(field, scalar),
    }?;
    budget.take(if let Cell::Text(text) = &cell { text.len() } else { SCALAR_BYTES }).map_err(|p| p.below(&field.name))?;
    Ok(cell)
}

/// What walking the pairs of a table gave of a row, beside what it set of the row under way.
#[derive(Default)]
struct Walked {
    draft: Draft,
    /// Pairs, counted up to some number.
    count: usize,
    /// Those that are declared members, null ones left out.
    known: usize,
    /// Members that have to be looked at once more, by their numbers in the walk; none where that is all of them.
    left: Option<Vec<usize>>,
}

impl Walked {
    /// Nothing of a table that has so many pairs.
    fn nothing(count: usize, rows: &mut Rows) -> Self {
        rows.cancel();
        Self { count, ..Self::default() }
    }

    fn of(fields: &Fields<'_>, table: &impl Lent, most: usize, budget: &mut Budget, rows: &mut Rows) -> Self {
        let (before, mut walked) = (*budget, Self { left: Some(Vec::new()), ..Self::default() });
        match table.count(most, |member, scalar| walked.meet(fields, member, scalar, budget, rows)) {
            (count, true) => Self { count, ..walked },
            (count, false) => {
                *budget = before;
                Self::nothing(count, rows)
            }
        }
    }

    /// Takes a member whose value is right: what is wrong is told in the order of the fields.
    #[inline]
    fn meet(&mut self, fields: &Fields<'_>, member: usize, scalar: Scalar<'_>, budget: &mut Budget, rows: &mut Rows) {
        if let Some(declared) = fields.declared.get(member)
            && let Some(left) = budget.0.checked_sub(SCALAR_BYTES)
            && set_plain(*declared, scalar, rows)
        {
            budget.0 = left;
            self.known += 1;
        } else {
            self.meet_other(fields, member, scalar, budget, rows);
        }
    }

    #[inline(never)]
    fn meet_other(&mut self, fields: &Fields<'_>, member: usize, scalar: Scalar<'_>, budget: &mut Budget, rows: &mut Rows) {
        let is_taken = match fields.declared.get(member) {
            Some(_) if matches!(scalar, Scalar::Null) => true,
            Some(declared) if declared.field.kind == FieldType::Json => false,
            Some(declared) => match scalar_cell(declared.field, scalar, budget) {
                Ok(cell) => {
                    rows.set(declared.cell, cell);
                    self.known += 1;
                    true
                }
                Err(_) => false,
            },
            None => self.named(fields, member, scalar).is_ok(),
        };
        if !is_taken {
            self.left.get_or_insert_default().push(member);
        }
    }

    /// Takes `occurred_at` or `event_type`, which come behind the declared fields.
    fn named(&mut self, fields: &Fields<'_>, member: usize, scalar: Scalar<'_>) -> Result<(), Problem> {
        let name = if member == fields.declared.len() {
            self.draft.occurred_at = occurred_at(scalar)?;
            names::OCCURRED_AT
        } else {
            self.draft.event_type = event_type(scalar)?;
            names::EVENT_TYPE
        };
        self.known += usize::from(!matches!(scalar, Scalar::Null) && fields.index(name.text).is_none());
        Ok(())
    }

    /// Looks at what is left; how many members are known then.
    fn finish(mut self, fields: &Fields<'_>, table: &impl Lent, budget: &mut Budget, rows: &mut Rows) -> Result<(Draft, usize), Problem> {
        let left = self.left.take();
        let is_left = |member| left.as_ref().is_none_or(|left| left.contains(&member));
        let names = fields.declared.len();
        for (member, declared) in fields.declared.iter().enumerate() {
            if rows.is_set(declared.cell) {
                continue;
            }
            if is_left(member) {
                table.member(names::field(member, &declared.field.name), |value| {
                    self.known += usize::from(!is_null(value));
                    set(*declared, value, budget, rows)
                })?;
            } else {
                absent(declared.field)?;
            }
        }
        for (member, name) in [(names, names::OCCURRED_AT), (names + 1, names::EVENT_TYPE)] {
            if is_left(member) {
                table.member(name, |value| value.scalar(|scalar| self.named(fields, member, scalar)))?;
            }
        }
        Ok((self.draft, self.known))
    }
}

/// What a table has of a row's declared members, and how many of its pairs they are. `before` is the budget before the walk.
fn declared(
    fields: &Fields<'_>,
    table: &impl Lent,
    walked: Walked,
    before: Budget,
    budget: &mut Budget,
    rows: &mut Rows,
) -> Result<(Draft, usize), Problem> {
    let count = walked.count;
    match walked.finish(fields, table, budget, rows) {
        // Which member finds nothing left must not depend on the order of the walk.
        Err(problem) if problem.code == Code::OutputTooLarge => {
            *budget = before;
            Walked::nothing(count, rows).finish(fields, table, budget, rows)
        }
        finished => finished,
    }
}

/// Appends the row that was decoded: its declared members, and nothing of the others. After a problem, here and in [`rows`], the
/// caller takes back what was appended.
pub(crate) fn decoded<L: Lent>(
    fields: &Fields<'_>,
    event: &Event,
    table: Option<&L>,
    budget: &mut Budget,
    rows: &mut Rows,
) -> Result<(), Problem> {
    let mut draft = Draft::default();
    match table {
        None => fields.declared.iter().try_for_each(|declared| absent(declared.field).map(drop))?,
        Some(table) => {
            let before = *budget;
            let walked = Walked::of(fields, table, RESULT_FIELDS_MAX, budget, rows);
            draft = declared(fields, table, walked, before, budget, rows)?.0;
        }
    }
    fields.end(event, draft, rows)
}

/// Appends a row, or a list of rows.
pub(crate) fn rows(fields: &Fields<'_>, event: &Event, table: &impl Lent, budget: &mut Budget, rows: &mut Rows) -> Result<(), Problem> {
    let len = table.len();
    if len == 0 {
        return row(fields, event, table, budget, rows);
    }
    if len > RESULT_ROWS_MAX {
        return Err(Problem::new(Code::OutputTooLarge, format!("{len} rows, above {RESULT_ROWS_MAX}")));
    }
    let (mut other, mut nameless) = (None, None);
    table.each(|key, _, _| {
        if !key.scalar(|key| is_index(key, len)) && other.is_none() {
            other = key_text(key, str::to_owned);
        }
        nameless = least(nameless, key);
        Ok::<_, Problem>(())
    })?;
    if let Some(kind) = nameless {
        return Err(no_name(kind));
    }
    if let Some(name) = other {
        let detail = format!("transform returned a list of rows that has the field {name} as well: return a row, or a list of rows");
        return Err(Problem::new(Code::ResultInvalid, detail));
    }
    for i in 1..=len {
        let made = table.element(i, |element| {
            if element.is_table() {
                row(fields, event, element, budget, rows)
            } else {
                Err(Problem::new(Code::ResultInvalid, format!("a row is a table, not {}", element.name())))
            }
        });
        made.map_err(|p| p.below(&(i - 1).to_string()))?;
    }
    Ok(())
}

fn is_index(key: Scalar<'_>, len: usize) -> bool {
    matches!(key, Scalar::Int(i) if i >= 1 && i as u64 <= len as u64)
}

fn row(fields: &Fields<'_>, event: &Event, table: &impl Lent, budget: &mut Budget, rows: &mut Rows) -> Result<(), Problem> {
    let before = *budget;
    let walked = Walked::of(fields, table, RESULT_FIELDS_MAX + 1, budget, rows);
    let count = walked.count;
    if count == 0 {
        // Neither a row nor `nil`: taken as either, something would be made up, or lost in silence.
        let detail = "transform returned an empty table: return nil to leave an event out, or a row with a value";
        return Err(Problem::new(Code::ResultInvalid, detail));
    }
    if count > RESULT_FIELDS_MAX {
        return Err(Problem::new(Code::OutputTooLarge, format!("a row of more than {RESULT_FIELDS_MAX} fields")));
    }
    let (mut draft, known) = declared(fields, table, walked, before, budget, rows)?;
    // A null counts among the others, where it is looked at and left.
    if known < count {
        let mut nameless = None;
        table.each(|key, _, _| {
            nameless = least(nameless, key);
            Ok::<_, Problem>(())
        })?;
        if let Some(kind) = nameless {
            return Err(no_name(kind));
        }
        table.each(|key, value, _| key_text(key, |name| attribute(fields, name, value, &mut draft, budget)).unwrap_or(Ok(())))?;
    }
    fields.end(event, draft, rows)
}

/// An undeclared field of a row; null is none.
fn attribute(fields: &Fields<'_>, name: &str, value: &impl Lent, draft: &mut Draft, budget: &mut Budget) -> Result<(), Problem> {
    if matches!(name, "occurred_at" | "event_type") || fields.index(name).is_some() || is_null(value) {
        return Ok(());
    }
    let text = match value.scalar(|scalar| if let Scalar::Text(text) = scalar { Some(text.to_owned()) } else { None }) {
        Some(text) => text,
        None if value.name() == "string" => return Err(Problem::new(Code::WrongType, format!("{name} is no UTF-8")).below(name)),
        None => json(value, budget).map_err(|p| p.below(name))?,
    };
    budget.take(name.len() + text.len()).map_err(|p| p.below(name))?;
    draft.attributes.push((name.into(), text.into()));
    Ok(())
}

/// A key as the name of a member; none for what names nothing.
fn key_text<R>(key: &impl Lent, f: impl FnOnce(&str) -> R) -> Option<R> {
    key.scalar(|scalar| match scalar {
        Scalar::Text(text) => Some(f(text)),
        Scalar::Int(i) => Some(f(&i.to_string())),
        _ => None,
    })
}

/// The kind of a key that names nothing. Where a table has several, their order depends on addresses: the least is told.
fn least(found: Option<&'static str>, key: &impl Lent) -> Option<&'static str> {
    if key.scalar(|key| matches!(key, Scalar::Text(_) | Scalar::Int(_))) {
        return found;
    }
    Some(found.map_or(key.name(), |found| found.min(key.name())))
}

fn no_name(kind: &str) -> Problem {
    let detail = if kind == "string" { "a key is no UTF-8".to_owned() } else { format!("a key is a {kind}") };
    Problem::new(Code::ResultInvalid, detail)
}

/// A value as JSON text.
fn json(value: &impl Lent, budget: &mut Budget) -> Result<String, Problem> {
    let mut out = String::new();
    document(value, budget, &mut Containers::default())?.root().write_json(&mut out);
    Ok(out)
}

/// The first elements of a list, up to where one is nil.
fn first<L: Lent, T>(table: &L, mut f: impl FnMut(&L) -> T) -> Vec<T> {
    (1..=REASONS_MAX).map_while(|i| table.element(i, |value| (!value.is_nil()).then(|| f(value)))).collect()
}

/// A decoder's `errors`: a text, or a list of texts.
pub(crate) fn errors(value: &impl Lent) -> Rejection {
    let told = if value.is_table() { first(value, text_of).join("; ") } else { text_of(value) };
    // Something else than a list of texts says nothing as one.
    let detail = if told.is_empty() { format!("errors is {}", text_of(value)) } else { told };
    Rejection::new(StageName::Decode, Code::DecodeFailed, detail)
}

/// A decoder's result that has no `data`, and something that nobody would read.
pub(crate) fn no_data(result: &impl Lent) -> Rejection {
    // The order of a walk depends on how the table grew: the least is told.
    let mut other: Option<String> = None;
    let walked = result.each(|key, _, _| {
        let name = key_text(key, str::to_owned).unwrap_or_else(|| format!("a key that is a {}", key.name()));
        if !["errors", "warnings"].contains(&name.as_str()) && other.as_ref().is_none_or(|other| name < *other) {
            other = Some(name);
        }
        Ok::<_, std::convert::Infallible>(())
    });
    let (Ok(()), other) = (walked, other.unwrap_or_default());
    let detail = format!("decode returned {other} and no data: what was decoded goes into data, beside it there are errors and warnings");
    Rejection::new(StageName::Decode, Code::ResultInvalid, cut(detail, REJECTION_DETAIL_BYTES_MAX))
}

fn text_of(value: &impl Lent) -> String {
    match value.text_lossy() {
        Some(text) => text,
        None => json(value, &mut Budget::new(1_024)).unwrap_or_else(|_| value.name().to_owned()),
    }
}

/// A validator's results other than `true`: the first reason with its place, and what else was wrong.
pub(crate) fn reasons(verdict: &impl Lent, why: &impl Lent) -> Rejection {
    if !verdict.scalar(|scalar| matches!(scalar, Scalar::Bool(false))) {
        let detail = format!("validate returns true or false, not {}", verdict.name());
        return Rejection::new(StageName::Validate, Code::ResultInvalid, detail);
    }
    let reasons = if why.is_table() && why.len() > 0 { first(why, reason) } else { vec![reason(why)] };
    let mut reasons = reasons.into_iter();
    let first = reasons.next().unwrap_or_else(|| Rejection::new(StageName::Validate, Code::Invalid, ""));
    together(first, reasons)
}

/// One rejection for several: the first one's code and place, and a detail that names the others.
pub(crate) fn together(mut first: Rejection, others: impl Iterator<Item = Rejection>) -> Rejection {
    let named: Vec<String> = others.map(|r| if r.pointer.is_empty() { r.code } else { format!("{} at {}", r.code, r.pointer) }).collect();
    if !named.is_empty() {
        let separator = if first.detail.is_empty() { "" } else { "; " };
        let detail = format!("{}{separator}also {}", first.detail, named.join(", "));
        first.detail = cut(detail, REJECTION_DETAIL_BYTES_MAX);
    }
    first
}

fn reason(why: &impl Lent) -> Rejection {
    let mut rejection = Rejection::new(StageName::Validate, Code::Invalid, "");
    let member = |name| why.member(name, |value| if is_null(value) { None } else { Some(text_of(value)) });
    if why.is_table() {
        if let Some(code) = member(names::CODE).filter(|c| !c.is_empty()) {
            rejection.code = cut(code, CODE_BYTES_MAX);
        }
        rejection.detail = cut(member(names::DETAIL).unwrap_or_default(), REJECTION_DETAIL_BYTES_MAX);
        rejection = rejection.at(member(names::POINTER).unwrap_or_default());
    } else if !is_null(why) {
        rejection.detail = cut(text_of(why), REJECTION_DETAIL_BYTES_MAX);
    }
    rejection
}
