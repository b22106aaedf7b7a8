//! Conditions on rows: `temperature > 30`. A field, an operator and a value, compared as the column's type has it. A row without
//! the field, or without a value in it, meets no condition, as in SQL.

use super::cells::{CellRef, RowRef};
use crate::time::{self, Micros};
use arrow::datatypes::{DataType, Schema};
use std::cmp::Ordering;
use std::str::FromStr;

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    field: String,
    operator: Operator,
    /// One of them meets it.
    values: Vec<String>,
}

/// Conditions that a row meets all.
#[derive(Debug, Clone, Default)]
pub struct Filter(pub Vec<Condition>);

/// A filter on the columns of one schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound(Vec<(usize, Operator, Vec<Literal>)>);

#[derive(Debug, Clone, PartialEq)]
enum Literal {
    Bool(bool),
    I64(i64),
    F64(f64),
    Text(String),
    Timestamp(Micros),
}

/// Why a text is no condition, or none of a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// It has not the form.
    #[error("{0:?} is no condition: a field, one of = != < <= > >=, and a value, like 'temperature > 30'")]
    Form(String),
    /// No table that is meant has the field.
    #[error("there is no field {field}; there are {}", known.join(", "))]
    Unknown {
        /// As it was asked for.
        field: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The value is not of the column's type.
    #[error("{value:?} is no {kind}, which field {field} is")]
    Value {
        /// As it was given.
        value: String,
        /// The field.
        field: String,
        /// Its type.
        kind: &'static str,
    },
    /// The type has no order, or is compared by nothing.
    #[error("field {field} is {kind}, which {takes}")]
    Operator {
        /// The field.
        field: String,
        /// Its type.
        kind: &'static str,
        /// What it takes instead.
        takes: &'static str,
    },
}

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let fail = || ConditionError::Form(text.to_owned());
        let at = text.find(['=', '!', '<', '>']).ok_or_else(fail)?;
        let (field, rest) = (text[..at].trim(), &text[at..]);
        // The longer ones first: they begin with the shorter.
        let operators = [
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("=", Operator::Equal),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        let (operator, value) = operators.iter().find_map(|(sign, o)| Some((*o, rest.strip_prefix(sign)?.trim()))).ok_or_else(fail)?;
        let quoted = |quote| value.strip_prefix(quote).and_then(|v| v.strip_suffix(quote));
        let value = match quoted('\'').or(quoted('"')) {
            Some(inner) => inner,
            // `==` and `=>` are slips, and would else be compared with a text that nobody meant.
            None if value.is_empty() || value.starts_with(['=', '<', '>']) => return Err(fail()),
            None => value,
        };
        let is_name = !field.is_empty() && field.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if is_name { Ok(Self::any(field, operator, [value])) } else { Err(fail()) }
    }
}

impl Condition {
    /// A condition that one of several values meets.
    pub fn any<T: Into<String>>(field: &str, operator: Operator, values: impl IntoIterator<Item = T>) -> Self {
        Self { field: field.to_owned(), operator, values: values.into_iter().map(Into::into).collect() }
    }

    fn bind(&self, schema: &Schema) -> Result<(usize, Operator, Vec<Literal>), ConditionError> {
        let Self { field, operator, values } = self;
        let unknown = || ConditionError::Unknown { field: field.clone(), known: names([schema]) };
        let (column, found) = schema.column_with_name(field).ok_or_else(unknown)?;
        let kind = kind_of(found.data_type());
        let refuse = |takes| ConditionError::Operator { field: field.clone(), kind, takes };
        match found.data_type() {
            DataType::Binary | DataType::Map(..) => return Err(refuse("is not compared")),
            DataType::Boolean if !matches!(operator, Operator::Equal | Operator::NotEqual) => return Err(refuse("takes = and !=")),
            _ => {}
        }
        let wrong = |value: &String| ConditionError::Value { value: value.clone(), field: field.clone(), kind };
        let literal = |value: &String| Literal::of(found.data_type(), value).ok_or_else(|| wrong(value));
        Ok((column, *operator, values.iter().map(literal).collect::<Result<_, _>>()?))
    }
}

impl Filter {
    /// The filter on a schema; none where a row of it can never meet all conditions.
    pub fn bind(&self, schema: &Schema) -> Option<Bound> {
        self.0.iter().map(|c| c.bind(schema)).collect::<Result<_, _>>().ok().map(Bound)
    }

    /// Whether every condition is one of some of these tables: what fits none is a slip.
    ///
    /// # Errors
    /// The first condition that fits none, and why.
    pub fn check(&self, schemas: &[&Schema]) -> Result<(), ConditionError> {
        for condition in &self.0 {
            let bound: Vec<_> = schemas.iter().map(|schema| condition.bind(schema)).collect();
            if bound.iter().any(Result::is_ok) {
                continue;
            }
            // A table that has the field tells more than one that has not.
            let errors = || bound.iter().filter_map(|b| b.as_ref().err());
            if let Some(error) = errors().find(|e| !matches!(e, ConditionError::Unknown { .. })) {
                return Err(error.clone());
            }
            return Err(ConditionError::Unknown { field: condition.field.clone(), known: names(schemas.iter().copied()) });
        }
        Ok(())
    }
}

impl Bound {
    /// Whether a row of the schema meets all conditions.
    pub fn takes(&self, row: &RowRef<'_>) -> bool {
        self.0.iter().all(|(column, operator, literals)| {
            let cell = row.cell(*column);
            literals.iter().any(|literal| literal.compare(&cell).is_some_and(|order| operator.holds(order)))
        })
    }
}

impl Operator {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Literal {
    fn of(kind: &DataType, text: &str) -> Option<Self> {
        match kind {
            DataType::Boolean => text.parse().ok().map(Self::Bool),
            DataType::Int32 | DataType::Int64 => text.parse().ok().map(Self::I64),
            DataType::Float64 => text.parse().ok().filter(|v: &f64| v.is_finite()).map(Self::F64),
            DataType::Timestamp(..) => time::parse(text).map(Self::Timestamp),
            _ => Some(Self::Text(text.to_owned())),
        }
    }

    /// How a row's value stands to this one; none where it has no value.
    fn compare(&self, cell: &CellRef<'_>) -> Option<Ordering> {
        match (self, cell) {
            (Self::Bool(value), CellRef::Bool(cell)) => Some(cell.cmp(value)),
            (Self::I64(value), CellRef::I64(cell)) => Some(cell.cmp(value)),
            (Self::F64(value), CellRef::F64(cell)) => cell.partial_cmp(value),
            (Self::Text(value), CellRef::Text(cell)) => Some(cell.cmp(&value.as_str())),
            (Self::Timestamp(value), CellRef::Timestamp(cell)) => Some(cell.cmp(value)),
            _ => None,
        }
    }
}

/// As templates write it, where they can.
fn kind_of(kind: &DataType) -> &'static str {
    match kind {
        DataType::Boolean => "bool",
        DataType::Int32 | DataType::Int64 => "i64",
        DataType::Float64 => "f64",
        DataType::Timestamp(..) => "timestamp",
        DataType::Binary => "bytes",
        DataType::Map(..) => "a map",
        _ => "text",
    }
}

/// Names of all fields, each once.
fn names<'a>(schemas: impl IntoIterator<Item = &'a Schema>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for field in schemas.into_iter().flat_map(Schema::fields) {
        if !names.contains(field.name()) {
            names.push(field.name().clone());
        }
    }
    names
}
