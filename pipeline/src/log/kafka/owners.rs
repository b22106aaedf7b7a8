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
use super::errors::{self, io};
use super::membership::Membership;
use super::metrics;
use super::names::{Names, Topic};
use super::producer::{InFlight, Producer, send_and_wait};
use super::readers::Readers;
use super::transaction::{AUDIT_NEXT, CLEAN_NEXT, Done, Failure, Progress, RAW_NEXT, Transaction};
use crate::log::calls::check_size;
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_schemas::ids::{LogId, Partition};
use tidegate_schemas::limits;
use tidegate_schemas::log::{CommitUnit, Header, LogError, LogName, Owner, Record, Written};

const COMMITS: Topic = Topic::Log(LogName::Commits);
const REQUEST: Duration = Duration::from_secs(limits::KAFKA_REQUEST_SECONDS_MAX as u64);
/// Markers come within milliseconds.
const MARKERS: Duration = Duration::from_secs(5);
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
                    // The answer comes before the marker, and a coordinator that starts may skip it: only what `commits` shows
                    // is committed, since whoever takes over sweeps the rest.
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
                    let abort = self.abort(&transaction);
                    let error = LogError::TooLarge { bytes, max: limits::RECORD_BYTES_MAX };
                    return Err(if abort.is_ok() { Refused::Whole(error) } else { Refused::Lost(error) });
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

    /// Waits until everybody sees a commit: the answer to it comes before its markers are written. Tells whether `commits`
    /// shows it within the time that markers take; a stranger's transaction may hide the rest of it for longer.
    fn shows(&self, partition: Partition, before: Progress, after: Progress) -> bool {
        // Each with the offset of its marker.
        let ends: Vec<(Topic, u64)> = [
            (COMMITS, before.last, after.last.map(|l| l + 1)),
            (Topic::Log(LogName::Clean), Some(before.clean_next), Some(after.clean_next)),
            (Topic::Log(LogName::Audit), Some(before.audit_next), Some(after.audit_next)),
        ]
        .into_iter()
        .filter(|(_, before, after)| after > before)
        .filter_map(|(topic, _, marker)| Some((topic, marker?)))
        .collect();
        let topics: Vec<Topic> = ends.iter().map(|(topic, _)| *topic).collect();
        let deadline = Instant::now() + MARKERS;
        loop {
            let found = if topics.is_empty() { Vec::new() } else { self.readers.ends.latest(&topics, partition).unwrap_or_default() };
            let shown: Vec<bool> = ends.iter().enumerate().map(|(i, (_, marker))| found.get(i).is_some_and(|end| end > marker)).collect();
            if shown.iter().all(|s| *s) {
                break;
            }
            if Instant::now() > deadline {
                if shown[0] {
                    tracing::warn!(partition, "an epoch is committed, and somebody else's open transaction hides it");
                }
                return shown[0];
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        for (topic, marker) in ends {
            self.readers.ends.note(topic, partition, marker + 1);
            self.readers.note_empty(topic, partition, marker..marker + 1);
        }
        true
    }

    fn abort(&self, transaction: &Transaction<'_>) -> Result<(), Failure> {
        let mut left = 3;
        loop {
            match transaction.producer.abort_transaction(REQUEST) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(e)) if e.is_retriable() && left > 0 => left -= 1,
                Err(error) => return Err(transaction.failed(error)),
            }
        }
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

    /// Aborts a transaction of its own over all that a commit writes to, and with it whatever an owner before left open there.
    ///
    /// A coordinator that starts ends transactions that are overdue before it knows the leader of every partition, and takes
    /// those without one for deleted (Kafka 4.4: "these partitions are likely deleted already and hence can be skipped"):
    /// they get no marker, their records stay open, and the next commit under the same id would commit them as well.
    fn sweep(&self, partition: Partition, producer: &Producer) -> Result<(), LogError> {
        let doing = || format!("take partition {partition} over");
        let failed = |error: KafkaError| io(doing(), self.clients.told.explain(error));
        producer.begin_transaction().map_err(failed)?;
        let record = Record { headers: vec![Header::new("tg-kind", "sweep")], ..Record::default() };
        let topics = [LogName::Clean, LogName::Audit, LogName::Commits].map(|log| self.names.of(Topic::Log(log)));
        let records = topics.map(|topic| (topic, partition, &record));
        send_and_wait(producer, &self.in_flight, &records).map_err(failed)?;
        producer.abort_transaction(REQUEST).map_err(failed)
    }

    /// Takes the id over. Once this returns, what others had under way is committed or aborted.
    fn take_over(&self, partition: Partition) -> Result<(Producer, Progress), LogError> {
        let doing = || format!("take partition {partition} over");
        let deadline = Instant::now() + Duration::from_secs(limits::KAFKA_COMMIT_SECONDS_MAX as u64);
        let id = self.names.transactional_id(self.log, partition);
        let producer = 'init: loop {
            let producer = self.clients.transactional(&id)?;
            loop {
                let Err(error) = producer.init_transactions(REQUEST) else { break 'init producer };
                let late = Instant::now() > deadline;
                match &error {
                    KafkaError::Transaction(e) if e.is_retriable() && !late => {}
                    // Somebody took it over at the same moment; the last one has it.
                    KafkaError::Transaction(e) if errors::is_fenced(e.code()) && !late => break,
                    error => {
                        return Err(match errors::of_topic("commit to", self.names.of(COMMITS), error) {
                            unfit @ LogError::Unfit { .. } => unfit,
                            _ => io(doing(), self.clients.told.explain(error)),
                        });
                    }
                }
                std::thread::sleep(BACK_OFF);
            }
        };
        self.sweep(partition, &producer)?;
        let progress = self.progress(partition)?;
        for (log, known) in
            [(LogName::Raw, progress.raw_next), (LogName::Clean, progress.clean_next), (LogName::Audit, progress.audit_next)]
        {
            let topic = Topic::Log(log);
            let end = self.readers.ends.fresh(topic, partition)?.end;
            if end < known {
                return Err(errors::truncated(self.names.of(topic), partition, end, known));
            }
        }
        Ok((producer, progress))
    }

    /// Where the last record of `commits` says that the partition stands.
    fn progress(&self, partition: Partition) -> Result<Progress, LogError> {
        let bounds = self.readers.ends.fresh(COMMITS, partition)?;
        // Markers and aborted transactions leave gaps, so look back in growing steps.
        let mut back = 16;
        while !bounds.is_empty() {
            let from = bounds.end.saturating_sub(back).max(bounds.start);
            let (mut at, mut found) = (from, None);
            while at < bounds.end {
                let entries = self.readers.read(COMMITS, partition, at, limits::READ_BYTES_MAX)?;
                let Some(last) = entries.into_iter().next_back() else { break };
                at = last.offset + 1;
                found = Some(last);
            }
            if let Some(last) = found {
                return read_progress(last.offset, &last.record).ok_or_else(|| LogError::Corrupt {
                    place: format!("topic {}, partition {partition}, offset {}", self.names.of(COMMITS), last.offset),
                    detail: "it does not say where its partition stands".into(),
                });
            }
            if from == bounds.start {
                break;
            }
            back *= 4;
        }
        if bounds.start > 0 {
            return Err(LogError::Unfit {
                place: format!("topic {}, partition {partition}", self.names.of(COMMITS)),
                detail: format!("nothing is left of it before offset {}, so nobody knows what is processed", bounds.end),
                remedy: "restore it, or begin a new log with another log.kafka.topic_prefix".into(),
            });
        }
        let start = |log| self.readers.ends.fresh(Topic::Log(log), partition).map(|b| b.end);
        Ok(Progress { last: None, raw_next: 0, clean_next: start(LogName::Clean)?, audit_next: start(LogName::Audit)? })
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

fn read_progress(offset: u64, record: &Record) -> Option<Progress> {
    let number = |name| std::str::from_utf8(record.header(name)?).ok()?.parse().ok();
    Some(Progress { last: Some(offset), raw_next: number(RAW_NEXT)?, clean_next: number(CLEAN_NEXT)?, audit_next: number(AUDIT_NEXT)? })
}
