//! The driver over the real engine: rebuilt at any moment, with lost replies, an engine that dies, and one that hangs.

use super::engine::{Engine, own};
use super::{DAY, cut, options};
use crate::log::{LOG, MemoryLog, header};
use crate::rows::{blocks, runs, table};
use crate::running::{Random, Running};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_schemas::ids::{Epoch, Partition};
use tidegate_schemas::system::SystemTable;
use tidegate_schemas::table::FieldType;
use tidegate_sinks::clickhouse::{ClickHouseOptions, ClickHouseSink, TableOptions};
use tidegate_sinks::driver::{DriverOptions, TableSelection};

const PARTITIONS: Partition = 2;
/// What every test here commits to a partition.
const EPOCHS: Epoch = 60;

/// Rows of two tenants in two tables, one of which gets columns half-way; `script_runs` in every third epoch.
fn fill(log: &MemoryLog, partition: Partition, epochs: std::ops::RangeInclusive<Epoch>) {
    let (narrow, wide) = (table("climate", &[]), table("climate", &[("note", FieldType::Text, None), ("n", FieldType::I64, None)]));
    let energy = table("energy", &[]);
    for epoch in epochs {
        let at = header(epoch, DAY + epoch as f64, cut());
        let climate = if epoch * 2 > EPOCHS { &wide } else { &narrow };
        let mut clean = blocks(partition, &at, climate, &[("acme", 4), ("beta", 1 + epoch as usize % 3)]);
        if epoch % 4 == 1 {
            clean.extend(blocks(partition, &at, &energy, &[("beta", 2)]));
        }
        let audit = if epoch % 3 == 0 { runs(partition, &at, &["acme", "beta"]) } else { Vec::new() };
        log.epoch(partition, &at, clean, audit);
    }
}

/// Closes what is open.
fn close(log: &MemoryLog) {
    (0..PARTITIONS).for_each(|p| log.epoch(p, &header(EPOCHS + 1, DAY + 7_200.0, cut()), vec![], vec![]));
}

/// A driver over the engine.
fn start(log: &Arc<MemoryLog>, sink: ClickHouseSink, park: &Path) -> Running {
    let tables = TableSelection { system: vec![SystemTable::ScriptRuns] };
    Running::start(log, Arc::new(sink), DriverOptions { retry_seconds_max: 1, tables, ..DriverOptions::new(park) })
}

fn sink(engine: &Engine, database: &str, patience: Duration) -> ClickHouseSink {
    // A window that a flood would leave quickly.
    let tables = TableOptions { window: 40, ..TableOptions::default() };
    ClickHouseSink::open(ClickHouseOptions { patience, tables, ..options(engine, database) }).unwrap()
}

/// Every row that was committed, once, by what `verify` reads and by the engine's own count.
async fn check(engine: &Engine, database: &str) {
    let sink = sink(engine, database, Duration::from_secs(20));
    assert_eq!(sink.tables().await.unwrap(), ["climate", "energy", "script_runs"]);
    let epochs: BTreeMap<Partition, (Epoch, Epoch)> = (0..PARTITIONS).map(|p| (p, (1, EPOCHS))).collect();
    let held = sink.held_rows("climate", LOG, &epochs).await.unwrap();
    assert!(held.duplicates.is_empty(), "{:?}", held.duplicates);
    for partition in 0..PARTITIONS {
        assert_eq!(held.cursors[&partition], EPOCHS);
        for epoch in 1..=EPOCHS {
            for (tenant, rows) in [("acme", 4), ("beta", 1 + epoch % 3)] {
                let of = (tenant.to_owned().try_into().unwrap(), partition, epoch);
                assert_eq!(held.rows.get(&of), Some(&rows), "{of:?}");
            }
        }
    }
    let count = |table: &str| engine.number(&format!("SELECT count() FROM `{database}`.{table}"));
    assert_eq!((count("energy"), count("script_runs")), (2 * 15 * 2, 2 * 20 * 2));
    let distinct = engine.number(&format!("SELECT uniqExact(_partition, _offset, _index, _row) FROM `{database}`.climate"));
    assert_eq!(distinct, count("climate"));
}

/// `TIDEGATE_SINK_SEEDS=200` makes it 200.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_row_once_over_rebuilt_drivers_lost_replies_and_dead_engines() {
    let Some(mut engine) = own() else { return };
    let seeds: u64 = std::env::var("TIDEGATE_SINK_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(50);
    for seed in 0..seeds {
        println!("seed {seed}");
        let (database, mut random) = (format!("s{seed}"), Random(seed));
        let (log, park) = (Arc::new(MemoryLog::new(PARTITIONS)), tempfile::tempdir().unwrap());
        let mut filled = 0;
        while filled < EPOCHS {
            let more = (filled + 1 + random.below(30)).min(EPOCHS);
            (0..PARTITIONS).for_each(|p| fill(&log, p, filled + 1..=more));
            filled = more;
            engine.loses_replies(random.below(3) as u32);
            let running = start(&log, sink(&engine, &database, Duration::from_secs(20)), park.path());
            tokio::time::sleep(Duration::from_millis(random.below(120))).await;
            if random.below(12) == 0 {
                engine.kill();
                tokio::time::sleep(Duration::from_millis(random.below(50))).await;
                engine.resume();
            }
            // As a process that dies: whatever is under way stays so.
            drop(running);
        }
        close(&log);
        start(&log, sink(&engine, &database, Duration::from_secs(20)), park.path()).finish(&log, EPOCHS).await;
        check(&engine, &database).await;
        engine.ask(&format!("DROP DATABASE {database} SYNC"));
    }
}

/// An engine that takes connections and says nothing, and does it all later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_hangs_costs_time_and_nothing_else() {
    let Some(engine) = own() else { return };
    let (log, park) = (Arc::new(MemoryLog::new(PARTITIONS)), tempfile::tempdir().unwrap());
    let running = start(&log, sink(&engine, "hung", Duration::from_secs(2)), park.path());
    for round in 0..3 {
        engine.signal("-STOP");
        (0..PARTITIONS).for_each(|p| fill(&log, p, round * 20 + 1..=round * 20 + 20));
        until("a failure that is told", || running.progress.failure().is_some_and(|f| f.contains("no answer within 2 s")));
        engine.signal("-CONT");
        until("the end of the failure", || running.progress.failure().is_none());
    }
    close(&log);
    running.finish(&log, EPOCHS).await;
    check(&engine, "hung").await;
}

/// The owner dies with its last insert stored and not noted; while it is away others flood the table past its window.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absence_longer_than_the_window_repeats_nothing() {
    let Some(engine) = own() else { return };
    let (log, park) = (Arc::new(MemoryLog::new(PARTITIONS)), tempfile::tempdir().unwrap());
    (0..PARTITIONS).for_each(|p| fill(&log, p, 1..=30));
    let running = start(&log, sink(&engine, "away", Duration::from_secs(20)), park.path());
    until("rows of both", || {
        engine.try_ask("SELECT uniqExact(_partition) FROM away.climate").is_ok_and(|n| n.trim() == PARTITIONS.to_string())
    });
    drop(running);
    // Rows of another log: the table cannot tell whose tokens it forgets.
    let foreign = "00000000000000000000000000000000";
    for epoch in 1..=60 {
        engine.ask(&format!(
            "INSERT INTO away.climate SELECT * REPLACE('{foreign}' AS _log, toInt64({epoch}) AS _epoch) FROM away.climate WHERE _log != '{foreign}' LIMIT 1"
        ));
    }
    (0..PARTITIONS).for_each(|p| fill(&log, p, 31..=EPOCHS));
    close(&log);
    start(&log, sink(&engine, "away", Duration::from_secs(20)), park.path()).finish(&log, EPOCHS).await;
    engine.ask(&format!("ALTER TABLE away.climate DELETE WHERE _log = '{foreign}' SETTINGS mutations_sync = 2"));
    check(&engine, "away").await;
}

/// Waits for something that comes.
fn until(what: &str, mut look: impl FnMut() -> bool) {
    let started = Instant::now();
    while !look() {
        assert!(started.elapsed() < Duration::from_secs(180), "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
