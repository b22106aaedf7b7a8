//! `tidegate demo`: everything on this machine, in a folder of its own.
//!
//! ```text
//! folder: definitions/, tidegate.toml, data/ ─▶ server in this process ◀─HTTP─ fleet (a child process)
//!                                                └─▶ account from the server's own log ─▶ the table at the end
//! ```

use super::run::{runtime, start_logs};
use crate::account;
use crate::config::Config;
use crate::delivery::drained;
use crate::demo::content;
use crate::demo::fleet::{self, FleetPlan, FleetReport};
use crate::server::{Server, now};
use crate::{telemetry, usage};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};
use tidegate_schemas::commit::Counts;
use tidegate_schemas::log::LogName;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// Where progress is not written over, a line comes so often.
const LINES_EVERY: Duration = Duration::from_secs(2);

/// Show everything on this machine.
#[derive(clap::Args)]
pub struct Args {
    /// A folder that does not exist yet, or is empty; without it a new one under the current folder.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Address of the edge; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: std::net::SocketAddr,
    /// About how many events the fleet sends.
    #[arg(long, default_value_t = 120_000)]
    events: u64,
    /// Everything that the fleet does follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// End after the report instead of serving on.
    #[arg(long)]
    exit: bool,
    /// Print one JSON object; progress goes to standard error.
    #[arg(long)]
    json: bool,
}

/// The fleet's process takes its plan from standard input.
#[derive(clap::Args)]
pub struct FleetArgs {}

/// What the demo reports: figures of the server alone.
#[derive(Serialize)]
struct Figures {
    #[serde(flatten)]
    counts: Counts,
    rows: u64,
    tables: Vec<Table>,
    rejections: BTreeMap<String, u64>,
    tenants: BTreeMap<String, Tenant>,
    events_per_second: f64,
    seconds: f64,
    cpu_seconds_per_million: f64,
    rss_max_bytes: u64,
    acknowledged: u64,
    refused_at_the_edge: u64,
}

#[derive(Serialize, Deserialize)]
struct Table {
    tenant: String,
    table: String,
    path: PathBuf,
    rows: u64,
}

#[derive(Serialize, Default)]
struct Tenant {
    #[serde(flatten)]
    counts: Counts,
    rows: u64,
    rejections: BTreeMap<String, u64>,
}

pub fn main(args: Args) -> anyhow::Result<ExitCode> {
    let dir = new_folder(args.dir.as_deref())?;
    let keys = content::write(&dir.join("definitions"))?;
    let config = write_config(&dir, args.listen)?;
    start_logs(&config);
    let metrics = telemetry::metrics();
    runtime()?.block_on(async {
        let server = Server::start(&config, metrics, false).await?;
        let told = |text: String| if args.json { eprintln!("{text}") } else { println!("{text}") };
        told(format!("Tidegate serves http://{} from {}", server.address, dir.display()));
        let example = keys.iter().find(|k| k.source == "telemetry").map(|k| String::from_utf8_lossy(k.key.expose()).into_owned());
        let plan =
            FleetPlan { address: server.address.to_string(), seed: args.seed, events: args.events, connections: 6, now: now(), keys };
        let figures = drive(&server, &plan, &dir).await?;
        if args.json {
            println!("{}", serde_json::to_string(&figures)?);
        } else {
            print(&figures);
        }
        if !args.exit {
            told(further(&server, &dir, example.as_deref().unwrap_or_default(), &figures));
            tokio::signal::ctrl_c().await?;
        }
        server.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// The fleet's process.
pub fn fleet(_: &FleetArgs) -> anyhow::Result<ExitCode> {
    let mut plan = Vec::new();
    std::io::stdin().read_to_end(&mut plan)?;
    let plan = FleetPlan::take_over(&plan).context("plan")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(fleet::run(plan, |progress| {
        println!("{}", serde_json::to_string(&progress).unwrap_or_default());
    }))?;
    println!("{}", serde_json::json!({ "report": report }));
    Ok(ExitCode::SUCCESS)
}

/// Never over existing data.
fn new_folder(wanted: Option<&Path>) -> anyhow::Result<PathBuf> {
    let dir = match wanted {
        Some(dir) => {
            if dir.join("tidegate.toml").is_file() && dir.join("data").is_dir() {
                let config = dir.join("tidegate.toml");
                bail!(
                    "{} holds a demo already: serve it with tidegate run --config {}, or name another with --dir",
                    dir.display(),
                    config.display()
                );
            }
            if dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
                bail!("{} is not empty: the demo only writes to a folder of its own; name another with --dir", dir.display());
            }
            dir.to_owned()
        }
        None => (1..).map(|n| PathBuf::from(format!("tidegate-demo-{n}"))).find(|d| !d.exists()).context("no free name")?,
    };
    std::fs::create_dir_all(&dir).with_context(|| format!("folder {}", dir.display()))?;
    Ok(dir.canonicalize()?)
}

/// A configuration that `tidegate run` takes as well. Its cuts close soon, so that tables can be read at once.
fn write_config(dir: &Path, listen: std::net::SocketAddr) -> anyhow::Result<Config> {
    let text = format!(
        "# Written by tidegate demo.\n[server]\ndata_dir = \"data\"\nlisten = \"{listen}\"\n\n[definitions]\nfolder = \"definitions\"\n\n\
         # Files close within seconds instead of minutes, so that there is something to read at once.\n\
         [cut]\nseconds_min = 2\nedge_seconds = 5\n\n[telemetry]\nlog_filter = \"warn\"\n"
    );
    let path = dir.join("tidegate.toml");
    std::fs::write(&path, text).with_context(|| format!("file {}", path.display()))?;
    Ok(Config::load(&path)?)
}

async fn drive(server: &Server, plan: &FleetPlan, dir: &Path) -> anyhow::Result<Figures> {
    let (started, cpu) = (Instant::now(), usage::cpu_seconds(usage::SELF));
    let mut child = Command::new(std::env::current_exe()?)
        .arg("demo-fleet")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("the fleet's process")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(&plan.hand_over()?).await?;
    }
    let mut progress = Progress { started, told: None };
    let report = follow(server, child, &mut progress).await?;
    while !committed(server)? {
        progress.show(server, "the fleet is done, processing goes on")?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    while !drained(&*server.log, &server.commits, &server.sinks)? {
        progress.show(server, "waiting for the tables")?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eprintln!();
    let used = Used { seconds, cpu_seconds: usage::cpu_seconds(usage::SELF) - cpu, rss_max_bytes: usage::rss_bytes(usage::SELF).1 };
    let tables = verified(dir).await?;
    figures(server, tables, &report, &used)
}

/// What the server took for the fleet's events.
struct Used {
    seconds: f64,
    cpu_seconds: f64,
    rss_max_bytes: u64,
}

/// `tidegate verify` beside the running server, in a process of its own: the server's figures stay the server's.
async fn verified(dir: &Path) -> anyhow::Result<Vec<Table>> {
    let output = Command::new(std::env::current_exe()?)
        .args(["verify", "--json", "--config"])
        .arg(dir.join("tidegate.toml"))
        .kill_on_drop(true)
        .output()
        .await
        .context("verify")?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("verify ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))?;
    if !output.status.success() {
        bail!("tables differ from commits: {}", report["differences"]);
    }
    Ok(serde_json::from_value(report["tables"].clone())?)
}

/// Shows progress until the fleet has ended, and returns what it reports.
async fn follow(server: &Server, mut child: Child, progress: &mut Progress) -> anyhow::Result<FleetReport> {
    let output = child.stdout.take().context("the fleet has no output")?;
    let (mut lines, mut report) = (BufReader::new(output).lines(), None);
    while let Some(line) = lines.next_line().await? {
        let value: serde_json::Value = serde_json::from_str(&line).with_context(|| format!("the fleet said {line:?}"))?;
        match value.get("report") {
            Some(found) => report = Some(serde_json::from_value(found.clone())?),
            None => progress.show(server, &format!("requests {} of {}", value["requests"], value["requests_planned"]))?,
        }
    }
    let status = child.wait().await?;
    report.with_context(|| format!("the fleet ended with {status} and without a report"))
}

/// How far the demonstration is, on the standard error output: a line that is written over, or lines from time to time.
struct Progress {
    started: Instant,
    told: Option<Instant>,
}

impl Progress {
    fn show(&mut self, server: &Server, what: &str) -> anyhow::Result<()> {
        let is_terminal = std::io::stderr().is_terminal();
        if !is_terminal && self.told.is_some_and(|told| told.elapsed() < LINES_EVERY) {
            return Ok(());
        }
        self.told = Some(Instant::now());
        let mut sum = Counts::default();
        for partition in 0..server.log.partitions() {
            if let Some(last) = crate::commits::last(&*server.log, partition)? {
                sum = sum.plus(last.totals);
            }
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let line = format!("{seconds:5.1} s  {what}; processed {} events, {} rejected", sum.received, sum.rejected);
        if is_terminal {
            eprint!("\r\x1b[K{line}");
            std::io::stderr().flush()?;
        } else {
            eprintln!("{line}");
        }
        Ok(())
    }
}

fn committed(server: &Server) -> anyhow::Result<bool> {
    for partition in 0..server.log.partitions() {
        let end = server.log.bounds(LogName::Raw, partition)?.end;
        let reached = crate::commits::last(&*server.log, partition)?.map_or(0, |c| c.settled_to().offset);
        if reached < end {
            return Ok(false);
        }
    }
    Ok(true)
}

fn figures(server: &Server, tables: Vec<Table>, report: &FleetReport, used: &Used) -> anyhow::Result<Figures> {
    let account = account::read(&*server.log)?;
    let mut tenants: BTreeMap<String, Tenant> =
        account.tenants.iter().map(|(t, counts)| (t.to_string(), Tenant { counts: *counts, ..Tenant::default() })).collect();
    let mut rejections: BTreeMap<String, u64> = BTreeMap::new();
    for ((tenant, code), n) in account::rejections(&*server.log)? {
        *rejections.entry(code.clone()).or_default() += n;
        tenants.entry(tenant).or_default().rejections.insert(code, n);
    }
    for table in &tables {
        tenants.entry(table.tenant.clone()).or_default().rows += table.rows;
    }
    let received = account.totals.received;
    Ok(Figures {
        counts: account.totals,
        rows: tables.iter().map(|t| t.rows).sum(),
        tables,
        rejections,
        tenants,
        events_per_second: (received as f64 / used.seconds).round(),
        seconds: used.seconds,
        cpu_seconds_per_million: used.cpu_seconds / received.max(1) as f64 * 1e6,
        rss_max_bytes: used.rss_max_bytes,
        acknowledged: report.acknowledged,
        refused_at_the_edge: report.refused,
    })
}

fn print(figures: &Figures) {
    println!(
        "\n{:<12} {:>9} {:>12} {:>10} {:>9} {:>9} {:>9}",
        "tenant", "received", "transformed", "duplicate", "filtered", "rejected", "rows"
    );
    let line = |name: &str, c: &Counts, rows: u64| {
        println!("{name:<12} {:>9} {:>12} {:>10} {:>9} {:>9} {rows:>9}", c.received, c.transformed, c.duplicate, c.filtered, c.rejected);
    };
    for (name, tenant) in &figures.tenants {
        line(name, &tenant.counts, tenant.rows);
    }
    line("all", &figures.counts, figures.rows);
    println!("\nrejections by reason");
    for (code, n) in &figures.rejections {
        let by: Vec<String> = figures.tenants.iter().filter_map(|(t, f)| f.rejections.get(code).map(|n| format!("{t} {n}"))).collect();
        println!("  {code:<20} {n:>7}   {}", by.join(", "));
    }
    println!(
        "\n{:.0} events/s, {:.1} CPU seconds per million events, at most {:.0} MB resident; {} events were acknowledged, {} refused at the edge",
        figures.events_per_second,
        figures.cpu_seconds_per_million,
        figures.rss_max_bytes as f64 / 1e6,
        figures.acknowledged,
        figures.refused_at_the_edge
    );
    println!("\ntables (Delta Lake)");
    for table in &figures.tables {
        println!("  {:>7} rows  {}", table.rows, table.path.display());
    }
    if let Some(table) = figures.tables.iter().max_by_key(|t| t.rows) {
        println!("\nread one:  python3 -c \"import polars; print(polars.read_delta('{}'))\"", table.path.display());
        println!("           (pip install polars deltalake; tidegate manual start draws a chart of a site's temperature)");
    }
}

fn further(server: &Server, dir: &Path, key: &str, figures: &Figures) -> String {
    let event = r#"{"device":"urn:dev:mac:0024beff00000001","ts":"2026-01-01T00:00:00Z","temperature":21.5,"humidity":40}"#;
    // It may not be on the path.
    let program = std::env::current_exe().map_or_else(|_| "tidegate".to_owned(), |path| path.display().to_string());
    let (address, config) = (server.address, dir.join("tidegate.toml"));
    let config = config.display();
    let look = figures.tables.iter().max_by_key(|t| t.rows).map(|table| {
        let Table { tenant, table, path, .. } = table;
        let sql = "SELECT asset, count(*) AS rows FROM self GROUP BY asset ORDER BY rows DESC LIMIT 5";
        format!(
            "look at rows:  {program} tap --tenant {tenant} --table {table} --from beginning --limit 5 --config {config}\n\
             query them:    python3 -c \"import polars; print(polars.scan_delta('{}').sql('{sql}').collect())\"\n\
             watch them:    {program} tap --tenant {tenant} --config {config}\n",
            path.display()
        )
    });
    format!(
        "\n{}send one yourself:\n  curl -s http://{address}/v1/events -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -H 'Prefer: wait=5' -d '{event}'\n\
         what it did:   curl -s http://{address}/metrics\nadd up:        {program} verify --config {config}\nCtrl-C ends.",
        look.unwrap_or_default()
    )
}
