//! A model of the log `control`: enough for stores and followers, and able to fail.

use std::ops::Range;
use std::sync::{Condvar, Mutex};
use std::time::Duration;
use tidegate_schemas::BoxFuture;
use tidegate_schemas::ids::{LogId, Partition};
use tidegate_schemas::log::*;

/// Records in memory. Offsets have gaps, as those of Kafka have.
#[derive(Default)]
pub struct ControlLog {
    records: Mutex<Vec<Record>>,
    more: Condvar,
}

const STEP: u64 = 3;

impl ControlLog {
    pub fn len(&self) -> usize {
        self.records.lock().unwrap().len()
    }
}

impl EventLog for ControlLog {
    fn log_id(&self) -> LogId {
        LogId([1; 16])
    }
    fn partitions(&self) -> u32 {
        1
    }
    fn publish(&self, log: LogName, records: Vec<(Partition, Record)>) -> BoxFuture<'_, Result<Vec<u64>, LogError>> {
        assert_eq!(log, LogName::Control);
        let mut all = self.records.lock().unwrap();
        let from = all.len() as u64;
        all.extend(records.into_iter().map(|(_, r)| r));
        let offsets = (from..all.len() as u64).map(|i| i * STEP).collect();
        self.more.notify_all();
        Box::pin(async move { Ok(offsets) })
    }
    fn bounds(&self, _: LogName, _: Partition) -> Result<Range<u64>, LogError> {
        Ok(0..self.len() as u64 * STEP)
    }
    fn read(&self, _: LogName, _: Partition, from: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        let all = self.records.lock().unwrap();
        let mut bytes = 0;
        let mut out = Vec::new();
        for (i, record) in all.iter().enumerate().skip(from.div_ceil(STEP) as usize) {
            bytes += record.size();
            if bytes > bytes_max && !out.is_empty() {
                break;
            }
            out.push(Entry { offset: i as u64 * STEP, record: record.clone() });
        }
        Ok(out)
    }
    fn poll(&self, log: LogName, partition: Partition, from: u64, bytes_max: usize, timeout: Duration) -> Result<Vec<Entry>, LogError> {
        let all = self.records.lock().unwrap();
        drop(self.more.wait_timeout_while(all, timeout, |all| (all.len() as u64) * STEP <= from).unwrap());
        self.read(log, partition, from, bytes_max)
    }
    fn fence(&self, partition: Partition) -> Result<Owner, LogError> {
        Ok(Owner { partition, generation: 1 })
    }
    fn commit(&self, _: &Owner, _: Vec<CommitUnit>) -> Result<Vec<Written>, LogError> {
        Err(LogError::Closed)
    }
    fn cursor(&self, _: &str, _: Partition) -> Result<Option<SinkCursor>, LogError> {
        Ok(None)
    }
    fn store_cursor(&self, _: &str, _: Partition, _: SinkCursor) -> Result<(), LogError> {
        Err(LogError::Closed)
    }
    fn sinks(&self) -> Result<Vec<String>, LogError> {
        Ok(Vec::new())
    }
    fn forget_sink(&self, _: &str) -> Result<(), LogError> {
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
