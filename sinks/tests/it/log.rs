//! A log in memory: what the driver needs of the contract, and switches that make it fail.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;
use tidegate_schemas::BoxFuture;
use tidegate_schemas::block::{Block, EpochHeader};
use tidegate_schemas::ids::{LogId, Partition};
use tidegate_schemas::log::*;
use tidegate_schemas::sink::CutParameters;

pub const LOG: LogId = LogId([7; 16]);

#[derive(Default)]
struct Chain {
    start: u64,
    records: Vec<Record>,
}

#[derive(Default)]
struct State {
    clean: Vec<Chain>,
    audit: Vec<Chain>,
    cursors: Vec<(String, Partition, SinkCursor)>,
}

pub struct MemoryLog {
    partitions: u32,
    state: Mutex<State>,
    changed: Condvar,
    pub reads: AtomicU64,
    /// Records of `audit` that are visible by now.
    pub audit_shown: AtomicUsize,
    pub broken: AtomicBool,
    pub closed: AtomicBool,
}

impl MemoryLog {
    pub fn new(partitions: u32) -> Self {
        let chains = || (0..partitions).map(|_| Chain::default()).collect();
        let state = State { clean: chains(), audit: chains(), cursors: Vec::new() };
        Self {
            partitions,
            state: Mutex::new(state),
            changed: Condvar::new(),
            reads: AtomicU64::new(0),
            audit_shown: AtomicUsize::new(usize::MAX),
            broken: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Commits an epoch as the pipeline does: always a header in `clean`, one in `audit` where it has blocks.
    pub fn epoch(&self, partition: Partition, header: &EpochHeader, clean: Vec<Block>, audit: Vec<Block>) {
        let mut state = self.state.lock().unwrap();
        let audit_blocks = audit.len() as u32;
        let bytes = clean.iter().chain(&audit).map(|b| b.stream.len() as u64).sum();
        let write = |chain: &mut Chain, blocks: Vec<Block>| {
            let header = EpochHeader { blocks: blocks.len() as u32, audit: audit_blocks, bytes, ..header.clone() };
            chain.records.push(header.into_record());
            chain.records.extend(blocks.into_iter().map(Block::into_record));
        };
        if !audit.is_empty() {
            write(&mut state.audit[partition as usize], audit);
        }
        write(&mut state.clean[partition as usize], clean);
        self.changed.notify_all();
    }

    /// Deletes the first records of `clean`.
    pub fn trim_clean(&self, partition: Partition, start: u64) {
        self.state.lock().unwrap().clean[partition as usize].start = start;
    }

    pub fn damage(&self, partition: Partition, offset: usize) {
        let mut state = self.state.lock().unwrap();
        let record = &mut state.clean[partition as usize].records[offset];
        let mut bytes = record.value.to_vec();
        bytes[100] ^= 1;
        record.value = bytes.into();
    }

    fn check(&self) -> Result<(), LogError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(LogError::Closed);
        }
        if self.broken.load(Ordering::SeqCst) {
            return Err(LogError::Io { doing: "reading".into(), detail: "told to fail".into() });
        }
        Ok(())
    }
}

impl MemoryLog {
    /// The visible records of a chain.
    fn shown<'a>(&self, log: LogName, chain: &'a Chain) -> &'a [Record] {
        let all = &chain.records;
        if log == LogName::Audit { &all[..all.len().min(self.audit_shown.load(Ordering::SeqCst))] } else { all }
    }
}

fn chain(state: &State, log: LogName, partition: Partition) -> &Chain {
    match log {
        LogName::Clean => &state.clean[partition as usize],
        LogName::Audit => &state.audit[partition as usize],
        other => panic!("sinks never read {}", other.as_str()),
    }
}

impl EventLog for MemoryLog {
    fn log_id(&self) -> LogId {
        LOG
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn publish(&self, _: LogName, _: Vec<(Partition, Record)>) -> BoxFuture<'_, Result<Vec<u64>, LogError>> {
        panic!("sinks never publish")
    }

    fn bounds(&self, log: LogName, partition: Partition) -> Result<Range<u64>, LogError> {
        self.check()?;
        let state = self.state.lock().unwrap();
        let chain = chain(&state, log, partition);
        Ok(chain.start..self.shown(log, chain).len() as u64)
    }

    fn read(&self, log: LogName, partition: Partition, from: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        self.check()?;
        self.reads.fetch_add(1, Ordering::SeqCst);
        let state = self.state.lock().unwrap();
        let chain = chain(&state, log, partition);
        if from < chain.start {
            return Err(LogError::Gone { log: log.as_str(), partition, from, start: chain.start });
        }
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (offset, record) in self.shown(log, chain).iter().enumerate().skip(from as usize) {
            if !entries.is_empty() && bytes + record.size() > bytes_max {
                break;
            }
            bytes += record.size();
            entries.push(Entry { offset: offset as u64, record: record.clone() });
        }
        Ok(entries)
    }

    fn poll(&self, log: LogName, partition: Partition, from: u64, bytes_max: usize, timeout: Duration) -> Result<Vec<Entry>, LogError> {
        let state = self.state.lock().unwrap();
        let there = |state: &State| self.shown(log, chain(state, log, partition)).len() as u64 > from;
        let wait = !there(&state) && !self.closed.load(Ordering::SeqCst);
        let state = if wait { self.changed.wait_timeout(state, timeout).unwrap().0 } else { state };
        if !there(&state) && !self.closed.load(Ordering::SeqCst) {
            return Ok(Vec::new());
        }
        drop(state);
        self.read(log, partition, from, bytes_max)
    }

    fn fence(&self, _: Partition) -> Result<Owner, LogError> {
        panic!("sinks never fence")
    }

    fn commit(&self, _: &Owner, _: Vec<CommitUnit>) -> Result<Vec<Written>, LogError> {
        panic!("sinks never commit")
    }

    fn cursor(&self, sink: &str, partition: Partition) -> Result<Option<SinkCursor>, LogError> {
        self.check()?;
        let state = self.state.lock().unwrap();
        Ok(state.cursors.iter().rev().find(|(s, p, _)| s == sink && *p == partition).map(|(_, _, c)| *c))
    }

    fn store_cursor(&self, sink: &str, partition: Partition, cursor: SinkCursor) -> Result<(), LogError> {
        self.check()?;
        self.state.lock().unwrap().cursors.push((sink.to_owned(), partition, cursor));
        Ok(())
    }

    fn sinks(&self) -> Result<Vec<String>, LogError> {
        let state = self.state.lock().unwrap();
        Ok(state.cursors.iter().map(|(sink, ..)| sink.clone()).collect::<std::collections::BTreeSet<_>>().into_iter().collect())
    }

    fn forget_sink(&self, sink: &str) -> Result<(), LogError> {
        self.state.lock().unwrap().cursors.retain(|(s, ..)| s != sink);
        Ok(())
    }

    fn hold(&self, _: &str, _: LogName, _: Partition, _: Option<u64>) {}

    fn trim(&self) -> Result<u64, LogError> {
        Ok(0)
    }

    fn usage(&self) -> Usage {
        Usage { bytes: 0, budget: 1 }
    }
}

/// A header of an epoch, with seconds of recorded time.
pub fn header(epoch: u64, seconds: f64, cut: CutParameters) -> EpochHeader {
    EpochHeader { epoch, recorded_at: (seconds * 1e6) as i64, revision: 1, cut, blocks: 0, audit: 0, bytes: 0 }
}

/// All partitions, and nobody who could name others.
pub fn all(log: &MemoryLog) -> tokio::sync::watch::Receiver<std::collections::BTreeSet<Partition>> {
    tokio::sync::watch::channel((0..log.partitions).collect()).1
}
