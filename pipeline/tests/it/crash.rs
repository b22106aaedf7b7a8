//! The real process, killed under load: every acknowledged event is in the table exactly once, nothing refused is, and
//! `verify` says so. `TIDEGATE_CRASH_ROUNDS=300` kills it that often.

use crate::support::{Options, Place, Random, Running, seed};
use crate::tables;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Small segments, short horizons and fast edges, so that a short test passes every part of the code.
pub const FAST: &str = "[log]\npartitions = 3\nsegment_bytes = 131072\nraw_horizon_seconds = 0\naudit_horizon_seconds = 0\ntrim_milliseconds = 200\n\n\
                    [process]\nworkers = 2\nepoch_milliseconds = 20\ntick_milliseconds = 50\nsnapshot_epochs = 5\n\n\
                    [cut]\nrows = 50\nseconds_min = 0\nedge_seconds = 1\n";

/// What the devices know: each sends its next event only once the last one was acknowledged.
struct Device {
    tenant: usize,
    name: String,
    /// The next event's number.
    next: u64,
}

/// What was sent and how it was answered.
#[derive(Default)]
pub struct Ledger {
    pub acknowledged: BTreeSet<(usize, String)>,
    pub refused: BTreeSet<(usize, String)>,
}

pub struct Fleet {
    devices: Vec<Arc<Mutex<Device>>>,
    pub ledger: Arc<Mutex<Ledger>>,
}

impl Fleet {
    pub fn new(count: usize) -> Self {
        let device = |i: usize| Arc::new(Mutex::new(Device { tenant: i % 2, name: format!("dev-{}", i / 2), next: 0 }));
        Self { devices: (0..count).map(device).collect(), ledger: Arc::default() }
    }

    /// All devices send until `stop`, or until the server is gone.
    pub fn drive(&self, address: &str, keys: &[String; 2], stop: &Arc<AtomicBool>) -> Vec<std::thread::JoinHandle<()>> {
        self.drive_any(&Arc::new(Mutex::new(vec![address.to_owned()])), keys, stop, Duration::ZERO)
    }

    /// All devices send until `stop`, each to one of the servers that there are at the time, with a pause after each
    /// request; until there is none.
    pub fn drive_any(
        &self,
        servers: &Arc<Mutex<Vec<String>>>,
        keys: &[String; 2],
        stop: &Arc<AtomicBool>,
        pause: Duration,
    ) -> Vec<std::thread::JoinHandle<()>> {
        let drive = |(i, device): (usize, &Arc<Mutex<Device>>)| {
            let (device, ledger, stop, servers, keys) =
                (Arc::clone(device), Arc::clone(&self.ledger), Arc::clone(stop), Arc::clone(servers), keys.clone());
            std::thread::spawn(move || {
                let mut device = device.lock().unwrap();
                for attempt in i.. {
                    let address = {
                        let servers = servers.lock().unwrap();
                        // The only one is gone once it fails.
                        if stop.load(Ordering::Relaxed) || servers.is_empty() || (servers.len() == 1 && attempt > i) {
                            return;
                        }
                        servers[attempt % servers.len()].clone()
                    };
                    let mut client = crate::support::Client::new(&address);
                    while !stop.load(Ordering::Relaxed) && send(&mut client, &mut device, &keys, &ledger) {
                        std::thread::sleep(pause);
                    }
                    // Gone, or going: whoever is asked next may know.
                    std::thread::sleep(pause);
                }
            })
        };
        self.devices.iter().enumerate().map(drive).collect()
    }
}

/// Ten events in one request: one is refused at the edge, one by its bounds, one is filtered, one fails in its script.
fn send(client: &mut crate::support::Client, device: &mut Device, keys: &[String; 2], ledger: &Mutex<Ledger>) -> bool {
    let ids: Vec<String> = (0..10).map(|i| format!("{}-{}", device.name, device.next * 10 + i)).collect();
    let mut body = String::new();
    for (i, id) in ids.iter().enumerate() {
        let seq = device.next * 10 + i as u64;
        let (temperature, more) = match i {
            3 => (900.0, ""),
            4 => (1.0, ",\"skip\":true"),
            5 => (1.0, ",\"fail\":true"),
            _ => (seq as f64 % 50.0, ""),
        };
        let end = if i == 6 { "" } else { "}" };
        body.push_str(&format!(
            "{{\"device\":\"{}\",\"id\":\"{id}\",\"seq\":{seq},\"temperature\":{temperature}{more}{end}\n",
            device.name
        ));
    }
    let Ok(answer) = client.try_post("/v1/events", &keys[device.tenant], "application/x-ndjson", body.as_bytes(), "") else { return false };
    if answer.status == 503 {
        std::thread::sleep(Duration::from_millis(50));
        return true;
    }
    assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
    let told = answer.json();
    assert_eq!(told["accepted"], 9);
    assert_eq!(told["rejected"][0]["index"], 6);
    let mut ledger = ledger.lock().unwrap();
    for (i, id) in ids.into_iter().enumerate() {
        let set = if (3..=6).contains(&i) { &mut ledger.refused } else { &mut ledger.acknowledged };
        set.insert((device.tenant, id));
    }
    device.next += 1;
    true
}

/// The promise, checked on the tables themselves.
pub fn check(place: &Place, tables: &Path, ledger: &Ledger) {
    let (verified, ok) = place.verify();
    assert!(ok, "verify: {verified:#}");
    assert_eq!(verified["differences"].as_array().map(Vec::len), Some(0), "{verified:#}");
    let rows = there_once(tables, ledger);
    let mut by_asset: BTreeMap<(String, String), Vec<(tables::Place, i64)>> = BTreeMap::new();
    for row in rows {
        by_asset.entry((row.tenant, row.asset)).or_default().push((row.place, row.seq.unwrap()));
    }
    for (asset, mut rows) in by_asset {
        rows.sort();
        assert!(rows.is_sorted_by_key(|(_, seq)| *seq), "order of {asset:?}");
        assert_eq!(rows.iter().map(|(place, _)| place.0).collect::<BTreeSet<_>>().len(), 1, "{asset:?} is in one partition");
    }
}

/// Every acknowledged event is in the tables once, and nothing refused is.
pub fn there_once(tables: &Path, ledger: &Ledger) -> Vec<tables::TableRow> {
    let rows = tables::rows(tables);
    let mut seen: BTreeMap<(usize, String), usize> = BTreeMap::new();
    for row in &rows {
        *seen.entry((usize::from(row.tenant == "beta"), row.event_id.clone())).or_default() += 1;
    }
    let lost: Vec<_> = ledger.acknowledged.iter().filter(|e| !seen.contains_key(*e)).take(5).collect();
    let twice: Vec<_> = seen.iter().filter(|(_, n)| **n > 1).take(5).collect();
    let wrong: Vec<_> = ledger.refused.iter().filter(|e| seen.contains_key(*e)).take(5).collect();
    assert!(lost.is_empty() && twice.is_empty() && wrong.is_empty(), "lost {lost:?}, twice {twice:?}, refused but there {wrong:?}");
    rows
}

fn finish(place: &Place, server: Running, fleet: &Fleet) {
    server.drain();
    server.stop();
    check(place, &place.tables(), &fleet.ledger.lock().unwrap());
}

#[test]
fn killed_at_random_moments() {
    let rounds: u64 = std::env::var("TIDEGATE_CRASH_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(30);
    let place = Place::new(FAST);
    let fleet = Fleet::new(8);
    let mut random = Random(seed());
    for round in 0..rounds {
        let server = place.start(&Options::default());
        let stop = Arc::new(AtomicBool::new(false));
        let senders = fleet.drive(&server.address, &place.keys, &stop);
        std::thread::sleep(Duration::from_millis(30 + random.below(700)));
        server.kill();
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|s| s.join().unwrap());
        if round % 10 == 9 {
            finish(&place, place.start(&Options::default()), &fleet);
            println!("round {}: {} acknowledged events are there once", round + 1, fleet.ledger.lock().unwrap().acknowledged.len());
        }
    }
    finish(&place, place.start(&Options::default()), &fleet);
    assert!(fleet.ledger.lock().unwrap().acknowledged.len() as u64 > rounds * 10, "the fleet hardly sent anything");
}

/// Points that only a server with ClickHouse passes: walked where there is one.
pub fn is_of_clickhouse(point: &str) -> bool {
    point.starts_with("table.") || point.starts_with("insert.")
}

#[test]
fn killed_at_every_fault_point() {
    // Only scripts that harm the host come past those of quarantines, and only operators past releases: `engine.rs` and
    // `releases.rs` have them.
    let is_elsewhere = |p: &str| is_of_clickhouse(p) || p.starts_with("quarantine.") || p.starts_with("release.");
    for point in tidegate_schemas::fault::POINTS.iter().filter(|p| !is_elsewhere(p)) {
        let acknowledged = killed_at(point, &Place::new(FAST)).acknowledged.len();
        println!("{point}: {acknowledged} acknowledged events are there once");
    }
}

/// Ends the process at two passages of a point, under load; then all is there once.
pub fn killed_at(point: &str, place: &Place) -> Ledger {
    let fleet = Fleet::new(4);
    // The second passage, so that there is something before it; whatever comes once only is hit in the other run.
    for nth in [1, 2] {
        let options = Options { fault: Some(format!("{point}:{nth}")), ..Options::default() };
        let Ok(mut server) = place.try_start(&options) else { continue };
        let stop = Arc::new(AtomicBool::new(false));
        let senders = fleet.drive(&server.address, &place.keys, &stop);
        server.ends(Duration::from_secs(30), &format!("{point}:{nth}"));
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|s| s.join().unwrap());
    }
    let server = place.start(&Options::default());
    let stop = Arc::new(AtomicBool::new(false));
    let senders = fleet.drive(&server.address, &place.keys, &stop);
    std::thread::sleep(Duration::from_millis(200));
    stop.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|s| s.join().unwrap());
    finish(place, server, &fleet);
    std::mem::take(&mut *fleet.ledger.lock().unwrap())
}
