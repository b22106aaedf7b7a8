//! Follows `clean`, and `audit` where system tables are asked for, epoch by epoch, and cuts them.
//!
//! Every epoch has a header in `clean`, which tells how many blocks it has in `audit`; there it has a header only where it
//! has blocks. One commit wrote both, and a log may show one before the other: an epoch is read once both are.

use super::TableSelection;
use crate::cut::{CutError, Cutter, Piece, PieceData, plain_bytes};
use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tidegate_schemas::block::{Block, BlockError, EpochHeader, Output, by_tenant};
use tidegate_schemas::ids::{Epoch, Partition, TenantId, is_id};
use tidegate_schemas::log::{Entry, EventLog, LogError, LogName, SinkCursor};
use tidegate_schemas::sink::{Cut, Grain, Target};
use tidegate_schemas::system::SystemTable;
use tidegate_schemas::time::Micros;

/// Rows of a batch that is worth its columns: as many as the writer of files takes at once.
const WHOLE_ROWS: u64 = 1_024;

/// Whether a block's bytes lie in memory of their own.
fn is_alone(block: &Block) -> bool {
    block.stream.len() >= tidegate_schemas::limits::RECORD_ALONE_BYTES
}

/// What one look at the log brought.
#[derive(Debug, Default)]
pub struct Step {
    /// Cuts to deliver before the next look.
    pub closed: Vec<Cut>,
    /// Where the cursor may stand once they are delivered.
    pub cursor: Option<SinkCursor>,
    /// Targets that have rows waiting from this epoch on.
    pub opened: Vec<(Target, Epoch)>,
    /// The last epoch read to its end, with its recorded time; none where nothing was read.
    pub read: Option<(Epoch, Micros)>,
    /// Bytes of the open cuts.
    pub open_bytes: u64,
}

/// The epoch under way, with the blocks that are still to come.
struct UnderWay {
    header: EpochHeader,
    clean: u32,
    audit: u32,
    /// Whether its header in `audit` was read.
    in_audit: bool,
}

/// The reader and cutter of one partition.
pub struct Follower {
    log: Arc<dyn EventLog>,
    partition: Partition,
    grain: Grain,
    selection: TableSelection,
    clean: u64,
    audit: u64,
    entries: VecDeque<Entry>,
    audit_entries: VecDeque<Entry>,
    current: Option<UnderWay>,
    /// Epoch that must come first: the cursor's; 0 for a sink that begins wherever the log does.
    expected: Epoch,
    cutter: Cutter,
    schemas: HashMap<String, SchemaRef>,
}

impl Follower {
    /// Starts at a cursor.
    pub fn new(log: Arc<dyn EventLog>, partition: Partition, grain: Grain, selection: TableSelection, cursor: SinkCursor) -> Self {
        Self {
            cutter: Cutter::new(log.log_id(), partition),
            log,
            partition,
            grain,
            selection,
            clean: cursor.clean,
            audit: cursor.audit,
            entries: VecDeque::new(),
            audit_entries: VecDeque::new(),
            current: None,
            expected: cursor.epoch,
            schemas: HashMap::new(),
        }
    }

    /// First epoch of a target's open cut.
    pub fn open_since(&self, target: &Target) -> Option<Epoch> {
        self.cutter.open_since(target)
    }

    /// Reads on until there is something to deliver or what was read is used up; waits where nothing is there. Blocks.
    pub fn advance(&mut self, wait: Duration, read_bytes: usize) -> Result<Step, LogError> {
        let mut step = Step::default();
        if self.clean_is_read() {
            self.fill_audit(wait, read_bytes)?;
        } else if self.entries.is_empty() {
            self.entries = self.log.poll(LogName::Clean, self.partition, self.clean, read_bytes, wait)?.into();
        }
        while step.closed.is_empty() && step.cursor.is_none() {
            if self.clean_is_read() {
                self.fill_audit(Duration::ZERO, read_bytes)?;
                if !self.audit(&mut step)? {
                    break;
                }
                self.finish(&mut step)?;
                continue;
            }
            let Some(entry) = self.entries.pop_front() else { break };
            self.clean = entry.offset + 1;
            match Output::read(&entry.record).map_err(|e| self.unreadable(LogName::Clean, entry.offset, &e))? {
                Output::Header(header) => self.header(header, entry.offset, &mut step)?,
                Output::Block(block) => self.block(&block, entry.offset, &mut step)?,
            }
        }
        step.open_bytes = self.cutter.open().1;
        Ok(step)
    }

    /// The partition, and the record of `clean` that is looked at next.
    pub(super) fn place(&self) -> (Partition, u64) {
        (self.partition, self.clean)
    }

    /// Records of `clean` not looked at yet. Asks the log.
    pub fn unread(&self) -> Result<u64, LogError> {
        Ok(self.log.bounds(LogName::Clean, self.partition)?.end.saturating_sub(self.clean))
    }

    /// Whether all blocks of the epoch under way were read in `clean`.
    fn clean_is_read(&self) -> bool {
        matches!(self.current, Some(UnderWay { clean: 0, .. }))
    }

    fn header(&mut self, header: EpochHeader, offset: u64, step: &mut Step) -> Result<(), LogError> {
        if self.current.is_some() || (self.expected != 0 && header.epoch != self.expected) {
            let detail = format!("epoch {} begins where epoch {} was expected", header.epoch, self.expected);
            return Err(self.corrupt(LogName::Clean, offset, detail));
        }
        let begun = self.cutter.begin(&header).map_err(|e| self.wrong(LogName::Clean, offset, &e))?;
        if begun.edge {
            let audit = if self.selection.system.is_empty() {
                // What is never read needs no keeping.
                self.log.bounds(LogName::Audit, self.partition)?.end
            } else {
                self.audit
            };
            step.cursor = Some(SinkCursor { clean: offset, audit, epoch: header.epoch });
            step.closed = begun.closed;
        }
        self.expected = header.epoch + 1;
        let audit = if self.selection.system.is_empty() { 0 } else { header.audit };
        self.current = Some(UnderWay { clean: header.blocks, audit, in_audit: false, header });
        Ok(())
    }

    fn block(&mut self, block: &Block, offset: u64, step: &mut Step) -> Result<(), LogError> {
        match self.current.as_mut() {
            Some(of) if of.header.epoch == block.epoch && of.clean > 0 => of.clean -= 1,
            // The log was trimmed inside an epoch before this sink was new.
            None if self.expected == 0 => return Ok(()),
            _ => return Err(self.corrupt(LogName::Clean, offset, format!("a block of epoch {} belongs to no header", block.epoch))),
        }
        self.add(LogName::Clean, block, offset, step)
    }

    fn finish(&mut self, step: &mut Step) -> Result<(), LogError> {
        let Some(UnderWay { header, .. }) = self.current.take() else { return Ok(()) };
        step.closed = self.cutter.end().map_err(|e| self.wrong(LogName::Clean, self.clean, &e))?;
        step.read = Some((header.epoch, header.recorded_at));
        Ok(())
    }

    /// Reads `audit` on where the epoch under way needs it and nothing is left of the last read.
    fn fill_audit(&mut self, wait: Duration, read_bytes: usize) -> Result<(), LogError> {
        let needed = self.current.as_ref().is_some_and(|of| of.audit > 0) && self.audit_entries.is_empty();
        if needed {
            self.audit_entries = self.log.poll(LogName::Audit, self.partition, self.audit, read_bytes, wait)?.into();
        }
        Ok(())
    }

    /// Takes what `audit` has of the epoch under way; tells whether that was all of it.
    fn audit(&mut self, step: &mut Step) -> Result<bool, LogError> {
        loop {
            let Some(UnderWay { header, audit: 1.., .. }) = &self.current else { return Ok(true) };
            let epoch = header.epoch;
            let Some(entry) = self.audit_entries.pop_front() else { return Ok(false) };
            self.audit = entry.offset + 1;
            let output = Output::read(&entry.record).map_err(|e| self.unreadable(LogName::Audit, entry.offset, &e))?;
            let found = match &output {
                Output::Header(header) => header.epoch,
                Output::Block(block) => block.epoch,
            };
            // Epochs before the first one of this sink are not its own.
            if found < epoch {
                continue;
            }
            match (output, &mut self.current) {
                (Output::Header(_), Some(of)) if found == epoch && !of.in_audit => of.in_audit = true,
                (Output::Block(block), Some(of)) if found == epoch && of.in_audit => {
                    of.audit -= 1;
                    if SystemTable::named(&block.table).is_some_and(|t| self.selection.system.contains(&t)) {
                        self.add(LogName::Audit, &block, entry.offset, step)?;
                    }
                }
                _ => {
                    let detail = format!("epoch {found} stands where the rest of epoch {epoch} was expected");
                    return Err(self.corrupt(LogName::Audit, entry.offset, detail));
                }
            }
        }
    }

    fn add(&mut self, log: LogName, block: &Block, offset: u64, step: &mut Step) -> Result<(), LogError> {
        let pieces = self.pieces(block).map_err(|e| self.unreadable(log, offset, &e))?;
        for piece in pieces {
            let target = piece.target.clone();
            if self.cutter.add(piece).map_err(|e| self.wrong(log, offset, &e))? {
                step.opened.push((target, block.epoch));
            }
        }
        Ok(())
    }

    fn pieces(&mut self, block: &Block) -> Result<Vec<Piece>, BlockError> {
        if !is_id(&block.table) {
            return Err(BlockError(format!("{:?} is no table id", block.table)));
        }
        let rows = u64::from(block.rows);
        match self.grain {
            Grain::Table => {
                let schema = self.schema_of(&block.table, block.schema()?);
                let target = Target { table: block.table.clone(), tenant: None };
                // A small one is copied: it would keep all of what it was read with.
                let stream = if is_alone(block) { block.stream.clone() } else { bytes::Bytes::copy_from_slice(&block.stream) };
                Ok(vec![Piece { target, rows, bytes: stream.len() as u64, schema, data: PieceData::Stream(stream) }])
            }
            Grain::Tenant => {
                let batch = block.batch()?;
                if batch.num_rows() as u64 != rows {
                    return Err(BlockError(format!("it says {rows} rows and holds {}", batch.num_rows())));
                }
                let schema = self.schema_of(&block.table, batch.schema());
                let slices = by_tenant(&batch);
                if slices.iter().map(|(_, s)| s.num_rows()).sum::<usize>() != batch.num_rows() {
                    return Err(BlockError("its first column is not the tenant".into()));
                }
                let whole = slices.len() == 1 && rows >= WHOLE_ROWS && is_alone(block);
                let piece = |(tenant, batch): (String, arrow::array::RecordBatch)| {
                    let tenant = TenantId::new(&tenant).map_err(|e| BlockError(e.to_string()))?;
                    Ok(Piece {
                        target: Target { table: block.table.clone(), tenant: Some(tenant) },
                        rows: batch.num_rows() as u64,
                        bytes: plain_bytes(&batch),
                        schema: Arc::clone(&schema),
                        data: if whole { PieceData::Whole(batch) } else { PieceData::Batch(batch) },
                    })
                };
                slices.into_iter().map(piece).collect()
            }
        }
    }

    /// The one copy of a table's schema, so that comparing schemas is mostly comparing pointers.
    fn schema_of(&mut self, table: &str, found: SchemaRef) -> SchemaRef {
        match self.schemas.get_mut(table) {
            Some(known) if *known == found => Arc::clone(known),
            Some(known) => {
                *known = Arc::clone(&found);
                found
            }
            None => {
                // Tables come and go with definitions; forgetting them costs a comparison.
                if self.schemas.len() >= tidegate_schemas::limits::SINK_TARGETS_MAX {
                    self.schemas.clear();
                }
                self.schemas.insert(table.to_owned(), Arc::clone(&found));
                found
            }
        }
    }

    fn corrupt(&self, log: LogName, offset: u64, detail: String) -> LogError {
        LogError::Corrupt { place: format!("{} partition {} offset {offset}", log.as_str(), self.partition), detail }
    }

    fn unreadable(&self, log: LogName, offset: u64, error: &BlockError) -> LogError {
        self.corrupt(log, offset, error.to_string())
    }

    fn wrong(&self, log: LogName, offset: u64, error: &CutError) -> LogError {
        self.corrupt(log, offset, error.to_string())
    }
}
