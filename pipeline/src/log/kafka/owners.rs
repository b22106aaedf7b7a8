//! Who may commit to a partition. One transactional producer for each: taking its id over fences the owner before, whatever
//! process it is in, once the broker has ended what that one had under way.
//!
//! ```text
//! fence ─▶ new producer, init ─▶ sweep ─▶ last record of commits: where the partition stands
//! commit ─▶ transaction ─┬─ committed
//!                        ├─ fenced          the right is lost
//!                        ├─ aborted         again, within a bound
//!                        └─ unknown, dead   new producer, init, and commits says whether it counts
//! ```
//! An owner whose commit could not be settled has lost its right: who goes on must fence, and read `commits`.

use super::clients::Clients;
use super::errors::io;
use super::membership::Membership;
use super::metrics;
use super::names::{Names, Topic};
use super::producer::{InFlight, Producer};
use super::readers::Readers;
use super::takeover::{Takeover, await_markers};
use super::transaction::{Done, Failure, Progress, Transaction};
use crate::log::calls::check_size;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_schemas::ids::{LogId, Partition};
use tidegate_schemas::limits;
use tidegate_schemas::log::{CommitUnit, LogError, LogName, Owner, Record, Written};

const COMMITS: Topic = Topic::Log(LogName::Commits);
const BACK_OFF: Duration = Duration::from_millis(100);

/// One entry for each partition.
pub struct Owners {
    clients: Arc<Clients>,
    names: Arc<Names>,
    readers: Arc<Readers>,
    log: LogId,
    slots: Vec<Mutex<Option<Owned>>>,
    generation: AtomicU64,
    in_flight: Arc<InFlight>,
    membership: Mutex<Option<Arc<Membership>>>,
}

struct Owned {
    generation: u64,
    producer: Producer,
    progress: Progress,
}

impl Owners {
    /// Nobody owns anything yet. Generations rise from one start to the next.
    pub fn new(clients: Arc<Clients>, names: Arc<Names>, readers: Arc<Readers>, log: LogId, partitions: u32) -> Self {
        let generation = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
        let slots = (0..partitions).map(|_| Mutex::default()).collect();
        let (generation, in_flight) = (AtomicU64::new(generation), Arc::default());
        Self { clients, names, readers, log, slots, generation, in_flight, membership: Mutex::default() }
    }

    /// Commits go with the group's metadata from now on, and a partition that the group gave away is not taken back.
    pub fn join(&self, membership: Option<Arc<Membership>>) {
        *self.membership.lock().unwrap_or_else(PoisonError::into_inner) = membership;
    }

    /// Makes a new owner.
    pub fn fence(&self, partition: Partition) -> Result<Owner, LogError> {
        let mut slot = self.slot(partition);
        // Whatever comes of it, the owner before has lost its right.
        *slot = None;
        let (producer, progress) = self.take_over(partition)?;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        *slot = Some(Owned { generation, producer, progress });
        Ok(Owner { partition, generation })
    }

    /// Drops the right to partitions. Where a commit is under way it is left: whoever comes next fences it.
    pub fn release(&self, partitions: impl IntoIterator<Item = Partition>) {
        for slot in partitions.into_iter().filter_map(|p| self.slots.get(p as usize)) {
            if let Ok(mut slot) = slot.try_lock() {
                *slot = None;
            }
        }
    }

    /// Where `raw` is processed to, where the partition is ours.
    pub fn raw_next(&self, partition: Partition) -> Option<u64> {
        self.slot(partition).as_ref().map(|o| o.progress.raw_next)
    }

    /// Writes epochs in one transaction; `room` refuses where the budget is spent.
    pub fn commit(
        &self,
        owner: &Owner,
        units: &[CommitUnit],
        room: impl Fn(usize) -> Result<(), LogError>,
    ) -> Result<Vec<Written>, LogError> {
        let partition = owner.partition;
        let mut slot = self.slot(partition);
        let fenced = || LogError::Fenced { partition, generation: owner.generation };
        let Some(owned) = slot.as_mut().filter(|o| o.generation == owner.generation) else { return Err(fenced()) };
        self.check(partition, units, owned.progress)?;
        room(units.iter().flat_map(|u| u.clean.iter().chain(&u.audit)).map(Record::size).sum())?;
        let result = self.settle(partition, owned, units);
        match result {
            Ok(done) => {
                owned.progress = done.progress;
                Ok(done.written)
            }
            Err(error) => {
                if !matches!(error, Refused::Whole(_)) {
                    *slot = None;
                }
                Err(match error {
                    Refused::Fenced => {
                        metrics::fenced();
                        fenced()
                    }
                    Refused::Whole(error) | Refused::Lost(error) => error,
                })
            }
        }
    }

    fn check(&self, partition: Partition, units: &[CommitUnit], progress: Progress) -> Result<(), LogError> {
        let (mut raw_next, mut bytes) = (progress.raw_next, 0);
        let known = units.last().map_or(0, |u| u.raw_next);
        let raw = Topic::Log(LogName::Raw);
        // What was read of it is known to be there; the rest is asked for.
        let mut raw_end = self.readers.ends.known_end(raw, partition).max(raw_next);
        if known > raw_end {
            raw_end = self.readers.ends.fresh(raw, partition)?.end;
        }
        for unit in units {
            if unit.raw_next < raw_next || unit.raw_next > raw_end {
                let detail = format!("it says that raw is processed up to {}, not in {raw_next}..={raw_end}", unit.raw_next);
                return Err(io(format!("commit epoch {} of partition {partition}", unit.epoch), detail));
            }
            raw_next = unit.raw_next;
            for record in unit.clean.iter().chain(&unit.audit) {
                check_size(record)?;
                bytes += record.size();
            }
        }
        if bytes > limits::COMMIT_BYTES_MAX {
            return Err(LogError::TooLarge { bytes, max: limits::COMMIT_BYTES_MAX });
        }
        Ok(())
    }

    /// Tries until it is known what became of the units.
    fn settle(&self, partition: Partition, owned: &mut Owned, units: &[CommitUnit]) -> Result<Done, Refused> {
        let (membership, mut last) = (self.membership(), None);
        for attempt in 0..limits::KAFKA_COMMIT_TRIES_MAX {
            if attempt > 0 {
                std::thread::sleep(BACK_OFF * attempt as u32);
            }
            let (producer, in_flight, names) = (&owned.producer, &self.in_flight, &*self.names);
            let transaction = Transaction { producer, in_flight, names, partition, membership: membership.as_deref() };
            match transaction.run(units, owned.progress) {
                Ok(done) => {
                    if self.shows(partition, owned.progress, done.progress) {
                        return Ok(done);
                    }
                    tracing::warn!(partition, "a commit does not show: it is read back");
                    metrics::settled();
                    if self.renew(partition, owned, Some(done.progress))? {
                        return Ok(done);
                    }
                }
                Err(Failure::Fenced) => return Err(Refused::Fenced),
                Err(Failure::TooLarge(bytes)) => {
                    self.renew(partition, owned, None)?;
                    return Err(Refused::Whole(LogError::TooLarge { bytes, max: limits::RECORD_BYTES_MAX }));
                }
                Err(Failure::Abortable(error)) => {
                    metrics::aborted();
                    tracing::warn!(partition, %error, "transaction aborted");
                    last = Some(error);
                    self.renew(partition, owned, None)?;
                }
                Err(Failure::Dead(error)) => {
                    tracing::warn!(partition, %error, "the committer is made anew");
                    last = Some(error);
                    self.renew(partition, owned, None)?;
                }
                Err(Failure::Unknown(done, error)) => {
                    tracing::warn!(partition, %error, "the outcome of a commit is unknown: it is read back");
                    metrics::settled();
                    last = Some(error);
                    if self.renew(partition, owned, Some(done.progress))? {
                        return Ok(*done);
                    }
                }
            }
        }
        let detail = self.clients.told.explain(last.map_or_else(String::new, |e| e.to_string()));
        Err(Refused::Lost(io(format!("commit to partition {partition}"), detail)))
    }

    /// Whether everybody sees a commit. One that shows in part is none yet: who takes over commits the rest of it.
    fn shows(&self, partition: Partition, before: Progress, after: Progress) -> bool {
        // Each with the offset of its marker.
        let markers: Vec<(Topic, u64)> = [
            (COMMITS, before.last, after.last.map(|l| l + 1)),
            (Topic::Log(LogName::Clean), Some(before.clean_next), Some(after.clean_next)),
            (Topic::Log(LogName::Audit), Some(before.audit_next), Some(after.audit_next)),
        ]
        .into_iter()
        .filter(|(_, before, after)| after > before)
        .filter_map(|(topic, _, marker)| Some((topic, marker?)))
        .collect();
        await_markers(&self.readers, partition, &markers).unwrap_or(false)
    }

    /// Puts a new producer in place of one that is of no use, and tells whether `written` counts. Where neither that nor
    /// what was before is the last of `commits`, somebody else was here.
    fn renew(&self, partition: Partition, owned: &mut Owned, written: Option<Progress>) -> Result<bool, Refused> {
        if self.membership().is_some_and(|m| !m.has(partition)) {
            // Taking it back would fence whom the group gave it to.
            return Err(Refused::Fenced);
        }
        let (producer, progress) = self.take_over(partition).map_err(Refused::Lost)?;
        owned.producer = producer;
        if written.is_some_and(|w| w.last == progress.last) {
            return Ok(true);
        }
        if owned.progress.last == progress.last { Ok(false) } else { Err(Refused::Fenced) }
    }

    fn take_over(&self, partition: Partition) -> Result<(Producer, Progress), LogError> {
        let Self { clients, names, readers, in_flight, log, .. } = self;
        Takeover { clients, names, readers, in_flight, log: *log, partition }.run()
    }

    fn membership(&self) -> Option<Arc<Membership>> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn slot(&self, partition: Partition) -> MutexGuard<'_, Option<Owned>> {
        self.slots[partition as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an owner's commit did not count.
enum Refused {
    /// Nothing was written, and the right is as before.
    Whole(LogError),
    /// Somebody else has the right.
    Fenced,
    /// The right is lost; `commits` says what counts.
    Lost(LogError),
}
