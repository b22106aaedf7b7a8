//! Beside an owner that nobody hears of: what it has written and deleted since is looked for in its folder.
//!
//! ```text
//! list, noted end ─▶ the same segments? ─▶ walk on behind the last group that was seen
//!                 └▶ else the chain is opened anew, and takes the place of what was known
//! ```
//! Whoever waits for records looks, at most so often, and lets go of the files that retention has deleted; a reader of what
//! is there already (`verify`) keeps them for as long as it reads.

use super::EmbeddedLog;
use super::ends::{self, End};
use super::layout::{Chain, Manifest};
use super::opening::{self, Mode, Resume};
use super::scan::{self, Tail, Walk};
use super::segments::Segments;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_schemas::ids::Partition;
use tidegate_schemas::log::{Entry, EventLog, LogError, LogName};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Goes on behind an owner.
pub struct Beside {
    folder: PathBuf,
    manifest: Manifest,
    state: Mutex<State>,
}

struct State {
    looked: Instant,
    chains: Vec<Followed>,
}

/// A chain, and where the next group of its last segment begins.
struct Followed {
    segments: Arc<Segments>,
    last: Resume,
}

impl Beside {
    /// Behind chains that were just opened, in the order in which they are to be looked at.
    pub fn new(folder: &Path, manifest: &Manifest, chains: Vec<(Arc<Segments>, Resume)>) -> Self {
        let chains = chains.into_iter().map(|(segments, last)| Followed { segments, last }).collect();
        Self { folder: folder.to_owned(), manifest: manifest.clone(), state: Mutex::new(State { looked: Instant::now(), chains }) }
    }

    /// Looks at every chain, unless that was done a moment ago.
    fn look(&self) -> Result<(), LogError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        state.chains.iter_mut().try_for_each(|chain| chain.look(&self.folder, &self.manifest))?;
        state.looked = Instant::now();
        Ok(())
    }
}

impl Followed {
    fn look(&mut self, folder: &Path, manifest: &Manifest) -> Result<(), LogError> {
        let chain = self.segments.chain;
        // First: what is noted is there once the segments are listed.
        let noted = ends::noted(folder, manifest.log_id, chain);
        let same = opening::list(&self.segments.dir, Mode::Beside)? == self.segments.ids() && self.is_in_place();
        // A file that was cut meanwhile reads as an error.
        if same && let Ok(walk) = self.walk_on() {
            let at = End { segment: self.last.head.id, byte: walk.end };
            // A group that is half there is being written, unless it was acknowledged: opening tells the damage.
            if !matches!(walk.tail, Tail::Bad { .. }) || noted.is_none_or(|noted| noted <= at) {
                (self.last.end, self.last.link, self.last.time) = (walk.end, walk.link, walk.time);
                self.segments.extend(&walk);
                return Ok(());
            }
        }
        let (fresh, last) = Segments::open(folder, chain, manifest, Mode::Beside)?;
        self.segments.replace(&fresh);
        self.last = last;
        Ok(())
    }

    /// Whether the last segment is still the file of its name: one that holds nothing may be made anew.
    fn is_in_place(&self) -> bool {
        let path = opening::path(&self.segments.dir, self.last.head.id);
        let same = |there: fs::Metadata| self.last.file.metadata().map(|open| (open.dev(), open.ino()) == (there.dev(), there.ino()));
        fs::metadata(path).and_then(same).unwrap_or(false)
    }

    fn walk_on(&self) -> io::Result<Walk> {
        let Resume { file, head, end, link, time, .. } = &self.last;
        let file: &File = file;
        let begin = Walk::at(*end, *link, *time, self.segments.all_next());
        // Where a later group vouches for one, its bodies are compared with their checksums when they are read.
        let mut walk = scan::walk_on(file, head, begin, file.metadata()?.len(), head.chain == Chain::Commits)?;
        walk.keep_proven(head.chain);
        Ok(walk)
    }
}

impl EmbeddedLog {
    /// As `poll`, where the log was opened beside its owner.
    pub(super) fn poll_beside(
        &self,
        beside: &Beside,
        (log, partition, from): (LogName, Partition, u64),
        bytes_max: usize,
        timeout: Duration,
    ) -> Result<Vec<Entry>, LogError> {
        let until = Instant::now() + timeout;
        loop {
            beside.look()?;
            let entries = self.read(log, partition, from, bytes_max)?;
            let left = until.saturating_duration_since(Instant::now());
            if !entries.is_empty() || left.is_zero() {
                return Ok(entries);
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }
}
