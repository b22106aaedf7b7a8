//! `tidegate rejections`: refused events that wait, and letting them go on.

use crate::choice::RefusedChoice;
use crate::config::Config;
use crate::definitions::{CatalogFollower, socket};
use crate::log;
use crate::rejections::{Survey, Waiting, survey};
use crate::release::{self, Done, Order};
use anyhow::{Context, bail};
use serde_json::json;
use std::collections::BTreeMap;
use std::process::ExitCode;
use tidegate_schemas::limits::RELEASE_EVENTS_MAX;
use tidegate_schemas::time;

/// Refused events that wait, and letting them go on.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Refused events that the log still holds and that have not come through since.
    List {
        #[command(flatten)]
        of: RefusedChoice,
        /// How many to name, the newest; all are counted.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        which: super::Which,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Have refused events processed once more, by what is published now.
    Release {
        #[command(flatten)]
        of: RefusedChoice,
        /// Only tell what would be released.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        which: super::Which,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

pub fn main(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::List { of, limit, which, json } => list(&which.load()?, of, *limit, *json),
        Command::Release { of, dry_run, which, json } => release(&which.load()?, of, *dry_run, *json),
    }
}

fn list(config: &Config, of: &RefusedChoice, limit: usize, json: bool) -> anyhow::Result<ExitCode> {
    let Survey { mut waiting, more } = survey(&*log::open_to_read(config)?, of, RELEASE_EVENTS_MAX)?;
    let mut sums: BTreeMap<(&str, &str, &str, &str), u64> = BTreeMap::new();
    for w in &waiting {
        *sums.entry((&w.tenant, &w.code, &w.stage, &w.template)).or_default() += 1;
    }
    if json {
        let sum = |((tenant, code, stage, template), events): (&(&str, &str, &str, &str), &u64)| json!({ "tenant": tenant, "code": code, "stage": stage, "template": template, "events": events });
        let sums: Vec<_> = sums.iter().map(sum).collect();
        let total = waiting.len();
        waiting.sort_by_key(|w| w.received_at);
        println!("{}", json!({ "events": total, "more": more, "sums": sums, "newest": waiting[total.saturating_sub(limit)..] }));
        return Ok(ExitCode::SUCCESS);
    }
    if waiting.is_empty() {
        println!("nothing waits");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:>8}  {:<16} {:<18} {:<10} template", "events", "tenant", "code", "stage");
    for ((tenant, code, stage, template), events) in &sums {
        println!("{events:>8}  {tenant:<16} {code:<18} {stage:<10} {template}");
    }
    if more {
        println!("there are more than {RELEASE_EVENTS_MAX}: the oldest are counted");
    }
    waiting.sort_by_key(|w| w.received_at);
    for w in &waiting[waiting.len().saturating_sub(limit)..] {
        show(w);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(w: &Waiting) {
    let at = time::format(w.received_at);
    println!("\n{at}  {}/{}  asset {:?}  id {:?}", w.tenant, w.source, w.asset, w.event_id);
    let place = if w.pointer.is_empty() { String::new() } else { format!(" at {}", w.pointer) };
    let line = w.line.map(|line| format!(" (line {line})")).unwrap_or_default();
    println!("    {} {}{place}: {}{line}", w.stage, w.code, w.detail);
}

fn release(config: &Config, of: &RefusedChoice, dry_run: bool, json: bool) -> anyhow::Result<ExitCode> {
    if of.codes.is_empty() {
        bail!("which rejections? name a reason, such as --code quarantined; `tidegate rejections list` shows those that there are");
    }
    let done = if dry_run {
        let log = log::open_to_read(config)?;
        let catalog = CatalogFollower::open(std::sync::Arc::clone(&log))?.current();
        release::release(&*log, &catalog, &Order { choice: of, by: "", at: 0 }, |_| Ok(()))?
    } else {
        socket::release(of, &config.control_socket()).context("rejections")?
    };
    if json {
        println!("{}", serde_json::to_string(&done)?);
    } else {
        tell(&done, dry_run, &of.codes);
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(done: &Done, dry_run: bool, asked: &[String]) {
    if done.released + done.quarantined + done.of_the_edge + done.gone == 0 {
        println!("nothing that was asked for waits with the code {}; `tidegate rejections list` shows what does", asked.join(" or "));
        return;
    }
    let codes: Vec<String> = done.codes.iter().map(|(code, events)| format!("{code} {events}")).collect();
    let codes = if codes.is_empty() { String::new() } else { format!(" ({})", codes.join(", ")) };
    println!("{} events {}{codes}", done.released, if dry_run { "would be released" } else { "released" });
    let left = |events: u64, why: &str| {
        if events > 0 {
            println!("{events} left alone: {why}");
        }
    };
    left(done.quarantined, "their template version is still in quarantine; publish another, or lift it (apply --lift-quarantines)");
    left(done.of_the_edge, "the edge refused them; their sender has to send them again");
    left(done.gone, "the log does not hold their request any more, and they need its headers or its credential");
    if done.more {
        println!("there are more: release again once these have been processed");
    }
    if done.released > 0 && !dry_run {
        println!("they come again under their ids; what is refused again is in `tidegate rejections list`");
    }
}
