//! Implementations of the five logs; the contract is [`EventLog`].

mod calls;
pub mod embedded;
mod holds;
pub mod kafka;

use crate::config::{Config, LogKind};
use anyhow::Context;
use embedded::{EmbeddedLog, Options};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tidegate_schemas::log::EventLog;

/// Opens the configured log to take part in it. Blocks.
pub fn open(config: &Config) -> anyhow::Result<Arc<dyn EventLog>> {
    let log = &config.log;
    match log.kind {
        LogKind::Embedded => {
            let options = Options {
                partitions: log.partitions,
                budget_bytes: log.budget_bytes,
                segment_bytes: log.segment_bytes,
                raw_horizon: Duration::from_secs(log.raw_horizon_seconds),
                audit_horizon: Duration::from_secs(log.audit_horizon_seconds),
            };
            Ok(EmbeddedLog::open(&folder(&config.server.data_dir), options).context("log")?)
        }
    }
}

/// Opens the configured log beside its owner, to read what is durable. Blocks.
pub fn open_to_read(config: &Config) -> anyhow::Result<Arc<dyn EventLog>> {
    match config.log.kind {
        LogKind::Embedded => Ok(EmbeddedLog::read_only(&folder(&config.server.data_dir)).context("log")?),
    }
}

/// Where the embedded log lies in a data folder.
fn folder(data: &Path) -> PathBuf {
    data.join("log")
}
