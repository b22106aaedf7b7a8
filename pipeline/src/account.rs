//! The account of a log: what its commit records and rejections add up to. `verify` checks sinks against it, the demo
//! prints it.

use crate::partition::RAW_GAP;
use crate::scan::{self, ScanError};
use std::collections::BTreeMap;
use tidegate_schemas::block::{Output, RejectionsRead};
use tidegate_schemas::commit::{CommitRecord, Counts};
use tidegate_schemas::ids::{Epoch, Partition, Position, TenantId};
use tidegate_schemas::log::{EventLog, LogName};
use tidegate_schemas::system::SystemTable;
use tidegate_schemas::time;

/// Rows that one partition committed to one table of one tenant, by epoch.
pub type RowsByEpoch = BTreeMap<Epoch, u64>;

/// What a log adds up to, over the epochs that it still holds.
#[derive(Debug, Default)]
pub struct Account {
    /// What became of all events since the log began.
    pub totals: Counts,
    /// Rows of tenants' tables since the log began.
    pub rows_total: u64,
    /// By tenant, over the epochs held.
    pub tenants: BTreeMap<TenantId, Counts>,
    /// Script steps by tenant.
    pub steps: BTreeMap<TenantId, u64>,
    /// Rows by partition, tenant and table, tenants' tables only.
    pub rows: BTreeMap<(Partition, TenantId, String), RowsByEpoch>,
    /// First and last epoch held, by partition.
    pub epochs: BTreeMap<Partition, (Epoch, Epoch)>,
    /// The first epoch of each day, by partition: days since 1970 of the recorded time.
    pub days: BTreeMap<Partition, BTreeMap<i32, Epoch>>,
    /// Requests that somebody else deleted before they were processed, where it was accepted to go on behind them.
    pub gaps: Vec<String>,
    /// What does not add up.
    pub faults: Vec<String>,
}

/// Reads every commit record that the log holds.
pub fn read(log: &dyn EventLog) -> Result<Account, ScanError> {
    let mut account = Account::default();
    for partition in 0..log.partitions() {
        let bounds = log.bounds(LogName::Commits, partition)?;
        let mut before: Option<CommitRecord> = None;
        scan::each(log, LogName::Commits, partition, bounds, |entry| {
            let commit = CommitRecord::read(&entry.record).map_err(|e| ScanError::Commit(partition, e))?;
            account.add(partition, before.as_ref(), &commit);
            before = Some(commit);
            Ok::<_, ScanError>(())
        })?;
        if let Some(last) = before {
            account.totals = account.totals.plus(last.totals);
            account.rows_total += last.rows_total;
        }
    }
    Ok(account)
}

impl Account {
    fn add(&mut self, partition: Partition, before: Option<&CommitRecord>, commit: &CommitRecord) {
        if let Some(before) = before {
            let told = |at: Position| commit.faults.iter().any(|f| f.code == RAW_GAP && f.at == at);
            let gap = commit.raw_from > before.raw_to && told(before.raw_to);
            let parts = before.still_behind().all(|(tenant, at)| {
                let from = commit.range_of(tenant).start;
                from == at || (from > at && told(at))
            });
            let whole = commit.behind.iter().all(|b| {
                let follows = b.from == commit.raw_from || before.still_behind().any(|(tenant, _)| *tenant == b.tenant);
                follows && b.from <= b.to && b.to <= commit.raw_to
            });
            let follows = commit.epoch == before.epoch + 1
                && (commit.raw_from == before.raw_to || gap)
                && parts
                && whole
                && commit.recorded_at > before.recorded_at
                && commit.totals == before.totals.plus(commit.counts);
            if gap {
                let (from, to) = (before.raw_to.offset, commit.raw_from.offset);
                self.gaps.push(format!(
                    "partition {partition}: raw from offset {from} to {to} was deleted before epoch {} could process it",
                    commit.epoch
                ));
            }
            if !follows {
                self.faults.push(format!("partition {partition}: epoch {} does not continue epoch {}", commit.epoch, before.epoch));
            }
        }
        let sum = commit.tenants.iter().fold(Counts::default(), |sum, t| sum.plus(t.counts));
        if sum != commit.counts {
            self.faults.push(format!("partition {partition}: the tenants of epoch {} do not add up to its counts", commit.epoch));
        }
        for tenant in &commit.tenants {
            let counts = self.tenants.entry(tenant.tenant.clone()).or_default();
            *counts = counts.plus(tenant.counts);
            *self.steps.entry(tenant.tenant.clone()).or_default() += tenant.steps;
        }
        for rows in commit.rows.iter().filter(|r| SystemTable::named(&r.table).is_none()) {
            self.rows.entry((partition, rows.tenant.clone(), rows.table.clone())).or_default().insert(commit.epoch, rows.rows);
        }
        self.days.entry(partition).or_default().entry(time::day(commit.recorded_at)).or_insert(commit.epoch);
        let range = self.epochs.entry(partition).or_insert((commit.epoch, commit.epoch));
        range.1 = commit.epoch;
    }
}

impl Account {
    /// The first epoch of each partition that was recorded on a day or later; beyond the last where none was.
    pub fn since(&self, day: i32) -> BTreeMap<Partition, Epoch> {
        let first = |(partition, (_, last)): (&Partition, &(Epoch, Epoch))| {
            let found = self.days.get(partition).and_then(|days| days.range(day..).next());
            (*partition, found.map_or(last + 1, |(_, epoch)| *epoch))
        };
        self.epochs.iter().map(first).collect()
    }
}

/// Rejections by tenant and code, from the `rejections` blocks that `audit` still holds.
pub fn rejections(log: &dyn EventLog) -> Result<BTreeMap<(String, String), u64>, ScanError> {
    let mut sums = BTreeMap::new();
    for partition in 0..log.partitions() {
        let fail = |e| ScanError::Block(partition, e);
        let bounds = log.bounds(LogName::Audit, partition)?;
        scan::each(log, LogName::Audit, partition, bounds, |entry| {
            match Output::read(&entry.record).map_err(fail)? {
                Output::Block(block) if block.table == SystemTable::Rejections.as_str() => {
                    let batch = block.batch().map_err(fail)?;
                    for refused in RejectionsRead::new(&batch).map_err(fail)?.rows() {
                        *sums.entry((refused.tenant.to_owned(), refused.code.to_owned())).or_default() += 1;
                    }
                }
                _ => {}
            }
            Ok::<_, ScanError>(())
        })?;
    }
    Ok(sums)
}
