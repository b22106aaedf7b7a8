//! Events at which the process dies. A native crash or the kernel's out-of-memory killer leaves no error to catch, so what
//! runs is noted before it runs: each worker has a slot in a file, written without a sync since it only has to outlive the
//! process, that tells whose scripts are under way. A start that finds a slot in use knows that the last process died there.
//!
//! ```text
//! death 1  in some epoch of partition 3   ─▶ its events run one by one, each noted with its place
//! death 2  at one event                   ─▶ what comes before it is committed first, then it runs in an epoch of its own
//! death 3, 4  at that event again         ─▶ it is rejected as `crashed`, and its template version quarantined
//! ```
//! Any other end clears the partition: an event that passes when it is alone killed nobody. A death outside of scripts
//! leaves no slot in use and accuses nobody. Who kills the process from outside, always so long after its start, would meet
//! a slow event three times: so the partition of an accused event rests for a while first, longer after each death and
//! never as long as the last time. While a partition of this process is suspected, its partitions run one at a
//! time, so that only one slot is in use.

use crate::epoch::EpochInput;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_schemas::ids::{Epoch, Partition, Position};
use tidegate_schemas::limits::CRASHES_MAX;

/// Bytes of a slot: a kind, and what it is about.
const SLOT: usize = 32;
/// The slots.
const UNDER_WAY: &str = "scripts-under-way";
/// What is known of earlier deaths.
const SUSPECTS: &str = "suspects.json";
/// A partition whose events passed one by one and killed the process all the same is looked at for twice as many events
/// each time, up to this often.
const DOUBLED_MAX: u32 = 16;

/// How long the partition of an accused event rests at first, give or take a half.
const REST: Duration = Duration::from_secs(1);

/// Why a partition is suspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Suspect {
    /// The event that was alone under way, where one was.
    at: Option<Position>,
    /// Deaths in a row: at that event, or in epochs of this partition.
    deaths: u32,
    /// Events of the epoch that was under way.
    events: u64,
}

impl Suspect {
    /// Whether its event has killed often enough.
    fn is_convicted(&self) -> bool {
        self.at.is_some() && self.deaths >= CRASHES_MAX as u32
    }

    /// How long it rests before anything of it runs, with `random` from 0 to 1.
    fn rest(&self, random: f64) -> Duration {
        match self.at {
            Some(_) if !self.is_convicted() => REST.mul_f64(f64::from(self.deaths) * (0.5 + random)),
            _ => Duration::ZERO,
        }
    }

    /// Events that run one by one before the partition is cleared.
    fn zone(&self) -> u64 {
        self.events.max(1) << (self.deaths.saturating_sub(1)).min(DOUBLED_MAX)
    }
}

/// What a worker is about, as its slot has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnderWay {
    /// Many events of an epoch that has so many.
    Epoch {
        /// The partition.
        partition: Partition,
        /// How many events.
        events: u64,
    },
    /// One event alone.
    Event {
        /// The partition.
        partition: Partition,
        /// Its place.
        at: Position,
        /// Events of its epoch.
        events: u64,
    },
}

/// The slots of this process, and what the last ones left.
#[derive(Debug)]
pub struct Suspects {
    folder: PathBuf,
    slots: File,
    known: Mutex<BTreeMap<Partition, Suspect>>,
    /// Suspected partitions that this process runs.
    running: AtomicUsize,
    turn: Mutex<()>,
}

impl Suspects {
    /// Reads what the last process left in its slots, and empties them.
    pub fn open(folder: &Path, workers: usize) -> io::Result<Self> {
        let (path, slots) = (folder.join(SUSPECTS), folder.join(UNDER_WAY));
        let mut known: BTreeMap<Partition, Suspect> = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|e| io::Error::other(format!("{}: {e}; delete the file to forget earlier deaths", path.display())))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let left = match fs::read(&slots) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            left => left.unwrap_or_default(),
        };
        let deaths: Vec<UnderWay> = left.chunks_exact(SLOT).filter_map(UnderWay::read).collect();
        for death in &deaths {
            note(&mut known, *death);
        }
        if !deaths.is_empty() {
            save(folder, &known)?;
        }
        let file = File::create(&slots)?;
        file.set_len((workers * SLOT) as u64)?;
        Ok(Self { folder: folder.to_owned(), slots: file, known: Mutex::new(known), running: AtomicUsize::new(0), turn: Mutex::new(()) })
    }

    /// A partition's events passed, or its poison is settled.
    fn clear(&self, partition: Partition) -> io::Result<()> {
        let mut known = self.known();
        known.remove(&partition);
        save(&self.folder, &known)
    }

    /// One partition at a time, while one is suspected.
    pub fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        (self.running.load(Ordering::SeqCst) > 0).then(|| self.turn.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Partition, Suspect>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A suspected partition that runs here. Its scripts run one event at a time.
#[derive(Debug)]
pub struct Suspicion {
    suspects: Arc<Suspects>,
    partition: Partition,
    suspect: Suspect,
    /// Events that still have to pass.
    left: u64,
    /// Until when it rests.
    resumes: Instant,
    /// The epoch with which it is over.
    over: Option<Epoch>,
}

impl Suspicion {
    /// A partition begins to run here: whether it is suspected.
    pub fn begin(suspects: &Arc<Suspects>, partition: Partition) -> Option<Self> {
        let suspect = suspects.known().get(&partition).copied()?;
        suspects.running.fetch_add(1, Ordering::SeqCst);
        let (at, deaths) = (suspect.at.unwrap_or_default(), suspect.deaths);
        match suspect.at {
            Some(_) if suspect.is_convicted() => {
                tracing::error!(
                    partition,
                    offset = at.offset,
                    ordinal = at.ordinal,
                    deaths,
                    "the process died at this event: it is rejected"
                );
            }
            Some(_) => {
                tracing::warn!(
                    partition,
                    offset = at.offset,
                    ordinal = at.ordinal,
                    deaths,
                    "the process died at this event: it runs alone"
                );
            }
            None => {
                tracing::warn!(
                    partition,
                    events = suspect.zone(),
                    deaths,
                    "the process died in scripts of this partition: events run one by one"
                );
            }
        }
        let resumes = Instant::now() + suspect.rest(random());
        Some(Self { suspects: Arc::clone(suspects), partition, suspect, left: suspect.zone(), resumes, over: None })
    }

    /// Whether nothing of the partition may run yet.
    pub fn rests(&self, now: Instant) -> bool {
        now < self.resumes
    }

    /// The event that has to be in an epoch of its own.
    pub fn at(&self) -> Option<Position> {
        self.suspect.at
    }

    /// The event that is to be refused.
    pub fn convicted(&self) -> Option<Position> {
        self.suspect.at.filter(|_| self.suspect.is_convicted())
    }

    /// An epoch was settled with so many events, and the first one that no epoch has lies at `oldest`.
    pub fn passed(&mut self, input: &EpochInput, events: u64, oldest: Position) {
        self.left = self.left.saturating_sub(events);
        let is_over = match self.suspect.at {
            Some(at) => at < oldest,
            None => self.left == 0 || (input.events() == 0 && input.behind.is_empty()),
        };
        if is_over {
            self.over.get_or_insert(input.of.epoch);
        }
    }

    /// Whether it ended with an epoch that is committed now.
    pub fn is_over(&self, committed: Epoch) -> bool {
        self.over.is_some_and(|over| committed >= over)
    }

    /// Forgets the deaths.
    pub fn clear(self) {
        let partition = self.partition;
        match self.suspects.clear(partition) {
            Ok(()) => tracing::info!(partition, "events run together again"),
            Err(error) => {
                tracing::warn!(partition, error = %error, "earlier deaths are not forgotten: after a start events run one by one once more")
            }
        }
    }
}

impl Drop for Suspicion {
    fn drop(&mut self) {
        self.suspects.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The slot of one worker, on its thread.
#[derive(Debug, Clone)]
pub struct Marker {
    suspects: Arc<Suspects>,
    offset: u64,
    noted: Rc<Cell<Option<UnderWay>>>,
}

impl Marker {
    /// The slot of the worker of a number.
    pub fn of(suspects: &Arc<Suspects>, worker: usize) -> Self {
        Self { suspects: Arc::clone(suspects), offset: (worker * SLOT) as u64, noted: Rc::default() }
    }

    /// Scripts are about to run.
    pub fn enter(&self, what: UnderWay) {
        if self.noted.replace(Some(what)) != Some(what) {
            self.write(&what.bytes());
        }
    }

    /// No scripts run any more.
    pub fn leave(&self) {
        if self.noted.take().is_some() {
            self.write(&[0; SLOT]);
        }
    }

    fn write(&self, bytes: &[u8; SLOT]) {
        // Without a note the process goes on; a death would then be a death like any other.
        if let Err(error) = self.suspects.slots.write_all_at(bytes, self.offset) {
            tracing::debug!(error = %error, "what runs cannot be noted");
        }
    }
}

impl UnderWay {
    fn bytes(self) -> [u8; SLOT] {
        let (kind, partition, at, events) = match self {
            Self::Epoch { partition, events } => (1u8, partition, Position::default(), events),
            Self::Event { partition, at, events } => (2, partition, at, events),
        };
        let mut bytes = [0; SLOT];
        bytes[0] = kind;
        bytes[4..8].copy_from_slice(&partition.to_le_bytes());
        bytes[8..16].copy_from_slice(&at.offset.to_le_bytes());
        bytes[16..20].copy_from_slice(&at.ordinal.to_le_bytes());
        bytes[24..32].copy_from_slice(&events.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let u32_at = |i: usize| bytes.get(i..i + 4)?.try_into().ok().map(u32::from_le_bytes);
        let u64_at = |i: usize| bytes.get(i..i + 8)?.try_into().ok().map(u64::from_le_bytes);
        let (partition, events) = (u32_at(4)?, u64_at(24)?);
        match bytes.first()? {
            1 => Some(Self::Epoch { partition, events }),
            2 => Some(Self::Event { partition, at: Position { offset: u64_at(8)?, ordinal: u32_at(16)? }, events }),
            _ => None,
        }
    }
}

/// One more death.
fn note(known: &mut BTreeMap<Partition, Suspect>, death: UnderWay) {
    let (partition, at, events) = match death {
        UnderWay::Epoch { partition, events } => (partition, None, events),
        UnderWay::Event { partition, at, events } => (partition, Some(at), events),
    };
    let before = known.get(&partition).filter(|s| s.at == at).map_or(0, |s| s.deaths);
    known.insert(partition, Suspect { at, deaths: before + 1, events });
}

/// From 0 to 1; where the system has no randomness, the middle.
fn random() -> f64 {
    let mut byte = [128];
    let _ = getrandom::fill(&mut byte);
    f64::from(byte[0]) / 255.0
}

fn save(folder: &Path, known: &BTreeMap<Partition, Suspect>) -> io::Result<()> {
    let (path, next) = (folder.join(SUSPECTS), folder.join("suspects.next"));
    let file = File::create(&next)?;
    file.write_all_at(&serde_json::to_vec(known).unwrap_or_default(), 0)?;
    file.sync_all()?;
    fs::rename(&next, &path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_accused_rests_and_nobody_else() {
        let at = Some(Position { offset: 40, ordinal: 2 });
        let milliseconds = |at, deaths| [0.0, 1.0].map(|random| Suspect { at, deaths, events: 9 }.rest(random).as_millis());
        assert_eq!([1, 2, 3].map(|deaths| milliseconds(at, deaths)), [[500, 1_500], [1_000, 3_000], [0, 0]]);
        assert_eq!(milliseconds(None, 2), [0, 0]);
    }

    #[test]
    fn deaths_are_counted_where_scripts_ran() {
        let folder = std::env::temp_dir().join(format!("tidegate-suspects-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let place = Position { offset: 40, ordinal: 2 };
        let open = || Arc::new(Suspects::open(&folder, 2).expect("opens"));
        let die = |worker, what: UnderWay| Marker::of(&open(), worker).enter(what);
        let begin = |partition| Suspicion::begin(&open(), partition);
        let (epoch, event) = (UnderWay::Epoch { partition: 3, events: 9 }, UnderWay::Event { partition: 3, at: place, events: 1 });

        // After scripts came back: nobody.
        let marker = Marker::of(&open(), 0);
        marker.enter(epoch);
        marker.leave();
        assert!(begin(3).is_none());
        die(1, epoch);
        assert!(begin(2).is_none());
        // Killed outside of scripts: neither counted nor forgotten.
        for _ in 0..2 {
            assert_eq!(begin(3).map(|s| (s.at(), s.left)), Some((None, 9)));
        }
        die(0, epoch);
        assert_eq!(begin(3).map(|s| s.left), Some(18));
        for deaths in 1..=3 {
            die(0, event);
            assert_eq!(begin(3).map(|s| (s.at(), s.convicted())), Some((Some(place), Some(place).filter(|_| deaths == 3))));
        }
        // Another event begins anew.
        die(0, UnderWay::Event { partition: 3, at: Position { offset: 41, ordinal: 0 }, events: 1 });
        let suspects = open();
        let suspicion = Suspicion::begin(&suspects, 3).expect("suspected");
        assert!(suspicion.convicted().is_none() && suspects.turn().is_some());
        assert!(suspicion.rests(Instant::now()) && !suspicion.rests(Instant::now() + 2 * REST));
        suspicion.clear();
        assert!(suspects.turn().is_none());
        assert!(begin(3).is_none());
        fs::remove_dir_all(&folder).expect("removes");
    }
}
