//! Blocks: rows of one table of one epoch as an Arrow IPC stream, in parts below the log's record size.
//!
//! ```text
//! clean / audit of one epoch:  header ─ block table A 1/2 ─ block table A 2/2 ─ block table B 1/1 …
//! ```
//! A record's value is the bare stream (other Kafka clients read it with any Arrow library); its headers name table,
//! epoch, part, rows and a CRC-32 of the value. Streams are written uncompressed, eight-byte aligned, with their end
//! marker: streams of equal schemas are spliced without decoding.

mod build;
mod cells;
mod condition;
mod logs;
mod outcomes;
mod rejections;
mod releases;
mod rows;
mod runs;
mod slice;

pub use build::Attribution;
pub use cells::{CellRef, Pairs, RowRef, RowsRead};
pub use condition::{Bound, Condition, ConditionError, Filter, Operator};
pub use logs::{LogRow, LogsBuilder};
pub use outcomes::OutcomesBlock;
pub use rejections::{Refused, RejectionRow, RejectionsBuilder, RejectionsRead};
pub use releases::{ReleaseRow, released, releases};
pub use rows::{Head, RowsBuilder};
pub use runs::{ScriptRun, script_runs};
pub use slice::{by_tenant, compact};

use crate::ids::{Epoch, Revision};
use crate::log::{Header, Record};
use crate::sink::CutParameters;
use crate::time::Micros;
use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::MetadataVersion;
use arrow::ipc::reader::{StreamDecoder, StreamReader};
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// The table name of the `outcomes` block.
pub const OUTCOMES: &str = "outcomes";

/// The first record of an epoch in `clean` and in `audit`: what a sink must know to cut, and nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochHeader {
    /// The epoch.
    pub epoch: Epoch,
    /// Its recorded time.
    pub recorded_at: Micros,
    /// Its catalog.
    pub revision: Revision,
    /// In effect from the next common edge on.
    pub cut: CutParameters,
    /// Blocks that follow in this log.
    pub blocks: u32,
    /// Blocks of the epoch in `audit`, which has a header where there are some. A log may show the two at different times.
    pub audit: u32,
    /// Bytes of all its blocks, in both.
    pub bytes: u64,
}

/// A block as it came from a log.
#[derive(Debug, Clone)]
pub struct Block {
    /// Id of the table, or [`OUTCOMES`].
    pub table: String,
    /// The epoch.
    pub epoch: Epoch,
    /// From 1.
    pub part: u32,
    /// How many there are.
    pub parts: u32,
    /// Rows in this part.
    pub rows: u32,
    /// The Arrow stream.
    pub stream: Bytes,
}

/// Any record of `clean` or `audit`.
#[derive(Debug, Clone)]
pub enum Output {
    /// An epoch begins.
    Header(EpochHeader),
    /// A part of a table.
    Block(Block),
}

/// Why a record is no block, or a block no batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("block is unreadable: {0}")]
pub struct BlockError(pub String);

impl EpochHeader {
    /// The record for the log.
    pub fn into_record(self) -> Record {
        let value = serde_json::to_vec(&self).unwrap_or_default();
        Record { key: Bytes::new(), headers: vec![Header::new("tg-kind", "header")], value: value.into() }
    }
}

impl Block {
    /// The record for the log.
    pub fn into_record(self) -> Record {
        let headers = vec![
            Header::new("tg-kind", "block"),
            Header::new("tg-table", self.table),
            Header::new("tg-epoch", self.epoch.to_string()),
            Header::new("tg-part", self.part.to_string()),
            Header::new("tg-parts", self.parts.to_string()),
            Header::new("tg-rows", self.rows.to_string()),
            Header::new("tg-crc", crc32fast::hash(&self.stream).to_string()),
        ];
        Record { key: Bytes::new(), headers, value: self.stream }
    }

    /// The rows. The checksum was compared when the record was read.
    pub fn batch(&self) -> Result<RecordBatch, BlockError> {
        decode(&self.stream)
    }

    /// The schema, without the rows.
    pub fn schema(&self) -> Result<SchemaRef, BlockError> {
        guarded(|| StreamReader::try_new(&self.stream[..], None).map(|r| r.schema()).map_err(|e| BlockError(e.to_string())))
    }
}

impl Output {
    /// Reads a record of `clean` or `audit` and compares its checksum.
    pub fn read(record: &Record) -> Result<Self, BlockError> {
        let text = |name: &str| {
            record.header(name).and_then(|b| std::str::from_utf8(b).ok()).ok_or_else(|| BlockError(format!("{name} is missing")))
        };
        match text("tg-kind")? {
            "header" => serde_json::from_slice(&record.value).map(Self::Header).map_err(|e| BlockError(e.to_string())),
            "block" => {
                if number::<u32>(text("tg-crc")?, "tg-crc")? != crc32fast::hash(&record.value) {
                    return Err(BlockError("its checksum does not match".into()));
                }
                Ok(Self::Block(Block {
                    table: text("tg-table")?.to_owned(),
                    epoch: number(text("tg-epoch")?, "tg-epoch")?,
                    part: number(text("tg-part")?, "tg-part")?,
                    parts: number(text("tg-parts")?, "tg-parts")?,
                    rows: number(text("tg-rows")?, "tg-rows")?,
                    stream: record.value.clone(),
                }))
            }
            other => Err(BlockError(format!("kind {other:?} is unknown: a newer Tidegate wrote it"))),
        }
    }
}

/// What a stream takes besides its buffers, at most about: once, and for each column.
const STREAM_BYTES: usize = 1024;
const COLUMN_BYTES: usize = 512;

/// Encodes a batch as one stream.
pub fn encode(batch: &RecordBatch) -> Result<Bytes, BlockError> {
    let fail = |e: arrow::error::ArrowError| BlockError(e.to_string());
    let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5).map_err(fail)?;
    // What grows is copied.
    let bytes: usize = batch.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(0)).sum();
    let out = Vec::with_capacity(bytes + STREAM_BYTES + COLUMN_BYTES * batch.num_columns());
    let mut writer = StreamWriter::try_new_with_options(out, &batch.schema(), options).map_err(fail)?;
    writer.write(batch).map_err(fail)?;
    writer.into_inner().map(Bytes::from).map_err(fail)
}

fn number<T: FromStr>(text: &str, name: &str) -> Result<T, BlockError> {
    text.parse().map_err(|_| BlockError(format!("{name} is no number that fits")))
}

/// Decodes a stream of exactly one batch.
pub fn decode(stream: &Bytes) -> Result<RecordBatch, BlockError> {
    guarded(|| {
        let mut buffer = Buffer::from(stream.clone());
        let mut decoder = StreamDecoder::new();
        let mut batch = None;
        while !buffer.is_empty() {
            match decoder.decode(&mut buffer).map_err(|e| BlockError(e.to_string()))? {
                Some(_) if batch.is_some() => return Err(BlockError("it holds more than one batch".into())),
                Some(found) => batch = Some(found),
                None => break,
            }
        }
        decoder.finish().map_err(|e| BlockError(e.to_string()))?;
        batch.ok_or_else(|| BlockError("it holds no batch".into()))
    })
}

/// Arrow panics on some damaged streams; such a panic is an error here.
fn guarded<T>(read: impl FnOnce() -> Result<T, BlockError>) -> Result<T, BlockError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).unwrap_or_else(|_| Err(BlockError("the Arrow decoder panicked".into())))
}
