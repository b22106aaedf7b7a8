//! The embedded log: its folder, its budget, its owner.

use super::contract::contract;
use super::{Harness, commit, only_texts, poll, publish, record, texts, unit, wait};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tidegate_pipeline::log::embedded::{EmbeddedLog, Options};
use tidegate_schemas::log::{EventLog, LogError, LogName, Record, SinkCursor};

/// Three partitions, horizons of zero, segments as small as possible.
pub fn options() -> Options {
    let none = Duration::ZERO;
    Options { partitions: 3, segment_bytes: 4 << 10, raw_horizon: none, audit_horizon: none, ..Options::default() }
}

/// Opens the log of a folder.
pub fn open(dir: &Path) -> Arc<EmbeddedLog> {
    EmbeddedLog::open(dir, options()).unwrap()
}

/// Segment files of a chain, oldest first.
pub fn segments(dir: &Path, chain: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir.join(chain)).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

struct Embedded {
    dir: TempDir,
    log: Option<Arc<EmbeddedLog>>,
}

impl Harness for Embedded {
    fn log(&self) -> Arc<dyn EventLog> {
        self.log.clone().unwrap()
    }

    fn reopen(&mut self) {
        self.log = None;
        self.log = Some(open(self.dir.path()));
    }
}

#[test]
fn fulfils_the_contract() {
    contract(&|| {
        let dir = TempDir::new().unwrap();
        let log = Some(open(dir.path()));
        Box::new(Embedded { dir, log })
    });
}

#[test]
fn folder_belongs_to_one_log() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir.path().join("a/log"));
    assert!(log.opening().created);
    let id = log.log_id();
    drop(log);
    let folder = dir.path().join("a/log");
    let other = EmbeddedLog::open(&folder, Options { partitions: 4, ..options() });
    assert!(matches!(other, Err(LogError::Foreign { found, found_partitions: 3, .. }) if found == id));
    // A segment of another log, and a folder of something else.
    let second = open(&dir.path().join("b"));
    assert_ne!(second.log_id(), id);
    drop(second);
    let own = fs::read(&segments(&folder, "control")[0]).unwrap();
    fs::copy(&segments(&dir.path().join("b"), "control")[0], &segments(&folder, "control")[0]).unwrap();
    assert!(matches!(EmbeddedLog::open(&folder, options()), Err(LogError::Foreign { .. })));
    fs::write(&segments(&folder, "control")[0], own).unwrap();
    fs::copy(&segments(&folder, "raw")[0], &segments(&folder, "control")[0]).unwrap();
    assert!(matches!(EmbeddedLog::open(&folder, options()), Err(LogError::Corrupt { .. })));
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("notes.txt"), "mine").unwrap();
    assert!(matches!(EmbeddedLog::open(&home, options()), Err(LogError::Corrupt { .. })));
    assert_eq!(fs::read_dir(&home).unwrap().count(), 1, "left as it was");
    assert!(EmbeddedLog::open(&dir.path().join("c"), Options { partitions: 0, ..options() }).is_err());
}

#[test]
fn creation_that_was_cut_short_is_finished() {
    let dir = TempDir::new().unwrap();
    let id = open(dir.path()).log_id();
    let manifest = fs::read_to_string(dir.path().join("log.json")).unwrap();
    fs::write(dir.path().join("log.json"), manifest.replace("true", "false")).unwrap();
    fs::remove_dir_all(dir.path().join("output")).unwrap();
    fs::remove_file(&segments(dir.path(), "control")[0]).unwrap();
    fs::write(dir.path().join("control/000000000000.seg.new"), "half").unwrap();
    assert!(EmbeddedLog::read_only(dir.path()).is_err());
    let log = open(dir.path());
    assert_eq!((log.log_id(), log.opening().created), (id, true));
    publish(&*log, LogName::Control, 0, &["x"]);
    drop(log);
    assert!(!open(dir.path()).opening().created);
    // Once finished, a chain without a segment is damage.
    fs::remove_file(&segments(dir.path(), "output")[0]).unwrap();
    assert!(matches!(EmbeddedLog::open(dir.path(), options()), Err(LogError::Corrupt { .. })));
}

#[test]
fn second_writer_is_told_who_has_it() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    let pid = std::process::id();
    assert!(matches!(EmbeddedLog::open(dir.path(), options()), Err(LogError::InUse { pid: p, .. }) if p == pid));
    publish(&*log, LogName::Raw, 0, &["still works"]);
    drop(log);
    assert_eq!(only_texts(&*open(dir.path()), LogName::Raw, 0), ["still works"]);
}

#[test]
fn closed_log_reads_and_refuses() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    let owner = log.fence(0).unwrap();
    let queued: Vec<_> = (0..50).map(|i| log.publish(LogName::Raw, vec![(0, record(i.to_string()))])).collect();
    log.close();
    // What was queued is durable all the same.
    for (i, told) in queued.into_iter().enumerate() {
        assert_eq!(wait(told).unwrap(), [i as u64]);
    }
    assert!(matches!(wait(log.publish(LogName::Raw, vec![(0, record("x"))])), Err(LogError::Closed)));
    assert!(matches!(log.commit(&owner, vec![unit(1, &[], &[], 0)]), Err(LogError::Closed)));
    assert!(matches!(log.fence(0), Err(LogError::Closed)));
    assert_eq!(only_texts(&*log, LogName::Raw, 0).len(), 50);
}

#[test]
fn commits_that_contradict_raw_are_refused() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    publish(&*log, LogName::Raw, 0, &["a", "b"]);
    let owner = log.fence(0).unwrap();
    assert!(log.commit(&owner, vec![unit(1, &["x"], &[], 3)]).is_err(), "beyond the end");
    commit(&*log, &owner, unit(1, &["x"], &[], 2));
    assert!(log.commit(&owner, vec![unit(2, &["y"], &[], 1)]).is_err(), "backwards");
    assert_eq!(only_texts(&*log, LogName::Clean, 0), ["x"]);
    commit(&*log, &owner, unit(2, &["y"], &[], 2));
    assert_eq!(texts(&*log, LogName::Clean, 0, 0, 10), [(0, "x".into()), (1, "y".into())]);
}

#[test]
fn reader_beside_the_owner() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    for i in 0..30 {
        publish(&*log, LogName::Raw, i % 3, &[&i.to_string().repeat(300)]);
    }
    let owner = log.fence(0).unwrap();
    commit(&*log, &owner, unit(1, &["c"], &["a"], 10));
    log.store_cursor("sink", 0, SinkCursor { clean: 1, audit: 1, epoch: 2 }).unwrap();
    let content = |log: &dyn EventLog| -> Vec<_> {
        LogName::ALL.iter().flat_map(|n| (0..if *n == LogName::Control { 1 } else { 3 }).map(|p| only_texts(log, *n, p))).collect()
    };
    let before = content(&*log);
    // Closed, so that the last group is vouched for; beside a live owner see the next test.
    drop(log);
    let log = open(dir.path());
    let files = |chain: &str| segments(dir.path(), chain).iter().map(|f| fs::read(f).unwrap()).collect::<Vec<_>>();
    let (raw, output) = (files("raw"), files("output"));
    let beside = EmbeddedLog::read_only(dir.path()).unwrap();
    assert_eq!(content(&*beside), before);
    assert_eq!((beside.log_id(), beside.partitions()), (log.log_id(), 3));
    assert_eq!(beside.cursor("sink", 0).unwrap().unwrap().epoch, 2);
    assert!(wait(beside.publish(LogName::Raw, vec![(0, record("x"))])).is_err());
    assert!(beside.fence(0).is_err() && beside.trim().is_err() && beside.commit(&owner, vec![]).is_err());
    assert!(beside.store_cursor("sink", 0, SinkCursor { clean: 0, audit: 0, epoch: 1 }).is_err());
    assert_eq!((raw, output), (files("raw"), files("output")), "nothing is written");
    // Deleted files stay readable for who opened them before.
    let owners: Vec<_> = (0..3).map(|p| log.fence(p).unwrap()).collect();
    for owner in &owners {
        commit(&*log, owner, unit(2, &["later"], &[], 10));
    }
    log.store_cursor("sink", 0, SinkCursor { clean: 2, audit: 1, epoch: 3 }).unwrap();
    assert!(log.trim().unwrap() > 0);
    assert_eq!(content(&*beside), before);
    beside.close();
    assert!(EmbeddedLog::read_only(&dir.path().join("nothing")).is_err());
}

#[test]
fn reader_beside_a_busy_owner() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let owner = log.fence(0).unwrap();
            for i in 0..400u64 {
                publish(&*log, LogName::Raw, 0, &[&i.to_string().repeat(40)]);
                commit(&*log, &owner, unit(i + 1, &[&i.to_string()], &[], i + 1));
                if i % 50 == 0 {
                    log.trim().unwrap();
                }
            }
        });
        let mut seen = 0;
        while !busy.is_finished() {
            let beside = EmbeddedLog::read_only(dir.path()).unwrap();
            let (commits, raw) = (beside.bounds(LogName::Commits, 0).unwrap(), beside.bounds(LogName::Raw, 0).unwrap());
            assert!(commits.start == 0 && commits.end >= seen, "commits never go back");
            assert_eq!(only_texts(&*beside, LogName::Commits, 0).len() as u64, commits.end);
            assert!(raw.end >= commits.end, "what a commit refers to is there");
            assert_eq!(only_texts(&*beside, LogName::Raw, 0).len() as u64, raw.end - raw.start);
            seen = commits.end;
        }
    });
}

/// Who polls beside an owner goes on behind it: through segments that begin, grow and go, and through a restart.
#[test]
fn reader_beside_an_owner_follows_by_polling() {
    let dir = TempDir::new().unwrap();
    let mut log = open(dir.path());
    let mut owner = log.fence(0).unwrap();
    let beside = EmbeddedLog::read_only(dir.path()).unwrap();
    let patience = Duration::from_secs(60);
    for n in 0..12u64 {
        let text = n.to_string().repeat(700);
        commit(&*log, &owner, unit(n + 1, &[&text, &text], &["a"], 0));
        assert_eq!(poll(&*beside, LogName::Clean, 0, 2 * n, patience), [(2 * n, text.clone())]);
        assert_eq!(texts(&*beside, LogName::Clean, 0, 2 * n + 1, 1), [(2 * n + 1, text)]);
        assert_eq!(poll(&*beside, LogName::Audit, 0, n, Duration::ZERO), [(n, "a".to_owned())], "an epoch is there as a whole");
        assert_eq!(only_texts(&*beside, LogName::Commits, 0).len() as u64, n + 1, "of deleted segments too");
        assert_eq!(beside.bounds(LogName::Clean, 0).unwrap().end, log.bounds(LogName::Clean, 0).unwrap().end);
        if n % 4 == 2 {
            log.store_cursor("sink", 0, SinkCursor { clean: 2 * n, audit: n, epoch: n + 1 }).unwrap();
            assert!(log.trim().unwrap() > 0);
        }
        if n == 5 {
            drop(log);
            log = open(dir.path());
            owner = log.fence(0).unwrap();
        }
    }
    // What is deleted is let go: neither shown nor kept on the disk.
    let start = log.bounds(LogName::Clean, 0).unwrap().start;
    assert!(start > 2 && beside.bounds(LogName::Clean, 0).unwrap().start == start);
    assert!(matches!(beside.poll(LogName::Clean, 0, 0, 1, Duration::ZERO), Err(LogError::Gone { start: s, .. }) if s == start));
    let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    let kept: Vec<_> = open.filter(|f| f.starts_with(dir.path()) && f.to_string_lossy().ends_with("(deleted)")).collect();
    assert!(kept.is_empty(), "{kept:?}");
    // None is an answer.
    assert!(poll(&*beside, LogName::Clean, 0, 24, Duration::from_millis(1)).is_empty());
}

#[test]
fn full_trim_leaves_one_segment_and_the_offsets() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    for round in 0..3u64 {
        for partition in 0..3 {
            let offsets = publish(&*log, LogName::Raw, partition, &[&"x".repeat(3000), "y"]);
            assert_eq!(offsets, [2 * round, 2 * round + 1]);
            let owner = log.fence(partition).unwrap();
            commit(&*log, &owner, unit(round + 1, &[&"z".repeat(3000)], &[], offsets[1] + 1));
        }
        log.trim().unwrap();
    }
    drop(log);
    let log = open(dir.path());
    log.trim().unwrap();
    assert_eq!((segments(dir.path(), "raw").len(), segments(dir.path(), "output").len()), (1, 1));
    for partition in 0..3 {
        assert_eq!(log.bounds(LogName::Raw, partition).unwrap(), 6..6);
        assert_eq!(log.bounds(LogName::Clean, partition).unwrap(), 3..3);
        assert_eq!(log.bounds(LogName::Commits, partition).unwrap(), 0..3);
        assert_eq!(only_texts(&*log, LogName::Commits, partition)[2], "epoch 3: 2..3 0..0");
    }
    assert_eq!(log.trim().unwrap(), 0, "an empty active segment is not closed again");
}

#[test]
fn horizons_keep_what_is_young() {
    let dir = TempDir::new().unwrap();
    let day = Duration::from_secs(86_400);
    let log = EmbeddedLog::open(dir.path(), Options { raw_horizon: day, audit_horizon: day, ..options() }).unwrap();
    let owner = log.fence(0).unwrap();
    for i in 0..10 {
        publish(&*log, LogName::Raw, 0, &[&"x".repeat(3000)]);
        commit(&*log, &owner, unit(i + 1, &[&"y".repeat(3000)], &[], i + 1));
    }
    assert_eq!(log.trim().unwrap(), 0);
    assert_eq!(log.bounds(LogName::Raw, 0).unwrap(), 0..10);
    drop((log, owner));
    let log = EmbeddedLog::open(dir.path(), Options { raw_horizon: Duration::ZERO, audit_horizon: day, ..options() }).unwrap();
    assert!(log.trim().unwrap() > 0);
    assert_eq!((log.bounds(LogName::Raw, 0).unwrap().start, log.bounds(LogName::Clean, 0).unwrap().start), (10, 0));
}

#[test]
fn archived_commits_keep_within_their_share() {
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(dir.path(), Options { budget_bytes: 400_000, ..options() }).unwrap();
    let owner = log.fence(1).unwrap();
    let long = |epoch| {
        let mut unit = unit(epoch, &["clean"], &[], 0);
        unit.commit = Box::new(move |_| record(format!("{epoch} {}", "x".repeat(1000))));
        unit
    };
    for epoch in 1..=60 {
        commit(&*log, &owner, long(epoch));
        log.trim().unwrap();
    }
    // 60 kB of commits, 40 kB of which may stay; a hold keeps more.
    let bounds = log.bounds(LogName::Commits, 1).unwrap();
    assert!(bounds.start > 10 && bounds.start < 40 && bounds.end == 60, "{bounds:?}");
    assert!(
        matches!(log.read(LogName::Commits, 1, 0, 100), Err(LogError::Gone { log: "commits", from: 0, start, .. }) if start == bounds.start)
    );
    log.hold("verify", LogName::Commits, 1, Some(bounds.start));
    for epoch in 61..=100 {
        commit(&*log, &owner, long(epoch));
        log.trim().unwrap();
    }
    drop(log);
    let log = EmbeddedLog::open(dir.path(), Options { budget_bytes: 400_000, ..options() }).unwrap();
    let found = texts(&*log, LogName::Commits, 1, bounds.start, 3000);
    assert_eq!(found.len() as u64, 100 - bounds.start);
    assert!(found.iter().all(|(offset, text)| text.starts_with(&format!("{} ", offset + 1))));
}

#[test]
fn budget_stops_intake_first_then_sealing_never_control() {
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(dir.path(), Options { budget_bytes: 1 << 20, ..options() }).unwrap();
    let large = || Record { value: vec![1; 4000].into(), ..Record::default() };
    let raw = |log: &EmbeddedLog| wait(log.publish(LogName::Raw, vec![(0, large())]));
    let owner = log.fence(0).unwrap();
    let epoch = |log: &EmbeddedLog, raw_next| {
        let mut unit = unit(1, &[], &[], raw_next);
        unit.clean.push(large());
        log.commit(&owner, vec![unit]).map(drop)
    };
    let full = |result: Result<(), LogError>| matches!(result, Err(LogError::Full { budget, .. }) if budget == 1 << 20);
    let mut published = 0;
    while raw(&log).is_ok() {
        published += 1;
    }
    assert!((80..=85).contains(&log.usage().percent()), "{:?}", log.usage());
    assert!(full(raw(&log).map(drop)));
    let mut committed = 0;
    while epoch(&log, 0).is_ok() {
        committed += 1;
    }
    assert!(committed > 10 && (92..=95).contains(&log.usage().percent()), "{:?}", log.usage());
    assert!(full(epoch(&log, 0)) && full(raw(&log).map(drop)));
    // Empty ones let time pass for a little longer.
    let empty = || log.commit(&owner, vec![unit(1, &[], &[], 0)]).map(drop);
    empty().unwrap();
    while empty().is_ok() {}
    assert!(full(empty()) && (95..=97).contains(&log.usage().percent()), "{:?}", log.usage());
    while log.usage().percent() < 97 {
        wait(log.publish(LogName::Control, vec![(0, large())])).unwrap();
    }
    log.store_cursor("sink", 0, SinkCursor { clean: 0, audit: 0, epoch: 1 }).unwrap();
    // Nothing is deleted because the disk is full.
    assert_eq!(log.trim().unwrap(), 0);
    log.store_cursor("sink", 0, SinkCursor { clean: committed, audit: 0, epoch: committed + 1 }).unwrap();
    assert!(log.trim().unwrap() > 0);
    epoch(&log, published).unwrap();
    log.trim().unwrap();
    raw(&log).unwrap();
    assert_eq!(log.bounds(LogName::Raw, 0).unwrap().end, published + 1);
    let usage = log.usage();
    drop(log);
    let log = EmbeddedLog::open(dir.path(), Options { budget_bytes: 1 << 20, ..options() }).unwrap();
    assert_eq!(log.usage(), usage, "counted the same after a start");
}
