//! Measures the whole chain: `cargo run --release -p tidegate-benches --bin chain -- [--only PREFIX] [--events N] [--json]`.
//!
//! Paths over HTTP start the server as a child process (this binary again, so that nothing but `cargo run` is needed),
//! drive it over loopback with prepared bodies, read its CPU time from `/proc`, wait until everything is delivered, and
//! count the rows that the tables hold: a lost or repeated row fails the run. Paths of stages run in this process, those of
//! sinks in a process that does nothing but deliver. Paths over Kafka start a broker of their own, those to ClickHouse its
//! engine, whose CPU time does not count.
//!
//! ```text
//! server   child process, whole chains    drive    the load generator
//! sinks    a committed log to one sink    visible  POST → seen in ClickHouse    queries  an analyst's questions to both stores
//! ```

/// The broker that the tests start, too.
#[allow(dead_code, clippy::unwrap_used)]
#[path = "../../../../pipeline/tests/it/kafka/broker.rs"]
mod broker;

/// Its certificates, where it has some.
#[allow(dead_code, clippy::unwrap_used)]
#[path = "../../../../sinks/tests/it/authority.rs"]
mod authority;
/// The ClickHouse engine that the tests start, too.
#[allow(dead_code, clippy::unwrap_used)]
#[path = "../../../../sinks/tests/it/clickhouse/engine.rs"]
mod engine;
/// What it and readers of tables run on.
#[path = "../../../../sinks/tests/it/python.rs"]
mod python;

mod drive;
mod queries;
mod server;
mod sinks;
mod visible;

use anyhow::Context;
use clap::Parser;
use server::{ALL, Run, Setting, over_http};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use tidegate_benches::workload::Workload;
use tidegate_benches::{machine, stages};
use tidegate_pipeline::{cli, usage};

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the whole chain.
#[derive(Parser)]
struct Args {
    /// Only paths whose name begins so.
    #[arg(long, default_value = "")]
    only: String,
    /// Events of each path, those of single posts a tenth; otherwise 400,000, for sinks alone 2,000,000 and for queries
    /// 10,000,000.
    #[arg(long)]
    events: Option<u64>,
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
    /// The same with every role and both sinks.
    Both { request: u64 },
    /// The same with every role, on a real Kafka.
    Kafka { request: u64 },
    /// 1,000 events a second in tens, on either log: how long a POST takes until its events are committed, and what
    /// transactions cost where they are most of the work.
    Paced { kafka: bool, epoch_milliseconds: u32 },
    /// The stages in this process: tenants, events of a burst.
    Stages { tenants: usize, burst: u64 },
    /// A log of committed rows to one sink.
    Sink(fn(u64) -> anyhow::Result<sinks::Outcome>),
    /// How long a POST takes until ClickHouse shows its rows, with Parquet beside it or alone.
    Visible { parquet: bool },
    /// Three questions to both stores.
    Queries,
}

impl Kind {
    /// Events where nobody says how many: enough for a clock of 10 ms, and for what is asked.
    fn events(&self) -> u64 {
        match self {
            Self::Sink(_) => 2_000_000,
            Self::Queries => 10_000_000,
            _ => 400_000,
        }
    }
}

struct PathOf {
    name: &'static str,
    workload: Workload,
    kind: Kind,
    /// CPU seconds per million.
    bar: f64,
}

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
    PathOf { name: "whole-w3-both", workload: Workload::W3, kind: Kind::Both { request: 100 }, bar: 7.2 },
    PathOf { name: "sink-parquet-w1", workload: Workload::W1, kind: Kind::Sink(sinks::parquet), bar: 1.0 },
    PathOf { name: "sink-clickhouse-w1", workload: Workload::W1, kind: Kind::Sink(sinks::clickhouse), bar: 0.2 },
    PathOf { name: "queries", workload: Workload::W1, kind: Kind::Queries, bar: f64::NAN },
    PathOf { name: "kafka-whole-w3", workload: Workload::W3, kind: Kind::Kafka { request: 100 }, bar: 8.5 },
    paced("paced-embedded-100ms", false, 100),
    paced("paced-embedded-250ms", false, 250),
    paced("paced-embedded-1000ms", false, 1_000),
    PathOf { name: "paced-clickhouse", workload: Workload::W3, kind: Kind::Visible { parquet: false }, bar: f64::NAN },
    PathOf { name: "paced-both", workload: Workload::W3, kind: Kind::Visible { parquet: true }, bar: f64::NAN },
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
    /// What a path shows besides: sizes, other stores' times.
    #[serde(flatten)]
    further: BTreeMap<&'static str, f64>,
}

fn main() -> anyhow::Result<ExitCode> {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return Ok(cli::main_from(std::iter::once("tidegate".into()).chain(std::env::args_os().skip(2))));
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some(("deliver", rest)) => return sinks::delivering(rest).map(|()| ExitCode::SUCCESS),
        Some(("log", rest)) => return sinks::making(rest).map(|()| ExitCode::SUCCESS),
        _ => {}
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
        m.further.iter().for_each(|(name, value)| println!("    {name:<36} {value:>12.1}"));
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

fn measure(path: &PathOf, events: Option<u64>, epoch_events: Option<u32>, commit: &str) -> anyhow::Result<Measured> {
    let slowness = machine::slowness();
    let events = events.unwrap_or_else(|| path.kind.events());
    let nothing = Measured {
        path: path.name,
        events,
        rows: 0,
        cpu_s_per_million: f64::NAN,
        by_hand: None,
        events_per_s: f64::NAN,
        p50_ms: None,
        p99_ms: None,
        rss_max_bytes: 0,
        bar: Some(path.bar).filter(|b| b.is_finite()),
        slowness,
        commit: commit.to_owned(),
        further: BTreeMap::new(),
    };
    let measured = match path.kind {
        Kind::Stages { tenants, burst } => of_stages(nothing, path.workload, epoch_events, tenants, burst),
        Kind::Sink(measure) => {
            measure(events).map(|o| Measured { rows: o.rows, further: o.further, ..delivered(nothing, events, o.delivered) })
        }
        Kind::Queries => {
            queries::measure(events).map(|o| Measured { rows: o.rows, further: o.further, ..delivered(nothing, events, o.delivered) })
        }
        Kind::Visible { parquet } => visible::measure(events, parquet).map(|mut o| {
            let mut measured = ran(nothing, o.events, &o.run);
            measured.further.append(&mut o.further);
            measured
        }),
        Kind::Http { .. } | Kind::Both { .. } | Kind::Paced { .. } | Kind::Kafka { .. } => of_server(nothing, path, epoch_events),
    };
    measured.with_context(|| path.name)
}

fn of_stages(nothing: Measured, workload: Workload, epoch_events: Option<u32>, tenants: usize, burst: u64) -> anyhow::Result<Measured> {
    let catalog = stages::catalog(&definitions(), tenants)?;
    let started = Instant::now();
    let epoch = epoch_events.map_or(12_800, u64::from);
    let cost = stages::run(&catalog, &stages::Plan { workload, events: nothing.events, epoch, tenants, burst })?;
    Ok(Measured {
        events: cost.events,
        rows: cost.rows,
        cpu_s_per_million: cost.cpu_seconds / cost.events as f64 * 1e6,
        by_hand: Some(cost.cpu_seconds / cost.by_hand_cpu_seconds),
        events_per_s: cost.events as f64 / started.elapsed().as_secs_f64(),
        rss_max_bytes: usage::rss_bytes(usage::SELF).1,
        ..nothing
    })
}

fn of_server(nothing: Measured, path: &PathOf, epoch_events: Option<u32>) -> anyhow::Result<Measured> {
    let whole = |request| Setting { epoch_events, ..Setting::whole(nothing.events, request) };
    let (broker, engine);
    let setting = match path.kind {
        Kind::Http { request, roles, rows } => {
            let events = if request == 1 { nothing.events / 10 } else { nothing.events };
            Setting { events, roles, rows, ..whole(request) }
        }
        Kind::Both { request } => {
            engine = engine::own().context("no ClickHouse engine")?;
            Setting { clickhouse: Some(&engine), ..whole(request) }
        }
        Kind::Kafka { request } => {
            broker = broker::own().context("no Kafka")?;
            Setting { broker: Some(&broker), ..whole(request) }
        }
        Kind::Paced { kafka, epoch_milliseconds } => {
            let (request, rate, seconds, _) = PACED;
            let paced = Setting { events: request * rate * seconds, epoch_milliseconds: Some(epoch_milliseconds), ..whole(request) };
            if kafka {
                broker = broker::own().context("no Kafka")?;
                Setting { broker: Some(&broker), ..paced }
            } else {
                paced
            }
        }
        Kind::Stages { .. } | Kind::Sink(_) | Kind::Visible { .. } | Kind::Queries => anyhow::bail!("it is no path of a server alone"),
    };
    let run = over_http(path.workload, &setting)?;
    Ok(ran(nothing, setting.events, &run))
}

/// What a run through a server showed.
fn ran(nothing: Measured, events: u64, run: &Run) -> Measured {
    let part = |of_100: usize| run.latencies.get(run.latencies.len() * of_100 / 100).map(Duration::as_secs_f64).map(|s| s * 1e3);
    let per_million = |seconds: f64| seconds / events as f64 * 1e6;
    Measured {
        events,
        rows: run.rows,
        cpu_s_per_million: per_million(run.cpu_seconds),
        events_per_s: events as f64 / run.seconds,
        p50_ms: part(50),
        p99_ms: part(99),
        rss_max_bytes: run.rss_max_bytes,
        further: run.engine_cpu_seconds.map(|s| ("engine_cpu_s_per_million", per_million(s))).into_iter().collect(),
        ..nothing
    }
}

/// What a delivery in a process of its own cost.
fn delivered(nothing: Measured, events: u64, cost: sinks::Delivered) -> Measured {
    Measured {
        cpu_s_per_million: cost.cpu_seconds / events as f64 * 1e6,
        events_per_s: events as f64 / cost.seconds,
        rss_max_bytes: cost.rss_max_bytes,
        ..nothing
    }
}
