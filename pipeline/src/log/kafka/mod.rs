//! The five logs on Apache Kafka: any number of processes share them.
//!
//! ```text
//! <prefix>raw control       publisher (idempotent)                 requests, definitions
//! <prefix>clean audit       transactional producer a partition     an epoch is one transaction, of these
//! <prefix>commits                                                  three and the group's offset in raw
//! <prefix>meta              publisher                              log id, sinks' cursors, trim points
//! ```
//! A record's key, headers and value are those of the Kafka record, so any client reads them. Commit records carry three
//! headers more, by which the log knows where a partition stands: `tg-raw-next`, `tg-clean-next`, `tg-audit-next`.
//! Offsets have gaps, where markers of transactions and aborted records lie, and seldom a record of kind `sweep`, which says
//! nothing.
//!
//! Every call blocks for a bounded time, except `publish`, which never does. What went wrong is told with the reason
//! that the broker gave; what no retry mends is [`LogError::Unfit`] and names the remedy.

mod client;
mod clients;
mod doctor;
mod ends;
mod errors;
mod membership;
mod meta;
mod metrics;
mod names;
mod owners;
mod producer;
mod publisher;
mod reader;
mod readers;
mod retention;
mod settings;
mod takeover;
mod topics;
mod transaction;

pub use doctor::examine;
pub use membership::{Ack, Membership, MembershipEvent};
pub use settings::{KafkaSettings, Mechanism, Sasl, Tls};

use super::calls::{check_partition, check_size, fullest};
use super::holds::Holds;
use super::sharing::Work;
use clients::Clients;
use crossbeam_channel::Receiver;
use meta::Meta;
use names::{Names, Topic};
use owners::Owners;
use publisher::Publisher;
use readers::Readers;
use retention::Sizes;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_schemas::BoxFuture;
use tidegate_schemas::fault;
use tidegate_schemas::ids::{LogId, Partition};
use tidegate_schemas::limits;
use tidegate_schemas::log::{CommitUnit, Entry, EventLog, LogError, LogName, Owner, Record, SinkCursor, Usage, Written};
use tokio::sync::oneshot;
use topics::Topics;

/// How a log is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// How Kafka is reached.
    pub kafka: KafkaSettings,
    /// Partitions of every log but `control`; fixed when the log is created.
    pub partitions: u32,
    /// Bytes of all logs together, before compression and replication.
    pub budget_bytes: u64,
    /// Replay horizon: processed requests are kept for so long.
    pub raw_horizon: Duration,
    /// Receipt horizon: delivered output is kept for so long.
    pub audit_horizon: Duration,
    /// The log that it must be, where this process has met it before.
    pub expected: Option<LogId>,
    /// Goes on where records were deleted by somebody else, and records the gap.
    pub accept_gap: bool,
    /// Makes a log where there is none.
    pub create: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kafka: KafkaSettings::default(),
            partitions: 4,
            budget_bytes: limits::LOG_BUDGET_BYTES as u64,
            raw_horizon: Duration::from_secs(24 * 3600),
            audit_horizon: Duration::from_secs(7 * 24 * 3600),
            expected: None,
            accept_gap: false,
            create: true,
        }
    }
}

/// The five logs on Kafka.
pub struct KafkaLog {
    id: LogId,
    partitions: u32,
    options: Options,
    clients: Arc<Clients>,
    names: Arc<Names>,
    readers: Arc<Readers>,
    publisher: Arc<Publisher>,
    meta: Meta,
    owners: Owners,
    holds: Holds,
    sizes: Sizes,
    /// One trim at a time.
    trimming: Mutex<()>,
}

impl KafkaLog {
    /// Opens the log of a topic prefix, and creates it where there is none.
    pub fn open(options: Options) -> Result<Arc<Self>, LogError> {
        let began = Instant::now();
        let partitions = options.partitions;
        if partitions == 0 || partitions as usize > limits::PARTITIONS_MAX {
            let detail = format!("{partitions} partitions were asked for; 1 to {} are possible", limits::PARTITIONS_MAX);
            return Err(LogError::Io { doing: "open log".into(), detail });
        }
        let clients = Arc::new(Clients::new(options.kafka.clone())?);
        let names = Arc::new(Names::new(&options.kafka)?);
        let readers = Arc::new(Readers::new(Arc::clone(&clients), Arc::clone(&names), partitions)?);
        let publisher = Arc::new(Publisher::new(Arc::clone(&clients))?);
        let topics = Topics::new(&clients, &names, partitions, &readers.ends);
        let (id, meta) = identify(&topics, &options, &readers, &publisher, &names)?;
        topics.check_settings()?;
        drop(topics);
        let owners = Owners::new(Arc::clone(&clients), Arc::clone(&names), Arc::clone(&readers), id, partitions);
        let (holds, sizes, trimming) = (Holds::default(), Sizes::default(), Mutex::default());
        let log = Self { id, partitions, options, clients, names, readers, publisher, meta, owners, holds, sizes, trimming };
        retention::check_starts(&log, log.options.accept_gap)?;
        retention::measure(&log)?;
        metrics::usage(log.usage());
        tracing::info!(log = %id, bytes = log.usage().bytes, seconds = began.elapsed().as_secs_f64(), "log is open");
        Ok(Arc::new(log))
    }

    /// Joins the group of a kind of work; on a revocation the group waits for `revoke` at most. Where it is processing,
    /// commits go with the group's metadata from now on, and a partition that the group gave away is not taken back.
    pub fn join(&self, work: Work, revoke: Duration) -> Result<(Arc<Membership>, Receiver<MembershipEvent>), LogError> {
        let prefix = &self.options.kafka.topic_prefix;
        let (log, group) = match work {
            Work::Process => (LogName::Raw, format!("{prefix}process")),
            Work::Sink(sink) => (LogName::Clean, format!("{prefix}sink.{sink}")),
        };
        let (membership, events) = Membership::join(&self.clients, &group, self.names.of(Topic::Log(log)), revoke)?;
        let membership = Arc::new(membership);
        if work == Work::Process {
            self.owners.join(Some(Arc::clone(&membership)));
        }
        Ok((membership, events))
    }

    /// Leaves the group of processing, once nobody else holds the membership.
    pub fn leave(&self) {
        self.owners.join(None);
        self.owners.release(0..self.partitions);
    }

    /// Drops the right to commit to partitions, and to trim them.
    pub fn release(&self, partitions: &[Partition]) {
        self.owners.release(partitions.iter().copied());
    }

    /// Looks whether the topics are as they were: all there, with as many partitions.
    pub fn check(&self) -> Result<(), LogError> {
        let topics = Topics::new(&self.clients, &self.names, self.partitions, &self.readers.ends);
        check_counts(&topics, self.id)
    }

    /// Sends what is queued, and drops the right to commit. Everything but reading fails from then on.
    pub fn close(&self) {
        self.publisher.close();
        self.owners.join(None);
        self.owners.release(0..self.partitions);
    }

    /// Refuses where `bytes` more would pass `percent` of the budget.
    fn check_budget(&self, bytes: usize, percent: usize, what: &'static str) -> Result<(), LogError> {
        let Usage { bytes: used, budget } = self.usage();
        if used.saturating_add(bytes as u64) <= budget.saturating_mul(percent as u64) / 100 {
            return Ok(());
        }
        metrics::refused(what);
        Err(LogError::Full { used, budget })
    }

    /// What was read is there, and has a size.
    fn note(&self, log: LogName, partition: Partition, entries: &[Entry]) {
        if let Some(last) = entries.last() {
            self.readers.ends.note(Topic::Log(log), partition, last.offset + 1);
            self.sizes.see(Topic::Log(log), entries.len(), entries.iter().map(|e| e.record.size()).sum());
        }
    }

    fn queue(&self, log: LogName, records: &[(Partition, Record)]) -> Result<oneshot::Receiver<Result<Vec<u64>, LogError>>, LogError> {
        if !matches!(log, LogName::Raw | LogName::Control) {
            let detail = "only the commit of an epoch writes there".into();
            return Err(LogError::Io { doing: format!("publish to {}", log.as_str()), detail });
        }
        for (partition, record) in records {
            check_partition(log, *partition, self.partitions)?;
            check_size(record)?;
        }
        let (topic, bytes) = (Topic::Log(log), records.iter().map(|(_, r)| r.size()).sum());
        if log == LogName::Raw {
            self.check_budget(bytes, limits::INTAKE_STOPS_PERCENT, "publish")?;
            fault::point("publish.before_write");
        }
        let (tell, told) = oneshot::channel();
        let (readers, partitions) = (Arc::clone(&self.readers), records.iter().map(|(p, _)| *p).collect::<Vec<_>>());
        self.publisher.publish(self.names.of(topic), records, move |result| {
            if let Ok(offsets) = &result {
                for (partition, offset) in partitions.iter().zip(offsets) {
                    readers.ends.note(topic, *partition, offset + 1);
                }
                if log == LogName::Raw {
                    fault::point("publish.after_sync");
                }
            }
            // Who asked may have gone; the records are durable all the same.
            let _ = tell.send(result);
        })?;
        self.sizes.see(topic, records.len(), bytes);
        self.sizes.grow(bytes);
        Ok(told)
    }
}

/// Finds or makes the topics, and the id.
fn identify(
    topics: &Topics<'_>,
    options: &Options,
    readers: &Arc<Readers>,
    publisher: &Arc<Publisher>,
    names: &Arc<Names>,
) -> Result<(LogId, Meta), LogError> {
    topics.connect()?;
    let logs = LogName::ALL.map(Topic::Log);
    if readers.ends.look(Topic::Meta)?.is_none() {
        // It is made before the others, so without it there is no log, or no longer.
        let others = logs.iter().try_fold(false, |any, topic| Ok::<_, LogError>(any || readers.ends.look(*topic)?.is_some()))?;
        if others {
            readers.ends.confirm(Topic::Meta, 0)?;
        } else if !options.create {
            return Err(absent(names));
        } else {
            topics.create(&[Topic::Meta])?;
        }
    }
    let meta = Meta::open(Arc::clone(publisher), Arc::clone(readers), Arc::clone(names))?;
    let (id, partitions) = match meta.identity()? {
        Some(found) => found,
        None if !options.create => return Err(absent(names)),
        None => {
            topics.create(&logs)?;
            for topic in logs {
                let found = readers.ends.look(topic)?.map_or(0, |(partitions, _)| partitions);
                let empty = (0..found.min(topic.width(options.partitions)))
                    .try_fold(true, |empty, p| Ok::<_, LogError>(empty && readers.ends.fresh(topic, p)?.end == 0))?;
                if !empty {
                    return Err(errors::deleted(names.of(Topic::Meta)));
                }
            }
            meta.mint(options.partitions)?
        }
    };
    let foreign = |detail: String| LogError::Foreign { found: id, found_partitions: partitions, detail };
    if partitions != options.partitions {
        return Err(foreign(format!("one with {} was expected: a log keeps the partitions it was made with", options.partitions)));
    }
    if let Some(expected) = options.expected.filter(|e| *e != id) {
        let prefix = &options.kafka.topic_prefix;
        return Err(foreign(format!(
            "{expected} was expected: name its log.kafka.topic_prefix instead of {prefix:?}, or take a new data folder"
        )));
    }
    check_counts(topics, id)?;
    Ok((id, meta))
}

fn absent(names: &Names) -> LogError {
    LogError::Unfit {
        place: format!("topic {}", names.of(Topic::Meta)),
        detail: "there is no log under this log.kafka.topic_prefix".into(),
        remedy: "name the prefix that processes run with, or start one with a new data folder: it makes the topics".into(),
    }
}

fn check_counts(topics: &Topics<'_>, id: LogId) -> Result<(), LogError> {
    for topic in Topic::ALL {
        let name = topics.names.of(topic);
        topics.ends.confirm(topic, 0)?;
        let (wanted, found) = (topic.width(topics.partitions), topics.ends.look(topic)?.map_or(0, |(partitions, _)| partitions));
        if found != wanted {
            return Err(LogError::Unfit {
                place: format!("topic {name}"),
                detail: format!("it has {found} partitions, and log {id} was made with {wanted}: keys lead to other partitions since"),
                remedy: "restore the topic with its partitions, or drain it into a new log with another log.kafka.topic_prefix".into(),
            });
        }
    }
    Ok(())
}

impl EventLog for KafkaLog {
    fn log_id(&self) -> LogId {
        self.id
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn publish(&self, log: LogName, records: Vec<(Partition, Record)>) -> BoxFuture<'_, Result<Vec<u64>, LogError>> {
        // Queued by the call and not by the first poll, so that calls keep their order.
        let queued = self.queue(log, &records);
        Box::pin(async move { queued?.await.unwrap_or(Err(LogError::Closed)) })
    }

    fn bounds(&self, log: LogName, partition: Partition) -> Result<Range<u64>, LogError> {
        check_partition(log, partition, self.partitions)?;
        self.readers.ends.bounds(Topic::Log(log), partition)
    }

    fn read(&self, log: LogName, partition: Partition, from: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        check_partition(log, partition, self.partitions)?;
        let entries = self.readers.read(Topic::Log(log), partition, from, bytes_max)?;
        self.note(log, partition, &entries);
        Ok(entries)
    }

    fn poll(&self, log: LogName, partition: Partition, from: u64, bytes_max: usize, timeout: Duration) -> Result<Vec<Entry>, LogError> {
        check_partition(log, partition, self.partitions)?;
        let entries = self.readers.poll(Topic::Log(log), partition, from, bytes_max, timeout)?;
        self.note(log, partition, &entries);
        Ok(entries)
    }

    fn fence(&self, partition: Partition) -> Result<Owner, LogError> {
        check_partition(LogName::Commits, partition, self.partitions)?;
        self.owners.fence(partition)
    }

    fn commit(&self, owner: &Owner, units: Vec<CommitUnit>) -> Result<Vec<Written>, LogError> {
        check_partition(LogName::Commits, owner.partition, self.partitions)?;
        let (mut records, mut bytes) = (0, 0);
        for unit in &units {
            for (name, list) in [(LogName::Clean, &unit.clean), (LogName::Audit, &unit.audit)] {
                let size = list.iter().map(Record::size).sum();
                self.sizes.see(Topic::Log(name), list.len(), size);
                records += list.len();
                bytes += size;
            }
        }
        let room = |bytes| self.check_budget(bytes, fullest(bytes), "commit");
        let written = self.owners.commit(owner, &units, room)?;
        tracing::trace!(partition = owner.partition, epochs = units.len(), records, "committed");
        self.sizes.grow(bytes);
        Ok(written)
    }

    fn cursor(&self, sink: &str, partition: Partition) -> Result<Option<SinkCursor>, LogError> {
        self.meta.cursor(sink, partition)
    }

    fn store_cursor(&self, sink: &str, partition: Partition, cursor: SinkCursor) -> Result<(), LogError> {
        check_partition(LogName::Clean, partition, self.partitions)?;
        self.meta.store_cursor(sink, partition, cursor)
    }

    fn sinks(&self) -> Result<Vec<String>, LogError> {
        self.meta.sinks()
    }

    fn forget_sink(&self, sink: &str) -> Result<(), LogError> {
        self.meta.forget_sink(sink)
    }

    fn hold(&self, name: &str, log: LogName, partition: Partition, from: Option<u64>) {
        self.holds.set(name, log, partition, from);
    }

    fn trim(&self) -> Result<u64, LogError> {
        let _one = self.trimming.lock().unwrap_or_else(PoisonError::into_inner);
        retention::trim(self)
    }

    fn failing(&self) -> Option<LogError> {
        let told = &self.clients.told;
        let brokers = self.options.kafka.brokers.join(", ");
        told.is_down().then(|| errors::io(format!("reach log.kafka.brokers {brokers}"), told.explain("none of them answers")))
    }

    fn usage(&self) -> Usage {
        Usage { bytes: self.sizes.estimate() + self.publisher.queued(), budget: self.options.budget_bytes }
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.close();
    }
}
