//! The account of a log: what its commit records and rejections add up to. `verify` checks sinks against it, the demo
//! prints it.

use crate::recovery::RecoveryError;
use arrow::array::AsArray;
use arrow::datatypes::Int32Type;
use std::collections::BTreeMap;
use tidegate_schemas::block::Output;
use tidegate_schemas::commit::{CommitRecord, Counts};
use tidegate_schemas::ids::{Epoch, Partition, TenantId};
use tidegate_schemas::limits::READ_BYTES_MAX;
use tidegate_schemas::log::{EventLog, LogName};
use tidegate_schemas::system::SystemTable;

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
    /// What does not add up.
    pub faults: Vec<String>,
}

/// Reads every commit record that the log holds.
pub fn read(log: &dyn EventLog) -> Result<Account, RecoveryError> {
    let mut account = Account::default();
    for partition in 0..log.partitions() {
        let bounds = log.bounds(LogName::Commits, partition)?;
        let (mut at, mut before) = (bounds.start, None::<CommitRecord>);
        while at < bounds.end {
            let entries = log.read(LogName::Commits, partition, at, READ_BYTES_MAX)?;
            let Some(last) = entries.last() else { break };
            at = last.offset + 1;
            for entry in &entries {
                let commit = CommitRecord::read(&entry.record).map_err(|e| RecoveryError::Commit(partition, e))?;
                account.add(partition, before.as_ref(), &commit);
                before = Some(commit);
            }
        }
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
            let follows = commit.epoch == before.epoch + 1
                && commit.raw_from == before.raw_to
                && commit.recorded_at > before.recorded_at
                && commit.totals == before.totals.plus(commit.counts);
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
        let range = self.epochs.entry(partition).or_insert((commit.epoch, commit.epoch));
        range.1 = commit.epoch;
    }
}

/// Rejections by tenant and code, from the `rejections` blocks that `audit` still holds.
pub fn rejections(log: &dyn EventLog) -> Result<BTreeMap<(String, String), u64>, RecoveryError> {
    let mut sums = BTreeMap::new();
    for partition in 0..log.partitions() {
        let fail = |e| RecoveryError::Block(partition, e);
        let bounds = log.bounds(LogName::Audit, partition)?;
        let mut at = bounds.start;
        while at < bounds.end {
            let entries = log.read(LogName::Audit, partition, at, READ_BYTES_MAX)?;
            let Some(last) = entries.last() else { break };
            at = last.offset + 1;
            for entry in &entries {
                let Output::Block(block) = Output::read(&entry.record).map_err(fail)? else { continue };
                if block.table != SystemTable::Rejections.as_str() {
                    continue;
                }
                let batch = block.batch().map_err(fail)?;
                let (Some(tenants), Some(codes)) = (batch.column_by_name("tenant"), batch.column_by_name("code")) else { continue };
                let (tenants, codes) = (tenants.as_dictionary::<Int32Type>(), codes.as_dictionary::<Int32Type>());
                let text = |names: &arrow::array::DictionaryArray<Int32Type>, row: usize| {
                    names.values().as_string::<i32>().value(names.keys().value(row) as usize).to_owned()
                };
                for row in 0..batch.num_rows() {
                    *sums.entry((text(tenants, row), text(codes, row))).or_default() += 1;
                }
            }
        }
    }
    Ok(sums)
}
