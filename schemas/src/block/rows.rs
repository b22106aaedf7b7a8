//! Rows of tenants' tables, to columns. They come sorted by tenant.

use super::build::{Attribution, Names, PART_BYTES, Parts, Provenance, push_map, text_map};
use super::{Block, BlockError};
use crate::row::{Origin, Row};
use crate::rows::{CELL_BYTES, Column, Rows, TEXT_BYTES};
use crate::table::{FieldType, Table};
use crate::time::Micros;
use arrow::array::*;
use std::ops::Range;
use std::sync::Arc;

/// What a row takes without its fields and texts.
const ROW_BYTES: usize = 134;

/// Builds the blocks of one tenant table of one epoch.
pub struct RowsBuilder {
    of: Attribution,
    parts: Parts,
    kinds: Vec<FieldType>,
    columns: Columns,
    /// How many rows may come after those of the part under way.
    later: usize,
}

/// What a row has beside its fields.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Whose it is.
    pub tenant: &'a str,
    /// Where its asset stands, as a path.
    pub organization: &'a str,
    /// The source.
    pub source: &'a str,
    /// The template with its version.
    pub template: &'a str,
    /// What all rows of its event have.
    pub origin: &'a Origin,
    /// Its place among the rows of its event.
    pub number: u32,
}

/// The columns of one part.
struct Columns {
    /// `tenant organization source template event_type asset`
    names: [Names; 6],
    event_id: StringBuilder,
    occurred_at: Vec<Micros>,
    received_at: Vec<Micros>,
    cells: Vec<Column>,
    attributes: MapBuilder<StringBuilder, StringBuilder>,
    provenance: Provenance,
}

impl Columns {
    fn new(kinds: &[FieldType], rows: usize) -> Self {
        Self {
            names: std::array::from_fn(|_| Names::with_capacity(rows)),
            event_id: StringBuilder::with_capacity(rows, rows * TEXT_BYTES),
            occurred_at: Vec::with_capacity(rows),
            received_at: Vec::with_capacity(rows),
            cells: kinds.iter().map(|kind| Column::new(*kind, rows)).collect(),
            attributes: text_map(),
            provenance: Provenance::with_capacity(rows),
        }
    }

    fn finish(mut self, of: &Attribution) -> Result<Vec<ArrayRef>, BlockError> {
        let [tenant, organization, source, template, event_type, asset] = &mut self.names;
        let rows = self.occurred_at.len();
        let time = |times: Vec<Micros>| Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")) as ArrayRef;
        let mut columns: Vec<ArrayRef> = vec![
            tenant.finish()?,
            organization.finish()?,
            Arc::new(self.event_id.finish()),
            source.finish()?,
            asset.finish()?,
            event_type.finish()?,
            time(self.occurred_at),
            time(self.received_at),
            Arc::new(TimestampMicrosecondArray::from_value(of.recorded_at, rows).with_timezone("UTC")),
            template.finish()?,
        ];
        for column in self.cells {
            columns.push(column.finish(rows).map_err(|e| BlockError(e.to_string()))?);
        }
        columns.push(Arc::new(self.attributes.finish()));
        self.provenance.finish(of, &mut columns)?;
        Ok(columns)
    }
}

impl RowsBuilder {
    /// An empty block of `table`, for `rows` rows if that is known: what grows is copied.
    pub fn new(of: Attribution, table: &Table, rows: usize) -> Self {
        let kinds: Vec<FieldType> = table.fields.iter().map(|c| c.kind).collect();
        let (first, later) = Self::split(&kinds, rows);
        Self { of, parts: Parts::new(table.id.as_str(), table.schema()), columns: Columns::new(&kinds, first), kinds, later }
    }

    /// How many of `rows` may fit in one part, and how many are left.
    fn split(kinds: &[FieldType], rows: usize) -> (usize, usize) {
        let first = rows.min(PART_BYTES / (ROW_BYTES + CELL_BYTES * kinds.len()));
        (first, rows - first)
    }

    /// Appends one row.
    pub fn push(&mut self, head: Head<'_>, row: &Row) -> Result<(), BlockError> {
        let mut rows = Rows::of(self.kinds.iter().copied(), 1);
        rows.push(row);
        self.extend([head], &rows, 0)
    }

    /// Appends the rows of `rows` from `first` on, one for each head. Rows come sorted by tenant.
    pub fn extend<'h>(&mut self, heads: impl IntoIterator<Item = Head<'h>>, rows: &Rows, first: usize) -> Result<(), BlockError> {
        let (mut taken, mut before) = (first..first, None);
        for head in heads {
            let names = [head.tenant, head.organization, head.source, head.template, rows.event_type(taken.end)];
            let ids = head.origin.asset.len() + head.origin.event_id.len();
            let bytes = ROW_BYTES + names[..4].iter().map(|name| name.len()).sum::<usize>() + ids + rows.bytes(taken.end);
            if self.parts.rows > 0 && self.parts.bytes + bytes > PART_BYTES {
                self.fields(rows, &mut taken);
                self.end()?;
                before = None;
            }
            self.parts.bytes += bytes;
            self.parts.rows += 1;
            self.head(&head, names, before.replace(names), rows, taken.end)?;
            taken.end += 1;
        }
        self.fields(rows, &mut taken);
        Ok(())
    }

    /// What a row has of its event. `before` are the names of the row before it, in the same part.
    fn head(&mut self, head: &Head<'_>, names: [&str; 5], before: Option<[&str; 5]>, rows: &Rows, row: usize) -> Result<(), BlockError> {
        let (columns, origin) = (&mut self.columns, head.origin);
        let [builders @ .., asset] = &mut columns.names;
        for (i, builder) in builders.iter_mut().enumerate() {
            // Most rows come from the same bundle as the one before.
            match before {
                Some(before) if std::ptr::eq(before[i], names[i]) => builder.repeat(),
                _ => builder.append_value(names[i]),
            }
        }
        asset.append_value(&origin.asset);
        columns.event_id.append_value(&*origin.event_id);
        columns.received_at.push(origin.received_at);
        push_map(&mut columns.attributes, rows.attributes(row))?;
        columns.provenance.push(origin.at, origin.index, head.number);
        Ok(())
    }

    /// Appends what some rows have of their own, and takes them off.
    fn fields(&mut self, rows: &Rows, taken: &mut Range<usize>) {
        self.columns.occurred_at.extend_from_slice(&rows.occurred_at()[taken.clone()]);
        for (to, from) in self.columns.cells.iter_mut().zip(rows.columns()) {
            to.extend(from, taken.clone());
        }
        taken.start = taken.end;
    }

    fn end(&mut self) -> Result<(), BlockError> {
        let next;
        (next, self.later) = Self::split(&self.kinds, self.later);
        let columns = std::mem::replace(&mut self.columns, Columns::new(&self.kinds, next));
        self.parts.end(columns.finish(&self.of)?)
    }

    /// The blocks; none where no row was pushed.
    pub fn finish(mut self) -> Result<Vec<Block>, BlockError> {
        self.end()?;
        Ok(self.parts.into_blocks(self.of.epoch))
    }
}
