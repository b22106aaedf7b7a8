//! What the embedded log counts. Labels are chains, never tenants.

use super::layout::Chain;
use std::time::Duration;
use tidegate_schemas::log::Usage;

/// A group became durable.
pub fn group(chain: Chain, bytes: usize, records: usize, sync: Duration) {
    metrics::counter!("tidegate_log_written_bytes_total", "chain" => chain.as_str()).increment(bytes as u64);
    metrics::counter!("tidegate_log_written_records_total", "chain" => chain.as_str()).increment(records as u64);
    metrics::histogram!("tidegate_log_sync_seconds", "chain" => chain.as_str()).record(sync);
}

/// A log was opened.
pub fn opened(torn_bytes: u64, seconds: f64) {
    metrics::counter!("tidegate_log_torn_bytes_total").increment(torn_bytes);
    metrics::gauge!("tidegate_log_open_seconds").set(seconds);
}

/// A write or a sync failed, and its chain takes no writes from now on.
pub fn failed() {
    metrics::counter!("tidegate_log_failures_total").increment(1);
}

/// Something was refused for want of room.
pub fn refused(what: &'static str) {
    metrics::counter!("tidegate_log_refused_total", "what" => what).increment(1);
}

/// Segments were deleted.
pub fn trimmed(chain: Chain, bytes: u64) {
    metrics::counter!("tidegate_log_trimmed_bytes_total", "chain" => chain.as_str()).increment(bytes);
}

/// Bytes in use.
pub fn usage(usage: Usage) {
    metrics::gauge!("tidegate_log_used_bytes").set(usage.bytes as f64);
    metrics::gauge!("tidegate_log_budget_bytes").set(usage.budget as f64);
}
