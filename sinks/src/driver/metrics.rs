//! What the driver counts. Labels are the sink and the partition, never a tenant or a table.

use super::Step;
use super::park::Kept;
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
    let partition = partition.to_string();
    gauge!("tidegate_sink_open_bytes", "sink" => sink, "partition" => partition.clone()).set(step.open_bytes as f64);
    if let Some((_, recorded_at)) = step.read {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        gauge!("tidegate_sink_lag_seconds", "sink" => sink, "partition" => partition).set((now - recorded_at as f64 / 1e6).max(0.0));
    }
}

pub(super) fn unread(sink: &'static str, partition: Partition, records: u64) {
    gauge!("tidegate_sink_lag_records", "sink" => sink, "partition" => partition.to_string()).set(records as f64);
}

pub(super) fn retry(sink: &'static str) {
    counter!("tidegate_sink_retries_total", "sink" => sink).increment(1);
}

pub(super) fn parked(sink: &'static str, kept: Kept, bytes: u64, rows: u64) {
    let name = match kept {
        Kept::Rows => "tidegate_sink_parked_rows_total",
        Kept::Gap => "tidegate_sink_gap_rows_total",
    };
    counter!(name, "sink" => sink).increment(rows);
    gauge!("tidegate_sink_parked_bytes", "sink" => sink).set(bytes as f64);
}

pub(super) fn tables_parked(sink: &'static str, count: usize) {
    gauge!("tidegate_sink_parked_tables", "sink" => sink).set(count as f64);
}
