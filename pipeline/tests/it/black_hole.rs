//! A sink that takes connections and says nothing any more, under load: intake and the other sink go on, memory does not grow,
//! and in the end all is there once. `TIDEGATE_BLACK_HOLE_SECONDS=600` makes it ten minutes.

use crate::clickhouse::engine::{self, Engine};
use crate::clickhouse::{events, place_with, sign_in, there_once, verified};
use crate::crash::{self, FAST, Fleet, Ledger};
use crate::objects;
use crate::s3;
use crate::support::{Options, Place, wait_for};
use crate::tables;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tidegate_pipeline::usage;

/// In the order in which they are told.
const SINKS: [&str; 2] = ["parquet", "clickhouse"];

/// Cuts as one would have them: what has gathered is brought after by files and inserts of a thousand rows.
fn settings() -> String {
    FAST.replace("rows = 50\n", "rows = 1000\n").replace("edge_seconds = 1\n", "edge_seconds = 5\n")
}

fn rows(engine: &Engine, database: &str) -> u64 {
    events(engine, database).values().sum()
}

#[test]
fn clickhouse_harms_neither_intake_nor_parquet() {
    let Some(engine) = engine::own() else { return };
    let place = place_with(&engine, "hole", &settings(), "request_seconds_max = 5\n");
    let ledger = hole(&place, 1, &|name| engine.signal(name), &|| tables::rows(&place.tables()).len() as u64);
    there_once(&engine, "hole", &ledger);
}

#[test]
fn a_bucket_harms_neither_intake_nor_clickhouse() {
    let (Some(engine), Some(s3)) = (engine::shared(), s3::own()) else { return };
    let database = engine::database();
    let place = objects::place_with(&s3, "hole", "", &format!("{}{}", settings(), engine.settings(&database)));
    sign_in(&place);
    let ledger = hole(&place, 0, &|name| s3.signal(name), &|| rows(engine, &database));
    there_once(engine, &database, &ledger);
    crash::there_once(&place.tables(), &ledger);
}

/// Suspends the server behind one sink; `delivered` is what the other one holds.
fn hole(place: &Place, sink: usize, signal: &dyn Fn(&str), delivered: &dyn Fn() -> u64) -> Ledger {
    let (name, other) = (SINKS[sink], 1 - sink);
    let seconds: u64 = std::env::var("TIDEGATE_BLACK_HOLE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    let server = place.start(&Options::default());
    let fleet = Fleet::new(4);
    let stop = Arc::new(AtomicBool::new(false));
    let servers = Arc::new(Mutex::new(vec![server.address.clone()]));
    let senders = fleet.drive_any(&servers, &place.keys, &stop, Duration::from_millis(5));
    let acknowledged = || fleet.ledger.lock().unwrap().acknowledged.len() as u64;
    let mut client = server.client();
    wait_for("both to hold rows", Duration::from_secs(60), || {
        let metrics = String::from_utf8(client.get("/metrics", None).body).unwrap();
        let rows = |sink: &str| {
            let begin = format!("tidegate_sink_rows_total{{sink=\"{sink}\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&begin)).is_some_and(|rows| rows != "0")
        };
        SINKS.iter().all(|sink| rows(sink)).then_some(())
    });
    // The same load with a sink that answers, to compare with: seconds, and bytes of memory.
    let mut sample = |seconds: u64| {
        let (began, mut samples) = (Instant::now(), Vec::new());
        while began.elapsed() < Duration::from_secs(seconds) {
            std::thread::sleep(Duration::from_secs(1));
            samples.push((began.elapsed().as_secs_f64(), usage::rss_bytes(server.child.id()).0 as f64));
            let ready = client.get("/ready", None).json();
            assert_eq!((&ready["ready"], &ready["sinks"][other]["failure"]), (&Value::Bool(true), &Value::Null), "{ready}");
        }
        samples
    };
    let peak = |samples: &[(f64, f64)]| samples.iter().map(|s| s.1).fold(0.0, f64::max);
    let before = sample(seconds.min(20));
    let (acknowledged_before, delivered_before) = (acknowledged(), delivered());
    signal("-STOP");
    let samples = sample(seconds);
    // How far it is behind is told all the time.
    let ready = server.client().get("/ready", None).json();
    assert!(ready["sinks"][sink]["lag_records"].as_u64() > Some(10), "{ready}");
    let metrics = String::from_utf8(server.client().get("/metrics", None).body).unwrap();
    assert!(metrics.contains(&format!("tidegate_sink_breaker_open{{sink=\"{name}\"}} 1")), "{metrics}");
    let (taken, delivered) = (acknowledged() - acknowledged_before, delivered() - delivered_before);
    stop.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|s| s.join().unwrap());
    signal("-CONT");
    let resumed = Instant::now();
    server.drain_within(Duration::from_secs(300 + seconds));
    let drained = resumed.elapsed().as_secs_f64();
    // Of the second half: what is warmed up in the first is no leak. Ids that are remembered grow in either.
    let slope = |samples: &[(f64, f64)]| {
        let half = &samples[samples.len() / 2..];
        (half[half.len() - 1].1 - half[0].1) / (half[half.len() - 1].0 - half[0].0).max(1.0)
    };
    println!(
        "{seconds} s of black hole behind {name}: {taken} events taken, {delivered} rows to {}, peak RSS {:.0} MB ({:.0} MB before), \
         slope {:.1} kB/s ({:.1} kB/s before), drained in {drained:.1} s",
        SINKS[other],
        peak(&samples) / 1e6,
        peak(&before) / 1e6,
        slope(&samples) / 1e3,
        slope(&before) / 1e3
    );
    assert!(taken > 100 && delivered > 100, "{taken} events, {delivered} rows while {name} hung");
    assert!(peak(&samples) < peak(&before) + 150e6, "{before:?} {samples:?}");
    server.stop();
    let sums = verified(place);
    assert_eq!(sums[name], sums[SINKS[other]]);
    std::mem::take(&mut *fleet.ledger.lock().unwrap())
}
