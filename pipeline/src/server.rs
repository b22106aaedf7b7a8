//! One process with the roles that it has: composes log, catalog, workers, sinks and the HTTP edge, and ends them in order.
//!
//! ```text
//! edge ─▶ log ◀─ workers        stop: edge first (nothing new), then workers (what is sealed is committed),
//!          │                          then sinks, then the log
//!          └──▶ sinks
//! ```

use crate::assignment::{Assignment, Stopped};
use crate::config::{Config, Role};
use crate::definitions::{CatalogFollower, ControlStore, Extent, Publisher, check, socket};
use crate::delivery::{RunningSink, drained};
use crate::epoch::EpochBounds;
use crate::log::{self, Assigner, OpenLog, Takes, Work};
use crate::partition::{ProcessSettings, Surroundings};
use crate::quarantine;
use crate::receipts::LogReceipts;
use crate::recent::RecentCommits;
use crate::recovery::{DuplicateBounds, hold_states};
use crate::scan::ScanError;
use crate::snapshot::Snapshots;
use crate::suspects::Suspects;
use crate::usage;
use crate::worker::Workers;
use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_ingest_http::{Catalogs, Edge, Operations, Readiness};
use tidegate_schemas::BoxFuture;
use tidegate_schemas::definition::{Definition, Quarantine};
use tidegate_schemas::ids::{Partition, Revision};
use tidegate_schemas::limits;
use tidegate_schemas::log::{EventLog, LogError};
use tidegate_schemas::sink::Sink;
use tidegate_schemas::system::SystemTable;
use tidegate_schemas::time::{self, Micros};
use tidegate_sinks::clickhouse::ClickHouseSink;
use tidegate_sinks::driver::{Driver, DriverOptions, Parked, Progress, TableSelection, cursor_or_start};
use tidegate_sinks::objects::ObjectsError;
use tidegate_sinks::parquet::{ParquetOptions, ParquetSink};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often gauges of the process are refreshed.
const GAUGES_EVERY: Duration = Duration::from_secs(2);

/// The clock of the process: the only one that events ever meet.
pub fn now() -> Micros {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as Micros)
}

/// A running process.
pub struct Server {
    /// The log, for whoever accounts.
    pub log: Arc<dyn EventLog>,
    /// The last commits.
    pub commits: Arc<RecentCommits>,
    /// Sinks' progress.
    pub sinks: Vec<RunningSink>,
    /// Where the edge listens.
    pub address: SocketAddr,
    processing: Option<(Workers, Assigner)>,
    delivering: Vec<Assigner>,
    stops: Stops,
    tasks: TaskTracker,
    _open: Arc<OpenLog>,
}

/// What ends the parts of a process. A start that fails half-way ends what it has started, or the process would wait for it.
#[derive(Default)]
struct Stops {
    edge: CancellationToken,
    sinks: CancellationToken,
    threads: Arc<AtomicBool>,
}

impl Drop for Stops {
    fn drop(&mut self) {
        self.edge.cancel();
        self.sinks.cancel();
        self.threads.store(true, Ordering::SeqCst);
    }
}

impl Server {
    /// Starts everything; returns once the edge listens. `accept_gap` goes on where somebody else deleted of the log.
    pub async fn start(config: &Config, metrics: PrometheusHandle, accept_gap: bool) -> anyhow::Result<Self> {
        let data = &config.server.data_dir;
        std::fs::create_dir_all(data).with_context(|| format!("folder {}", data.display()))?;
        let opened = config.clone();
        let open = Arc::new(tokio::task::spawn_blocking(move || log::open(&opened, accept_gap)).await??);
        let log = Arc::clone(&open.log);
        // Before anything is published or started: what cannot be reached shall change nothing.
        let listener = TcpListener::bind(config.server.listen)
            .await
            .with_context(|| format!("server.listen, or --listen: address {}", config.server.listen))?;
        let address = listener.local_addr()?;
        let follower = {
            let log = Arc::clone(&log);
            tokio::task::spawn_blocking(move || CatalogFollower::open(log)).await?.context("control log")?
        };
        let follower = Arc::new(follower);
        let publisher = Publisher { store: Arc::new(ControlStore::new(Arc::clone(&log))), follower: Arc::clone(&follower), now };
        publish_at_start(config, &publisher).await?;

        let (stops, tasks) = (Stops::default(), TaskTracker::new());
        follow(&tasks, &follower, &stops.threads);
        let (sinks, delivering) = start_sinks(config, &open, accept_gap, &tasks, &stops.sinks).await?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let assignment = Arc::new(Assignment::new(config.process.workers(log.partitions(), cores) as usize));
        let processing = match config.server.roles.contains(&Role::Process) {
            true => {
                let (told, quarantines) = mpsc::channel(limits::QUARANTINES_TOLD_MAX);
                tasks.spawn(quarantine::publish(quarantines, publisher.clone(), stops.edge.clone()));
                Some(start_workers(config, &open, accept_gap, &follower, (&assignment, &sinks), &stops.threads, told).await?)
            }
            false => None,
        };
        match socket::bind(&config.control_socket()) {
            Ok(socket) => drop(tasks.spawn(socket::serve(socket, publisher, Arc::clone(&log), stops.edge.clone()))),
            Err(error) => tracing::error!(error = tidegate_schemas::causes::chain(&error), "definitions cannot be applied"),
        }

        let commits = Arc::new(RecentCommits::new(Arc::clone(&log)));
        if config.server.roles.contains(&Role::Ingest) {
            let (commits, stop) = (Arc::clone(&commits), Arc::clone(&stops.threads));
            drop(tasks.spawn_blocking(move || commits.follow(&stop)));
        }
        let edge = Edge {
            log: Arc::clone(&log),
            catalog: Arc::clone(&follower) as Arc<dyn Catalogs>,
            receipts: Arc::new(LogReceipts::new(
                Arc::clone(&log),
                Arc::clone(&commits),
                sinks.clone(),
                Arc::clone(&follower) as Arc<dyn Catalogs>,
            )),
            clock: now,
            operations: Arc::new(Process {
                metrics,
                log: Arc::clone(&log),
                follower: Arc::clone(&follower),
                commits: Arc::clone(&commits),
                sinks: sinks.clone(),
                assignment: Arc::clone(&assignment),
            }),
            settings: config.server.edge_settings(),
        };
        let stop = stops.edge.clone();
        tasks.spawn(async move {
            if let Err(error) = tidegate_ingest_http::serve(edge, listener, stop).await {
                tracing::error!(error = %error, "the HTTP edge ended");
            }
        });
        upkeep(&tasks, &log, Duration::from_millis(config.log.trim_milliseconds.into()), &stops.sinks);
        tracing::info!(%address, log_id = %log.log_id(), data = %data.display(), "serving");
        Ok(Self { log, commits, sinks, address, processing, delivering, stops, tasks, _open: open })
    }

    /// Ends everything in order. What was acknowledged stays; what is sealed is committed.
    pub async fn stop(self) {
        self.stops.edge.cancel();
        // Out of the group only once nothing is under way; then others go on at once.
        if let Some((workers, assigner)) = self.processing {
            in_order("workers", move || {
                workers.stop();
                drop(assigner);
            })
            .await;
        }
        drop(self.stops);
        self.tasks.close();
        self.tasks.wait().await;
        in_order("sinks", move || drop(self.delivering)).await;
        tracing::info!("stopped");
    }
}

async fn in_order(what: &'static str, end: impl FnOnce() + Send + 'static) {
    if tokio::task::spawn_blocking(end).await.is_err() {
        tracing::error!(what, "did not end in order");
    }
}

async fn publish_at_start(config: &Config, publisher: &Publisher) -> anyhow::Result<()> {
    let before = publisher.follower.current();
    let cut = publisher.publish(vec![Definition::Cut(config.cut)], Extent::Part, "configuration").await?;
    if before.revision() > 0 && before.cut().edge_seconds != config.cut.edge_seconds {
        let (old, new) = (before.cut().edge_seconds, config.cut.edge_seconds);
        let from = time::format(before.closed_by((publisher.now)()));
        tracing::info!(
            old,
            new,
            from,
            "cut.edge_seconds is another now; sinks close what is open once more at the old edge, and go by the new one from then on"
        );
    }
    let mut revision = cut.revision;
    if let Some(folder) = &config.definitions.folder {
        let checked = check::check(folder)?;
        let published = publisher.publish(checked.folder.definitions, Extent::Whole, "configuration").await?;
        tracing::info!(changes = published.changes.len(), unchanged = published.unchanged, "definitions published");
        revision = published.revision;
    }
    tracing::info!(revision, "catalog");
    Ok(())
}

fn follow(tasks: &TaskTracker, follower: &Arc<CatalogFollower>, stop: &Arc<AtomicBool>) {
    let (follower, stop) = (Arc::clone(follower), Arc::clone(stop));
    tasks.spawn_blocking(move || {
        if let Err(error) = follower.follow(&stop) {
            tracing::error!(error = tidegate_schemas::causes::chain(&error), "definitions are not followed any more");
        }
    });
}

/// A sink, and the system tables that it takes.
type Configured = (Arc<dyn Sink>, Vec<SystemTable>);

/// The sinks that are configured: a sink is an arm here.
async fn sinks_of(config: &Config) -> anyhow::Result<Vec<Configured>> {
    let mut sinks: Vec<Configured> = Vec::new();
    let named = |tables: &[String]| tables.iter().filter_map(|name| SystemTable::named(name)).collect();
    let parquet = &config.sink.parquet;
    if parquet.enabled {
        let objects = config.s3.open(&config.tables()).context("sink.parquet.path")?;
        let sink = ParquetSink::open(objects, ParquetOptions::default()).context("Parquet tables")?;
        if config.server.roles.contains(&Role::Sink) {
            race(&sink).await.context("sink.parquet.path")?;
        }
        sinks.push((Arc::new(sink), named(&parquet.system_tables)));
    }
    let clickhouse = &config.sink.clickhouse;
    if clickhouse.enabled {
        let sink = ClickHouseSink::open(clickhouse.options()?).context("sink.clickhouse")?;
        sinks.push((Arc::new(sink), named(&clickhouse.system_tables)));
    }
    Ok(sinks)
}

/// A store that is away takes nothing else with it: the sink tries on. One that breaks its word is refused.
async fn race(sink: &ParquetSink) -> anyhow::Result<()> {
    let patience = Duration::from_secs(limits::OBJECT_CHECK_SECONDS_MAX as u64);
    match tokio::time::timeout(patience, sink.check()).await {
        Ok(Ok(())) => {}
        Ok(Err(unfit @ ObjectsError::Unfit { .. })) => return Err(unfit.into()),
        Ok(Err(error)) => tracing::warn!(error = %error, "the store of the tables cannot be used yet"),
        Err(_) => tracing::warn!(seconds = patience.as_secs(), "the store of the tables does not answer yet"),
    }
    Ok(())
}

/// Starts a driver for each sink. A process that delivers nothing knows them all the same: receipts speak of them.
async fn start_sinks(
    config: &Config,
    open: &Arc<OpenLog>,
    accept_gap: bool,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<(Vec<RunningSink>, Vec<Assigner>)> {
    let (mut running, mut assigners) = (Vec::new(), Vec::new());
    for (sink, system) in sinks_of(config).await? {
        let park = config.parked(sink.name());
        let options = DriverOptions { tables: TableSelection { system }, accept_gap, ..DriverOptions::new(park) };
        let driver = Driver::new(Arc::clone(&open.log), Arc::clone(&sink), options);
        let (name, progress, stop) = (sink.name(), driver.progress(), stop.clone());
        running.push(RunningSink { sink, progress: Arc::clone(&progress) });
        if !config.server.roles.contains(&Role::Sink) {
            continue;
        }
        let (partitions, told) = watch::channel(BTreeSet::new());
        tasks.spawn(async move {
            if let Err(error) = driver.run(told, stop).await {
                tracing::error!(sink = name, error = %error, "a sink ended");
            }
        });
        let open = Arc::clone(open);
        let assign = move || open.assign(Work::Sink(name), Delivering { partitions, progress });
        assigners.push(tokio::task::spawn_blocking(assign).await??);
    }
    let (log, known) = (Arc::clone(&open.log), running.iter().map(|s| s.sink.name()).collect::<Vec<_>>());
    tokio::task::spawn_blocking(move || warn_of_removed(&*log, &known)).await??;
    Ok((running, assigners))
}

/// What a sink has not delivered stays in the log, until the log is full.
fn warn_of_removed(log: &dyn EventLog, known: &[&str]) -> Result<(), LogError> {
    for sink in log.sinks()?.iter().filter(|sink| !known.contains(&sink.as_str())) {
        tracing::warn!(
            sink,
            "this sink is not configured any more, and what it has not delivered is kept for it: `tidegate sink remove {sink}` lets go of it"
        );
    }
    Ok(())
}

/// Partitions of a sink's driver. Two drivers at once do no harm: what they write is the same.
struct Delivering {
    partitions: watch::Sender<BTreeSet<Partition>>,
    progress: Arc<Progress>,
}

impl Takes for Delivering {
    fn prepare(&self, _: &[Partition]) -> Result<(), ScanError> {
        Ok(())
    }

    fn add(&self, partitions: &[Partition]) {
        self.partitions.send_modify(|all| all.extend(partitions));
    }

    fn remove(&self, partitions: &[Partition], within: Duration) -> bool {
        self.partitions.send_modify(|all| all.retain(|p| !partitions.contains(p)));
        let deadline = Instant::now() + within;
        while partitions.iter().any(|p| self.progress.is_active(*p)) {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

async fn start_workers(
    config: &Config,
    open: &Arc<OpenLog>,
    accept_gap: bool,
    follower: &Arc<CatalogFollower>,
    (assignment, sinks): (&Arc<Assignment>, &[RunningSink]),
    stop: &Arc<AtomicBool>,
    quarantines: mpsc::Sender<Quarantine>,
) -> anyhow::Result<(Workers, Assigner)> {
    let log = &open.log;
    let folder = config.state().join("state");
    std::fs::create_dir_all(&folder).with_context(|| format!("folder {}", folder.display()))?;
    let store = config.s3.open(&config.snapshots())?.below().context("process.snapshots")?;
    let (process, assignment) = (&config.process, Arc::clone(assignment));
    let suspects = Suspects::open(&folder, assignment.workers()).with_context(|| format!("folder {}", folder.display()))?;
    let sinks = sinks.iter().map(|s| s.sink.name()).collect();
    let takes = Processing { log: Arc::clone(log), assignment: Arc::clone(&assignment), sinks };
    let shared = Arc::clone(open);
    let assigner = tokio::task::spawn_blocking(move || shared.assign(Work::Process, takes)).await??;
    let around = Surroundings {
        log: Arc::clone(log),
        catalogs: Arc::clone(follower) as Arc<dyn Catalogs>,
        assignment,
        snapshots: Snapshots::new(store, tokio::runtime::Handle::current(), log.log_id()),
        clock: now,
        stop: Arc::clone(stop),
        quarantines,
        suspects: Arc::new(suspects),
        settings: ProcessSettings {
            epoch: EpochBounds {
                events: process.epoch_events.into(),
                bytes: process.epoch_bytes,
                age: process.epoch_age(),
                ..EpochBounds::default()
            },
            tick: process.tick(),
            snapshot_epochs: process.snapshot_epochs.into(),
            snapshot_bytes: config.log.share(limits::SNAPSHOTS_PERCENT, log.partitions()),
            duplicates: DuplicateBounds {
                horizon: process.duplicate_horizon_seconds as Micros * 1_000_000,
                keys_max: process.duplicate_keys_max as usize,
            },
            accept_gap,
        },
    };
    Ok((Workers::start(&around)?, assigner))
}

/// Partitions of the workers.
struct Processing {
    log: Arc<dyn EventLog>,
    assignment: Arc<Assignment>,
    sinks: Vec<&'static str>,
}

impl Takes for Processing {
    /// The owner of a partition trims it, so it must know of every sink first, at work by then or not, and of what its own
    /// recovery needs.
    fn prepare(&self, partitions: &[Partition]) -> Result<(), ScanError> {
        for &partition in partitions {
            for sink in &self.sinks {
                cursor_or_start(&*self.log, sink, partition)?;
            }
        }
        hold_states(&*self.log, partitions)
    }

    fn add(&self, partitions: &[Partition]) {
        self.assignment.add(partitions.iter().copied());
    }

    fn remove(&self, partitions: &[Partition], within: Duration) -> bool {
        self.assignment.remove(partitions, within)
    }
}

/// Retention, and gauges of the process.
fn upkeep(tasks: &TaskTracker, log: &Arc<dyn EventLog>, trim_every: Duration, stop: &CancellationToken) {
    let (trimmed, ends) = (Arc::clone(log), stop.clone());
    tasks.spawn(async move {
        // What fails once fails often, and is told as often as it changes.
        let mut told = None;
        while ends.run_until_cancelled(tokio::time::sleep(trim_every)).await.is_some() {
            let log = Arc::clone(&trimmed);
            match tokio::task::spawn_blocking(move || log.trim()).await {
                Ok(Ok(bytes)) => {
                    told = None;
                    if bytes > 0 {
                        tracing::info!(bytes, "log trimmed");
                    }
                }
                Ok(Err(error)) => {
                    let text = Some(error.to_string());
                    if told != text {
                        tracing::error!(error = %error, "log cannot be trimmed");
                    }
                    told = text;
                }
                Err(error) => tracing::error!(error = %error, "trimming panicked"),
            }
        }
    });
    let (log, ends) = (Arc::clone(log), stop.clone());
    tasks.spawn(async move {
        while ends.run_until_cancelled(tokio::time::sleep(GAUGES_EVERY)).await.is_some() {
            let log = log.usage();
            metrics::gauge!("tidegate_log_bytes").set(log.bytes as f64);
            metrics::gauge!("tidegate_log_budget_bytes").set(log.budget as f64);
            metrics::gauge!("process_resident_memory_bytes").set(usage::rss_bytes(usage::SELF).0 as f64);
            metrics::gauge!("process_cpu_seconds").set(usage::cpu_seconds(usage::SELF));
        }
    });
}

struct Process {
    metrics: PrometheusHandle,
    log: Arc<dyn EventLog>,
    follower: Arc<CatalogFollower>,
    commits: Arc<RecentCommits>,
    sinks: Vec<RunningSink>,
    assignment: Arc<Assignment>,
}

impl Operations for Process {
    fn metrics(&self) -> String {
        self.metrics.run_upkeep();
        self.metrics.render()
    }

    fn ready(&self) -> BoxFuture<'_, Readiness> {
        let (log, commits) = (Arc::clone(&self.log), Arc::clone(&self.commits));
        let (sinks, revision) = (self.sinks.clone(), self.follower.current().revision());
        let stopped = self.assignment.all_stopped();
        Box::pin(async move {
            let told = tokio::task::spawn_blocking(move || readiness(&*log, &commits, &sinks, &stopped, revision)).await;
            told.unwrap_or_else(|error| Readiness { ready: false, body: serde_json::json!({ "ready": false, "error": error.to_string() }) })
        })
    }
}

/// What is said of tables that wait for somebody.
fn told_of(parked: &[Parked]) -> Option<String> {
    let first = parked.first()?;
    let more = if parked.len() > 1 { format!(", and {} more", parked.len() - 1) } else { String::new() };
    Some(format!("table {} is parked: {}{more}; tidegate sink list shows them", first.target.table, first.reason))
}

/// Asks the log, so it blocks.
fn readiness(log: &dyn EventLog, commits: &RecentCommits, sinks: &[RunningSink], stopped: &[Stopped], revision: Revision) -> Readiness {
    let usage = log.usage();
    let told: Vec<_> = sinks
        .iter()
        .map(|s| {
            let active: Vec<Partition> = (0..log.partitions()).filter(|p| s.progress.is_active(*p)).collect();
            let parked = s.progress.parked();
            serde_json::json!({
                "sink": s.sink.name(),
                "partitions": active,
                "lag_records": active.iter().map(|p| s.progress.lag(*p).records).sum::<u64>(),
                "parked": parked.len(),
                "stopped": s.progress.stopped().len(),
                "failure": s.progress.failure().or_else(|| told_of(&parked)),
            })
        })
        .collect();
    let failing = log.failing().map(|error| error.to_string());
    let full = usage.percent() >= limits::SEALING_STOPS_PERCENT as u64;
    let reason = match &failing {
        Some(error) => Some(format!("log: {error}")),
        None if revision == 0 => Some("there is no catalog yet".to_owned()),
        None if full => Some(format!("log is full: {} of {} bytes", usage.bytes, usage.budget)),
        None => None,
    };
    let ready = reason.is_none();
    let body = serde_json::json!({
        "ready": ready,
        "reason": reason,
        "catalog_revision": revision,
        "log": { "bytes": usage.bytes, "budget_bytes": usage.budget, "failing": failing },
        "partitions": { "stopped": stopped },
        "sinks": told,
        // A log that fails is not asked: answers would take as long as its time-outs.
        "drained": failing.is_none() && drained(log, commits, sinks).unwrap_or(false),
    });
    Readiness { ready, body }
}
