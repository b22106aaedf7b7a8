//! A process ends when it is told to, though its broker is gone: one that waits to start, and one whose commit waits.

use super::{broker, cluster};
use crate::support::{BINARY, Options, Place, terminate, wait_for};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn a_process_ends_though_its_broker_does_not_let_it_start() {
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let brokers = format!("[log]\nkind = \"kafka\"\n\n[log.kafka]\nbrokers = [\"{}\"]\n", silent.local_addr().unwrap());
    let place = Place::new(&brokers);
    let log = place.path("server.log");
    let mut command = Command::new(BINARY);
    command.args(["run", "--config"]).arg(place.path("tidegate.toml"));
    command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    // Who connects listens to signals.
    let _connection = silent.accept().unwrap();
    terminate(child.id());
    let status = wait_for("the end", Duration::from_secs(60), || child.try_wait().unwrap());
    let log = std::fs::read_to_string(&log).unwrap();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("told to stop while it started"), "{log}");
}

#[test]
fn a_process_ends_though_its_broker_is_gone() {
    let Some(mut broker) = broker::own() else { return };
    for (prefix, seconds, signals, why) in [("once.", 1, 1, "not everything ended within 6 s"), ("twice.", 600, 2, "told twice")] {
        let place = Place::with_server(&format!("shutdown_seconds_max = {seconds}\n"), &cluster::settings(&broker, prefix));
        let mut server = place.start(&Options::default());
        server.drain();
        broker.kill();
        // Partitions commit four times a second: each waits for the broker now.
        std::thread::sleep(Duration::from_secs(2));
        for _ in 0..signals {
            terminate(server.child.id());
            std::thread::sleep(Duration::from_secs(2));
        }
        let status = wait_for("the end", Duration::from_secs(60), || server.child.try_wait().unwrap());
        let log = std::fs::read_to_string(&server.log).unwrap();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.lines().any(|line| line.contains("ends at once") && line.contains(why)), "{log}");
        broker.resume();
    }
}
