//! The topic `meta`: the log's id, sinks' cursors, trim points. One partition, compacted. Cursors are not offsets of a
//! consumer group, since those expire while a group is empty.
//!
//! ```text
//! log/<id>                        {"format":1,"partitions":P}     the one at the lowest offset is the log's
//! cursor/<sink>/<p>/<writer>      {"rank":epoch,"at":…,"cursor":{…}}     the highest rank of all writers counts
//! trim/<log>/<p>/<writer>         {"rank":offset,"at":…}               the same
//! ```
//! Each process writes under a key of its own, or compaction would keep the word of a process that was stopped and
//! resumed instead of the newer one of its successor. Keys that were overtaken and are a day old are deleted: by then
//! nobody writes them, so no newer word is deleted with them.

use super::errors::{deleted, io};
use super::names::{Names, Topic};
use super::publisher::Publisher;
use super::readers::Readers;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tidegate_schemas::fault;
use tidegate_schemas::ids::{LogId, Partition};
use tidegate_schemas::limits;
use tidegate_schemas::log::{Header, LogError, LogName, Record, SinkCursor};

const FORMAT: u32 = 1;
/// Whoever is alive writes a cursor at every edge, which is far more often.
const SILENT_SECONDS: u64 = 86_400;

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    format: u32,
    partitions: u32,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    rank: u64,
    /// Seconds since 1970, by the writer's clock.
    at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cursor: Option<SinkCursor>,
}

#[derive(Default)]
struct State {
    /// Next offset to read.
    next: u64,
    /// The id at the lowest offset.
    identity: Option<(u64, LogId, Identity)>,
    /// By subject, then writer: what it said, and where.
    said: BTreeMap<String, BTreeMap<String, (Said, u64)>>,
}

impl State {
    fn highest(&self, subject: &str) -> Option<Said> {
        self.said.get(subject)?.values().max_by_key(|(said, offset)| (said.rank, *offset)).map(|(said, _)| *said)
    }
}

/// What `meta` says.
pub struct Meta {
    publisher: Arc<Publisher>,
    readers: Arc<Readers>,
    names: Arc<Names>,
    writer: String,
    state: Mutex<State>,
}

impl Meta {
    /// Reads it to its end.
    pub fn open(publisher: Arc<Publisher>, readers: Arc<Readers>, names: Arc<Names>) -> Result<Self, LogError> {
        let writer = hex::encode(random::<8>("writer")?);
        let meta = Self { publisher, readers, names, writer, state: Mutex::default() };
        drop(meta.refreshed()?);
        Ok(meta)
    }

    /// The log's id and partitions, where it has one.
    pub fn identity(&self) -> Result<Option<(LogId, u32)>, LogError> {
        let state = self.refreshed()?;
        let Some((_, id, identity)) = state.identity else { return Ok(None) };
        if identity.format != FORMAT {
            return Err(LogError::Unfit {
                place: format!("topic {}", self.names.of(Topic::Meta)),
                detail: format!("format {} is not known to this version", identity.format),
                remedy: "run the version that wrote it, or a newer one".into(),
            });
        }
        Ok(Some((id, identity.partitions)))
    }

    /// Gives the log an id. Where several processes do so at once, the one whose record came first has given it.
    pub fn mint(&self, partitions: u32) -> Result<(LogId, u32), LogError> {
        let id = LogId(random::<16>("log id")?);
        self.put(&format!("log/{id}"), "log", &Identity { format: FORMAT, partitions })?;
        self.identity()?.ok_or_else(|| deleted(self.names.of(Topic::Meta)))
    }

    /// A sink's cursor.
    pub fn cursor(&self, sink: &str, partition: Partition) -> Result<Option<SinkCursor>, LogError> {
        Ok(self.refreshed()?.highest(&cursor_of(sink, partition)).and_then(|s| s.cursor))
    }

    /// Stores a sink's cursor. One of a lower epoch than is stored changes nothing: it is of a process that was overtaken.
    pub fn store_cursor(&self, sink: &str, partition: Partition, cursor: SinkCursor) -> Result<(), LogError> {
        fault::point("cursor.before_store");
        self.say(cursor_of(sink, partition), Said { rank: cursor.epoch, at: now(), cursor: Some(cursor) })?;
        fault::point("cursor.after_store");
        Ok(())
    }

    /// Names of the sinks that have a cursor.
    pub fn sinks(&self) -> Result<Vec<String>, LogError> {
        let state = self.refreshed()?;
        let said = state.said.iter().filter(|(_, writers)| !writers.is_empty());
        let names = said.filter_map(|(subject, _)| Some(subject.strip_prefix("cursor/")?.rsplit_once('/')?.0.to_owned()));
        Ok(names.collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Takes back what anybody said of a sink's cursors.
    pub fn forget_sink(&self, sink: &str) -> Result<(), LogError> {
        let state = self.refreshed()?;
        let subjects = state.said.iter().filter(|(subject, _)| subject.strip_prefix("cursor/").is_some_and(|s| is_of(s, sink)));
        let keys = subjects.flat_map(|(subject, writers)| writers.keys().map(move |writer| format!("{subject}/{writer}")));
        let nothing: Vec<_> = keys.map(|key| (0, record(&key, "meta", Vec::new()))).collect();
        drop(state);
        if nothing.is_empty() {
            return Ok(());
        }
        self.publisher.publish_and_wait(self.names.of(Topic::Meta), &nothing).map(drop)
    }

    /// The lowest cursors of a partition, for `clean` and `audit`; `None` where no sink has one.
    pub fn lowest(&self, partition: Partition) -> Result<Option<(u64, u64)>, LogError> {
        let state = self.refreshed()?;
        let ending = format!("/{partition}");
        let cursors = state.said.keys().filter(|s| s.starts_with("cursor/") && s.ends_with(&ending));
        let cursors = cursors.filter_map(|s| state.highest(s)).filter_map(|s| s.cursor);
        Ok(cursors.map(|c| (c.clean, c.audit)).reduce(|a, b| (a.0.min(b.0), a.1.min(b.1))))
    }

    /// Up to where Tidegate deleted a log. It is told before it is done, so whatever a log's start showed before this call is
    /// known here.
    pub fn trimmed(&self, log: LogName, partition: Partition) -> Result<u64, LogError> {
        Ok(self.refreshed()?.highest(&trim_of(log, partition)).map_or(0, |s| s.rank))
    }

    /// Says so before it is done: what is missing beyond it was deleted by somebody else.
    pub fn trim(&self, log: LogName, partition: Partition, to: u64) -> Result<(), LogError> {
        self.say(trim_of(log, partition), Said { rank: to, at: now(), cursor: None })
    }

    fn say(&self, subject: String, said: Said) -> Result<(), LogError> {
        self.put(&format!("{subject}/{}", self.writer), "meta", &said)?;
        let state = self.refreshed()?;
        let others = state.said.get(&subject).into_iter().flatten();
        let overtaken: Vec<_> = others
            .filter(|(writer, (other, _))| **writer != self.writer && other.rank <= said.rank && other.at + SILENT_SECONDS < said.at)
            .map(|(writer, _)| (0, record(&format!("{subject}/{writer}"), "meta", Vec::new())))
            .collect();
        drop(state);
        if !overtaken.is_empty() {
            self.publisher.publish_and_wait(self.names.of(Topic::Meta), &overtaken)?;
        }
        Ok(())
    }

    fn put(&self, key: &str, kind: &'static str, value: &impl Serialize) -> Result<(), LogError> {
        let value = serde_json::to_vec(value).map_err(|e| io("write to meta", e))?;
        self.publisher.publish_and_wait(self.names.of(Topic::Meta), &[(0, record(key, kind, value))]).map(drop)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, with everything that was stored before this call.
    fn refreshed(&self) -> Result<MutexGuard<'_, State>, LogError> {
        let mut state = self.state();
        let bounds = self.readers.ends.bounds(Topic::Meta, 0)?;
        if bounds.start > 0 && state.next < bounds.start {
            return Err(LogError::Gone { log: "meta", partition: 0, from: state.next, start: bounds.start });
        }
        while state.next < bounds.end {
            let entries = self.readers.read(Topic::Meta, 0, state.next, limits::READ_BYTES_MAX)?;
            let Some(last) = entries.last() else { break };
            state.next = last.offset + 1;
            for entry in entries {
                self.fold(&mut state, entry.offset, &entry.record)?;
            }
        }
        Ok(state)
    }

    fn fold(&self, state: &mut State, offset: u64, record: &Record) -> Result<(), LogError> {
        let unreadable =
            |detail: String| LogError::Corrupt { place: format!("topic {}, offset {offset}", self.names.of(Topic::Meta)), detail };
        let key = std::str::from_utf8(&record.key).map_err(|e| unreadable(e.to_string()))?;
        let Some((subject, writer)) = key.rsplit_once('/') else { return Err(unreadable(format!("key {key:?} is not known"))) };
        if subject == "log" {
            let id = LogId::try_from(writer.to_owned()).map_err(|e| unreadable(e.to_string()))?;
            let identity = serde_json::from_slice(&record.value).map_err(|e| unreadable(e.to_string()))?;
            state.identity.get_or_insert((offset, id, identity));
            return Ok(());
        }
        if record.value.is_empty() {
            if let Some(writers) = state.said.get_mut(subject) {
                writers.remove(writer);
            }
            return Ok(());
        }
        let said = serde_json::from_slice(&record.value).map_err(|e| unreadable(e.to_string()))?;
        state.said.entry(subject.to_owned()).or_default().insert(writer.to_owned(), (said, offset));
        Ok(())
    }
}

/// Whether a cursor's sink and partition are of this sink.
fn is_of(subject: &str, sink: &str) -> bool {
    subject.rsplit_once('/').is_some_and(|(of, _)| of == sink)
}

fn cursor_of(sink: &str, partition: Partition) -> String {
    format!("cursor/{sink}/{partition}")
}

fn trim_of(log: LogName, partition: Partition) -> String {
    format!("trim/{}/{partition}", log.as_str())
}

/// A record that says nothing, of a subject that nobody knows.
pub fn nothing(subject: &str) -> Record {
    record(&format!("{subject}/-"), "meta", Vec::new())
}

fn record(key: &str, kind: &'static str, value: Vec<u8>) -> Record {
    Record { key: key.to_owned().into(), headers: vec![Header::new("tg-kind", kind)], value: value.into() }
}

fn random<const N: usize>(what: &str) -> Result<[u8; N], LogError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| io(format!("draw a {what}"), e))?;
    Ok(bytes)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
