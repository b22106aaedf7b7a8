//! The log on a real Apache Kafka.

mod away;
pub mod broker;
pub mod cluster;
mod group;
mod markers;
mod owning;
mod refused;
mod security;
mod stopping;

use crate::log::Harness;
use crate::log::contract::contract;
use broker::Broker;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tidegate_pipeline::log::kafka::{KafkaLog, KafkaSettings, Options};
use tidegate_schemas::log::EventLog;

/// A log of its own on a broker: three partitions, horizons of zero.
pub fn options(broker: &Broker) -> Options {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let kafka = KafkaSettings {
        brokers: vec![broker.address()],
        topic_prefix: format!("t{}-{}.", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)),
        replication_factor: 1,
        min_insync_replicas: 1,
        session_milliseconds: 2_000,
        ..KafkaSettings::default()
    };
    Options { kafka, partitions: 3, raw_horizon: Duration::ZERO, audit_horizon: Duration::ZERO, ..Options::default() }
}

/// Opens it.
pub fn open(options: &Options) -> Arc<KafkaLog> {
    KafkaLog::open(options.clone()).unwrap()
}

struct Kafka {
    options: Options,
    log: Option<Arc<KafkaLog>>,
}

impl Harness for Kafka {
    fn log(&self) -> Arc<dyn EventLog> {
        self.log.clone().unwrap()
    }

    fn reopen(&mut self) {
        self.log = None;
        self.log = Some(open(&self.options));
    }
}

#[test]
fn fulfils_the_contract() {
    let Some(broker) = broker::shared() else { return };
    contract(&|| {
        let options = options(broker);
        let log = Some(open(&options));
        Box::new(Kafka { options, log })
    });
}
