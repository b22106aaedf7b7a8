//! What the driver counts. Labels are the sink and the partition, never a tenant or a table.

use super::park::Kept;
use super::{Lag, Step};
use metrics::{counter, gauge, histogram};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_schemas::ids::Partition;
use tidegate_schemas::sink::Cut;

pub(super) fn delivered(sink: &'static str, cut: &Cut, took: Duration) {
    counter!("tidegate_sink_rows_total", "sink" => sink).increment(cut.rows_count);
    counter!("tidegate_sink_cuts_total", "sink" => sink).increment(1);
    counter!("tidegate_sink_block_bytes_total", "sink" => sink).increment(cut.bytes);
    histogram!("tidegate_sink_delivery_seconds", "sink" => sink).record(took.as_secs_f64());
}

pub(super) fn read(sink: &'static str, partition: Partition, step: &Step) {
    gauge!("tidegate_sink_open_bytes", "sink" => sink, "partition" => partition.to_string()).set(step.open_bytes as f64);
}

pub(super) fn lag(sink: &'static str, partition: Partition, lag: &Lag) {
    let partition = partition.to_string();
    gauge!("tidegate_sink_lag_records", "sink" => sink, "partition" => partition.clone()).set(lag.records as f64);
    if lag.read_at > 0 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        gauge!("tidegate_sink_lag_seconds", "sink" => sink, "partition" => partition).set((now - lag.read_at as f64 / 1e6).max(0.0));
    }
}

pub(super) fn retry(sink: &'static str) {
    counter!("tidegate_sink_retries_total", "sink" => sink).increment(1);
}

pub(super) fn breaker(sink: &'static str, open: bool) {
    gauge!("tidegate_sink_breaker_open", "sink" => sink).set(if open { 1.0 } else { 0.0 });
}

pub(super) fn parked(sink: &'static str, kept: Kept, bytes: u64, rows: u64) {
    let name = match kept {
        Kept::Rows => "tidegate_sink_parked_rows_total",
        Kept::Gap => "tidegate_sink_gap_rows_total",
    };
    counter!(name, "sink" => sink).increment(rows);
    parked_bytes(sink, bytes);
}

pub(super) fn parked_bytes(sink: &'static str, bytes: u64) {
    gauge!("tidegate_sink_parked_bytes", "sink" => sink).set(bytes as f64);
}

pub(super) fn tables_parked(sink: &'static str, count: usize) {
    gauge!("tidegate_sink_parked_tables", "sink" => sink).set(count as f64);
}
