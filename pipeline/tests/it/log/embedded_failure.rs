//! Writes that fail: by a limit on files, by a folder that is away, by a disk that is full. Nothing of them is acknowledged
//! or stays, and the log takes writes again once it can.

use super::embedded::{open, options, segments};
use super::{commit, only_texts, publish, record, unit, wait};
use crate::support::{Restricted, restricted, run_restricted, wait_for};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tidegate_pipeline::log::embedded::{EmbeddedLog, Options};
use tidegate_schemas::log::{EventLog, LogError, LogName, SinkCursor};

fn large_segments(dir: &Path) -> Arc<EmbeddedLog> {
    // Nobody looks at the disk before it is full.
    EmbeddedLog::open(dir, Options { segment_bytes: 1 << 20, free: |_| None, ..options() }).unwrap()
}

fn healed(log: &EmbeddedLog) {
    wait_for("the log to take writes again", Duration::from_secs(60), || log.failing().is_none().then_some(()));
}

fn try_publish(log: &EmbeddedLog, name: LogName, text: &str) -> Result<Vec<u64>, LogError> {
    wait(log.publish(name, vec![(0, record(text))]))
}

/// Bytes of a chain's files, names of all.
fn files(dir: &Path, chain: &str) -> (u64, Vec<String>) {
    let files = segments(dir, chain);
    let bytes = files.iter().map(|f| fs::metadata(f).unwrap().len()).sum();
    (bytes, files.iter().map(|f| f.file_name().unwrap().to_string_lossy().into_owned()).collect())
}

#[test]
fn failed_write_is_cut_and_the_chain_heals() {
    if let Some(dir) = std::env::var_os("TIDEGATE_RESTRICTED") {
        return fail_and_heal(Path::new(&dir));
    }
    let dir = TempDir::new().unwrap();
    // Files of this process end at 32 KiB, until it says otherwise.
    assert!(restricted("log::embedded_failure::failed_write_is_cut_and_the_chain_heals", dir.path(), Restricted::FileBlocks(64)));
    let log = large_segments(&dir.path().join("log"));
    assert_eq!((log.opening().torn_bytes, log.opening().torn_chains), (0, 0), "nothing was left of what failed");
    let texts = only_texts(&*log, LogName::Raw, 0);
    assert_eq!((texts.len(), texts.iter().map(|t| t.len()).max()), (7, Some(40_000)));
    assert_eq!(only_texts(&*log, LogName::Control, 0), ["y".repeat(40_000)]);
    publish(&*log, LogName::Raw, 0, &["goes on"]);
    assert!(log.inspect().unwrap().damage.is_empty());
}

fn fail_and_heal(dir: &Path) {
    let dir = &dir.join("log");
    let log = large_segments(dir);
    let owner = log.fence(0).unwrap();
    for _ in 0..5 {
        publish(&*log, LogName::Raw, 0, &[&"x".repeat(1_000)]);
    }
    let mut before = (files(dir, "raw"), files(dir, "control"));
    // One chain with records, and one without.
    let large = "y".repeat(40_000);
    for name in [LogName::Raw, LogName::Control] {
        let error = try_publish(&log, name, &large).unwrap_err();
        assert!(matches!(&error, LogError::Io { .. }), "{error}");
        let told = log.failing().unwrap().to_string();
        assert!(told.contains("it is tried again by itself") && told.contains(".seg"), "{told}");
        // A small one would fit. It is refused, since what became of the large one is not known.
        let error = try_publish(&log, name, "small").unwrap_err().to_string();
        assert!(error.contains("it is tried again by itself"), "{error}");
    }
    // Only the mark of its end stands where nothing had stood yet.
    before.1.0 += 40;
    assert_eq!((files(dir, "raw"), files(dir, "control")), before, "what failed was cut at once");
    // Tries fail as long as there is no room for as much as had failed.
    std::thread::sleep(Duration::from_millis(400));
    assert!(log.failing().is_some() && try_publish(&log, LogName::Raw, "small").is_err());
    // Other chains have files of their own.
    commit(&*log, &owner, unit(1, &["c"], &["a"], 2));
    log.store_cursor("sink", 0, SinkCursor { clean: 1, audit: 1, epoch: 2 }).unwrap();
    log.trim().unwrap();
    assert_eq!(only_texts(&*log, LogName::Raw, 0).len(), 5, "what was durable can be read");
    let pid = std::process::id().to_string();
    assert!(Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status().unwrap().success());
    healed(&log);
    assert_eq!(publish(&*log, LogName::Raw, 0, &[&large]), [5], "offsets have no gap");
    assert_eq!(publish(&*log, LogName::Raw, 0, &["after"]), [6]);
    assert_eq!(publish(&*log, LogName::Control, 0, &[&large]), [0]);
    assert_eq!(files(dir, "raw").1, ["000000000000.seg", "000000000001.seg"], "the old segment is sealed");
    assert_eq!(files(dir, "control").1, ["000000000000.seg"], "an empty one is made anew");
    let beside = EmbeddedLog::read_only(dir).unwrap();
    assert_eq!(only_texts(&*beside, LogName::Raw, 0).len(), 7);
    assert!(beside.failing().is_none());
}

#[test]
fn segment_that_cannot_be_created_is_created_later() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    publish(&*log, LogName::Raw, 0, &["a"]);
    fs::rename(dir.path().join("raw"), dir.path().join("away")).unwrap();
    assert!(try_publish(&log, LogName::Raw, &"x".repeat(5_000)).is_err());
    assert!(try_publish(&log, LogName::Raw, "x").is_err());
    fs::rename(dir.path().join("away"), dir.path().join("raw")).unwrap();
    healed(&log);
    assert_eq!(publish(&*log, LogName::Raw, 0, &["b"]), [1]);
    drop(log);
    let log = open(dir.path());
    assert_eq!((only_texts(&*log, LogName::Raw, 0), log.opening().torn_bytes), (vec!["a".to_owned(), "b".to_owned()], 0));
}

#[test]
fn acknowledged_bytes_that_changed_end_all_healing() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    publish(&*log, LogName::Raw, 0, &["first", "second"]);
    let file = segments(dir.path(), "raw").remove(0);
    let sound = fs::read(&file).unwrap();
    let mut damaged = sound.clone();
    let at = damaged.windows(5).position(|w| w == b"first").unwrap();
    damaged[at] ^= 1;
    fs::rename(dir.path().join("raw"), dir.path().join("away")).unwrap();
    assert!(try_publish(&log, LogName::Raw, &"x".repeat(5_000)).is_err());
    let away = dir.path().join("away").join(file.file_name().unwrap());
    fs::OpenOptions::new().write(true).open(&away).unwrap().write_all(&damaged[..at + 5]).unwrap();
    fs::rename(dir.path().join("away"), dir.path().join("raw")).unwrap();
    let told = wait_for("the log to give up", Duration::from_secs(60), || {
        log.failing().map(|e| e.to_string()).filter(|told| told.contains("restart"))
    });
    assert!(told.contains("000000000000.seg") && told.contains("cannot be read back"), "{told}");
    assert!(try_publish(&log, LogName::Raw, "x").is_err());
    drop(log);
    let error = EmbeddedLog::open(dir.path(), options()).err().unwrap();
    assert!(matches!(&error, LogError::Corrupt { place, .. } if place.contains("raw/000000000000.seg")), "{error}");
}

#[test]
fn full_disk_takes_nothing_and_loses_nothing() {
    run_restricted("log::embedded_failure::full_disk_takes_nothing_and_loses_nothing", Restricted::Disk("6m"), fill_and_free);
}

fn fill_and_free(dir: &Path) {
    let filler = dir.join("filler");
    fs::write(&filler, vec![1; 3 << 20]).unwrap();
    let dir = &dir.join("log");
    let log = large_segments(dir);
    let owner = log.fence(0).unwrap();
    let (mut acknowledged, mut processed) = (Vec::new(), 0);
    for round in 0..3 {
        // Several at once, so that groups of many records fail too, until the disk has refused some.
        let mut refused = 0;
        while refused < 20 {
            let texts: Vec<_> = (0..4).map(|i| format!("{round} {i} {} {}", acknowledged.len(), "x".repeat(40_000))).collect();
            let queued: Vec<_> = texts.iter().map(|t| log.publish(LogName::Raw, vec![(0, record(t.clone()))])).collect();
            for (told, text) in queued.into_iter().zip(texts) {
                match wait(told) {
                    Ok(offsets) => {
                        assert_eq!(offsets, [acknowledged.len() as u64]);
                        acknowledged.push(text);
                    }
                    Err(LogError::Io { detail, .. }) => {
                        assert!(detail.contains("No space left"), "{detail}");
                        refused += 1;
                    }
                    Err(e) => panic!("{e}"),
                }
            }
        }
        assert!(acknowledged.len() > 4 && only_texts(&*log, LogName::Raw, 0) == acknowledged[processed..]);
        match round {
            // Somebody makes room.
            0 => fs::remove_file(&filler).unwrap(),
            // Or the log itself does: what is processed goes, though its chain takes no writes.
            _ => {
                processed = log.bounds(LogName::Raw, 0).unwrap().end as usize;
                commit(&*log, &owner, unit(round + 1, &[], &[], processed as u64));
                assert!(log.trim().unwrap() > 0);
            }
        }
        healed(&log);
        processed = log.bounds(LogName::Raw, 0).unwrap().start as usize;
    }
    assert_eq!(publish(&*log, LogName::Raw, 0, &["after"]), [acknowledged.len() as u64]);
    acknowledged.push("after".into());
    drop(log);
    let log = large_segments(dir);
    assert_eq!((log.opening().torn_bytes, log.opening().torn_chains), (0, 0));
    assert!(only_texts(&*log, LogName::Raw, 0) == acknowledged[processed..]);
    assert!(log.inspect().unwrap().damage.is_empty());
}

#[test]
fn failed_sync_is_believed_no_more() {
    run_restricted("log::embedded_failure::failed_sync_is_believed_no_more", Restricted::Overbooked("48m"), fail_to_sync);
}

fn fail_to_sync(medium: &Path) {
    let dir = &medium.join("disk/log");
    let log = EmbeddedLog::open(dir, Options { segment_bytes: 64 << 20, ..options() }).unwrap();
    let mut acknowledged: Vec<String> = (0..10).map(|i| format!("{i} {}", "small".repeat(100))).collect();
    for text in &acknowledged {
        publish(&*log, LogName::Raw, 0, &[text]);
    }
    let mut filler = fs::File::create(medium.join("filler")).unwrap();
    for size in [1 << 20, 4 << 10] {
        while filler.write_all(&vec![1; size]).is_ok() {}
    }
    // The first ones may still find blocks that the medium has.
    let (mut failures, mut i) = (0, 0);
    while failures < 3 {
        i += 1;
        let text = format!("{i} {}", "large".repeat(100_000));
        match try_publish(&log, LogName::Raw, &text) {
            Ok(offsets) => {
                assert_eq!(offsets, [acknowledged.len() as u64]);
                acknowledged.push(text);
            }
            Err(error) => {
                assert!(error.to_string().starts_with("sync ") || failures > 0, "{error}");
                failures += 1;
            }
        }
        assert!(i < 1_000, "the medium takes everything");
    }
    assert!(log.failing().is_some());
    drop(filler);
    fs::remove_file(medium.join("filler")).unwrap();
    healed(&log);
    for text in ["after", "and more"] {
        assert_eq!(publish(&*log, LogName::Raw, 0, &[text]), [acknowledged.len() as u64]);
        acknowledged.push(text.into());
    }
    assert!(only_texts(&*log, LogName::Raw, 0) == acknowledged);
    drop(log);
    // Mounted again, so that what is read comes from the medium and not from memory.
    for command in ["umount disk", "mount -o loop image disk"] {
        assert!(Command::new("sh").args(["-c", command]).current_dir(medium).status().unwrap().success(), "{command}");
    }
    let log = EmbeddedLog::open(dir, Options { segment_bytes: 64 << 20, ..options() }).unwrap();
    assert_eq!(log.opening().torn_bytes, 0);
    assert!(only_texts(&*log, LogName::Raw, 0) == acknowledged);
    assert!(log.inspect().unwrap().damage.is_empty());
}
