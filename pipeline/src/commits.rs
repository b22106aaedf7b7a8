//! Finding commit records: the last one, and by binary search over `commits` the one that covers a position.

use crate::scan::{self, ScanError};
use std::sync::Arc;
use tidegate_schemas::commit::CommitRecord;
use tidegate_schemas::ids::{Partition, Position, TenantId};
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
    // Offsets may have gaps (Kafka's transaction markers: one stands behind each commit), so look back in growing steps.
    let mut back = 2;
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

/// The commit whose range holds a position of a tenant's.
pub fn covering(log: &dyn EventLog, partition: Partition, tenant: &TenantId, at: Position) -> Result<Covering, ScanError> {
    let start = log.bounds(LogName::Commits, partition)?.start;
    Ok(match first(log, partition, |commit| commit.range_of(tenant).end > at)? {
        Some((_, commit)) if commit.range_of(tenant).start <= at => Covering::Found(Arc::new(commit)),
        Some((offset, _)) if start > 0 && offset == start => Covering::Gone,
        // Behind a gap, or not there yet.
        Some(_) | None => Covering::Ahead,
    })
}

/// The first commit that is far enough, where all later ones are, with its offset.
pub fn first(
    log: &dyn EventLog,
    partition: Partition,
    is_far: impl Fn(&CommitRecord) -> bool,
) -> Result<Option<(u64, CommitRecord)>, ScanError> {
    let bounds = log.bounds(LogName::Commits, partition)?;
    let (mut low, mut high, mut found) = (bounds.start, bounds.end, None);
    while low < high {
        let middle = low + (high - low) / 2;
        let Some(entry) = log.read(LogName::Commits, partition, middle, 1)?.into_iter().next().filter(|e| e.offset < high) else {
            high = middle;
            continue;
        };
        let commit = CommitRecord::read(&entry.record).map_err(|e| ScanError::Commit(partition, e))?;
        if is_far(&commit) {
            high = middle;
            found = Some((entry.offset, commit));
        } else {
            low = entry.offset + 1;
        }
    }
    Ok(found)
}
