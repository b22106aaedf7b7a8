//! Log lines and metrics.

use crate::config::LogFormat;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tidegate_operators::duplicates::Duplicates;
use tidegate_operators::stages::settle::Settled;
use tidegate_schemas::ids::Partition;
use tidegate_schemas::time::Micros;
use tidegate_schemas::verdict::Code;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Libraries that tell of every step at `info`: they are heard from `warn` on, unless the filter names them.
const QUIET: &str = "delta_kernel=warn";

/// A filter of log lines.
///
/// # Errors
/// What is wrong with the text; follows the setting's name. A word that is no level is one of the wrong things: it would be
/// read as the name of a part whose every line is wanted, and silence all others.
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let directives = || text.split(',').map(str::trim);
    if directives().all(str::is_empty) {
        return Err("is empty".into());
    }
    let bare = |d: &&str| !d.is_empty() && !d.contains(['=', '[']) && !LEVELS.iter().any(|l| l.eq_ignore_ascii_case(d));
    if let Some(word) = directives().find(bare) {
        return Err(format!("is {text:?}, and {word:?} is no level"));
    }
    // A later directive for the same target takes the place of an earlier one.
    EnvFilter::try_new(format!("{QUIET},{text}")).map_err(|error| format!("is {text:?}: {error}"))
}

/// Sends logs to standard error. A filter that cannot be read is told and replaced by `info`.
pub fn logs(text: &str, format: LogFormat) {
    let parsed = filter(text).unwrap_or_else(|wrong| {
        eprintln!("tidegate: the log filter {wrong}; \"info\" takes its place");
        EnvFilter::new(format!("{QUIET},info"))
    });
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
pub fn epoch(settled: &Settled) {
    metrics::counter!("tidegate_epochs_total").increment(1);
    let counts = settled.counts;
    for (verdict, n) in
        [("transformed", counts.transformed), ("duplicate", counts.duplicate), ("rejected", counts.rejected), ("filtered", counts.filtered)]
    {
        if n > 0 {
            metrics::counter!("tidegate_events_total", "verdict" => verdict).increment(n);
        }
    }
    for (code, n) in &settled.codes {
        // Labels are bounded: a script's own codes are counted together.
        let label = Code::named(code).map_or("of_script", Code::as_str);
        metrics::counter!("tidegate_rejections_total", "code" => label).increment(*n);
    }
    metrics::counter!("tidegate_script_steps_total").increment(settled.tenants.iter().map(|t| t.steps).sum());
    metrics::counter!("tidegate_script_faults_total").increment(settled.faults.len() as u64);
    metrics::counter!("tidegate_script_log_cut_bytes_total").increment(settled.log_bytes_cut);
    metrics::counter!("tidegate_rows_total").increment(settled.rows.iter().map(|r| r.rows).sum());
}

/// Tells the size of a partition's duplicate state, and the horizon in effect: that of the tenant that has the shortest.
pub fn duplicates(partition: Partition, state: &Duplicates, recorded_at: Micros) {
    let label = partition.to_string();
    metrics::gauge!("tidegate_duplicate_keys", "partition" => label.clone()).set(state.len() as f64);
    metrics::gauge!("tidegate_duplicate_horizon_seconds", "partition" => label).set(state.horizon(recorded_at) as f64 / 1e6);
}
