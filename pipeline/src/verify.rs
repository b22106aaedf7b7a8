//! Adding up: the rows that commit records promise against the rows that tables hold, epoch by epoch and sink by sink; and
//! before that, every byte that the log holds against its checksum.
//!
//! The log is opened beside its owner, up to the durable end at that moment; a table's own cursor, and the sink's place in
//! the log, say through which epoch it is complete. What lies beyond is pending, not missing; what retention took is counted.

use crate::account::{self, Account};
use crate::config::Config;
use crate::scan::ScanError;
use anyhow::Context;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tidegate_schemas::commit::Counts;
use tidegate_schemas::ids::{Epoch, LogId, Partition, TableId, TenantId};
use tidegate_schemas::log::{EventLog, Inspection};
use tidegate_schemas::system::SystemTable;
use tidegate_schemas::time;
use tidegate_sinks::clickhouse::{self, ClickHouseSink};
use tidegate_sinks::parquet::{self, verify::Verifier};

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

/// A tenant's rows in one table of one sink.
#[derive(Default)]
struct Stored {
    rows: BTreeMap<(Partition, Epoch), u64>,
    /// Through which epoch the table itself is complete.
    cursors: BTreeMap<Partition, Epoch>,
    /// Rows that are there more than once, and the place of the first.
    duplicates: u64,
    named: Option<String>,
}

/// What a sink is compared with.
struct Promised<'a> {
    log: LogId,
    account: &'a Account,
    sink: &'static str,
    /// The sink's place in the log.
    delivered: BTreeMap<Partition, Epoch>,
    /// What retention leaves: rows of epochs before are not missed.
    kept_from: BTreeMap<Partition, Epoch>,
}

impl Report {
    /// What the log alone tells.
    fn of(log: LogId, inspection: &Inspection, account: &Account) -> Self {
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
            tables: Vec::new(),
            differences: Vec::new(),
            differences_count: 0,
        };
        inspection.damage.iter().for_each(|d| report.differ(d.to_string()));
        account.faults.iter().for_each(|f| report.differ(f.clone()));
        report
    }

    fn differ(&mut self, text: String) {
        self.differences_count += 1;
        if self.differences.len() < LISTED_MAX {
            self.differences.push(text);
        }
    }
}

/// Compares a log with the tables of all sinks that are configured. Blocks.
pub fn run(log: &dyn EventLog, config: &Config) -> anyhow::Result<Report> {
    // Asked first: what a sink has let go of by now must be in its tables.
    let (parquet, clickhouse) = (delivered(log, parquet::NAME)?, delivered(log, clickhouse::NAME)?);
    let inspection = log.inspect().context("log")?;
    let account = match account::read(log) {
        // Damage is a finding, also where it is in the commits themselves: the tables cannot be compared then.
        Err(error) if !inspection.damage.is_empty() => Account { faults: vec![unreadable(&error)], ..Account::default() },
        read => read.context("commits")?,
    };
    let mut report = Report::of(log.log_id(), &inspection, &account);
    let promised = |sink, delivered| Promised { log: log.log_id(), account: &account, sink, delivered, kept_from: BTreeMap::new() };
    if config.sink.parquet.enabled {
        delta_tables(&mut report, &promised(parquet::NAME, parquet), config)?;
    }
    let settings = &config.sink.clickhouse;
    if settings.enabled {
        let mut promised = promised(clickhouse::NAME, clickhouse);
        if let Some(days) = settings.retention_days {
            promised.kept_from = account.since(time::day(crate::server::now()).saturating_sub_unsigned(days));
        }
        let sink = ClickHouseSink::open(settings.options()?)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(clickhouse_tables(&mut report, &promised, &sink, &settings.database))?;
    }
    Ok(report)
}

fn delivered(log: &dyn EventLog, sink: &str) -> anyhow::Result<BTreeMap<Partition, Epoch>> {
    let mut delivered = BTreeMap::new();
    for partition in 0..log.partitions() {
        if let Some(cursor) = log.cursor(sink, partition)? {
            delivered.insert(partition, cursor.epoch.saturating_sub(1));
        }
    }
    Ok(delivered)
}

fn unreadable(error: &ScanError) -> String {
    format!("commits cannot be read, so tables are not compared: {}", tidegate_schemas::causes::chain(error))
}

fn delta_tables(report: &mut Report, promised: &Promised<'_>, config: &Config) -> anyhow::Result<()> {
    let log = promised.log;
    let location = config.tables();
    // Looking makes no folder.
    let there = location.folder().is_none_or(Path::is_dir);
    let open = || anyhow::Ok(Verifier::open(config.s3.open(&location).context("sink.parquet.path")?)?);
    let verifier = there.then(open).transpose()?;
    let mut tables = promised.tables();
    for found in verifier.iter().map(Verifier::tables).collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
        if SystemTable::named(found.table.as_str()).is_none() {
            tables.insert((found.tenant, found.table.to_string()));
        }
    }
    for (tenant, table) in tables {
        let mut stored = Stored::default();
        let found = match (&verifier, TableId::new(&table)) {
            (Some(verifier), Ok(id)) => verifier.find(&tenant, &id)?.map(|t| (verifier, t)),
            _ => None,
        };
        if let Some((verifier, found)) = found {
            let held = match verifier.table(&found) {
                Ok(held) => held,
                // The others are looked at all the same.
                Err(error) => {
                    let why = tidegate_schemas::causes::chain(&error);
                    report.differ(format!("{tenant}/{table} cannot be read: {why}; bring what is missing or damaged back from a copy"));
                    continue;
                }
            };
            let of_log = |((l, p, e), n): (&(LogId, Partition, Epoch), &u64)| (*l == log).then_some(((*p, *e), *n));
            stored = Stored {
                rows: held.rows.iter().filter_map(of_log).collect(),
                cursors: held.cursors.iter().filter(|((l, _), _)| *l == log).filter_map(|((_, p), c)| c.map(|c| (*p, c))).collect(),
                duplicates: held.duplicates,
                named: held.named.first().map(|(_, p, k)| format!("partition {p} offset {} index {} row {}", k.offset, k.index, k.row)),
            };
            report.tables.push(TableReport {
                sink: promised.sink,
                tenant: tenant.clone(),
                table: table.clone(),
                path: found.place(),
                rows: stored.rows.values().sum(),
                version: Some(held.version),
                files: Some(held.files),
            });
        }
        promised.compare(report, &tenant, &table, &stored);
    }
    Ok(())
}

async fn clickhouse_tables(report: &mut Report, promised: &Promised<'_>, sink: &ClickHouseSink, database: &str) -> anyhow::Result<()> {
    let expected = promised.tables();
    let mut tables: BTreeSet<String> = expected.iter().map(|(_, table)| table.clone()).collect();
    let there: BTreeSet<String> = sink.tables().await?.into_iter().filter(|t| SystemTable::named(t).is_none()).collect();
    tables.extend(there.iter().cloned());
    for table in tables {
        let held = match there.contains(&table) {
            true => sink.held_rows(&table, promised.log, &promised.account.epochs).await?,
            false => clickhouse::verify::Held::default(),
        };
        for (partition, epoch) in &held.cursors {
            if promised.account.epochs.get(partition).is_none_or(|(_, last)| epoch > last) {
                report.differ(format!("{} {table}: partition {partition} holds epoch {epoch}, which was never committed", promised.sink));
            }
        }
        let mut tenants: BTreeSet<TenantId> = expected.iter().filter(|(_, t)| *t == table).map(|(tenant, _)| tenant.clone()).collect();
        tenants.extend(held.totals.keys().cloned());
        for tenant in tenants {
            let rows = held.rows.iter().filter(|((t, _, _), _)| *t == tenant).map(|((_, p, e), n)| ((*p, *e), *n)).collect();
            let (duplicates, named) = held.duplicates.get(&tenant).cloned().map_or((0, None), |(n, place)| (n, Some(place)));
            let stored = Stored { rows, cursors: held.cursors.clone(), duplicates, named };
            if let Some(total) = held.totals.get(&tenant) {
                let path = format!("{database}.{table}");
                let (tenant, table) = (tenant.clone(), table.clone());
                report.tables.push(TableReport { sink: promised.sink, tenant, table, path, rows: *total, version: None, files: None });
            }
            promised.compare(report, &tenant, &table, &stored);
        }
    }
    Ok(())
}

impl Promised<'_> {
    /// Tenants' tables that commits name.
    fn tables(&self) -> BTreeSet<(TenantId, String)> {
        self.account.rows.keys().map(|(_, tenant, table)| (tenant.clone(), table.clone())).collect()
    }

    fn compare(&self, report: &mut Report, tenant: &TenantId, table: &str, stored: &Stored) {
        // Delta tables are the default, and their messages name nothing else.
        let name = if self.sink == parquet::NAME { format!("{tenant}/{table}") } else { format!("{} {tenant}/{table}", self.sink) };
        if stored.duplicates > 0 {
            let first = stored.named.as_ref().map(|place| format!(", first at {place}")).unwrap_or_default();
            report.differ(format!("{name}: {} rows are there more than once{first}", stored.duplicates));
        }
        for (partition, (first, last)) in &self.account.epochs {
            let cursor = stored.cursors.get(partition).copied().unwrap_or(0);
            // A table that is gone, or an old copy of one, claims less than the sink's own place in the log does.
            let claimed = cursor.max(self.delivered.get(partition).copied().unwrap_or(0));
            let kept_from = self.kept_from.get(partition).copied().unwrap_or(0).max(*first);
            let empty = BTreeMap::new();
            let promised = self.account.rows.get(&(*partition, tenant.clone(), table.to_owned())).unwrap_or(&empty);
            report.rows_pending += promised.range((claimed + 1).max(kept_from)..).map(|(_, n)| n).sum::<u64>();
            report.rows_expired += promised.range(..kept_from).map(|(_, n)| n).sum::<u64>();
            let of_partition = stored.rows.range((*partition, 0)..=(*partition, Epoch::MAX));
            let there: BTreeMap<Epoch, u64> = of_partition.map(|((_, e), n)| (*e, *n)).collect();
            let through = claimed.min(*last);
            let epochs: BTreeSet<Epoch> =
                promised.keys().chain(there.keys()).copied().filter(|e| (kept_from..=through).contains(e)).collect();
            for epoch in epochs {
                let (committed, found) = (promised.get(&epoch).unwrap_or(&0), there.get(&epoch).unwrap_or(&0));
                if committed != found {
                    report
                        .differ(format!("{name}: partition {partition} epoch {epoch} committed {committed} rows, the table holds {found}"));
                }
            }
            for (epoch, rows) in there.range(cursor + 1..) {
                report
                    .differ(format!("{name}: partition {partition} epoch {epoch} has {rows} rows beyond the table's own cursor {cursor}"));
            }
        }
    }
}
