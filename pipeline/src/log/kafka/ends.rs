//! Where the partitions of topics begin and end, as brokers say. An end never comes back: one that does is a topic that
//! was truncated or made anew.

use super::client::Context;
use super::errors::{self, truncated};
use super::names::{Names, Topic};
use hashbrown::HashMap;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_schemas::ids::Partition;
use tidegate_schemas::limits;
use tidegate_schemas::log::LogError;

/// What other processes published to `raw` and `control` is seen this late: a worker asks at every turn.
const FRESH: Duration = Duration::from_millis(20);
/// A topic that was just made is not known to every broker at once.
const MISSING: Duration = Duration::from_secs(2);
/// An answer that comes later is none.
const ANSWER: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(limits::KAFKA_REQUEST_SECONDS_MAX as u64);

/// What was said, and when.
type Answer = (Instant, Range<u64>);

/// What is known.
pub struct Ends {
    asker: BaseConsumer<Context>,
    names: Arc<Names>,
    /// Highest ends that were seen or written by us, by topic and partition.
    known: [Vec<AtomicU64>; 6],
    asked: Mutex<HashMap<(Topic, Partition), Answer>>,
}

impl Ends {
    /// Knows nothing.
    pub fn new(asker: BaseConsumer<Context>, names: Arc<Names>, partitions: u32) -> Self {
        let known = std::array::from_fn(|_| (0..partitions.max(1)).map(|_| AtomicU64::new(0)).collect());
        Self { asker, names, known, asked: Mutex::default() }
    }

    /// Where to ask for offsets by time.
    pub fn asker(&self) -> &BaseConsumer<Context> {
        &self.asker
    }

    /// The first offset that exists, and one past the last that is committed.
    pub fn bounds(&self, topic: Topic, partition: Partition) -> Result<Range<u64>, LogError> {
        if topic.has_gaps() {
            return self.fresh(topic, partition);
        }
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, bounds)) = asked.get(&(topic, partition))
            && at.elapsed() < FRESH
        {
            return Ok(bounds.start..bounds.end.max(self.known(topic, partition).load(Ordering::Acquire)));
        }
        drop(asked);
        self.fresh(topic, partition)
    }

    /// The same, asked for now.
    pub fn fresh(&self, topic: Topic, partition: Partition) -> Result<Range<u64>, LogError> {
        let name = self.names.of(topic);
        // Loaded before: another thread may see a later end while this question is on its way.
        let known = self.known(topic, partition).load(Ordering::Acquire);
        let (start, end) = self.ask(topic, partition)?;
        let bounds = start.unsigned_abs()..end.unsigned_abs();
        if bounds.end < known {
            return Err(truncated(name, partition, bounds.end, known));
        }
        self.note(topic, partition, bounds.end);
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert((topic, partition), (Instant::now(), bounds.clone()));
        Ok(bounds)
    }

    /// Ends of several topics in one question; less than there is where a broker does not answer for one.
    pub fn latest(&self, topics: &[Topic], partition: Partition) -> Result<Vec<u64>, LogError> {
        let failed = |e: KafkaError| self.explained("ask for the end of", self.names.of(topics[0]), &e);
        let mut list = TopicPartitionList::with_capacity(topics.len());
        for topic in topics {
            let number = i32::try_from(partition).unwrap_or(i32::MAX);
            // In place of a moment: the end.
            list.add_partition_offset(self.names.of(*topic), number, Offset::End).map_err(failed)?;
        }
        let found = self.asker.offsets_for_times(list, PATIENCE).map_err(failed);
        self.serve();
        let found = found?;
        let end = |topic: &Topic| match found.elements_for_topic(self.names.of(*topic)).first().map(|e| e.offset()) {
            Some(Offset::Offset(end)) => end.unsigned_abs(),
            _ => 0,
        };
        Ok(topics.iter().map(end).collect())
    }

    /// Asks again where the leader has just moved, and for a moment where the topic has just been made.
    fn ask(&self, topic: Topic, partition: Partition) -> Result<(i64, i64), LogError> {
        let (name, number) = (self.names.of(topic), i32::try_from(partition).unwrap_or(i32::MAX));
        let started = Instant::now();
        loop {
            let asked = self.asker.fetch_watermarks(name, number, PATIENCE);
            self.serve();
            let error = match asked {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            let code = errors::code(&error);
            if errors::is_missing(code) {
                self.confirm(topic, partition)?;
            }
            let heals = errors::is_missing(code) || errors::is_moving(code);
            if !heals || started.elapsed() >= PATIENCE {
                return Err(self.explained("ask for the end of", name, &error));
            }
            if errors::is_moving(code) {
                // The client asks the leader that it knows until it hears of another.
                let _ = self.look_once(topic);
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// A client may take a partition for missing while it learns of it, and a broker one that was just made. This asks until
    /// the word is good.
    pub fn confirm(&self, topic: Topic, partition: Partition) -> Result<(), LogError> {
        let started = Instant::now();
        while !matches!(self.look(topic)?, Some((partitions, _)) if partition < partitions) {
            if started.elapsed() > MISSING {
                return Err(errors::deleted(self.names.of(topic)));
            }
            std::thread::sleep(AGAIN);
        }
        Ok(())
    }

    /// Partitions of a topic, and whether each has a leader; `None` where the broker does not know it.
    pub fn look(&self, topic: Topic) -> Result<Option<(u32, bool)>, LogError> {
        let started = Instant::now();
        loop {
            match self.look_once(topic) {
                Err(LogError::Io { .. }) if started.elapsed() < PATIENCE => std::thread::sleep(AGAIN),
                answer => return answer,
            }
        }
    }

    /// The same, asked once.
    pub fn look_once(&self, topic: Topic) -> Result<Option<(u32, bool)>, LogError> {
        let name = self.names.of(topic);
        let asked = self.asker.fetch_metadata(Some(name), ANSWER);
        self.serve();
        let metadata = match asked {
            Ok(metadata) => metadata,
            Err(error) if errors::is_missing(errors::code(&error)) => return Ok(None),
            Err(error) => return Err(self.explained("describe", name, &error)),
        };
        let Some(found) = metadata.topics().iter().find(|t| t.name() == name) else { return Ok(None) };
        match found.error().map(RDKafkaErrorCode::from) {
            Some(code) if errors::is_missing(Some(code)) => return Ok(None),
            Some(RDKafkaErrorCode::LeaderNotAvailable) => return Ok(Some((0, false))),
            Some(code) => return Err(self.explained("describe", name, &KafkaError::MetadataFetch(code))),
            None => {}
        }
        let led = found.partitions().iter().all(|p| p.leader() >= 0);
        Ok(Some((u32::try_from(found.partitions().len()).unwrap_or(u32::MAX), led)))
    }

    /// Log lines and reasons come with the queue.
    fn serve(&self) {
        while self.asker.poll(Duration::ZERO).is_some() {}
    }

    fn explained(&self, doing: &str, name: &str, error: &KafkaError) -> LogError {
        match errors::of_topic(doing, name, error) {
            LogError::Io { doing, detail } => LogError::Io { doing, detail: self.asker.context().told.explain(detail) },
            unfit => unfit,
        }
    }

    /// Something stands before `end`.
    pub fn note(&self, topic: Topic, partition: Partition, end: u64) {
        self.known(topic, partition).fetch_max(end, Ordering::AcqRel);
    }

    /// The highest end that was seen.
    pub fn known_end(&self, topic: Topic, partition: Partition) -> u64 {
        self.known(topic, partition).load(Ordering::Acquire)
    }

    /// Forgets where a log began.
    pub fn forget(&self, topic: Topic, partition: Partition) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&(topic, partition));
    }

    fn known(&self, topic: Topic, partition: Partition) -> &AtomicU64 {
        let of_topic = &self.known[topic.index()];
        &of_topic[(partition as usize).min(of_topic.len() - 1)]
    }
}
