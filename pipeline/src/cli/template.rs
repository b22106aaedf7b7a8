//! `tidegate template`: the tools of whoever writes templates, over one template's folder and without a server; only `record`
//! reads a server's log.

mod record;

use crate::config::place::{Fault, Faults};
use crate::definitions::scaffold;
use crate::definitions::single::Single;
use crate::definitions::trial::{self, Cost, Difference, Taken, Templates, Trace, line, short, short_text};
use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::json;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tidegate_schemas::limits::EVENT_BYTES_MAX;
use tidegate_schemas::time::{self, Micros};

/// How `run` exits where the event is rejected: neither a fault of the template's form (1) nor of the call (2).
const REJECTED: u8 = 3;

/// Make, check, test, try, measure and record a template.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Subcommand)]
enum Tool {
    /// Write a working template into a new folder, whose name becomes its id.
    New(Of),
    /// Check forms, scripts and tests; warn of names and places that are hardly meant.
    Check(Of),
    /// Run the tests, and show what differs; exits 1 where anything does.
    Test {
        #[command(flatten)]
        of: Of,
        /// Write what is found into the tests that differ or expect nothing yet.
        #[arg(long)]
        update: bool,
    },
    /// Show what becomes of one payload, stage by stage; exits 3 where it is rejected.
    Run {
        #[command(flatten)]
        of: Of,
        /// An event as it is sent, the device's bytes alone (as they are, or as hex digits), or a test; `-` reads standard input.
        #[arg(long)]
        payload: PathBuf,
        /// The LoRaWAN port of bytes alone.
        #[arg(long, value_parser = clap::value_parser!(u32).range(0..=255))]
        f_port: Option<u32>,
        /// The event around bytes alone: a file, or its JSON.
        #[arg(long)]
        event: Option<String>,
        /// The asset that sends it.
        #[arg(long)]
        asset: Option<String>,
        /// When the request came, RFC 3339; 1970 unless a test says otherwise.
        #[arg(long)]
        received_at: Option<String>,
    },
    /// Measure the events of the tests: steps, and nanoseconds of CPU.
    Bench {
        #[command(flatten)]
        of: Of,
        /// How often each event is run.
        #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        events: u32,
    },
    /// Write tests from recorded traffic: events of the template as a server's log holds them, also beside the server.
    Record(record::Args),
}

/// Which template, and for whom.
#[derive(clap::Args)]
struct Of {
    /// The template's folder: template.toml, scripts, tests/.
    dir: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let of = match &args.tool {
        Tool::New(of) => return new(of),
        Tool::Check(of) | Tool::Test { of, .. } | Tool::Run { of, .. } | Tool::Bench { of, .. } => of,
        Tool::Record(args) => &args.of,
    };
    let single = match Single::read(&of.dir) {
        Ok(single) => single,
        Err(faults) => return Ok(super::faults(&faults, of.json)),
    };
    match &args.tool {
        Tool::New(_) | Tool::Check(_) => Ok(check(of, &single)),
        Tool::Test { update, .. } => test(of, &single, *update),
        Tool::Run { payload, f_port, event, asset, received_at, .. } => {
            let event = event.as_deref().map(event_of).transpose()?;
            let received_at = received_at.as_deref().map(time_of).transpose()?;
            run(of, &single, payload, &Taken { f_port: *f_port, asset: asset.clone(), event, received_at })
        }
        Tool::Bench { events, .. } => bench(of, &single, *events as usize),
        Tool::Record(args) => record::main(args, &single),
    }
}

fn new(of: &Of) -> anyhow::Result<ExitCode> {
    let files = scaffold::write(&of.dir)?;
    if of.json {
        println!("{}", json!({ "files": files }));
    } else {
        files.iter().for_each(|file| println!("{}", file.display()));
        let dir = of.dir.display();
        println!("\nnext:  tidegate template test {dir}\n       tidegate template run {dir} --payload {dir}/tests/reading.json");
    }
    Ok(ExitCode::SUCCESS)
}

fn check(of: &Of, single: &Single) -> ExitCode {
    let templates = Templates::of(&single.folder);
    let mut faults = Vec::new();
    single.folder.tests.iter().for_each(|test| trial::run(&templates, test, &mut faults));
    if !faults.is_empty() {
        return super::faults(&single.placed(faults), of.json);
    }
    let (tests, advice) = (single.folder.tests.len(), single.advice());
    if of.json {
        println!("{}", json!({ "template": "ok", "tests": tests, "warnings": advice }));
    } else {
        super::warn(&advice);
        println!("template ok; {tests} tests passed");
    }
    ExitCode::SUCCESS
}

fn test(of: &Of, single: &Single, update: bool) -> anyhow::Result<ExitCode> {
    let templates = Templates::of(&single.folder);
    let (mut told, mut failed) = (Vec::new(), 0);
    for test in &single.folder.tests {
        let file = single.file(test);
        // A new test expects nothing yet, which is a fault of its form unless it is to be written.
        let tested = trial::tested(&templates, test);
        let text = if update { trial::updated(&templates, test) } else { Ok(None) };
        let (description, differences) = match (tested, &text) {
            (_, Err(fault)) => (None, vec![words(single, fault)]),
            (Ok(tested), _) => (Some(tested.description), tested.differences.iter().map(Difference::to_string).collect()),
            (Err(_), Ok(Some(_))) => (None, Vec::new()),
            (Err(fault), Ok(None)) => (None, vec![words(single, &fault)]),
        };
        let updated = text.ok().flatten();
        if let Some(text) = &updated {
            let path = single.path(test);
            std::fs::write(&path, text).with_context(|| format!("file {}", path.display()))?;
        }
        let passed = differences.is_empty() || updated.is_some();
        failed += usize::from(!passed);
        if !of.json {
            let verdict = if updated.is_some() {
                "updated"
            } else if passed {
                "ok"
            } else {
                "DIFFERS"
            };
            let said = format!("{verdict:<8} {file}  {}", description.as_deref().unwrap_or_default());
            println!("{}", said.trim_end());
            differences.iter().for_each(|difference| println!("         {difference}"));
        }
        told.push(json!({
            "file": file, "description": description, "passed": passed, "updated": updated.is_some(), "differences": differences,
        }));
    }
    let advice = single.advice();
    if of.json {
        println!("{}", json!({ "tests": told, "failed": failed, "warnings": advice }));
    } else {
        super::warn(&advice);
        println!("{} tests, {failed} differ", told.len());
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A fault of a test, with its place.
fn words(single: &Single, fault: &Fault) -> String {
    let Faults(placed) = single.placed(vec![fault.clone()]);
    placed.iter().map(ToString::to_string).collect()
}

fn run(of: &Of, single: &Single, payload: &Path, taken: &Taken) -> anyhow::Result<ExitCode> {
    let (template, table) = single.template().context("the template's table is missing")?;
    let mut bytes = Vec::new();
    // Digits and spaces of the largest event, and more: what is longer is refused by its length.
    let most = 4 * EVENT_BYTES_MAX as u64;
    let read = if payload == Path::new("-") {
        std::io::stdin().take(most).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(payload).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("payload {}", payload.display()))?;
    let trace = match trial::trace(template, table, &bytes, taken) {
        Ok(trace) => trace,
        Err(detail) => bail!("payload {}: {detail}", payload.display()),
    };
    if of.json {
        println!("{}", serde_json::to_string(&trace)?);
    } else {
        show(&trace);
    }
    Ok(if trace.rejected.is_some() { ExitCode::from(REJECTED) } else { ExitCode::SUCCESS })
}

/// The event around bytes alone, checked so far that what is wrong is told in its name.
fn event_of(argument: &str) -> anyhow::Result<String> {
    let text = match argument.trim_start().starts_with('{') {
        true => argument.to_owned(),
        false => std::fs::read_to_string(argument).with_context(|| format!("--event {argument}: it is a file, or an object of JSON"))?,
    };
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text) {
        Ok(_) => Ok(text),
        Err(error) => bail!("--event {argument}: no object of JSON: {error}"),
    }
}

fn time_of(text: &str) -> anyhow::Result<Micros> {
    time::parse(text).with_context(|| format!("--received-at {text:?} is no RFC 3339 time, such as 2026-01-02T03:04:05Z"))
}

/// A warning as people read it.
fn words_of(warning: &serde_json::Value) -> String {
    warning.as_str().map_or_else(|| line(&short(warning)), short_text)
}

fn show(trace: &Trace) {
    println!("template   {}\nasset      {}\nevent      {}", trace.template, trace.asset, short_text(&trace.event));
    for stage in &trace.stages {
        let steps = stage.steps.map(|n| format!(", {n} steps")).unwrap_or_default();
        let reached = if stage.reached { "" } else { ", not reached" };
        println!("{:<10} by {}{steps}{reached}", stage.stage, stage.by);
        if let (Some(decoded), "decode") = (&trace.decoded, stage.stage) {
            println!("           {}", line(&short(decoded)));
        }
        if stage.stage == "decode" {
            trace.warnings.iter().for_each(|warning| println!("           warning: {}", words_of(warning)));
        }
        if let Some(rejected) = trace.rejected.as_ref().filter(|r| r.stage == stage.stage) {
            let at = rejected.at.as_ref().map(|at| format!(" ({at})")).unwrap_or_default();
            let place = if rejected.pointer.is_empty() { String::new() } else { format!(" at {}", rejected.pointer) };
            println!("           REJECTED {}{place}: {}{at}", rejected.code, rejected.detail);
        }
    }
    match trace.end {
        "rows" => trace
            .rows
            .iter()
            .enumerate()
            .for_each(|(i, row)| println!("row {i:<6} {}", line(&short(&serde_json::Value::Object(row.clone()))))),
        "filtered" => println!("filtered   left out on purpose"),
        _ => {}
    }
    trace.log.iter().for_each(|logged| println!("log        {}: {}", logged.stage, logged.text));
    println!("steps      {} of {}", trace.steps, trace.steps_max);
    println!("memory     {} of {} bytes, libraries included", trace.memory_bytes, trace.memory_bytes_max);
}

fn bench(of: &Of, single: &Single, events: usize) -> anyhow::Result<ExitCode> {
    let templates = Templates::of(&single.folder);
    let mut measured: Vec<(&str, String, Cost)> = Vec::new();
    for test in &single.folder.tests {
        match trial::cost(&templates, test, events) {
            Ok(Some((description, cost))) => measured.push((single.file(test), description, cost)),
            Ok(None) => {}
            Err(fault) => return Ok(super::faults(&single.placed(vec![*fault]), of.json)),
        }
    }
    if measured.is_empty() {
        bail!("there is nothing to measure; add a test: {}/tests/NAME.json", of.dir.display());
    }
    if of.json {
        let tests = measured.iter().map(|(file, description, cost)| json!({ "file": file, "description": description, "cost": cost }));
        println!("{}", json!({ "tests": tests.collect::<Vec<_>>() }));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:>10} {:>10}  {:<9} test", "steps", "ns", "end");
    for (file, description, cost) in &measured {
        println!("{:>10} {:>10}  {:<9} {file}  {description}", cost.steps, cost.nanoseconds, cost.end);
    }
    println!("of one event through decode, validate and transform; {events} of each were run");
    Ok(ExitCode::SUCCESS)
}
