//! Commits the sealed epochs of one partition, in order, on a thread of its own: the worker goes on with the next epoch
//! while the disk is busy.

use crate::snapshot::Snapshots;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tidegate_schemas::commit::SnapshotRef;
use tidegate_schemas::ids::{Epoch, Partition};
use tidegate_schemas::limits::EPOCHS_UNDER_WAY_MAX;
use tidegate_schemas::log::{CommitUnit, EventLog, LogError, LogName, Owner};

/// A sealed epoch, and the state to keep once it is committed.
pub struct Sealed {
    /// What it writes.
    pub unit: CommitUnit,
    /// The state after it, where a snapshot is due.
    pub state: Option<Vec<u8>>,
    /// The snapshot that its commit record refers to, where it is the first to do so.
    pub referred: Option<SnapshotRef>,
}

/// What became of it.
pub struct Committed {
    /// The epoch.
    pub epoch: Epoch,
    /// A snapshot that later commits may refer to.
    pub snapshot: Option<SnapshotRef>,
}

/// The thread.
pub struct Committer {
    jobs: Option<Sender<Sealed>>,
    done: Receiver<Result<Committed, LogError>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// Starts the thread of a partition.
    pub fn start(log: Arc<dyn EventLog>, owner: Owner, snapshots: Snapshots, stop: Arc<AtomicBool>) -> std::io::Result<Self> {
        let (jobs, inbox) = bounded::<Sealed>(EPOCHS_UNDER_WAY_MAX);
        let (outbox, done) = bounded(EPOCHS_UNDER_WAY_MAX + 1);
        let thread = std::thread::Builder::new().name(format!("commit-{}", owner.partition)).spawn(move || {
            for sealed in inbox {
                let result = commit(&*log, &owner, &snapshots, sealed, &stop);
                let failed = result.is_err();
                if outbox.send(result).is_err() || failed {
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

fn commit(log: &dyn EventLog, owner: &Owner, snapshots: &Snapshots, sealed: Sealed, stop: &AtomicBool) -> Result<Committed, LogError> {
    let (epoch, partition) = (sealed.unit.epoch, owner.partition);
    let started = Instant::now();
    await_room(log, stop)?;
    log.commit(owner, vec![sealed.unit])?;
    metrics::histogram!("tidegate_commit_seconds").record(started.elapsed().as_secs_f64());
    if let Some(referred) = sealed.referred {
        // Only now does a durable commit refer to it, so what came before may go.
        log.hold("state", LogName::Audit, partition, Some(referred.audit_next));
        if let Err(error) = snapshots.prune(partition, &referred.name) {
            tracing::warn!(partition, error = %error, "old snapshots stay");
        }
    }
    let snapshot = match sealed.state {
        Some(state) => keep(log, snapshots, partition, epoch, &state)?,
        None => None,
    };
    Ok(Committed { epoch, snapshot })
}

/// Nothing is written while the log is nearly full; sinks go on and make room.
fn await_room(log: &dyn EventLog, stop: &AtomicBool) -> Result<(), LogError> {
    let mut told = false;
    loop {
        let usage = log.usage();
        if usage.percent() < tidegate_schemas::limits::SEALING_STOPS_PERCENT as u64 {
            return Ok(());
        }
        if stop.load(Ordering::Relaxed) {
            return Err(LogError::Full { used: usage.bytes, budget: usage.budget });
        }
        if !told {
            tracing::warn!(used = usage.bytes, budget = usage.budget, "log is nearly full: epochs wait for sinks to catch up");
            told = true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn keep(
    log: &dyn EventLog,
    snapshots: &Snapshots,
    partition: Partition,
    epoch: Epoch,
    state: &[u8],
) -> Result<Option<SnapshotRef>, LogError> {
    match snapshots.put(partition, epoch, state) {
        Ok(name) => {
            let commits = log.bounds(LogName::Commits, partition)?;
            let audit = log.bounds(LogName::Audit, partition)?;
            Ok(Some(SnapshotRef { epoch, name, audit_next: audit.end, commit: commits.end.saturating_sub(1) }))
        }
        Err(error) => {
            tracing::warn!(partition, epoch, error = %error, "snapshot failed: recovery will fold more outcomes");
            Ok(None)
        }
    }
}
