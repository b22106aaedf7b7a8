//! Torn writes and damage. A write that nobody was told of is cut; anything else is an error with its place.

use super::embedded::{open, options, segments};
use super::{commit, only_texts, publish, unit};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tidegate_pipeline::log::embedded::EmbeddedLog;
use tidegate_schemas::log::{EventLog, LogError, LogName, SinkCursor};

/// Bytes of a group header, of which one without records stands behind the last group.
const MARK: usize = 40;

/// Three groups in one segment, the last of three records; returns the file, its bytes, and where each group ends.
fn three_groups(dir: &Path) -> (PathBuf, Vec<u8>, [usize; 4]) {
    let mut ends = [0; 4];
    for (i, texts) in [&[][..], &["one"], &["two", "three"], &["four", "five", "six"]].into_iter().enumerate() {
        let log = open(dir);
        if !texts.is_empty() {
            publish(&*log, LogName::Raw, 0, texts);
        }
        drop(log);
        let length = fs::metadata(&segments(dir, "raw")[0]).unwrap().len() as usize;
        ends[i] = if texts.is_empty() { length } else { length - MARK };
    }
    let file = segments(dir, "raw")[0].clone();
    let bytes = fs::read(&file).unwrap();
    (file, bytes, ends)
}

/// What stands outside of a chain of its end is lost, as by a power cut soon after.
fn forget_ends(dir: &Path) {
    fs::remove_file(dir.join("ends")).unwrap();
}

fn corrupt_at(dir: &Path) -> Option<String> {
    match EmbeddedLog::open(dir, options()) {
        Err(LogError::Corrupt { place, .. }) => Some(place),
        Err(LogError::Foreign { .. }) => Some("foreign".into()),
        Err(e) => panic!("{e}"),
        Ok(_) => None,
    }
}

#[test]
fn torn_at_every_byte() {
    let dir = TempDir::new().unwrap();
    let (file, bytes, ends) = three_groups(dir.path());
    for length in ends[2]..ends[3] {
        for garbage in [0, 1, 900] {
            forget_ends(dir.path());
            fs::write(&file, &bytes[..length]).unwrap();
            // Neither zeros nor noise nor a copy of older groups passes for a group.
            let noise: Vec<u8> = (0..garbage).map(|i| [0, (i * 37 + length) as u8, bytes[ends[1] + i % 50]][length % 3]).collect();
            OpenOptions::new().append(true).open(&file).unwrap().write_all(&noise).unwrap();
            let log = open(dir.path());
            let torn = (length - ends[2] + garbage) as u64;
            assert_eq!((log.opening().torn_bytes, log.opening().torn_chains), (torn, u32::from(torn > 0)), "{length} {garbage}");
            assert_eq!(fs::metadata(&file).unwrap().len() as usize, ends[2], "the cut is done");
            assert_eq!(only_texts(&*log, LogName::Raw, 0), ["one", "two", "three"]);
            if length % 16 == 0 {
                assert_eq!(publish(&*log, LogName::Raw, 0, &["next"]), [3]);
                drop(log);
                assert_eq!(only_texts(&*open(dir.path()), LogName::Raw, 0), ["one", "two", "three", "next"]);
            }
        }
    }
    // Complete, but neither vouched for nor acknowledged, perhaps: it stays.
    forget_ends(dir.path());
    fs::write(&file, &bytes[..ends[3]]).unwrap();
    let log = open(dir.path());
    assert_eq!((log.opening().torn_bytes, only_texts(&*log, LogName::Raw, 0).len()), (0, 6));
}

#[test]
fn torn_epoch_is_gone_as_a_whole() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    let owner = log.fence(0).unwrap();
    commit(&*log, &owner, unit(1, &["c1"], &["a1"], 0));
    log.close();
    let file = segments(dir.path(), "output")[0].clone();
    let before = fs::metadata(&file).unwrap().len() as usize - MARK;
    drop(log);
    let log = open(dir.path());
    let owner = log.fence(0).unwrap();
    log.commit(&owner, vec![unit(2, &["c2"], &["a2"], 0), unit(3, &["c3"], &["a3"], 0)]).unwrap();
    drop(log);
    let bytes = fs::read(&file).unwrap();
    for length in before..bytes.len() - MARK {
        forget_ends(dir.path());
        fs::write(&file, &bytes[..length]).unwrap();
        let log = open(dir.path());
        for (name, expected) in [(LogName::Clean, "c1"), (LogName::Audit, "a1"), (LogName::Commits, "epoch 1: 0..1 0..1")] {
            assert_eq!(only_texts(&*log, name, 0), [expected], "{length}");
        }
    }
}

#[test]
fn damage_at_every_byte_is_found() {
    let dir = TempDir::new().unwrap();
    let (file, bytes, ends) = three_groups(dir.path());
    for at in 0..ends[3] {
        for flip in [0x01, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            fs::write(&file, &damaged).unwrap();
            let place = corrupt_at(dir.path()).unwrap_or_else(|| panic!("byte {at} passed"));
            assert_eq!(fs::read(&file).unwrap(), damaged, "nothing was cut");
            if at < ends[0] {
                continue;
            }
            // The place is the record or the group header that holds the byte, or the group where it is cut short.
            let byte: usize = place.rsplit(' ').next().unwrap().parse().unwrap();
            let group = *ends.iter().rev().find(|e| **e <= at).unwrap();
            assert!(place.contains("000000000000.seg") && byte <= at && byte >= group, "{at}: {place}");
        }
    }
    // The mark behind the last group is nobody's record.
    for at in ends[3]..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(&file, &damaged).unwrap();
        assert_eq!(only_texts(&*open(dir.path()), LogName::Raw, 0).len(), 6);
    }
}

#[test]
fn damage_before_the_last_group_is_found_without_a_mark() {
    let dir = TempDir::new().unwrap();
    let (file, bytes, ends) = three_groups(dir.path());
    forget_ends(dir.path());
    for at in (ends[0]..ends[2]).step_by(3) {
        // A power cut took the mark, and half of the last group's records.
        for length in [ends[3], ends[3] - 30] {
            let mut damaged = bytes[..length].to_vec();
            damaged[at] ^= 0x10;
            fs::write(&file, &damaged).unwrap();
            assert!(corrupt_at(dir.path()).is_some(), "byte {at} passed");
        }
    }
}

#[test]
fn records_cannot_pose_as_groups() {
    let dir = TempDir::new().unwrap();
    let (file, bytes, ends) = three_groups(dir.path());
    forget_ends(dir.path());
    // A sender has got hold of stored bytes, and a write that carries them is torn.
    let mut torn = bytes[..ends[2]].to_vec();
    torn.extend_from_slice(&[0; 60]);
    torn.extend_from_slice(&bytes[ends[2]..]);
    fs::write(&file, torn).unwrap();
    assert_eq!(only_texts(&*open(dir.path()), LogName::Raw, 0).len(), 3);
}

#[test]
fn damage_in_older_segments_is_found() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    for i in 0..9 {
        publish(&*log, LogName::Raw, 0, &[&i.to_string().repeat(3000)]);
    }
    drop(log);
    let files = segments(dir.path(), "raw");
    assert!(files.len() > 5);
    let restore = |i: usize, bytes: &[u8]| fs::write(&files[i], bytes).unwrap();
    let bytes = fs::read(&files[2]).unwrap();
    // A body is checked when it is read, and the rest stays readable.
    let mut damaged = bytes.clone();
    damaged[500] ^= 1;
    restore(2, &damaged);
    let log = open(dir.path());
    assert_eq!(log.read(LogName::Raw, 0, 1, 10).unwrap().len(), 1);
    for _ in 0..2 {
        let read = log.read(LogName::Raw, 0, 2, 10);
        assert!(matches!(&read, Err(LogError::Corrupt { place, .. }) if place.contains("000000000002.seg")), "{read:?}");
    }
    assert_eq!(log.read(LogName::Raw, 0, 3, 10).unwrap().len(), 1);
    drop(log);
    // So are the headers between bodies.
    damaged = bytes.clone();
    damaged[120] ^= 1;
    restore(2, &damaged);
    let log = open(dir.path());
    assert!(matches!(log.read(LogName::Raw, 0, 2, 10), Err(LogError::Corrupt { .. })));
    drop(log);
    // A file that is cut, or missing, or another's, is found at once.
    restore(2, &bytes[..bytes.len() - MARK - 1]);
    assert!(corrupt_at(dir.path()).unwrap().contains("000000000002.seg"));
    fs::remove_file(&files[2]).unwrap();
    assert!(corrupt_at(dir.path()).unwrap().contains("000000000003.seg"));
    fs::copy(&files[3], &files[2]).unwrap();
    assert!(corrupt_at(dir.path()).unwrap().contains("000000000002.seg"));
    restore(2, &bytes);
    assert_eq!(only_texts(&*open(dir.path()), LogName::Raw, 0).len(), 9);
}

#[test]
fn chains_that_lost_their_end_are_found() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    let owner = log.fence(0).unwrap();
    for i in 0..6 {
        publish(&*log, LogName::Raw, 0, &[&"x".repeat(3000)]);
        commit(&*log, &owner, unit(i + 1, &[&"y".repeat(3000)], &[], i + 1));
    }
    log.trim().unwrap();
    publish(&*log, LogName::Raw, 0, &["x", "y"]);
    commit(&*log, &owner, unit(7, &[], &[], 8));
    drop(log);
    let last = segments(dir.path(), "raw").pop().unwrap();
    let bytes = fs::read(&last).unwrap();
    forget_ends(dir.path());
    // Offsets that epochs have processed would be given to new requests.
    fs::write(&last, &bytes[..bytes.len() - MARK - 1]).unwrap();
    assert!(corrupt_at(dir.path()).unwrap().contains("raw"));
    fs::write(&last, &bytes).unwrap();
    let archived = segments(dir.path(), "commits").pop().unwrap();
    let bytes = fs::read(&archived).unwrap();
    fs::write(&archived, &bytes[..bytes.len() - 1]).unwrap();
    assert!(corrupt_at(dir.path()).unwrap().contains("commits"));
    fs::write(&archived, &bytes).unwrap();
    assert_eq!(only_texts(&*open(dir.path()), LogName::Commits, 0).len(), 7);
}

#[test]
fn end_that_was_acknowledged_is_missed() {
    let dir = TempDir::new().unwrap();
    let (file, bytes, ends) = three_groups(dir.path());
    let refused = || match EmbeddedLog::open(dir.path(), options()) {
        Err(error @ LogError::Corrupt { .. }) => error.to_string(),
        other => panic!("{:?}", other.err()),
    };
    // Wherever the file is cut, whatever stands there instead, and without a word in the file itself.
    for length in (ends[0]..ends[3]).chain([0, 50]) {
        for garbage in [0, 70] {
            let mut cut = bytes[..length].to_vec();
            cut.resize(length + garbage, 0xa5);
            fs::write(&file, &cut).unwrap();
            let told = refused();
            let least = *ends.iter().rev().find(|e| **e <= length).unwrap_or(&0);
            if length >= ends[0] {
                assert!(told.contains(&format!("up to byte {} was acknowledged", ends[3])), "{length}: {told}");
                assert!(told.contains(&format!("{} bytes of it are lost", ends[3] - least)), "{length}: {told}");
            }
            assert!(told.contains("000000000000.seg"), "{told}");
            // Beside an owner as well, after some patience.
            assert!(length % 64 > 0 || EmbeddedLog::read_only(dir.path()).is_err(), "{length}");
            assert_eq!(fs::read(&file).unwrap(), cut, "nothing was cut");
        }
    }
    // More than was noted is no damage: the note may be of an earlier time.
    let noted = fs::read(dir.path().join("ends")).unwrap();
    fs::write(&file, &bytes).unwrap();
    let log = open(dir.path());
    publish(&*log, LogName::Raw, 0, &["more"]);
    drop(log);
    fs::write(dir.path().join("ends"), &noted).unwrap();
    assert_eq!(only_texts(&*open(dir.path()), LogName::Raw, 0).len(), 7);
    // A note that cannot be read says nothing, nor does that of another log.
    let other = TempDir::new().unwrap();
    let log = open(other.path());
    publish(&*log, LogName::Raw, 0, &[&"long".repeat(500)]);
    drop(log);
    for note in [Vec::new(), vec![0; 300], vec![7; 300], fs::read(other.path().join("ends")).unwrap()] {
        fs::write(dir.path().join("ends"), note).unwrap();
        assert_eq!(only_texts(&*open(dir.path()), LogName::Raw, 0).len(), 7);
    }
    // Whoever has no copy may go on without.
    fs::write(&file, &bytes[..ends[1]]).unwrap();
    assert!(refused().contains("delete"));
    forget_ends(dir.path());
    assert_eq!(only_texts(&*open(dir.path()), LogName::Raw, 0), ["one"]);
}

#[test]
fn segments_that_are_missing_are_missed() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    let owner = log.fence(0).unwrap();
    for i in 0..6u64 {
        publish(&*log, LogName::Raw, 0, &[&"x".repeat(3000)]);
        commit(&*log, &owner, unit(i + 1, &[&"y".repeat(3000)], &[], i.min(2)));
    }
    log.store_cursor("sink", 0, SinkCursor { clean: 5, audit: 0, epoch: 6 }).unwrap();
    drop(log);
    let keep = |chain: &str| -> Vec<_> { segments(dir.path(), chain).into_iter().map(|f| (f.clone(), fs::read(f).unwrap())).collect() };
    let restore = |files: &[(PathBuf, Vec<u8>)]| files.iter().for_each(|(f, bytes)| fs::write(f, bytes).unwrap());
    let (raw, output) = (keep("raw"), keep("output"));
    assert!(raw.len() > 4 && output.len() > 4);
    // The newest, which is noted; and the oldest of requests, which nobody has processed.
    for (files, chain) in [(&raw, "raw"), (&output, "output")] {
        fs::remove_file(&files[files.len() - 1].0).unwrap();
        let place = corrupt_at(dir.path()).unwrap();
        assert!(place.contains(&format!("{chain}/{:012}.seg", files.len() - 1)), "{place}");
        restore(files);
    }
    raw.iter().take(4).for_each(|(f, _)| fs::remove_file(f).unwrap());
    assert!(corrupt_at(dir.path()).unwrap().contains("raw"));
    restore(&raw);
    // What a sink has delivered was there once, though all that is noted is lost.
    for keep in 1..output.len() {
        forget_ends(dir.path());
        output.iter().skip(keep).for_each(|(f, _)| fs::remove_file(f).unwrap());
        let found = corrupt_at(dir.path());
        let log = if found.is_none() { Some(open(dir.path())) } else { None };
        let end = log.map(|log| log.bounds(LogName::Clean, 0).unwrap().end);
        assert!(found.is_some_and(|place| place.contains("output")) || end.is_some_and(|end| end >= 5), "{keep}: {end:?}");
        segments(dir.path(), "output").iter().for_each(|f| fs::remove_file(f).unwrap());
        restore(&output);
        let _ = fs::write(dir.path().join("ends"), b"");
    }
    assert_eq!(only_texts(&*open(dir.path()), LogName::Clean, 0).len(), 6);
}

#[test]
fn inspection_reads_every_segment() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    let owner = log.fence(0).unwrap();
    for i in 0..6u64 {
        publish(&*log, LogName::Raw, (i % 3) as u32, &[&i.to_string().repeat(2000), "small"]);
        commit(&*log, &owner, unit(i + 1, &[&i.to_string().repeat(3000)], &["a"], i.min(2)));
    }
    log.trim().unwrap();
    drop(log);
    let log = open(dir.path());
    let sound = log.inspect().unwrap();
    let files: Vec<_> = ["raw", "output", "commits", "control"].iter().flat_map(|c| segments(dir.path(), c)).collect();
    assert!(sound.damage.is_empty() && sound.files == files.len() && sound.bytes == log.usage().bytes, "{sound:?}");
    // Every byte of every file that holds acknowledged bytes, in steps; both by the owner and beside it.
    for file in &files {
        let bytes = fs::read(file).unwrap();
        let durable = if bytes.len() > MARK { bytes.len() - MARK } else { bytes.len() };
        for at in (0..durable).step_by(97) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            fs::write(file, &damaged).unwrap();
            let found = log.inspect().unwrap().damage;
            let named = |e: &LogError| matches!(e, LogError::Corrupt { place, .. } if place.starts_with(&file.display().to_string()));
            assert!(found.iter().any(named), "{} byte {at}: {found:?}", file.display());
        }
        fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
        assert!(!log.inspect().unwrap().damage.is_empty(), "{}", file.display());
        fs::write(file, &bytes).unwrap();
    }
    // A whole one that belongs elsewhere.
    let raw = segments(dir.path(), "raw");
    let (second, third) = (fs::read(&raw[1]).unwrap(), fs::read(&raw[2]).unwrap());
    fs::write(&raw[2], &second).unwrap();
    assert!(!log.inspect().unwrap().damage.is_empty());
    fs::write(&raw[2], &third).unwrap();
    assert!(log.inspect().unwrap().damage.is_empty());
    // What is deleted is nobody's damage.
    let processed: Vec<u64> = (0..3).map(|p| log.bounds(LogName::Raw, p).unwrap().end).collect();
    for (partition, end) in processed.into_iter().enumerate() {
        let owner = log.fence(partition as u32).unwrap();
        commit(&*log, &owner, unit(7, &[], &[], end));
    }
    let beside = EmbeddedLog::read_only(dir.path()).unwrap();
    assert!(log.trim().unwrap() > 0);
    assert!(log.inspect().unwrap().damage.is_empty() && beside.inspect().unwrap().damage.is_empty());
    assert!(log.inspect().unwrap().files < sound.files);
}

#[test]
fn small_files_are_checked() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    let manifest = fs::read_to_string(dir.path().join("log.json")).unwrap();
    for bad in [String::new(), manifest.replace("\"format\": 1", "\"format\": 2"), manifest.replace("ready", "steady")] {
        fs::write(dir.path().join("log.json"), bad).unwrap();
        assert!(corrupt_at(dir.path()).unwrap().contains("log.json"));
    }
    fs::remove_file(dir.path().join("log.json")).unwrap();
    assert!(corrupt_at(dir.path()).unwrap().contains("log.json"));
    fs::write(dir.path().join("log.json"), &manifest).unwrap();
    for bad in ["", "{}", "{\"log_id\": \"00000000000000000000000000000000\", \"sinks\": {}}"] {
        fs::write(dir.path().join("cursors.json"), bad).unwrap();
        assert!(corrupt_at(dir.path()).unwrap().contains("cursors.json"));
    }
}
