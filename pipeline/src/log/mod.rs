//! Implementations of the five logs; the contract is [`EventLog`].

mod calls;
pub mod embedded;
mod holds;
pub mod kafka;
mod sharing;

pub use sharing::{Assigner, Takes, Work};

use crate::config::{Config, LogKind};
use anyhow::Context;
use embedded::{EmbeddedLog, Options};
use kafka::KafkaLog;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tidegate_schemas::ids::LogId;
use tidegate_schemas::log::EventLog;

/// The configured log, open to take part in it.
pub struct OpenLog {
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// The same, where other processes share it.
    shared: Option<Arc<KafkaLog>>,
    /// The data folder is this process's alone while it is open; the embedded log sees to that itself.
    _folder: Option<File>,
}

/// Opens the configured log to take part in it; `accept_gap` goes on where records were deleted by somebody else. Blocks.
pub fn open(config: &Config, accept_gap: bool) -> anyhow::Result<OpenLog> {
    let log = &config.log;
    let data = &config.server.data_dir;
    match log.kind {
        LogKind::Embedded => {
            let options = Options {
                partitions: log.partitions,
                budget_bytes: log.budget_bytes,
                segment_bytes: log.segment_bytes,
                raw_horizon: Duration::from_secs(log.raw_horizon_seconds),
                audit_horizon: Duration::from_secs(log.audit_horizon_seconds),
                ..Options::default()
            };
            let log = EmbeddedLog::open(&folder(data), options).context("log")?;
            Ok(OpenLog { log, shared: None, _folder: None })
        }
        LogKind::Kafka => {
            let lock = lock(data)?;
            let place = data.join("log-id");
            let expected = known_id(&place)?;
            // A folder that knows a log looks for that one: under a wrong prefix nothing is made.
            let options = kafka::Options { expected, accept_gap, create: expected.is_none(), ..kafka_options(config) };
            let log = KafkaLog::open(options).context("log on Kafka")?;
            if expected.is_none() {
                fs::write(&place, log.log_id().to_string()).with_context(|| format!("file {}", place.display()))?;
            }
            Ok(OpenLog { log: Arc::clone(&log) as Arc<dyn EventLog>, shared: Some(log), _folder: Some(lock) })
        }
    }
}

/// Opens the configured log beside its owners, to read what is durable. Blocks.
pub fn open_to_read(config: &Config) -> anyhow::Result<Arc<dyn EventLog>> {
    Ok(match config.log.kind {
        LogKind::Embedded => EmbeddedLog::read_only(&folder(&config.server.data_dir)).context("log")?,
        LogKind::Kafka => KafkaLog::open(kafka::Options { create: false, ..kafka_options(config) }).context("log on Kafka")?,
    })
}

/// The log for a change to what is kept of it. Refused where it is embedded and a process has it.
pub fn open_to_change(config: &Config) -> anyhow::Result<Arc<dyn EventLog>> {
    match config.log.kind {
        LogKind::Embedded => Ok(open(config, false)?.log),
        LogKind::Kafka => open_to_read(config),
    }
}

fn kafka_options(config: &Config) -> kafka::Options {
    let log = &config.log;
    kafka::Options {
        kafka: log.kafka.clone(),
        partitions: log.partitions,
        budget_bytes: log.budget_bytes,
        raw_horizon: Duration::from_secs(log.raw_horizon_seconds),
        audit_horizon: Duration::from_secs(log.audit_horizon_seconds),
        ..kafka::Options::default()
    }
}

/// Where the embedded log lies in a data folder.
fn folder(data: &Path) -> PathBuf {
    data.join("log")
}

/// Two processes in one data folder would answer for each other on its socket.
fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let file = File::create(&path).with_context(|| format!("file {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            anyhow::bail!("{} is in use by another process; give each process a data folder of its own (--data-dir)", data.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("file {}", path.display())),
    }
}

/// The log that this data folder has met before.
fn known_id(place: &Path) -> anyhow::Result<Option<LogId>> {
    match fs::read_to_string(place) {
        Ok(text) => Ok(Some(LogId::try_from(text.trim().to_owned()).with_context(|| format!("file {}", place.display()))?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("file {}", place.display())),
    }
}
