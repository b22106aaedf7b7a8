//! What the disk has left. The log's budget is never more than that, whatever the settings promise: a disk that is smaller
//! than the budget then stops intake while there still is room to process, deliver and delete, instead of all of them at once.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// How long what was seen is believed, ms. What the log itself writes meanwhile is known.
const BELIEVED: u64 = 100;

/// Tells how many bytes the disk of a folder has left for us, where that is known.
pub type Free = fn(&Path) -> Option<u64>;

/// The disk of a folder.
pub struct Room {
    folder: PathBuf,
    look: Free,
    since: Instant,
    /// ms of `since` until which `most` is believed.
    until: AtomicU64,
    most: AtomicU64,
}

impl Room {
    /// Of a folder.
    pub fn of(folder: &Path, look: Free) -> Self {
        Self { folder: folder.to_owned(), look, since: Instant::now(), until: AtomicU64::new(0), most: AtomicU64::new(u64::MAX) }
    }

    /// The size to which a log of so many bytes may grow on its disk, as of a moment ago.
    pub fn most(&self, bytes: u64) -> u64 {
        let now = self.since.elapsed().as_millis() as u64;
        let until = self.until.load(Ordering::Acquire);
        // One looks, others go by what was seen before.
        let is_due = now >= until && self.until.compare_exchange(until, now + BELIEVED, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if is_due {
            let most = (self.look)(&self.folder).map_or(u64::MAX, |free| bytes.saturating_add(free));
            self.most.store(most, Ordering::Release);
        }
        self.most.load(Ordering::Acquire)
    }
}
