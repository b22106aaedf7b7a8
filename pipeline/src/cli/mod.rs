//! The command line: one file a command.

mod apply;
mod check;
mod demo;
mod doctor;
mod init;
mod key;
mod manual;
mod rejections;
mod run;
mod sink;
mod tap;
mod template;
mod verify;

use crate::config::Config;
use crate::config::place::Faults;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Sensor events over HTTP, through each tenant's sandboxed scripts, into tables: exactly once.
#[derive(Parser)]
#[command(name = "tidegate", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show everything on this machine: server, organizations, a simulated fleet, tables.
    Demo(demo::Args),
    /// Serve: ingest, processing and sinks, in one process or in several that share Kafka.
    Run(run::Args),
    /// Publish a folder of definitions to a running server.
    Apply(apply::Args),
    /// Check a configuration and its definitions, templates' tests included, without running anything.
    Check(check::Args),
    /// Try everything that the configuration names, and say what to do; exits 1 where something would not work.
    Doctor(doctor::Args),
    /// Write a place to begin with: a configuration, definitions with a template and its tests, and a key.
    Init(init::Args),
    /// Make a new API key; its secret is shown this once.
    Key(key::Args),
    /// Print a part of the manual: settings, definitions, scripts and more.
    Manual(manual::Args),
    /// Refused events that wait, and letting them go on.
    Rejections(rejections::Args),
    /// How far each sink is, what is parked, and what becomes of it; who may read which rows.
    Sink(sink::Args),
    /// Show a tenant's rows as they are committed, live or from an earlier time on.
    Tap(tap::Args),
    /// Make, check, test, try and measure a template, without a server; or write its tests from recorded traffic.
    Template(template::Args),
    /// Add up commit records against the rows that the tables hold; exits 1 on any difference.
    Verify(verify::Args),
    /// The demo's fleet, a process of its own so that the server's figures are the server's.
    #[command(hide = true)]
    DemoFleet(demo::FleetArgs),
}

// For who drives a server of his own: keys of the form that the edge takes.
pub use tidegate_ingest_http::{hash_secret, issue_key};

/// Which server a command is about.
#[derive(clap::Args)]
struct Which {
    /// The server's configuration, which names its data folder.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Its data folder, before what the configuration names.
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

impl Which {
    fn load(&self) -> anyhow::Result<Config> {
        let mut config = run::load(self.config.as_deref())?;
        if let Some(folder) = &self.data_dir {
            config.server.data_dir.clone_from(folder);
        }
        Ok(config)
    }
}

/// What is hardly meant fails nothing.
fn warn(advice: &[String]) {
    advice.iter().for_each(|advice| println!("warning: {advice}"));
}

/// Tells what a person has to mend: the person always, a program where it asked.
fn faults(faults: &Faults, json: bool) -> ExitCode {
    if json {
        println!("{}", serde_json::json!({ "faults": faults.0.iter().map(ToString::to_string).collect::<Vec<_>>() }));
    }
    eprintln!("{faults}");
    ExitCode::FAILURE
}

/// Runs the command line.
pub fn main() -> ExitCode {
    main_from(std::env::args_os())
}

/// How a command ends whose output is read no further: as after SIGPIPE.
const NOBODY_READS: u8 = 141;

/// Ends a command whose output is read no further (`tidegate verify | head -1`) as others end: without a word. Rust's own printing
/// panics there.
fn end_where_nobody_reads() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to stdout") && text.contains("Broken pipe") {
            std::process::exit(NOBODY_READS.into());
        }
        told(panic);
    }));
}

/// Runs a command line.
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = Cli::parse_from(args);
    end_where_nobody_reads();
    let result = crate::fault::arm().map_err(anyhow::Error::msg).and_then(|()| match cli.command {
        Command::Demo(args) => demo::main(args),
        Command::Run(args) => run::main(&args),
        Command::Apply(args) => apply::main(&args),
        Command::Check(args) => check::main(&args),
        Command::Doctor(args) => doctor::main(&args),
        Command::Init(args) => init::main(&args),
        Command::Key(args) => key::main(&args),
        Command::Manual(args) => Ok(manual::main(&args)),
        Command::Rejections(args) => rejections::main(&args),
        Command::Sink(args) => sink::main(&args),
        Command::Tap(args) => tap::main(args),
        Command::Template(args) => template::main(&args),
        Command::Verify(args) => verify::main(&args),
        Command::DemoFleet(args) => demo::fleet(&args),
    });
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tidegate: {error:#}");
            ExitCode::from(2)
        }
    }
}
