//! How Kafka is reached. Serialisable, so no secret stands here: settings say where one is found.

use crate::config::secret::SecretPlace;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;
use tidegate_schemas::limits;

/// `[log.kafka]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSettings {
    /// Brokers to begin with, each as `host:port`; the others are learned from them.
    pub brokers: Vec<String>,
    /// Begins the names of topics, of the consumer group and of transactional ids: one log, one prefix.
    pub topic_prefix: String,
    /// Copies of each partition in topics that Tidegate creates.
    pub replication_factor: u16,
    /// Copies that a record must have before it counts as durable; topics with less are refused.
    pub min_insync_replicas: u16,
    /// Silence after which a process loses its partitions to the others.
    pub session_milliseconds: u32,
    /// The broker aborts a transaction of this age: what a dead process left open blocks readers no longer than this.
    pub transaction_milliseconds: u32,
    /// A record that no broker took by then has failed.
    pub delivery_milliseconds: u32,
    /// Readers of this process; each is a client of its own. One for each partition that it processes and each that a
    /// sink follows reads on where it was; with less they move about, and fetch again what they had fetched ahead.
    pub readers_max: u32,
    /// Bytes that each reader fetches ahead.
    pub read_ahead_bytes: u64,
    /// Encrypts the connections; absent: plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Signs in by user and password; absent: by certificate, or not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
}

/// `[log.kafka.tls]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Certificates of the authorities that brokers are signed by, PEM; absent: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, PEM, where brokers ask for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// Its private key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The password of the key, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_password: Option<SecretPlace>,
}

/// `[log.kafka.sasl]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// How the password is shown to the broker.
    pub mechanism: Mechanism,
    /// The user.
    pub username: String,
    /// Where the password is.
    pub password: SecretPlace,
}

/// How a password is shown to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mechanism {
    /// A challenge; the password itself is never sent.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// The same with a shorter hash.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The password itself; only where connections are encrypted.
    #[serde(rename = "PLAIN")]
    Plain,
}

impl Mechanism {
    /// As Kafka names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
        }
    }
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            brokers: vec!["localhost:9092".into()],
            topic_prefix: "tidegate.".into(),
            replication_factor: 3,
            min_insync_replicas: 2,
            session_milliseconds: limits::KAFKA_SESSION_MILLISECONDS as u32,
            transaction_milliseconds: limits::KAFKA_TRANSACTION_MILLISECONDS as u32,
            delivery_milliseconds: limits::KAFKA_DELIVERY_MILLISECONDS as u32,
            readers_max: limits::KAFKA_READERS_MAX as u32,
            read_ahead_bytes: limits::KAFKA_READ_AHEAD_BYTES as u64,
            tls: None,
            sasl: None,
        }
    }
}

impl KafkaSettings {
    /// Every file that is named.
    pub fn files(&mut self) -> Vec<&mut PathBuf> {
        let tls = self.tls.as_mut().map(|t| {
            let password = t.key_password.as_mut().and_then(SecretPlace::file);
            [t.ca_file.as_mut(), t.certificate_file.as_mut(), t.key_file.as_mut(), password]
        });
        let sasl = self.sasl.as_mut().and_then(|s| s.password.file());
        tls.into_iter().flatten().chain([sasl]).flatten().collect()
    }

    /// A record that no broker took by then has failed.
    pub fn delivery(&self) -> Duration {
        Duration::from_millis(self.delivery_milliseconds.into())
    }
}
