//! The catalog as `control` has it. Ingest and workers ask for the current one often and cheaply; one thread follows the
//! log. Recovery asks for that of an earlier revision, which is folded anew.

use super::known::Known;
use super::metrics;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate_ingest_http::Catalogs;
use tidegate_schemas::catalog::{Catalog, CatalogError};
use tidegate_schemas::definition::{Chain, Change, ChangeError};
use tidegate_schemas::ids::Revision;
use tidegate_schemas::limits::READ_BYTES_MAX;
use tidegate_schemas::log::{EventLog, LogError, LogName};
use tokio::sync::watch;

/// How long the following thread waits before it looks whether it shall stop.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Why there is no catalog.
#[derive(Debug, thiserror::Error)]
pub enum CatalogsError {
    /// The log cannot be read.
    #[error("control cannot be read")]
    Log(#[from] LogError),
    /// A record is no change.
    #[error("record {offset} of control is unreadable: a newer Tidegate wrote it, or the log is damaged")]
    Change {
        /// Its offset.
        offset: u64,
        /// What is wrong with it.
        #[source]
        cause: ChangeError,
    },
    /// A change does not fit those before it: it was checked before it was published, so the log is not whole.
    #[error("record {offset} of control does not fit the catalog: the log is not whole")]
    Catalog {
        /// Its offset.
        offset: u64,
        /// The reason.
        #[source]
        cause: CatalogError,
    },
    /// The log ends before the revision asked for.
    #[error("revision {asked} is not in control, which ends at {newest}: the log is not whole")]
    Short {
        /// The revision asked for.
        asked: Revision,
        /// The newest there is.
        newest: Revision,
    },
}

/// Follows `control`.
pub struct CatalogFollower {
    log: Arc<dyn EventLog>,
    current: watch::Sender<Arc<Catalog>>,
    fold: Mutex<Fold>,
}

/// What was read so far. Its catalog is the one that was sent last.
#[derive(Default)]
struct Fold {
    at: Place,
    known: Known,
}

/// A place in `control`: the next offset, and the changes before it.
#[derive(Clone, Copy, Default)]
struct Place {
    next: u64,
    chain: Chain,
}

impl CatalogFollower {
    /// Reads `control` to its end.
    pub fn open(log: Arc<dyn EventLog>) -> Result<Self, CatalogsError> {
        let follower = Self { log, current: watch::Sender::new(Arc::default()), fold: Mutex::default() };
        follower.catch_up()?;
        Ok(follower)
    }

    /// The newest catalog.
    pub fn current(&self) -> Arc<Catalog> {
        Arc::clone(&self.current.borrow())
    }

    /// Tells of each newer catalog.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Catalog>> {
        self.current.subscribe()
    }

    /// Looks at the catalog and the definitions of the same revision; changes wait for the end of `look`.
    pub fn inspect<T>(&self, look: impl FnOnce(&Catalog, &Known) -> T) -> T {
        let fold = self.fold();
        look(&self.current(), &fold.known)
    }

    /// Reads what is new, and returns the revision then. Blocking.
    pub fn catch_up(&self) -> Result<Revision, CatalogsError> {
        let mut fold = self.fold();
        let mut next = None;
        let result = read(&*self.log, fold.at, |offset, place, change| {
            let catalog = next.get_or_insert_with(|| (*self.current()).clone());
            catalog.apply(&change).map_err(|cause| CatalogsError::Catalog { offset, cause })?;
            fold.known.apply(&change);
            fold.at = place;
            Ok(true)
        });
        // What was folded before an error counts: the fold and its catalog stay at the same revision.
        if let Some(catalog) = next {
            tracing::debug!(revision = catalog.revision(), definitions = catalog.len(), "catalog");
            metrics::catalog(&catalog);
            self.current.send_replace(Arc::new(catalog));
        }
        result.map(|()| self.current.borrow().revision())
    }

    /// Keeps up until `stop` is set. Blocking: give it a thread.
    ///
    /// # Errors
    /// Only what cannot get better: a log that is damaged, or away. A closing log is an end like any other.
    pub fn follow(&self, stop: &AtomicBool) -> Result<(), CatalogsError> {
        while !stop.load(Ordering::Relaxed) {
            let next = self.fold().at.next;
            // A failure is told by whoever catches up.
            if self.log.poll(LogName::Control, 0, next, 1, LOOK_EVERY).map_or(true, |new| !new.is_empty()) {
                match self.catch_up() {
                    Err(CatalogsError::Log(LogError::Closed)) => return Ok(()),
                    result => result.map(drop)?,
                }
            }
        }
        Ok(())
    }

    /// The catalog as of a revision. Blocking: where it is not the current one it is folded from the start of `control`.
    pub fn at(&self, revision: Revision) -> Result<Arc<Catalog>, CatalogsError> {
        if self.current().revision() < revision {
            self.catch_up()?;
        }
        let current = self.current();
        if current.revision() == revision {
            return Ok(current);
        }
        let mut catalog = Catalog::default();
        if revision > 0 {
            read(&*self.log, Place::default(), |offset, _, change| {
                catalog.apply(&change).map_err(|cause| CatalogsError::Catalog { offset, cause })?;
                Ok(catalog.revision() < revision)
            })?;
        }
        if catalog.revision() == revision {
            Ok(Arc::new(catalog))
        } else {
            Err(CatalogsError::Short { asked: revision, newest: catalog.revision() })
        }
    }

    fn fold(&self) -> MutexGuard<'_, Fold> {
        // A panic inside leaves a fold that is behind its catalog at worst; the gap is noticed at the next change.
        self.fold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Catalogs for CatalogFollower {
    fn current(&self) -> Arc<Catalog> {
        Self::current(self)
    }
}

/// Passes the changes from a place on to `each`, with the place behind each, until it says that it has enough.
fn read(
    log: &dyn EventLog,
    mut at: Place,
    mut each: impl FnMut(u64, Place, Change) -> Result<bool, CatalogsError>,
) -> Result<(), CatalogsError> {
    loop {
        let bounds = log.bounds(LogName::Control, 0)?;
        at.next = at.next.max(bounds.start);
        if at.next >= bounds.end {
            return Ok(());
        }
        let entries = log.read(LogName::Control, 0, at.next, READ_BYTES_MAX)?;
        if entries.is_empty() {
            return Ok(());
        }
        for entry in entries {
            let unreadable = |cause| CatalogsError::Change { offset: entry.offset, cause };
            at.next = entry.offset + 1;
            if !at.chain.take(&entry.record).map_err(unreadable)? {
                tracing::debug!(offset = entry.offset, "a change came second and does not count");
                continue;
            }
            let change = Change::read(&entry.record).map_err(unreadable)?;
            if !each(entry.offset, at, change)? {
                return Ok(());
            }
        }
    }
}
