//! The definition store where there is no other: the log `control` is the sequence of changes. Processes that append at
//! the same time do not know of each other; of what they wrote only one's counts ([`Chain`]), and the others are told.

use std::sync::Arc;
use tidegate_schemas::BoxFuture;
use tidegate_schemas::definition::{Chain, Change};
use tidegate_schemas::ids::Revision;
use tidegate_schemas::limits::{READ_BYTES_MAX, RECORD_BYTES_MAX};
use tidegate_schemas::log::{EventLog, LogError, LogName, Record};
use tidegate_schemas::store::{DefinitionStore, StoreError};
use tokio::sync::Mutex;

/// Every so many revisions the place in the log is kept, so that reading from the middle does not begin at the start.
const MARK_EVERY: u64 = 1_024;

/// Changes in `control`.
pub struct ControlStore {
    log: Arc<dyn EventLog>,
    read: Mutex<ReadSoFar>,
}

/// How far the log was read.
#[derive(Default)]
struct ReadSoFar {
    chain: Chain,
    offset: u64,
    /// The chain before a record and the record's offset, rising, one in [`MARK_EVERY`] changes.
    marks: Vec<(Chain, u64)>,
}

impl ControlStore {
    /// A store on a log.
    pub fn new(log: Arc<dyn EventLog>) -> Self {
        Self { log, read: Mutex::default() }
    }

    /// Reads what is new, and tells whether it led through `through`; blocking reads stay off the async threads.
    async fn catch_up(&self, read: &mut ReadSoFar, through: Chain) -> Result<bool, StoreError> {
        let log = Arc::clone(&self.log);
        let mut ahead = std::mem::take(read);
        let (ahead, result) = blocking(move || {
            let result = ahead.advance(&*log, through);
            (ahead, result)
        })
        .await?;
        *read = ahead;
        result
    }
}

impl ReadSoFar {
    fn advance(&mut self, log: &dyn EventLog, through: Chain) -> Result<bool, StoreError> {
        let reading = |e: LogError| unavailable("reading control", &e);
        let mut met = self.chain == through;
        loop {
            let bounds = log.bounds(LogName::Control, 0).map_err(reading)?;
            self.offset = self.offset.max(bounds.start);
            if self.offset >= bounds.end {
                return Ok(met);
            }
            let entries = log.read(LogName::Control, 0, self.offset, READ_BYTES_MAX).map_err(reading)?;
            if entries.is_empty() {
                return Ok(met);
            }
            for entry in entries {
                self.offset = entry.offset + 1;
                let before = self.chain;
                if self.chain.take(&entry.record).map_err(|e| unavailable("reading control", &e))? {
                    met |= self.chain == through;
                    if self.chain.newest() % MARK_EVERY == 1 {
                        self.marks.push((before, entry.offset));
                    }
                }
            }
        }
    }

    /// A place at or before the first change after `after`.
    fn before(&self, after: Revision) -> (Chain, u64) {
        let i = self.marks.partition_point(|(chain, _)| chain.newest() <= after);
        i.checked_sub(1).map_or_else(Default::default, |i| self.marks[i])
    }
}

impl DefinitionStore for ControlStore {
    /// Changes are records of their own: a crash may leave the first of them without the last. Each prefix was tried
    /// against the catalog, so it is a valid one, and publishing the same definitions again adds the rest.
    fn append(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut read = self.read.lock().await;
            let mut chain = read.chain;
            self.catch_up(&mut read, chain).await?;
            let Some(first) = changes.first().map(|c| c.revision) else { return Ok(()) };
            for (change, next) in changes.iter().zip(read.chain.newest() + 1..) {
                if change.revision != next {
                    return Err(StoreError::Taken(change.revision));
                }
            }
            chain = read.chain;
            let mut batch = Vec::new();
            let mut bytes = 0;
            for change in changes {
                let record = chain.append(&change);
                if record.value.len() > RECORD_BYTES_MAX {
                    let error = LogError::TooLarge { bytes: record.value.len(), max: RECORD_BYTES_MAX };
                    return Err(unavailable("publishing changes", &error));
                }
                bytes += record.size();
                batch.push((0, record));
                if bytes >= READ_BYTES_MAX {
                    publish(&*self.log, std::mem::take(&mut batch)).await?;
                    bytes = 0;
                }
            }
            publish(&*self.log, batch).await?;
            if self.catch_up(&mut read, chain).await? { Ok(()) } else { Err(StoreError::Taken(first)) }
        })
    }

    fn changes(&self, after: Revision, max: usize) -> BoxFuture<'_, Result<Vec<Change>, StoreError>> {
        Box::pin(async move {
            let from = {
                let mut read = self.read.lock().await;
                let chain = read.chain;
                self.catch_up(&mut read, chain).await?;
                if read.chain.newest() <= after {
                    return Ok(Vec::new());
                }
                read.before(after)
            };
            let log = Arc::clone(&self.log);
            blocking(move || changes_from(&*log, from, after, max)).await?
        })
    }
}

fn changes_from(log: &dyn EventLog, from: (Chain, u64), after: Revision, max: usize) -> Result<Vec<Change>, StoreError> {
    let reading = |e: LogError| unavailable("reading control", &e);
    let mut changes = Vec::new();
    let bounds = log.bounds(LogName::Control, 0).map_err(reading)?;
    let (mut chain, from) = from;
    let mut offset = from.max(bounds.start);
    while offset < bounds.end && changes.len() < max {
        let entries = log.read(LogName::Control, 0, offset, READ_BYTES_MAX).map_err(reading)?;
        let Some(last) = entries.last() else { break };
        offset = last.offset + 1;
        for entry in entries {
            let counts = chain.take(&entry.record).map_err(|e| unavailable("reading control", &e))?;
            if counts && changes.len() < max && chain.newest() > after {
                changes.push(Change::read(&entry.record).map_err(|e| unavailable("reading control", &e))?);
            }
        }
    }
    Ok(changes)
}

async fn publish(log: &dyn EventLog, batch: Vec<(u32, Record)>) -> Result<(), StoreError> {
    if batch.is_empty() {
        return Ok(());
    }
    log.publish(LogName::Control, batch).await.map(drop).map_err(|e| unavailable("publishing changes", &e))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| unavailable("reading control", &e))
}

fn unavailable(doing: &'static str, error: &dyn std::error::Error) -> StoreError {
    StoreError::Unavailable { doing, detail: error.to_string() }
}
