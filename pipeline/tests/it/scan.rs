//! A range that is committed may become visible late: markers of one transaction reach the partitions one after the other.

use crate::between::{Between, Through};
use crate::log::{commit, publish, record, unit};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_pipeline::log::embedded::{EmbeddedLog, Options};
use tidegate_pipeline::scan;
use tidegate_schemas::ids::Partition;
use tidegate_schemas::log::*;

/// Shows `audit` only up to a point, which rises by `step` each time somebody waits; with a step of 0 it never does. Offsets
/// from `marker` on hold no records, as those of a transaction's markers.
struct Late {
    inner: Arc<EmbeddedLog>,
    shown: AtomicU64,
    step: u64,
    marker: u64,
    waits: Mutex<Vec<u64>>,
}

impl Late {
    fn end(&self, log: LogName) -> u64 {
        if log == LogName::Audit { self.shown.load(Ordering::SeqCst) } else { u64::MAX }
    }
}

impl Between for Late {
    fn inner(&self) -> &EmbeddedLog {
        &self.inner
    }
    fn bounds(&self, log: LogName, partition: Partition) -> Result<Range<u64>, LogError> {
        let bounds = self.inner.bounds(log, partition)?;
        Ok(bounds.start..bounds.end.min(self.end(log)))
    }
    fn read(&self, log: LogName, partition: Partition, from: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        let mut entries = self.inner.read(log, partition, from, bytes_max)?;
        entries.retain(|e| e.offset < self.end(log).min(self.marker));
        Ok(entries)
    }
    fn poll(&self, log: LogName, partition: Partition, from: u64, bytes_max: usize, _: Duration) -> Result<Vec<Entry>, LogError> {
        assert_eq!(log, LogName::Audit);
        self.waits.lock().unwrap().push(from);
        self.shown.fetch_add(self.step, Ordering::SeqCst);
        self.read(log, partition, from, bytes_max)
    }
}

/// Six records of `audit`.
fn late(shown: u64, step: u64, marker: u64) -> (tempfile::TempDir, Through<Late>) {
    let dir = tempfile::tempdir().unwrap();
    let inner = EmbeddedLog::open(dir.path(), Options { partitions: 1, ..Options::default() }).unwrap();
    let owner = inner.fence(0).unwrap();
    commit(&*inner, &owner, unit(1, &[], &["a0", "a1", "a2", "a3", "a4", "a5"], 0));
    (dir, Through(Late { inner, shown: AtomicU64::new(shown), step, marker, waits: Mutex::default() }))
}

fn each(log: &Through<Late>, range: Range<u64>) -> Result<Vec<u64>, LogError> {
    let mut seen = Vec::new();
    scan::each(log, LogName::Audit, 0, range, |entry| {
        assert_eq!(entry.record, record(format!("a{}", entry.offset)));
        seen.push(entry.offset);
        Ok::<_, LogError>(())
    })?;
    Ok(seen)
}

#[test]
fn range_is_waited_for_and_seen_once_in_order() {
    // Shown from the start, step by step, or all at once: always the range, each record once.
    for (shown, step, waits) in [(6, 0, vec![]), (0, 1, vec![0, 1, 2, 3, 4]), (2, 2, vec![2, 4]), (1, 100, vec![1])] {
        let (_dir, log) = late(shown, step, u64::MAX);
        assert_eq!(each(&log, 0..5).unwrap(), [0, 1, 2, 3, 4], "{shown} {step}");
        assert_eq!(*log.0.waits.lock().unwrap(), waits, "{shown} {step}");
    }
    // Nothing beyond the range is waited for, and an empty range for nothing.
    let (_dir, log) = late(3, 0, u64::MAX);
    assert_eq!(each(&log, 1..3).unwrap(), [1, 2]);
    assert_eq!(each(&log, 6..6).unwrap(), [0; 0]);
    assert!(log.0.waits.lock().unwrap().is_empty());
}

#[test]
fn range_that_stays_away_is_an_error_that_says_where() {
    let (_dir, log) = late(4, 0, u64::MAX);
    let error = each(&log, 0..6).unwrap_err().to_string();
    assert_eq!(error, "reading audit of partition 0 up to 6: nothing is readable from 4 on");
    assert!(log.0.waits.lock().unwrap().iter().all(|at| *at == 4));
}

#[test]
fn offsets_without_records_end_a_range() {
    // Offsets 4 and 5 are markers: the bounds say that they are there, and reading never will.
    let (_dir, log) = late(6, 0, 4);
    assert_eq!(each(&log, 2..6).unwrap(), [2, 3]);
    assert!(log.0.waits.lock().unwrap().is_empty());
    // The same, where the markers show themselves late.
    let (_dir, log) = late(4, 2, 4);
    assert_eq!(each(&log, 2..6).unwrap(), [2, 3]);
    assert_eq!(*log.0.waits.lock().unwrap(), [4]);
}

#[test]
fn what_the_log_cannot_read_is_told_at_once() {
    let (_dir, log) = late(6, 0, u64::MAX);
    publish(&log, LogName::Raw, 0, &["r"]);
    let gone = scan::each(&log, LogName::Raw, 7, 0..1, |_| Ok::<_, LogError>(()));
    assert!(gone.unwrap_err().to_string().contains("partition 7"));
    let stopped = scan::each(&log, LogName::Audit, 0, 0..6, |e| if e.offset < 2 { Ok(()) } else { Err(LogError::Closed) });
    assert!(matches!(stopped, Err(LogError::Closed)));
}
