//! The embedded definition store: the log `control` is the sequence of changes. One process writes to it, so the lock
//! here is what makes "read the newest revision, append the next" one step.

use std::sync::Arc;
use tidegate_schemas::BoxFuture;
use tidegate_schemas::definition::Change;
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
    newest: Revision,
    offset: u64,
    /// (revision, offset) of changes, rising, one in [`MARK_EVERY`].
    marks: Vec<(Revision, u64)>,
}

impl ControlStore {
    /// A store on a log.
    pub fn new(log: Arc<dyn EventLog>) -> Self {
        Self { log, read: Mutex::default() }
    }

    /// Reads what is new; blocking reads stay off the async threads.
    async fn catch_up(&self, read: &mut ReadSoFar) -> Result<(), StoreError> {
        let log = Arc::clone(&self.log);
        let mut ahead = std::mem::take(read);
        let (ahead, result) = blocking(move || {
            let result = ahead.advance(&*log);
            (ahead, result)
        })
        .await?;
        *read = ahead;
        result
    }
}

impl ReadSoFar {
    fn advance(&mut self, log: &dyn EventLog) -> Result<(), StoreError> {
        let reading = |e: LogError| unavailable("reading control", &e);
        loop {
            let bounds = log.bounds(LogName::Control, 0).map_err(reading)?;
            self.offset = self.offset.max(bounds.start);
            if self.offset >= bounds.end {
                return Ok(());
            }
            let entries = log.read(LogName::Control, 0, self.offset, READ_BYTES_MAX).map_err(reading)?;
            if entries.is_empty() {
                return Ok(());
            }
            for entry in entries {
                self.offset = entry.offset + 1;
                if let Some(revision) = revision_of(&entry.record) {
                    self.newest = revision;
                    if revision % MARK_EVERY == 1 {
                        self.marks.push((revision, entry.offset));
                    }
                }
            }
        }
    }

    /// An offset at or before the first change after `after`.
    fn before(&self, after: Revision) -> u64 {
        let i = self.marks.partition_point(|(revision, _)| *revision <= after + 1);
        i.checked_sub(1).map_or(0, |i| self.marks[i].1)
    }
}

impl DefinitionStore for ControlStore {
    /// Changes are records of their own: a crash may leave the first of them without the last. Each prefix was tried
    /// against the catalog, so it is a valid one, and publishing the same definitions again adds the rest.
    fn append(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut read = self.read.lock().await;
            self.catch_up(&mut read).await?;
            for (change, next) in changes.iter().zip(read.newest + 1..) {
                if change.revision != next {
                    return Err(StoreError::Taken(change.revision));
                }
            }
            let mut batch = Vec::new();
            let mut bytes = 0;
            for change in changes {
                let record = change.into_record();
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
            publish(&*self.log, batch).await
        })
    }

    fn changes(&self, after: Revision, max: usize) -> BoxFuture<'_, Result<Vec<Change>, StoreError>> {
        Box::pin(async move {
            let from = {
                let mut read = self.read.lock().await;
                self.catch_up(&mut read).await?;
                if read.newest <= after {
                    return Ok(Vec::new());
                }
                read.before(after)
            };
            let log = Arc::clone(&self.log);
            blocking(move || changes_from(&*log, from, after, max)).await?
        })
    }
}

fn changes_from(log: &dyn EventLog, from: u64, after: Revision, max: usize) -> Result<Vec<Change>, StoreError> {
    let reading = |e: LogError| unavailable("reading control", &e);
    let mut changes = Vec::new();
    let bounds = log.bounds(LogName::Control, 0).map_err(reading)?;
    let mut offset = from.max(bounds.start);
    while offset < bounds.end && changes.len() < max {
        let entries = log.read(LogName::Control, 0, offset, READ_BYTES_MAX).map_err(reading)?;
        let Some(last) = entries.last() else { break };
        offset = last.offset + 1;
        for entry in entries {
            if changes.len() < max && revision_of(&entry.record).is_some_and(|revision| revision > after) {
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

/// The revision of a change, without reading the change itself.
fn revision_of(record: &Record) -> Option<Revision> {
    std::str::from_utf8(record.header("tg-revision")?).ok()?.parse().ok()
}

fn unavailable(doing: &'static str, error: &dyn std::error::Error) -> StoreError {
    StoreError::Unavailable { doing, detail: error.to_string() }
}
