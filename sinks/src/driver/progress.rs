//! How far a sink has come: what receipts, `/ready` and metrics read.

use super::{Parked, Step};
use hashbrown::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tidegate_schemas::ids::{Epoch, Partition};
use tidegate_schemas::sink::Target;
use tidegate_schemas::time::Micros;
use tokio::sync::Notify;

/// How far one partition is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Records of `clean` that were not read yet.
    pub records: u64,
    /// The last epoch read.
    pub read: Epoch,
    /// Its recorded time; 0 before the first.
    pub read_at: Micros,
    /// Every epoch up to this one is durable.
    pub settled: Epoch,
}

#[derive(Default)]
struct State {
    active: bool,
    read: Epoch,
    read_at: Micros,
    settled: Epoch,
    unread: u64,
    /// Targets with rows that are not durable, and the first epoch of those.
    pending: HashMap<Target, Epoch>,
    parked: HashMap<Target, Parked>,
    stopped: Option<String>,
}

/// Shared with the driver that it belongs to.
pub struct Progress {
    partitions: Vec<Mutex<State>>,
    paused: AtomicBool,
    resumed: Notify,
    failing: Mutex<Option<String>>,
}

impl Progress {
    pub(super) fn new(partitions: u32) -> Self {
        Self {
            partitions: (0..partitions).map(|_| Mutex::default()).collect(),
            paused: AtomicBool::new(false),
            resumed: Notify::new(),
            failing: Mutex::new(None),
        }
    }

    /// Whether this process delivers the partition: nothing is known here of others.
    pub fn is_active(&self, partition: Partition) -> bool {
        self.state(partition).is_some_and(|s| s.active)
    }

    /// Every row of every epoch up to this one is durable in the sink. Parked rows are not.
    pub fn settled(&self, partition: Partition) -> Epoch {
        self.state(partition).map_or(0, |s| s.settled)
    }

    /// Every row of this target in epochs up to this one is durable. After a restart it begins at the cursor.
    pub fn through(&self, partition: Partition, target: &Target) -> Epoch {
        let Some(state) = self.state(partition) else { return 0 };
        let pending = state.pending.get(target).map(|first| first - 1);
        let parked = state.parked.get(target).map(|parked| parked.first - 1);
        [pending, parked].into_iter().flatten().fold(state.read, Epoch::min)
    }

    /// Tables that wait for somebody to mend them.
    pub fn parked(&self) -> Vec<Parked> {
        let mut all: Vec<Parked> = self.partitions.iter().flat_map(|s| lock(s).parked.values().cloned().collect::<Vec<_>>()).collect();
        all.sort_by(|a, b| (a.partition, &a.target).cmp(&(b.partition, &b.target)));
        all
    }

    /// Partitions that cannot go on, each with the reason.
    pub fn stopped(&self) -> Vec<(Partition, String)> {
        let reason = |(i, s): (usize, &Mutex<State>)| lock(s).stopped.clone().map(|why| (i as Partition, why));
        self.partitions.iter().enumerate().filter_map(reason).collect()
    }

    /// What is being tried again right now, if anything is.
    pub fn failure(&self) -> Option<String> {
        lock(&self.failing).clone()
    }

    /// How far one partition is behind.
    pub fn lag(&self, partition: Partition) -> Lag {
        let Some(s) = self.state(partition) else { return Lag::default() };
        Lag { records: s.unread, read: s.read, read_at: s.read_at, settled: s.settled }
    }

    /// Stops reading and delivering, or goes on. What is under way is finished.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
        if !paused {
            self.resumed.notify_waiters();
        }
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    pub(super) async fn resumed(&self) {
        let notified = self.resumed.notified();
        if self.is_paused() {
            notified.await;
        }
    }

    pub(super) fn begin(&self, partition: Partition, settled: Epoch, parked: Vec<Parked>) {
        if let Some(mut state) = self.state(partition) {
            *state = State { active: true, read: settled, ..State::default() };
            state.parked = parked.into_iter().map(|p| (p.target.clone(), p)).collect();
            state.settle();
        }
    }

    pub(super) fn end(&self, partition: Partition) {
        if let Some(mut state) = self.state(partition) {
            *state = State::default();
        }
    }

    pub(super) fn read(&self, partition: Partition, step: &Step) {
        let Some(mut state) = self.state(partition) else { return };
        for (target, epoch) in &step.opened {
            state.pending.entry(target.clone()).or_insert(*epoch);
        }
        if let Some((epoch, at)) = step.read {
            (state.read, state.read_at) = (epoch, at);
            state.settle();
        }
    }

    pub(super) fn unread(&self, partition: Partition, records: u64) {
        if let Some(mut state) = self.state(partition) {
            state.unread = records;
        }
    }

    pub(super) fn delivered(&self, partition: Partition, target: &Target, open_since: Option<Epoch>) {
        let Some(mut state) = self.state(partition) else { return };
        match open_since {
            Some(first) => state.pending.insert(target.clone(), first),
            None => state.pending.remove(target),
        };
    }

    pub(super) fn settle(&self, partition: Partition) {
        if let Some(mut state) = self.state(partition) {
            state.settle();
        }
    }

    pub(super) fn park(&self, parked: Parked) {
        if let Some(mut state) = self.state(parked.partition) {
            state.parked.insert(parked.target.clone(), parked);
            state.settle();
        }
    }

    pub(super) fn unpark(&self, partition: Partition, target: &Target) {
        if let Some(mut state) = self.state(partition) {
            state.parked.remove(target);
            state.settle();
        }
    }

    pub(super) fn stop(&self, partition: Partition, why: &str) {
        if let Some(mut state) = self.state(partition) {
            state.stopped = Some(why.to_owned());
        }
    }

    /// A partition that could not be read can be again.
    pub(super) fn reads_again(&self, partition: Partition) {
        let mut failing = lock(&self.failing);
        if failing.as_ref().is_some_and(|what| what.starts_with(&format!("reading partition {partition}:"))) {
            *failing = None;
        }
    }

    pub(super) fn failing(&self, what: Option<String>) {
        *lock(&self.failing) = what;
    }

    fn state(&self, partition: Partition) -> Option<MutexGuard<'_, State>> {
        self.partitions.get(partition as usize).map(lock)
    }
}

impl State {
    fn settle(&mut self) {
        let waiting = self.pending.values().chain(self.parked.values().map(|p| &p.first)).min();
        self.settled = waiting.map_or(self.read, |first| self.read.min(first - 1));
    }
}

/// Nothing that holds these locks can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
