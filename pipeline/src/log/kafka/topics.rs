//! The topics: created where the log is new, checked at each start, never altered. What does not fit is refused, with the
//! command that mends it.

use super::client::Context;
use super::clients::Clients;
use super::ends::Ends;
use super::errors::{io, of_topic};
use super::names::{Names, Topic};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::cell::OnceCell;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};
use tidegate_schemas::limits;
use tidegate_schemas::log::LogError;

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits for an answer of an admin client, on this thread, inside a runtime or not.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let (mut future, mut context) = (pin!(future), std::task::Context::from_waker(&waker));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// How long an admin request may take.
pub fn patience() -> AdminOptions {
    let patience = Duration::from_secs(limits::KAFKA_REQUEST_SECONDS_MAX as u64);
    AdminOptions::new().request_timeout(Some(patience)).operation_timeout(Some(patience))
}

/// What a log's topics are to be.
pub struct Topics<'a> {
    /// Makes admin clients.
    pub clients: &'a Clients,
    /// Their names.
    pub names: &'a Names,
    /// Partitions of all but `control` and `meta`.
    pub partitions: u32,
    /// Where to ask.
    pub ends: &'a Ends,
    /// Made when it is needed: few starts create anything, and checks never do.
    admin: OnceCell<AdminClient<Context>>,
}

impl<'a> Topics<'a> {
    /// Nothing is asked yet.
    pub fn new(clients: &'a Clients, names: &'a Names, partitions: u32, ends: &'a Ends) -> Self {
        Self { clients, names, partitions, ends, admin: OnceCell::new() }
    }

    fn admin(&self) -> Result<&AdminClient<Context>, LogError> {
        match self.admin.get() {
            Some(admin) => Ok(admin),
            None => {
                let made = self.clients.admin()?;
                Ok(self.admin.get_or_init(|| made))
            }
        }
    }

    /// Waits until a broker answers.
    pub fn connect(&self) -> Result<(), LogError> {
        let started = Instant::now();
        loop {
            let error = match self.ends.look_once(Topic::Meta) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let brokers = self.clients.settings().brokers.join(", ");
            let heard = self.clients.told.last();
            let unfit = |remedy: &str, reason: &str| {
                Err(LogError::Unfit { place: format!("log.kafka.brokers {brokers}"), detail: reason.into(), remedy: remedy.into() })
            };
            match heard {
                Some((RDKafkaErrorCode::Authentication, reason)) => {
                    return unfit("the broker does not take log.kafka.sasl: correct user, password or mechanism", &reason);
                }
                Some((RDKafkaErrorCode::SSL, reason)) => {
                    return unfit(
                        "correct log.kafka.tls: ca_file for the broker's certificate, certificate_file and key_file for ours",
                        &reason,
                    );
                }
                _ if matches!(error, LogError::Unfit { .. }) => return Err(error),
                _ if started.elapsed() > Duration::from_secs(limits::KAFKA_START_SECONDS_MAX as u64) => {
                    let detail = self.clients.told.explain(error);
                    return Err(io(format!("reach log.kafka.brokers {brokers} (is the broker running, and the address right?)"), detail));
                }
                _ => {
                    tracing::warn!(%error, "no broker answers yet");
                    std::thread::sleep(LOOK_EVERY);
                }
            }
        }
    }

    /// Creates topics; one that another process created meanwhile is as good.
    pub fn create(&self, topics: &[Topic]) -> Result<(), LogError> {
        let settings = self.clients.settings();
        let (replicas, insync) = (i32::from(settings.replication_factor), settings.min_insync_replicas.to_string());
        let bytes = (limits::KAFKA_MESSAGE_BYTES_MAX + 4096).to_string();
        let new: Vec<_> = topics
            .iter()
            .map(|topic| {
                let partitions = i32::try_from(topic.width(self.partitions)).unwrap_or(i32::MAX);
                NewTopic::new(self.names.of(*topic), partitions, TopicReplication::Fixed(replicas))
                    .set("cleanup.policy", topic.cleanup())
                    .set("retention.ms", "-1")
                    .set("retention.bytes", "-1")
                    .set("max.message.bytes", &bytes)
                    .set("min.insync.replicas", &insync)
                    .set("compression.type", "producer")
                    .set("message.timestamp.type", topic.clock())
            })
            .collect();
        let admin = self.admin()?;
        let created = wait(admin.create_topics(&new, &patience())).map_err(|e| io("create topics", self.clients.told.explain(e)))?;
        for result in created {
            match result {
                Ok(name) => tracing::info!(topic = name, "topic created"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed))) => {
                    return Err(LogError::Unfit {
                        place: format!("topic {name}"),
                        detail: format!("this user may not create it: {code}"),
                        remedy: "allow it to create topics of the prefix, or create them for it".into(),
                    });
                }
                Err((name, RDKafkaErrorCode::InvalidReplicationFactor)) => {
                    return Err(LogError::Unfit {
                        place: format!("topic {name}"),
                        detail: format!("{replicas} replicas are more than there are brokers"),
                        remedy: "lower log.kafka.replication_factor, or add brokers".into(),
                    });
                }
                Err((name, code)) => return Err(io(format!("create topic {name}"), code)),
            }
        }
        self.await_leaders(topics)
    }

    fn await_leaders(&self, topics: &[Topic]) -> Result<(), LogError> {
        let started = Instant::now();
        for topic in topics {
            while !matches!(self.ends.look(*topic)?, Some((partitions, true)) if partitions >= topic.width(self.partitions)) {
                if started.elapsed() > Duration::from_secs(limits::KAFKA_START_SECONDS_MAX as u64) {
                    return Err(io(format!("create topic {}", self.names.of(*topic)), "its partitions have no leader yet"));
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }

    /// Checks how the brokers keep the topics.
    pub fn check_settings(&self) -> Result<(), LogError> {
        let names: Vec<_> = Topic::ALL.iter().map(|t| ResourceSpecifier::Topic(self.names.of(*t))).collect();
        let admin = self.admin()?;
        let described =
            wait(admin.describe_configs(&names, &patience())).map_err(|e| io("describe topics", self.clients.told.explain(e)))?;
        for (topic, described) in Topic::ALL.iter().zip(described) {
            let name = self.names.of(*topic);
            let described = described.map_err(|code| of_topic("describe the settings of", name, &KafkaError::AdminOp(code)))?;
            let value = |key: &str| described.get(key).and_then(|e| e.value.as_deref()).unwrap_or_default().to_owned();
            let number = |key: &str| value(key).parse::<i64>().unwrap_or(0);
            let (bytes, insync) = (limits::KAFKA_MESSAGE_BYTES_MAX as i64, i64::from(self.clients.settings().min_insync_replicas));
            let checks = [
                (
                    "cleanup.policy",
                    value("cleanup.policy") == topic.cleanup(),
                    topic.cleanup().to_owned(),
                    "else records that are needed vanish",
                ),
                ("retention.ms", number("retention.ms") == -1, "-1".into(), "Tidegate deletes by itself, behind every reader"),
                ("retention.bytes", number("retention.bytes") == -1, "-1".into(), "Tidegate deletes by itself, behind every reader"),
                ("max.message.bytes", number("max.message.bytes") >= bytes, bytes.to_string(), "a record with its headers must fit"),
                (
                    "min.insync.replicas",
                    number("min.insync.replicas") >= insync,
                    insync.to_string(),
                    "log.kafka.min_insync_replicas says so; lower that if one copy less is enough",
                ),
            ];
            if let Some((key, _, wanted, reason)) = checks.into_iter().find(|(_, holds, ..)| !holds) {
                return Err(LogError::Unfit {
                    place: format!("topic {name}"),
                    detail: format!("{key} is {:?}, not {wanted}: {reason}", value(key)),
                    remedy: format!("kafka-configs --alter --entity-type topics --entity-name {name} --add-config {key}={wanted}"),
                });
            }
        }
        Ok(())
    }
}
