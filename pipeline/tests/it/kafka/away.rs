//! While its broker is gone the edge refuses, and says when to come again; what it had taken is there, and then it takes events again.

use super::{broker, cluster};
use crate::crash::{Ledger, there_once};
use crate::support::{Options, Place, wait_for};
use std::time::Duration;

#[test]
fn without_its_broker_the_edge_refuses_until_it_is_back() {
    let Some(mut broker) = broker::own() else { return };
    let place = Place::new(&format!("{}\n[sink.parquet]\npath = \"tables\"\n", cluster::settings(&broker, "away.")));
    let server = place.start(&Options::default());
    server.drain();
    let (mut client, mut ledger, mut sent) = (server.client(), Ledger::default(), 0);
    let mut post = || {
        sent += 1;
        let body = format!(r#"{{"device":"d","id":"e-{sent}","seq":{sent},"temperature":1.5}}"#);
        let answer = client.post("/v1/events", &place.keys[0], "application/json", body.as_bytes());
        if answer.status == 202 {
            ledger.acknowledged.insert((0, format!("e-{sent}")));
        }
        answer
    };
    assert_eq!(post().status, 202);
    broker.kill();
    // What was under way when it went is not waited for by those who come later.
    for _ in 0..3 {
        let refused = wait_for("a refusal", Duration::from_secs(60), || Some(post()).filter(|answer| answer.status == 503));
        assert!(refused.headers.contains("retry-after:"), "{}", refused.headers);
        assert!(refused.json()["type"].as_str().unwrap().ends_with("log-away"), "{}", refused.json());
    }
    broker.resume();
    wait_for("an event to be taken", Duration::from_secs(60), || (post().status == 202).then_some(()));
    server.drain();
    server.stop();
    assert!(ledger.acknowledged.len() >= 2);
    there_once(&place.path("tables"), &ledger);
}
