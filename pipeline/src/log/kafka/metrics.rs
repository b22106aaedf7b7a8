//! What the log on Kafka counts. Labels are logs and brokers, never tenants.

use rdkafka::statistics::Statistics;
use std::time::Duration;
use tidegate_schemas::log::Usage;

/// What matters of librdkafka's statistics.
pub fn statistics(statistics: &Statistics) {
    metrics::gauge!("tidegate_kafka_queued_records").set(statistics.msg_cnt as f64);
    metrics::gauge!("tidegate_kafka_queued_bytes").set(statistics.msg_size as f64);
    metrics::counter!("tidegate_kafka_published_records_total").absolute(statistics.txmsgs.unsigned_abs());
    metrics::counter!("tidegate_kafka_published_bytes_total").absolute(statistics.txmsg_bytes.unsigned_abs());
    for broker in statistics.brokers.values().filter(|b| b.nodeid >= 0) {
        let label = broker.nodeid.to_string();
        if let Some(rtt) = &broker.rtt {
            metrics::gauge!("tidegate_kafka_broker_rtt_seconds", "broker" => label.clone()).set(rtt.p99 as f64 / 1e6);
        }
        metrics::gauge!("tidegate_kafka_broker_up", "broker" => label).set(f64::from(u8::from(broker.state == "UP")));
    }
}

/// A transaction was committed.
pub fn committed(took: Duration, records: usize) {
    metrics::histogram!("tidegate_kafka_transaction_seconds").record(took);
    metrics::counter!("tidegate_kafka_committed_records_total").increment(records as u64);
}

/// A transaction was aborted.
pub fn aborted() {
    metrics::counter!("tidegate_kafka_aborts_total").increment(1);
}

/// An owner lost its right.
pub fn fenced() {
    metrics::counter!("tidegate_kafka_fences_total").increment(1);
}

/// The outcome of a commit had to be read back.
pub fn settled() {
    metrics::counter!("tidegate_kafka_settled_total").increment(1);
}

/// A reader moved to another place, or a new one was made.
pub fn reader(what: &'static str) {
    metrics::counter!("tidegate_kafka_readers_total", "what" => what).increment(1);
}

/// Something was refused for want of room.
pub fn refused(what: &'static str) {
    metrics::counter!("tidegate_log_refused_total", "what" => what).increment(1);
}

/// Records were deleted.
pub fn trimmed(log: &'static str, bytes: u64) {
    metrics::counter!("tidegate_log_trimmed_bytes_total", "chain" => log).increment(bytes);
}

/// Bytes in use.
pub fn usage(usage: Usage) {
    metrics::gauge!("tidegate_log_used_bytes").set(usage.bytes as f64);
    metrics::gauge!("tidegate_log_budget_bytes").set(usage.budget as f64);
}
