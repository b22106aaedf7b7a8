//! Reading by place, out of clients that read on by themselves.
//!
//! ```text
//! read(from) ─▶ a reader stands there? ─▶ what it fetched ahead
//!            └▶ bounds: deleted? at the end? ─▶ else one is placed there
//! ```
//! A read sees everything that was committed before it began. Between the last record of a transactional topic and its
//! end lie the markers of transactions, so an end says nothing about a record: where a reader gets none at once, it is
//! placed anew and hears of the end within milliseconds. What it found out is remembered.
//!
//! Readers are of two kinds. Those of `poll` follow: a question of theirs waits half a second with the broker, and whoever
//! sent them elsewhere would wait for its end. Those of `read` are sent here and there, and are idle where they have read to
//! the end. A single record is asked of a probe, which fetches no more.

use super::clients::Clients;
use super::ends::Ends;
use super::errors::{self, io};
use super::metrics;
use super::names::{Names, Topic};
use super::reader::{Polled, Reader};
use hashbrown::HashMap;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_schemas::ids::Partition;
use tidegate_schemas::limits;
use tidegate_schemas::log::{Entry, LogError};

/// Reads of less than this want one record: fetching ahead would be in vain.
const POINT_BYTES_MAX: usize = 4096;
/// Probes at once.
const PROBES_MAX: usize = 4;
/// A reader that nobody asked for so long is given up.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// Whoever follows comes back well within this.
const ABANDONED: Duration = Duration::from_secs(3);
/// What is on its way here comes within this.
const MOMENT: Duration = Duration::from_millis(5);
const SLICE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(limits::KAFKA_REQUEST_SECONDS_MAX as u64);

/// All readers of a log in this process.
pub struct Readers {
    clients: Arc<Clients>,
    names: Arc<Names>,
    /// Where logs begin and end.
    pub ends: Ends,
    pool: Mutex<Pool>,
    freed: Condvar,
    /// Stretches that hold nothing but markers.
    empty: Mutex<HashMap<(Topic, Partition), Range<u64>>>,
}

#[derive(Default)]
struct Pool {
    /// Longest unused first.
    readers: Vec<Reader>,
    /// Those and the ones that somebody holds.
    made: usize,
    probes: Vec<Reader>,
    probes_made: usize,
}

impl Readers {
    /// None yet.
    pub fn new(clients: Arc<Clients>, names: Arc<Names>, partitions: u32) -> Result<Self, LogError> {
        let ends = Ends::new(clients.asker()?, Arc::clone(&names), partitions);
        Ok(Self { clients, names, ends, pool: Mutex::default(), freed: Condvar::new(), empty: Mutex::default() })
    }

    /// Committed records from `from` on.
    pub fn read(&self, topic: Topic, partition: Partition, from: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        let mut standing = self.standing(topic, partition, from, false);
        if let Some(reader) = &mut standing {
            let entries = reader.drain(bytes_max)?;
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        let bounds = self.ends.bounds(topic, partition)?;
        if from < bounds.start {
            return Err(gone(topic, partition, from, bounds.start));
        }
        if from >= bounds.end || self.is_empty(topic, partition, from, bounds.end) {
            return Ok(Vec::new());
        }
        let mut reader = match standing {
            Some(mut reader) => {
                if let Polled::Entry(_) = reader.look(MOMENT)? {
                    return reader.drain(bytes_max);
                }
                // It may have heard of an end before there was what is looked for.
                reader.place(topic, partition, from)?;
                reader
            }
            None if bytes_max < POINT_BYTES_MAX => return Ok(self.probe(topic, partition, from, bounds.end)?.into_iter().collect()),
            None => self.placed(topic, partition, from, false)?,
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match reader.look(SLICE)? {
                Polled::Entry(_) => return reader.drain(bytes_max),
                astray @ (Polled::OutOfRange | Polled::Missing) => self.find(&mut reader, astray, topic, partition, from)?,
                Polled::End if topic.has_gaps() => {
                    self.note_empty(topic, partition, from..bounds.end);
                    return Ok(Vec::new());
                }
                // There is one, so it comes.
                Polled::End | Polled::Nothing => {}
            }
            if Instant::now() > deadline {
                let detail = self.clients.told.explain(format!("nothing came within {PATIENCE:?}"));
                return Err(io(format!("read topic {}, partition {partition}, from offset {from} on", self.names.of(topic)), detail));
            }
        }
    }

    /// What comes at `from` or later within `timeout`. Nobody is asked where the end is: a reader that stands there hears of
    /// what is new by itself.
    pub fn poll(&self, topic: Topic, partition: Partition, from: u64, bytes_max: usize, timeout: Duration) -> Result<Vec<Entry>, LogError> {
        let began = Instant::now();
        let (mut reader, timeout) = match self.standing(topic, partition, from, true) {
            Some(reader) => (reader, timeout),
            // Where readers are scarce this one is needed elsewhere soon: what it came for must come before.
            None => (self.placed(topic, partition, from, true)?, timeout.max(SLICE)),
        };
        loop {
            match reader.look(timeout.saturating_sub(began.elapsed()))? {
                Polled::Entry(_) => {
                    reader.follows = true;
                    return reader.drain(bytes_max);
                }
                Polled::End | Polled::Nothing => {}
                astray => self.find(&mut reader, astray, topic, partition, from)?,
            }
            if began.elapsed() >= timeout {
                reader.follows = true;
                return Ok(Vec::new());
            }
        }
    }

    /// A reader whose place is not there: an error where that is so, else it is placed once more.
    fn find(&self, reader: &mut Reader, astray: Polled, topic: Topic, partition: Partition, from: u64) -> Result<(), LogError> {
        if matches!(astray, Polled::Missing) {
            self.ends.confirm(topic, partition)?;
        } else {
            let bounds = self.ends.fresh(topic, partition)?;
            if from < bounds.start {
                return Err(gone(topic, partition, from, bounds.start));
            }
            if from > bounds.end {
                return Err(errors::truncated(self.names.of(topic), partition, bounds.end, from));
            }
        }
        reader.place(topic, partition, from)
    }

    /// This stretch holds only markers.
    pub fn note_empty(&self, topic: Topic, partition: Partition, stretch: Range<u64>) {
        self.empty.lock().unwrap_or_else(PoisonError::into_inner).insert((topic, partition), stretch);
    }

    fn is_empty(&self, topic: Topic, partition: Partition, from: u64, end: u64) -> bool {
        let empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        empty.get(&(topic, partition)).is_some_and(|known| known.start <= from && end <= known.end)
    }

    /// The first record at or after `from`, asked for anew. `end` is an end that was seen before.
    fn probe(&self, topic: Topic, partition: Partition, from: u64, end: u64) -> Result<Option<Entry>, LogError> {
        let mut probe = Lent { reader: Some(self.lend(true, false)?), home: self, probe: true };
        probe.place(topic, partition, from)?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match probe.look(SLICE)? {
                Polled::Entry(entry) => return Ok(Some(entry)),
                Polled::End => {
                    self.note_empty(topic, partition, from..end);
                    return Ok(None);
                }
                Polled::OutOfRange => return Err(gone(topic, partition, from, self.ends.fresh(topic, partition)?.start)),
                Polled::Missing => {
                    self.ends.confirm(topic, partition)?;
                    probe.place(topic, partition, from)?;
                }
                Polled::Nothing => {}
            }
        }
        let detail = self.clients.told.explain(format!("no answer within {PATIENCE:?}"));
        Err(io(format!("read topic {}, partition {partition}, at offset {from}", self.names.of(topic)), detail))
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader that stands there already. One with which somebody follows is for whoever follows: taken on by a single record,
    /// it would be missed by its follower, and a receipt asks for just the record that comes next.
    fn standing(&self, topic: Topic, partition: Partition, from: u64, follows: bool) -> Option<Lent<'_>> {
        let mut pool = self.pool();
        let fits = |r: &Reader| if follows { r.follows || r.is_follower } else { !r.follows };
        let found = pool.readers.iter().position(|r| r.stands_at(topic, partition, from) && fits(r))?;
        Some(Lent { reader: Some(pool.readers.remove(found)), home: self, probe: false })
    }

    fn placed(&self, topic: Topic, partition: Partition, from: u64, follows: bool) -> Result<Lent<'_>, LogError> {
        let mut reader = Lent { reader: Some(self.lend(false, follows)?), home: self, probe: false };
        reader.place(topic, partition, from)?;
        metrics::reader("placed");
        Ok(reader)
    }

    /// A reader or probe that nobody uses: one of its kind with which nobody reads on, else a new one where there may be more,
    /// else the one unused for longest, of its kind if possible.
    fn lend(&self, probe: bool, follows: bool) -> Result<Reader, LogError> {
        let max = if probe { PROBES_MAX } else { self.clients.settings().readers_max.max(1) as usize };
        let deadline = Instant::now() + PATIENCE;
        let mut pool = self.pool();
        loop {
            let Pool { readers, made, probes, probes_made } = &mut *pool;
            let (idle, made) = if probe { (probes, probes_made) } else { (readers, made) };
            let is_free = |r: &Reader| r.is_follower == follows && (!r.follows || r.used.elapsed() > ABANDONED);
            let oldest = || idle.iter().position(|r| r.is_follower == follows).or((!idle.is_empty()).then_some(0));
            let unused = idle.iter().position(is_free).or_else(|| if *made >= max { oldest() } else { None });
            if let Some(unused) = unused {
                return Ok(idle.remove(unused));
            }
            if *made < max {
                *made += 1;
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io("read", format!("all {max} readers are in use; raise log.kafka.readers_max")));
            }
            pool = self.freed.wait_timeout(pool, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(pool);
        let made = if probe { self.clients.probe() } else { self.clients.reader(follows) };
        metrics::reader("made");
        made.map(|consumer| Reader::new(consumer, Arc::clone(&self.names), follows)).inspect_err(|_| {
            let mut pool = self.pool();
            *(if probe { &mut pool.probes_made } else { &mut pool.made }) -= 1;
        })
    }

    fn give_back(&self, mut reader: Reader, probe: bool) {
        reader.used = Instant::now();
        if probe || (!reader.is_follower && !reader.follows && reader.is_at_end(&self.ends)) {
            reader.leave();
        }
        let mut pool = self.pool();
        let mut old = Vec::new();
        if probe {
            pool.probes.push(reader);
        } else {
            pool.readers.push(reader);
            let idle = pool.readers.iter().take_while(|r| r.used.elapsed() > IDLE_MAX).count();
            pool.made -= idle;
            old.extend(pool.readers.drain(..idle));
        }
        drop(pool);
        self.freed.notify_one();
    }
}

fn gone(topic: Topic, partition: Partition, from: u64, start: u64) -> LogError {
    LogError::Gone { log: topic.as_str(), partition, from, start }
}

/// A reader in use. It goes back whatever happens.
struct Lent<'a> {
    reader: Option<Reader>,
    home: &'a Readers,
    probe: bool,
}

impl Deref for Lent<'_> {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        match &self.reader {
            Some(reader) => reader,
            None => unreachable!("it is given back when it is dropped"),
        }
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Reader {
        match &mut self.reader {
            Some(reader) => reader,
            None => unreachable!("it is given back when it is dropped"),
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.home.give_back(reader, self.probe);
        }
    }
}
