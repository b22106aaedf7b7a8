//! Refused events, to columns and back.

use super::build::{Attribution, Names, PART_BYTES, Parts, Provenance};
use super::{Block, BlockError};
use crate::ids::Epoch;
use crate::row::Origin;
use crate::system::SystemTable;
use crate::time::Micros;
use crate::verdict::Rejection;
use arrow::array::*;
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
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
        self.provenance.push(r.origin.at, r.origin.index, 0);
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
        self.provenance.finish(&self.of, &mut columns)?;
        self.parts.end(columns)
    }

    /// The blocks; none where nothing was pushed.
    pub fn finish(mut self) -> Result<Vec<Block>, BlockError> {
        self.end()?;
        Ok(self.parts.into_blocks(self.of.epoch))
    }
}

/// A row of `rejections` as it is read back.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// Where it came in.
    pub source: &'a str,
    /// The asset, empty where none was found.
    pub asset: &'a str,
    /// The event's id.
    pub event_id: &'a str,
    /// Template and version, empty where none was found.
    pub template: &'a str,
    /// Where it was refused.
    pub stage: &'a str,
    /// Why.
    pub code: &'a str,
    /// The same for people.
    pub detail: &'a str,
    /// The place in the document.
    pub pointer: &'a str,
    /// The script's line.
    pub line: Option<i32>,
    /// When the edge had it.
    pub received_at: Micros,
    /// Media type of the bytes.
    pub content_type: &'a str,
    /// As sent.
    pub original: &'a [u8],
    /// Offset of its record in `raw`.
    pub offset: u64,
    /// Its index in the request.
    pub index: u32,
    /// The epoch that refused it.
    pub epoch: Epoch,
}

/// The columns of a `rejections` block, by their names: a later version may have more.
pub struct RejectionsRead<'b> {
    rows: usize,
    /// tenant, source, template, stage, code, content_type
    names: [TypedDictionaryArray<'b, Int32Type, StringArray>; 6],
    /// asset, event_id, detail, pointer
    texts: [&'b StringArray; 4],
    /// line, _index
    small: [&'b Int32Array; 2],
    /// _offset, _epoch
    large: [&'b Int64Array; 2],
    received_at: &'b TimestampMicrosecondArray,
    original: &'b BinaryArray,
}

impl<'b> RejectionsRead<'b> {
    /// Finds the columns of a block.
    ///
    /// # Errors
    /// It is no `rejections` block.
    pub fn new(batch: &'b RecordBatch) -> Result<Self, BlockError> {
        let wrong = |name: &str| BlockError(format!("column {name} of rejections is missing, or of another type"));
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| wrong(name));
        let dictionary = |name: &str| {
            let found = column(name)?.as_dictionary_opt::<Int32Type>();
            found.and_then(|d| d.downcast_dict::<StringArray>()).ok_or_else(|| wrong(name))
        };
        let text = |name: &str| column(name)?.as_string_opt::<i32>().ok_or_else(|| wrong(name));
        let small = |name: &str| column(name)?.as_primitive_opt::<Int32Type>().ok_or_else(|| wrong(name));
        let large = |name: &str| column(name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong(name));
        Ok(Self {
            rows: batch.num_rows(),
            names: [
                dictionary("tenant")?,
                dictionary("source")?,
                dictionary("template")?,
                dictionary("stage")?,
                dictionary("code")?,
                dictionary("content_type")?,
            ],
            texts: [text("asset")?, text("event_id")?, text("detail")?, text("pointer")?],
            small: [small("line")?, small("_index")?],
            large: [large("_offset")?, large("_epoch")?],
            received_at: column("received_at")?.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| wrong("received_at"))?,
            original: column("original")?.as_binary_opt::<i32>().ok_or_else(|| wrong("original"))?,
        })
    }

    /// Its rows, in order.
    pub fn rows(&self) -> impl Iterator<Item = Refused<'b>> + '_ {
        (0..self.rows).map(|row| {
            let [tenant, source, template, stage, code, content_type] = self.names.map(|n| n.values().value(n.keys().value(row) as usize));
            let [asset, event_id, detail, pointer] = self.texts.map(|t| t.value(row));
            Refused {
                tenant,
                source,
                asset,
                event_id,
                template,
                stage,
                code,
                detail,
                pointer,
                line: self.small[0].is_valid(row).then(|| self.small[0].value(row)),
                received_at: self.received_at.value(row),
                content_type,
                original: self.original.value(row),
                offset: self.large[0].value(row) as u64,
                index: self.small[1].value(row) as u32,
                epoch: self.large[1].value(row) as Epoch,
            }
        })
    }
}
