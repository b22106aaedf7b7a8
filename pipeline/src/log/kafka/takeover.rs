//! Taking a partition over: whatever the owner before had under way ends, as a whole or not at all.
//!
//! ```text
//! init ─▶ what do the topics say of the last transaction? ─▶ sweep ─▶ its markers show ─▶ where the partition stands
//! ```
//! A broker does not promise as much as its transactions do. When Kafka (4.4) ends one, it skips partitions that have no
//! leader at that moment ("likely deleted already"), as after any start of a broker that leads alone: they get no marker,
//! their records stay open, and the next marker of the same id decides over them too. So one topic may show an epoch as
//! committed while another keeps its part of it open. Hence:
//!
//! - the last transaction counts where any topic shows it as committed, and then the sweep, a transaction of our own over
//!   all three topics, is committed and takes the rest with it; in all other cases it is aborted;
//! - nobody goes on before the sweep's markers show, so there is never more than one transaction to decide over.

use super::clients::Clients;
use super::errors::{self, io};
use super::names::{Names, Topic};
use super::producer::{InFlight, Producer, send_and_wait};
use super::readers::Readers;
use super::transaction::{AUDIT_NEXT, CLEAN_NEXT, Progress, RAW_NEXT};
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_schemas::ids::{LogId, Partition};
use tidegate_schemas::limits;
use tidegate_schemas::log::{Header, LogError, LogName, Record};

const CLEAN: Topic = Topic::Log(LogName::Clean);
const AUDIT: Topic = Topic::Log(LogName::Audit);
const COMMITS: Topic = Topic::Log(LogName::Commits);
const TOPICS: [Topic; 3] = [CLEAN, AUDIT, COMMITS];
const REQUEST: Duration = Duration::from_secs(limits::KAFKA_REQUEST_SECONDS_MAX as u64);
/// Markers come within milliseconds.
const MARKERS: Duration = Duration::from_secs(2);
const BACK_OFF: Duration = Duration::from_millis(100);
/// A sweep whose marker was skipped finds a leader when it is done again.
const SWEEPS_MAX: usize = 3;
const KIND: &str = "tg-kind";
const SWEEP: &str = "sweep";

/// Whether a record is one of a sweep, of which nobody reads.
pub fn is_sweep(record: &Record) -> bool {
    record.header(KIND) == Some(SWEEP.as_bytes())
}

/// What a takeover needs.
pub struct Takeover<'a> {
    /// Makes the producer.
    pub clients: &'a Clients,
    /// Names of topics.
    pub names: &'a Names,
    /// Reads what is committed.
    pub readers: &'a Readers,
    /// What is under way.
    pub in_flight: &'a Arc<InFlight>,
    /// The log.
    pub log: LogId,
    /// The partition.
    pub partition: Partition,
}

impl Takeover<'_> {
    /// Takes the id over. Once this returns, what others had under way is committed or aborted, and everybody sees which.
    pub fn run(&self) -> Result<(Producer, Progress), LogError> {
        let producer = self.init()?;
        let mut committed = false;
        let mut sweep = 1;
        loop {
            let progress = self.progress()?;
            let stray = self.stray(progress)?;
            if let (Some((topic, offset)), true) = (stray, committed) {
                return Err(self.unnamed(topic, offset));
            }
            if stray.is_some() {
                tracing::warn!(partition = self.partition, "a broker ended a commit in part: the rest of it is committed now");
            }
            let markers = self.sweep(&producer, progress, stray.is_some())?;
            let shown = await_markers(self.readers, self.partition, &markers)?;
            if shown && stray.is_none() {
                return Ok((producer, progress));
            }
            if !shown && sweep >= SWEEPS_MAX {
                tracing::warn!(partition = self.partition, "somebody else's open transaction hides what follows");
                return Ok((producer, self.progress()?));
            }
            committed = shown;
            sweep += 1;
        }
    }

    fn init(&self) -> Result<Producer, LogError> {
        let deadline = Instant::now() + Duration::from_secs(limits::KAFKA_COMMIT_SECONDS_MAX as u64);
        let id = self.names.transactional_id(self.log, self.partition);
        loop {
            let producer = self.clients.transactional(&id)?;
            loop {
                let Err(error) = producer.init_transactions(REQUEST) else { return Ok(producer) };
                let late = Instant::now() > deadline;
                match &error {
                    KafkaError::Transaction(e) if e.is_retriable() && !late => {}
                    // Somebody took it over at the same moment; the last one has it.
                    KafkaError::Transaction(e) if errors::is_fenced(e.code()) && !late => break,
                    error => {
                        return Err(match errors::of_topic("commit to", self.names.of(COMMITS), error) {
                            unfit @ LogError::Unfit { .. } => unfit,
                            _ => self.failed(error),
                        });
                    }
                }
                std::thread::sleep(BACK_OFF);
            }
        }
    }

    /// Where `clean` or `audit` says otherwise than `commits`: a record that is committed in one and open or missing in the other.
    fn stray(&self, progress: Progress) -> Result<Option<(Topic, u64)>, LogError> {
        for (topic, next) in [(CLEAN, progress.clean_next), (AUDIT, progress.audit_next)] {
            let bounds = self.readers.ends.fresh(topic, self.partition)?;
            if bounds.end < next {
                return Ok(Some((topic, bounds.end)));
            }
            // Before the first commit nothing is named.
            let from = if progress.last.is_some() { next } else { bounds.start };
            let read = if from < bounds.start { Vec::new() } else { self.readers.read(topic, self.partition, from, 1)? };
            if let Some(found) = read.first() {
                return Ok(Some((topic, found.offset)));
            }
        }
        Ok(None)
    }

    fn unnamed(&self, topic: Topic, offset: u64) -> LogError {
        LogError::Unfit {
            place: format!("topic {}, partition {}, offset {offset}", self.names.of(topic), self.partition),
            detail: "what stands here is committed, and no record of commits names it: somebody else wrote it, or a broker ended a \
                     transaction in part twice"
                .into(),
            remedy: "begin a new log with another log.kafka.topic_prefix, and give each partition more than one replica".into(),
        }
    }

    /// A transaction of its own over all that a commit writes to, after which the partition cannot stand before `progress`.
    /// Gives the places of its markers.
    fn sweep(&self, producer: &Producer, progress: Progress, commits: bool) -> Result<[(Topic, u64); 3], LogError> {
        let failed = |error: KafkaError| self.failed(&error);
        producer.begin_transaction().map_err(failed)?;
        let record = Record { headers: vec![Header::new(KIND, SWEEP)], ..Record::default() };
        let records = TOPICS.map(|topic| (self.names.of(topic), self.partition, &record));
        let places = send_and_wait(producer, self.in_flight, &records).map_err(failed)?;
        let end = || if commits { producer.commit_transaction(REQUEST) } else { producer.abort_transaction(REQUEST) };
        let deadline = Instant::now() + Duration::from_secs(limits::KAFKA_COMMIT_SECONDS_MAX as u64);
        while let Err(error) = end() {
            if !matches!(&error, KafkaError::Transaction(e) if e.is_retriable()) || Instant::now() > deadline {
                return Err(failed(error));
            }
        }
        let raw = Topic::Log(LogName::Raw);
        let ends = [(raw, progress.raw_next, self.readers.ends.fresh(raw, self.partition)?.end)];
        let known = [progress.clean_next, progress.audit_next, progress.last.map_or(0, |last| last + 1)];
        let swept = TOPICS.into_iter().zip(known).zip(&places).map(|((topic, known), place)| (topic, known, *place));
        for (topic, known, end) in ends.into_iter().chain(swept) {
            if end < known {
                return Err(errors::truncated(self.names.of(topic), self.partition, end, known));
            }
        }
        Ok(std::array::from_fn(|i| (TOPICS[i], places[i] + 1)))
    }

    /// Where the last record of `commits` says that the partition stands.
    fn progress(&self) -> Result<Progress, LogError> {
        let partition = self.partition;
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
        let start = |topic| self.readers.ends.fresh(topic, partition).map(|b| b.end);
        Ok(Progress { last: None, raw_next: 0, clean_next: start(CLEAN)?, audit_next: start(AUDIT)? })
    }

    fn failed(&self, error: &KafkaError) -> LogError {
        io(format!("take partition {} over", self.partition), self.clients.told.explain(error))
    }
}

/// Waits until everybody sees the markers of a transaction, each at its offset: an answer to a commit comes before they are
/// written, and a broker may have skipped some. Tells whether all show within the time that they take; an error where nobody
/// could say.
pub fn await_markers(readers: &Readers, partition: Partition, markers: &[(Topic, u64)]) -> Result<bool, LogError> {
    if markers.is_empty() {
        return Ok(true);
    }
    let topics: Vec<Topic> = markers.iter().map(|(topic, _)| *topic).collect();
    let deadline = Instant::now() + MARKERS;
    loop {
        let found = readers.ends.latest(&topics, partition);
        if found.as_ref().is_ok_and(|found| found.iter().zip(markers).all(|(end, (_, marker))| end > marker)) {
            break;
        }
        if Instant::now() > deadline {
            return found.map(|_| false);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    for (topic, marker) in markers {
        readers.ends.note(*topic, partition, marker + 1);
        readers.note_empty(*topic, partition, *marker..marker + 1);
    }
    Ok(true)
}

fn read_progress(offset: u64, record: &Record) -> Option<Progress> {
    let number = |name| std::str::from_utf8(record.header(name)?).ok()?.parse().ok();
    Some(Progress { last: Some(offset), raw_next: number(RAW_NEXT)?, clean_next: number(CLEAN_NEXT)?, audit_next: number(AUDIT_NEXT)? })
}
