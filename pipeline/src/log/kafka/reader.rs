//! One consumer at one place. It belongs to no group: where to read is always said by whoever reads.

use super::client::Context;
use super::ends::Ends;
use super::errors::{self, io, of_topic};
use super::names::{Names, Topic};
use super::takeover::is_sweep;
use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_schemas::ids::Partition;
use tidegate_schemas::log::{Entry, Header, LogError, Record};

/// It finds them by itself after this.
const LEADERS: Duration = Duration::from_secs(1);

/// What a poll brought.
pub enum Polled {
    /// The next record.
    Entry(Entry),
    /// There was none up to what was committed when the broker was asked, and it was asked after the reader was placed.
    End,
    /// The place is not there: deleted, or beyond the end.
    OutOfRange,
    /// The client says that there is no such partition, which may be a matter of time.
    Missing,
    /// Nothing yet.
    Nothing,
}

/// A consumer and where it stands.
pub struct Reader {
    consumer: BaseConsumer<Context>,
    names: Arc<Names>,
    at: Option<(Topic, Partition)>,
    /// Topics whose leaders the client knows.
    knows: [bool; 6],
    /// Offset of the next record at the earliest.
    next: u64,
    /// Taken from the consumer, not yet from us.
    held: VecDeque<Entry>,
    /// When it was last of use.
    pub used: Instant,
    /// Whether somebody reads on here: what it fetches ahead will be asked for.
    pub follows: bool,
    /// Whether its client is one for reading on.
    pub is_follower: bool,
}

impl Reader {
    /// A reader that stands nowhere.
    pub fn new(consumer: BaseConsumer<Context>, names: Arc<Names>, is_follower: bool) -> Self {
        let (held, used) = (VecDeque::new(), Instant::now());
        Self { consumer, names, at: None, knows: [false; 6], next: 0, held, used, follows: false, is_follower }
    }

    /// Whether it has nothing to give before the end that was seen last: a marker at most lies between.
    pub fn is_at_end(&self, ends: &Ends) -> bool {
        self.held.is_empty() && self.at.is_none_or(|(topic, partition)| self.next + 1 >= ends.known_end(topic, partition))
    }

    /// Whether the next record that it gives is the first at or after this place.
    pub fn stands_at(&self, topic: Topic, partition: Partition, from: u64) -> bool {
        self.at == Some((topic, partition)) && self.next == from
    }

    /// Goes to a place. What the consumer still holds of an earlier one, ends included, never comes up again: assigning
    /// makes a new version, and librdkafka drops what is of an older one.
    pub fn place(&mut self, topic: Topic, partition: Partition, from: u64) -> Result<(), LogError> {
        self.held.clear();
        self.at = None;
        let name = self.names.of(topic);
        if !self.knows[topic.index()] {
            // It looks for leaders of new topics once a second, but takes what it is told.
            self.knows[topic.index()] = self.consumer.fetch_metadata(Some(name), LEADERS).is_ok();
        }
        let mut list = TopicPartitionList::with_capacity(1);
        let offset = Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
        list.add_partition_offset(name, i32::try_from(partition).unwrap_or(i32::MAX), offset)
            .and_then(|()| self.consumer.assign(&list))
            .map_err(|e| io(format!("read topic {name} from offset {from} on"), e))?;
        self.at = Some((topic, partition));
        self.next = from;
        self.follows = false;
        Ok(())
    }

    /// Stands nowhere from now on, and asks brokers for nothing.
    pub fn leave(&mut self) {
        self.held.clear();
        self.at = None;
        if let Err(error) = self.consumer.unassign() {
            tracing::warn!(%error, "a reader cannot leave its place");
        }
    }

    /// Waits for the next record and keeps it for later.
    pub fn look(&mut self, timeout: Duration) -> Result<Polled, LogError> {
        if let Some(first) = self.held.front() {
            return Ok(Polled::Entry(first.clone()));
        }
        let polled = self.poll(timeout)?;
        if let Polled::Entry(entry) = &polled {
            self.held.push_back(entry.clone());
        }
        Ok(polled)
    }

    /// What is here already, and was fetched ahead: at least one record where there is one, then as many as fit.
    pub fn drain(&mut self, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        loop {
            let entry = match self.held.pop_front() {
                Some(entry) => entry,
                None => match self.poll(Duration::ZERO)? {
                    Polled::Entry(entry) => entry,
                    Polled::End | Polled::Nothing => return Ok(entries),
                    Polled::OutOfRange | Polled::Missing => {
                        // It is told once only, and the consumer has stopped.
                        self.at = None;
                        return Ok(entries);
                    }
                },
            };
            bytes += entry.record.size();
            if bytes > bytes_max && !entries.is_empty() {
                self.held.push_front(entry);
                return Ok(entries);
            }
            self.next = entry.offset + 1;
            entries.push(entry);
        }
    }

    fn poll(&self, timeout: Duration) -> Result<Polled, LogError> {
        let Some((topic, partition)) = self.at else { return Ok(Polled::Nothing) };
        let name = self.names.of(topic);
        // rdkafka waits in whole milliseconds, and spins through what is left of one.
        let timeout = Duration::from_millis(u64::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX));
        match self.consumer.poll(timeout) {
            None => Ok(Polled::Nothing),
            Some(Ok(message)) => {
                let here = message.topic() == name && message.partition().unsigned_abs() == partition;
                let offset = message.offset().unsigned_abs();
                if !here || offset < self.next {
                    return Ok(Polled::Nothing);
                }
                let record = record(&message);
                if topic.has_gaps() && is_sweep(&record) {
                    return Ok(Polled::Nothing);
                }
                Ok(Polled::Entry(Entry { offset, record }))
            }
            Some(Err(KafkaError::PartitionEOF(_))) => Ok(Polled::End),
            Some(Err(error)) => match errors::code(&error) {
                Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => Ok(Polled::OutOfRange),
                Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Err(of_topic("read", name, &error)),
                code if errors::is_missing(code) => Ok(Polled::Missing),
                // A lost connection or a moved leader heals; the reason is kept by the context.
                _ => Ok(Polled::Nothing),
            },
        }
    }
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let bytes = |part: Option<&[u8]>| part.map_or_else(Bytes::new, Bytes::copy_from_slice);
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|h| Header { name: Cow::Owned(h.key.to_owned()), value: bytes(h.value) }).collect()
    });
    Record { key: bytes(message.key()), headers, value: bytes(message.payload()) }
}
