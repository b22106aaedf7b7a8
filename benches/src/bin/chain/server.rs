//! The server as a child process, whole chains through it, and the count of what its tables hold in the end.

use crate::broker::Broker;
use crate::drive::{Pace, drive, drive_paced, wait_drained};
use crate::engine::{self, Engine};
use crate::{PACED, definitions};
use anyhow::{Context, ensure};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_benches::workload::Workload;
use tidegate_pipeline::{cli, config::Config, log, usage, verify};
use tidegate_schemas::ids::CredentialId;

/// Roles of one process that does everything.
pub const ALL: &str = r#"["ingest", "process", "sink"]"#;
/// Cuts and edges that let a run end soon.
pub const CUT: &str = "seconds_min = 2\nedge_seconds = 5\n";

/// How a server is set and driven.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// Events that are sent.
    pub events: u64,
    /// Events of a request.
    pub request: u64,
    /// Roles of the server.
    pub roles: &'a str,
    /// Whether its rows are counted.
    pub rows: bool,
    /// A Kafka instead of the embedded log.
    pub broker: Option<&'a Broker>,
    /// Whether rows go to Parquet.
    pub parquet: bool,
    /// A ClickHouse that rows go to.
    pub clickhouse: Option<&'a Engine>,
    /// Lines of `[cut]`.
    pub cut: &'a str,
    /// Requests are paced, and epochs have this age.
    pub epoch_milliseconds: Option<u32>,
    /// Events of an epoch.
    pub epoch_events: Option<u32>,
}

impl<'a> Setting<'a> {
    /// Every role, Parquet alone, the embedded log.
    pub fn whole(events: u64, request: u64) -> Self {
        Self {
            events,
            request,
            roles: ALL,
            rows: true,
            broker: None,
            parquet: true,
            clickhouse: None,
            cut: CUT,
            epoch_milliseconds: None,
            epoch_events: None,
        }
    }

    /// How many sinks it has.
    pub fn sinks(&self) -> usize {
        usize::from(self.parquet) + usize::from(self.clickhouse.is_some())
    }
}

/// What a run cost and showed.
pub struct Run {
    /// Rows of each sink.
    pub rows: u64,
    /// CPU of the server.
    pub cpu_seconds: f64,
    /// From the first request until everything was delivered.
    pub seconds: f64,
    /// In order.
    pub latencies: Vec<Duration>,
    /// Of the server.
    pub rss_max_bytes: u64,
    /// CPU of ClickHouse.
    pub engine_cpu_seconds: Option<f64>,
}

/// The server's process; it is killed when the run ends early.
pub struct Server {
    child: Child,
    /// Where its edge listens.
    pub address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already over is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Drives a server through a whole workload.
pub fn over_http(workload: Workload, setting: &Setting<'_>) -> anyhow::Result<Run> {
    let Setting { events, request, rows, .. } = *setting;
    let folder = tempfile::tempdir()?;
    let key = prepare(folder.path(), workload, setting, &engine::database())?;
    let server = Server::start(folder.path())?;
    let bodies: Arc<Vec<Vec<u8>>> = Arc::new(bodies(workload, 0, events, request));
    let engine_cpu = setting.clickhouse.map(|engine| usage::cpu_seconds(engine.pid()));
    let cpu = usage::cpu_seconds(server.pid());
    let started = Instant::now();
    let mut latencies = if setting.epoch_milliseconds.is_some() {
        let (_, rate, _, waits) = PACED;
        drive_paced(&server.address, &key, &bodies, Pace { rate: rate as f64, waits }, |_, _| ())?
    } else {
        drive(&server.address, &key, bodies)?
    };
    let mut seconds = started.elapsed().as_secs_f64();
    if rows {
        wait_drained(&server.address)?;
        seconds = started.elapsed().as_secs_f64();
    }
    let cpu_seconds = usage::cpu_seconds(server.pid()) - cpu;
    let engine_cpu_seconds = setting.clickhouse.zip(engine_cpu).map(|(engine, before)| usage::cpu_seconds(engine.pid()) - before);
    let rss_max_bytes = usage::rss_bytes(server.pid()).1;
    drop(server);
    let rows = if rows { count(folder.path(), workload, events, setting.sinks())? } else { 0 };
    latencies.sort_unstable();
    Ok(Run { rows, cpu_seconds, seconds, latencies, rss_max_bytes, engine_cpu_seconds })
}

/// Compares commit records and the tables of every sink; returns the rows that each sink has.
pub fn count(folder: &Path, workload: Workload, events: u64, sinks: usize) -> anyhow::Result<u64> {
    let config = Config::load(&folder.join("tidegate.toml"))?;
    let report = verify::run(&*log::open_to_read(&config)?, &config, false)?;
    let mut found: BTreeMap<&str, u64> = BTreeMap::new();
    report.tables.iter().for_each(|table| *found.entry(table.sink).or_default() += table.rows);
    let expected = (0..events).filter(|n| !workload.is_bad(*n)).count() as u64;
    ensure!(
        report.differences_count == 0 && found.len() == sinks && found.values().all(|rows| *rows == expected),
        "expected {expected} rows, the tables hold {found:?}: {:?}",
        report.differences.first()
    );
    Ok(expected)
}

/// Bodies of the events `from..from + events`.
pub fn bodies(workload: Workload, from: u64, events: u64, request: u64) -> Vec<Vec<u8>> {
    let body = |i: u64| {
        if request > 1 {
            return workload.array(from + i * request, request);
        }
        let mut out = String::new();
        workload.event(from + i, &mut out);
        out.into_bytes()
    };
    (0..events / request).map(body).collect()
}

/// Writes definitions and settings of a server to a folder; returns the key that events are sent with.
pub fn prepare(folder: &Path, workload: Workload, setting: &Setting<'_>, database: &str) -> anyhow::Result<String> {
    let target = folder.join("definitions");
    copy(&definitions(), &target)?;
    let (id, secret) = (CredentialId::new("bench")?, [7; 32]);
    let hash = cli::hash_secret(&secret);
    let keys =
        format!("[[key]]\nid = \"bench\"\ntenant = \"acme\"\nsource = \"{}\"\nsha256 = \"{hash}\"\n", workload.name().to_lowercase());
    std::fs::write(target.join("keys.toml"), keys)?;
    let roles = setting.roles;
    let kafka = setting.broker.map_or(String::new(), |broker| {
        let address = broker.address();
        format!("[log]\nkind = \"kafka\"\n[log.kafka]\nbrokers = [\"{address}\"]\nreplication_factor = 1\nmin_insync_replicas = 1\n\n")
    });
    let line = |name: &str, value: Option<u32>| value.map_or(String::new(), |v| format!("{name} = {v}\n"));
    let (age, events) = (line("epoch_milliseconds", setting.epoch_milliseconds), line("epoch_events", setting.epoch_events));
    let epoch = format!("[process]\n{age}{events}\n");
    std::fs::write(folder.join("clickhouse.password"), engine::PASSWORD)?;
    let clickhouse = setting.clickhouse.map_or(String::new(), |engine| engine.settings(database));
    let sinks = format!("\n[sink.parquet]\nenabled = {}\n{clickhouse}", setting.parquet);
    let cut = setting.cut;
    let config = format!(
        "{kafka}{epoch}[server]\nroles = {roles}\ndata_dir = \"data\"\nlisten = \"127.0.0.1:0\"\n\n[definitions]\nfolder = \"definitions\"\n\n\
         [cut]\n{cut}\n[telemetry]\nlog_filter = \"warn\"\n{sinks}"
    );
    std::fs::write(folder.join("tidegate.toml"), config)?;
    Ok(cli::issue_key(&id, &secret))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &target)? } else { std::fs::copy(entry.path(), target).map(drop)? }
    }
    Ok(())
}

/// This binary again, set as the product sets itself.
pub fn again() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.envs(usage::ALLOCATOR_SETTINGS.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()));
    Ok(command)
}

impl Server {
    /// Starts with what [`prepare`] wrote.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut command = again()?;
        let config = folder.join("tidegate.toml");
        let mut child = command.args(["serve", "run", "--config"]).arg(config).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let told: serde_json::Value = serde_json::from_str(&line).with_context(|| format!("the server said {line:?}"))?;
        let address = told["serving"].as_str().and_then(|a| a.strip_prefix("http://")).context("no address")?.to_owned();
        Ok(Self { child, address })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}
