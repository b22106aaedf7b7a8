//! Sinks' cursors: one small file, replaced as a whole, so a cursor is the old or the new one.

use super::layout;
use super::{corrupt, failed};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tidegate_schemas::fault;
use tidegate_schemas::ids::{LogId, Partition};
use tidegate_schemas::log::{LogError, SinkCursor};

const FILE: &str = "cursors.json";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    log_id: LogId,
    sinks: Sinks,
}

type Sinks = BTreeMap<String, BTreeMap<Partition, SinkCursor>>;

/// The cursors of all sinks.
pub struct Cursors {
    dir: PathBuf,
    stored: Mutex<Stored>,
}

impl Cursors {
    /// Reads them; there are none in a new log.
    pub fn open(dir: &Path, log_id: LogId) -> Result<Self, LogError> {
        let path = dir.join(FILE);
        let stored = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| corrupt(&path, 0, &e.to_string()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Stored { log_id, sinks: BTreeMap::new() },
            Err(e) => return Err(failed(format!("read {}", path.display()), &e)),
        };
        if stored.log_id != log_id {
            return Err(corrupt(&path, 0, &format!("it belongs to log {}", stored.log_id)));
        }
        Ok(Self { dir: dir.to_owned(), stored: Mutex::new(stored) })
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One sink's cursor.
    pub fn get(&self, sink: &str, partition: Partition) -> Option<SinkCursor> {
        self.lock().sinks.get(sink)?.get(&partition).copied()
    }

    /// Names of the sinks that have one.
    pub fn sinks(&self) -> Vec<String> {
        self.lock().sinks.keys().cloned().collect()
    }

    /// Stores one durably.
    pub fn put(&self, sink: &str, partition: Partition, cursor: SinkCursor) -> Result<(), LogError> {
        self.change(|sinks| {
            sinks.entry(sink.to_owned()).or_default().insert(partition, cursor);
        })
    }

    /// Forgets those of a sink durably.
    pub fn forget(&self, sink: &str) -> Result<(), LogError> {
        self.change(|sinks| {
            sinks.remove(sink);
        })
    }

    fn change(&self, change: impl FnOnce(&mut Sinks)) -> Result<(), LogError> {
        let mut stored = self.lock();
        let mut changed = stored.clone();
        change(&mut changed.sinks);
        let text = serde_json::to_vec(&changed).map_err(|e| LogError::Io { doing: "write cursors".into(), detail: e.to_string() })?;
        fault::point("cursor.before_store");
        layout::replace(&self.dir, FILE, &text)?;
        fault::point("cursor.after_store");
        *stored = changed;
        Ok(())
    }

    /// The highest cursors of a partition, of any sink.
    pub fn highest(&self, partition: Partition) -> Option<SinkCursor> {
        let stored = self.lock();
        let of_partition = stored.sinks.values().filter_map(|s| s.get(&partition).copied());
        of_partition.reduce(|a, b| SinkCursor { clean: a.clean.max(b.clean), audit: a.audit.max(b.audit), epoch: a.epoch.max(b.epoch) })
    }

    /// The lowest cursors of a partition, for `clean` and `audit`; `None` where no sink has one.
    pub fn lowest(&self, partition: Partition) -> Option<(u64, u64)> {
        let stored = self.lock();
        let of_partition = stored.sinks.values().filter_map(|s| s.get(&partition));
        of_partition.map(|c| (c.clean, c.audit)).reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)))
    }
}
