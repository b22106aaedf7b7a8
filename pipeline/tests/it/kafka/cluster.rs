//! Several real processes share a log on a real Kafka: killed, stopped, joined, left, with the broker killed once, under load.
//! `TIDEGATE_CLUSTER_SECONDS=3600` goes on for an hour; CI takes two minutes.

use super::broker::{self, Broker};
use crate::clickhouse::{self, engine};
use crate::crash::{FAST, Fleet, Ledger, check, there_once};
use crate::doctor::doctor;
use crate::objects;
use crate::s3;
use crate::support::{Options, Place, Random, Running, files, seed, signal, wait_for};
use rdkafka::{Offset, TopicPartitionList};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tidegate_pipeline::config::Config;
use tidegate_pipeline::log::open_to_read;
use tidegate_schemas::ids::Partition;
use tidegate_schemas::log::LogName;

const PARTITIONS: u32 = 6;
const SESSION: Duration = Duration::from_secs(2);
/// Where parked rows would be.
const STATE: &str = "state_dir = \"state\"\n";

/// A folder whose configuration names the broker, and where its tables are.
fn place(broker: &Broker, tables: &str) -> Place {
    let extra = format!("{}\n[sink.parquet]\npath = \"{tables}\"\n", settings(broker, "cluster."));
    Place::with_server(STATE, &extra)
}

pub fn settings(broker: &Broker, topics: &str) -> String {
    format!(
        "[log]\nkind = \"kafka\"\npartitions = {PARTITIONS}\nraw_horizon_seconds = 0\naudit_horizon_seconds = 0\ntrim_milliseconds = 500\n\n\
         [log.kafka]\nbrokers = [\"{}\"]\ntopic_prefix = \"{topics}\"\nreplication_factor = 1\nmin_insync_replicas = 1\nsession_milliseconds = {}\n\n\
         [process]\nworkers = 2\nepoch_milliseconds = 50\ntick_milliseconds = 250\nsnapshot_epochs = 20\n\n\
         [cut]\nrows = 200\nseconds_min = 0\nedge_seconds = 1\n",
        broker.address(),
        SESSION.as_millis()
    )
}

/// The processes of a test, each with a data folder of its own; one that is not there is `None`.
struct Cluster<'a> {
    place: &'a Place,
    roles: &'a [&'a str],
    members: Vec<Option<Running>>,
    servers: Arc<Mutex<Vec<String>>>,
}

impl<'a> Cluster<'a> {
    fn start(place: &'a Place, roles: &'a [&'a str]) -> Self {
        let mut cluster = Self::of(place, roles);
        (0..roles.len()).for_each(|i| cluster.join(i));
        cluster
    }

    fn of(place: &'a Place, roles: &'a [&'a str]) -> Self {
        Self { place, roles, members: roles.iter().map(|_| None).collect(), servers: Arc::default() }
    }

    fn join(&mut self, index: usize) {
        self.join_with(index, None);
    }

    fn join_with(&mut self, index: usize, fault: Option<String>) {
        let data = self.place.path(&format!("data-{index}"));
        let args = ["--data-dir", data.to_str().unwrap(), "--role", self.roles[index]].map(str::to_owned).to_vec();
        self.members[index] = Some(self.place.start(&Options { args, fault }));
        self.tell();
    }

    fn tell(&self) {
        let takes_events = self.members.iter().zip(self.roles).filter(|(_, roles)| roles.contains("ingest"));
        *self.servers.lock().unwrap() = takes_events.filter_map(|(m, _)| m.as_ref()).map(|m| m.address.clone()).collect();
    }

    fn take(&mut self, index: usize) -> Running {
        let member = self.members[index].take().unwrap();
        self.tell();
        member
    }

    fn drain(&self) {
        let member = self.members.iter().flatten().next_back().unwrap();
        let drained = std::panic::catch_unwind(|| member.drain_within(Duration::from_secs(240)));
        if drained.is_err() {
            for member in self.members.iter().flatten() {
                println!("{}\n{}", member.client().get("/ready", None).json(), member.complaints());
            }
        }
        drained.unwrap();
    }
}

/// How long each partition went without a commit; idle ones commit too.
fn watch_stalls(config: &Path, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<Duration>> {
    let (config, stop) = (Config::load(config).unwrap(), Arc::clone(stop));
    std::thread::spawn(move || {
        let log = open_to_read(&config).unwrap();
        let mut seen = vec![(0, Instant::now(), Duration::ZERO); PARTITIONS as usize];
        while !stop.load(Ordering::Relaxed) {
            for (partition, (end, since, longest)) in seen.iter_mut().enumerate() {
                let now = log.bounds(LogName::Commits, partition as Partition).map_or(*end, |b| b.end);
                if now > *end {
                    *longest = if *end == 0 { Duration::ZERO } else { since.elapsed().max(*longest) };
                    (*end, *since) = (now, Instant::now());
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        seen.into_iter().map(|(_, since, longest)| longest.max(since.elapsed())).collect()
    })
}

#[test]
fn processes_come_and_go_and_every_event_is_there_once() {
    let (Some(mut broker), Some(engine)) = (broker::own(), engine::shared()) else { return };
    let database = engine::database();
    let both = format!("{}\n[sink.parquet]\npath = \"tables\"\n{}", settings(&broker, "cluster."), engine.settings(&database));
    let place = Place::with_server(STATE, &both);
    clickhouse::sign_in(&place);
    let ledger = come_and_go(&mut broker, &place, 90);
    clickhouse::there_once(engine, &database, &ledger);
    let sums = clickhouse::verified(&place);
    assert_eq!(sums["parquet"], sums["clickhouse"]);
}

/// The same where tables and snapshots are in a bucket whose server loses answers and fails.
#[test]
fn processes_come_and_go_over_a_failing_bucket() {
    let (Some(mut broker), Some(s3)) = (broker::own(), s3::shared()) else { return };
    let place = objects::place_with(s3, "cluster", STATE, &settings(&broker, "cluster."));
    let (_, bucket) = place.bucket.clone().unwrap();
    s3.faults(&bucket, 0, (3, 3, 3));
    drop(come_and_go(&mut broker, &place, 45));
    let mut local = Vec::new();
    files(place.root.path(), &mut local);
    local.retain(|f| !f.components().any(|c| c.as_os_str().to_string_lossy().starts_with("copy-")));
    assert!(!local.iter().any(|f| f.extension().is_some_and(|e| e == "state" || e == "parquet")), "{local:?}");
}

fn come_and_go(broker: &mut Broker, place: &Place, seconds: u64) -> Ledger {
    let seconds: u64 = std::env::var("TIDEGATE_CLUSTER_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(seconds);
    let mut cluster = Cluster::start(place, &["ingest,process,sink"; 3]);
    let (fleet, stop, mut random) = (Fleet::new(12), Arc::new(AtomicBool::new(false)), Random(seed()));
    let stalls = watch_stalls(&place.path("tidegate.toml"), &stop);
    let senders = fleet.drive_any(&cluster.servers, &place.keys, &stop, Duration::from_millis(5));
    let (began, mut broker_is_due) = (Instant::now(), true);
    let mut round = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(3 * SESSION);
        let chosen = random.below(3) as usize;
        if broker_is_due && began.elapsed() > Duration::from_secs(seconds / 2) {
            broker_is_due = false;
            broker.kill();
            std::thread::sleep(Duration::from_secs(2));
            broker.resume();
        } else if round % 2 == 0 {
            cluster.take(chosen).kill();
            std::thread::sleep(Duration::from_millis(random.below(6_000)));
            cluster.join(chosen);
        } else {
            cluster.take(chosen).stop();
            std::thread::sleep(Duration::from_millis(random.below(3_000)));
            cluster.join(chosen);
        }
        round += 1;
        println!("round {round}: {} events are acknowledged", fleet.ledger.lock().unwrap().acknowledged.len());
    }
    stop.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|s| s.join().unwrap());
    cluster.drain();
    println!("longest stall of each partition: {:?}", stalls.join().unwrap());
    (0..3).for_each(|i| cluster.take(i).stop());
    let ledger = std::mem::take(&mut *fleet.ledger.lock().unwrap());
    // What is delivered is looked at without its faults.
    if let (Some((_, bucket)), Some(s3)) = (&place.bucket, s3::shared()) {
        s3.faults(bucket, 0, (0, 0, 0));
    }
    let tables = if place.bucket.is_some() { place.tables() } else { place.path("tables") };
    check(place, &tables, &ledger);
    println!("{} acknowledged events are there once", ledger.acknowledged.len());
    assert!(ledger.acknowledged.len() as u64 > seconds * 10, "the fleet hardly sent anything");
    ledger
}

/// A process that is suspended at a step of a delivery, whose partitions go to another, and that then goes on where it was: what
/// it still puts and commits to the bucket is there once.
#[test]
fn a_zombie_goes_on_at_every_step_of_a_delivery_to_a_bucket() {
    let (Some(broker), Some(s3)) = (broker::own(), s3::shared()) else { return };
    for (i, point) in ["put.before", "put.after", "delta.before_commit", "delta.after_commit", "snapshot.after_put"].iter().enumerate() {
        let place = objects::place_with(s3, "zombie", STATE, &settings(&broker, &format!("zombie-{i}.")));
        let mut cluster = Cluster::of(&place, &["ingest,process,sink", "process,sink"]);
        cluster.join(0);
        cluster.join_with(1, Some(format!("{point}:4:stop")));
        let (fleet, stop) = (Fleet::new(6), Arc::new(AtomicBool::new(false)));
        let senders = fleet.drive_any(&cluster.servers, &place.keys, &stop, Duration::from_millis(5));
        let zombie = cluster.members[1].as_ref().unwrap().child.id().to_string();
        let ps = |field: &str| {
            let told = Command::new("ps").args(["-o", field, "-p", &zombie]).output().unwrap();
            String::from_utf8(told.stdout).unwrap().trim().to_owned()
        };
        wait_for(point, Duration::from_secs(60), || ps("stat=").starts_with('T').then_some(()));
        // The other one takes everything over, and delivers also what was just under way.
        std::thread::sleep(SESSION);
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|s| s.join().unwrap());
        cluster.members[0].as_ref().unwrap().drain_within(Duration::from_secs(120));
        assert!(ps("stat=").starts_with('T'), "it went on by itself");
        assert!(Command::new("kill").args(["-CONT", &zombie]).status().unwrap().success());
        // It takes part again, with partitions of which it knew another state.
        let stop = Arc::new(AtomicBool::new(false));
        let senders = fleet.drive_any(&cluster.servers, &place.keys, &stop, Duration::from_millis(5));
        std::thread::sleep(2 * SESSION);
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|s| s.join().unwrap());
        cluster.drain();
        (0..2).for_each(|i| cluster.take(i).stop());
        let ledger = fleet.ledger.lock().unwrap();
        check(&place, &place.tables(), &ledger);
        println!("{point}: {} acknowledged events are there once", ledger.acknowledged.len());
    }
}

#[test]
fn each_role_in_a_process_of_its_own() {
    let Some(broker) = broker::own() else { return };
    let place = place(&broker, "tables");
    let mut cluster = Cluster::start(&place, &["process", "sink", "ingest"]);
    let (fleet, stop) = (Fleet::new(6), Arc::new(AtomicBool::new(false)));
    let senders = fleet.drive_any(&cluster.servers, &place.keys, &stop, Duration::from_millis(5));
    std::thread::sleep(Duration::from_secs(2));
    // Where the role is not, events are not taken, and nothing else fails.
    let mut processing = cluster.members[0].as_ref().unwrap().client();
    let refused = processing.post("/v1/events", &place.keys[0], "application/json", b"{}");
    assert_eq!((refused.status, refused.json()["type"].as_str().unwrap().ends_with("no-ingest")), (404, true));
    // On another connection: one whose body nobody read is closed.
    assert_eq!(cluster.members[0].as_ref().unwrap().client().get("/health", None).status, 200);
    // Definitions reach every process by `control`, whichever published them: all of them did at their start.
    let revisions: Vec<_> =
        cluster.members.iter().flatten().map(|m| m.client().get("/ready", None).json()["catalog_revision"].clone()).collect();
    assert!(revisions.iter().all(|r| *r == revisions[0]), "{revisions:?}");
    // A receipt of the ingest process tells of rows that another process delivered.
    let mut ingest = cluster.members[2].as_ref().unwrap().client();
    let body = br#"{"device":"receipt","id":"receipt-1","seq":1,"temperature":1.0}"#;
    let told = ingest.post("/v1/events", &place.keys[0], "application/json", body).json();
    let path = format!("/v1/receipts/{}", told["receipt"].as_str().unwrap());
    wait_for("the receipt to name a table", Duration::from_secs(60), || {
        let answer = ingest.get(&path, Some(&place.keys[0])).json();
        answer["events"][0]["sinks"][0]["durable"].as_bool().filter(|d| *d)
    });
    stop.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|s| s.join().unwrap());
    cluster.drain();
    (0..3).for_each(|i| cluster.take(i).stop());
    let mut ledger = fleet.ledger.lock().unwrap();
    ledger.acknowledged.insert((0, "receipt-1".to_owned()));
    check(&place, &place.path("tables"), &ledger);
}

/// The steps of `guides/kafka.md`, from embedded to Kafka.
#[test]
fn a_drained_embedded_log_is_followed_by_one_on_kafka() {
    let Some(broker) = broker::own() else { return };
    let tables = tempfile::tempdir().unwrap();
    let path = tables.path().to_str().unwrap();
    let (old, new) = (Place::new(&format!("{FAST}\n[sink.parquet]\npath = \"{path}\"\n")), place(&broker, path));
    let fleet = Fleet::new(6);
    let drive = |place: &Place, server: &Running| {
        let stop = Arc::new(AtomicBool::new(false));
        let servers = Arc::new(Mutex::new(vec![server.address.clone()]));
        let senders = fleet.drive_any(&servers, &place.keys, &stop, Duration::ZERO);
        std::thread::sleep(Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|s| s.join().unwrap());
    };
    let server = old.start(&Options::default());
    drive(&old, &server);
    server.stop();
    let server = old.start(&Options { args: ["--role", "process,sink"].map(str::to_owned).to_vec(), ..Options::default() });
    let refused = server.client().post("/v1/events", &old.keys[0], "application/json", b"{}");
    assert_eq!(refused.status, 404);
    server.drain();
    server.stop();
    let (verified, ok) = old.verify();
    assert!(ok && verified["rows_pending"] == 0, "{verified:#}");

    let (found, ok) = doctor(&new);
    assert!(ok && found.values().all(|(state, _)| state != "failed"), "{found:?}");
    let server = new.start(&Options::default());
    drive(&new, &server);
    server.drain();
    let (found, _) = doctor(&new);
    for name in ["Kafka", "topics", "transactions", "consumer groups", "clock", "snapshots", "sink.parquet.path", "definitions"] {
        // One copy of everything is worth a warning.
        let wanted = if name == "Kafka" { "warning" } else { "ok" };
        assert_eq!(found.get(name).map(|(state, _)| state.as_str()), Some(wanted), "{name}: {found:?}");
    }
    server.stop();
    let (verified, ok) = new.verify();
    assert!(ok, "{verified:#}");
    there_once(tables.path(), &fleet.ledger.lock().unwrap());
}

#[test]
fn doctor_names_what_does_not_work() {
    let Some(broker) = broker::shared() else { return };
    let place = place(broker, "tables");
    // Whatever else fails, every line names what was tried and what to do.
    for (from, to, check) in [
        ("replication_factor = 1", "replication_factor = 3", "Kafka"),
        ("brokers = [\"127.0.0.1:", "brokers = [\"127.0.0.2:", "Kafka"),
        ("path = \"tables\"", "path = \"/proc/tables\"", "sink.parquet.path"),
        ("state_dir = \"state\"", "state_dir = \"/proc/state\"", "snapshots"),
    ] {
        let file = place.path("tidegate.toml");
        let sound = std::fs::read_to_string(&file).unwrap();
        assert!(sound.contains(from));
        std::fs::write(&file, sound.replace(from, to)).unwrap();
        let (found, ok) = doctor(&place);
        assert!(!ok && found[check].0 == "failed", "{to}: {found:?}");
        std::fs::write(&file, sound).unwrap();
    }
}

#[test]
fn a_gap_that_was_accepted_is_gone_on_behind() {
    let Some(broker) = broker::own() else { return };
    let place = place(&broker, "tables");
    let start = |roles: &str, more: &[&str]| {
        let data = place.path(&format!("data-{}", roles.replace(',', "-")));
        let mut args = ["--data-dir", data.to_str().unwrap(), "--role", roles].map(str::to_owned).to_vec();
        args.extend(more.iter().map(|&a| a.to_owned()));
        place.try_start(&Options { args, ..Options::default() })
    };
    let key = place.keys[0].as_str();
    let settled = |ingest: &Running, id: &str| {
        let body = format!("{{\"device\":\"d\",\"id\":\"{id}\",\"seq\":1,\"temperature\":1.0}}");
        let mut client = ingest.client();
        let told = client.post("/v1/events", key, "application/json", body.as_bytes()).json();
        let path = format!("/v1/receipts/{}", told["receipt"].as_str().unwrap());
        move || client.get(&path, Some(key)).json()["events"][0]["state"] != "stored"
    };
    let (ingest, other) = (start("ingest", &[]).unwrap(), start("process,sink", &[]).unwrap());
    let mut first = settled(&ingest, "first");
    wait_for("the first event to be settled", Duration::from_secs(60), || first().then_some(()));
    // Nobody processes these, and somebody deletes them.
    signal(other.child.id(), "-STOP");
    (0..5).for_each(|i| drop(settled(&ingest, &format!("lost-{i}"))));
    let config = Config::load(&place.path("tidegate.toml")).unwrap();
    let log = open_to_read(&config).unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        let end = log.bounds(LogName::Raw, partition).unwrap().end;
        list.add_partition_offset("cluster.raw", partition as i32, Offset::Offset(end as i64)).unwrap();
    }
    drop(log);
    super::refused::delete_records(&broker.address(), &list);
    // Who goes on there says so for as long as it stands still.
    signal(other.child.id(), "-CONT");
    let mut processing = other.client();
    let stopped = wait_for("the partition to be told of", Duration::from_secs(60), || {
        let ready = processing.get("/ready", None).json();
        ready["partitions"]["stopped"].as_array()?.iter().find(|s| s["tries"].as_u64().is_some_and(|tries| tries > 2)).cloned()
    });
    assert!(stopped["failure"].as_str().unwrap().contains("--accept-gap"), "{stopped}");
    let metrics = String::from_utf8(processing.get("/metrics", None).body).unwrap();
    let told = |name: &str| {
        let line = format!("{name}{{partition=\"{}\"}} ", stopped["partition"]);
        metrics.lines().find_map(|l| l.strip_prefix(&line)).map(|value| value.parse::<u64>().unwrap())
    };
    assert_eq!(told("tidegate_partition_stopped"), Some(1));
    assert!(matches!(told("tidegate_raw_lag_records"), Some(4 | 5)), "{metrics}");
    other.stop();
    let refused = start("process,sink", &[]).err().unwrap();
    assert!(refused.contains("are gone"), "{refused}");
    let other = start("process,sink", &["--accept-gap"]).unwrap();
    let mut last = settled(&ingest, "last");
    wait_for("an event behind the gap to be settled", Duration::from_secs(60), || last().then_some(()));
    other.drain();
    ingest.stop();
    other.stop();
    let (verified, ok) = place.verify();
    assert!(ok, "{verified:#}");
    assert_eq!(verified["gaps"].as_array().map(Vec::len), Some(1), "{verified:#}");
    let mut found: Vec<String> = crate::tables::rows(&place.path("tables")).into_iter().map(|r| r.event_id).collect();
    // The answer to what it had asked last may have come before it was suspended.
    found.retain(|id| id != "lost-0");
    assert_eq!(found, ["first", "last"]);
}
