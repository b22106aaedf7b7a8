//! Batches of records on their way to the broker. A batch is told about once, when all of its records are settled: one
//! allocation for each record and one wake-up for each request.

use super::client::Context;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientConfig, ClientContext};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_schemas::ids::Partition;
use tidegate_schemas::log::Record;

/// One look for deliveries: they end it at once, and its last millisecond is spent spinning (rdkafka waits in whole ones), so
/// that the 100 of rdkafka's own thread cost each idle producer a hundredth of a core.
const LOOK: Duration = Duration::from_secs(1);

/// A producer with a thread that takes its deliveries. Dropped, it lives on for a look at most, and sends nothing more.
pub struct Producer {
    inner: Arc<BaseProducer<Deliveries>>,
    stop: Arc<AtomicBool>,
}

impl Producer {
    /// Starts both.
    pub fn start(config: &ClientConfig, deliveries: Deliveries) -> Result<Self, KafkaError> {
        let inner = Arc::new(BaseProducer::from_config_and_context(config, deliveries)?);
        let stop = Arc::new(AtomicBool::new(false));
        let (served, stopped) = (Arc::clone(&inner), Arc::clone(&stop));
        let serve = move || {
            while !stopped.load(Ordering::Acquire) {
                served.poll(LOOK);
            }
        };
        let thread = std::thread::Builder::new().name("kafka-deliveries".into()).spawn(serve);
        thread.map_err(|e| KafkaError::ClientCreation(format!("no thread for deliveries: {e}")))?;
        Ok(Self { inner, stop })
    }
}

impl Deref for Producer {
    type Target = BaseProducer<Deliveries>;

    fn deref(&self) -> &BaseProducer<Deliveries> {
        &self.inner
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// What came of a batch: the offsets in the order given.
pub type Outcome = Result<Vec<u64>, KafkaError>;

/// What is handed over and not yet settled.
#[derive(Default)]
pub struct InFlight {
    /// Bytes of records.
    pub bytes: AtomicUsize,
    /// Records.
    pub records: AtomicUsize,
}

/// Takes the broker's word on each record.
pub struct Deliveries(pub Context);

/// One record of a batch.
pub struct Ticket {
    batch: Arc<Batch>,
    index: usize,
    bytes: usize,
}

struct Batch {
    state: Mutex<State>,
    in_flight: Arc<InFlight>,
}

struct State {
    offsets: Vec<u64>,
    left: usize,
    failed: Option<KafkaError>,
    tell: Option<Box<dyn FnOnce(Outcome) + Send>>,
}

impl Batch {
    fn settle(&self, index: usize, bytes: usize, result: Result<u64, KafkaError>) {
        self.in_flight.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.in_flight.records.fetch_sub(1, Ordering::Relaxed);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(offset) => state.offsets[index] = offset,
            Err(error) => state.failed = Some(error),
        }
        state.left -= 1;
        if state.left == 0
            && let Some(tell) = state.tell.take()
        {
            let offsets = std::mem::take(&mut state.offsets);
            let outcome = state.failed.take().map_or(Ok(offsets), Err);
            drop(state);
            tell(outcome);
        }
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.0.stats(statistics);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let result = match result {
            Ok(message) => {
                self.0.told.is_up();
                Ok(message.offset().unsigned_abs())
            }
            Err((error, _)) => Err(error.clone()),
        };
        ticket.batch.settle(ticket.index, ticket.bytes, result);
    }
}

/// Hands records over without waiting; `tell` is called once, when the last of them is settled.
pub fn send(
    producer: &Producer,
    in_flight: &Arc<InFlight>,
    records: &[(&str, Partition, &Record)],
    tell: impl FnOnce(Outcome) + Send + 'static,
) {
    if records.is_empty() {
        return tell(Ok(Vec::new()));
    }
    let state = State { offsets: vec![0; records.len()], left: records.len(), failed: None, tell: Some(Box::new(tell)) };
    let batch = Arc::new(Batch { state: Mutex::new(state), in_flight: Arc::clone(in_flight) });
    let mut refused = None;
    for (index, (topic, partition, record)) in records.iter().enumerate() {
        let bytes = record.size();
        in_flight.bytes.fetch_add(bytes, Ordering::Relaxed);
        in_flight.records.fetch_add(1, Ordering::Relaxed);
        let ticket = Box::new(Ticket { batch: Arc::clone(&batch), index, bytes });
        // One that was refused leaves those behind it no right to be there.
        let sent = match &refused {
            None => producer.send(message(topic, *partition, record, ticket)).map_err(|(error, back)| (error, back.delivery_opaque)),
            Some(error) => Err((KafkaError::clone(error), ticket)),
        };
        if let Err((error, ticket)) = sent {
            ticket.batch.settle(index, bytes, Err(error.clone()));
            refused = Some(error);
        }
    }
}

/// Hands records over and waits until all are settled. Delivery is bounded by the producer's time-out.
pub fn send_and_wait(producer: &Producer, in_flight: &Arc<InFlight>, records: &[(&str, Partition, &Record)]) -> Outcome {
    let (tell, told) = crossbeam_channel::bounded(1);
    send(producer, in_flight, records, move |outcome| {
        // Nobody else has the receiver, and it waits.
        let _ = tell.send(outcome);
    });
    told.recv().unwrap_or(Err(KafkaError::MessageProduction(RDKafkaErrorCode::PurgeQueue)))
}

fn message<'a>(topic: &'a str, partition: Partition, record: &'a Record, ticket: Box<Ticket>) -> BaseRecord<'a, [u8], [u8], Box<Ticket>> {
    let number = i32::try_from(partition).unwrap_or(i32::MAX);
    let mut message = BaseRecord::with_opaque_to(topic, ticket).partition(number).payload(&record.value[..]);
    if !record.key.is_empty() {
        message = message.key(&record.key[..]);
    }
    if !record.headers.is_empty() {
        let empty = OwnedHeaders::new_with_capacity(record.headers.len());
        let insert =
            |all: OwnedHeaders, h: &'a tidegate_schemas::log::Header| all.insert(Header { key: &h.name, value: Some(&h.value[..]) });
        message = message.headers(record.headers.iter().fold(empty, insert));
    }
    message
}
