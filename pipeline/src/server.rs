//! One process with all roles: composes log, catalog, workers, sinks and the HTTP edge, and ends them in order.
//!
//! ```text
//! edge ─▶ log ◀─ workers        stop: edge first (nothing new), then workers (what is sealed is committed),
//!          │                          then sinks, then the log
//!          └──▶ sinks
//! ```

use crate::assignment::Assignment;
use crate::config::{Config, Role};
use crate::definitions::{CatalogFollower, ControlStore, Extent, Publisher, check, socket};
use crate::delivery::{RunningSink, drained};
use crate::epoch::EpochBounds;
use crate::log;
use crate::partition::{ProcessSettings, Surroundings};
use crate::receipts::LogReceipts;
use crate::recovery::{DuplicateBounds, hold_states};
use crate::snapshot::Snapshots;
use crate::usage;
use crate::worker::Workers;
use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use object_store::local::LocalFileSystem;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_ingest_http::{Catalogs, Edge, Operations, Readiness};
use tidegate_schemas::definition::Definition;
use tidegate_schemas::limits;
use tidegate_schemas::log::EventLog;
use tidegate_schemas::sink::Sink;
use tidegate_schemas::system::SystemTable;
use tidegate_schemas::time::Micros;
use tidegate_sinks::driver::{Driver, DriverOptions, TableSelection};
use tidegate_sinks::parquet::{ParquetOptions, ParquetSink};
use tokio::net::TcpListener;
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
    /// Sinks' progress.
    pub sinks: Vec<RunningSink>,
    /// Where the edge listens.
    pub address: SocketAddr,
    workers: Option<Workers>,
    stops: Stops,
    tasks: TaskTracker,
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
    /// Starts everything; returns once the edge listens.
    pub async fn start(config: &Config, metrics: PrometheusHandle) -> anyhow::Result<Self> {
        let data = &config.server.data_dir;
        std::fs::create_dir_all(data).with_context(|| format!("folder {}", data.display()))?;
        let log = open_log(config).await?;
        // Before anything is published or started: what cannot be reached shall change nothing.
        let listener = TcpListener::bind(config.server.listen).await.with_context(|| format!("address {}", config.server.listen))?;
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
        let sinks = start_sinks(config, &log, &config.tables(), &tasks, &stops.sinks)?;
        let processes = config.server.roles.contains(&Role::Process);
        let workers = processes.then(|| start_workers(config, &log, &follower, &stops.threads)).transpose()?;
        let (socket, stop) = (config.control_socket(), stops.edge.clone());
        tasks.spawn(async move {
            if let Err(error) = socket::serve(socket, publisher, stop).await {
                tracing::error!(error = crate::worker::chain(&error), "definitions cannot be applied any more");
            }
        });

        let edge = Edge {
            log: Arc::clone(&log),
            catalog: Arc::clone(&follower) as Arc<dyn Catalogs>,
            receipts: Arc::new(LogReceipts::new(Arc::clone(&log), sinks.clone())),
            clock: now,
            operations: Arc::new(Process { metrics, log: Arc::clone(&log), follower: Arc::clone(&follower), sinks: sinks.clone() }),
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
        Ok(Self { log, sinks, address, workers, stops, tasks })
    }

    /// Ends everything in order. What was acknowledged stays; what is sealed is committed.
    pub async fn stop(self) {
        self.stops.edge.cancel();
        if let Some(workers) = self.workers
            && tokio::task::spawn_blocking(move || workers.stop()).await.is_err()
        {
            tracing::error!("workers did not end in order");
        }
        drop(self.stops);
        self.tasks.close();
        self.tasks.wait().await;
        tracing::info!("stopped");
    }
}

async fn open_log(config: &Config) -> anyhow::Result<Arc<dyn EventLog>> {
    let config = config.clone();
    let open = move || -> anyhow::Result<Arc<dyn EventLog>> {
        let log = log::open(&config)?;
        hold_states(&*log).context("log")?;
        Ok(log)
    };
    tokio::task::spawn_blocking(open).await?
}

async fn publish_at_start(config: &Config, publisher: &Publisher) -> anyhow::Result<()> {
    let cut = publisher.publish(vec![Definition::Cut(config.cut)], Extent::Part, "configuration").await?;
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
            tracing::error!(error = crate::worker::chain(&error), "definitions are not followed any more");
        }
    });
}

/// A sink, and the system tables that it takes.
type Configured = (Arc<dyn Sink>, Vec<SystemTable>);

/// The sinks that are configured: a sink is an arm here.
fn sinks_of(config: &Config, tables: &Path) -> anyhow::Result<Vec<Configured>> {
    let mut sinks: Vec<Configured> = Vec::new();
    let parquet = &config.sink.parquet;
    if parquet.enabled {
        std::fs::create_dir_all(tables).with_context(|| format!("folder {}", tables.display()))?;
        let sink = ParquetSink::open(tables, ParquetOptions::default()).context("Parquet tables")?;
        sinks.push((Arc::new(sink), parquet.system_tables.iter().filter_map(|n| SystemTable::named(n)).collect()));
    }
    Ok(sinks)
}

/// Starts a driver for each sink.
fn start_sinks(
    config: &Config,
    log: &Arc<dyn EventLog>,
    tables: &Path,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<RunningSink>> {
    let mut running = Vec::new();
    if !config.server.roles.contains(&Role::Sink) {
        return Ok(running);
    }
    for (sink, system) in sinks_of(config, tables)? {
        let park = config.server.data_dir.join("parked").join(sink.name());
        let options = DriverOptions { tables: TableSelection { system }, ..DriverOptions::new(park) };
        let driver = Driver::new(Arc::clone(log), Arc::clone(&sink), options);
        let (name, progress, stop) = (sink.name(), driver.progress(), stop.clone());
        tasks.spawn(async move {
            if let Err(error) = driver.run(stop).await {
                tracing::error!(sink = name, error = %error, "a sink ended");
            }
        });
        running.push(RunningSink { sink, progress });
    }
    Ok(running)
}

fn start_workers(
    config: &Config,
    log: &Arc<dyn EventLog>,
    follower: &Arc<CatalogFollower>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Workers> {
    let folder = config.server.data_dir.join("state");
    std::fs::create_dir_all(&folder).with_context(|| format!("folder {}", folder.display()))?;
    let store = LocalFileSystem::new_with_prefix(&folder)?.with_fsync(true);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let process = &config.process;
    let assignment = Arc::new(Assignment::new(process.workers(log.partitions(), cores) as usize));
    assignment.add(0..log.partitions());
    let around = Surroundings {
        log: Arc::clone(log),
        catalogs: Arc::clone(follower) as Arc<dyn Catalogs>,
        assignment,
        snapshots: Snapshots::new(Arc::new(store), tokio::runtime::Handle::current(), log.log_id()),
        clock: now,
        stop: Arc::clone(stop),
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
        },
    };
    Ok(Workers::start(&around)?)
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
    sinks: Vec<RunningSink>,
}

impl Operations for Process {
    fn metrics(&self) -> String {
        self.metrics.run_upkeep();
        self.metrics.render()
    }

    fn ready(&self) -> Readiness {
        let usage = self.log.usage();
        let revision = self.follower.current().revision();
        let sinks: Vec<_> = self
            .sinks
            .iter()
            .map(|s| {
                let lag: u64 = (0..self.log.partitions()).map(|p| s.progress.lag(p).records).sum();
                serde_json::json!({
                    "sink": s.sink.name(),
                    "lag_records": lag,
                    "parked": s.progress.parked().len(),
                    "stopped": s.progress.stopped().len(),
                    "failure": s.progress.failure(),
                })
            })
            .collect();
        let failing = self.log.failing().map(|error| error.to_string());
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
            "sinks": sinks,
            "drained": drained(&*self.log, &self.sinks).unwrap_or(false),
        });
        Readiness { ready, body }
    }
}
