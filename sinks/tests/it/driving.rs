//! The driver with sinks that fail on command: nothing is lost, nothing is taken twice, one table does not stop others.

use crate::log::{LOG, MemoryLog, header};
use crate::rows::{blocks, table, target};
use crate::running::Running;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_schemas::BoxFuture;
use tidegate_schemas::block::decode;
use tidegate_schemas::ids::{Epoch, LogId, Partition};
use tidegate_schemas::log::{EventLog, SinkCursor};
use tidegate_schemas::sink::*;
use tidegate_sinks::driver::{self, Driver, DriverOptions, Progress, Wish};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// First epoch, last epoch and rows of each cut taken.
type Taken = BTreeMap<(Target, Partition), Vec<(Epoch, Epoch, u64)>>;

/// Keeps what any sink keeps.
#[derive(Default)]
struct Fake {
    tables: Mutex<Taken>,
    grain: Option<Grain>,
    fail_next: AtomicU32,
    down: AtomicBool,
    hangs: AtomicBool,
    refuse: Mutex<Option<String>>,
    calls: AtomicU32,
}

impl Sink for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn grain(&self) -> Grain {
        self.grain.unwrap_or(Grain::Tenant)
    }

    fn held(&self, log: LogId, partition: Partition, target: &Target) -> BoxFuture<'_, Result<Option<Epoch>, SinkError>> {
        assert_eq!(log, LOG);
        let held = self.tables.lock().unwrap().get(&(target.clone(), partition)).and_then(|cuts| cuts.last()).map(|c| c.1);
        Box::pin(async move { Ok(held) })
    }

    fn deliver(&self, cut: Cut) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            while self.hangs.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let retryable = |detail: &str| SinkError::Retryable { doing: "delivering".into(), detail: detail.into() };
            if self.down.load(Ordering::SeqCst) {
                return Err(retryable("told to be down"));
            }
            if self.fail_next.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
                return Err(retryable("told to fail"));
            }
            if self.refuse.lock().unwrap().as_ref() == Some(&cut.target.table) {
                return Err(SinkError::Permanent { doing: "delivering".into(), detail: "told to refuse".into() });
            }
            let rows = match &cut.rows {
                Rows::Batches(batches) => batches.iter().map(|b| b.num_rows() as u64).sum::<u64>(),
                Rows::Streams(streams) => streams.iter().map(|s| decode(s).unwrap().num_rows() as u64).sum(),
            };
            assert_eq!(rows, cut.rows_count);
            let mut tables = self.tables.lock().unwrap();
            let cuts = tables.entry((cut.target.clone(), cut.partition)).or_default();
            assert!(cuts.last().is_none_or(|c| c.1 < cut.first), "out of order or twice: {}", cut.name());
            cuts.push((cut.first, cut.last, rows));
            Ok(())
        })
    }

    fn location(&self, target: &Target) -> String {
        format!("fake:{}", target.table)
    }
}

impl Fake {
    fn rows(&self, table: &str) -> u64 {
        let tables = self.tables.lock().unwrap();
        tables.iter().filter(|((t, _), _)| t.table == table).flat_map(|(_, cuts)| cuts).map(|c| c.2).sum()
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

fn start(log: &Arc<MemoryLog>, sink: &Arc<Fake>, park: &Path, park_bytes_max: u64) -> Running {
    let options = DriverOptions { retry_seconds_max: 1, park_bytes_max, ..DriverOptions::new(park) };
    Running::start(log, Arc::clone(sink) as _, options)
}

fn cut() -> CutParameters {
    CutParameters { rows: 20, rows_max: 50, seconds_min: 5, edge_seconds: 30, ..CutParameters::default() }
}

/// Epochs of three rows in `climate` (two tenants) and one in `energy`, a second apart.
fn fill(log: &MemoryLog, partition: Partition, epochs: std::ops::RangeInclusive<u64>) {
    fill_at(log, partition, epochs, 1_000.0);
}

fn fill_at(log: &MemoryLog, partition: Partition, epochs: std::ops::RangeInclusive<u64>, seconds: f64) {
    let (climate, energy) = (table("climate", &[]), table("energy", &[]));
    for epoch in epochs {
        let header = header(epoch, seconds + epoch as f64, cut());
        let mut clean = blocks(partition, &header, &climate, &[("acme", 2), ("beta", 1)]);
        clean.extend(blocks(partition, &header, &energy, &[("acme", 1)]));
        log.epoch(partition, &header, clean, vec![]);
    }
}

/// Closes everything before it.
fn close(log: &MemoryLog, partition: Partition, epoch: u64) {
    log.epoch(partition, &header(epoch, 5_000.0 + epoch as f64, cut()), vec![], vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_hangs_is_told_of_while_it_does() {
    let (log, park, sink) = (Arc::new(MemoryLog::new(1)), tempfile::tempdir().unwrap(), Arc::new(Fake::default()));
    sink.hangs.store(true, Ordering::SeqCst);
    fill(&log, 0, 1..=25);
    close(&log, 0, 26);
    let options = DriverOptions { slow: Duration::from_millis(20), ..DriverOptions::new(park.path()) };
    let running = Running::start(&log, Arc::clone(&sink) as _, options);
    running.until(PATIENCE, |p| p.failure().is_some_and(|why| why.starts_with("fake:") && why.contains(": no answer for "))).await;
    sink.hangs.store(false, Ordering::SeqCst);
    running.until(PATIENCE, |p| p.settled(0) == 26 && p.failure().is_none()).await;
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_partitions_are_delivered_once_over_failures_and_restarts() {
    for grain in [Grain::Tenant, Grain::Table] {
        let (log, park) = (Arc::new(MemoryLog::new(3)), tempfile::tempdir().unwrap());
        let sink = Arc::new(Fake { grain: Some(grain), ..Fake::default() });
        for round in 0..6u64 {
            (0..3).for_each(|p| fill(&log, p, round * 25 + 1..=round * 25 + 25));
            sink.fail_next.store(3, Ordering::SeqCst);
            let running = start(&log, &sink, park.path(), 1 << 20);
            if round % 2 == 0 {
                tokio::time::sleep(Duration::from_millis(3 * round)).await;
            } else {
                running.until(PATIENCE, |p| (0..3).all(|i| p.lag(i).read == (round + 1) * 25)).await;
            }
            running.stop().await.unwrap();
        }
        (0..3).for_each(|p| close(&log, p, 151));
        let running = start(&log, &sink, park.path(), 1 << 20);
        running.until(PATIENCE, |p| (0..3).all(|i| p.settled(i) == 151)).await;
        assert_eq!((sink.rows("climate"), sink.rows("energy")), (3 * 150 * 3, 3 * 150));
        assert!(running.progress.parked().is_empty());
        running.until(PATIENCE, |_| log.cursor("fake", 2).unwrap().is_some_and(|c| c.epoch == 151)).await;
        running.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_come_and_go_between_two_drivers() {
    let (log, park, sink) = (Arc::new(MemoryLog::new(3)), tempfile::tempdir().unwrap(), Arc::new(Fake::default()));
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let drivers: Vec<_> = (0..2)
        .map(|_| {
            let driver = Driver::new(Arc::clone(&log) as _, Arc::clone(&sink) as _, DriverOptions::new(park.path()));
            let (progress, (tell, told)) = (driver.progress(), watch::channel(BTreeSet::new()));
            tasks.spawn(driver.run(told, stop.clone()));
            (progress, tell)
        })
        .collect();
    for round in 0..6u64 {
        (0..3).for_each(|p| fill(&log, p, round * 25 + 1..=round * 25 + 25));
        // One of them has partition `round` alone, nobody has the next, the other one has the third.
        let [alone, nobody, other] = [0, 1, 2].map(|i| ((round + i) % 3) as Partition);
        for (driver, partition) in drivers.iter().zip([alone, other]) {
            driver.1.send_replace(BTreeSet::from([partition]));
            let alone = |p: &Progress| (0..3).all(|i| p.is_active(i) == (i == partition));
            for _ in 0..2_000 {
                if alone(&driver.0) && driver.0.lag(partition).read == (round + 1) * 25 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!((alone(&driver.0), driver.0.lag(partition).read), (true, (round + 1) * 25), "round {round}, partition {partition}");
        }
        assert!(drivers.iter().all(|(progress, _)| progress.lag(nobody).read == 0), "round {round}");
    }
    (0..3).for_each(|p| close(&log, p, 151));
    drivers[0].1.send_replace(BTreeSet::new());
    drivers[1].1.send_replace((0..3).collect());
    for _ in 0..2_000 {
        if (0..3).all(|p| drivers[1].0.settled(p) == 151) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((sink.rows("climate"), sink.rows("energy")), (3 * 150 * 3, 3 * 150));
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_new_sink_stores_its_start_first() {
    let (log, park, sink) = (Arc::new(MemoryLog::new(1)), tempfile::tempdir().unwrap(), Arc::new(Fake::default()));
    fill(&log, 0, 1..=5);
    log.trim_clean(0, 3);
    let running = start(&log, &sink, park.path(), 0);
    running.until(PATIENCE, |p| p.lag(0).read == 5).await;
    assert_eq!(log.cursor("fake", 0).unwrap(), Some(SinkCursor { clean: 3, audit: 0, epoch: 0 }));
    // Rows that wait in open cuts are not settled.
    assert_eq!((running.progress.settled(0), running.progress.through(0, &target("climate", "acme"))), (1, 1));
    assert_eq!(running.progress.through(0, &target("climate", "nobody")), 5);
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_sink_costs_lag_and_no_reading() {
    let (log, park, sink) = (Arc::new(MemoryLog::new(1)), tempfile::tempdir().unwrap(), Arc::new(Fake::default()));
    sink.down.store(true, Ordering::SeqCst);
    fill(&log, 0, 1..=40);
    let running = start(&log, &sink, park.path(), 1 << 20);
    running.until(PATIENCE, |_| sink.calls.load(Ordering::SeqCst) > 3).await;
    let reads = log.reads.load(Ordering::SeqCst);
    fill(&log, 0, 41..=80);
    running.until(PATIENCE, |p| p.failure().is_some_and(|f| f.contains("told to be down"))).await;
    assert_eq!(log.reads.load(Ordering::SeqCst), reads, "the log is not read on while a delivery is owed");
    assert!(running.progress.settled(0) < 30);
    sink.down.store(false, Ordering::SeqCst);
    close(&log, 0, 81);
    running.until(PATIENCE, |p| p.settled(0) == 81).await;
    assert_eq!((sink.rows("climate"), running.progress.failure()), (240, None));
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_driver_neither_reads_nor_delivers() {
    let (log, park, sink) = (Arc::new(MemoryLog::new(1)), tempfile::tempdir().unwrap(), Arc::new(Fake::default()));
    let running = start(&log, &sink, park.path(), 1 << 20);
    running.progress.pause(true);
    // A look that began before may end after.
    tokio::time::sleep(Duration::from_millis(600)).await;
    fill(&log, 0, 1..=40);
    close(&log, 0, 41);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((sink.calls.load(Ordering::SeqCst), running.progress.settled(0)), (0, 0));
    running.progress.pause(false);
    running.until(PATIENCE, |p| p.settled(0) == 41).await;
    assert_eq!(sink.rows("climate"), 120);
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_table_is_parked_and_the_others_go_on() {
    let (log, park, sink) = (Arc::new(MemoryLog::new(1)), tempfile::tempdir().unwrap(), Arc::new(Fake::default()));
    *sink.refuse.lock().unwrap() = Some("energy".into());
    fill(&log, 0, 1..=40);
    close(&log, 0, 41);
    let running = start(&log, &sink, park.path(), 1 << 20);
    running.until(PATIENCE, |p| p.through(0, &target("climate", "acme")) == 41).await;
    let parked = running.progress.parked();
    assert_eq!((parked.len(), &parked[0].target, parked[0].first), (1, &target("energy", "acme"), 1));
    assert_eq!(parked[0].reason, "delivering: told to refuse");
    assert_eq!((running.progress.settled(0), running.progress.through(0, &target("energy", "acme"))), (0, 0));
    // The cursor does not wait for it.
    running.until(PATIENCE, |_| log.cursor("fake", 0).unwrap().unwrap().epoch == 41).await;
    running.stop().await.unwrap();

    // It stays parked after a restart, whatever the sink would say now: its rows must come in order.
    *sink.refuse.lock().unwrap() = None;
    fill_at(&log, 0, 42..=42, 5_000.0);
    log.epoch(0, &header(43, 6_000.0, cut()), vec![], vec![]);
    let running = start(&log, &sink, park.path(), 1 << 20);
    running.until(PATIENCE, |p| p.through(0, &target("climate", "acme")) == 43).await;
    assert_eq!((sink.rows("climate"), sink.rows("energy"), running.progress.parked().len()), (123, 0, 1));
    running.stop().await.unwrap();
    let files = files(park.path());
    let arrow: Vec<&String> = files.iter().filter(|f| f.ends_with(".arrow")).collect();
    assert_eq!(arrow.len(), 4, "{files:?}");
    let rows: usize = arrow
        .iter()
        .flat_map(|f| arrow::ipc::reader::StreamReader::try_new(std::fs::File::open(f).unwrap(), None).unwrap())
        .map(|batch| batch.unwrap().num_rows())
        .sum();
    assert_eq!(rows, 41);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_in_vain_tells_why() {
    let (log, park, sink) = (Arc::new(MemoryLog::new(1)), tempfile::tempdir().unwrap(), Arc::new(Fake::default()));
    *sink.refuse.lock().unwrap() = Some("energy".into());
    fill(&log, 0, 1..=40);
    close(&log, 0, 41);
    let running = start(&log, &sink, park.path(), 1 << 20);
    running.until(PATIENCE, |p| !p.parked().is_empty() && p.through(0, &target("climate", "acme")) == 41).await;
    running.stop().await.unwrap();
    let apart = driver::apart(park.path(), "fake", LOG).unwrap();
    assert!(!apart.is_empty() && apart.iter().all(|a| a.target == target("energy", "acme") && !a.dropped), "{apart:?}");
    // It was another reason then.
    let note = files(park.path()).into_iter().find(|f| f.ends_with("parked.json")).unwrap();
    let old = std::fs::read_to_string(&note).unwrap().replace("told to refuse", "of old");
    std::fs::write(&note, old).unwrap();
    let reason = || driver::survey(park.path(), "fake", LOG).unwrap().remove(0).reason;
    assert_eq!(reason(), "delivering: of old");
    driver::wish(park.path(), "fake", LOG, Wish::Resume, |_| true).unwrap();
    let running = start(&log, &sink, park.path(), 1 << 20);
    running.until(PATIENCE, |_| reason() == "delivering: told to refuse").await;
    running.until(PATIENCE, |p| p.parked().iter().any(|parked| parked.reason == "delivering: told to refuse")).await;
    running.stop().await.unwrap();
    assert_eq!(driver::apart(park.path(), "fake", LOG).unwrap(), apart);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_rows_past_the_budget_are_a_recorded_gap() {
    let (log, park, sink) = (Arc::new(MemoryLog::new(1)), tempfile::tempdir().unwrap(), Arc::new(Fake::default()));
    *sink.refuse.lock().unwrap() = Some("climate".into());
    fill(&log, 0, 1..=40);
    close(&log, 0, 41);
    let running = start(&log, &sink, park.path(), 12_000);
    running.until(PATIENCE, |p| p.through(0, &target("energy", "acme")) == 41).await;
    running.stop().await.unwrap();
    let files = files(park.path());
    let of = |end: &str| files.iter().filter(|f| f.ends_with(end)).collect::<Vec<_>>();
    assert!(!of(".arrow").is_empty() && !of(".gap").is_empty(), "{files:?}");
    let size: u64 = of(".arrow").iter().map(|f| std::fs::metadata(f).unwrap().len()).sum();
    assert!(size <= 12_000);
    assert!(std::fs::read_to_string(of(".gap")[0]).unwrap().contains("\"rows\":"));
    let apart = driver::apart(park.path(), "fake", LOG).unwrap();
    let dropped = apart.iter().filter(|a| a.dropped).count();
    assert_eq!((apart.len() - dropped, dropped), (of(".arrow").len(), of(".gap").len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_epoch_inside_a_cut_parks_the_table() {
    let (log, park, sink) = (Arc::new(MemoryLog::new(1)), tempfile::tempdir().unwrap(), Arc::new(Fake::default()));
    fill(&log, 0, 1..=20);
    close(&log, 0, 21);
    sink.tables.lock().unwrap().insert((target("climate", "beta"), 0), vec![(1, 7, 7)]);
    // The whole of what would be cut first: it is skipped.
    sink.tables.lock().unwrap().insert((target("energy", "acme"), 0), vec![(1, 20, 20)]);
    let running = start(&log, &sink, park.path(), 1 << 20);
    running.until(PATIENCE, |p| p.through(0, &target("climate", "acme")) == 21 && p.through(0, &target("energy", "acme")) == 21).await;
    let parked = running.progress.parked();
    assert_eq!((parked.len(), &parked[0].target), (1, &target("climate", "beta")));
    assert!(parked[0].reason.starts_with("fake:climate holds epochs up to 7 of partition 0, inside the cut 0707"), "{}", parked[0].reason);
    assert_eq!((sink.rows("climate"), sink.rows("energy")), (40 + 7, 20));
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_range_stops_its_partition_alone() {
    let (log, park, sink) = (Arc::new(MemoryLog::new(2)), tempfile::tempdir().unwrap(), Arc::new(Fake::default()));
    (0..2).for_each(|p| fill(&log, p, 1..=10));
    log.store_cursor("fake", 0, SinkCursor { clean: 0, audit: 0, epoch: 1 }).unwrap();
    log.trim_clean(0, 9);
    close(&log, 1, 11);
    let running = start(&log, &sink, park.path(), 1 << 20);
    running.until(PATIENCE, |p| p.settled(1) == 11 && !p.stopped().is_empty()).await;
    let error = running.stop().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "reading partition 0: offsets from 0 on of clean 0 are gone: the log starts at 9; `tidegate run --accept-gap` goes on there, once"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_fails_for_a_while_is_tried_again_and_a_closed_one_ends_it() {
    let (log, park, sink) = (Arc::new(MemoryLog::new(1)), tempfile::tempdir().unwrap(), Arc::new(Fake::default()));
    log.broken.store(true, Ordering::SeqCst);
    fill(&log, 0, 1..=10);
    close(&log, 0, 11);
    let running = start(&log, &sink, park.path(), 1 << 20);
    running.until(PATIENCE, |p| p.failure().is_some_and(|f| f.contains("told to fail"))).await;
    log.broken.store(false, Ordering::SeqCst);
    running.until(PATIENCE, |p| p.settled(0) == 11).await;
    log.closed.store(true, Ordering::SeqCst);
    running.ended().await.unwrap();
}

fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path.display().to_string()) }
    }
    found
}
