//! A process ends when it is told to, though its broker is gone and a commit waits for it.

use super::{broker, cluster};
use crate::support::{Options, Place, terminate, wait_for};
use std::time::Duration;

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
