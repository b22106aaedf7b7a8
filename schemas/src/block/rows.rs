//! Rows of tenants' tables, to columns. They come sorted by tenant.

use super::build::{Attribution, Names, PART_BYTES, Parts, Provenance, push_map, text_map};
use super::{Block, BlockError};
use crate::row::{Cell, Origin, Row};
use crate::table::{FieldType, Table};
use arrow::array::*;
use std::sync::Arc;

/// Builds the blocks of one tenant table of one epoch.
pub struct RowsBuilder {
    of: Attribution,
    log: String,
    parts: Parts,
    names: [Names; 5],
    event_id: StringBuilder,
    times: [TimestampMicrosecondBuilder; 3],
    cells: Vec<CellBuilder>,
    kinds: Vec<FieldType>,
    attributes: MapBuilder<StringBuilder, StringBuilder>,
    template: Names,
    provenance: Provenance,
}

impl RowsBuilder {
    /// An empty block of `table`.
    pub fn new(of: Attribution, table: &Table) -> Self {
        let kinds: Vec<FieldType> = table.fields.iter().map(|c| c.kind).collect();
        Self {
            log: of.log.to_string(),
            of,
            parts: Parts::new(table.id.as_str(), table.schema()),
            names: Default::default(),
            event_id: StringBuilder::new(),
            times: Default::default(),
            cells: kinds.iter().map(|k| CellBuilder::new(*k)).collect(),
            kinds,
            attributes: text_map(),
            template: Names::default(),
            provenance: Provenance::default(),
        }
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
        for (builder, value) in self.names.iter_mut().zip([tenant, organization, source, &*origin.asset, &*row.event_type]) {
            builder.append_value(value);
        }
        self.event_id.append_value(&*origin.event_id);
        for (builder, value) in self.times.iter_mut().zip([row.occurred_at, origin.received_at, self.of.recorded_at]) {
            builder.append_value(value);
        }
        self.template.append_value(template);
        let mut bytes = 130
            + tenant.len()
            + organization.len()
            + source.len()
            + template.len()
            + origin.asset.len()
            + row.event_type.len()
            + origin.event_id.len();
        for (i, builder) in self.cells.iter_mut().enumerate() {
            bytes += builder.push(row.cells.get(i));
        }
        bytes += push_map(&mut self.attributes, &row.attributes)?;
        self.provenance.push(&self.of, &self.log, origin.at, origin.index, number);
        self.parts.bytes += bytes;
        self.parts.rows += 1;
        if self.parts.bytes >= PART_BYTES { self.end() } else { Ok(()) }
    }

    fn end(&mut self) -> Result<(), BlockError> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(17 + self.kinds.len());
        let [tenant, organization, source, asset, event_type] = &mut self.names;
        columns.push(tenant.finish()?);
        columns.push(organization.finish()?);
        columns.push(Arc::new(self.event_id.finish()));
        columns.push(source.finish()?);
        columns.push(asset.finish()?);
        columns.push(event_type.finish()?);
        for builder in &mut self.times {
            columns.push(Arc::new(builder.finish().with_timezone("UTC")));
        }
        columns.push(self.template.finish()?);
        for builder in &mut self.cells {
            columns.push(builder.finish());
        }
        columns.push(Arc::new(self.attributes.finish()));
        self.provenance.finish(&mut columns)?;
        self.parts.end(columns)
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
    fn new(kind: FieldType) -> Self {
        match kind {
            FieldType::Bool => Self::Bool(BooleanBuilder::new()),
            FieldType::I64 => Self::I64(Int64Builder::new()),
            FieldType::F64 => Self::F64(Float64Builder::new()),
            FieldType::Text | FieldType::Json => Self::Text(StringBuilder::new()),
            FieldType::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::new()),
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
        9
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
