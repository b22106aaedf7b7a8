//! Adding up: the rows that commit records promise against the rows that tables hold, epoch by epoch; and before that,
//! every byte that the log holds against its checksum.
//!
//! The log is opened beside its owner, up to the durable end at that moment; a table's own cursor, and the sink's place in
//! the log, say through which epoch it is complete. What lies beyond is pending, not missing.

use crate::account::{self, Account};
use crate::scan::ScanError;
use anyhow::Context;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tidegate_schemas::commit::Counts;
use tidegate_schemas::ids::{Epoch, LogId, Partition, TableId, TenantId};
use tidegate_schemas::log::{EventLog, Inspection};
use tidegate_schemas::system::SystemTable;
use tidegate_sinks::parquet::{
    self,
    verify::{Held, Verifier},
};

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
    /// Rows of epochs that a table does not claim yet.
    pub rows_pending: u64,
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
    /// Whose rows.
    pub tenant: TenantId,
    /// Its id.
    pub table: String,
    /// Its folder.
    pub path: PathBuf,
    /// Rows of this log.
    pub rows: u64,
    /// Version of the Delta table.
    pub version: u64,
    /// Live files.
    pub files: u64,
}

impl Report {
    fn differ(&mut self, text: String) {
        self.differences_count += 1;
        if self.differences.len() < LISTED_MAX {
            self.differences.push(text);
        }
    }
}

/// Compares a log with the tables below `tables`.
pub fn run(log: &dyn EventLog, tables: &Path) -> anyhow::Result<Report> {
    // Asked first: what a sink has let go of by now must be in its tables.
    let mut delivered = BTreeMap::new();
    for partition in 0..log.partitions() {
        if let Some(cursor) = log.cursor(parquet::NAME, partition)? {
            delivered.insert(partition, cursor.epoch.saturating_sub(1));
        }
    }
    let inspection = log.inspect().context("log")?;
    let account = match account::read(log) {
        // Damage is a finding, also where it is in the commits themselves: the tables cannot be compared then.
        Err(error) if !inspection.damage.is_empty() => Account { faults: vec![unreadable(&error)], ..Account::default() },
        read => read.context("commits")?,
    };
    compare(log.log_id(), &inspection, account, &delivered, tables)
}

fn unreadable(error: &ScanError) -> String {
    format!("commits cannot be read, so tables are not compared: {}", crate::worker::chain(error))
}

fn compare(
    log: LogId,
    inspection: &Inspection,
    account: Account,
    delivered: &BTreeMap<Partition, Epoch>,
    root: &Path,
) -> anyhow::Result<Report> {
    let mut report = Report {
        log_id: log,
        log_files: inspection.files,
        log_bytes: inspection.bytes,
        epochs: account.epochs.clone(),
        totals: account.totals,
        rows_committed: account.rows_total,
        gaps: account.gaps.clone(),
        rows_pending: 0,
        tables: Vec::new(),
        differences: Vec::new(),
        differences_count: 0,
    };
    inspection.damage.iter().for_each(|d| report.differ(d.to_string()));
    account.faults.iter().for_each(|f| report.differ(f.clone()));
    let verifier = root.is_dir().then(|| Verifier::open(root)).transpose()?;
    let mut tables: BTreeSet<(TenantId, String)> = account.rows.keys().map(|(_, tenant, table)| (tenant.clone(), table.clone())).collect();
    for found in verifier.iter().map(Verifier::tables).collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
        if SystemTable::named(found.table.as_str()).is_none() {
            tables.insert((found.tenant, found.table.to_string()));
        }
    }
    for (tenant, table) in tables {
        let found = verifier.as_ref().and_then(|v| TableId::new(&table).ok().and_then(|id| v.find(&tenant, &id)).map(|t| (v, t)));
        let held = match found {
            Some((verifier, found)) => {
                let held = verifier.table(&found)?;
                let rows = held.rows.iter().filter(|((l, _, _), _)| *l == log).map(|(_, n)| n).sum();
                let (version, files) = (held.version, held.files);
                report.tables.push(TableReport { tenant: tenant.clone(), table: table.clone(), path: found.path, rows, version, files });
                held
            }
            None => Held::default(),
        };
        table_against(&mut report, &account, delivered, log, &tenant, &table, &held);
    }
    Ok(report)
}

fn table_against(
    report: &mut Report,
    account: &Account,
    delivered: &BTreeMap<Partition, Epoch>,
    log: LogId,
    tenant: &TenantId,
    table: &str,
    held: &Held,
) {
    if held.duplicates > 0 {
        let first =
            held.named.first().map(|(_, p, k)| format!(", first at partition {p} offset {} index {} row {}", k.offset, k.index, k.row));
        report.differ(format!("{tenant}/{table}: {} rows are there more than once{}", held.duplicates, first.unwrap_or_default()));
    }
    for (partition, (first, last)) in &account.epochs {
        let cursor = held.cursors.get(&(log, *partition)).copied().flatten().unwrap_or(0);
        // A table that is gone, or an old copy of one, claims less than the sink's own place in the log does.
        let claimed = cursor.max(delivered.get(partition).copied().unwrap_or(0));
        let empty = BTreeMap::new();
        let promised = account.rows.get(&(*partition, tenant.clone(), table.to_owned())).unwrap_or(&empty);
        report.rows_pending += promised.range(claimed + 1..).map(|(_, n)| n).sum::<u64>();
        let stored: BTreeMap<Epoch, u64> =
            held.rows.range((log, *partition, 0)..=(log, *partition, Epoch::MAX)).map(|((_, _, e), n)| (*e, *n)).collect();
        let through = claimed.min(*last);
        let epochs: BTreeSet<Epoch> = promised.keys().chain(stored.keys()).copied().filter(|e| (*first..=through).contains(e)).collect();
        for epoch in epochs {
            let (committed, found) = (promised.get(&epoch).unwrap_or(&0), stored.get(&epoch).unwrap_or(&0));
            if committed != found {
                report.differ(format!(
                    "{tenant}/{table}: partition {partition} epoch {epoch} committed {committed} rows, the table holds {found}"
                ));
            }
        }
        for (epoch, rows) in stored.range(cursor + 1..) {
            report.differ(format!(
                "{tenant}/{table}: partition {partition} epoch {epoch} has {rows} rows beyond the table's own cursor {cursor}"
            ));
        }
    }
}
