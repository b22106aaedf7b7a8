//! Partitions that come and go: who has them, and that workers let go of what is taken away and go on with what comes back.

use object_store::memory::InMemory;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tidegate_pipeline::assignment::Assignment;
use tidegate_pipeline::commits;
use tidegate_pipeline::definitions::CatalogFollower;
use tidegate_pipeline::epoch::EpochBounds;
use tidegate_pipeline::log::embedded::{EmbeddedLog, Options};
use tidegate_pipeline::partition::{ProcessSettings, Surroundings};
use tidegate_pipeline::recovery::DuplicateBounds;
use tidegate_pipeline::server;
use tidegate_pipeline::snapshot::Snapshots;
use tidegate_pipeline::suspects::Suspects;
use tidegate_pipeline::worker::Workers;
use tidegate_schemas::commit::CommitRecord;
use tidegate_schemas::ids::Partition;
use tidegate_schemas::log::{EventLog, LogName};
use tokio::runtime::Runtime;

#[test]
fn partitions_go_to_who_has_the_fewest() {
    let assignment = Assignment::new(2);
    // All of them even: by their numbers alone one worker would get them all.
    assignment.add([0, 2, 4, 6, 8]);
    assert_eq!((assignment.of(0), assignment.of(1)), (vec![0, 4, 8], vec![2, 6]));
    assignment.add([4, 10]);
    assert_eq!((assignment.of(0), assignment.of(1)), (vec![0, 4, 8], vec![2, 6, 10]), "what is there stays where it is");
    assert!(assignment.remove(&[0, 4, 99], Duration::ZERO));
    assignment.add([1]);
    assert_eq!((assignment.of(0), assignment.of(1)), (vec![1, 8], vec![2, 6, 10]));
}

#[test]
fn a_partition_is_gone_once_its_worker_says_so() {
    let assignment = Assignment::new(1);
    assignment.add([7]);
    assert!(assignment.begin(7));
    assert!(!assignment.remove(&[7], Duration::from_millis(20)), "the worker runs it still");
    assignment.add([7]);
    assert!(!assignment.begin(7), "two workers never run one partition");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| assignment.remove(&[7], Duration::from_secs(60)));
        sleep(Duration::from_millis(20));
        assignment.end(7);
        assert!(waiting.join().unwrap());
    });
    assert!(assignment.begin(7));
}

/// The epochs of a partition.
fn epochs(log: &EmbeddedLog, partition: Partition) -> Vec<u64> {
    let from = log.bounds(LogName::Commits, partition).unwrap().start;
    let records = log.read(LogName::Commits, partition, from, usize::MAX).unwrap();
    records.iter().map(|e| CommitRecord::read(&e.record).unwrap().epoch).collect()
}

/// What workers need, in a folder of the test's own.
pub fn around(log: Arc<dyn EventLog>, assignment: &Arc<Assignment>, dir: &Path, runtime: &Runtime) -> Surroundings {
    Surroundings {
        catalogs: Arc::new(CatalogFollower::open(Arc::clone(&log)).unwrap()),
        assignment: Arc::clone(assignment),
        snapshots: Snapshots::new(Arc::new(InMemory::new()), runtime.handle().clone(), log.log_id()),
        clock: server::now,
        stop: Arc::new(AtomicBool::new(false)),
        quarantines: tokio::sync::mpsc::channel(1).0,
        suspects: Arc::new(Suspects::open(dir, assignment.workers()).unwrap()),
        settings: ProcessSettings {
            accept_gap: false,
            epoch: EpochBounds::default(),
            tick: Duration::from_millis(10),
            snapshot_epochs: u64::MAX,
            snapshot_bytes: u64::MAX,
            duplicates: DuplicateBounds { horizon: i64::MAX / 2, keys_max: 10 },
        },
        log,
    }
}

#[test]
fn workers_let_go_and_go_on() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), Runtime::new().unwrap());
    let log = EmbeddedLog::open(dir.path(), Options { partitions: 4, ..Options::default() }).unwrap();
    let assignment = Arc::new(Assignment::new(2));
    let around = around(log.clone(), &assignment, dir.path(), &runtime);
    let workers = Workers::start(&around).unwrap();
    let count = |p| commits::last(&*log, p).unwrap().map_or(0, |c| c.epoch);
    let grows = |p| {
        let (began, before) = (Instant::now(), count(p));
        while count(p) < before + 3 {
            assert!(began.elapsed() < Duration::from_secs(60), "partition {p} stands still at epoch {before}");
            sleep(Duration::from_millis(5));
        }
    };
    assignment.add(0..4);
    (0..4).for_each(grows);
    assert!(assignment.remove(&[1, 2], Duration::from_secs(60)));
    let stopped = (count(1), count(2));
    [0, 3].into_iter().for_each(grows);
    assert_eq!((count(1), count(2)), stopped, "nobody commits what was taken away");
    assignment.add([1, 2]);
    (0..4).for_each(grows);
    workers.stop();
    for partition in 0..4 {
        let epochs = epochs(&log, partition);
        assert!(epochs.iter().copied().eq(1..=epochs.len() as u64), "{epochs:?}");
    }
}
