//! Real tables in folders, in memory and on an S3 server: each row once, whatever is interrupted, repeated or lost, and no name
//! of another tenant.

use crate::home::Home;
use crate::log::{LOG, MemoryLog, header};
use crate::rows::{blocks, runs, table, target};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate_schemas::block::Block;
use tidegate_schemas::ids::Partition;
use tidegate_schemas::log::SinkCursor;
use tidegate_schemas::sink::{Cut, CutParameters, Grain, Sink, SinkError};
use tidegate_schemas::system::SystemTable;
use tidegate_schemas::table::{FieldType, Table};
use tidegate_sinks::driver::{Driver, DriverOptions, Follower, TableSelection};
use tidegate_sinks::objects::Objects;
use tidegate_sinks::parquet::ParquetOptions;
use tokio_util::sync::CancellationToken;

/// 2026-11-25 00:00 UTC.
pub const DAY: f64 = 20_782.0 * 86_400.0;

pub fn cut() -> CutParameters {
    CutParameters { rows: 20, rows_max: 60, seconds_min: 5, edge_seconds: 30, ..CutParameters::default() }
}

/// An epoch each second from `seconds` on, with rows of two tenants in `climate`.
pub fn fill(log: &MemoryLog, partition: Partition, epochs: std::ops::RangeInclusive<u64>, seconds: f64, table: &Table) {
    for epoch in epochs {
        let header = header(epoch, seconds + epoch as f64, cut());
        let audit = if epoch % 4 == 0 { runs(partition, &header, &["acme", "beta"]) } else { Vec::new() };
        let clean: Vec<Block> = blocks(partition, &header, table, &[("acme", 4), ("beta", 1 + epoch as usize % 3)]);
        log.epoch(partition, &header, clean, audit);
    }
}

/// All cuts that close.
pub fn cuts(log: &Arc<MemoryLog>, partition: Partition) -> Vec<Cut> {
    let start = SinkCursor { clean: 0, audit: 0, epoch: 0 };
    let selection = TableSelection { system: vec![SystemTable::ScriptRuns] };
    let mut follower = Follower::new(Arc::clone(log) as _, partition, Grain::Tenant, selection, start);
    let mut cuts = Vec::new();
    loop {
        let step = follower.advance(Duration::ZERO, 1 << 20).unwrap();
        if follower.unread().unwrap() == 0 && step.closed.is_empty() && step.cursor.is_none() && step.read.is_none() {
            return cuts;
        }
        cuts.extend(step.closed);
    }
}

/// Cuts of 40 epochs of one partition.
pub fn forty(partition: Partition, table: &Table) -> Vec<Cut> {
    let log = Arc::new(MemoryLog::new(partition + 1));
    fill(&log, partition, 1..=40, DAY, table);
    log.epoch(partition, &header(41, DAY + 5_000.0, cut()), vec![], vec![]);
    cuts(&log, partition)
}

#[tokio::test]
async fn a_cut_becomes_a_file_of_its_name_in_a_typed_table() {
    for home in Home::each() {
        let sink = home.sink();
        let wide =
            table("climate", &[("running", FieldType::Bool, None), ("count", FieldType::I64, Some("1")), ("note", FieldType::Text, None)]);
        for cut in forty(2, &wide) {
            assert_eq!(sink.held(LOG, 2, &cut.target).await.unwrap().filter(|h| *h >= cut.first), None);
            sink.deliver(cut.clone()).await.unwrap();
            assert_eq!(sink.held(LOG, 2, &cut.target).await.unwrap(), Some(cut.last));
        }
        assert_eq!((home.rows("climate", "acme"), home.rows("climate", "beta")), (160, 80));
        assert_eq!(home.rows("script_runs", "acme"), 10);

        assert_eq!(sink.location(&target("climate", "acme")), home.place("acme/climate"));
        let files = home.list("acme/climate", ".parquet").await;
        assert_eq!(files[0], format!("date=2026-11-25/{LOG}-2-climate-1-6.parquet"));
        let first = home.text("acme/climate/_delta_log/00000000000000000000.json").await;
        for wanted in [
            r#"{\"name\":\"temperature\",\"type\":\"double\",\"nullable\":true,\"metadata\":{\"unit\":\"Cel\"}}"#,
            r#"{\"name\":\"running\",\"type\":\"boolean\",\"nullable\":true,\"metadata\":{}}"#,
            r#"{\"name\":\"count\",\"type\":\"long\",\"nullable\":true,\"metadata\":{\"unit\":\"1\"}}"#,
            r#"{\"name\":\"asset\",\"type\":\"string\",\"nullable\":false,\"metadata\":{}}"#,
            r#"{\"name\":\"occurred_at\",\"type\":\"timestamp\",\"nullable\":false,\"metadata\":{}}"#,
            r#"{\"name\":\"date\",\"type\":\"date\",\"nullable\":true,\"metadata\":{}}"#,
            r#""partitionColumns":["date"]"#,
        ] {
            assert!(first.contains(wanted), "{wanted} is not in {first}");
        }
        let second = home.text("acme/climate/_delta_log/00000000000000000001.json").await;
        assert!(second.contains(&format!(r#""txn":{{"appId":"{LOG}/parquet/2","version":6"#)), "{second}");
        assert!(second.contains(r#""partitionValues":{"date":"2026-11-25"}"#), "{second}");
        for statistic in [r#"\"numRecords\":24"#, r#"\"temperature\":0.5"#, r#"\"occurred_at\":\"2026-11-24T23:59:56"#] {
            assert!(second.contains(statistic), "{statistic} is not in {second}");
        }
    }
}

#[tokio::test]
async fn no_file_of_a_tenant_holds_a_name_of_another() {
    for home in Home::each() {
        let sink = home.sink();
        for cut in forty(0, &table("climate", &[("note", FieldType::Text, None)])) {
            sink.deliver(cut).await.unwrap();
        }
        for (own, other) in [("acme", "beta"), ("beta", "acme")] {
            let files = home.list(own, "").await;
            assert!(files.len() > 6);
            for file in files {
                let bytes = home.read(&format!("{own}/{file}")).await;
                let holds = |name: &str| bytes.windows(name.len()).any(|w| w == name.as_bytes());
                assert!(!holds(other), "{file} holds {other}");
            }
        }
    }
}

#[tokio::test]
async fn days_are_folders_by_recorded_time() {
    for home in Home::each() {
        let log = Arc::new(MemoryLog::new(1));
        fill(&log, 0, 1..=40, DAY + 86_400.0 - 20.0, &table("climate", &[]));
        log.epoch(0, &header(41, DAY + 2.0 * 86_400.0, cut()), vec![], vec![]);
        let sink = home.sink();
        for cut in cuts(&log, 0) {
            sink.deliver(cut).await.unwrap();
        }
        let files = home.list("beta/climate", ".parquet").await;
        let days: Vec<String> = files.iter().map(|f| f.split('/').next().unwrap().to_owned()).collect();
        assert_eq!((days[0].as_str(), days[days.len() - 1].as_str()), ("date=2026-11-25", "date=2026-11-26"));
        // 00:00 of the next day is epoch 20.
        assert!(files.iter().any(|f| f.starts_with("date=2026-11-26") && f.contains("-climate-20-")));
        assert_eq!(home.rows("climate", "acme"), 160);
    }
}

#[tokio::test]
async fn repeating_a_delivery_changes_nothing() {
    for home in Home::each() {
        let cuts = forty(0, &table("climate", &[]));
        for _ in 0..3 {
            let sink = home.sink();
            for cut in &cuts {
                sink.deliver(cut.clone()).await.unwrap();
                sink.deliver(cut.clone()).await.unwrap();
            }
        }
        assert_eq!(home.rows("climate", "acme"), 160);
        let log = home.list("acme/climate", ".json").await;
        assert_eq!(log.len(), 1 + cuts.iter().filter(|c| c.target == target("climate", "acme")).count());
    }
}

#[tokio::test]
async fn a_crash_between_put_and_commit_finds_its_file() {
    for home in Home::each() {
        let cuts: Vec<Cut> = forty(0, &table("climate", &[])).into_iter().filter(|c| c.target == target("climate", "acme")).collect();
        for (i, cut) in cuts.iter().enumerate() {
            home.sink().deliver(cut.clone()).await.unwrap();
            // As if the process had died before the commit.
            home.remove(&format!("acme/climate/_delta_log/{:020}.json", i + 1)).await;
            let sink = home.sink();
            assert_ne!(sink.held(LOG, 0, &cut.target).await.unwrap(), Some(cut.last));
            sink.deliver(cut.clone()).await.unwrap();
        }
        assert_eq!(home.rows("climate", "acme"), 160);
        assert_eq!(home.list("acme/climate", ".parquet").await.len(), cuts.len());
    }
}

#[tokio::test]
async fn a_file_that_is_another_is_named() {
    for home in Home::each() {
        let cuts: Vec<Cut> = forty(0, &table("climate", &[])).into_iter().filter(|c| c.target == target("climate", "acme")).collect();
        let sink = home.sink();
        sink.deliver(cuts[0].clone()).await.unwrap();
        let first = format!("acme/climate/{}", home.list("acme/climate", ".parquet").await[0]);
        for (bytes, why) in [(home.read(&first).await, "rows where the log has"), (b"nonsense".to_vec(), "no readable footer")] {
            let (folder, _) = first.rsplit_once('/').unwrap();
            home.write(&format!("{folder}/{}.parquet", cuts[6].name()), bytes).await;
            let Err(SinkError::Permanent { doing, detail }) = sink.deliver(cuts[6].clone()).await else { panic!("it was taken") };
            assert!(doing.contains(&cuts[6].name()) && detail.contains(why), "{doing}: {detail}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_of_a_table_find_their_conflicts() {
    for home in Home::each() {
        let mut tasks = tokio::task::JoinSet::new();
        // Two partitions, and each of them twice: also the same cut by two processes at once.
        for partition in [0, 1, 0, 1] {
            let (sink, cuts) = (home.sink(), forty(partition, &table("climate", &[])));
            tasks.spawn(async move {
                for cut in cuts {
                    while let Err(error) = sink.deliver(cut.clone()).await {
                        assert!(matches!(error, SinkError::Retryable { .. }), "{error}");
                    }
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert_eq!((home.rows("climate", "acme"), home.rows("climate", "beta")), (320, 160));
        let held = home.held("climate", "acme");
        assert_eq!(held.cursors.values().copied().collect::<Vec<_>>(), [Some(40), Some(40)]);
    }
}

#[tokio::test]
async fn columns_are_added_and_never_changed() {
    for home in Home::each() {
        let log = Arc::new(MemoryLog::new(1));
        let (narrow, wide) = (table("climate", &[]), table("climate", &[("vibration", FieldType::F64, Some("mm/s"))]));
        fill(&log, 0, 1..=10, DAY, &narrow);
        fill(&log, 0, 11..=20, DAY, &wide);
        fill(&log, 0, 21..=30, DAY, &narrow);
        log.epoch(0, &header(31, DAY + 9_000.0, cut()), vec![], vec![]);
        let sink = home.sink();
        for cut in cuts(&log, 0) {
            sink.deliver(cut).await.unwrap();
        }
        assert_eq!(home.rows("climate", "acme"), 120);
        let mut widened = 0;
        for version in home.list("acme/climate/_delta_log", ".json").await {
            let text = home.text(&format!("acme/climate/_delta_log/{version}")).await;
            widened += usize::from(
                text.contains(r#"{\"name\":\"vibration\",\"type\":\"double\",\"nullable\":true,\"metadata\":{\"unit\":\"mm/s\"}}"#),
            );
        }
        assert_eq!(widened, 1, "in one commit with the rows");

        let refused = [
            (
                table("climate", &[("vibration", FieldType::I64, Some("mm/s"))]),
                "column vibration is double in the table and long in the log",
            ),
            (
                table("climate", &[("vibration", FieldType::F64, Some("in/s"))]),
                "column vibration has unit mm/s in the table and in/s in the log",
            ),
            (
                table("climate", &[("Vibration", FieldType::F64, Some("mm/s"))]),
                "column Vibration differs from column vibration in case only",
            ),
        ];
        for (epoch, (other, why)) in (40..).zip(refused) {
            let log = Arc::new(MemoryLog::new(1));
            fill(&log, 0, epoch..=epoch, DAY, &other);
            log.epoch(0, &header(epoch + 1, DAY + 20_000.0, cut()), vec![], vec![]);
            let Err(SinkError::Permanent { detail, .. }) = sink.deliver(cuts(&log, 0).remove(0)).await else { panic!("it was taken") };
            assert_eq!(detail, why);
        }
        assert_eq!(sink.held(LOG, 0, &target("climate", "acme")).await.unwrap(), Some(30));
    }
}

#[tokio::test]
async fn checkpoints_are_written_and_few_tables_stay_open() {
    for home in Home::each() {
        let options = ParquetOptions { tables_open_max: 1, checkpoint_commits: 3 };
        let sink = home.sink_with(options);
        for cut in forty(0, &table("climate", &[])) {
            sink.deliver(cut).await.unwrap();
        }
        let log = home.list("acme/climate/_delta_log", "").await;
        assert!(log.contains(&"_last_checkpoint".to_owned()));
        assert!(log.iter().filter(|n| n.ends_with(".checkpoint.parquet")).count() > 1);
        assert_eq!(home.sink().held(LOG, 0, &target("climate", "acme")).await.unwrap(), Some(40));
        assert_eq!((home.rows("climate", "acme"), home.rows("climate", "beta")), (160, 80));
    }
}

#[test]
fn a_folder_that_cannot_be_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = Objects::folder(&file.join("tables")).err().unwrap();
    assert!(error.to_string().starts_with(&format!("opening {}", file.display())), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    /// Whatever is dropped on the way, the files are those of a run without interruptions, and each row is there once.
    #[test]
    fn interrupted_runs_end_as_one_that_was_not(pauses in prop::collection::vec(0u64..60, 3..7)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async { for (whole, broken) in Home::each().into_iter().zip(Home::each()) {
            let log = Arc::new(MemoryLog::new(2));
            for p in 0..2 {
                fill(&log, p, 1..=60, DAY, &table("climate", &[]));
                log.epoch(p, &header(61, DAY + 5_000.0, cut()), vec![], vec![]);
            }
            let sink = whole.sink();
            for p in 0..2 {
                for cut in cuts(&log, p) {
                    sink.deliver(cut).await.unwrap();
                }
            }
            let parked = tempfile::tempdir().unwrap();
            for pause in &pauses {
                let (driver, stop) = (driver(&log, &broken, parked.path()), CancellationToken::new());
                // Dropped in the middle, not asked to stop.
                let _ = tokio::time::timeout(Duration::from_millis(*pause), driver.run(crate::log::all(&log), stop)).await;
            }
            let (driver, stop) = (driver(&log, &broken, parked.path()), CancellationToken::new());
            let progress = driver.progress();
            let mut task = tokio::task::JoinSet::new();
            task.spawn(driver.run(crate::log::all(&log), stop.clone()));
            for _ in 0..3_000 {
                if (0..2).all(|p| progress.settled(p) == 61) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!((progress.settled(0), progress.settled(1), progress.parked()), (61, 61, vec![]));
            stop.cancel();
            task.join_next().await.unwrap().unwrap().unwrap();
            assert_eq!(broken.list("", ".parquet").await, whole.list("", ".parquet").await);
            for tenant in ["acme", "beta"] {
                let (a, b) = (broken.held("climate", tenant), whole.held("climate", tenant));
                assert_eq!((&a.rows, &a.cursors, a.duplicates, a.files), (&b.rows, &b.cursors, 0, b.files));
                assert_eq!(broken.rows("script_runs", tenant), 30);
            }
        } });
    }
}

fn driver(log: &Arc<MemoryLog>, home: &Home, parked: &Path) -> Driver {
    let mut options = DriverOptions::new(parked);
    options.tables.system = vec![SystemTable::ScriptRuns];
    options.read_bytes = 20_000;
    Driver::new(Arc::clone(log) as _, Arc::new(home.sink()), options)
}
