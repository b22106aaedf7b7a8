//! What scripts logged, to columns: one row for each `tide.log`.

use super::build::{Attribution, Names, PART_BYTES, Parts, Provenance};
use super::{Block, BlockError};
use crate::row::Origin;
use crate::system::SystemTable;
use arrow::array::*;
use std::sync::Arc;

/// A line on its way into `script_logs`.
pub struct LogRow<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// Where the event came in.
    pub source: &'a str,
    /// The event whose scripts logged it.
    pub origin: &'a Origin,
    /// Number of the line among the event's, from 0.
    pub number: u32,
    /// Template and version.
    pub template: &'a str,
    /// The script's stage.
    pub stage: &'a str,
    /// The line, without secrets.
    pub text: &'a str,
    /// Bytes left out for want of room, here and in lines that are not there at all.
    pub cut: u64,
}

/// Builds the `script_logs` blocks of one epoch.
pub struct LogsBuilder {
    of: Attribution,
    parts: Parts,
    /// tenant, source, asset, template, stage
    names: [Names; 5],
    event_id: StringBuilder,
    text: StringBuilder,
    cut: Int64Builder,
    provenance: Provenance,
}

impl LogsBuilder {
    /// An empty block.
    pub fn new(of: Attribution) -> Self {
        let table = SystemTable::ScriptLogs;
        Self {
            of,
            parts: Parts::new(table.as_str(), table.schema()),
            names: Default::default(),
            event_id: StringBuilder::new(),
            text: StringBuilder::new(),
            cut: Int64Builder::new(),
            provenance: Provenance::default(),
        }
    }

    /// Appends a line. They come sorted by tenant.
    pub fn push(&mut self, row: &LogRow<'_>) -> Result<(), BlockError> {
        let names = [row.tenant, row.source, &row.origin.asset, row.template, row.stage];
        let bytes = 120 + row.text.len() + row.origin.event_id.len() + names.iter().map(|n| n.len()).sum::<usize>();
        if self.parts.rows > 0 && self.parts.bytes + bytes >= PART_BYTES {
            self.end()?;
        }
        for (builder, value) in self.names.iter_mut().zip(names) {
            builder.append_value(value);
        }
        self.event_id.append_value(&*row.origin.event_id);
        self.text.append_value(row.text);
        self.cut.append_value(row.cut as i64);
        self.provenance.push(row.origin.at, row.origin.index, row.number);
        self.parts.bytes += bytes;
        self.parts.rows += 1;
        Ok(())
    }

    fn end(&mut self) -> Result<(), BlockError> {
        let rows = self.parts.rows;
        let [tenant, source, asset, template, stage] = &mut self.names;
        let mut columns: Vec<ArrayRef> = vec![
            tenant.finish()?,
            source.finish()?,
            asset.finish()?,
            Arc::new(self.event_id.finish()),
            template.finish()?,
            stage.finish()?,
            Arc::new(self.text.finish()),
            Arc::new(self.cut.finish()),
            Arc::new(TimestampMicrosecondArray::from_value(self.of.recorded_at, rows).with_timezone("UTC")),
        ];
        self.provenance.finish(&self.of, &mut columns)?;
        self.parts.end(columns)
    }

    /// The blocks; none where nothing was pushed.
    pub fn finish(mut self) -> Result<Vec<Block>, BlockError> {
        self.end()?;
        Ok(self.parts.into_blocks(self.of.epoch))
    }
}
