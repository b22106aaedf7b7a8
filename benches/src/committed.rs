//! Logs of committed rows, as a partition leaves them behind: what sinks are measured on, without what it takes to make them.

use crate::by_hand;
use crate::stages::{epoch, slice};
use crate::workload::Workload;
use std::path::Path;
use std::sync::Arc;
use tidegate_pipeline::log::embedded::{EmbeddedLog, Options};
use tidegate_schemas::block::{Attribution, Block, EpochHeader};
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::ids::Epoch;
use tidegate_schemas::limits::EPOCH_EVENTS_MAX;
use tidegate_schemas::log::{CommitUnit, EventLog, Owner, Record};
use tidegate_schemas::sink::CutParameters;
use tidegate_schemas::time::Micros;

/// 2026-01-01 00:00 UTC: when the first epoch is recorded.
pub const BEGAN: Micros = 1_767_225_600_000_000;
/// Between two epochs of a workload: what 100,000 events a second make of full ones.
const EPOCH_EVERY: Micros = 50_000;
/// Behind the last epoch with rows, so that every cut closes.
const HOUR: Micros = 3_600_000_000;
/// Events of a request.
const REQUEST: u64 = 100;
/// Epochs committed at once: one sync each would be most of the time.
const UNITS: usize = 32;
/// Nothing is trimmed: ten million rows take 3 GB.
const BUDGET_BYTES: u64 = 64 << 30;

/// A log that is to be delivered.
#[derive(Debug, Clone, Copy)]
pub struct Committed {
    /// Its rows.
    pub rows: u64,
    /// The bytes of their blocks.
    pub bytes: u64,
    /// The last epoch; it has no rows.
    pub last: Epoch,
}

/// A log of one partition under way.
pub struct Committing {
    log: Arc<EmbeddedLog>,
    owner: Owner,
    cut: CutParameters,
    units: Vec<CommitUnit>,
    done: Committed,
}

impl Committing {
    /// An empty log in a folder that is not there yet.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn create(folder: &Path, cut: CutParameters) -> anyhow::Result<Self> {
        let log = open(folder)?;
        let owner = log.fence(0)?;
        Ok(Self { log, owner, cut, units: Vec::new(), done: Committed { rows: 0, bytes: 0, last: 0 } })
    }

    /// What the rows of the next epoch share.
    pub fn next(&self, recorded_at: Micros) -> Attribution {
        Attribution { log: self.log.log_id(), partition: 0, epoch: self.done.last + 1, recorded_at }
    }

    /// Commits an epoch, as a partition does.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn commit(&mut self, of: &Attribution, blocks: Vec<Block>) -> anyhow::Result<()> {
        let bytes = blocks.iter().map(|b| b.stream.len() as u64).sum();
        self.done.rows += blocks.iter().map(|b| u64::from(b.rows)).sum::<u64>();
        self.done.bytes += bytes;
        self.done.last = of.epoch;
        let header = EpochHeader {
            epoch: of.epoch,
            recorded_at: of.recorded_at,
            revision: 1,
            cut: self.cut,
            blocks: blocks.len() as u32,
            audit: 0,
            bytes,
        };
        let clean = std::iter::once(header.into_record()).chain(blocks.into_iter().map(Block::into_record)).collect();
        // Sinks read no commit records.
        let commit = Box::new(|_: &_| Record::default());
        self.units.push(CommitUnit { epoch: of.epoch, clean, audit: Vec::new(), commit, raw_next: 0 });
        if self.units.len() >= UNITS { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> anyhow::Result<()> {
        self.log.commit(&self.owner, std::mem::take(&mut self.units))?;
        Ok(())
    }

    /// Closes every cut by an empty epoch, an hour after a time.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn end(mut self, recorded_at: Micros) -> anyhow::Result<Committed> {
        let of = self.next(recorded_at + HOUR);
        self.commit(&of, Vec::new())?;
        self.write()?;
        Ok(self.done)
    }
}

/// Opens such a log.
///
/// # Errors
/// The disk refuses, or another process has it.
pub fn open(folder: &Path) -> anyhow::Result<Arc<EmbeddedLog>> {
    Ok(EmbeddedLog::open(folder, Options { partitions: 1, budget_bytes: BUDGET_BYTES, ..Options::default() })?)
}

/// The rows of so many events of a workload, in epochs as large as they become under load.
///
/// # Errors
/// An epoch cannot be settled, or the disk refuses.
pub fn workload(folder: &Path, catalog: &Catalog, workload: Workload, events: u64) -> anyhow::Result<Committed> {
    let (mut log, mut recorded_at, mut from) = (Committing::create(folder, catalog.cut())?, BEGAN, 0);
    while from < events {
        let end = events.min(from + EPOCH_EVENTS_MAX as u64);
        let slices = (from..end).step_by(REQUEST as usize).map(|at| slice(workload, at, REQUEST.min(end - at), 0));
        let slices = slices.collect::<Result<Vec<_>, _>>()?;
        recorded_at += EPOCH_EVERY;
        let of = log.next(recorded_at);
        let (settled, _) = epoch(catalog, &slices, &of, |bundle, _| by_hand::apply(bundle, workload))?;
        log.commit(&of, settled.clean)?;
        from = end;
    }
    log.end(recorded_at)
}
