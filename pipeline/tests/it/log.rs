//! The logs: one contract suite for each implementation, and what only the embedded log promises.

pub mod contract;
mod embedded;
mod embedded_damage;
mod embedded_failure;
mod embedded_model;

pub use embedded::segments;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tidegate_schemas::commit::{CommitRecord, Counts};
use tidegate_schemas::ids::Position;
use tidegate_schemas::log::{CommitUnit, Entry, EventLog, Header, LogName, Owner, Record, Written};

/// Waits for a future.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A record that is told from others by its text.
pub fn record(text: impl Into<String>) -> Record {
    let text: String = text.into();
    Record { key: "key".into(), headers: vec![Header::new("tg-kind", "test")], value: text.into_bytes().into() }
}

/// Publishes texts to one partition.
pub fn publish(log: &dyn EventLog, name: LogName, partition: u32, texts: &[&str]) -> Vec<u64> {
    wait(log.publish(name, texts.iter().map(|t| (partition, record(*t))).collect())).unwrap()
}

/// An epoch of texts. Its commit record says where the others stand.
pub fn unit(epoch: u64, clean: &[&str], audit: &[&str], raw_next: u64) -> CommitUnit {
    let records = |texts: &[&str]| texts.iter().map(|t| record(*t)).collect();
    let commit = move |w: &Written| record(format!("epoch {epoch}: {:?} {:?}", w.clean, w.audit));
    CommitUnit { epoch, clean: records(clean), audit: records(audit), commit: Box::new(commit), raw_next }
}

/// The commit record of an epoch without events.
pub fn commit_record(epoch: u64, raw_from: Position, raw_to: Position) -> CommitRecord {
    CommitRecord {
        epoch,
        partition: 0,
        raw_from,
        raw_to,
        behind: vec![],
        revision: 1,
        recorded_at: epoch as i64,
        templates: vec![],
        counts: Counts::default(),
        tenants: vec![],
        rows: vec![],
        totals: Counts::default(),
        rows_total: 0,
        clean: 0..0,
        audit: 0..0,
        output_hash: String::new(),
        faults: vec![],
        quarantines: vec![],
        snapshot: None,
    }
}

/// Commits one epoch.
pub fn commit(log: &dyn EventLog, owner: &Owner, unit: CommitUnit) -> Written {
    log.commit(owner, vec![unit]).unwrap().remove(0)
}

/// Offsets and texts from `from` on to the end, read in steps of `step` bytes.
pub fn texts(log: &dyn EventLog, name: LogName, partition: u32, from: u64, step: usize) -> Vec<(u64, String)> {
    let (mut found, mut next) = (Vec::new(), from);
    loop {
        let entries = log.read(name, partition, next, step).unwrap();
        let Some(last) = entries.last() else { return found };
        next = last.offset + 1;
        found.extend(told(entries));
    }
}

/// Offsets and texts of what is there, or comes in time.
pub fn poll(log: &dyn EventLog, name: LogName, partition: u32, from: u64, timeout: Duration) -> Vec<(u64, String)> {
    told(log.poll(name, partition, from, 1, timeout).unwrap())
}

fn told(entries: Vec<Entry>) -> Vec<(u64, String)> {
    entries.into_iter().map(|e| (e.offset, String::from_utf8(e.record.value.to_vec()).unwrap())).collect()
}

/// The texts alone.
pub fn only_texts(log: &dyn EventLog, name: LogName, partition: u32) -> Vec<String> {
    let start = log.bounds(name, partition).unwrap().start;
    texts(log, name, partition, start, 1 << 20).into_iter().map(|(_, text)| text).collect()
}

/// A log that can be opened again, with three partitions, horizons of zero and segments as small as possible.
pub trait Harness {
    /// The log; nobody keeps it over a reopening.
    fn log(&self) -> Arc<dyn EventLog>;
    /// Closes and opens it.
    fn reopen(&mut self);
}
