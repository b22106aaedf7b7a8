//! The one producer outside transactions: requests into `raw`, definitions into `control`, and `meta`.
//!
//! A call queues and never waits. What is queued is bounded here, before librdkafka's own queue, so that a request is
//! taken as a whole or refused as a whole. A log without brokers refuses at once; what was queued before is settled
//! within the delivery time-out.

use super::clients::Clients;
use super::errors::of_topic;
use super::producer::{InFlight, Outcome, Producer, send};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_schemas::ids::Partition;
use tidegate_schemas::limits;
use tidegate_schemas::log::{LogError, Record};

/// A broker that is there answers within this.
const KNOCK: Duration = Duration::from_millis(900);

/// The producer and what is queued in it.
pub struct Publisher {
    clients: Arc<Clients>,
    producer: Mutex<Arc<Producer>>,
    in_flight: Arc<InFlight>,
    closed: AtomicBool,
}

impl Publisher {
    /// Starts it.
    pub fn new(clients: Arc<Clients>) -> Result<Self, LogError> {
        let producer = Mutex::new(Arc::new(clients.publisher()?));
        Ok(Self { clients, producer, in_flight: Arc::default(), closed: AtomicBool::new(false) })
    }

    /// Bytes that are queued.
    pub fn queued(&self) -> u64 {
        self.in_flight.bytes.load(Ordering::Relaxed) as u64
    }

    /// Queues records for one topic; `tell` hears once what became of them.
    pub fn publish(
        &self,
        topic: &str,
        records: &[(Partition, Record)],
        tell: impl FnOnce(Result<Vec<u64>, LogError>) + Send + 'static,
    ) -> Result<(), LogError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(LogError::Closed);
        }
        let told = Arc::clone(&self.clients.told);
        if told.is_down() {
            self.knock();
            let detail = told.explain("no broker of log.kafka.brokers can be reached");
            return Err(LogError::Io { doing: format!("publish to topic {topic}"), detail });
        }
        let bytes: usize = records.iter().map(|(_, r)| r.size()).sum();
        if bytes > limits::COMMIT_BYTES_MAX {
            return Err(LogError::TooLarge { bytes, max: limits::COMMIT_BYTES_MAX });
        }
        // A single large request passes an empty queue.
        let queued = self.in_flight.bytes.load(Ordering::Relaxed);
        let many = self.in_flight.records.load(Ordering::Relaxed) + records.len() > limits::KAFKA_PUBLISH_RECORDS_MAX;
        if queued > 0 && (many || queued + bytes > limits::APPEND_QUEUE_BYTES_MAX) {
            return Err(LogError::Full { used: queued as u64, budget: limits::APPEND_QUEUE_BYTES_MAX as u64 });
        }
        let list: Vec<_> = records.iter().map(|(partition, record)| (topic, *partition, record)).collect();
        let named = topic.to_owned();
        let producer = self.live()?;
        send(&producer, &self.in_flight, &list, move |outcome: Outcome| {
            tell(outcome.map_err(|error| match &error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => {
                    LogError::Full { used: queued as u64, budget: limits::APPEND_QUEUE_BYTES_MAX as u64 }
                }
                KafkaError::MessageProduction(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) => LogError::Closed,
                KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut) => {
                    LogError::Io { doing: format!("publish to topic {named}"), detail: told.explain(&error) }
                }
                error => of_topic("write to", &named, error),
            }));
        });
        Ok(())
    }

    /// Asks a broker for anything, on a thread of its own: whoever publishes is answered at once.
    fn knock(&self) {
        if !self.clients.told.knock_is_due() {
            return;
        }
        let (clients, producer) = (Arc::clone(&self.clients), Arc::clone(&self.producer.lock().unwrap_or_else(PoisonError::into_inner)));
        let knock = move || {
            if producer.client().fetch_metadata(None, KNOCK).is_ok() {
                clients.told.is_up();
            }
        };
        // At most one a second, which lasts no longer: they do not add up.
        if let Err(error) = std::thread::Builder::new().name("kafka-knock".into()).spawn(knock) {
            tracing::warn!(%error, "nobody asks whether brokers are back");
        }
    }

    /// As `publish`, and waits.
    pub fn publish_and_wait(&self, topic: &str, records: &[(Partition, Record)]) -> Result<Vec<u64>, LogError> {
        let (tell, told) = crossbeam_channel::bounded(1);
        self.publish(topic, records, move |result| {
            // Nobody else has the receiver, and it waits.
            let _ = tell.send(result);
        })?;
        told.recv().unwrap_or(Err(LogError::Closed))
    }

    /// The producer; a new one where the old one can never send again.
    fn live(&self) -> Result<Arc<Producer>, LogError> {
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((code, reason)) = producer.client().fatal_error() {
            tracing::warn!(%code, reason, "the publisher is made anew");
            *producer = Arc::new(self.clients.publisher()?);
        }
        Ok(Arc::clone(&producer))
    }

    /// Sends what is queued, within the delivery time-out, and refuses from then on.
    pub fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let producer = Arc::clone(&self.producer.lock().unwrap_or_else(PoisonError::into_inner));
        let patience = self.clients.settings().delivery() + Duration::from_millis(100);
        if let Err(error) = producer.flush(patience) {
            tracing::warn!(%error, "the publisher was closed with records under way: their requests were not acknowledged");
        }
    }
}
