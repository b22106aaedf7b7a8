//! `tidegate sink`: how far each sink is, what is parked, and what becomes of it; who may read which rows.

use crate::config::Config;
use crate::definitions::CatalogFollower;
use crate::log;
use anyhow::Context;
use serde::Serialize;
use std::process::ExitCode;
use tidegate_schemas::ids::{Epoch, Partition};
use tidegate_schemas::log::{EventLog, LogError, LogName};
use tidegate_sinks::clickhouse::{self, ClickHouseSink, policies};
use tidegate_sinks::driver::{self, Survey, Wish, survey};
use tidegate_sinks::parquet;

/// How far each sink is, what is parked, and what becomes of it; who may read which rows.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// How far each sink has come, and the tables that it has parked, with the reasons.
    List {
        #[command(flatten)]
        which: super::Which,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Deliver what waits of parked tables, then go on with them.
    Resume(Meant),
    /// Give up what waits of parked tables, as a recorded gap, then go on with them.
    Drop(Meant),
    /// Forget how far a sink has come that is not configured any more, so that the log keeps nothing for it.
    Remove {
        /// The sink: parquet, clickhouse.
        sink: String,
        #[command(flatten)]
        which: super::Which,
    },
    /// The statements that let each tenant's role read its own rows of ClickHouse, and nobody else's.
    Policies {
        #[command(flatten)]
        which: super::Which,
        /// Carry them out as the sink's user, which then needs the rights to.
        #[arg(long)]
        apply: bool,
    },
}

/// Which parked tables are meant.
#[derive(clap::Args)]
struct Meant {
    /// The sink: parquet, clickhouse.
    sink: String,
    /// Id of the table.
    table: String,
    /// Of this tenant alone, where the sink takes tenants.
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    which: super::Which,
}

pub fn main(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::List { which, json } => list(&which.load()?, *json),
        Command::Resume(meant) => ask(meant, Wish::Resume),
        Command::Drop(meant) => ask(meant, Wish::Drop),
        Command::Remove { sink, which } => remove(sink, &which.load()?),
        Command::Policies { which, apply } => show_policies(&which.load()?, *apply),
    }
}

#[derive(Serialize)]
struct Listed {
    sink: String,
    /// Whether the configuration has it; the log keeps for others too what they have not delivered.
    configured: bool,
    partitions: Vec<Place>,
    parked: Vec<Survey>,
}

/// Where a sink's cursor stands: everything before it is durable or parked.
#[derive(Serialize)]
struct Place {
    partition: Partition,
    /// The epoch at the cursor; absent for a sink that has not begun.
    epoch: Option<Epoch>,
    /// Records of `clean` from there on: what a restart reads again, and what is not delivered.
    records: u64,
}

fn list(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let log = log::open_to_read(config)?;
    let mut listed = Vec::new();
    let known = enabled(config);
    let others = log.sinks()?.into_iter().filter(|sink| !known.contains(&sink.as_str()));
    for sink in known.iter().map(|sink| (*sink).to_owned()).chain(others) {
        let parked = survey(&config.parked(&sink), &sink, log.log_id()).context("parked rows")?;
        listed.push(Listed { configured: known.contains(&sink.as_str()), partitions: places(&*log, &sink)?, parked, sink });
    }
    if json {
        println!("{}", serde_json::to_string(&serde_json::json!({ "sinks": listed }))?);
        return Ok(ExitCode::SUCCESS);
    }
    for sink in &listed {
        let behind: u64 = sink.partitions.iter().map(|p| p.records).sum();
        println!(
            "{}: {} partitions, {behind} records from its cursors on, which stand at edges: a restart reads them again; {} tables parked",
            sink.sink,
            sink.partitions.len(),
            sink.parked.len()
        );
        if !sink.configured {
            println!("  NOT CONFIGURED: these records are kept for it until `tidegate sink remove {}`", sink.sink);
        }
        for place in &sink.partitions {
            let epoch = place.epoch.map_or("none yet".to_owned(), |e| e.to_string());
            println!("  partition {}: epoch {epoch}, {} records", place.partition, place.records);
        }
        for parked in &sink.parked {
            println!("  PARKED {parked}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Leaves a wish where the process that delivers the partition finds it: parked rows stand in a folder that all of them share.
fn ask(meant: &Meant, wish: Wish) -> anyhow::Result<ExitCode> {
    let config = meant.which.load()?;
    let known = enabled(&config);
    let sink = known.iter().find(|name| **name == meant.sink);
    let sink = sink.with_context(|| format!("{} is no sink of this configuration; it has {}", meant.sink, known.join(", ")))?;
    let log = log::open_to_read(&config)?.log_id();
    let is_meant = |found: &Survey| {
        found.table == meant.table && meant.tenant.as_ref().is_none_or(|t| found.tenant.as_ref().is_some_and(|of| of.as_str() == t))
    };
    let asked = driver::wish(&config.parked(sink), sink, log, wish, is_meant).context("parked rows")?;
    if asked.is_empty() {
        eprintln!("{sink} has not parked {}; `tidegate sink list` shows what is parked", meant.table);
        return Ok(ExitCode::FAILURE);
    }
    for found in &asked {
        println!("asked: {found}");
    }
    println!("a running server does it within seconds, another one when it starts; `tidegate sink list` shows what is left");
    Ok(ExitCode::SUCCESS)
}

fn remove(sink: &str, config: &Config) -> anyhow::Result<ExitCode> {
    if enabled(config).contains(&sink) {
        anyhow::bail!("{sink} is enabled in this configuration: disable it (sink.{sink}.enabled = false) wherever it runs, then remove it");
    }
    let known = log::open_to_read(config)?.sinks()?;
    if !known.iter().any(|name| name == sink) {
        let others = if known.is_empty() { "the log knows of no sinks".to_owned() } else { format!("{} do", known.join(", ")) };
        eprintln!("{sink} holds nothing of this log; {others}");
        return Ok(ExitCode::FAILURE);
    }
    let log = log::open_to_change(config).map_err(|error| match error.downcast_ref() {
        Some(LogError::InUse { .. }) => error.context("stop the server that has it first"),
        _ => error,
    })?;
    let records: u64 = places(&*log, sink)?.iter().map(|p| p.records).sum();
    log.forget_sink(sink)?;
    println!("{sink} is removed: {records} records from its cursors on are not kept for it any more");
    println!("configured again it begins with what the log still holds; rows that it had parked stay in {}", config.parked(sink).display());
    Ok(ExitCode::SUCCESS)
}

/// The sinks that are configured.
fn enabled(config: &Config) -> Vec<&'static str> {
    let all = [(parquet::NAME, config.sink.parquet.enabled), (clickhouse::NAME, config.sink.clickhouse.enabled)];
    all.into_iter().filter_map(|(name, enabled)| enabled.then_some(name)).collect()
}

fn places(log: &dyn EventLog, sink: &str) -> anyhow::Result<Vec<Place>> {
    let place = |partition| {
        let (cursor, bounds) = (log.cursor(sink, partition)?, log.bounds(LogName::Clean, partition)?);
        let from = cursor.map_or(bounds.start, |c| c.clean);
        Ok(Place { partition, epoch: cursor.map(|c| c.epoch), records: bounds.end.saturating_sub(from) })
    };
    (0..log.partitions()).map(place).collect()
}

fn show_policies(config: &Config, apply: bool) -> anyhow::Result<ExitCode> {
    let settings = &config.sink.clickhouse;
    let catalog = CatalogFollower::open(log::open_to_read(config)?)?.current();
    let mut tenants: Vec<_> = catalog.tenants().map(|node| node.organization.id.as_str().to_owned()).collect();
    tenants.sort();
    let statements = policies::statements(&settings.database, &settings.user, &tenants);
    if !apply {
        statements.iter().for_each(|sql| println!("{sql};"));
        return Ok(ExitCode::SUCCESS);
    }
    let sink = ClickHouseSink::open(settings.options()?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(sink.carry_out(&statements))?;
    println!("{} statements carried out for {} tenants", statements.len(), tenants.len());
    Ok(ExitCode::SUCCESS)
}
