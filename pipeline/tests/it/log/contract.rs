//! What every implementation promises. Offsets may have gaps; deletion may take less than it could.

use super::{Harness, commit, only_texts, poll, publish, record, texts, unit, wait};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidegate_schemas::limits;
use tidegate_schemas::log::{Header, LogError, LogName, Record, SinkCursor};

type Case = fn(&mut dyn Harness);

/// Runs every case on a log of its own.
pub fn contract(make: &dyn Fn() -> Box<dyn Harness>) {
    let cases: [(&str, Case); 13] = [
        ("records come back as they were", records_come_back),
        ("large records share no memory", large_records_are_alone),
        ("bounds, reads and waiting agree", bounds_reads_and_waiting),
        ("what cannot be is refused", impossible_calls),
        ("calls keep their order", calls_keep_their_order),
        ("concurrent publishers keep theirs", concurrent_publishers),
        ("an epoch is there as a whole", epochs_are_whole),
        ("readers never see half of an epoch", readers_see_no_half),
        ("a fenced owner commits nothing", fencing),
        ("cursors are durable", cursors),
        ("what is not processed or held stays", raw_retention),
        ("output waits for every sink", output_retention),
        ("control stays", control),
    ];
    for (name, case) in cases {
        eprintln!("contract: {name}");
        case(&mut *make());
    }
}

fn records_come_back(harness: &mut dyn Harness) {
    let header = |name: &'static str, value: &[u8]| Header::new(name, value);
    let records = [
        Record::default(),
        Record { value: "value".into(), ..Record::default() },
        Record { key: "key".into(), ..Record::default() },
        Record { headers: vec![header("tg-tenant", b"acme"), header("x-own", b""), header("tg-tenant", b"twice")], ..record("v") },
        Record { headers: vec![header("x-bytes", &[0, 255, 10, 128]); 20], key: vec![0, 1, 2].into(), value: vec![0; 300].into() },
        Record { value: vec![7; limits::RECORD_BYTES_MAX].into(), ..record("") },
    ];
    let log = harness.log();
    let offsets = wait(log.publish(LogName::Raw, records.iter().map(|r| (1, r.clone())).collect())).unwrap();
    drop(log);
    for reopened in [false, true] {
        let log = harness.log();
        for (record, offset) in records.iter().zip(&offsets) {
            let entry = log.read(LogName::Raw, 1, *offset, 1).unwrap().remove(0);
            assert_eq!((entry.offset, &entry.record), (*offset, record), "reopened: {reopened}");
        }
        let all = log.read(LogName::Raw, 1, offsets[0], 8 << 20).unwrap();
        assert_eq!(all.into_iter().map(|e| e.record).collect::<Vec<_>>(), records);
        drop(log);
        harness.reopen();
    }
}

fn large_records_are_alone(harness: &mut dyn Harness) {
    let log = harness.log();
    let sizes = [100, limits::RECORD_ALONE_BYTES, 100, limits::RECORD_ALONE_BYTES + 77, 200_000, 100];
    let records = sizes.iter().map(|size| (0, Record { value: vec![9; *size].into(), ..record("") }));
    let offsets = wait(log.publish(LogName::Raw, records.collect())).unwrap();
    // What a log has from its writer may be the writer's memory.
    drop(log);
    harness.reopen();
    let read = harness.log().read(LogName::Raw, 0, offsets[0], 8 << 20).unwrap();
    let values: Vec<_> = read.into_iter().map(|e| e.record.value).collect();
    assert_eq!(values.iter().map(bytes::Bytes::len).collect::<Vec<_>>(), sizes);
    for value in values.iter().filter(|v| v.len() >= limits::RECORD_ALONE_BYTES) {
        assert!(value.is_unique(), "{} bytes are kept by somebody else", value.len());
    }
}

fn bounds_reads_and_waiting(harness: &mut dyn Harness) {
    let log = harness.log();
    let empty = log.bounds(LogName::Raw, 0).unwrap();
    assert_eq!(empty.start, empty.end);
    assert!(log.read(LogName::Raw, 0, empty.end, 100).unwrap().is_empty());
    assert!(poll(&*log, LogName::Raw, 0, empty.end, Duration::from_millis(1)).is_empty());
    let waiting = std::thread::spawn({
        let log = log.clone();
        move || poll(&*log, LogName::Raw, 0, empty.end, Duration::from_secs(60))
    });
    let offsets = publish(&*log, LogName::Raw, 0, &["a", "b", "c", "d"]);
    assert_eq!(waiting.join().unwrap()[0], (offsets[0], "a".into()));
    assert!(offsets.is_sorted_by(|a, b| a < b));
    let bounds = log.bounds(LogName::Raw, 0).unwrap();
    assert_eq!(bounds.start, offsets[0]);
    assert!(bounds.end > offsets[3]);
    assert_eq!(log.bounds(LogName::Raw, 2).unwrap(), empty);
    for (i, offset) in offsets.iter().enumerate() {
        assert_eq!(poll(&*log, LogName::Raw, 0, *offset, Duration::from_secs(60))[0].0, *offset);
        // However little is asked for, one record comes; a large read has all of them.
        assert_eq!(log.read(LogName::Raw, 0, *offset, 0).unwrap().len(), 1);
        assert_eq!(log.read(LogName::Raw, 0, *offset, 1 << 20).unwrap().len(), 4 - i);
    }
    let stepwise = texts(&*log, LogName::Raw, 0, bounds.start, 1);
    assert_eq!(stepwise, texts(&*log, LogName::Raw, 0, bounds.start, 1 << 20));
    assert_eq!(stepwise.iter().map(|(_, t)| t.as_str()).collect::<String>(), "abcd");
    assert!(log.read(LogName::Raw, 0, bounds.end, 100).unwrap().is_empty());
    assert!(log.read(LogName::Raw, 0, bounds.end + 10, 100).unwrap().is_empty());
    assert!(poll(&*log, LogName::Raw, 0, bounds.end, Duration::from_millis(1)).is_empty());
    // Who reads on where it was sees the same, in order and without a gap, however little it takes at a time.
    let (mut at, mut polled) = (bounds.start, Vec::new());
    while polled.len() < 4 {
        let some = poll(&*log, LogName::Raw, 0, at, Duration::from_secs(60));
        at = some.last().map_or(at, |(offset, _)| offset + 1);
        polled.extend(some);
    }
    assert_eq!(polled, stepwise);
}

fn impossible_calls(harness: &mut dyn Harness) {
    let log = harness.log();
    assert!(wait(log.publish(LogName::Raw, vec![])).unwrap().is_empty());
    for name in [LogName::Clean, LogName::Audit, LogName::Commits] {
        assert!(wait(log.publish(name, vec![(0, record("x"))])).is_err());
    }
    for (name, partition) in [(LogName::Raw, 3), (LogName::Control, 1)] {
        assert!(wait(log.publish(name, vec![(partition, record("x"))])).is_err());
        assert!(log.read(name, partition, 0, 100).is_err());
        assert!(log.bounds(name, partition).is_err());
    }
    assert!(log.fence(3).is_err());
    let large = Record { value: vec![0; limits::RECORD_BYTES_MAX + 1].into(), ..Record::default() };
    // One record that is too large refuses all that came with it.
    let refused = wait(log.publish(LogName::Raw, vec![(0, record("x")), (0, large.clone())]));
    assert!(matches!(refused, Err(LogError::TooLarge { .. })));
    let owner = log.fence(0).unwrap();
    let mut unit = unit(1, &["x"], &["y"], 0);
    unit.audit.push(large);
    assert!(matches!(log.commit(&owner, vec![unit]), Err(LogError::TooLarge { .. })));
    for name in LogName::ALL {
        assert!(only_texts(&*log, name, 0).is_empty(), "{}", name.as_str());
    }
}

fn calls_keep_their_order(harness: &mut dyn Harness) {
    let log = harness.log();
    let calls: Vec<_> = (0..200u64).map(|i| (i, log.publish(LogName::Raw, vec![(0, record(i.to_string()))]))).collect();
    let mut offsets = Vec::new();
    // Awaited the other way round.
    for (i, call) in calls.into_iter().rev() {
        offsets.push((wait(call).unwrap()[0], i.to_string()));
    }
    offsets.reverse();
    assert_eq!(texts(&*log, LogName::Raw, 0, 0, 1 << 20), offsets);
}

fn concurrent_publishers(harness: &mut dyn Harness) {
    let log = harness.log();
    let publishers: Vec<_> = (0..6)
        .map(|thread| {
            let log = log.clone();
            std::thread::spawn(move || -> Vec<(u32, u64, String)> {
                let text = |i: u32, p: u32| format!("{thread} {i:03} {p}");
                let request = |i: u32| (0..3).map(|p| (p, record(text(i, p)))).collect();
                (0..40)
                    .flat_map(|i| {
                        let offsets = wait(log.publish(LogName::Raw, request(i))).unwrap();
                        (0..3u32).zip(offsets).map(move |(p, offset)| (p, offset, text(i, p)))
                    })
                    .collect()
            })
        })
        .collect();
    let mut told: Vec<_> = publishers.into_iter().flat_map(|p| p.join().unwrap()).collect();
    told.sort();
    for partition in 0..3 {
        let found = texts(&*log, LogName::Raw, partition, 0, 1000);
        let expected: Vec<_> = told.iter().filter(|t| t.0 == partition).map(|(_, o, t)| (*o, t.clone())).collect();
        assert_eq!(found, expected);
        assert!(found.is_sorted_by(|a, b| a.0 < b.0));
        for thread in 0..6 {
            let own: Vec<_> = found.iter().filter(|(_, t)| t.starts_with(&format!("{thread} "))).collect();
            assert!(own.is_sorted_by(|a, b| a.1 < b.1) && own.len() == 40);
        }
    }
}

fn epochs_are_whole(harness: &mut dyn Harness) {
    let log = harness.log();
    publish(&*log, LogName::Raw, 1, &["a", "b", "c"]);
    let owner = log.fence(1).unwrap();
    let written = log.commit(&owner, vec![unit(1, &["c1", "c2"], &["a1"], 1), unit(2, &[], &[], 1), unit(3, &["c3"], &["a2", "a3"], 3)]);
    let written = written.unwrap();
    let places: Vec<_> = [1, 2, 3].iter().zip(&written).map(|(epoch, w)| format!("epoch {epoch}: {:?} {:?}", w.clean, w.audit)).collect();
    drop(log);
    for _ in 0..2 {
        let log = harness.log();
        assert_eq!(only_texts(&*log, LogName::Clean, 1), ["c1", "c2", "c3"]);
        assert_eq!(only_texts(&*log, LogName::Audit, 1), ["a1", "a2", "a3"]);
        assert_eq!(only_texts(&*log, LogName::Commits, 1), places);
        for (w, (clean, audit)) in written.iter().zip([(2, 1), (0, 0), (1, 2)]) {
            let within = |name, range: &std::ops::Range<u64>| {
                texts(&*log, name, 1, range.start, 1 << 20).into_iter().filter(|(o, _)| range.contains(o)).count()
            };
            assert_eq!((within(LogName::Clean, &w.clean), within(LogName::Audit, &w.audit)), (clean, audit));
        }
        assert!(only_texts(&*log, LogName::Commits, 0).is_empty());
        drop(log);
        harness.reopen();
    }
    let log = harness.log();
    let owner = log.fence(1).unwrap();
    commit(&*log, &owner, unit(4, &["c4"], &[], 3));
    assert_eq!(only_texts(&*log, LogName::Clean, 1), ["c1", "c2", "c3", "c4"]);
}

fn readers_see_no_half(harness: &mut dyn Harness) {
    let (log, done) = (harness.log(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let owner = log.fence(0).unwrap();
            for epoch in (1..60).step_by(2) {
                let pair = [epoch, epoch + 1].map(|e| {
                    let text = e.to_string();
                    unit(e, &[&text, &text], &[&text], 0)
                });
                log.commit(&owner, pair.into()).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        loop {
            let last = done.load(Ordering::Acquire);
            // What is read later can only be more.
            let (clean, audit) = (only_texts(&*log, LogName::Clean, 0), only_texts(&*log, LogName::Audit, 0));
            let commits = only_texts(&*log, LogName::Commits, 0).len();
            let after = only_texts(&*log, LogName::Clean, 0).len();
            assert!(clean.len().div_ceil(2) <= commits && audit.len() <= commits);
            assert!(clean.len().is_multiple_of(2) && after >= clean.len());
            if last {
                assert_eq!((clean.len(), audit.len(), commits), (120, 60, 60));
                return;
            }
        }
    });
}

fn fencing(harness: &mut dyn Harness) {
    let log = harness.log();
    let first = log.fence(0).unwrap();
    let other = log.fence(1).unwrap();
    commit(&*log, &first, unit(1, &["first"], &[], 0));
    let second = log.fence(0).unwrap();
    assert!(second.generation > first.generation);
    let refused = |log: &dyn tidegate_schemas::log::EventLog, owner| {
        let result = log.commit(owner, vec![unit(2, &["lost"], &["lost"], 0)]);
        assert!(matches!(result, Err(LogError::Fenced { partition: 0, .. })), "{result:?}");
    };
    refused(&*log, &first);
    commit(&*log, &second, unit(2, &["second"], &[], 0));
    commit(&*log, &other, unit(1, &["other"], &[], 0));
    drop(log);
    harness.reopen();
    let log = harness.log();
    let third = log.fence(0).unwrap();
    refused(&*log, &first);
    refused(&*log, &second);
    commit(&*log, &third, unit(3, &["third"], &[], 0));
    assert_eq!(only_texts(&*log, LogName::Clean, 0), ["first", "second", "third"]);
    assert!(only_texts(&*log, LogName::Audit, 0).is_empty());
}

fn cursors(harness: &mut dyn Harness) {
    let cursor = |epoch| SinkCursor { clean: 10 * epoch, audit: epoch, epoch };
    let log = harness.log();
    // What sinks have delivered is there.
    for partition in [0, 2] {
        let owner = log.fence(partition).unwrap();
        commit(&*log, &owner, unit(1, &["c"; 40], &["a"; 4], 0));
    }
    assert_eq!(log.cursor("parquet", 0).unwrap(), None);
    log.store_cursor("parquet", 0, cursor(1)).unwrap();
    log.store_cursor("parquet", 2, cursor(2)).unwrap();
    log.store_cursor("clickhouse", 0, cursor(3)).unwrap();
    log.store_cursor("parquet", 0, cursor(4)).unwrap();
    drop(log);
    for _ in 0..2 {
        let log = harness.log();
        assert_eq!(log.cursor("parquet", 0).unwrap(), Some(cursor(4)));
        assert_eq!(log.cursor("parquet", 1).unwrap(), None);
        assert_eq!(log.cursor("parquet", 2).unwrap(), Some(cursor(2)));
        assert_eq!(log.cursor("clickhouse", 0).unwrap(), Some(cursor(3)));
        assert_eq!(log.sinks().unwrap(), ["clickhouse", "parquet"]);
        drop(log);
        harness.reopen();
    }
    // Who is forgotten may come back, with a lower cursor than it had.
    let log = harness.log();
    log.forget_sink("parquet").unwrap();
    log.forget_sink("nobody").unwrap();
    drop(log);
    for epoch in [None, Some(1)] {
        let log = harness.log();
        if let Some(epoch) = epoch {
            log.store_cursor("parquet", 0, cursor(epoch)).unwrap();
        }
        assert_eq!(log.cursor("parquet", 0).unwrap(), epoch.map(cursor));
        assert_eq!((log.cursor("parquet", 2).unwrap(), log.cursor("clickhouse", 0).unwrap()), (None, Some(cursor(3))));
        assert_eq!(log.sinks().unwrap().len(), 1 + usize::from(epoch.is_some()));
        drop(log);
        harness.reopen();
    }
}

/// Texts of about 2 KiB, so that a few fill a segment.
fn long(i: u64) -> String {
    format!("{i:05}{}", "x".repeat(2000))
}

fn raw_retention(harness: &mut dyn Harness) {
    let log = harness.log();
    let mut offsets = Vec::new();
    for i in 0..40 {
        offsets.extend(publish(&*log, LogName::Raw, 0, &[&long(i)]));
    }
    let other = publish(&*log, LogName::Raw, 1, &["unprocessed"]);
    let owner = log.fence(0).unwrap();
    let intact = |log: &dyn tidegate_schemas::log::EventLog, from: usize| {
        assert!(log.bounds(LogName::Raw, 0).unwrap().start <= offsets[from]);
        let found = texts(log, LogName::Raw, 0, offsets[from], 5000);
        let expected: Vec<_> = (from..40).map(|i| (offsets[i], long(i as u64))).collect();
        assert_eq!(found, expected);
        assert_eq!(log.read(LogName::Raw, 1, other[0], 100).unwrap().len(), 1);
    };
    // Nothing is processed, then half, then all of it with a hold.
    log.trim().unwrap();
    intact(&*log, 0);
    commit(&*log, &owner, unit(1, &[], &[], offsets[20]));
    log.trim().unwrap();
    intact(&*log, 20);
    commit(&*log, &owner, unit(2, &[], &[], offsets[39] + 1));
    log.hold("replay", LogName::Raw, 0, Some(offsets[25]));
    log.hold("other", LogName::Raw, 0, Some(offsets[30]));
    log.trim().unwrap();
    intact(&*log, 25);
    log.hold("replay", LogName::Raw, 0, None);
    log.trim().unwrap();
    intact(&*log, 30);
    let start = log.bounds(LogName::Raw, 0).unwrap().start;
    assert!(start > offsets[25], "some of it must be gone");
    let gone = log.read(LogName::Raw, 0, offsets[0], 100);
    assert!(matches!(gone, Err(LogError::Gone { log: "raw", partition: 0, from, start: s }) if from == offsets[0] && s == start));
    // Everything: the offsets go on where they were, also over a restart.
    log.hold("other", LogName::Raw, 0, None);
    let owner = log.fence(1).unwrap();
    commit(&*log, &owner, unit(1, &[], &[], other[0] + 1));
    assert!(log.trim().unwrap() > 0);
    assert!(log.bounds(LogName::Raw, 0).unwrap().start > offsets[39]);
    drop(log);
    harness.reopen();
    let log = harness.log();
    let bounds = log.bounds(LogName::Raw, 0).unwrap();
    assert!(bounds.start > offsets[39] && bounds.start == bounds.end);
    assert!(matches!(log.read(LogName::Raw, 0, offsets[39], 100), Err(LogError::Gone { .. })));
    assert!(publish(&*log, LogName::Raw, 0, &["after"])[0] > offsets[39]);
    assert!(publish(&*log, LogName::Raw, 1, &["after"])[0] > other[0]);
}

fn output_retention(harness: &mut dyn Harness) {
    let log = harness.log();
    let owner = log.fence(2).unwrap();
    let written: Vec<_> = (0..40).map(|i| commit(&*log, &owner, unit(i + 1, &[&long(i)], &[&long(i)], 0))).collect();
    let commits = texts(&*log, LogName::Commits, 2, 0, 100);
    let place = |i: usize| SinkCursor { clean: written[i].clean.start, audit: written[i].audit.start, epoch: i as u64 + 1 };
    let intact = |log: &dyn tidegate_schemas::log::EventLog, from: usize| {
        for (name, first) in [(LogName::Clean, written[from].clean.start), (LogName::Audit, written[from].audit.start)] {
            let found: Vec<_> = texts(log, name, 2, first, 5000).into_iter().map(|(_, t)| t).collect();
            assert_eq!(found, (from as u64..40).map(long).collect::<Vec<_>>());
        }
        // Commit records outlive what they account for.
        assert_eq!(texts(log, LogName::Commits, 2, commits[0].0, 100), commits);
        assert_eq!(texts(log, LogName::Commits, 2, commits[11].0, 1 << 20), commits[11..]);
    };
    log.store_cursor("gone", 2, place(0)).unwrap();
    log.store_cursor("slow", 2, place(0)).unwrap();
    log.store_cursor("fast", 2, place(30)).unwrap();
    log.trim().unwrap();
    intact(&*log, 0);
    log.store_cursor("slow", 2, place(20)).unwrap();
    log.trim().unwrap();
    intact(&*log, 20);
    log.store_cursor("slow", 2, SinkCursor { audit: written[5].audit.start, ..place(35) }).unwrap();
    log.hold("snapshot", LogName::Audit, 2, Some(written[25].audit.start));
    log.trim().unwrap();
    intact(&*log, 30);
    log.store_cursor("slow", 2, place(35)).unwrap();
    log.trim().unwrap();
    assert!(texts(&*log, LogName::Audit, 2, written[25].audit.start, 5000).len() == 15, "held");
    log.hold("snapshot", LogName::Audit, 2, None);
    log.trim().unwrap();
    assert!(log.bounds(LogName::Clean, 2).unwrap().start <= written[0].clean.start, "kept for a sink");
    log.forget_sink("gone").unwrap();
    log.trim().unwrap();
    intact(&*log, 30);
    let start = log.bounds(LogName::Clean, 2).unwrap().start;
    assert!(start > written[20].clean.start, "some of it must be gone");
    assert!(matches!(log.read(LogName::Clean, 2, 0, 100), Err(LogError::Gone { log: "clean", partition: 2, .. })));
    drop(log);
    harness.reopen();
    let log = harness.log();
    intact(&*log, 30);
    log.trim().unwrap();
    intact(&*log, 30);
}

fn control(harness: &mut dyn Harness) {
    let log = harness.log();
    let offsets: Vec<u64> = (0..10).flat_map(|i| publish(&*log, LogName::Control, 0, &[&long(i)])).collect();
    assert!(offsets.is_sorted_by(|a, b| a < b));
    log.trim().unwrap();
    let (id, partitions) = (log.log_id(), log.partitions());
    drop(log);
    harness.reopen();
    let log = harness.log();
    log.trim().unwrap();
    assert_eq!(only_texts(&*log, LogName::Control, 0), (0..10).map(long).collect::<Vec<_>>());
    assert_eq!((log.log_id(), log.partitions()), (id, partitions));
}
