//! Which partitions this process works on, and which worker each is with: all of an embedded log, and what the consumer
//! group gives of a shared one.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate_schemas::ids::Partition;

/// The partitions of a process. Whoever assigns adds and removes; workers ask what is theirs and tell what they run.
#[derive(Debug)]
pub struct Assignment {
    workers: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    worker_of: BTreeMap<Partition, usize>,
    running: BTreeSet<Partition>,
    stopped: BTreeMap<Partition, Stopped>,
}

/// Why a partition stands still, until it has gone on for a while.
#[derive(Debug, Clone, Serialize)]
pub struct Stopped {
    /// Which.
    pub partition: Partition,
    /// Tries in a row that failed.
    pub tries: u32,
    /// How the last of them did.
    pub failure: String,
}

impl Assignment {
    /// Nothing yet, for so many workers.
    pub fn new(workers: usize) -> Self {
        Self { workers: workers.max(1), state: Mutex::default(), changed: Condvar::new() }
    }

    /// How many workers share the partitions.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Gives partitions to the workers that have the fewest.
    pub fn add(&self, partitions: impl IntoIterator<Item = Partition>) {
        let mut state = self.lock();
        for partition in partitions {
            let load = |w: &usize| (state.worker_of.values().filter(|of| *of == w).count(), *w);
            let worker = (0..self.workers).min_by_key(load).unwrap_or(0);
            state.worker_of.entry(partition).or_insert(worker);
        }
    }

    /// Takes partitions away and waits until no worker runs them; tells whether that came within the time. What a worker
    /// still does later is fenced by the next owner.
    pub fn remove(&self, partitions: &[Partition], within: Duration) -> bool {
        let mut state = self.lock();
        state.worker_of.retain(|p, _| !partitions.contains(p));
        let busy = |state: &mut State| partitions.iter().any(|p| state.running.contains(p));
        let (state, waited) = self.changed.wait_timeout_while(state, within, busy).unwrap_or_else(PoisonError::into_inner);
        drop(state);
        !waited.timed_out()
    }

    /// The partitions of one worker.
    pub fn of(&self, worker: usize) -> Vec<Partition> {
        self.lock().worker_of.iter().filter(|(_, w)| **w == worker).map(|(p, _)| *p).collect()
    }

    /// A worker begins with a partition; refused while another worker has not let go of it.
    pub fn begin(&self, partition: Partition) -> bool {
        self.lock().running.insert(partition)
    }

    /// A partition stands still, and is tried again.
    pub fn stopped(&self, stopped: Stopped) {
        self.lock().stopped.insert(stopped.partition, stopped);
    }

    /// A partition goes on.
    pub fn goes_on(&self, partition: Partition) {
        self.lock().stopped.remove(&partition);
    }

    /// What stands still.
    pub fn all_stopped(&self) -> Vec<Stopped> {
        self.lock().stopped.values().cloned().collect()
    }

    /// A worker has let go of a partition.
    pub fn end(&self, partition: Partition) {
        let mut state = self.lock();
        state.running.remove(&partition);
        state.stopped.remove(&partition);
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
