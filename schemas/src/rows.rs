//! Rows of one table in columns, as the stages make them: a block is gathered from their ranges.

mod column;

pub(crate) use column::{Column, TEXT_BYTES};

use crate::row::{Cell, Row};
use crate::table::{FieldType, Table};
use crate::time::Micros;
use std::ops::Range;
use std::sync::Arc;

/// What a field takes in a block beside its text.
pub(crate) const CELL_BYTES: usize = 9;

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
        if column.len() != row {
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
        self.column(column).push_f64(value);
    }

    /// The same for an `i64`.
    #[inline(always)]
    pub fn set_i64(&mut self, column: usize, value: i64) {
        self.column(column).push_i64(value);
    }

    /// Whether the row under way has a value there.
    pub fn is_set(&self, column: usize) -> bool {
        self.columns[column].len() > self.len()
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
            if column.len() > rows {
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
