//! The one configuration file. Each setting has one home, one default and one comment: here; `tidegate.example.toml`
//! shows them all, and a test holds it to these defaults.
//!
//! ```text
//! text ─ parse (unknown keys are refused) ─▶ Config ─ validate (pure) ─▶ Config that everything is built from
//! ```

pub mod objects;
pub mod place;
pub mod secret;
mod sinks;
mod validate;

pub use sinks::{ClickHouse, Parquet, Sinks};
pub use validate::Objection;

use crate::log::kafka::KafkaSettings;
use objects::{Location, S3};
use place::{Fault, Faults, FilePlace};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate_ingest_http::EdgeSettings;
use tidegate_schemas::limits;
use tidegate_schemas::sink::CutParameters;

/// Everything that can be set. A value comes from [`Config::load`] or [`Config::parse`], so it is a valid one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Data folder and HTTP edge.
    pub server: Server,
    /// The five logs.
    pub log: Log,
    /// Epochs, workers and duplicates.
    pub process: Process,
    /// Where rows go.
    pub sink: Sinks,
    /// How the buckets are reached that settings name.
    pub s3: S3,
    /// When sinks close a file. Published as a definition at start, in effect from the next common edge on.
    pub cut: CutParameters,
    /// The folder of definitions.
    pub definitions: Definitions,
    /// What Tidegate says about itself.
    pub telemetry: Telemetry,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// What this process does: `ingest`, `process`, `sink`. The embedded log has one process, so what is left out rests; on Kafka
    /// any number of processes share the work of each role.
    pub roles: Vec<Role>,
    /// Holds the embedded log, the control socket, and by default snapshots and tables. Each process has one of its own.
    /// Relative to the configuration file's folder.
    pub data_dir: PathBuf,
    /// Parked rows, and snapshots where `process.snapshots` says nothing else; absent: the data folder. Processes that share a
    /// log on Kafka share this folder, since partitions move from one to another. Relative to the configuration file's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
    /// Address and port of the HTTP edge; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Connections at once; past it the kernel's backlog waits.
    pub connections_max: u32,
    /// Connections at once of one address.
    pub connections_per_address_max: u32,
    /// A request head that takes longer is given up.
    pub head_seconds_max: u32,
    /// A request body that takes longer is given up.
    pub body_seconds_max: u32,
    /// A kept-alive connection without a request is closed after this.
    pub idle_seconds_max: u32,
    /// Bytes of one request body as sent.
    pub body_bytes_max: u64,
    /// Bytes of all bodies being read or awaiting the log: the edge's memory.
    pub bodies_in_flight_bytes_max: u64,
    /// A request whose events are not durable by then is answered 503.
    pub publish_seconds_max: u32,
    /// `Prefer: wait` is met up to this.
    pub receipt_wait_seconds_max: u32,
    /// At a stop, requests and epochs under way get this long to end; 5 s later, or told a second time, the process ends at once.
    pub shutdown_seconds_max: u32,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Takes events over HTTP.
    Ingest,
    /// Runs the dataflow.
    Process,
    /// Delivers to sinks.
    Sink,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ingest, Self::Process, Self::Sink];
}

impl Default for Server {
    fn default() -> Self {
        Self {
            roles: Role::ALL.to_vec(),
            data_dir: "tidegate-data".into(),
            state_dir: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            connections_max: limits::CONNECTIONS_MAX as u32,
            connections_per_address_max: limits::CONNECTIONS_PER_ADDRESS_MAX as u32,
            head_seconds_max: limits::HEAD_SECONDS_MAX as u32,
            body_seconds_max: limits::BODY_SECONDS_MAX as u32,
            idle_seconds_max: limits::IDLE_SECONDS_MAX as u32,
            body_bytes_max: limits::BODY_WIRE_BYTES_MAX as u64,
            bodies_in_flight_bytes_max: limits::BODIES_IN_FLIGHT_BYTES_MAX as u64,
            publish_seconds_max: limits::PUBLISH_SECONDS_MAX as u32,
            receipt_wait_seconds_max: limits::RECEIPT_WAIT_SECONDS_MAX as u32,
            shutdown_seconds_max: limits::SHUTDOWN_SECONDS_MAX as u32,
        }
    }
}

impl Server {
    /// As the edge takes them.
    pub fn edge_settings(&self) -> EdgeSettings {
        let seconds = |s: u32| Duration::from_secs(s.into());
        let bytes = |b: u64| usize::try_from(b).unwrap_or(usize::MAX);
        EdgeSettings {
            takes_events: self.roles.contains(&Role::Ingest),
            listen: self.listen,
            body_wire_bytes_max: bytes(self.body_bytes_max),
            bodies_in_flight_bytes_max: bytes(self.bodies_in_flight_bytes_max),
            connections_max: self.connections_max as usize,
            connections_per_address_max: self.connections_per_address_max as usize,
            head_deadline: seconds(self.head_seconds_max),
            body_deadline: seconds(self.body_seconds_max),
            idle_deadline: seconds(self.idle_seconds_max),
            publish_deadline: seconds(self.publish_seconds_max),
            shutdown_deadline: seconds(self.shutdown_seconds_max),
            wait_max: seconds(self.receipt_wait_seconds_max),
        }
    }
}

/// Which implementation of the logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// Segment files in the data folder.
    #[default]
    Embedded,
    /// Topics of Apache Kafka.
    Kafka,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Which implementation.
    pub kind: LogKind,
    /// Partitions of a new log; a log keeps those it was made with, and another number is refused.
    pub partitions: u32,
    /// Bytes that all logs may take, on Kafka before compression and replication: ingest answers 503 at 85 % of it, epochs wait at 95 %.
    /// The embedded log makes do with what its disk has, where that is less.
    pub budget_bytes: u64,
    /// How long processed events stay, for replay and `explain`.
    pub raw_horizon_seconds: u64,
    /// How long outcomes stay, for receipts.
    pub audit_horizon_seconds: u64,
    /// Size at which a segment of the embedded log is full; its retention deletes whole segments.
    pub segment_bytes: u64,
    /// How often the log deletes what nobody needs.
    pub trim_milliseconds: u32,
    /// How Kafka is reached, where `kind` says so.
    pub kafka: KafkaSettings,
}

impl Log {
    /// Bytes of one partition where all together may take so many per cent of the budget.
    pub fn share(&self, percent: usize, partitions: u32) -> u64 {
        self.budget_bytes / 100 * percent as u64 / u64::from(partitions.max(1))
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            kind: LogKind::Embedded,
            partitions: 4,
            budget_bytes: limits::LOG_BUDGET_BYTES as u64,
            raw_horizon_seconds: 86_400,
            audit_horizon_seconds: 7 * 86_400,
            segment_bytes: limits::SEGMENT_BYTES as u64,
            trim_milliseconds: 5_000,
            kafka: KafkaSettings::default(),
        }
    }
}

/// `[process]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    /// Worker threads; absent: one a core. Never more than partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// Events of one epoch.
    pub epoch_events: u32,
    /// Input bytes of one epoch.
    pub epoch_bytes: u64,
    /// An epoch with events is sealed at this age.
    pub epoch_milliseconds: u32,
    /// A partition without events commits an empty epoch this often, so that time passes in the log.
    pub tick_milliseconds: u32,
    /// State is snapshotted every so many epochs: what recovery folds at most, and some.
    pub snapshot_epochs: u32,
    /// Where snapshots are kept, a folder or `s3://bucket/folder`; absent: `state` in the state folder. A partition that moves
    /// finds its own there, so processes that share a log share it. Relative to the configuration file's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Location>,
    /// Recorded time within which a repeated event id is a duplicate.
    pub duplicate_horizon_seconds: u64,
    /// Keys of the duplicate state of one partition; past it the tenant with the most loses its oldest, and its horizon shrinks.
    pub duplicate_keys_max: u64,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            workers: None,
            epoch_events: limits::EPOCH_EVENTS_MAX as u32,
            epoch_bytes: limits::EPOCH_BYTES_MAX as u64,
            epoch_milliseconds: 200,
            tick_milliseconds: 1_000,
            snapshot_epochs: limits::SNAPSHOT_EVERY_EPOCHS as u32,
            snapshots: None,
            duplicate_horizon_seconds: limits::DUPLICATE_HORIZON_SECONDS as u64,
            duplicate_keys_max: limits::DUPLICATE_KEYS_MAX as u64,
        }
    }
}

impl Process {
    /// Worker threads on a machine of so many cores.
    pub fn workers(&self, partitions: u32, cores: usize) -> u32 {
        let cores = u32::try_from(cores).unwrap_or(u32::MAX);
        self.workers.unwrap_or(cores).clamp(1, partitions.max(1))
    }

    /// Age at which an epoch is sealed.
    pub fn epoch_age(&self) -> Duration {
        Duration::from_millis(self.epoch_milliseconds.into())
    }

    /// Time between empty epochs.
    pub fn tick(&self) -> Duration {
        Duration::from_millis(self.tick_milliseconds.into())
    }
}

/// `[definitions]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Definitions {
    /// Published at start, and again by `tidegate apply`. Relative to the configuration file's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[telemetry]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Level, or directives such as `info,tidegate_sinks=debug`; the environment's `TIDEGATE_LOG` goes before it.
    pub log_filter: String,
    /// How log lines are written.
    pub log_format: LogFormat,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log_filter: "info".into(), log_format: LogFormat::Text }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {file} cannot be read; name another file, or write it: tidegate manual settings shows every setting")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// Its text is wrong.
    #[error(transparent)]
    Invalid(#[from] Faults),
}

const REMEDY: &str = "tidegate manual settings shows every setting";

impl Config {
    /// Reads a file. Relative paths in it begin at its folder.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable { file: path.to_owned(), cause })?;
        let mut config = Self::parse(&text, &path.display().to_string())?;
        if let Some(folder) = path.parent() {
            config.begin_paths_at(folder);
        }
        Ok(config)
    }

    /// Reads a text; `name` is how messages call it.
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        let fault = |e: toml::de::Error| Fault::new(FilePlace::of(name, text, e.span()), e.message(), REMEDY);
        let mut config: Self = toml::from_str(text).map_err(|e| Faults(vec![fault(e)]))?;
        // The default is that of a few partitions; many have less room each.
        if config.cut.edge_bytes == Self::default().cut.edge_bytes {
            config.cut.edge_bytes = config.cut.edge_bytes.min(config.log.share(limits::EDGES_PERCENT, config.log.partitions));
        }
        let objections = config.validate();
        if objections.is_empty() {
            return Ok(config);
        }
        let place = |setting: &str| FilePlace::of(name, text, span_of(text, setting));
        let faults = objections.into_iter().map(|o| Fault::new(place(o.setting), format!("{} {}", o.setting, o.detail), o.remedy));
        Err(Faults(faults.collect()).into())
    }

    /// Looks again, after values were changed from the command line.
    pub fn check_again(&self) -> anyhow::Result<()> {
        match self.validate().first() {
            None => Ok(()),
            Some(o) => anyhow::bail!("{} {}; {}", o.setting, o.detail, o.remedy),
        }
    }

    /// Root of the Delta Lake tables.
    pub fn tables(&self) -> Location {
        self.sink.parquet.path.clone().unwrap_or_else(|| Location::Folder(self.server.data_dir.join("tables")))
    }

    /// Where snapshots are kept.
    pub fn snapshots(&self) -> Location {
        self.process.snapshots.clone().unwrap_or_else(|| Location::Folder(self.state().join("state")))
    }

    /// The folder of parked rows, and of what processes note of themselves.
    pub fn state(&self) -> &Path {
        self.server.state_dir.as_ref().unwrap_or(&self.server.data_dir)
    }

    /// Where a sink keeps the rows of parked tables.
    pub fn parked(&self, sink: &str) -> PathBuf {
        self.state().join("parked").join(sink)
    }

    /// The socket that `tidegate apply` talks to.
    pub fn control_socket(&self) -> PathBuf {
        self.server.data_dir.join("control.sock")
    }

    fn begin_paths_at(&mut self, folder: &Path) {
        let server = &mut self.server;
        let snapshots = self.process.snapshots.as_mut().and_then(Location::folder_mut);
        let paths = [Some(&mut server.data_dir), server.state_dir.as_mut(), self.definitions.folder.as_mut(), snapshots];
        let paths = paths.into_iter().flatten().chain(self.log.kafka.files()).chain(self.sink.files()).chain(self.s3.files());
        for path in paths {
            *path = folder.join(&*path);
        }
    }
}

/// Where a setting's value stands; its section where it is not there; nothing where neither is.
fn span_of(text: &str, setting: &str) -> Option<std::ops::Range<usize>> {
    let document = toml::de::DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut found = None;
    for part in setting.split('.') {
        let Some((key, value)) = table.iter().find(|(k, _)| k.get_ref().as_ref() == part) else { break };
        found = Some(key.span());
        match value.get_ref() {
            toml::de::DeValue::Table(inner) => table = inner,
            _ => return Some(value.span()),
        }
    }
    found
}
