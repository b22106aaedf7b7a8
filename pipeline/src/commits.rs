//! Finding commit records: the last one, and the one that covers a position, by binary search over `commits`.

use crate::scan::{self, ScanError};
use std::sync::Arc;
use tidegate_schemas::commit::CommitRecord;
use tidegate_schemas::ids::{Partition, Position};
use tidegate_schemas::log::{EventLog, LogName};

/// Where a position stands against the commits that the log still holds.
#[derive(Debug)]
pub enum Covering {
    /// This commit's range holds it.
    Found(Arc<CommitRecord>),
    /// No commit has reached it yet.
    Ahead,
    /// Its commit is trimmed.
    Gone,
}

/// The last commit of a partition.
pub fn last(log: &dyn EventLog, partition: Partition) -> Result<Option<CommitRecord>, ScanError> {
    let bounds = log.bounds(LogName::Commits, partition)?;
    // Offsets may have gaps (Kafka's transaction markers), so look back in growing steps.
    let mut back = 1;
    if bounds.is_empty() {
        return Ok(None);
    }
    loop {
        let from = bounds.end.saturating_sub(back).max(bounds.start);
        let mut found = None;
        scan::each(log, LogName::Commits, partition, from..bounds.end, |entry| {
            found = Some(entry.record.clone());
            Ok::<_, ScanError>(())
        })?;
        if let Some(record) = found {
            return CommitRecord::read(&record).map(Some).map_err(|e| ScanError::Commit(partition, e));
        }
        if from == bounds.start {
            return Ok(None);
        }
        back *= 2;
    }
}

/// The commit whose range holds a position.
pub fn covering(log: &dyn EventLog, partition: Partition, at: Position) -> Result<Covering, ScanError> {
    let bounds = log.bounds(LogName::Commits, partition)?;
    let (mut low, mut high) = (bounds.start, bounds.end);
    let mut before_all = bounds.start > 0;
    while low < high {
        let middle = low + (high - low) / 2;
        let Some(entry) = log.read(LogName::Commits, partition, middle, 1)?.into_iter().next().filter(|e| e.offset < high) else {
            high = middle;
            continue;
        };
        let commit = CommitRecord::read(&entry.record).map_err(|e| ScanError::Commit(partition, e))?;
        if at < commit.raw_from {
            high = middle;
        } else if at >= commit.raw_to {
            low = entry.offset + 1;
            before_all = false;
        } else {
            return Ok(Covering::Found(Arc::new(commit)));
        }
    }
    Ok(if before_all && bounds.start < bounds.end { Covering::Gone } else { Covering::Ahead })
}
