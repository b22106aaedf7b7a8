//! The rows of an open cut. One tenant's rows come in many small pieces (an epoch may hold three of a tenant), and a
//! batch of thirty columns costs kilobytes however few its rows are: so they are copied into columns that grow. A large block of
//! one tenant stays as it is.

use super::PieceData;
use arrow::array::*;
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::*;
use arrow::error::ArrowError;
use bytes::Bytes;
use std::sync::Arc;
use tidegate_schemas::sink::Rows;

/// Rows after which columns begin anew: what grows is copied, and a cut may hold a million.
const CHUNK_ROWS: usize = 4096;

pub(super) enum Gathered {
    Streams(Vec<Bytes>),
    Columns(Columns),
}

/// Columns under way, and those that are full.
pub(super) struct Columns {
    schema: SchemaRef,
    full: Vec<RecordBatch>,
    open: Vec<Column>,
    rows: usize,
}

impl Gathered {
    pub(super) fn new(schema: &SchemaRef, first: &PieceData) -> Self {
        match first {
            PieceData::Stream(_) => Self::Streams(Vec::new()),
            PieceData::Batch(_) | PieceData::Whole(_) => {
                Self::Columns(Columns { schema: Arc::clone(schema), full: Vec::new(), open: Vec::new(), rows: 0 })
            }
        }
    }

    pub(super) fn push(&mut self, piece: PieceData) -> Result<(), ArrowError> {
        match (self, piece) {
            (Self::Streams(streams), PieceData::Stream(stream)) => streams.push(stream),
            (Self::Columns(columns), PieceData::Batch(batch)) => columns.push(&batch)?,
            (Self::Columns(columns), PieceData::Whole(batch)) => {
                columns.end()?;
                columns.full.push(batch);
            }
            _ => return Err(ArrowError::InvalidArgumentError("streams and batches do not mix".into())),
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Rows, ArrowError> {
        Ok(match self {
            Self::Streams(streams) => Rows::Streams(streams),
            Self::Columns(mut columns) => {
                columns.end()?;
                Rows::Batches(columns.full)
            }
        })
    }
}

impl Columns {
    fn push(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        if self.open.is_empty() {
            self.open = self.schema.fields().iter().map(|f| Column::new(f.data_type())).collect();
        }
        for (column, array) in self.open.iter_mut().zip(batch.columns()) {
            column.push(array)?;
        }
        self.rows += batch.num_rows();
        if self.rows >= CHUNK_ROWS { self.end() } else { Ok(()) }
    }

    fn end(&mut self) -> Result<(), ArrowError> {
        if std::mem::take(&mut self.rows) > 0 {
            let columns = std::mem::take(&mut self.open).into_iter().zip(self.schema.fields());
            let arrays = columns.map(|(column, field)| column.finish(field.data_type())).collect::<Result<Vec<_>, _>>()?;
            self.full.push(RecordBatch::try_new(Arc::clone(&self.schema), arrays)?);
        }
        Ok(())
    }
}

/// One growing column. Builders begin without capacity: there are as many of them as open cuts times columns.
pub(super) enum Column {
    Bool(BooleanBuilder),
    I32(Int32Builder),
    I64(Int64Builder),
    F64(Float64Builder),
    Time(TimestampMicrosecondBuilder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Names(StringDictionaryBuilder<Int32Type>),
    Texts {
        offsets: Vec<i32>,
        keys: StringBuilder,
        values: StringBuilder,
        nulls: NullBufferBuilder,
    },
    /// Types that no table has today.
    Other(Vec<ArrayRef>),
}

impl Column {
    fn new(kind: &DataType) -> Self {
        let text = || StringBuilder::with_capacity(0, 0);
        match kind {
            DataType::Boolean => Self::Bool(BooleanBuilder::with_capacity(0)),
            DataType::Int32 => Self::I32(Int32Builder::with_capacity(0)),
            DataType::Int64 => Self::I64(Int64Builder::with_capacity(0)),
            DataType::Float64 => Self::F64(Float64Builder::with_capacity(0)),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Time(TimestampMicrosecondBuilder::with_capacity(0).with_data_type(kind.clone()))
            }
            DataType::Utf8 => Self::Text(text()),
            DataType::Binary => Self::Bytes(BinaryBuilder::with_capacity(0, 0)),
            DataType::Dictionary(k, v) if **k == DataType::Int32 && **v == DataType::Utf8 => {
                Self::Names(StringDictionaryBuilder::with_capacity(0, 0, 0))
            }
            DataType::Map(entry, _) if is_text_map(entry) => {
                Self::Texts { offsets: vec![0], keys: text(), values: text(), nulls: NullBufferBuilder::new(0) }
            }
            _ => Self::Other(Vec::new()),
        }
    }

    fn push(&mut self, array: &ArrayRef) -> Result<(), ArrowError> {
        match self {
            Self::Bool(b) => b.append_array(array.as_boolean()),
            Self::I32(b) => b.append_array(array.as_primitive()),
            Self::I64(b) => b.append_array(array.as_primitive()),
            Self::F64(b) => b.append_array(array.as_primitive()),
            Self::Time(b) => b.append_array(array.as_primitive()),
            Self::Text(b) => b.append_array(array.as_string())?,
            Self::Bytes(b) => b.append_array(array.as_binary())?,
            Self::Names(b) => {
                let names = array.as_dictionary::<Int32Type>().downcast_dict::<StringArray>();
                b.extend_dictionary(&names.ok_or_else(|| ArrowError::CastError("dictionary holds no text".into()))?)?;
            }
            Self::Texts { offsets, keys, values, nulls } => {
                let map = array.as_map();
                let from = map.value_offsets();
                let (start, end) = (from[0], from[from.len() - 1]);
                let shift = offsets[offsets.len() - 1] - start;
                offsets.extend(from[1..].iter().map(|o| o + shift));
                let (start, length) = (start as usize, (end - start) as usize);
                keys.append_array(map.keys().slice(start, length).as_string())?;
                values.append_array(map.values().slice(start, length).as_string())?;
                match map.nulls() {
                    Some(found) => nulls.append_buffer(found),
                    None => nulls.append_n_non_nulls(map.len()),
                }
            }
            Self::Other(arrays) => arrays.push(Arc::clone(array)),
        }
        Ok(())
    }

    fn finish(self, kind: &DataType) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Bool(mut b) => Arc::new(b.finish()),
            Self::I32(mut b) => Arc::new(b.finish()),
            Self::I64(mut b) => Arc::new(b.finish()),
            Self::F64(mut b) => Arc::new(b.finish()),
            Self::Time(mut b) => Arc::new(b.finish()),
            Self::Text(mut b) => Arc::new(b.finish()),
            Self::Bytes(mut b) => Arc::new(b.finish()),
            Self::Names(mut b) => Arc::new(b.finish()),
            Self::Texts { offsets, mut keys, mut values, mut nulls } => {
                let DataType::Map(entry, sorted) = kind else {
                    return Err(ArrowError::SchemaError("column is no map".into()));
                };
                let DataType::Struct(fields) = entry.data_type() else {
                    return Err(ArrowError::SchemaError("map has no entries".into()));
                };
                let entries = StructArray::try_new(fields.clone(), vec![Arc::new(keys.finish()), Arc::new(values.finish())], None)?;
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                Arc::new(MapArray::try_new(Arc::clone(entry), offsets, entries, nulls.finish(), *sorted)?)
            }
            Self::Other(arrays) => {
                let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
                arrow::compute::concat(&arrays)?
            }
        })
    }
}

fn is_text_map(entry: &Field) -> bool {
    matches!(entry.data_type(), DataType::Struct(fields) if fields.len() == 2 && fields.iter().all(|f| f.data_type() == &DataType::Utf8))
}
