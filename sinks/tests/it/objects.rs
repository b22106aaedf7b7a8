//! Tables on a real HTTP S3 server that loses answers, fails, and gets rivals; and stores that break their word.

use crate::home::Home;
use crate::log::{LOG, MemoryLog, header};
use crate::maintainer::Maintainer;
use crate::parquet::{DAY, cut, fill, forty};
use crate::rows::{table, target};
use crate::running::{Random, Running};
use crate::s3::{self, SECRET};
use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tidegate_schemas::sink::{Sink, SinkError};
use tidegate_schemas::system::SystemTable;
use tidegate_schemas::table::FieldType;
use tidegate_sinks::driver::{DriverOptions, TableSelection};
use tidegate_sinks::objects::{Objects, ObjectsError};
use tidegate_sinks::parquet::{ParquetOptions, ParquetSink};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const EPOCHS: u64 = 60;

fn options(park: &Path) -> DriverOptions {
    let tables = TableSelection { system: vec![SystemTable::ScriptRuns] };
    DriverOptions { retry_seconds_max: 1, tables, read_bytes: 20_000, ..DriverOptions::new(park) }
}

/// Rows of two partitions in the same tables, one of which gets a column half-way.
fn filled() -> Arc<MemoryLog> {
    let log = Arc::new(MemoryLog::new(2));
    for p in 0..2 {
        fill(&log, p, 1..=EPOCHS / 2, DAY, &table("climate", &[]));
        fill(&log, p, EPOCHS / 2 + 1..=EPOCHS, DAY, &table("climate", &[("note", FieldType::Text, None)]));
        log.epoch(p, &header(EPOCHS + 1, DAY + 5_000.0, cut()), vec![], vec![]);
    }
    log
}

fn check(home: &Home) {
    // Two partitions of 60 epochs, of 4 rows and of 1 to 3 rows each.
    for (tenant, rows) in [("acme", 480), ("beta", 240)] {
        let held = home.held("climate", tenant);
        assert_eq!((held.duplicates, held.rows.values().sum::<u64>()), (0, rows), "{tenant}");
        assert_eq!(held.cursors.values().copied().collect::<Vec<_>>(), [Some(EPOCHS), Some(EPOCHS)], "{tenant}");
        assert_eq!(home.rows("script_runs", tenant), 2 * EPOCHS / 4);
    }
}

/// Sinks that are rebuilt at any moment over a server of which a fifth of the answers are lost or say that it failed, whether or
/// not it did what it was asked. `TIDEGATE_SINK_SEEDS=200` makes it 200.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_row_once_over_rebuilt_sinks_and_lost_answers() {
    if s3::shared().is_none() {
        return;
    }
    let seeds: u64 = std::env::var("TIDEGATE_SINK_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(50);
    // Each in a bucket of its own; they mostly wait.
    let (mut lanes, mut next) = (JoinSet::new(), 0);
    while next < seeds || !lanes.is_empty() {
        if next < seeds && lanes.len() < 4 {
            lanes.spawn(broken_off(next));
            next += 1;
        } else {
            lanes.join_next().await.unwrap().unwrap();
        }
    }
}

async fn broken_off(seed: u64) {
    println!("seed {seed}");
    let (home, mut random) = (Home::bucket().unwrap(), Random(seed));
    let (log, park) = (filled(), tempfile::tempdir().unwrap());
    for pause in [Some(random.below(150)), Some(random.below(150)), None] {
        let sink = home.sink_with(ParquetOptions { checkpoint_commits: 7, ..ParquetOptions::default() });
        // The race is another test's.
        sink.check().await.unwrap();
        home.faults(seed, (7, 7, 7));
        let running = Running::start(&log, Arc::new(sink), options(park.path()));
        match pause {
            Some(pause) => tokio::time::sleep(Duration::from_millis(pause)).await,
            None => {
                running.finish(&log, EPOCHS).await;
                break;
            }
        }
        // Nobody waits for what is under way, and it goes on beside what comes after it.
        drop(running);
        home.faults(seed, (0, 0, 0));
    }
    home.faults(seed, (0, 0, 0));
    check(&home);
}

/// One answer is lost, of each request of a delivery in turn: of the file's put, of the commit's, and of what is asked around them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_is_asked_for_again() {
    let Some(home) = Home::bucket() else { return };
    let (mut told, mut after) = (0, 0);
    for cut in forty(0, &table("climate", &[])) {
        let sink = home.sink();
        sink.check().await.unwrap();
        home.loses_one(after);
        after = (after + 1) % 9;
        while let Err(error) = sink.deliver(cut.clone()).await {
            assert!(matches!(error, SinkError::Retryable { .. }), "{error}");
            told += 1;
        }
        home.faults(0, (0, 0, 0));
        // Whoever asks is told of it.
        assert_eq!(home.sink().held(LOG, 0, &cut.target).await.unwrap(), Some(cut.last));
    }
    let lost = home.lost();
    println!("lost answers: {lost:?}; {told} deliveries were told of it, the client's repeats found the others");
    assert!(["GET", "PUT"].iter().all(|of| lost.get(*of).is_some_and(|n| *n > 1)), "{lost:?}");
    assert_eq!((home.rows("climate", "acme"), home.rows("climate", "beta"), home.rows("script_runs", "acme")), (160, 80, 10));
    assert_eq!(home.held("climate", "acme").cursors.values().copied().collect::<Vec<_>>(), [Some(40)]);
}

/// A maintainer that compacts the table all the time, beside two partitions, each of them twice: nobody's rows are lost or doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_and_a_maintainer_race_for_one_table() {
    for home in Home::each() {
        let home = Arc::new(home);
        let stop = CancellationToken::new();
        let mut maintainer = JoinSet::new();
        let (rival, stopped) = (Arc::clone(&home), stop.clone());
        maintainer.spawn(async move {
            let (mut maintainer, mut commits) = (Maintainer::new(&rival, "acme/climate"), 0);
            // Afterwards nobody is in its way.
            while !stopped.is_cancelled() || commits < 3 {
                commits += usize::from(maintainer.compact().await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            commits
        });
        let mut writers = JoinSet::new();
        for partition in [0, 1, 0, 1] {
            let options = ParquetOptions { checkpoint_commits: 10, ..ParquetOptions::default() };
            let (sink, cuts) = (home.sink_with(options), forty(partition, &table("climate", &[])));
            writers.spawn(async move {
                for cut in cuts {
                    while let Err(error) = sink.deliver(cut.clone()).await {
                        assert!(matches!(error, SinkError::Retryable { .. }), "{error}");
                    }
                }
            });
        }
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
        stop.cancel();
        let commits = maintainer.join_next().await.unwrap().unwrap();
        println!("{}: the maintainer compacted {commits} times in between", home.place(""));
        assert_eq!((home.rows("climate", "acme"), home.rows("climate", "beta")), (320, 160));
        assert_eq!(home.held("climate", "acme").cursors.values().copied().collect::<Vec<_>>(), [Some(40), Some(40)]);
        assert_eq!(home.list("acme/climate/_delta_log", ".json").await.len() as u64, home.held("climate", "acme").version + 1);
    }
}

#[tokio::test]
async fn stores_that_break_their_word_are_refused() {
    for home in Home::each() {
        home.objects().race().await.unwrap();
        // Nothing is left there.
        assert_eq!(home.list("", "").await, [""; 0]);
    }
    let Some(s3) = s3::shared() else { return };
    for (kind, why) in
        [("careless", "8 of 8 writers of one name were told that they made it"), ("racy", " of 8 writers of one name were told")]
    {
        let bucket = s3.bucket(kind);
        let error = s3.objects(&bucket, SECRET).race().await.unwrap_err();
        let ObjectsError::Unfit { place, detail } = &error else { panic!("{error}") };
        assert!(*place == format!("s3://{bucket}/deep/tables") && detail.contains(why), "{error}");
        // Its sink sends nothing there, and parks nothing for it.
        let sink = ParquetSink::open(s3.objects(&bucket, SECRET), ParquetOptions::default()).unwrap();
        let cut = forty(0, &table("climate", &[])).remove(0);
        let Err(SinkError::Retryable { detail, .. }) = sink.deliver(cut).await else { panic!("it was taken") };
        assert!(detail.contains("If-None-Match"), "{detail}");
    }
}

#[tokio::test]
async fn what_a_store_was_tried_with_goes() {
    // One that cannot delete for a while, longer than the client repeats: first it is tried again, in the end it is empty.
    if let Some(s3) = s3::shared() {
        let bucket = s3.bucket("keeping");
        let objects = s3.objects(&bucket, SECRET);
        s3.keeps(&bucket, 4);
        objects.race().await.unwrap();
        assert_eq!(objects.below().unwrap().list(None).try_collect::<Vec<_>>().await.unwrap(), []);
    }
    // What a process left that died in its race, by a later one: not what one left that may be at it now.
    let home = Home::folder();
    let old = SystemTime::now() - Duration::from_secs(2 * 3_600);
    for (name, is_old) in [(".race-01", true), (".race-02", false), ("race-03", true), (".race-04/.race-04", true), (".race-05/x", true)] {
        home.write(name, vec![1]).await;
        if is_old {
            let file = std::fs::File::options().write(true).open(Path::new(&home.place("")).join(name)).unwrap();
            file.set_modified(old).unwrap();
        }
    }
    home.objects().race().await.unwrap();
    assert_eq!(home.list("", "").await, [".race-02", ".race-05/x", "race-03"]);
}

#[tokio::test]
async fn a_store_that_cannot_be_used_now_is_no_broken_one() {
    let Some(s3) = s3::shared() else { return };
    let bucket = s3.bucket("signed");
    for (objects, why) in [(s3.objects(&bucket, "wrong"), "SignatureDoesNotMatch"), (s3.objects("no-such-bucket", SECRET), "NoSuchBucket")]
    {
        let error = objects.race().await.unwrap_err();
        assert!(matches!(&error, ObjectsError::Failed { detail, .. } if detail.contains(why)), "{error}");
        assert!(!error.to_string().contains(SECRET) && !format!("{error:?}").contains("wrong"), "{error}");
    }
    // As soon as it can be used, the same sink goes on.
    let home = Home::bucket().unwrap();
    let sink = home.sink();
    let cut = forty(0, &table("climate", &[])).remove(0);
    home.faults(0, (0, 0, 100));
    assert!(sink.check().await.is_err());
    let Err(SinkError::Retryable { detail, .. }) = sink.deliver(cut.clone()).await else { panic!("it was taken") };
    assert!(detail.contains("SlowDown"), "{detail}");
    home.faults(0, (0, 0, 0));
    sink.deliver(cut).await.unwrap();
    assert_eq!(sink.location(&target("climate", "acme")), home.place("acme/climate"));
}

#[test]
fn roots_are_folders() {
    let objects = Objects::new(Arc::new(InMemory::new()), "s3://bucket").unwrap();
    assert_eq!(objects.place_of(&["acme", "climate-7f3a"]).as_str(), "s3://bucket/acme/climate-7f3a/");
    let objects = Objects::new(Arc::new(InMemory::new()), "s3://bucket/a/b").unwrap();
    assert_eq!(objects.place_of(&["acme", "..", "x/y"]).as_str(), "s3://bucket/a/b/acme/x%2Fy/");
}
