//! Commits the sealed epochs of one partition, in order, on a thread of its own: the worker goes on with the next epochs
//! while the log is busy, and those are then committed together. Snapshots are stored beside it, one at a time: a store that is
//! slow or away delays no commit.

use crate::snapshot::Snapshots;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;
use tidegate_schemas::commit::SnapshotRef;
use tidegate_schemas::ids::{Epoch, Partition};
use tidegate_schemas::limits::EPOCHS_UNDER_WAY_MAX;
use tidegate_schemas::log::{CommitUnit, EventLog, LogError, LogName, Owner};
use tokio::task::JoinSet;

/// A sealed epoch, and the state to keep once it is committed.
pub struct Sealed {
    /// What it writes.
    pub unit: CommitUnit,
    /// The state after it, where a snapshot is due.
    pub state: Option<Vec<u8>>,
    /// The snapshot that its commit record refers to, where it is the first to do so.
    pub referred: Option<SnapshotRef>,
    /// Whether to ask for the end of `raw` afterwards: the worker would keep other partitions waiting for the answer.
    pub asks_end: bool,
}

/// What became of it.
pub struct Committed {
    /// The epoch.
    pub epoch: Epoch,
    /// A snapshot that later commits may refer to.
    pub snapshot: Option<SnapshotRef>,
    /// One past the last record of `raw`, where that was asked.
    pub raw_end: Option<u64>,
}

/// The thread.
pub struct Committer {
    jobs: Option<Sender<Sealed>>,
    done: Receiver<Result<Committed, LogError>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// Starts the thread of a partition.
    pub fn start(log: Arc<dyn EventLog>, owner: Owner, snapshots: Snapshots) -> std::io::Result<Self> {
        let (jobs, inbox) = bounded::<Sealed>(EPOCHS_UNDER_WAY_MAX);
        let (outbox, done) = bounded(EPOCHS_UNDER_WAY_MAX + 1);
        let thread = std::thread::Builder::new().name(format!("commit-{}", owner.partition)).spawn(move || {
            let mut keeping = Keeping { snapshots, under_way: JoinSet::new(), pruning: JoinSet::new() };
            for first in &inbox {
                let result = commit(&*log, &owner, &mut keeping, gather(first, &inbox));
                let failed = result.is_err();
                let told = match result {
                    Ok(all) => all.into_iter().try_for_each(|c| outbox.send(Ok(c))),
                    Err(error) => outbox.send(Err(error)),
                };
                if failed || told.is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread) })
    }

    /// Hands an epoch over; at most [`EPOCHS_UNDER_WAY_MAX`] may be on their way.
    pub fn submit(&self, sealed: Sealed) -> Result<(), LogError> {
        match &self.jobs {
            Some(jobs) => jobs.send(sealed).map_err(|_| LogError::Closed),
            None => Err(LogError::Closed),
        }
    }

    /// The next result, without waiting.
    pub fn poll(&self) -> Option<Result<Committed, LogError>> {
        self.done.try_recv().ok()
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a commit thread panicked");
        }
    }
}

/// What waits is committed together: one sync or one transaction for all of it, which the bounds on what is sealed keep
/// small. A snapshot stands for the end of the output at its epoch, so nothing may follow that one.
fn gather(first: Sealed, inbox: &Receiver<Sealed>) -> Vec<Sealed> {
    let mut group = vec![first];
    while group.last().is_some_and(|last| last.state.is_none()) {
        let Ok(next) = inbox.try_recv() else { break };
        group.push(next);
    }
    group
}

fn commit(log: &dyn EventLog, owner: &Owner, keeping: &mut Keeping, group: Vec<Sealed>) -> Result<Vec<Committed>, LogError> {
    let partition = owner.partition;
    let started = Instant::now();
    let (units, after): (Vec<_>, Vec<_>) = group.into_iter().map(|s| (s.unit, (s.state, s.referred, s.asks_end))).unzip();
    let epochs: Vec<Epoch> = units.iter().map(|u| u.epoch).collect();
    log.commit(owner, units)?;
    metrics::histogram!("tidegate_commit_seconds").record(started.elapsed().as_secs_f64());
    metrics::counter!("tidegate_commits_total").increment(1);
    metrics::counter!("tidegate_epochs_committed_total").increment(epochs.len() as u64);
    let mut committed = Vec::new();
    for (epoch, (state, referred, asks_end)) in epochs.into_iter().zip(after) {
        if let Some(referred) = referred {
            // Only now does a durable commit refer to it, so what came before may go.
            log.hold("state", LogName::Audit, partition, Some(referred.audit_next));
            keeping.prune(partition, referred.name);
        }
        let snapshot = keeping.kept();
        if let Some(state) = state {
            keeping.put(log, partition, epoch, state)?;
        }
        let raw_end = if asks_end { Some(log.bounds(LogName::Raw, partition)?.end) } else { None };
        committed.push(Committed { epoch, snapshot, raw_end });
    }
    Ok(committed)
}

/// What happens to snapshots beside the commits; it ends with the partition.
struct Keeping {
    snapshots: Snapshots,
    /// The one that is being stored.
    under_way: JoinSet<Option<SnapshotRef>>,
    pruning: JoinSet<()>,
}

impl Keeping {
    /// Stores the state after an epoch, which ends the output now. Where the last one is not stored yet, this one is left out:
    /// recovery folds more outcomes then.
    fn put(&mut self, log: &dyn EventLog, partition: Partition, epoch: Epoch, state: Vec<u8>) -> Result<(), LogError> {
        if !self.under_way.is_empty() {
            tracing::warn!(partition, epoch, "snapshot left out: the one before is still being stored");
            return Ok(());
        }
        let commits = log.bounds(LogName::Commits, partition)?;
        let audit = log.bounds(LogName::Audit, partition)?;
        let (snapshots, name) = (self.snapshots.clone(), self.snapshots.name(partition, epoch, &state));
        let put = async move {
            match snapshots.store(&name, state).await {
                Ok(()) => Some(SnapshotRef { epoch, name, audit_next: audit.end, commit: commits.end.saturating_sub(1) }),
                Err(error) => {
                    let error = tidegate_schemas::causes::chain(&error);
                    tracing::warn!(partition, epoch, error, "snapshot failed: recovery will fold more outcomes");
                    None
                }
            }
        };
        self.under_way.spawn_on(put, self.snapshots.runtime());
        Ok(())
    }

    /// The snapshot that was stored meanwhile.
    fn kept(&mut self) -> Option<SnapshotRef> {
        self.under_way.try_join_next()?.ok()?
    }

    /// Deletes those that nothing refers to any more. One that outlives it goes the next time.
    fn prune(&mut self, partition: Partition, keep: String) {
        while self.pruning.try_join_next().is_some() {}
        if self.pruning.is_empty() {
            let snapshots = self.snapshots.clone();
            let prune = async move {
                if let Err(error) = snapshots.prune(partition, &keep).await {
                    tracing::warn!(partition, error = tidegate_schemas::causes::chain(&error), "old snapshots stay");
                }
            };
            self.pruning.spawn_on(prune, self.snapshots.runtime());
        }
    }
}
