//! The embedded durable log: the five logs in a folder of the local disk.
//!
//! It carries the first promise (no 202 is lost) and half of the cost of an event, so it is our own: see
//! `decisions/0001-embedded-log.md`.
//!
//! ```text
//! log.json  lock  cursors.json  ends
//! raw/      000000000000.seg …     requests                          publish ─▶ queue ─▶ thread ─▶ group, fdatasync
//! output/                          clean, audit, commits: an epoch   commit  ─▶ queue ─▶ thread ─▶ group, fdatasync
//! commits/                         commit records of deleted segments of output
//! control/                         definitions
//! ```
//! One thread for each chain writes whatever is queued as one *group*, syncs once, and then tells who waits. A group is
//! the unit of recovery: an epoch lies in one, so it is there as a whole or not at all. Nothing is visible to a reader
//! before it is durable. What may be lost after a power cut is the group under way, which nobody was told of; damage
//! anywhere before it is an error with its place, and never cut away. A write that fails (a full disk) is acknowledged to
//! nobody and cut, and its chain refuses until the disk takes writes again; see [`healing`].

mod append;
mod beside;
mod commits;
mod cursors;
mod ends;
mod healing;
mod health;
mod inspect;
mod layout;
mod metrics;
mod newest;
mod opening;
mod owners;
mod retention;
mod room;
mod scan;
mod segments;
mod wire;
mod writer;

use super::calls::{check_partition, check_size, fullest};
use super::holds::Holds;
use append::{Appender, Common, Placed};
use beside::Beside;
use cursors::Cursors;
use ends::Ends;
use health::Health;
use layout::{Chain, Manifest};
use opening::Mode;
use owners::Owners;
pub use room::Free;
use room::Room;
use segments::{ReadError, Segments};
use std::fmt::Display;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_schemas::BoxFuture;
use tidegate_schemas::ids::{LogId, Partition};
use tidegate_schemas::limits;
use tidegate_schemas::log::{CommitUnit, Entry, EventLog, Inspection, LogError, LogName, Owner, Record, SinkCursor, Usage, Written};
use tokio::sync::oneshot;
pub use wire::HEADER_NAMES;
use writer::{Item, Writer};

const MANIFEST_NAME: &str = "log.json";

/// How a log is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Partitions of every log but `control`; fixed when the folder is created.
    pub partitions: u32,
    /// Bytes of all chains together, where the disk has as much.
    pub budget_bytes: u64,
    /// How much the disk of a folder has left.
    pub free: Free,
    /// A segment is closed at about this size; at most 1 GiB.
    pub segment_bytes: u64,
    /// Replay horizon: processed requests are kept for so long.
    pub raw_horizon: Duration,
    /// Receipt horizon: delivered output is kept for so long.
    pub audit_horizon: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            partitions: 4,
            budget_bytes: limits::LOG_BUDGET_BYTES as u64,
            free: crate::usage::free_bytes,
            segment_bytes: limits::SEGMENT_BYTES as u64,
            raw_horizon: Duration::from_secs(24 * 3600),
            audit_horizon: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// What opening found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Opening {
    /// Whether the log was created by it.
    pub created: bool,
    /// Bytes behind the durable ends that were cut: writes that nobody was told of.
    pub torn_bytes: u64,
    /// Chains with such bytes; each lost one unacknowledged group.
    pub torn_chains: u32,
    /// Segments of all chains.
    pub segments: usize,
    /// Bytes of all chains.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// The five logs in a folder.
pub struct EmbeddedLog {
    manifest: Manifest,
    options: Options,
    opening: Opening,
    raw: Arc<Segments>,
    output: Arc<Segments>,
    archive: Arc<Segments>,
    control: Arc<Segments>,
    cursors: Cursors,
    holds: Holds,
    room: Room,
    role: Role,
}

/// Whether the log is this process's own.
enum Role {
    Owner(Box<Writing>),
    Beside(Beside),
}

struct Writing {
    raw: Writer,
    output: Writer,
    control: Writer,
    /// Commit records move here within `trim`, which thereby runs once at a time.
    archive: Mutex<Appender>,
    owners: Owners,
    health: Arc<Health>,
    _lock: File,
}

impl EmbeddedLog {
    /// Opens the log of a folder for this process alone, and creates it where the folder is empty or missing.
    pub fn open(dir: &Path, options: Options) -> Result<Arc<Self>, LogError> {
        let began = Instant::now();
        layout::make_folder(dir)?;
        Manifest::load(dir)?;
        let lock = layout::lock(dir)?;
        let (manifest, created) = opening::prepare(dir, options.partitions)?;
        let mut opening = Opening { created, ..Opening::default() };
        let mut open = |chain| -> Result<_, LogError> {
            let (segments, resume) = Segments::open(dir, chain, &manifest, Mode::Own)?;
            opening.torn_bytes += resume.torn;
            opening.torn_chains += u32::from(resume.torn > 0);
            opening.segments += segments.count();
            opening.bytes += segments.bytes();
            Ok((segments, resume))
        };
        let (raw, raw_end) = open(Chain::Raw)?;
        let (output, output_end) = open(Chain::Output)?;
        let (archive, archive_end) = open(Chain::Commits)?;
        let (control, control_end) = open(Chain::Control)?;
        opening::check_together(&raw, &output, &archive)?;
        let cursors = Cursors::open(dir, manifest.log_id)?;
        opening::check_cursors(&output, &cursors)?;
        let common = Common {
            segment_bytes: options.segment_bytes.clamp(4 << 10, 1 << 30),
            ends: Arc::new(Ends::open(dir, manifest.log_id)),
            health: Arc::default(),
        };
        let start = |segments: &Arc<Segments>, resume, points| Writer::start(Appender::new(segments.clone(), resume, &common, points));
        let writing = Writing {
            raw: start(&raw, raw_end, Some(["publish.before_write", "publish.after_write", "publish.after_sync"]))?,
            output: start(&output, output_end, Some(["commit.before_write", "commit.after_write", "commit.after_sync"]))?,
            control: start(&control, control_end, None)?,
            archive: Mutex::new(Appender::new(archive.clone(), archive_end, &common, None)),
            owners: Owners::new(&output, now().unsigned_abs()),
            health: common.health.clone(),
            _lock: lock,
        };
        opening.seconds = began.elapsed().as_secs_f64();
        if opening.torn_bytes > 0 {
            tracing::warn!(bytes = opening.torn_bytes, chains = opening.torn_chains, "cut writes that were never acknowledged");
        }
        tracing::info!(log = %manifest.log_id, bytes = opening.bytes, segments = opening.segments, seconds = opening.seconds, "log is open");
        metrics::opened(opening.torn_bytes, opening.seconds);
        let holds = Holds::default();
        let (room, role) = (Room::of(dir, options.free), Role::Owner(Box::new(writing)));
        let log = Self { manifest, options, opening, raw, output, archive, control, cursors, holds, room, role };
        metrics::usage(log.usage());
        Ok(Arc::new(log))
    }

    /// Opens the log of a folder beside the process that owns it, and writes nothing: up to the durable end of now, and what comes
    /// later for who polls.
    pub fn read_only(dir: &Path) -> Result<Arc<Self>, LogError> {
        let began = Instant::now();
        let path = dir.join(MANIFEST_NAME);
        let missing = || LogError::Io { doing: format!("open {}", path.display()), detail: "there is no log yet".into() };
        let manifest = Manifest::load(dir)?.filter(|m| m.ready).ok_or_else(missing)?;
        // What refers to something is opened before what it refers to, and what moves is opened where it comes from first.
        let (mut opening, mut chains) = (Opening::default(), Vec::new());
        let mut open = |chain| -> Result<_, LogError> {
            let (segments, resume) = Segments::open(dir, chain, &manifest, Mode::Beside)?;
            opening.segments += segments.count();
            opening.bytes += segments.bytes();
            chains.push((segments.clone(), resume));
            Ok(segments)
        };
        let cursors = Cursors::open(dir, manifest.log_id)?;
        let (output, archive) = (open(Chain::Output)?, open(Chain::Commits)?);
        let (raw, control) = (open(Chain::Raw)?, open(Chain::Control)?);
        let role = Role::Beside(Beside::new(dir, &manifest, chains));
        opening.seconds = began.elapsed().as_secs_f64();
        let options = Options { partitions: manifest.partitions, ..Options::default() };
        let holds = Holds::default();
        let room = Room::of(dir, options.free);
        Ok(Arc::new(Self { manifest, options, opening, raw, output, archive, control, cursors, holds, room, role }))
    }

    /// What opening found.
    pub fn opening(&self) -> Opening {
        self.opening
    }

    /// Writes what is queued and ends the threads. Everything but reading fails from then on.
    pub fn close(&self) {
        let Role::Owner(writing) = &self.role else { return };
        let writers = [&writing.raw, &writing.output, &writing.control];
        writers.iter().for_each(|w| w.close());
        writers.iter().for_each(|w| w.join());
    }

    fn segments(&self, chain: Chain) -> &Arc<Segments> {
        match chain {
            Chain::Raw => &self.raw,
            Chain::Output => &self.output,
            Chain::Commits => &self.archive,
            Chain::Control => &self.control,
        }
    }

    fn writing(&self, doing: &str) -> Result<&Writing, LogError> {
        match &self.role {
            Role::Owner(writing) => Ok(writing),
            Role::Beside(_) => Err(LogError::Io { doing: doing.into(), detail: "the log was opened for reading only".into() }),
        }
    }

    /// Refuses where `bytes` more would pass `percent` of the budget.
    fn check_budget(&self, bytes: usize, percent: usize, what: &'static str) -> Result<(), LogError> {
        let Usage { bytes: used, budget } = self.usage();
        if used.saturating_add(bytes as u64) <= budget.saturating_mul(percent as u64) / 100 {
            return Ok(());
        }
        metrics::refused(what);
        Err(LogError::Full { used, budget })
    }

    fn queue(&self, log: LogName, records: Vec<(Partition, Record)>) -> Result<Receiver, LogError> {
        let writing = self.writing("publish")?;
        let (chain, lane) = Chain::of(log);
        writing.health.check(chain)?;
        if chain == Chain::Output {
            let detail = "only the commit of an epoch writes there".into();
            return Err(LogError::Io { doing: format!("publish to {}", log.as_str()), detail });
        }
        for (partition, record) in &records {
            check_partition(log, *partition, self.manifest.partitions)?;
            check_size(record)?;
        }
        let records: Vec<_> = records.into_iter().map(|(partition, record)| Placed::record(lane, partition, record)).collect();
        let (tell, told) = oneshot::channel();
        let item = Item::new(
            records,
            Box::new(move |result| {
                // Who asked may have gone; the records are durable all the same.
                let _ = tell.send(result);
            }),
        );
        if item.bytes() > limits::COMMIT_BYTES_MAX {
            return Err(LogError::TooLarge { bytes: item.bytes(), max: limits::COMMIT_BYTES_MAX });
        }
        let writer = if chain == Chain::Raw { &writing.raw } else { &writing.control };
        if chain == Chain::Raw {
            self.check_budget(item.bytes(), limits::INTAKE_STOPS_PERCENT, "publish")?;
        }
        writer.submit(item).map(|()| told)
    }
}

type Receiver = oneshot::Receiver<Result<Vec<u64>, LogError>>;

impl EventLog for EmbeddedLog {
    fn log_id(&self) -> LogId {
        self.manifest.log_id
    }

    fn partitions(&self) -> u32 {
        self.manifest.partitions
    }

    fn publish(&self, log: LogName, records: Vec<(Partition, Record)>) -> BoxFuture<'_, Result<Vec<u64>, LogError>> {
        // Queued by the call and not by the first poll, so that calls keep their order.
        let queued = self.queue(log, records);
        Box::pin(async move { queued?.await.unwrap_or(Err(LogError::Closed)) })
    }

    fn bounds(&self, log: LogName, partition: Partition) -> Result<Range<u64>, LogError> {
        check_partition(log, partition, self.manifest.partitions)?;
        let (chain, lane) = Chain::of(log);
        let bounds = self.segments(chain).bounds(lane, partition);
        if log == LogName::Commits {
            return Ok(self.archive.bounds(0, partition).start.min(bounds.start)..bounds.end);
        }
        Ok(bounds)
    }

    fn read(&self, log: LogName, partition: Partition, from: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        check_partition(log, partition, self.manifest.partitions)?;
        let (chain, lane) = Chain::of(log);
        let read = match log {
            LogName::Commits => self.read_commits(partition, from, bytes_max),
            _ => self.segments(chain).read(lane, partition, from, bytes_max),
        };
        read.map_err(|e| match e {
            ReadError::Gone(start) => LogError::Gone { log: log.as_str(), partition, from, start },
            ReadError::Failed(e) => e,
        })
    }

    fn poll(&self, log: LogName, partition: Partition, from: u64, bytes_max: usize, timeout: Duration) -> Result<Vec<Entry>, LogError> {
        check_partition(log, partition, self.manifest.partitions)?;
        if let Role::Beside(beside) = &self.role {
            return self.poll_beside(beside, (log, partition, from), bytes_max, timeout);
        }
        let (chain, lane) = Chain::of(log);
        if !self.segments(chain).wait(lane, partition, from, timeout) {
            return Ok(Vec::new());
        }
        self.read(log, partition, from, bytes_max)
    }

    fn fence(&self, partition: Partition) -> Result<Owner, LogError> {
        check_partition(LogName::Commits, partition, self.manifest.partitions)?;
        let writing = self.writing("take a partition over")?;
        writing.health.check(Chain::Output)?;
        writing.owners.fence(partition, &writing.output)
    }

    fn commit(&self, owner: &Owner, units: Vec<CommitUnit>) -> Result<Vec<Written>, LogError> {
        check_partition(LogName::Commits, owner.partition, self.manifest.partitions)?;
        let writing = self.writing("commit")?;
        writing.health.check(Chain::Output)?;
        let raw_end = self.raw.bounds(0, owner.partition).end;
        let room = |bytes| self.check_budget(bytes, fullest(bytes), "commit");
        let written = writing.owners.commit(owner, units, raw_end, room, &writing.output)?;
        metrics::usage(self.usage());
        Ok(written)
    }

    fn cursor(&self, sink: &str, partition: Partition) -> Result<Option<SinkCursor>, LogError> {
        Ok(self.cursors.get(sink, partition))
    }

    fn store_cursor(&self, sink: &str, partition: Partition, cursor: SinkCursor) -> Result<(), LogError> {
        check_partition(LogName::Clean, partition, self.manifest.partitions)?;
        self.writing("store a cursor")?;
        self.cursors.put(sink, partition, cursor)
    }

    fn sinks(&self) -> Result<Vec<String>, LogError> {
        Ok(self.cursors.sinks())
    }

    fn forget_sink(&self, sink: &str) -> Result<(), LogError> {
        self.writing("forget a sink")?;
        self.cursors.forget(sink)
    }

    fn hold(&self, name: &str, log: LogName, partition: Partition, from: Option<u64>) {
        self.holds.set(name, log, partition, from);
    }

    fn trim(&self) -> Result<u64, LogError> {
        let writing = self.writing("trim")?;
        let mut archive = writing.archive.lock().unwrap_or_else(PoisonError::into_inner);
        let freed = retention::trim(self, writing, &mut archive);
        metrics::usage(self.usage());
        freed
    }

    fn usage(&self) -> Usage {
        let chains = Chain::ALL.iter().map(|c| self.segments(*c).bytes()).sum::<u64>();
        let queued = match &self.role {
            Role::Owner(writing) => writing.raw.queued() + writing.output.queued() + writing.control.queued(),
            Role::Beside(_) => 0,
        };
        Usage { bytes: chains + queued, budget: self.options.budget_bytes.min(self.room.most(chains)) }
    }

    fn failing(&self) -> Option<LogError> {
        match &self.role {
            Role::Owner(writing) => writing.health.failing(),
            Role::Beside(_) => None,
        }
    }

    fn inspect(&self) -> Result<Inspection, LogError> {
        Ok(inspect::all(Chain::ALL.iter().map(|c| &**self.segments(*c))))
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.close();
    }
}

fn failed(doing: impl Display, error: &std::io::Error) -> LogError {
    LogError::Io { doing: doing.to_string(), detail: error.to_string() }
}

fn corrupt(path: &Path, byte: u64, detail: &str) -> LogError {
    LogError::Corrupt { place: format!("{}, byte {byte}", path.display()), detail: detail.into() }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}
