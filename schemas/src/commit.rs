//! The commit record: one for each epoch of a partition, the account that everything else is checked against.

use crate::definition::Quarantine;
use crate::ids::{Epoch, Partition, Position, Revision, TenantId};
use crate::log::{Header, Record};
use crate::time::Micros;
use crate::verdict::Verdict;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What became of events: received is always the sum of the four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// All events.
    pub received: u64,
    /// Events that became rows.
    pub transformed: u64,
    /// Events seen before.
    pub duplicate: u64,
    /// Events refused.
    pub rejected: u64,
    /// Events left out on purpose.
    pub filtered: u64,
}

impl Counts {
    /// Counts one event.
    pub fn add(&mut self, verdict: Verdict) {
        self.received += 1;
        match verdict {
            Verdict::Transformed => self.transformed += 1,
            Verdict::Duplicate => self.duplicate += 1,
            Verdict::Rejected => self.rejected += 1,
            Verdict::Filtered => self.filtered += 1,
        }
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            received: self.received + other.received,
            transformed: self.transformed + other.transformed,
            duplicate: self.duplicate + other.duplicate,
            rejected: self.rejected + other.rejected,
            filtered: self.filtered + other.filtered,
        }
    }

    /// Whether the verdicts add up.
    pub fn balanced(self) -> bool {
        // A record of the log may say anything; a sum that does not fit is none.
        let parts = [self.transformed, self.duplicate, self.rejected, self.filtered];
        parts.into_iter().try_fold(0, u64::checked_add) == Some(self.received)
    }
}

/// Rows of one tenant in one table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableRows {
    /// Whose rows.
    pub tenant: TenantId,
    /// Id of the table.
    pub table: String,
    /// How many.
    pub rows: u64,
}

/// Events and steps of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantCounts {
    /// Whose events.
    pub tenant: TenantId,
    /// What became of them.
    pub counts: Counts,
    /// Script steps spent.
    pub steps: u64,
}

/// A fault of the host that a replay must honour instead of repeating it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The event.
    pub at: Position,
    /// Code of its rejection (`timed_out`, `memory_exhausted`, `crashed`), or `raw_gap` where what stood at the place was deleted unprocessed.
    pub code: String,
}

/// A tenant whose own part of an epoch differs from the epoch's range: its scripts take more than their share of the
/// partition's time, so its events wait while those of others go on. Between two epochs it stands at `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behind {
    /// Whose events.
    pub tenant: TenantId,
    /// The first position of its part of the epoch.
    pub from: Position,
    /// Where its part of the next epoch begins: behind all others as long as it lies before `raw_to`.
    pub to: Position,
}

/// A snapshot of a partition's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRef {
    /// State after this epoch.
    pub epoch: Epoch,
    /// Name in the object store.
    pub name: String,
    /// Where `audit` goes on after that epoch: what lies before is not needed to recover.
    pub audit_next: u64,
    /// Offset of that epoch's own commit record.
    pub commit: u64,
}

/// One epoch of one partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitRecord {
    /// From 1, without gaps.
    pub epoch: Epoch,
    /// The partition.
    pub partition: Partition,
    /// First position of the epoch in `raw`.
    pub raw_from: Position,
    /// Where the next epoch begins.
    pub raw_to: Position,
    /// Tenants whose part of the epoch is another, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<Behind>,
    /// The catalog in effect.
    pub revision: Revision,
    /// The epoch's clock.
    pub recorded_at: Micros,
    /// Template versions that ran.
    pub templates: Vec<String>,
    /// What became of its events.
    pub counts: Counts,
    /// The same by tenant.
    pub tenants: Vec<TenantCounts>,
    /// Rows by tenant and table, tenants' tables and `rejections`.
    pub rows: Vec<TableRows>,
    /// Sums since the log began, this epoch included.
    pub totals: Counts,
    /// Rows of tenants' tables since the log began.
    pub rows_total: u64,
    /// Offsets in `clean`.
    pub clean: Range<u64>,
    /// Offsets in `audit`.
    pub audit: Range<u64>,
    /// BLAKE3 over the output, durations left out, in hex.
    pub output_hash: String,
    /// Faults to honour.
    pub faults: Vec<Fault>,
    /// Quarantines that the partition obeys from the next epoch on, until the catalog has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantines: Vec<Quarantine>,
    /// Newest snapshot.
    pub snapshot: Option<SnapshotRef>,
}

/// Why a record is no commit record.
#[derive(Debug, Clone, thiserror::Error)]
#[error("commit record is unreadable: {0}")]
pub struct CommitError(pub String);

impl CommitRecord {
    /// A tenant's part of the epoch: its first position, and where its next part begins.
    pub fn range_of(&self, tenant: &TenantId) -> Range<Position> {
        self.behind.iter().find(|b| b.tenant == *tenant).map_or(self.raw_from..self.raw_to, |b| b.from..b.to)
    }

    /// The tenants that are behind after this epoch, with the places where they go on.
    pub fn still_behind(&self) -> impl Iterator<Item = (&TenantId, Position)> {
        self.behind.iter().filter(|b| b.to < self.raw_to).map(|b| (&b.tenant, b.to))
    }

    /// The first position that no epoch has processed yet.
    pub fn settled_to(&self) -> Position {
        self.still_behind().map(|(_, at)| at).fold(self.raw_to, Position::min)
    }

    /// The record for the log.
    pub fn into_record(self) -> Record {
        let headers = vec![Header::new("tg-kind", "commit"), Header::new("tg-epoch", self.epoch.to_string())];
        Record { key: Bytes::new(), headers, value: serde_json::to_vec(&self).unwrap_or_default().into() }
    }

    /// Reads a record of `commits`.
    pub fn read(record: &Record) -> Result<Self, CommitError> {
        let commit: Self = serde_json::from_slice(&record.value).map_err(|e| CommitError(e.to_string()))?;
        if commit.counts.balanced() { Ok(commit) } else { Err(CommitError(format!("the counts of epoch {} do not add up", commit.epoch))) }
    }
}
