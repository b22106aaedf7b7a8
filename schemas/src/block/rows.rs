//! Rows of tenants' tables, to columns. They come sorted by tenant.

use super::build::{Attribution, Names, PART_BYTES, Parts, Provenance, push_map, text_map};
use super::{Block, BlockError};
use crate::row::{Cell, Origin, Row};
use crate::table::{FieldType, Table};
use arrow::array::*;
use std::sync::Arc;

/// What a row takes without its fields and texts.
const ROW_BYTES: usize = 130;
/// What a field takes that is no text.
const CELL_BYTES: usize = 9;
/// What a text may take. Only for room: longer ones are copied as they come.
const TEXT_BYTES: usize = 24;

/// Builds the blocks of one tenant table of one epoch.
pub struct RowsBuilder {
    of: Attribution,
    log: String,
    parts: Parts,
    kinds: Vec<FieldType>,
    columns: Columns,
    /// How many rows may come after those of the part under way.
    later: usize,
}

/// The columns of one part.
struct Columns {
    names: [Names; 5],
    event_id: StringBuilder,
    times: [TimestampMicrosecondBuilder; 3],
    cells: Vec<CellBuilder>,
    attributes: MapBuilder<StringBuilder, StringBuilder>,
    template: Names,
    provenance: Provenance,
}

impl Columns {
    fn new(kinds: &[FieldType], rows: usize) -> Self {
        Self {
            names: std::array::from_fn(|_| Names::with_capacity(rows)),
            event_id: StringBuilder::with_capacity(rows, rows * TEXT_BYTES),
            times: std::array::from_fn(|_| TimestampMicrosecondBuilder::with_capacity(rows)),
            cells: kinds.iter().map(|k| CellBuilder::new(*k, rows)).collect(),
            attributes: text_map(),
            template: Names::with_capacity(rows),
            provenance: Provenance::with_capacity(rows),
        }
    }

    fn finish(self) -> Result<Vec<ArrayRef>, BlockError> {
        let Self { names: [mut tenant, mut organization, mut source, mut asset, mut event_type], mut event_id, times, .. } = self;
        let (mut cells, mut attributes, mut template, mut provenance) = (self.cells, self.attributes, self.template, self.provenance);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(17 + cells.len());
        columns.push(tenant.finish()?);
        columns.push(organization.finish()?);
        columns.push(Arc::new(event_id.finish()));
        columns.push(source.finish()?);
        columns.push(asset.finish()?);
        columns.push(event_type.finish()?);
        for mut builder in times {
            columns.push(Arc::new(builder.finish().with_timezone("UTC")));
        }
        columns.push(template.finish()?);
        columns.extend(cells.iter_mut().map(CellBuilder::finish));
        columns.push(Arc::new(attributes.finish()));
        provenance.finish(&mut columns)?;
        Ok(columns)
    }
}

impl RowsBuilder {
    /// An empty block of `table`, for `rows` rows if that is known: what grows is copied.
    pub fn new(of: Attribution, table: &Table, rows: usize) -> Self {
        let kinds: Vec<FieldType> = table.fields.iter().map(|c| c.kind).collect();
        let (first, later) = Self::split(&kinds, rows);
        Self {
            log: of.log.to_string(),
            of,
            parts: Parts::new(table.id.as_str(), table.schema()),
            columns: Columns::new(&kinds, first),
            kinds,
            later,
        }
    }

    /// How many of `rows` may fit in one part, and how many are left.
    fn split(kinds: &[FieldType], rows: usize) -> (usize, usize) {
        let first = rows.min(PART_BYTES / (ROW_BYTES + CELL_BYTES * kinds.len()));
        (first, rows - first)
    }

    /// Appends one row; `number` is its place among the rows of its event. Rows come sorted by tenant.
    #[allow(clippy::too_many_arguments)] // one value for each of the leading columns
    pub fn push(
        &mut self,
        tenant: &str,
        organization: &str,
        source: &str,
        template: &str,
        origin: &Origin,
        number: u32,
        row: &Row,
    ) -> Result<(), BlockError> {
        let columns = &mut self.columns;
        for (builder, value) in columns.names.iter_mut().zip([tenant, organization, source, &*origin.asset, &*row.event_type]) {
            builder.append_value(value);
        }
        columns.event_id.append_value(&*origin.event_id);
        for (builder, value) in columns.times.iter_mut().zip([row.occurred_at, origin.received_at, self.of.recorded_at]) {
            builder.append_value(value);
        }
        columns.template.append_value(template);
        let mut bytes = ROW_BYTES
            + tenant.len()
            + organization.len()
            + source.len()
            + template.len()
            + origin.asset.len()
            + row.event_type.len()
            + origin.event_id.len();
        for (i, builder) in columns.cells.iter_mut().enumerate() {
            bytes += builder.push(row.cells.get(i));
        }
        bytes += push_map(&mut columns.attributes, &row.attributes)?;
        columns.provenance.push(&self.of, &self.log, origin.at, origin.index, number);
        self.parts.bytes += bytes;
        self.parts.rows += 1;
        if self.parts.bytes >= PART_BYTES { self.end() } else { Ok(()) }
    }

    fn end(&mut self) -> Result<(), BlockError> {
        let next;
        (next, self.later) = Self::split(&self.kinds, self.later);
        let columns = std::mem::replace(&mut self.columns, Columns::new(&self.kinds, next));
        self.parts.end(columns.finish()?)
    }

    /// The blocks; none where no row was pushed.
    pub fn finish(mut self) -> Result<Vec<Block>, BlockError> {
        self.end()?;
        Ok(self.parts.into_blocks(self.of.epoch))
    }
}

enum CellBuilder {
    Bool(BooleanBuilder),
    I64(Int64Builder),
    F64(Float64Builder),
    Text(StringBuilder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl CellBuilder {
    fn new(kind: FieldType, rows: usize) -> Self {
        match kind {
            FieldType::Bool => Self::Bool(BooleanBuilder::with_capacity(rows)),
            FieldType::I64 => Self::I64(Int64Builder::with_capacity(rows)),
            FieldType::F64 => Self::F64(Float64Builder::with_capacity(rows)),
            FieldType::Text | FieldType::Json => Self::Text(StringBuilder::with_capacity(rows, rows * TEXT_BYTES)),
            FieldType::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows)),
        }
    }

    /// Returns the bytes taken. A cell of another type was refused before it came here; it would be a null.
    fn push(&mut self, cell: Option<&Cell>) -> usize {
        match (self, cell) {
            (Self::Bool(b), Some(Cell::Bool(v))) => b.append_value(*v),
            (Self::Bool(b), _) => b.append_null(),
            (Self::I64(b), Some(Cell::I64(v))) => b.append_value(*v),
            (Self::I64(b), _) => b.append_null(),
            (Self::F64(b), Some(Cell::F64(v))) => b.append_value(*v),
            (Self::F64(b), _) => b.append_null(),
            (Self::Text(b), Some(Cell::Text(v))) => {
                b.append_value(v);
                return v.len() + 4;
            }
            (Self::Text(b), _) => b.append_null(),
            (Self::Timestamp(b), Some(Cell::Timestamp(v))) => b.append_value(*v),
            (Self::Timestamp(b), _) => b.append_null(),
        }
        CELL_BYTES
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(b) => Arc::new(b.finish()),
            Self::I64(b) => Arc::new(b.finish()),
            Self::F64(b) => Arc::new(b.finish()),
            Self::Text(b) => Arc::new(b.finish()),
            Self::Timestamp(b) => Arc::new(b.finish().with_timezone("UTC")),
        }
    }
}
