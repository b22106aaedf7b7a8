//! How long a row takes from its POST until a query of ClickHouse shows it: at cuts of a second, at half of the load that the
//! chain takes just now on this machine. Nobody is believed but ClickHouse: it is asked again and again for the rows of those
//! requests that were sent and not seen yet.

use crate::drive::{Pace, drive, drive_paced, wait_drained};
use crate::engine::{self, Engine};
use crate::server::{Run, Server, Setting, bodies, count, prepare};
use crate::sinks::table_of;
use anyhow::{Context, ensure};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_benches::workload::Workload;
use tidegate_pipeline::usage;

/// Events of a request.
const REQUEST: u64 = 100;
/// How long is paced.
const SECONDS: u64 = 30;
/// Between two requests that are looked for.
const PROBE_EVERY: Duration = Duration::from_millis(40);
/// Between two looks: so much later than it is visible a row may be seen.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// An epoch may be recorded so long before one of its requests is due.
const RECORDED_BEFORE: Duration = Duration::from_secs(5);
/// A row that is not seen by then is missing.
const PATIENCE: Duration = Duration::from_secs(60);
/// `seq` of event 0 of W3.
const FIRST_SEQ: u64 = 4_000;

/// Cuts of a second: what has a row and is so old goes. Edges are the default's.
const CUT: &str = "rows = 1\nseconds_min = 1\n";

/// What was found.
pub struct Outcome {
    /// The paced part.
    pub run: Run,
    /// Events of the paced part.
    pub events: u64,
    /// Further figures.
    pub further: BTreeMap<&'static str, f64>,
}

/// Sends `events` as fast as they are taken, which tells the full load, then paced ones.
pub fn measure(events: u64, parquet: bool) -> anyhow::Result<Outcome> {
    let engine = engine::own().context("no ClickHouse engine")?;
    let (folder, database) = (tempfile::tempdir()?, engine::database());
    let setting = Setting { parquet, clickhouse: Some(&engine), cut: CUT, ..Setting::whole(events, REQUEST) };
    let key = prepare(folder.path(), Workload::W3, &setting, &database)?;
    let server = Server::start(folder.path())?;
    let events = events / REQUEST * REQUEST;
    let full = Arc::new(bodies(Workload::W3, 0, events, REQUEST));
    let started = Instant::now();
    drive(&server.address, &key, full)?;
    wait_drained(&server.address)?;
    let full_load = events as f64 / started.elapsed().as_secs_f64();

    let rate = full_load / 2.0 / REQUEST as f64;
    let paced = (rate * SECONDS as f64) as u64 * REQUEST;
    let paced_bodies = bodies(Workload::W3, events, paced, REQUEST);
    let table = table_of(&engine, &database, "w3")?;
    let watched = Watched::default();
    let (cpu, engine_cpu, started) = (usage::cpu_seconds(server.pid()), usage::cpu_seconds(engine.pid()), Instant::now());
    let (sent, seen) = std::thread::scope(|scope| {
        let looking = scope.spawn(|| watched.look(&engine, &table));
        let mut next = started;
        let sent = drive_paced(&server.address, &key, &paced_bodies, Pace { rate, waits: 0 }, |i, due| {
            if due >= next {
                next = due + PROBE_EVERY;
                // The last row of the request: the others are in the same epoch or before.
                watched.sent(FIRST_SEQ + events + (i as u64 + 1) * REQUEST - 1, due);
            }
        });
        watched.over.store(true, Ordering::Relaxed);
        (sent, looking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    sent?;
    let seconds = started.elapsed().as_secs_f64();
    let cpu_seconds = usage::cpu_seconds(server.pid()) - cpu;
    let engine_cpu_seconds = Some(usage::cpu_seconds(engine.pid()) - engine_cpu);
    let rss_max_bytes = usage::rss_bytes(server.pid()).1;
    let Seen { mut latencies, looks, looking } = seen?;
    wait_drained(&server.address)?;
    drop(server);
    let rows = count(folder.path(), Workload::W3, events + paced, setting.sinks())?;
    latencies.sort_unstable();
    let further = BTreeMap::from([
        ("full_load_events_per_s", full_load),
        ("paced_events_per_s", rate * REQUEST as f64),
        ("probes", latencies.len() as f64),
        ("look_ms", looking.as_secs_f64() * 1e3 / f64::from(looks.max(1))),
        ("max_ms", latencies.last().map_or(f64::NAN, |l| l.as_secs_f64() * 1e3)),
    ]);
    Ok(Outcome { run: Run { rows, cpu_seconds, seconds, latencies, rss_max_bytes, engine_cpu_seconds }, events: paced, further })
}

/// Requests under way, by `seq` of their last row, with the moment at which they were due.
#[derive(Default)]
struct Watched {
    under_way: Mutex<BTreeMap<u64, Instant>>,
    over: AtomicBool,
}

/// What looking found.
struct Seen {
    latencies: Vec<Duration>,
    looks: u32,
    /// Time of all looks.
    looking: Duration,
}

impl Watched {
    fn sent(&self, seq: u64, due: Instant) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(seq, due);
    }

    /// Until all was sent and seen.
    fn look(&self, engine: &Engine, table: &str) -> anyhow::Result<Seen> {
        let mut seen = Seen { latencies: Vec::new(), looks: 0, looking: Duration::ZERO };
        let mut over_since = None;
        loop {
            std::thread::sleep(LOOK_EVERY);
            let (waiting, age): (Vec<String>, Duration) = {
                let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
                let oldest = under_way.values().min().map_or(Duration::ZERO, Instant::elapsed);
                (under_way.keys().map(u64::to_string).collect(), oldest + RECORDED_BEFORE)
            };
            if waiting.is_empty() {
                if self.over.load(Ordering::Relaxed) {
                    return Ok(seen);
                }
                continue;
            }
            if self.over.load(Ordering::Relaxed) {
                let since = over_since.get_or_insert_with(Instant::now);
                ensure!(since.elapsed() < PATIENCE, "{} requests never came to ClickHouse", waiting.len());
            }
            let began = Instant::now();
            // Parts of before are not read: looking shall cost little.
            let recent = format!("recorded_at > now64(6) - toIntervalMillisecond({})", age.as_millis());
            let answer = engine.try_ask(&format!("SELECT seq FROM {table} WHERE {recent} AND seq IN ({})", waiting.join(",")));
            let answer = answer.map_err(anyhow::Error::msg)?;
            (seen.looks, seen.looking) = (seen.looks + 1, seen.looking + began.elapsed());
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            for line in answer.lines() {
                if let Some(due) = under_way.remove(&line.parse()?) {
                    seen.latencies.push(due.elapsed());
                }
            }
        }
    }
}
