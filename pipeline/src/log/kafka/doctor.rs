//! Tries what processes need of Kafka: each permission by using it, in ways that leave nothing for readers.

use super::clients::Clients;
use super::errors::{io, of_topic};
use super::meta;
use super::names::{Names, Topic};
use super::publisher::Publisher;
use super::{KafkaLog, KafkaSettings, Membership, Options};
use crate::doctor::Finding;
use rdkafka::consumer::Consumer;
use rdkafka::message::{Message, Timestamp};
use rdkafka::producer::Producer as _;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_schemas::limits;
use tidegate_schemas::log::{EventLog, LogError, LogName};

const PATIENCE: Duration = Duration::from_secs(limits::KAFKA_REQUEST_SECONDS_MAX as u64);
/// Beyond this, recorded times of different processes contradict each other visibly.
const SKEW_MAX: Duration = Duration::from_secs(1);

/// Tries everything.
pub fn examine(settings: &KafkaSettings, partitions: u32) -> Vec<Finding> {
    let mut found = Vec::new();
    let clients = match Clients::new(settings.clone()).and_then(|clients| Ok((reach(&clients, settings)?, clients))) {
        Ok((finding, clients)) => {
            found.push(finding);
            Arc::new(clients)
        }
        Err(error) => return vec![Finding::failed("Kafka", error)],
    };
    found.push(Finding::ok("librdkafka", rdkafka::util::get_rdkafka_version().1));
    let log = match KafkaLog::open(Options { kafka: settings.clone(), partitions, create: false, ..Options::default() }) {
        Ok(log) => log,
        Err(LogError::Unfit { detail, .. }) if detail.starts_with("there is no log") => {
            found.push(Finding::warning("topics", format!("{detail}; `run` makes them, where its user may")));
            return found;
        }
        Err(error) => {
            found.push(Finding::failed("topics", error));
            return found;
        }
    };
    let usage = log.usage();
    found.push(Finding::ok("topics", format!("log {} with {} partitions, about {} bytes", log.log_id(), log.partitions(), usage.bytes)));
    let tell = |name: &str, result: Result<String, LogError>| match result {
        Ok(detail) => Finding::ok(name, detail),
        Err(error) => Finding::failed(name, clients.told.explain(error)),
    };
    found.push(tell("transactions", transaction(&clients, &log.names)));
    found.push(tell("consumer groups", group(&clients, settings, &log.names)));
    found.push(match publish(&clients, &log.names) {
        Ok(None) => {
            Finding::warning("clock", "topic meta has no times of the broker (it was made by hand?): the clocks cannot be compared")
        }
        Ok(Some(skew)) if skew <= SKEW_MAX => Finding::ok("clock", format!("within {} ms of the broker's", skew.as_millis())),
        Ok(Some(skew)) => Finding::warning("clock", format!("{} ms away from the broker's: keep clocks in step (NTP)", skew.as_millis())),
        Err(error) => Finding::failed("publishing", clients.told.explain(error)),
    });
    found
}

/// How many brokers there are, against the copies that topics are to have.
fn reach(clients: &Clients, settings: &KafkaSettings) -> Result<Finding, LogError> {
    let asker = clients.asker()?;
    let started = Instant::now();
    let metadata = asker.fetch_metadata(None, PATIENCE);
    let metadata = metadata.map_err(|e| io(format!("reach log.kafka.brokers {}", settings.brokers.join(", ")), clients.told.explain(e)))?;
    let brokers = metadata.brokers().len();
    let detail = format!("{brokers} brokers, the first answer after {} ms", started.elapsed().as_millis());
    Ok(if brokers < usize::from(settings.replication_factor) {
        Finding::failed("Kafka", format!("{detail}; log.kafka.replication_factor {} needs as many", settings.replication_factor))
    } else if settings.replication_factor < 2 {
        Finding::warning("Kafka", format!("{detail}; with one copy (log.kafka.replication_factor) a lost disk loses events"))
    } else {
        Finding::ok("Kafka", detail)
    })
}

/// The rights of a committer, by a transaction that is given up.
fn transaction(clients: &Clients, names: &Names) -> Result<String, LogError> {
    let producer = clients.transactional(&names.doctor())?;
    let failed = |e| of_topic("commit to", names.of(Topic::Log(LogName::Commits)), &e);
    producer.init_transactions(PATIENCE).map_err(failed)?;
    producer.begin_transaction().map_err(failed)?;
    producer.abort_transaction(PATIENCE).map_err(failed)?;
    Ok(format!("transactional ids that begin with {:?} may be used", names.prefix()))
}

/// The rights of a member, in a group of its own.
fn group(clients: &Clients, settings: &KafkaSettings, names: &Names) -> Result<String, LogError> {
    let group = format!("{}doctor", names.prefix());
    let (_membership, events) = Membership::join(clients, &group, names.of(Topic::Log(LogName::Raw)), Duration::ZERO)?;
    let patience = PATIENCE + Duration::from_millis(settings.session_milliseconds.into());
    events.recv_timeout(patience).map_err(|_| io(format!("join group {group}"), "nothing was assigned in time"))?;
    Ok(format!("groups that begin with {:?} may be joined", names.prefix()))
}

/// The right to publish, by a record of `meta` that says nothing; how far the broker's clock is from ours, where it tells.
fn publish(clients: &Arc<Clients>, names: &Names) -> Result<Option<Duration>, LogError> {
    let (publisher, topic) = (Publisher::new(Arc::clone(clients))?, names.of(Topic::Meta));
    let before = now();
    let offset = publisher.publish_and_wait(topic, &[(0, meta::nothing("doctor"))])?[0];
    let after = now();
    let reader = clients.reader(false)?;
    let mut list = TopicPartitionList::with_capacity(1);
    let failed = |e| of_topic("read", topic, &e);
    list.add_partition_offset(topic, 0, Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX))).map_err(failed)?;
    reader.assign(&list).map_err(failed)?;
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let Some(Ok(message)) = reader.poll(Duration::from_millis(100)) else { continue };
        return Ok(match message.timestamp() {
            Timestamp::LogAppendTime(at) => {
                let at = Duration::from_millis(at.unsigned_abs());
                Some(before.saturating_sub(at).max(at.saturating_sub(after)))
            }
            _ => None,
        });
    }
    Err(io(format!("read topic {topic}"), "what was just published does not appear"))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
