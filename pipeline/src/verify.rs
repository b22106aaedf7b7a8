//! Adding up: the rows that commit records promise against the rows that tables hold, epoch by epoch and sink by sink; and
//! before that, every byte that the log holds against its checksum.
//!
//! The log is opened beside its owner, up to the durable end at that moment; a table's own cursor, and the sink's place in
//! the log, say through which epoch it is complete. What lies beyond is pending, not missing; what retention took is counted, and
//! so are rows of parked tables, which wait or were dropped on record.

mod compare;
mod report;

pub use report::{ParkedReport, Report, TableReport};

use crate::account::{self, Account};
use crate::config::Config;
use crate::scan::ScanError;
use anyhow::Context;
use compare::{Promised, Stored};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use tidegate_schemas::ids::{Epoch, LogId, Partition, TableId, TenantId};
use tidegate_schemas::log::EventLog;
use tidegate_schemas::system::SystemTable;
use tidegate_schemas::time;
use tidegate_sinks::clickhouse::{self, ClickHouseSink};
use tidegate_sinks::driver;
use tidegate_sinks::parquet::{self, verify::Verifier};

/// How long ClickHouse may take for its first answer: whoever asks waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Compares a log with the tables of all sinks that are configured; `deep` reads every byte of them, where the sink has files. A sink
/// that cannot be read is a difference, and the others are compared all the same. Blocks.
pub fn run(log: &dyn EventLog, config: &Config, deep: bool) -> anyhow::Result<Report> {
    // Asked first: what a sink has let go of by now must be in its tables.
    let (parquet, clickhouse) = (delivered(log, parquet::NAME)?, delivered(log, clickhouse::NAME)?);
    let inspection = log.inspect().context("log")?;
    let account = match account::read(log) {
        // Damage is a finding, also where it is in the commits themselves: the tables cannot be compared then.
        Err(error) if !inspection.damage.is_empty() => Account { faults: vec![unreadable(&error)], ..Account::default() },
        read => read.context("commits")?,
    };
    let mut report = Report::of(log.log_id(), &inspection, &account);
    let promised = |sink, delivered| {
        let apart = driver::apart(&config.parked(sink), sink, log.log_id()).context("parked rows")?;
        anyhow::Ok(Promised { log: log.log_id(), account: &account, sink, delivered, kept_from: BTreeMap::new(), apart })
    };
    if config.sink.parquet.enabled {
        let promised = promised(parquet::NAME, parquet)?;
        if let Err(error) = delta_tables(&mut report, &promised, config, deep) {
            report.unread(parquet::NAME, &error);
        }
    }
    let settings = &config.sink.clickhouse;
    if settings.enabled {
        let mut promised = promised(clickhouse::NAME, clickhouse)?;
        if let Some(days) = settings.retention_days {
            promised.kept_from = account.since(time::day(crate::server::now()).saturating_sub_unsigned(days));
        }
        let sink = ClickHouseSink::open(settings.options()?)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        if let Err(error) = runtime.block_on(clickhouse_tables(&mut report, &promised, &sink, &settings.database)) {
            report.unread(clickhouse::NAME, &error);
        }
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

fn delta_tables(report: &mut Report, promised: &Promised<'_>, config: &Config, deep: bool) -> anyhow::Result<()> {
    let log = promised.log;
    let location = config.tables();
    // Looking makes no folder.
    let there = location.folder().is_none_or(Path::is_dir);
    let open = || anyhow::Ok(Verifier::open(config.s3.open(&location).context("sink.parquet.path")?)?.deep(deep));
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
    let there = tokio::time::timeout(PATIENCE, sink.tables()).await;
    let there = there.with_context(|| format!("no answer within {} s", PATIENCE.as_secs()))??;
    let there: BTreeSet<String> = there.into_iter().filter(|t| SystemTable::named(t).is_none()).collect();
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
