//! `tidegate run`: serve until a signal says to stop.

use crate::config::Config;
use crate::server::Server;
use crate::telemetry;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Serve: ingest, processing and sinks in one process.
#[derive(clap::Args)]
pub struct Args {
    /// The configuration; without it every setting has its default.
    #[arg(long)]
    config: Option<PathBuf>,
}

pub fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let config = load(args.config.as_deref())?;
    start_logs(&config);
    let metrics = telemetry::metrics();
    runtime()?.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let server = Server::start(&config, metrics).await?;
        // The one line that a program may wait for.
        println!("{}", serde_json::json!({ "serving": format!("http://{}", server.address), "pid": std::process::id() }));
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        server.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// The configuration of a file, or the defaults.
pub fn load(path: Option<&std::path::Path>) -> anyhow::Result<Config> {
    Ok(match path {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    })
}

/// Starts the log lines; the environment's filter goes first.
pub fn start_logs(config: &Config) {
    let filter = std::env::var("TIDEGATE_LOG").unwrap_or_else(|_| config.telemetry.log_filter.clone());
    telemetry::logs(&filter, config.telemetry.log_format);
}

/// Two threads carry the edge and the sinks; heavy work has threads of its own.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    tokio::runtime::Builder::new_multi_thread().worker_threads(cores.max(2)).enable_all().build()
}
