//! The last commits of every partition, kept up with: who asks about a request that has just come finds its commit here
//! instead of searching the log, again and again, for one that is not there yet.

use crate::commits::{self, Covering};
use crate::scan::ScanError;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_schemas::commit::CommitRecord;
use tidegate_schemas::ids::{Partition, Position, TenantId};
use tidegate_schemas::limits::{READ_BYTES_MAX, RECENT_COMMITS_BYTES_MAX};
use tidegate_schemas::log::{EventLog, LogName};

/// Between two looks at partitions that have nothing new.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A partition that cannot be followed is begun anew after this.
const AGAIN: Duration = Duration::from_secs(1);

/// The last commits of a log.
pub struct RecentCommits {
    log: Arc<dyn EventLog>,
    partitions: Vec<Mutex<Recent>>,
}

/// Those of one partition: without a gap, the oldest first. Nothing where it is not followed.
#[derive(Default)]
struct Recent {
    commits: VecDeque<(Arc<CommitRecord>, usize)>,
    bytes: usize,
    /// Whether the log had none before them.
    begins: bool,
}

impl RecentCommits {
    /// Knows nothing before it follows.
    pub fn new(log: Arc<dyn EventLog>) -> Self {
        let partitions = (0..log.partitions()).map(|_| Mutex::default()).collect();
        Self { log, partitions }
    }

    /// Keeps up until `stop` is set. Blocking: give it a thread.
    pub fn follow(&self, stop: &AtomicBool) {
        let mut places: Vec<Place> = self.partitions.iter().map(|_| Place::Unknown(Instant::now())).collect();
        while !stop.load(Ordering::Relaxed) {
            let mut any = false;
            for (partition, place) in (0..).zip(&mut places) {
                any |= self.look(partition, place);
            }
            if !any {
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }

    /// The commit whose range holds a position of a tenant's: of those here, or else of those in the log.
    ///
    /// # Errors
    /// The log cannot be searched.
    pub fn covering(&self, partition: Partition, tenant: &TenantId, at: Position) -> Result<Covering, ScanError> {
        let recent = self.of(partition);
        let first = recent.commits.front().map(|c| c.0.range_of(tenant).start);
        let last = recent.commits.back().map(|c| c.0.range_of(tenant).end);
        if last.is_some_and(|last| at >= last) {
            return Ok(Covering::Ahead);
        }
        if first.is_some_and(|first| at >= first) {
            // Of empty epochs, which share their place with the next one, none holds it.
            let found = &recent.commits[recent.commits.partition_point(|(commit, _)| commit.range_of(tenant).end <= at)].0;
            if at >= found.range_of(tenant).start {
                return Ok(Covering::Found(Arc::clone(found)));
            }
        }
        drop(recent);
        commits::covering(&*self.log, partition, tenant, at)
    }

    /// Whether no commit has reached a position of a tenant's, as far as those here tell: they may be a moment behind.
    pub fn is_ahead(&self, partition: Partition, tenant: &TenantId, at: Position) -> bool {
        let recent = self.of(partition);
        recent.commits.back().map_or(recent.begins, |(last, _)| at >= last.range_of(tenant).end)
    }

    /// The last commit of a partition: of those here, which may be a moment behind, or else of those in the log.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn last(&self, partition: Partition) -> Result<Option<Arc<CommitRecord>>, ScanError> {
        if let Some((last, _)) = self.of(partition).commits.back() {
            return Ok(Some(Arc::clone(last)));
        }
        Ok(commits::last(&*self.log, partition)?.map(Arc::new))
    }

    /// The first commit that is far enough, where all later ones are: of those here, or else of those in the log.
    ///
    /// # Errors
    /// The log cannot be searched.
    pub fn first(&self, partition: Partition, is_far: impl Fn(&CommitRecord) -> bool) -> Result<Option<Arc<CommitRecord>>, ScanError> {
        let recent = self.of(partition);
        // Where the oldest here is far enough, one before it may be.
        if recent.commits.front().is_some_and(|(oldest, _)| !is_far(oldest)) {
            let found = recent.commits.partition_point(|(commit, _)| !is_far(commit));
            return Ok(recent.commits.get(found).map(|(commit, _)| Arc::clone(commit)));
        }
        drop(recent);
        Ok(commits::first(&*self.log, partition, is_far)?.map(|(_, commit)| Arc::new(commit)))
    }

    /// Takes what is new of a partition; tells whether there was anything.
    fn look(&self, partition: Partition, place: &mut Place) -> bool {
        match self.advance(partition, place) {
            Ok(any) => any,
            Err(error) => {
                // Whoever asks searches the log, and tells what is wrong with it.
                tracing::debug!(partition, error = tidegate_schemas::causes::chain(&error), "commits are not followed for a moment");
                *self.of(partition) = Recent::default();
                *place = Place::Unknown(Instant::now() + AGAIN);
                false
            }
        }
    }

    fn advance(&self, partition: Partition, place: &mut Place) -> Result<bool, ScanError> {
        let at = match place {
            Place::Unknown(until) if *until > Instant::now() => return Ok(false),
            Place::Unknown(_) => {
                let end = self.log.bounds(LogName::Commits, partition)?.end;
                self.of(partition).begins = end == 0;
                end
            }
            Place::Next(at) => *at,
        };
        *place = Place::Next(at);
        let entries = self.log.poll(LogName::Commits, partition, at, READ_BYTES_MAX, Duration::ZERO)?;
        for entry in &entries {
            let commit = CommitRecord::read(&entry.record).map_err(|e| ScanError::Commit(partition, e))?;
            self.of(partition).push(commit, entry.record.size(), RECENT_COMMITS_BYTES_MAX / self.partitions.len());
            *place = Place::Next(entry.offset + 1);
        }
        Ok(!entries.is_empty())
    }

    fn of(&self, partition: Partition) -> MutexGuard<'_, Recent> {
        self.partitions[partition as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a partition is followed from.
enum Place {
    /// From its end, once it is time.
    Unknown(Instant),
    Next(u64),
}

impl Recent {
    fn push(&mut self, commit: CommitRecord, size: usize, bytes_max: usize) {
        self.commits.push_back((Arc::new(commit), size));
        self.bytes += size;
        while self.bytes > bytes_max && self.commits.len() > 1 {
            let (_, size) = self.commits.pop_front().unwrap_or_else(|| unreachable!("there are two"));
            self.bytes -= size;
        }
    }
}
