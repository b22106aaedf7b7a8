//! Measures the whole chain: `cargo run --release -p tidegate-benches --bin chain -- [--only PREFIX] [--events N] [--json]`.
//!
//! Paths over HTTP start the server as a child process (this binary again, so that nothing but `cargo run` is needed),
//! drive it over loopback with prepared bodies, read its CPU time from `/proc`, wait until everything is delivered, and
//! count the rows that the tables hold: a lost or repeated row fails the run. Paths of stages run in this process. Paths
//! over Kafka start a broker of their own, whose CPU time does not count.

/// The broker that the tests start, too.
#[allow(dead_code, clippy::unwrap_used)]
#[path = "../../../pipeline/tests/it/kafka/broker.rs"]
mod broker;

use anyhow::{Context, bail, ensure};
use broker::Broker;
use clap::Parser;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tidegate_benches::workload::Workload;
use tidegate_benches::{machine, stages};
use tidegate_pipeline::demo::fleet::client::{Client, Post};
use tidegate_pipeline::{cli, config::Config, log, usage, verify};
use tidegate_schemas::ids::CredentialId;

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the whole chain.
#[derive(Parser)]
struct Args {
    /// Only paths whose name begins so.
    #[arg(long, default_value = "")]
    only: String,
    /// Events of each path; those of single posts a tenth.
    #[arg(long, default_value_t = 400_000)]
    events: u64,
    /// Passes; the median is shown.
    #[arg(long, default_value_t = 1)]
    passes: usize,
    /// Epochs of so many events instead of the default's.
    #[arg(long)]
    epoch_events: Option<u32>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// How a path is measured.
enum Kind {
    /// Over HTTP: events of a request, roles of the server, whether its rows are counted.
    Http { request: u64, roles: &'static str, rows: bool },
    /// The same with every role, on a real Kafka.
    Kafka { request: u64 },
    /// 1,000 events a second in tens, on either log: how long a POST takes until its events are committed, and what
    /// transactions cost where they are most of the work.
    Paced { kafka: bool, epoch_milliseconds: u32 },
    /// The stages in this process: tenants, events of a burst.
    Stages { tenants: usize, burst: u64 },
}

struct PathOf {
    name: &'static str,
    workload: Workload,
    kind: Kind,
    /// CPU seconds per million.
    bar: f64,
}

const ALL: &str = r#"["ingest", "process", "sink"]"#;

const PATHS: &[PathOf] = &[
    PathOf {
        name: "post-100-durable",
        workload: Workload::W1,
        kind: Kind::Http { request: 100, roles: r#"["ingest"]"#, rows: false },
        bar: 1.4,
    },
    PathOf {
        name: "post-1-durable",
        workload: Workload::W1,
        kind: Kind::Http { request: 1, roles: r#"["ingest"]"#, rows: false },
        bar: 16.0,
    },
    scripts("scripts-s5-w3", Workload::W3, 1, 3.1),
    scripts("scripts-s5-w3-128-tenants", Workload::W3, 128, 5.0),
    scripts("scripts-s5-w3-1000-tenants", Workload::W3, 1_000, f64::NAN),
    scripts("scripts-w2", Workload::W2, 1, f64::NAN),
    scripts("scripts-declarative-w1", Workload::W1, 1, 1.2),
    PathOf { name: "whole-w3", workload: Workload::W3, kind: Kind::Http { request: 100, roles: ALL, rows: true }, bar: 7.0 },
    PathOf { name: "whole-w2", workload: Workload::W2, kind: Kind::Http { request: 100, roles: ALL, rows: true }, bar: 6.0 },
    PathOf { name: "whole-w1", workload: Workload::W1, kind: Kind::Http { request: 100, roles: ALL, rows: true }, bar: f64::NAN },
    PathOf { name: "kafka-whole-w3", workload: Workload::W3, kind: Kind::Kafka { request: 100 }, bar: 8.5 },
    paced("paced-embedded-100ms", false, 100),
    paced("paced-embedded-250ms", false, 250),
    paced("paced-embedded-1000ms", false, 1_000),
    paced("paced-kafka-100ms", true, 100),
    paced("paced-kafka-250ms", true, 250),
    paced("paced-kafka-1000ms", true, 1_000),
];

/// One warm tenant sends hundreds, many of them bursts of 64.
const fn scripts(name: &'static str, workload: Workload, tenants: usize, bar: f64) -> PathOf {
    PathOf { name, workload, kind: Kind::Stages { tenants, burst: if tenants == 1 { 100 } else { 64 } }, bar }
}

const fn paced(name: &'static str, kafka: bool, epoch_milliseconds: u32) -> PathOf {
    PathOf { name, workload: Workload::W3, kind: Kind::Paced { kafka, epoch_milliseconds }, bar: f64::NAN }
}

/// Events of a request, requests a second and seconds of a paced path; one request in so many waits for its receipt.
const PACED: (u64, u64, u64, usize) = (10, 100, 20, 10);

/// One measured pass.
#[derive(serde::Serialize, Clone)]
struct Measured {
    path: &'static str,
    events: u64,
    rows: u64,
    cpu_s_per_million: f64,
    /// CPU seconds as a multiple of those of the same work in hand-written Rust.
    by_hand: Option<f64>,
    events_per_s: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    rss_max_bytes: u64,
    bar: Option<f64>,
    /// How many times slower one thread of this machine was just before than the machine of the bars.
    slowness: f64,
    commit: String,
}

fn main() -> anyhow::Result<ExitCode> {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return Ok(cli::main_from(std::iter::once("tidegate".into()).chain(std::env::args_os().skip(2))));
    }
    let args = Args::parse();
    let commit = commit();
    if !args.json {
        println!(
            "{:<26} {:>9} {:>9} {:>9} {:>8} {:>7} {:>7} {:>9} {:>11} {:>8} {:>8} {:>8}",
            "path", "events", "rows", "CPU s/M", "slowness", "bar", "x bar", "x by hand", "events/s", "p50 ms", "p99 ms", "RSS MB"
        );
    }
    for path in PATHS.iter().filter(|p| p.name.starts_with(&args.only)) {
        let mut passes: Vec<Measured> =
            (0..args.passes.max(1)).map(|_| measure(path, args.events, args.epoch_events, &commit)).collect::<Result<_, _>>()?;
        passes.sort_by(|a, b| a.cpu_s_per_million.total_cmp(&b.cpu_s_per_million));
        let (least, most) = (passes[0].cpu_s_per_million, passes[passes.len() - 1].cpu_s_per_million);
        let m = &passes[passes.len() / 2];
        if args.json {
            println!("{}", serde_json::to_string(m)?);
            continue;
        }
        let optional = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{v:.1}"));
        println!(
            "{:<26} {:>9} {:>9} {:>9.2} {:>8.2} {:>7} {:>7} {:>9} {:>11.0} {:>8} {:>8} {:>8.0}{}",
            m.path,
            m.events,
            m.rows,
            m.cpu_s_per_million,
            m.slowness,
            optional(m.bar),
            optional(m.bar.map(|b| m.cpu_s_per_million / b)),
            optional(m.by_hand),
            m.events_per_s,
            optional(m.p50_ms),
            optional(m.p99_ms),
            m.rss_max_bytes as f64 / 1e6,
            if args.passes > 1 { format!("   ({least:.2}–{most:.2})") } else { String::new() }
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The commit that is measured; a changed tree is marked.
fn commit() -> String {
    let git = |args: &[&str]| {
        Command::new("git")
            .args(args)
            .output()
            .ok()
            .filter(|o| o.status.success())
            .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
    };
    let dirty = git(&["status", "--porcelain"]).is_some_and(|s| !s.is_empty());
    git(&["rev-parse", "--short", "HEAD"]).map_or("unknown".into(), |c| if dirty { format!("{c}+") } else { c })
}

fn definitions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("definitions")
}

fn measure(path: &PathOf, events: u64, epoch_events: Option<u32>, commit: &str) -> anyhow::Result<Measured> {
    let bar = Some(path.bar).filter(|b| b.is_finite());
    let slowness = machine::slowness();
    match path.kind {
        Kind::Stages { tenants, burst } => {
            let catalog = stages::catalog(&definitions(), tenants)?;
            let started = Instant::now();
            let cost = stages::run(
                &catalog,
                &stages::Plan { workload: path.workload, events, epoch: epoch_events.map_or(12_800, u64::from), tenants, burst },
            )?;
            Ok(Measured {
                path: path.name,
                events: cost.events,
                rows: cost.rows,
                cpu_s_per_million: cost.cpu_seconds / cost.events as f64 * 1e6,
                by_hand: Some(cost.cpu_seconds / cost.by_hand_cpu_seconds),
                events_per_s: cost.events as f64 / started.elapsed().as_secs_f64(),
                p50_ms: None,
                p99_ms: None,
                rss_max_bytes: usage::rss_bytes(usage::SELF).1,
                bar,
                slowness,
                commit: commit.to_owned(),
            })
        }
        _ => {
            let setting = Setting::of(path, events, epoch_events);
            let broker = setting.kafka.then(|| broker::own().context("no Kafka")).transpose()?;
            let run = over_http(path.workload, &setting, broker.as_ref()).with_context(|| path.name)?;
            let (events, part) =
                (setting.events, |of_100: usize| run.latencies.get(run.latencies.len() * of_100 / 100).map(|l| l.as_secs_f64() * 1e3));
            Ok(Measured {
                path: path.name,
                events,
                rows: run.rows,
                cpu_s_per_million: run.cpu_seconds / events as f64 * 1e6,
                by_hand: None,
                events_per_s: events as f64 / run.seconds,
                p50_ms: part(50),
                p99_ms: part(99),
                rss_max_bytes: run.rss_max_bytes,
                bar,
                slowness,
                commit: commit.to_owned(),
            })
        }
    }
}

/// How a server is set and driven.
struct Setting {
    events: u64,
    request: u64,
    roles: &'static str,
    rows: bool,
    kafka: bool,
    epoch_milliseconds: Option<u32>,
    epoch_events: Option<u32>,
}

impl Setting {
    fn of(path: &PathOf, events: u64, epoch_events: Option<u32>) -> Self {
        let whole = |request, kafka| Self { events, request, roles: ALL, rows: true, kafka, epoch_milliseconds: None, epoch_events };
        match path.kind {
            Kind::Http { request, roles, rows } => {
                let events = if request == 1 { events / 10 } else { events };
                Self { events, roles, rows, ..whole(request, false) }
            }
            Kind::Paced { kafka, epoch_milliseconds } => {
                let (request, rate, seconds, _) = PACED;
                Self { events: request * rate * seconds, epoch_milliseconds: Some(epoch_milliseconds), ..whole(request, kafka) }
            }
            Kind::Kafka { request } => whole(request, true),
            Kind::Stages { burst, .. } => whole(burst, false),
        }
    }
}

struct Run {
    rows: u64,
    cpu_seconds: f64,
    seconds: f64,
    /// In order.
    latencies: Vec<Duration>,
    rss_max_bytes: u64,
}

/// The server's process; it is killed when the run ends early.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already over is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn over_http(workload: Workload, setting: &Setting, broker: Option<&Broker>) -> anyhow::Result<Run> {
    let Setting { events, request, rows, .. } = *setting;
    let folder = tempfile::tempdir()?;
    let key = prepare(folder.path(), workload, setting, broker)?;
    let server = start(folder.path())?;
    let pid = server.child.id();
    let bodies: Arc<Vec<Vec<u8>>> = Arc::new((0..events / request).map(|i| body(workload, i * request, request)).collect());
    // One request of each connection beforehand: connections, scripts and code pages are there.
    let cpu = usage::cpu_seconds(pid);
    let started = Instant::now();
    let pace = setting.epoch_milliseconds.is_some();
    let mut latencies = if pace { drive_paced(&server.address, &key, &bodies)? } else { drive(&server.address, &key, bodies)? };
    let sent = started.elapsed().as_secs_f64();
    let (mut seconds, mut found) = (sent, 0);
    if rows {
        wait_drained(&server.address)?;
        seconds = started.elapsed().as_secs_f64();
    }
    let cpu_seconds = usage::cpu_seconds(pid) - cpu;
    let rss_max_bytes = usage::rss_bytes(pid).1;
    drop(server);
    if rows {
        let config = Config::load(&folder.path().join("tidegate.toml"))?;
        let report = verify::run(&*log::open_to_read(&config)?, &config)?;
        found = report.tables.iter().map(|t| t.rows).sum();
        let expected = (0..events).filter(|n| !workload.is_bad(*n)).count() as u64;
        ensure!(
            report.differences_count == 0 && found == expected,
            "expected {expected} rows, the tables hold {found}: {:?}",
            report.differences.first()
        );
    }
    latencies.sort_unstable();
    Ok(Run { rows: found, cpu_seconds, seconds, latencies, rss_max_bytes })
}

fn body(workload: Workload, from: u64, count: u64) -> Vec<u8> {
    if count > 1 {
        return workload.array(from, count);
    }
    let mut out = String::new();
    workload.event(from, &mut out);
    out.into_bytes()
}

fn prepare(folder: &Path, workload: Workload, setting: &Setting, broker: Option<&Broker>) -> anyhow::Result<String> {
    let target = folder.join("definitions");
    copy(&definitions(), &target)?;
    let (id, secret) = (CredentialId::new("bench")?, [7; 32]);
    let hash = cli::hash_secret(&secret);
    let keys =
        format!("[[key]]\nid = \"bench\"\ntenant = \"acme\"\nsource = \"{}\"\nsha256 = \"{hash}\"\n", workload.name().to_lowercase());
    std::fs::write(target.join("keys.toml"), keys)?;
    let roles = setting.roles;
    let kafka = broker.map_or(String::new(), |broker| {
        let address = broker.address();
        format!("[log]\nkind = \"kafka\"\n[log.kafka]\nbrokers = [\"{address}\"]\nreplication_factor = 1\nmin_insync_replicas = 1\n\n")
    });
    let line = |name: &str, value: Option<u32>| value.map_or(String::new(), |v| format!("{name} = {v}\n"));
    let (age, events) = (line("epoch_milliseconds", setting.epoch_milliseconds), line("epoch_events", setting.epoch_events));
    let epoch = format!("[process]\n{age}{events}\n");
    let config = format!(
        "{kafka}{epoch}[server]\nroles = {roles}\ndata_dir = \"data\"\nlisten = \"127.0.0.1:0\"\n\n[definitions]\nfolder = \"definitions\"\n\n\
         [cut]\nseconds_min = 2\nedge_seconds = 5\n\n[telemetry]\nlog_filter = \"warn\"\n"
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

fn start(folder: &Path) -> anyhow::Result<Server> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["serve", "run", "--config"])
        // As the product sets them for itself.
        .envs(usage::ALLOCATOR_SETTINGS.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()))
        .arg(folder.join("tidegate.toml"))
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    let told: serde_json::Value = serde_json::from_str(&line).with_context(|| format!("the server said {line:?}"))?;
    let address = told["serving"].as_str().and_then(|a| a.strip_prefix("http://")).context("no address")?.to_owned();
    Ok(Server { child, address })
}

/// Connections that each send the next body until there is none; returns every request's latency.
fn drive(address: &str, key: &str, bodies: Arc<Vec<Vec<u8>>>) -> anyhow::Result<Vec<Duration>> {
    const CONNECTIONS: usize = 16;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let next = Arc::new(AtomicUsize::new(0));
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (address, key, bodies, next) = (address.to_owned(), key.to_owned(), Arc::clone(&bodies), Arc::clone(&next));
            tasks.spawn(async move {
                let (mut client, mut latencies) = (Client::new(address), Vec::new());
                while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                    loop {
                        let post = Post { path: "/v1/events", key: Some(&key), content_type: "application/json", headers: &[], body };
                        let started = Instant::now();
                        let answer = client.post(&post).await?;
                        match answer.status {
                            202 => break latencies.push(started.elapsed()),
                            503 => tokio::time::sleep(answer.retry_after.unwrap_or(Duration::from_millis(100))).await,
                            other => bail!("the edge answered {other}: {}", String::from_utf8_lossy(&answer.body)),
                        }
                    }
                }
                Ok(latencies)
            });
        }
        let mut all = Vec::new();
        while let Some(done) = tasks.join_next().await {
            all.extend(done??);
        }
        Ok(all)
    })
}

/// One request after the other at a fixed pace, whatever becomes of those before; returns how long those took that waited for
/// their receipt, from the moment when they were due.
fn drive_paced(address: &str, key: &str, bodies: &[Vec<u8>]) -> anyhow::Result<Vec<Duration>> {
    let (_, rate, _, waits) = PACED;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (began, mut tasks, mut latencies) = (tokio::time::Instant::now(), tokio::task::JoinSet::new(), Vec::new());
        for (i, body) in bodies.iter().enumerate() {
            let due = began + Duration::from_secs_f64(i as f64 / rate as f64);
            tokio::time::sleep_until(due).await;
            let (address, key, body, wait) = (address.to_owned(), key.to_owned(), body.clone(), i % waits == 0);
            tasks.spawn(async move {
                let headers: &[_] = if wait { &[("prefer", "wait=20")] } else { &[] };
                let post = Post { path: "/v1/events", key: Some(&key), content_type: "application/json", headers, body: &body };
                let answer = Client::new(address).post(&post).await?;
                ensure!(matches!(answer.status, 200 | 202), "the edge answered {}", answer.status);
                Ok(wait.then(|| due.elapsed()))
            });
        }
        while let Some(done) = tasks.join_next().await {
            latencies.extend(done??);
        }
        Ok(latencies)
    })
}

fn wait_drained(address: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client = Client::new(address);
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(300) {
            let answer = client.get("/ready", None).await?;
            let body: serde_json::Value = serde_json::from_slice(&answer.body)?;
            if body["drained"] == true {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("the tables did not catch up in 5 minutes: {}", String::from_utf8_lossy(&client.get("/ready", None).await?.body))
    })
}
