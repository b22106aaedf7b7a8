//! Rows of one table in columns, as the stages make them: a block is gathered from their ranges.

use crate::row::{Cell, Row};
use crate::table::{FieldType, Table};
use crate::time::Micros;
use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::error::ArrowError;
use std::ops::Range;
use std::sync::Arc;

/// What a field takes in a block beside its text.
pub(crate) const CELL_BYTES: usize = 9;
/// What a text may take. Only for room: longer ones are copied as they come.
pub(crate) const TEXT_BYTES: usize = 24;

/// Rows of one table. Values of the row under way are set in any order, what is not set is null; `end` makes a row of them.
#[derive(Debug, Default)]
pub struct Rows {
    columns: Vec<Column>,
    occurred_at: Vec<Micros>,
    /// Of each row, by its place in `types`.
    event_type: Vec<u32>,
    types: Vec<Arc<str>>,
    /// About what each row takes in a block, without what it has of its event.
    bytes: Vec<u32>,
    attributes: Vec<(Box<str>, Box<str>)>,
    /// Where those of each row end.
    attributes_end: Vec<u32>,
    /// Texts of the row under way.
    text_bytes: usize,
}

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
    fn resize(&mut self, rows: usize) -> usize {
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
    fn push(&mut self, cell: &Cell<'_>) -> usize {
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
        self.valid.append_non_null();
        self.len += 1;
        if let Cell::Text(text) = cell { text.len() } else { 0 }
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

    fn cell(&self, row: usize) -> Cell<'_> {
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

impl Rows {
    /// No rows of `table` yet, and room for so many: what grows is copied.
    pub fn new(table: &Table, rows: usize) -> Self {
        Self::of(table.fields.iter().map(|c| c.kind), rows)
    }

    pub(crate) fn of(kinds: impl Iterator<Item = FieldType>, rows: usize) -> Self {
        Self {
            columns: kinds.map(|kind| Column::new(kind, rows)).collect(),
            occurred_at: Vec::with_capacity(rows),
            event_type: Vec::with_capacity(rows),
            bytes: Vec::with_capacity(rows),
            attributes_end: Vec::with_capacity(rows),
            ..Self::default()
        }
    }

    /// How many there are, the one under way left out.
    pub fn len(&self) -> usize {
        self.occurred_at.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A column up to the row under way, without what was set there.
    #[inline(always)]
    fn column(&mut self, column: usize) -> &mut Column {
        let row = self.len();
        let column = &mut self.columns[column];
        if column.len != row {
            self.text_bytes -= column.resize(row);
        }
        column
    }

    /// Sets a value of the row under way, by its place in the table. One of another type than the field's is a null.
    pub fn set(&mut self, column: usize, cell: Cell<'_>) {
        self.text_bytes += self.column(column).push(&cell);
    }

    /// The same for an `f64`, where most values are one.
    #[inline(always)]
    pub fn set_f64(&mut self, column: usize, value: f64) {
        let column = self.column(column);
        if let Values::F64(values) = &mut column.values {
            values.push(value);
            column.valid.append_non_null();
            column.len += 1;
        }
    }

    /// The same for an `i64`.
    #[inline(always)]
    pub fn set_i64(&mut self, column: usize, value: i64) {
        let column = self.column(column);
        if let Values::I64(values) = &mut column.values {
            values.push(value);
            column.valid.append_non_null();
            column.len += 1;
        }
    }

    /// Whether the row under way has a value there.
    pub fn is_set(&self, column: usize) -> bool {
        self.columns[column].len > self.len()
    }

    /// Makes a row of what was set.
    pub fn end(&mut self, occurred_at: Micros, event_type: &Arc<str>, mut attributes: Vec<(Box<str>, Box<str>)>) {
        self.occurred_at.push(occurred_at);
        if self.types.last().is_none_or(|last| last != event_type) {
            self.types.push(Arc::clone(event_type));
        }
        self.event_type.push(self.types.len() as u32 - 1);
        let told: usize = attributes.iter().map(|(name, value)| name.len() + value.len() + CELL_BYTES).sum();
        let texts = std::mem::take(&mut self.text_bytes) + event_type.len();
        self.bytes.push((self.columns.len() * CELL_BYTES + texts + told) as u32);
        self.attributes.append(&mut attributes);
        self.attributes_end.push(self.attributes.len() as u32);
    }

    /// Forgets what was set of the row under way.
    pub fn cancel(&mut self) {
        self.truncate(self.len());
    }

    /// Forgets the rows from `rows` on, and what was set of the one under way.
    pub fn truncate(&mut self, rows: usize) {
        for column in &mut self.columns {
            if column.len > rows {
                column.resize(rows);
            }
        }
        self.text_bytes = 0;
        self.occurred_at.truncate(rows);
        self.event_type.truncate(rows);
        self.types.truncate(self.event_type.last().map_or(0, |last| *last as usize + 1));
        self.bytes.truncate(rows);
        self.attributes_end.truncate(rows);
        self.attributes.truncate(self.attributes_end.last().map_or(0, |end| *end as usize));
    }

    /// Appends a row.
    pub fn push(&mut self, row: &Row) {
        for (column, cell) in row.cells.iter().take(self.columns.len()).enumerate() {
            self.set(column, cell.clone());
        }
        self.end(row.occurred_at, &row.event_type, row.attributes.clone());
    }

    /// About what a row takes in a block, without what it has of its event.
    pub fn bytes(&self, row: usize) -> usize {
        self.bytes[row] as usize
    }

    /// One of them by itself.
    pub fn row(&self, row: usize) -> Row {
        Row {
            occurred_at: self.occurred_at[row],
            event_type: Arc::clone(&self.types[self.event_type[row] as usize]),
            cells: self.columns.iter().map(|column| column.cell(row).into_owned()).collect(),
            attributes: self.attributes(row).to_vec(),
        }
    }

    /// Some of them by themselves.
    pub fn range(&self, rows: Range<u32>) -> Vec<Row> {
        rows.map(|row| self.row(row as usize)).collect()
    }

    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }
    pub(crate) fn occurred_at(&self) -> &[Micros] {
        &self.occurred_at
    }
    pub(crate) fn event_type(&self, row: usize) -> &str {
        &self.types[self.event_type[row] as usize]
    }
    pub(crate) fn attributes(&self, row: usize) -> &[(Box<str>, Box<str>)] {
        let from = row.checked_sub(1).map_or(0, |before| self.attributes_end[before]);
        &self.attributes[from as usize..self.attributes_end[row] as usize]
    }
}
