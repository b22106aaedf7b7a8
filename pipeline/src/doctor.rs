//! `tidegate doctor`: tries everything that the configuration names, the way the server would use it, and says what to do.
//!
//! Nothing is changed: what is written to try a permission is taken back, or stands where no reader looks.

use crate::config::objects::Location;
use crate::config::{Config, LogKind, Role};
use crate::definitions::check;
use crate::log::embedded::EmbeddedLog;
use crate::log::kafka;
use crate::usage::free_bytes;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate_schemas::limits::INTAKE_STOPS_PERCENT;
use tidegate_schemas::log::EventLog;
use tidegate_sinks::clickhouse::probe::Exercised;
use tidegate_sinks::clickhouse::{ClickHouseOptions, ClickHouseSink};
use tidegate_sinks::objects::RACERS;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it must be.
    Ok,
    /// It works, and somebody should know.
    Warning,
    /// The server would not work.
    Failed,
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was tried.
    pub check: String,
    /// How it ended.
    pub state: State,
    /// What was seen, with the remedy where there is one.
    pub detail: String,
}

impl Finding {
    /// As it must be.
    pub fn ok(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Ok, detail: detail.into() }
    }

    /// Somebody should know.
    pub fn warning(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Warning, detail: detail.into() }
    }

    /// It would not work.
    pub fn failed(check: impl Into<String>, detail: impl ToString) -> Self {
        Self { check: check.into(), state: State::Failed, detail: detail.to_string() }
    }

    fn of<E: ToString>(check: &str, result: Result<String, E>) -> Self {
        match result {
            Ok(detail) => Self::ok(check, detail),
            Err(error) => Self::failed(check, error.to_string()),
        }
    }
}

/// Tries everything, and tells each finding as soon as it is known; blocks, as long as brokers may take to answer. Folders that it
/// had to make are gone afterwards.
pub fn examine(config: &Config, tell: &mut dyn FnMut(Finding)) {
    let places = [Some(config.server.data_dir.clone()), config.snapshots().into_folder(), config.tables().into_folder()];
    let missing = |place: &PathBuf| place.ancestors().take_while(|at| !at.exists()).map(Path::to_owned).collect::<Vec<_>>();
    let made: BTreeSet<PathBuf> = places.iter().flatten().flat_map(missing).collect();
    try_all(config, tell);
    // The deepest first; what is not empty stays.
    made.iter().rev().for_each(|folder| drop(fs::remove_dir(folder)));
}

fn try_all(config: &Config, tell: &mut dyn FnMut(Finding)) {
    if let Some(folder) = &config.definitions.folder {
        let checked = check::check(folder).map(|c| format!("{} definitions, {} tests of templates", c.folder.definitions.len(), c.tests));
        tell(Finding::of("definitions", checked));
    }
    tell(folder("server.data_dir", &config.server.data_dir));
    if config.server.roles.contains(&Role::Ingest) {
        tell(listening(config.server.listen));
    }
    match config.log.kind {
        LogKind::Embedded => embedded(config).into_iter().for_each(&mut *tell),
        LogKind::Kafka => {
            kafka::examine(&config.log.kafka, config.log.partitions).into_iter().for_each(&mut *tell);
            shared_folders(config).into_iter().for_each(&mut *tell);
        }
    }
    let roles = &config.server.roles;
    if roles.contains(&Role::Process) {
        tell(conditional_writes("snapshots", config, &config.snapshots()));
    }
    if roles.contains(&Role::Sink) && config.sink.parquet.enabled {
        tell(conditional_writes("sink.parquet.path", config, &config.tables()));
    }
    if roles.contains(&Role::Sink) && config.sink.clickhouse.enabled {
        clickhouse(config, tell);
    }
}

/// Whether the edge could listen there. Whoever does already may be the server itself.
fn listening(address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok("server.listen", format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            Finding::warning("server.listen", format!("{address} is in use; unless a server of this configuration runs, name another"))
        }
        Err(error) => Finding::failed(
            "server.listen",
            format!("{address}: {error}; name an address of this machine and a port that this user may open"),
        ),
    }
}

/// Whether files can be made there, and how much room there is.
fn folder(name: &str, path: &Path) -> Finding {
    let probe = path.join(format!(".doctor-{}", std::process::id()));
    let tried = fs::create_dir_all(path).and_then(|()| fs::write(&probe, b"probe")).and_then(|()| fs::File::open(&probe)?.sync_all());
    // It may not be there; what failed before is what counts.
    let _ = fs::remove_file(&probe);
    match tried {
        Ok(()) => Finding::ok(name, format!("{} can be written; {} free", path.display(), bytes(free_bytes(path).unwrap_or(0)))),
        Err(error) => Finding::failed(name, format!("{}: {error}; name a folder that this user may write to", path.display())),
    }
}

fn embedded(config: &Config) -> Vec<Finding> {
    let at = config.server.data_dir.join("log");
    let mut found = Vec::new();
    let used = if at.exists() {
        match EmbeddedLog::read_only(&at) {
            Ok(log) => {
                let usage = log.usage();
                let detail = format!("log {} with {} partitions, {} in use", log.log_id(), log.partitions(), bytes(usage.bytes));
                found.push(if log.partitions() == config.log.partitions {
                    Finding::ok("log", detail)
                } else {
                    Finding::failed(
                        "log",
                        format!("{detail}; log.partitions is {}: a log keeps those it was made with", config.log.partitions),
                    )
                });
                usage.bytes
            }
            Err(error) => {
                found.push(Finding::failed("log", error));
                0
            }
        }
    } else {
        found.push(Finding::ok("log", format!("there is none yet in {}; `run` makes it", at.display())));
        0
    };
    // Where nobody knows, or there is no such folder, nothing can be said.
    let Some(room) = free_bytes(&config.server.data_dir).filter(|_| config.server.data_dir.is_dir()) else { return found };
    let wanted = config.log.budget_bytes.saturating_sub(used);
    let detail = format!("log.budget_bytes leaves {} to use, the disk {}", bytes(wanted), bytes(room));
    found.push(if room >= wanted {
        Finding::ok("log.budget_bytes", detail)
    } else {
        Finding::warning(
            "log.budget_bytes",
            format!(
                "{detail}: the log makes do with what the disk has, and intake ends at {INTAKE_STOPS_PERCENT} % of that; lower the budget, \
                 or make room"
            ),
        )
    });
    found
}

/// How long ClickHouse may take for an answer here: whoever asks waits for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Beyond this, recorded times and the dates of rows in ClickHouse contradict each other visibly.
const SKEW_MAX: Duration = Duration::from_secs(1);

/// Version, clock, and every right that the sink needs, by using it.
fn clickhouse(config: &Config, tell: &mut dyn FnMut(Finding)) {
    let settings = &config.sink.clickhouse;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let opened = settings.options().map_err(|e| e.to_string()).and_then(|options| {
        let patience = options.patience.min(PATIENCE);
        ClickHouseSink::open(ClickHouseOptions { patience, ..options }).map_err(|e| e.to_string())
    });
    let (sink, runtime) = match opened.and_then(|sink| Ok((sink, runtime.map_err(|e| e.to_string())?))) {
        Ok(both) => both,
        Err(error) => return tell(Finding::failed("sink.clickhouse", error)),
    };
    let reached = match runtime.block_on(sink.reach()) {
        Ok(reached) => reached,
        Err(error) => return tell(Finding::failed("sink.clickhouse.url", format!("{error}; {}", remedy(&error.to_string())))),
    };
    tell(if reached.fits {
        Finding::ok("sink.clickhouse.url", format!("{}: version {}", settings.url, reached.version))
    } else {
        Finding::failed("sink.clickhouse.url", format!("{}: version {} is too old; 25 or newer is needed", settings.url, reached.version))
    });
    let skew = reached.skew.as_millis();
    tell(if reached.skew <= SKEW_MAX {
        Finding::ok("ClickHouse's clock", format!("within {skew} ms of ours"))
    } else {
        Finding::warning("ClickHouse's clock", format!("{skew} ms away from ours: keep clocks in step (NTP)"))
    });
    let exercised = runtime.block_on(sink.exercise());
    if let Ok(Exercised { left: Some(why), .. }) = &exercised {
        tell(Finding::warning("ClickHouse's database", format!("{} was made to try rights and stays: {why}", settings.database)));
    }
    tell(match exercised {
        Ok(Exercised { rows: 1, .. }) => {
            Finding::ok("ClickHouse's rights", format!("{} may make, widen, fill, read and drop tables; tokens hold", settings.user))
        }
        Ok(Exercised { rows, .. }) => {
            Finding::failed("ClickHouse's tokens", format!("one insert twice under one token left {rows} rows: is a proxy in between?"))
        }
        Err(error) => Finding::failed("ClickHouse's rights", format!("{error}; tidegate manual clickhouse has the grants")),
    });
}

/// What to do where ClickHouse is not reached, or does not let us in.
fn remedy(error: &str) -> &'static str {
    if error.contains("AUTHENTICATION_FAILED") || error.contains("Authentication failed") {
        "sink.clickhouse.user and its password are not those of a user of that server"
    } else {
        "start it, or name its HTTP interface in sink.clickhouse.url: port 8123 with http, 8443 with https, unless it was changed; \
         9000 and 9440 speak another protocol"
    }
}

/// Partitions move between processes, and with them what stands in these places.
fn shared_folders(config: &Config) -> Option<Finding> {
    let (server, own) =
        (&config.server, "not set: in the data folder of this process, where others do not find it; fine for one process alone");
    let absent = [
        // Snapshots are there too, unless they have a place of their own.
        ("server.state_dir", server.state_dir.is_none()),
        ("sink.parquet.path", config.sink.parquet.enabled && config.sink.parquet.path.is_none()),
    ];
    let absent: Vec<&str> = absent.into_iter().filter_map(|(name, absent)| absent.then_some(name)).collect();
    (!absent.is_empty()).then(|| Finding::warning("shared folders", format!("{} {own}", absent.join(" and "))))
}

/// Two writers may never both believe that they made the same file.
fn conditional_writes(name: &str, config: &Config, location: &Location) -> Finding {
    match race(config, location) {
        Ok(()) => Finding::ok(name, format!("{location}: of {RACERS} writers of one name exactly one wins")),
        Err(error) => {
            let remedy = match location.folder() {
                Some(_) => "name a folder that this user may write to",
                None => "tidegate manual objects has the rights that are needed",
            };
            Finding::failed(name, format!("{error:#}; {remedy}"))
        }
    }
}

fn race(config: &Config, location: &Location) -> anyhow::Result<()> {
    let objects = config.s3.open(location)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok(runtime.block_on(objects.race())?)
}

fn bytes(count: u64) -> String {
    match count {
        0..1_000_000 => format!("{count} bytes"),
        1_000_000..10_000_000_000 => format!("{} MB", count / 1_000_000),
        _ => format!("{} GB", count / 1_000_000_000),
    }
}
