//! Taking a partition over: fence, read `commits` to its end, load the snapshot it refers to, fold the outcomes that came
//! after. No script runs again.

use crate::commits;
use crate::scan::{self, ScanError};
use crate::snapshot::{SnapshotError, Snapshots};
use std::ops::Range;
use std::time::Instant;
use tidegate_operators::duplicates::Duplicates;
use tidegate_schemas::block::{OUTCOMES, OutcomesBlock, Output};
use tidegate_schemas::commit::CommitRecord;
use tidegate_schemas::ids::Partition;
use tidegate_schemas::log::{EventLog, LogName, Owner};
use tidegate_schemas::time::Micros;
use tidegate_schemas::verdict::Outcome;

/// Partitions that one worker takes over at once: each has a thread, and its snapshot in memory while that is read.
pub const TAKE_OVERS_MAX: usize = 4;

/// A partition, ready to go on.
pub struct Recovered {
    /// The right to commit.
    pub owner: Owner,
    /// The last commit; none on a new log.
    pub last: Option<CommitRecord>,
    /// State after it.
    pub duplicates: Duplicates,
    /// Where `raw` began and ended once all else was done: who goes on has no time to ask.
    pub raw: Range<u64>,
}

/// Why a partition cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The log cannot be read, or the partition not be fenced.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The snapshot is lost, and the outcomes that it stood for are trimmed.
    #[error("state of partition {partition} cannot be rebuilt: its snapshot is unusable and audit starts at {start} only")]
    StateLost {
        /// The partition.
        partition: Partition,
        /// First offset of `audit` that exists.
        start: u64,
        /// What became of the snapshot.
        #[source]
        cause: Option<SnapshotError>,
    },
}

/// How the duplicate state is kept.
#[derive(Debug, Clone, Copy)]
pub struct DuplicateBounds {
    /// Horizon in recorded time.
    pub horizon: Micros,
    /// Keys of a partition.
    pub keys_max: usize,
}

/// Takes a partition over.
pub fn recover(
    log: &dyn EventLog,
    snapshots: &Snapshots,
    partition: Partition,
    bounds: DuplicateBounds,
) -> Result<Recovered, RecoveryError> {
    let started = Instant::now();
    let owner = log.fence(partition).map_err(ScanError::from)?;
    let last = commits::last(log, partition)?;
    let audit = log.bounds(LogName::Audit, partition).map_err(ScanError::from)?;
    let (mut duplicates, from) = match last.as_ref().and_then(|c| c.snapshot.as_ref()).map(|s| (s, snapshots.get(&s.name))) {
        Some((at, Ok(bytes))) => match Duplicates::decode(bounds.horizon, bounds.keys_max, &bytes) {
            Some(state) => (state, at.audit_next),
            None => (fresh(partition, &audit, bounds, Some(SnapshotError::Corrupt { name: at.name.clone() }))?, audit.start),
        },
        Some((_, Err(cause))) => (fresh(partition, &audit, bounds, Some(cause))?, audit.start),
        None => (fresh(partition, &audit, bounds, None)?, audit.start),
    };
    log.hold("state", LogName::Audit, partition, Some(from));
    let folded = fold(log, partition, from..audit.end, &mut duplicates)?;
    let raw = log.bounds(LogName::Raw, partition).map_err(ScanError::from)?;
    tracing::info!(
        partition,
        epoch = last.as_ref().map_or(0, |c| c.epoch),
        keys = duplicates.len(),
        folded,
        seconds = started.elapsed().as_secs_f64(),
        "partition recovered"
    );
    Ok(Recovered { owner, last, duplicates, raw })
}

/// Keeps what recovery needs of partitions. Holds live as long as the process, so this comes before the first trim: a
/// partition that is taken over late would find its outcomes gone otherwise.
pub fn hold_states(log: &dyn EventLog, partitions: &[Partition]) -> Result<(), ScanError> {
    for &partition in partitions {
        let snapshot = commits::last(log, partition)?.and_then(|c| c.snapshot);
        let from = match snapshot {
            Some(snapshot) => snapshot.audit_next,
            None => log.bounds(LogName::Audit, partition)?.start,
        };
        log.hold("state", LogName::Audit, partition, Some(from));
    }
    Ok(())
}

/// Without a snapshot the fold must begin at the beginning.
fn fresh(
    partition: Partition,
    audit: &Range<u64>,
    bounds: DuplicateBounds,
    cause: Option<SnapshotError>,
) -> Result<Duplicates, RecoveryError> {
    if audit.start > 0 {
        return Err(RecoveryError::StateLost { partition, start: audit.start, cause });
    }
    if let Some(cause) = cause {
        tracing::warn!(partition, error = tidegate_schemas::causes::chain(&cause), "snapshot unusable: folding all outcomes instead");
    }
    Ok(Duplicates::new(bounds.horizon, bounds.keys_max))
}

/// Folds the outcomes of a range of `audit`; returns how many epochs had some.
fn fold(log: &dyn EventLog, partition: Partition, range: Range<u64>, state: &mut Duplicates) -> Result<u64, ScanError> {
    let fail = |e| ScanError::Block(partition, e);
    let mut folded = 0;
    let (mut epoch, mut outcomes): (Option<(u64, Micros)>, Vec<Outcome>) = (None, Vec::new());
    let mut end = |epoch: Option<(u64, Micros)>, outcomes: &mut Vec<Outcome>| {
        if let Some((number, recorded_at)) = epoch {
            state.fold(number, recorded_at, outcomes);
            folded += 1;
        }
        outcomes.clear();
    };
    scan::each(log, LogName::Audit, partition, range, |entry| {
        match Output::read(&entry.record).map_err(fail)? {
            Output::Header(header) => end(epoch.replace((header.epoch, header.recorded_at)), &mut outcomes),
            Output::Block(block) if block.table == OUTCOMES => {
                outcomes.extend(OutcomesBlock::read(&block.batch().map_err(fail)?).map_err(fail)?);
            }
            Output::Block(_) => {}
        }
        Ok::<_, ScanError>(())
    })?;
    end(epoch, &mut outcomes);
    Ok(folded)
}
