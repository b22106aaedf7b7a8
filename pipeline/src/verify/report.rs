//! What was found: of the log, of each table, and what does not add up.

use crate::account::Account;
use serde::Serialize;
use std::collections::BTreeMap;
use tidegate_schemas::commit::Counts;
use tidegate_schemas::ids::{Epoch, LogId, Partition, TenantId};
use tidegate_schemas::log::Inspection;

/// Differences that are listed; all are counted.
const LISTED_MAX: usize = 1_000;

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The log.
    pub log_id: LogId,
    /// Files of the log that were read whole.
    pub log_files: usize,
    /// Their bytes.
    pub log_bytes: u64,
    /// First and last epoch compared, by partition.
    pub epochs: BTreeMap<Partition, (Epoch, Epoch)>,
    /// What became of all events since the log began.
    #[serde(flatten)]
    pub totals: Counts,
    /// Rows that commits promise since the log began.
    pub rows_committed: u64,
    /// Rows of epochs that a table does not claim yet, over all sinks.
    pub rows_pending: u64,
    /// Rows that a sink's retention has removed, or may at any time.
    pub rows_expired: u64,
    /// Rows of parked tables that wait to be delivered.
    pub rows_parked: u64,
    /// Rows of parked tables that were dropped, which is on record.
    pub rows_dropped: u64,
    /// Where those belong, in order.
    pub parked: Vec<ParkedReport>,
    /// Tables, in order.
    pub tables: Vec<TableReport>,
    /// Requests that somebody else deleted before they were processed, where it was accepted to go on (`--accept-gap`).
    pub gaps: Vec<String>,
    /// What does not add up; empty where all is well.
    pub differences: Vec<String>,
    /// How many there are, listed or not.
    pub differences_count: u64,
}

/// One table.
#[derive(Debug, Serialize)]
pub struct TableReport {
    /// Where it is kept.
    pub sink: &'static str,
    /// Whose rows.
    pub tenant: TenantId,
    /// Its id.
    pub table: String,
    /// Its folder, or its name.
    pub path: String,
    /// Rows of this log.
    pub rows: u64,
    /// Version of a Delta table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Live files of a Delta table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
}

/// What is kept apart of one table.
#[derive(Debug, Serialize)]
pub struct ParkedReport {
    /// Where the rows should be.
    pub sink: &'static str,
    /// Whose rows.
    pub tenant: TenantId,
    /// Its id.
    pub table: String,
    /// Rows that wait to be delivered.
    pub rows: u64,
    /// Rows that were dropped.
    pub rows_dropped: u64,
}

impl Report {
    /// What the log alone tells.
    pub(super) fn of(log: LogId, inspection: &Inspection, account: &Account) -> Self {
        let mut report = Self {
            log_id: log,
            log_files: inspection.files,
            log_bytes: inspection.bytes,
            epochs: account.epochs.clone(),
            totals: account.totals,
            rows_committed: account.rows_total,
            gaps: account.gaps.clone(),
            rows_pending: 0,
            rows_expired: 0,
            rows_parked: 0,
            rows_dropped: 0,
            parked: Vec::new(),
            tables: Vec::new(),
            differences: Vec::new(),
            differences_count: 0,
        };
        inspection.damage.iter().for_each(|d| report.differ(d.to_string()));
        account.faults.iter().for_each(|f| report.differ(f.clone()));
        report
    }

    pub(super) fn differ(&mut self, text: String) {
        self.differences_count += 1;
        if self.differences.len() < LISTED_MAX {
            self.differences.push(text);
        }
    }

    /// Nothing is known of a sink: what the others hold is told all the same.
    pub(super) fn unread(&mut self, sink: &str, error: &anyhow::Error) {
        self.differ(format!("{sink} cannot be read, so its tables are not compared: {error:#}"));
    }
}
