//! A folder of the embedded log, damaged as the input says. It opens or says what is wrong; what it opens with is what was
//! written, each record at its offset.
//!
//! ```text
//! input    flags 1 | edit …                      flags: 1 seals the checksums anew, so that damage gets past them
//! edit     file 1 | place 2 | kind 1 | …         places are modulo the file's length
//! ```
//! Sealed damage may be anything that a log could have written, so there only crashes count.

use super::input::Input;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;
use tidegate_pipeline::log::embedded::{EmbeddedLog, Options};
use tidegate_schemas::log::{CommitUnit, EventLog, Header, LogError, LogName, Record, SinkCursor, Written};

const PARTITIONS: u32 = 2;
const EDITS_MAX: usize = 16;
/// Bytes of a segment's header before its offsets, of a group's header, and of a record's.
const HEADS: (usize, usize, usize) = (72, 40, 24);

type Files = BTreeMap<PathBuf, Vec<u8>>;
/// By log and partition: the first offset, and the records from there on.
type Records = BTreeMap<(LogName, u32), (u64, Vec<Record>)>;

/// Opens a damaged log.
pub fn log(bytes: &[u8]) {
    let written = written();
    let mut input = Input(bytes);
    let seals = input.u8() & 1 == 1;
    let mut files = written.files.clone();
    let mut kinds = Vec::new();
    while !input.is_empty() && kinds.len() < EDITS_MAX {
        kinds.push(edit(&mut files, &mut input));
    }
    if seals {
        files.iter_mut().filter(|(path, _)| path.extension().is_some_and(|e| e == "seg")).for_each(|(path, bytes)| seal(path, bytes));
    }
    let dir = TempDir::new().unwrap();
    store(dir.path(), &files);
    let owned = EmbeddedLog::open(dir.path(), options());
    let Ok(owned) = owned else {
        // Beside an owner nothing is mended, and what a manifest says is believed; looking again takes pauses.
        if files.get(Path::new("log.json")) != written.files.get(Path::new("log.json")) {
            drop(EmbeddedLog::read_only(dir.path()).map(|log| read(&*log)));
        }
        return;
    };
    let found = read(&*owned);
    drop(owned);
    if !seals {
        let whole = found.as_ref().is_ok_and(|f| *f == written.records);
        for (place, records) in found.iter().flatten() {
            let expected = &written.records[place];
            let (start, end) = (records.0 as usize, records.0 as usize + records.1.len());
            assert!(end <= expected.1.len() && records.1 == expected.1[start..end], "{place:?} has records that nobody wrote");
        }
        assert!(whole || found.is_err() || kinds != [Edit::Flip], "one damaged bit cost records in silence");
    }
    let beside = EmbeddedLog::read_only(dir.path()).map(|log| read(&*log));
    if let (Ok(Ok(beside)), Ok(found)) = (beside, found) {
        // The last group may lack the header that vouches for it; the owner has settled it, and nobody else knows.
        let within = |(place, (start, records)): (_, &(u64, Vec<Record>))| found[place].0 == *start && found[place].1.starts_with(records);
        assert!(beside.iter().all(within), "others see what the owner does not");
    }
}

struct WrittenLog {
    files: Files,
    records: Records,
}

fn options() -> Options {
    let none = Duration::ZERO;
    Options { partitions: PARTITIONS, segment_bytes: 4 << 10, raw_horizon: none, audit_horizon: none, ..Options::default() }
}

/// A log of several segments and groups, written once.
fn written() -> &'static WrittenLog {
    static WRITTEN: OnceLock<WrittenLog> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let dir = TempDir::new().unwrap();
        let log = EmbeddedLog::open(dir.path(), options()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let publish = |name, records| runtime.block_on(log.publish(name, records)).unwrap();
        for n in 0..8 {
            publish(LogName::Raw, (0..2).map(|p| (p, record(&format!("raw {n} {p}"), 300 * n))).collect());
            publish(LogName::Control, vec![(0, record(&format!("control {n}"), n))]);
        }
        let owners = [log.fence(0).unwrap(), log.fence(1).unwrap()];
        for epoch in 1..8 {
            for owner in &owners {
                let place = move |w: &Written| record(&format!("epoch {epoch} {:?} {:?}", w.clean, w.audit), 0);
                let records = |name: &str| (0..epoch % 3).map(|n| record(&format!("{name} {epoch} {n}"), 200 * n as usize)).collect();
                let (clean, audit) = (records("clean"), records("audit"));
                let unit = CommitUnit { epoch, clean, audit, commit: Box::new(place), raw_next: epoch.min(8) };
                log.commit(owner, vec![unit]).unwrap();
            }
        }
        log.store_cursor("parquet", 0, SinkCursor { clean: 1, audit: 1, epoch: 2 }).unwrap();
        let records = read(&*log).unwrap();
        log.close();
        drop(log);
        let mut files = Files::new();
        load(dir.path(), Path::new(""), &mut files);
        files.remove(Path::new("lock"));
        WrittenLog { files, records }
    })
}

fn record(text: &str, more: usize) -> Record {
    let value = format!("{text} {}", "x".repeat(more)).into_bytes().into();
    Record { key: "key".into(), headers: vec![Header::new("tg-kind", "test"), Header::new("other", "more")], value }
}

/// Everything that can be read, by log and partition, with the first offset.
fn read(log: &dyn EventLog) -> Result<Records, LogError> {
    let mut found = BTreeMap::new();
    for name in LogName::ALL {
        for partition in 0..if name == LogName::Control { 1 } else { log.partitions().min(PARTITIONS) } {
            let bounds = log.bounds(name, partition)?;
            let (mut next, mut records) = (bounds.start, Vec::new());
            while next < bounds.end {
                let entries = log.read(name, partition, next, 1 << 20)?;
                assert!(!entries.is_empty(), "{name:?} {partition} ends at {} and at {next}", bounds.end);
                for entry in entries {
                    assert_eq!(entry.offset, next, "{name:?} {partition}");
                    next += 1;
                    records.push(entry.record);
                }
            }
            found.insert((name, partition), (bounds.start, records));
        }
    }
    log.cursor("parquet", 0)?;
    log.usage();
    Ok(found)
}

#[derive(Debug, PartialEq, Eq)]
enum Edit {
    Flip,
    Number,
    Cut,
    Append,
    Copy,
    Remove,
    Rename,
    Whole,
}

/// Damages one file.
fn edit(files: &mut Files, input: &mut Input<'_>) -> Edit {
    let (file, at, kind) = (usize::from(input.u8()) % files.len(), usize::from(input.u16()), input.u8() % 8);
    let path = files.keys().nth(file).unwrap().clone();
    let bytes = files.get_mut(&path).unwrap();
    let at = at % bytes.len().max(1);
    match kind {
        0 => {
            let bit = 1 << (input.u8() % 8);
            bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= bit);
            Edit::Flip
        }
        1 => {
            let number = input.take(8);
            bytes.iter_mut().skip(at).zip(number).for_each(|(b, n)| *b = *n);
            Edit::Number
        }
        2 => {
            bytes.truncate(at);
            Edit::Cut
        }
        3 => {
            let len = input.u8().into();
            bytes.extend_from_slice(input.take(len));
            Edit::Append
        }
        4 => {
            // A piece of this or another file, as a disk that mixes up its blocks would do it.
            let (other, from, len) = (usize::from(input.u8()) % files.len(), usize::from(input.u16()), usize::from(input.u16()));
            let source = files.values().nth(other).unwrap();
            let from = from % source.len().max(1);
            let piece: Vec<u8> = source.iter().skip(from).take(len).copied().collect();
            files.get_mut(&path).unwrap().iter_mut().skip(at).zip(piece).for_each(|(b, n)| *b = n);
            Edit::Copy
        }
        5 => {
            if files.len() > 1 {
                files.remove(&path);
            }
            Edit::Remove
        }
        6 => {
            let name = format!("{:012}.seg", input.u8() % 6);
            if path.extension().is_some_and(|e| e == "seg") {
                let bytes = files[&path].clone();
                files.insert(path.with_file_name(name), bytes);
            }
            Edit::Rename
        }
        _ => {
            let len = input.u16().into();
            *bytes = input.take(len).to_vec();
            Edit::Whole
        }
    }
}

/// Computes the checksums and links of a segment as its writer would.
fn seal(path: &Path, bytes: &mut [u8]) {
    let (segment_head, group_head, record_head) = HEADS;
    let slots = match path.parent().and_then(|p| p.to_str()) {
        Some("output") => 4 * PARTITIONS as usize,
        Some("control") => 1,
        _ => PARTITIONS as usize,
    };
    let mut at = segment_head + slots * 8 + 4;
    if bytes.len() < at {
        return;
    }
    put_crc(bytes, 0, at - 4);
    let mut link = crc32fast::hash(&bytes[..at]);
    let number = |bytes: &[u8], at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i])) as usize;
    while at + group_head <= bytes.len() {
        bytes[at + 32..at + 36].copy_from_slice(&link.to_le_bytes());
        put_crc(bytes, at, 36);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[at..at + group_head]);
        let (body, records) = (number(bytes, at + 16), number(bytes, at + 20));
        let (end, mut record) = (at + group_head + body, at + group_head);
        for _ in 0..records {
            if record + record_head > bytes.len() {
                return;
            }
            let body = (record + record_head).min(bytes.len())..(record + record_head + number(bytes, record)).min(bytes.len());
            let crc = crc32fast::hash(&bytes[body.clone()]);
            bytes[record + 4..record + 8].copy_from_slice(&crc.to_le_bytes());
            put_crc(bytes, record, 20);
            hasher.update(&bytes[record..record + record_head]);
            record = body.end;
        }
        link = hasher.finalize();
        at = end;
    }
}

fn put_crc(bytes: &mut [u8], from: usize, len: usize) {
    let crc = crc32fast::hash(&bytes[from..from + len]);
    bytes[from + len..from + len + 4].copy_from_slice(&crc.to_le_bytes());
}

fn load(dir: &Path, inner: &Path, files: &mut Files) {
    for entry in fs::read_dir(dir.join(inner)).unwrap() {
        let entry = entry.unwrap();
        let path = inner.join(entry.file_name());
        if entry.path().is_dir() {
            load(dir, &path, files);
        } else {
            files.insert(path, fs::read(entry.path()).unwrap());
        }
    }
}

fn store(dir: &Path, files: &Files) {
    for chain in ["raw", "output", "commits", "control"] {
        fs::create_dir_all(dir.join(chain)).unwrap();
    }
    for (path, bytes) in files {
        fs::write(dir.join(path), bytes).unwrap();
    }
}
