//! Logs, metrics and the process's own figures.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::fs;
use tidegate_operators::stages::settle::Settled;
use tidegate_schemas::commit::Fault;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Sends logs to standard error. A filter that cannot be read is told and replaced by `info`.
pub fn logs(filter: &str, format: LogFormat) {
    let parsed = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_span_events(FmtSpan::NONE).with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
    };
    // Only tests start the process's parts twice.
    drop(installed);
}

/// Installs the recorder of metrics; the handle renders them for `/metrics`.
pub fn metrics() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new()
        .set_buckets(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
        .map_or_else(|_| PrometheusBuilder::new().build_recorder(), PrometheusBuilder::build_recorder);
    let handle = recorder.handle();
    drop(metrics::set_global_recorder(recorder));
    handle
}

/// Counts a settled epoch.
pub fn epoch(settled: &Settled, faults: &[Fault]) {
    metrics::counter!("tidegate_epochs_total").increment(1);
    let counts = settled.counts;
    for (verdict, n) in
        [("transformed", counts.transformed), ("duplicate", counts.duplicate), ("rejected", counts.rejected), ("filtered", counts.filtered)]
    {
        if n > 0 {
            metrics::counter!("tidegate_events_total", "verdict" => verdict).increment(n);
        }
    }
    let own = |code: &str| OWN_CODES.iter().find(|c| **c == code).copied().unwrap_or("of_script");
    for (code, n) in &settled.codes {
        metrics::counter!("tidegate_rejections_total", "code" => own(code)).increment(*n);
    }
    metrics::counter!("tidegate_script_steps_total").increment(settled.tenants.iter().map(|t| t.steps).sum());
    metrics::counter!("tidegate_script_faults_total").increment(faults.len() as u64);
    metrics::counter!("tidegate_rows_total").increment(settled.rows.iter().map(|r| r.rows).sum());
}

/// Labels are bounded: a script's own codes are counted together.
const OWN_CODES: &[&str] = &[
    "syntax",
    "too_deep",
    "event_too_large",
    "source_unknown",
    "asset_missing",
    "asset_not_allowed",
    "event_id_invalid",
    "template_unknown",
    "payload_invalid",
    "decode_failed",
    "invalid",
    "required",
    "wrong_type",
    "out_of_range",
    "not_allowed",
    "pattern_mismatch",
    "script_error",
    "result_invalid",
    "steps_exhausted",
    "memory_exhausted",
    "timed_out",
    "output_too_large",
    "quarantined",
];

/// CPU seconds of this process so far, user and system.
pub fn cpu_seconds() -> f64 {
    // Fields 14 and 15 of /proc/self/stat, counted after the command's closing parenthesis; in hundredths of a second on Linux.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<u64> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
    (fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0)) as f64 / 100.0
}

/// Resident bytes: now, and the most there ever were.
pub fn rss_bytes() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| {
        let found = status.lines().find(|l| l.starts_with(name)).and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
        found.unwrap_or(0) * 1024
    };
    (line("VmRSS:"), line("VmHWM:"))
}
