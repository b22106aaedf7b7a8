//! Tables: what analysts see. A table is a definition of its own; templates fill it.

use crate::ids::{NodeId, TableId};
use crate::limits::{FIELD_NAME_BYTES_MAX, FIELDS_MAX};
use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Type of a declared field: what Delta and ClickHouse both hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldType {
    /// Arrow `Boolean`.
    Bool,
    /// Arrow `Int64`.
    I64,
    /// Arrow `Float64`; geo positions are two of them.
    F64,
    /// Arrow `Utf8`.
    Text,
    /// Arrow `Timestamp(us, UTC)`.
    Timestamp,
    /// Arrow `Utf8` that holds JSON.
    Json,
}

impl FieldType {
    /// As templates write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::I64 => "i64",
            Self::F64 => "f64",
            Self::Text => "text",
            Self::Timestamp => "timestamp",
            Self::Json => "json",
        }
    }
}

/// A declared field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// `[A-Za-z_][A-Za-z0-9_]{0,62}`, unique in the table ignoring case, no leading `_`.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// UCUM code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Whether a row without it is refused.
    #[serde(default)]
    pub required: bool,
    /// Least value allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Greatest value allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// A table of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Opaque: paths and ClickHouse names carry it.
    pub id: TableId,
    /// Who owns it; with the name it identifies the table.
    pub owner: NodeId,
    /// For people.
    pub name: String,
    /// Declared columns, in the order in which they were added. Bounds and `required` stay with the templates.
    pub fields: Vec<Column>,
}

/// A declared column of a table: always nullable, since templates differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// As [`Field::name`].
    pub name: String,
    /// As [`Field::kind`].
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// As [`Field::unit`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// Columns that every tenant table begins with, in order. Reserved names, ignoring case.
pub const LEADING: [&str; 10] =
    ["tenant", "organization", "event_id", "source", "asset", "event_type", "occurred_at", "received_at", "recorded_at", "template"];
/// Columns that every tenant table ends with, in order.
pub const TRAILING: [&str; 7] = ["attributes", "_log", "_partition", "_offset", "_index", "_row", "_epoch"];
/// The column that sinks partition by; no field may be called so.
pub const DATE: &str = "date";

/// Why fields make no table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The name cannot be a column.
    #[error("field name {0:?} is not [A-Za-z][A-Za-z0-9_]{{0,62}}")]
    Name(String),
    /// A column of Tidegate's own has this name.
    #[error("field name {0:?} is reserved")]
    Reserved(String),
    /// Two fields differ in case at most.
    #[error("field {0:?} occurs twice")]
    Twice(String),
    /// The table has this field with another type or unit.
    #[error("field {name:?} is {old} in the table and {new} in the template: another type or unit takes another table")]
    Changed {
        /// The field.
        name: String,
        /// As the table has it.
        old: String,
        /// As the template has it.
        new: String,
    },
    /// Too many.
    #[error("more than {FIELDS_MAX} fields")]
    TooMany,
}

/// Checks one field's name.
pub fn check_name(name: &str) -> Result<(), TableError> {
    let bytes = name.as_bytes();
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    if !bytes.first().is_some_and(u8::is_ascii_alphabetic) || bytes.len() > FIELD_NAME_BYTES_MAX || !bytes.iter().all(word) {
        return Err(TableError::Name(name.to_owned()));
    }
    let reserved = LEADING.iter().chain(&TRAILING).chain(&[DATE]).any(|r| r.eq_ignore_ascii_case(name));
    if reserved { Err(TableError::Reserved(name.to_owned())) } else { Ok(()) }
}

impl Table {
    /// This table with the fields of a template added; a field that it has must keep type and unit.
    pub fn with(&self, fields: &[Field]) -> Result<Self, TableError> {
        let mut table = self.clone();
        let mut seen: Vec<String> = Vec::new();
        for field in fields {
            check_name(&field.name)?;
            let lower = field.name.to_ascii_lowercase();
            if seen.contains(&lower) {
                return Err(TableError::Twice(field.name.clone()));
            }
            seen.push(lower);
            match table.fields.iter().find(|c| c.name.eq_ignore_ascii_case(&field.name)) {
                None => table.fields.push(Column { name: field.name.clone(), kind: field.kind, unit: field.unit.clone() }),
                Some(c) if c.name == field.name && c.kind == field.kind && c.unit == field.unit => {}
                Some(c) => {
                    let show = |name: &str, kind: FieldType, unit: &Option<String>| {
                        let unit = unit.as_deref().map_or("without unit".to_owned(), |unit| format!("in {unit}"));
                        // Names that differ only in case are one column.
                        if c.name == field.name {
                            format!("{} {unit}", kind.as_str())
                        } else {
                            format!("{name:?}, {} {unit},", kind.as_str())
                        }
                    };
                    return Err(TableError::Changed {
                        name: field.name.clone(),
                        old: show(&c.name, c.kind, &c.unit),
                        new: show(&field.name, field.kind, &field.unit),
                    });
                }
            }
        }
        if table.fields.len() > FIELDS_MAX { Err(TableError::TooMany) } else { Ok(table) }
    }

    /// The schema of the table's blocks.
    pub fn schema(&self) -> SchemaRef {
        let mut fields: Vec<ArrowField> = vec![
            ArrowField::new("tenant", dictionary(), false),
            ArrowField::new("organization", dictionary(), false),
            ArrowField::new("event_id", DataType::Utf8, false),
            ArrowField::new("source", dictionary(), false),
            ArrowField::new("asset", dictionary(), false),
            ArrowField::new("event_type", dictionary(), false),
            ArrowField::new("occurred_at", timestamp(), false),
            ArrowField::new("received_at", timestamp(), false),
            ArrowField::new("recorded_at", timestamp(), false),
            ArrowField::new("template", dictionary(), false),
        ];
        fields.extend(self.fields.iter().map(Column::arrow));
        fields.push(ArrowField::new("attributes", attributes(), false));
        fields.extend(provenance());
        Arc::new(Schema::new(fields))
    }
}

impl Column {
    fn arrow(&self) -> ArrowField {
        let kind = match self.kind {
            FieldType::Bool => DataType::Boolean,
            FieldType::I64 => DataType::Int64,
            FieldType::F64 => DataType::Float64,
            FieldType::Text | FieldType::Json => DataType::Utf8,
            FieldType::Timestamp => timestamp(),
        };
        let field = ArrowField::new(&self.name, kind, true);
        match &self.unit {
            Some(unit) => field.with_metadata([("unit".to_owned(), unit.clone())]),
            None => field,
        }
    }
}

/// Columns of low cardinality: each block brings its own dictionary.
pub fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// Microseconds in UTC.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Text to text. The inner names are Parquet's own, so that no writer has to rename them.
pub fn attributes() -> DataType {
    let entry =
        DataType::Struct(vec![ArrowField::new("key", DataType::Utf8, false), ArrowField::new("value", DataType::Utf8, true)].into());
    DataType::Map(Arc::new(ArrowField::new("key_value", entry, false)), false)
}

/// Where a row comes from: `_log _partition _offset _index _row _epoch`.
pub fn provenance() -> [ArrowField; 6] {
    [
        ArrowField::new("_log", dictionary(), false),
        ArrowField::new("_partition", DataType::Int32, false),
        ArrowField::new("_offset", DataType::Int64, false),
        ArrowField::new("_index", DataType::Int32, false),
        ArrowField::new("_row", DataType::Int32, false),
        ArrowField::new("_epoch", DataType::Int64, false),
    ]
}
