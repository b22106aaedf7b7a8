//! What a worker waits for keeps all its partitions waiting: what a broker that is away would not answer is asked elsewhere.

use crate::assignment::around;
use crate::log::publish;
use crate::support::wait_for;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tidegate_pipeline::assignment::Assignment;
use tidegate_pipeline::commits;
use tidegate_pipeline::log::embedded::{EmbeddedLog, Options};
use tidegate_pipeline::worker::Workers;
use tidegate_schemas::BoxFuture;
use tidegate_schemas::ids::{LogId, Partition};
use tidegate_schemas::log::*;

/// Notes which threads ask where `raw` begins and ends.
struct Noting {
    inner: Arc<EmbeddedLog>,
    asked_by: Mutex<BTreeSet<String>>,
}

impl EventLog for Noting {
    fn log_id(&self) -> LogId {
        self.inner.log_id()
    }
    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }
    fn publish(&self, log: LogName, records: Vec<(Partition, Record)>) -> BoxFuture<'_, Result<Vec<u64>, LogError>> {
        self.inner.publish(log, records)
    }
    fn bounds(&self, log: LogName, partition: Partition) -> Result<Range<u64>, LogError> {
        if log == LogName::Raw {
            self.asked_by.lock().unwrap().insert(std::thread::current().name().unwrap_or_default().to_owned());
        }
        self.inner.bounds(log, partition)
    }
    fn read(&self, log: LogName, partition: Partition, from: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        self.inner.read(log, partition, from, bytes_max)
    }
    fn poll(&self, log: LogName, partition: Partition, from: u64, bytes_max: usize, timeout: Duration) -> Result<Vec<Entry>, LogError> {
        self.inner.poll(log, partition, from, bytes_max, timeout)
    }
    fn fence(&self, partition: Partition) -> Result<Owner, LogError> {
        self.inner.fence(partition)
    }
    fn commit(&self, owner: &Owner, units: Vec<CommitUnit>) -> Result<Vec<Written>, LogError> {
        self.inner.commit(owner, units)
    }
    fn cursor(&self, sink: &str, partition: Partition) -> Result<Option<SinkCursor>, LogError> {
        self.inner.cursor(sink, partition)
    }
    fn store_cursor(&self, sink: &str, partition: Partition, cursor: SinkCursor) -> Result<(), LogError> {
        self.inner.store_cursor(sink, partition, cursor)
    }
    fn sinks(&self) -> Result<Vec<String>, LogError> {
        self.inner.sinks()
    }
    fn forget_sink(&self, sink: &str) -> Result<(), LogError> {
        self.inner.forget_sink(sink)
    }
    fn hold(&self, name: &str, log: LogName, partition: Partition, from: Option<u64>) {
        self.inner.hold(name, log, partition, from);
    }
    fn trim(&self) -> Result<u64, LogError> {
        self.inner.trim()
    }
    fn usage(&self) -> Usage {
        self.inner.usage()
    }
}

#[test]
fn no_worker_asks_where_raw_ends() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), tokio::runtime::Runtime::new().unwrap());
    let inner = EmbeddedLog::open(dir.path(), Options { partitions: 2, ..Options::default() }).unwrap();
    let log = Arc::new(Noting { inner, asked_by: Mutex::default() });
    // One partition fails again and again, at what is no request; its neighbour goes on.
    publish(&*log, LogName::Raw, 0, &["no request"]);
    let assignment = Arc::new(Assignment::new(1));
    assignment.add(0..2);
    let began = Instant::now();
    let workers = Workers::start(&around(log.clone(), &assignment, dir.path(), &runtime)).unwrap();
    wait_for("failures, and a lag that is told", Duration::from_secs(60), || {
        let stopped = assignment.all_stopped();
        (stopped.iter().any(|s| s.tries > 2) && began.elapsed() > Duration::from_secs(2)).then_some(())
    });
    workers.stop();
    assert!(commits::last(&*log, 1).unwrap().is_some_and(|c| c.epoch > 10));
    let asked_by: Vec<String> = log.asked_by.lock().unwrap().iter().cloned().collect();
    assert_eq!(asked_by, ["commit-1", "take-over-0", "take-over-1"]);
}
