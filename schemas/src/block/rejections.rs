//! Refused events, to columns.

use super::build::{Attribution, Names, PART_BYTES, Parts, Provenance};
use super::{Block, BlockError};
use crate::row::Origin;
use crate::system::SystemTable;
use crate::verdict::Rejection;
use arrow::array::*;
use std::sync::Arc;

/// A refused event on its way into `rejections`.
pub struct RejectionRow<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// Path of the source's node.
    pub organization: &'a str,
    /// Where it came in.
    pub source: &'a str,
    /// The event.
    pub origin: &'a Origin,
    /// Template and version, empty where none was found.
    pub template: &'a str,
    /// Why.
    pub rejection: &'a Rejection,
    /// Media type of the bytes.
    pub content_type: &'a str,
    /// As sent.
    pub original: &'a [u8],
}

/// Builds the `rejections` blocks of one epoch.
pub struct RejectionsBuilder {
    of: Attribution,
    log: String,
    parts: Parts,
    names: [Names; 7],
    event_id: StringBuilder,
    asset: StringBuilder,
    detail: StringBuilder,
    pointer: StringBuilder,
    line: Int32Builder,
    times: [TimestampMicrosecondBuilder; 2],
    original: BinaryBuilder,
    provenance: Provenance,
}

impl RejectionsBuilder {
    /// An empty block.
    pub fn new(of: Attribution) -> Self {
        let table = SystemTable::Rejections;
        Self {
            log: of.log.to_string(),
            of,
            parts: Parts::new(table.as_str(), table.schema()),
            names: Default::default(),
            event_id: StringBuilder::new(),
            asset: StringBuilder::new(),
            detail: StringBuilder::new(),
            pointer: StringBuilder::new(),
            line: Int32Builder::new(),
            times: Default::default(),
            original: BinaryBuilder::new(),
            provenance: Provenance::default(),
        }
    }

    /// Appends one. They come sorted by tenant.
    pub fn push(&mut self, r: &RejectionRow<'_>) -> Result<(), BlockError> {
        let bytes = 160
            + r.original.len()
            + r.rejection.detail.len()
            + r.rejection.pointer.len()
            + r.rejection.code.len()
            + r.organization.len()
            + r.origin.event_id.len()
            + r.origin.asset.len()
            + r.tenant.len()
            + r.source.len()
            + r.template.len();
        if self.parts.rows > 0 && self.parts.bytes + bytes >= PART_BYTES {
            self.end()?;
        }
        let values = [r.tenant, r.organization, r.source, r.template, r.rejection.stage.as_str(), &r.rejection.code, r.content_type];
        for (builder, value) in self.names.iter_mut().zip(values) {
            builder.append_value(value);
        }
        self.event_id.append_value(&*r.origin.event_id);
        self.asset.append_value(&*r.origin.asset);
        self.detail.append_value(&r.rejection.detail);
        self.pointer.append_value(&r.rejection.pointer);
        self.line.append_option(r.rejection.line);
        self.times[0].append_value(r.origin.received_at);
        self.times[1].append_value(self.of.recorded_at);
        self.original.append_value(r.original);
        self.provenance.push(&self.of, &self.log, r.origin.at, r.origin.index, 0);
        self.parts.bytes += bytes;
        self.parts.rows += 1;
        Ok(())
    }

    fn end(&mut self) -> Result<(), BlockError> {
        let [tenant, organization, source, template, stage, code, content_type] = &mut self.names;
        let [received_at, recorded_at] = &mut self.times;
        let mut columns: Vec<ArrayRef> = vec![
            tenant.finish()?,
            organization.finish()?,
            Arc::new(self.event_id.finish()),
            source.finish()?,
            Arc::new(self.asset.finish()),
            template.finish()?,
            stage.finish()?,
            code.finish()?,
            Arc::new(self.detail.finish()),
            Arc::new(self.pointer.finish()),
            Arc::new(self.line.finish()),
            Arc::new(received_at.finish().with_timezone("UTC")),
            Arc::new(recorded_at.finish().with_timezone("UTC")),
            content_type.finish()?,
            Arc::new(self.original.finish()),
        ];
        self.provenance.finish(&mut columns)?;
        self.parts.end(columns)
    }

    /// The blocks; none where nothing was pushed.
    pub fn finish(mut self) -> Result<Vec<Block>, BlockError> {
        if self.parts.rows > 0 {
            self.end()?;
        }
        Ok(self.parts.into_blocks(self.of.epoch))
    }
}
