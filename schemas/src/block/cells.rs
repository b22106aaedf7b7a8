//! Rows of any table as they are read back: what a person or a program is shown of them.

use super::BlockError;
use crate::time::{self, Micros};
use arrow::array::*;
use arrow::datatypes::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Serialize, Serializer};
use std::ops::Range;

/// The rows of a block, by column.
#[derive(Debug, Clone)]
pub struct RowsRead {
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
}

#[derive(Debug, Clone)]
enum Column {
    Bool(BooleanArray),
    I32(Int32Array),
    I64(Int64Array),
    F64(Float64Array),
    Text(StringArray),
    /// Keys, and the names that they stand for.
    Names(Int32Array, StringArray),
    Timestamp(TimestampMicrosecondArray),
    Bytes(BinaryArray),
    Map(MapArray),
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum CellRef<'a> {
    /// Absent.
    Null,
    /// `bool`
    Bool(bool),
    /// `i64`, and the smaller integers of provenance.
    I64(i64),
    /// `f64`
    F64(f64),
    /// `text`, and `json` as its text.
    Text(&'a str),
    /// `timestamp`
    Timestamp(Micros),
    /// Bytes as they were sent.
    Bytes(&'a [u8]),
    /// Attributes.
    Map(Pairs<'a>),
}

/// The entries of one map.
#[derive(Debug, Clone, PartialEq)]
pub struct Pairs<'a> {
    keys: &'a StringArray,
    values: &'a StringArray,
    range: Range<usize>,
}

/// One row of some.
#[derive(Debug, Clone, Copy)]
pub struct RowRef<'a> {
    of: &'a RowsRead,
    row: usize,
}

impl RowsRead {
    /// Finds the columns of a block.
    ///
    /// # Errors
    /// A column is of no type that tables have.
    pub fn new(batch: &RecordBatch) -> Result<Self, BlockError> {
        let unknown = |name: &str| BlockError(format!("column {name} is of a type that no table has"));
        let fields = batch.schema_ref().fields().iter().zip(batch.columns());
        let columns = fields.map(|(field, array)| Column::of(array).ok_or_else(|| unknown(field.name()))).collect::<Result<_, _>>()?;
        Ok(Self { schema: batch.schema(), columns, rows: batch.num_rows() })
    }

    /// The block's schema.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// One of its rows.
    pub fn row(&self, row: usize) -> RowRef<'_> {
        RowRef { of: self, row }
    }

    /// Its rows, in order.
    pub fn rows(&self) -> impl Iterator<Item = RowRef<'_>> {
        (0..self.rows).map(|row| self.row(row))
    }
}

impl Column {
    fn of(array: &ArrayRef) -> Option<Self> {
        Some(match array.data_type() {
            DataType::Boolean => Self::Bool(array.as_boolean().clone()),
            DataType::Int32 => Self::I32(array.as_primitive().clone()),
            DataType::Int64 => Self::I64(array.as_primitive().clone()),
            DataType::Float64 => Self::F64(array.as_primitive().clone()),
            DataType::Utf8 => Self::Text(array.as_string().clone()),
            DataType::Dictionary(..) => {
                let names = array.as_dictionary_opt::<Int32Type>()?;
                Self::Names(names.keys().clone(), names.values().as_string_opt()?.clone())
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => Self::Timestamp(array.as_primitive().clone()),
            DataType::Binary => Self::Bytes(array.as_binary().clone()),
            DataType::Map(..) => {
                let map = array.as_map();
                map.keys().as_string_opt::<i32>().zip(map.values().as_string_opt::<i32>())?;
                Self::Map(map.clone())
            }
            _ => return None,
        })
    }

    fn cell(&self, row: usize) -> CellRef<'_> {
        match self {
            Self::Bool(c) if c.is_valid(row) => CellRef::Bool(c.value(row)),
            Self::I32(c) if c.is_valid(row) => CellRef::I64(c.value(row).into()),
            Self::I64(c) if c.is_valid(row) => CellRef::I64(c.value(row)),
            Self::F64(c) if c.is_valid(row) => CellRef::F64(c.value(row)),
            Self::Text(c) if c.is_valid(row) => CellRef::Text(c.value(row)),
            Self::Names(keys, names) if keys.is_valid(row) => CellRef::Text(names.value(keys.value(row) as usize)),
            Self::Timestamp(c) if c.is_valid(row) => CellRef::Timestamp(c.value(row)),
            Self::Bytes(c) if c.is_valid(row) => CellRef::Bytes(c.value(row)),
            Self::Map(c) if c.is_valid(row) => {
                let (start, end) = (c.value_offsets()[row] as usize, c.value_offsets()[row + 1] as usize);
                CellRef::Map(Pairs { keys: c.keys().as_string(), values: c.values().as_string(), range: start..end })
            }
            _ => CellRef::Null,
        }
    }
}

impl<'a> RowRef<'a> {
    /// The value in a column, which is one of the schema's.
    pub fn cell(&self, column: usize) -> CellRef<'a> {
        self.of.columns[column].cell(self.row)
    }

    /// Names and values of all columns, in order.
    pub fn cells(&self) -> impl Iterator<Item = (&'a str, CellRef<'a>)> {
        let row = self.row;
        self.of.schema.fields().iter().zip(&self.of.columns).map(move |(field, column)| (field.name().as_str(), column.cell(row)))
    }
}

impl<'a> Pairs<'a> {
    /// Keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let (keys, values) = (self.keys, self.values);
        self.range.clone().map(move |i| (keys.value(i), values.is_valid(i).then(|| values.value(i))))
    }
}

/// As JSON: numbers as numbers, times as RFC 3339, maps as objects; bytes as the text that they are, else `{"base64": …}`.
impl Serialize for CellRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(v) => serializer.serialize_bool(*v),
            Self::I64(v) => serializer.serialize_i64(*v),
            Self::F64(v) => serializer.serialize_f64(*v),
            Self::Text(v) => serializer.serialize_str(v),
            Self::Timestamp(v) => serializer.serialize_str(&time::format(*v)),
            Self::Bytes(v) => match std::str::from_utf8(v) {
                Ok(text) => serializer.serialize_str(text),
                Err(_) => serializer.collect_map([("base64", STANDARD.encode(v))]),
            },
            Self::Map(pairs) => serializer.collect_map(pairs.iter()),
        }
    }
}
