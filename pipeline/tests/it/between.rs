//! A log through which all calls pass to one on disk: a test sees, or changes, those that it is about.

use std::ops::Range;
use std::time::Duration;
use tidegate_pipeline::log::embedded::EmbeddedLog;
use tidegate_schemas::BoxFuture;
use tidegate_schemas::ids::{LogId, Partition};
use tidegate_schemas::log::*;

/// What happens to the calls that are not only passed on.
pub trait Between: Send + Sync + 'static {
    fn inner(&self) -> &EmbeddedLog;
    fn bounds(&self, log: LogName, partition: Partition) -> Result<Range<u64>, LogError> {
        self.inner().bounds(log, partition)
    }
    fn read(&self, log: LogName, partition: Partition, from: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        self.inner().read(log, partition, from, bytes_max)
    }
    fn poll(&self, log: LogName, partition: Partition, from: u64, bytes_max: usize, timeout: Duration) -> Result<Vec<Entry>, LogError> {
        self.inner().poll(log, partition, from, bytes_max, timeout)
    }
}

/// The log that somebody stands before.
pub struct Through<B>(pub B);

impl<B: Between> EventLog for Through<B> {
    fn log_id(&self) -> LogId {
        self.0.inner().log_id()
    }
    fn partitions(&self) -> u32 {
        self.0.inner().partitions()
    }
    fn publish(&self, log: LogName, records: Vec<(Partition, Record)>) -> BoxFuture<'_, Result<Vec<u64>, LogError>> {
        self.0.inner().publish(log, records)
    }
    fn bounds(&self, log: LogName, partition: Partition) -> Result<Range<u64>, LogError> {
        self.0.bounds(log, partition)
    }
    fn read(&self, log: LogName, partition: Partition, from: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        self.0.read(log, partition, from, bytes_max)
    }
    fn poll(&self, log: LogName, partition: Partition, from: u64, bytes_max: usize, timeout: Duration) -> Result<Vec<Entry>, LogError> {
        self.0.poll(log, partition, from, bytes_max, timeout)
    }
    fn fence(&self, partition: Partition) -> Result<Owner, LogError> {
        self.0.inner().fence(partition)
    }
    fn commit(&self, owner: &Owner, units: Vec<CommitUnit>) -> Result<Vec<Written>, LogError> {
        self.0.inner().commit(owner, units)
    }
    fn cursor(&self, sink: &str, partition: Partition) -> Result<Option<SinkCursor>, LogError> {
        self.0.inner().cursor(sink, partition)
    }
    fn store_cursor(&self, sink: &str, partition: Partition, cursor: SinkCursor) -> Result<(), LogError> {
        self.0.inner().store_cursor(sink, partition, cursor)
    }
    fn sinks(&self) -> Result<Vec<String>, LogError> {
        self.0.inner().sinks()
    }
    fn forget_sink(&self, sink: &str) -> Result<(), LogError> {
        self.0.inner().forget_sink(sink)
    }
    fn hold(&self, name: &str, log: LogName, partition: Partition, from: Option<u64>) {
        self.0.inner().hold(name, log, partition, from);
    }
    fn trim(&self) -> Result<u64, LogError> {
        self.0.inner().trim()
    }
    fn usage(&self) -> Usage {
        self.0.inner().usage()
    }
}
