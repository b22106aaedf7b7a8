//! One transaction: blocks of one or more epochs, their commit records, the offset up to which `raw` is processed.
//!
//! ```text
//! begin ─▶ blocks ─▶ delivered: their places are known ─▶ commit records ─▶ delivered ─▶ offsets ─▶ commit
//! ```
//! Every delivery is awaited and nothing is in flight before the commit, which otherwise takes 100 ms more.

use super::errors;
use super::membership::Membership;
use super::metrics;
use super::names::{Names, Topic};
use super::producer::{InFlight, Producer, send_and_wait};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_schemas::fault;
use tidegate_schemas::ids::Partition;
use tidegate_schemas::limits;
use tidegate_schemas::log::{CommitUnit, Header, LogName, Record, Written};

const CLEAN: Topic = Topic::Log(LogName::Clean);
const AUDIT: Topic = Topic::Log(LogName::Audit);
const COMMITS: Topic = Topic::Log(LogName::Commits);

/// Headers of a commit record by which the log itself knows where it stands.
pub const RAW_NEXT: &str = "tg-raw-next";
/// One past the last offset that the epoch or an earlier one has in `clean`.
pub const CLEAN_NEXT: &str = "tg-clean-next";
/// The same in `audit`.
pub const AUDIT_NEXT: &str = "tg-audit-next";

/// Where a partition stands after its last commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Offset of the last record of `commits`.
    pub last: Option<u64>,
    /// `raw` is processed before this.
    pub raw_next: u64,
    /// One past the last record of `clean`.
    pub clean_next: u64,
    /// One past the last record of `audit`.
    pub audit_next: u64,
}

/// What was written, and where the partition stands if it counts.
pub struct Done {
    /// Places of each epoch.
    pub written: Vec<Written>,
    /// After the last of them.
    pub progress: Progress,
}

/// Why a transaction was not committed.
pub enum Failure {
    /// Another producer has the id.
    Fenced,
    /// A record of a unit is too large; nothing was written.
    TooLarge(usize),
    /// Nothing of it counts once it is aborted, and then it may be tried again.
    Abortable(KafkaError),
    /// Nothing of it counts, but the producer is of no use any more.
    Dead(KafkaError),
    /// The commit was asked for and nobody said what became of it.
    Unknown(Box<Done>, KafkaError),
}

/// What a transaction needs.
pub struct Transaction<'a> {
    /// The partition's own producer.
    pub producer: &'a Producer,
    /// What it has under way.
    pub in_flight: &'a Arc<InFlight>,
    /// Names of topics.
    pub names: &'a Names,
    /// The partition.
    pub partition: Partition,
    /// The group, where partitions are shared by one.
    pub membership: Option<&'a Membership>,
}

impl Transaction<'_> {
    /// Writes epochs that follow on `before`.
    pub fn run(&self, units: &[CommitUnit], before: Progress) -> Result<Done, Failure> {
        let started = Instant::now();
        fault::point("commit.before_write");
        self.producer.begin_transaction().map_err(|e| self.failed(e))?;
        let (clean, audit) = (self.names.of(CLEAN), self.names.of(AUDIT));
        let blocks: Vec<_> = units
            .iter()
            .flat_map(|u| u.clean.iter().map(|r| (clean, self.partition, r)).chain(u.audit.iter().map(|r| (audit, self.partition, r))))
            .collect();
        let places = self.write(&blocks)?;
        let Described { written, mut progress, commits } = describe(units, &places, before);
        if let Some(large) = commits.iter().find(|r| crate::log::calls::check_size(r).is_err()) {
            return Err(Failure::TooLarge(large.size()));
        }
        let commits_topic = self.names.of(COMMITS);
        let records: Vec<_> = commits.iter().map(|r| (commits_topic, self.partition, r)).collect();
        progress.last = self.write(&records)?.last().copied().or(progress.last);
        self.send_offsets(progress.raw_next)?;
        // What is settled is still counted for a moment.
        while self.producer.in_flight_count() > 0 {
            std::thread::sleep(Duration::from_micros(50));
        }
        fault::point("commit.after_write");
        let done = Done { written, progress };
        self.commit(done).inspect(|_| {
            fault::point("commit.after_sync");
            metrics::committed(started.elapsed(), blocks.len() + records.len());
        })
    }

    fn write(&self, records: &[(&str, Partition, &Record)]) -> Result<Vec<u64>, Failure> {
        send_and_wait(self.producer, self.in_flight, records).map_err(|e| self.failed(e))
    }

    /// Where the group looks for it; who has no group reads it from the commit records.
    fn send_offsets(&self, raw_next: u64) -> Result<(), Failure> {
        let Some(metadata) = self.membership.and_then(Membership::metadata) else { return Ok(()) };
        let mut offsets = TopicPartitionList::with_capacity(1);
        let (topic, partition) = (self.names.of(Topic::Log(LogName::Raw)), i32::try_from(self.partition).unwrap_or(i32::MAX));
        let offset = Offset::Offset(i64::try_from(raw_next).unwrap_or(i64::MAX));
        offsets.add_partition_offset(topic, partition, offset).map_err(|e| self.failed(e))?;
        let patience = Duration::from_secs(limits::KAFKA_REQUEST_SECONDS_MAX as u64);
        self.producer.send_offsets_to_transaction(&offsets, &metadata, patience).map_err(|e| self.failed(e))
    }

    /// Asks again where no answer came: librdkafka goes on with the same commit.
    fn commit(&self, done: Done) -> Result<Done, Failure> {
        let deadline = Instant::now() + Duration::from_secs(limits::KAFKA_COMMIT_SECONDS_MAX as u64) / 2;
        loop {
            let Err(error) = self.producer.commit_transaction(Duration::from_secs(limits::KAFKA_REQUEST_SECONDS_MAX as u64)) else {
                return Ok(done);
            };
            let retriable = matches!(&error, KafkaError::Transaction(e) if e.is_retriable());
            if retriable && Instant::now() < deadline {
                continue;
            }
            return Err(match self.failed(error) {
                Failure::Dead(error) => Failure::Unknown(Box::new(done), error),
                Failure::Abortable(error) if !matches!(&error, KafkaError::Transaction(e) if e.txn_requires_abort()) => {
                    Failure::Unknown(Box::new(done), error)
                }
                failure => failure,
            });
        }
    }

    /// Which kind of failure it is. A fenced producer may hear of it by an error that looks harmless.
    pub fn failed(&self, error: KafkaError) -> Failure {
        let fatal = self.producer.client().fatal_error().map(|(code, _)| code);
        let code = errors::code(&error);
        if fatal.or(code).is_some_and(errors::is_fenced) {
            return Failure::Fenced;
        }
        // The group went on without us: where the partition is somebody else's, so is the right to commit.
        let left_behind = matches!(
            code,
            Some(RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::IllegalGeneration | RDKafkaErrorCode::FencedInstanceId)
        );
        if left_behind && self.membership.is_some_and(|m| !m.has(self.partition)) {
            return Failure::Fenced;
        }
        let is_fatal = fatal.is_some() || matches!(&error, KafkaError::Transaction(e) if e.is_fatal());
        if is_fatal { Failure::Dead(error) } else { Failure::Abortable(error) }
    }
}

struct Described {
    written: Vec<Written>,
    progress: Progress,
    commits: Vec<Record>,
}

/// Places of each epoch, and its commit record with them.
fn describe(units: &[CommitUnit], places: &[u64], before: Progress) -> Described {
    let (mut progress, mut places) = (before, places.iter().copied());
    let (mut written, mut commits) = (Vec::with_capacity(units.len()), Vec::with_capacity(units.len()));
    for unit in units {
        let mut range = |count: usize, next: &mut u64| {
            let mut own = places.by_ref().take(count);
            let start = own.next().unwrap_or(*next);
            let end = own.last().or((count > 0).then_some(start)).map_or(*next, |last| last + 1);
            *next = end;
            start.min(end)..end
        };
        let place =
            Written { clean: range(unit.clean.len(), &mut progress.clean_next), audit: range(unit.audit.len(), &mut progress.audit_next) };
        progress.raw_next = unit.raw_next;
        let mut record = (unit.commit)(&place);
        for (name, value) in [(RAW_NEXT, progress.raw_next), (CLEAN_NEXT, progress.clean_next), (AUDIT_NEXT, progress.audit_next)] {
            record.headers.push(Header::new(name, value.to_string()));
        }
        commits.push(record);
        written.push(place);
    }
    Described { written, progress, commits }
}
