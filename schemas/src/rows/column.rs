//! Values of one field, in the memory of an Arrow array.

use crate::row::Cell;
use crate::table::FieldType;
use crate::time::Micros;
use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::error::ArrowError;
use std::ops::Range;
use std::sync::Arc;

/// What a text may take. Only for room: longer ones are copied as they come.
pub(crate) const TEXT_BYTES: usize = 24;

/// Values of one field up to the last row that has one: what comes after it is null.
#[derive(Debug)]
pub(crate) struct Column {
    len: usize,
    valid: NullBufferBuilder,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Bool(BooleanBufferBuilder),
    I64(Vec<i64>),
    F64(Vec<f64>),
    /// And where each of them ends.
    Text(Vec<u8>, Vec<usize>),
    Timestamp(Vec<Micros>),
}

impl Column {
    pub(crate) fn new(kind: FieldType, rows: usize) -> Self {
        let values = match kind {
            FieldType::Bool => Values::Bool(BooleanBufferBuilder::new(rows)),
            FieldType::I64 => Values::I64(Vec::with_capacity(rows)),
            FieldType::F64 => Values::F64(Vec::with_capacity(rows)),
            FieldType::Text | FieldType::Json => Values::Text(Vec::with_capacity(rows * TEXT_BYTES), Vec::with_capacity(rows)),
            FieldType::Timestamp => Values::Timestamp(Vec::with_capacity(rows)),
        };
        Self { len: 0, valid: NullBufferBuilder::new(rows), values }
    }

    /// Ends after so many rows: what is missing is null. Returns the bytes of texts that went.
    #[cold]
    pub(super) fn resize(&mut self, rows: usize) -> usize {
        self.valid.truncate(rows);
        self.valid.append_n_nulls(rows.saturating_sub(self.len));
        self.len = rows;
        match &mut self.values {
            Values::Bool(values) => values.resize(rows),
            Values::I64(values) | Values::Timestamp(values) => values.resize(rows, 0),
            Values::F64(values) => values.resize(rows, 0.0),
            Values::Text(bytes, ends) => {
                let before = bytes.len();
                bytes.truncate(start_of(ends, rows.min(ends.len())));
                ends.resize(rows, bytes.len());
                return before - bytes.len();
            }
        }
        0
    }

    /// Appends one value; of another type than the field's it is a null. Returns the bytes of its text.
    pub(super) fn push(&mut self, cell: &Cell<'_>) -> usize {
        match (&mut self.values, cell) {
            (Values::Bool(values), Cell::Bool(value)) => values.append(*value),
            (Values::I64(values), Cell::I64(value)) => values.push(*value),
            (Values::F64(values), Cell::F64(value)) => values.push(*value),
            (Values::Timestamp(values), Cell::Timestamp(value)) => values.push(*value),
            (Values::Text(bytes, ends), Cell::Text(text)) => {
                bytes.extend_from_slice(text.as_bytes());
                ends.push(bytes.len());
            }
            _ => return 0,
        }
        self.pushed();
        if let Cell::Text(text) = cell { text.len() } else { 0 }
    }

    /// The same for an `f64`.
    #[inline(always)]
    pub(super) fn push_f64(&mut self, value: f64) {
        if let Values::F64(values) = &mut self.values {
            values.push(value);
            self.pushed();
        }
    }

    /// The same for an `i64`.
    #[inline(always)]
    pub(super) fn push_i64(&mut self, value: i64) {
        if let Values::I64(values) = &mut self.values {
            values.push(value);
            self.pushed();
        }
    }

    /// The last row has a value by now.
    #[inline(always)]
    fn pushed(&mut self) {
        self.valid.append_non_null();
        self.len += 1;
    }

    /// How many rows it has.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether a row has a value.
    fn is_valid(&self, row: usize) -> bool {
        row < self.len && self.valid.is_valid(row)
    }

    /// Appends rows of another column of this kind.
    pub(crate) fn extend(&mut self, from: &Self, rows: Range<usize>) {
        let len = self.len + rows.len();
        // Behind its end there is nothing but nulls.
        let rows = rows.start.min(from.len)..rows.end.min(from.len);
        match (&mut self.values, &from.values) {
            (Values::Bool(to), Values::Bool(from)) => to.append_packed_range(rows.clone(), from.as_slice()),
            (Values::I64(to), Values::I64(from)) | (Values::Timestamp(to), Values::Timestamp(from)) => {
                to.extend_from_slice(&from[rows.clone()]);
            }
            (Values::F64(to), Values::F64(from)) => to.extend_from_slice(&from[rows.clone()]),
            (Values::Text(to, ends), Values::Text(from, from_ends)) => {
                let start = start_of(from_ends, rows.start);
                let moved = to.len();
                to.extend_from_slice(&from[start..start_of(from_ends, rows.end)]);
                ends.extend(from_ends[rows.clone()].iter().map(|end| end - start + moved));
            }
            _ => unreachable!("both are columns of one table's field"),
        }
        self.len += rows.len();
        match from.valid.as_slice() {
            None => self.valid.append_n_non_nulls(rows.len()),
            Some(_) => rows.for_each(|row| self.valid.append(from.valid.is_valid(row))),
        }
        if self.len < len {
            self.resize(len);
        }
    }

    /// All of it as an Arrow array of so many rows.
    pub(crate) fn finish(mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        if self.len != rows {
            self.resize(rows);
        }
        let nulls = self.valid.finish();
        Ok(match self.values {
            Values::Bool(mut values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::I64(values) => Arc::new(Int64Array::try_new(values.into(), nulls)?),
            Values::F64(values) => Arc::new(Float64Array::try_new(values.into(), nulls)?),
            Values::Text(bytes, ends) => {
                let mut offsets = Vec::with_capacity(ends.len() + 1);
                offsets.push(0);
                offsets.extend(ends.iter().map(|end| *end as i32));
                let offsets = OffsetBuffer::new(offsets.into());
                Arc::new(StringArray::try_new(offsets, bytes.into(), nulls)?)
            }
            Values::Timestamp(values) => Arc::new(TimestampMicrosecondArray::try_new(values.into(), nulls)?.with_timezone("UTC")),
        })
    }

    pub(super) fn cell(&self, row: usize) -> Cell<'_> {
        if !self.is_valid(row) {
            return Cell::Null;
        }
        match &self.values {
            Values::Bool(values) => Cell::Bool(values.get_bit(row)),
            Values::I64(values) => Cell::I64(values[row]),
            Values::F64(values) => Cell::F64(values[row]),
            Values::Text(bytes, ends) => Cell::Text(String::from_utf8_lossy(&bytes[start_of(ends, row)..ends[row]])),
            Values::Timestamp(values) => Cell::Timestamp(values[row]),
        }
    }
}

/// Where a text begins among texts that end there.
fn start_of(ends: &[usize], text: usize) -> usize {
    text.checked_sub(1).map_or(0, |before| ends[before])
}
