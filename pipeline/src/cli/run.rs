//! `tidegate run`: serve until a signal says to stop.

use crate::config::{Config, Role};
use crate::server::Server;
use crate::telemetry;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Serve: ingest, processing and sinks, in one process or in several that share Kafka.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    which: super::Which,
    /// What this process does, before what the configuration says: ingest, process, sink.
    #[arg(long, value_delimiter = ',')]
    role: Vec<Role>,
    /// Address and port of the HTTP edge, before what the configuration says.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Go on where records of the log were deleted by somebody else, and record the gap.
    #[arg(long)]
    accept_gap: bool,
}

pub fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let mut config = args.which.load()?;
    if !args.role.is_empty() {
        config.server.roles.clone_from(&args.role);
    }
    config.server.listen = args.listen.unwrap_or(config.server.listen);
    config.check_again()?;
    start_logs(&config);
    let metrics = telemetry::metrics();
    runtime()?.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        // What starts may wait for a broker that is away. Nothing was acknowledged yet, so there is nothing to end in order.
        let server = tokio::select! {
            server = Server::start(&config, metrics, args.accept_gap) => server?,
            _ = interrupt.recv() => ended_early(),
            _ = terminate.recv() => ended_early(),
        };
        // The one line that a program may wait for.
        println!("{}", serde_json::json!({ "serving": format!("http://{}", server.address), "pid": std::process::id() }));
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        let patience = Duration::from_secs(config.server.shutdown_seconds_max.into()) + LAST_WORDS;
        let why = tokio::select! {
            () = server.stop() => return Ok(ExitCode::SUCCESS),
            () = tokio::time::sleep(patience) => format!("not everything ended within {} s", patience.as_secs()),
            _ = interrupt.recv() => "told twice".to_owned(),
            _ = terminate.recv() => "told twice".to_owned(),
        };
        // A thread that waits for a broker or a store hears of nothing else.
        tracing::error!(why, "ends at once: what was acknowledged is in the log, and what was not committed is done again");
        std::process::exit(1)
    })
}

/// Threads that wait for a broker are not waited for.
fn ended_early() -> ! {
    tracing::info!("told to stop while it started");
    std::process::exit(0)
}

/// What ends once the edge gave its requests up gets this long.
const LAST_WORDS: Duration = Duration::from_secs(5);

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
