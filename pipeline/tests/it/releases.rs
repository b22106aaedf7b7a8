//! Refused events that are let go on, in the real process: once each, whoever dies, and with a row that says who did it.

use crate::crash::FAST;
use crate::engine::{apply, codes, event, place as quarantining, settled, write_script};
use crate::kafka::{broker, cluster};
use crate::support::{BINARY, Options, Place, wait_for};
use crate::tables;
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;
use tidegate_pipeline::log::embedded::EmbeddedLog;
use tidegate_schemas::log::{EventLog, LogName};

/// `tidegate rejections …`, as a program reads it.
fn rejections(place: &Place, arguments: &[&str]) -> Value {
    let mut command = Command::new(BINARY);
    command.arg("rejections").args(arguments).args(["--json", "--config"]).arg(place.path("tidegate.toml")).env_remove("TIDEGATE_LOG");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What waits, by code.
fn waiting(place: &Place) -> BTreeMap<String, u64> {
    let listed = rejections(place, &["list"]);
    let sums = listed["sums"].as_array().unwrap().iter();
    sums.map(|s| (s["code"].as_str().unwrap().to_owned(), s["events"].as_u64().unwrap())).collect()
}

/// Rows of the system table `releases`: event id, verdict, the rejection's code, its own place, and who released it.
fn released(place: &Place) -> Vec<(String, String, String, i64, String)> {
    let mut rows = Vec::new();
    for table in tables::find(&place.data().join("tables")).iter().filter(|t| t.ends_with("releases")) {
        for batch in tables::batches(table) {
            let column = |name: &str| arrow::compute::cast(batch.column_by_name(name).unwrap(), &arrow::datatypes::DataType::Utf8).unwrap();
            let texts = ["event_id", "verdict", "rejection_code", "released_by"].map(column);
            let offsets = batch.column_by_name("_offset").unwrap().as_primitive::<Int64Type>().clone();
            for row in 0..batch.num_rows() {
                let [id, verdict, code, by] = texts.each_ref().map(|t| t.as_string::<i32>().value(row).to_owned());
                rows.push((id, verdict, code, offsets.value(row), by));
            }
        }
    }
    rows.sort_by_key(|r| r.3);
    rows
}

/// Event ids of the table's rows, sorted.
fn ids(place: &Place) -> Vec<String> {
    let mut ids: Vec<String> = tables::rows(&place.data().join("tables")).into_iter().map(|r| r.event_id).collect();
    ids.sort();
    ids
}

#[test]
fn quarantined_events_are_released_once() {
    let place = quarantining();
    let server = place.start(&Options::default());
    let (mut client, acme) = (server.client(), place.keys[0].clone());
    let hoard = |id: &str| event(id, ",\"hoard\":true");
    assert_eq!(codes(&settled(&mut client, &acme, &[&hoard("a1"), &hoard("a2"), &hoard("a3")])), ["memory_exhausted"; 3]);
    assert_eq!(codes(&settled(&mut client, &acme, &[&event("c1", ""), &event("c2", ""), &event("c3", "")])), ["quarantined"; 3]);
    assert_eq!(codes(&settled(&mut client, &place.keys[1], &[&event("b1", "").replace("20", "900")])), ["out_of_range"]);
    assert_eq!(waiting(&place), BTreeMap::from([("memory_exhausted".into(), 3), ("out_of_range".into(), 1), ("quarantined".into(), 3)]));

    // What is still in quarantine would only be refused again.
    wait_for("the quarantine in control", Duration::from_secs(30), || {
        (rejections(&place, &["release", "--code", "quarantined", "--dry-run"])["quarantined"] == 3).then_some(())
    });
    let told = rejections(&place, &["release", "--code", "quarantined"]);
    assert_eq!((&told["released"], &told["quarantined"]), (&0.into(), &3.into()), "{told}");

    write_script(&place, &crate::engine::TRANSFORM.replace("if e.hoard then", "if e.hoard and e.seq == 2 then"));
    apply(&place, &[]);
    // One of them was sent again meanwhile.
    assert_eq!(codes(&settled(&mut client, &acme, &[&event("c2", "")])), ["transformed"]);
    let all = ["release", "--tenant", "acme", "--code", "quarantined", "--code", "memory_exhausted"];
    let dry = rejections(&place, &[&all[..], &["--dry-run"]].concat());
    assert_eq!((&dry["released"], &dry["codes"]["quarantined"]), (&5.into(), &2.into()), "{dry}");
    assert_eq!(rejections(&place, &["release", "--tenant", "beta", "--code", "quarantined"])["released"], 0);
    assert_eq!(rejections(&place, &[&all[..], &["--source", "other"]].concat())["released"], 0);
    let first = rejections(&place, &all);
    assert_eq!((&first["released"], &first["quarantined"], &first["gone"]), (&5.into(), &0.into(), &0.into()), "{first}");
    // At once again, before they are processed or after: nothing comes twice.
    let again = rejections(&place, &all)["released"].as_u64().unwrap();
    server.drain();
    assert_eq!(rejections(&place, &all)["released"], 0);
    assert_eq!(waiting(&place), BTreeMap::from([("out_of_range".into(), 1)]));
    server.drain();
    server.stop();
    let (verified, ok) = place.verify();
    assert!(ok, "{verified:#}");
    assert_eq!(ids(&place), ["a1", "a2", "a3", "c1", "c2", "c3"]);
    let told = released(&place);
    assert_eq!(told.len() as u64, 5 + again);
    let first: Vec<_> = told[..5].iter().map(|(id, verdict, code, ..)| (id.as_str(), verdict.as_str(), code.as_str())).collect();
    let memory = "memory_exhausted";
    let quarantined = "quarantined";
    let through = "transformed";
    // In the order in which they came.
    assert_eq!(
        first,
        [
            ("a1", through, memory),
            ("a2", through, memory),
            ("a3", through, memory),
            ("c1", through, quarantined),
            ("c3", through, quarantined)
        ]
    );
    assert!(told[5..].iter().all(|(_, verdict, ..)| verdict == "duplicate"), "{told:?}");
    assert!(told.iter().all(|(.., by)| by.starts_with("uid:")), "{told:?}");
}

#[test]
fn a_release_that_is_refused_again_waits_again() {
    let place = quarantining();
    let server = place.start(&Options::default());
    let (mut client, acme) = (server.client(), place.keys[0].clone());
    assert_eq!(codes(&settled(&mut client, &acme, &[&event("x1", "").replace("\"seq\":1", "\"seq\":\"no number\"")])), ["wrong_type"]);
    for _ in 0..2 {
        assert_eq!(rejections(&place, &["release", "--code", "wrong_type"])["released"], 1);
        server.drain();
        assert_eq!(waiting(&place), BTreeMap::from([("wrong_type".into(), 1)]));
    }
    // Without a reason nothing is released, and what the edge refused never.
    let refused = Command::new(BINARY).args(["rejections", "release", "--config"]).arg(place.path("tidegate.toml")).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("name a reason, such as --code quarantined"), "{refused:?}");
    let body = format!("{}\nno JSON\n", event("x2", ""));
    assert_eq!(client.post("/v1/events", &acme, "application/x-ndjson", body.as_bytes()).status, 202);
    server.drain();
    let told = rejections(&place, &["release", "--code", "syntax"]);
    assert_eq!((&told["released"], &told["of_the_edge"]), (&0.into(), &1.into()), "{told}");
    server.stop();
    assert!(place.verify().1);
    let verdicts: Vec<String> = released(&place).into_iter().map(|r| r.1).collect();
    assert_eq!(verdicts, ["rejected", "rejected"]);
}

#[test]
fn a_release_outlives_the_death_of_the_process() {
    for nth in [1, 2] {
        broken_off(&FAST.replace("audit_horizon_seconds = 0", "audit_horizon_seconds = 600"), nth);
    }
}

#[test]
fn a_release_outlives_the_death_of_the_process_on_kafka() {
    let Some(broker) = broker::shared() else { return };
    broken_off(&cluster::settings(broker, "releases.").replace("audit_horizon_seconds = 0", "audit_horizon_seconds = 600"), 2);
}

/// The process dies behind the `nth` group of a release; what is released after it comes once.
fn broken_off(settings: &str, nth: u32) {
    let place = Place::new(settings);
    let mut server = place.start(&Options { fault: Some(format!("release.after_publish:{nth}")), ..Options::default() });
    let (mut client, mut expected) = (server.client(), Vec::new());
    // More requests than go to the log at once, and so more than one group.
    for request in 0..150 {
        let ids = [format!("e{request:03}a"), format!("e{request:03}b")];
        let body: Vec<String> = ids.iter().map(|id| event(id, ",\"fail\":true")).collect();
        let body = format!("[{}]", body.join(","));
        assert_eq!(client.post("/v1/events", &place.keys[0], "application/json", body.as_bytes()).status, 202);
        expected.extend(ids);
    }
    server.drain();
    write_script(&place, "function transform(e)\n  return { temperature = e.temperature, seq = e.seq }\nend\n");
    apply(&place, &[]);
    let release = ["rejections", "release", "--code", "script_error", "--config"];
    let broken = Command::new(BINARY).args(release).arg(place.path("tidegate.toml")).output().unwrap();
    assert!(!broken.status.success(), "{broken:?}");
    server.ends(Duration::from_secs(60), "release.after_publish");
    let server = place.start(&Options::default());
    let told = rejections(&place, &["release", "--code", "script_error"]);
    assert!((1..=300).contains(&told["released"].as_u64().unwrap()), "{told}");
    server.drain();
    assert_eq!(waiting(&place), BTreeMap::new());
    server.stop();
    let (verified, ok) = place.verify();
    assert!(ok, "{verified:#}");
    assert_eq!(ids(&place), expected, "each once");
}

/// After `raw`'s horizon the rows of `rejections` are all there is.
#[test]
fn what_raw_does_not_hold_any_more_comes_from_its_row() {
    let place =
        Place::new(&FAST.replace("audit_horizon_seconds = 0", "audit_horizon_seconds = 600").replace("partitions = 3", "partitions = 1"));
    let server = place.start(&Options::default());
    let (mut client, acme) = (server.client(), place.keys[0].clone());
    // Two without an id of the sender's: theirs follow from the receipt, which the row does not have.
    let nameless = event("", ",\"fail\":true").replace("\"id\":\"\",", "");
    settled(&mut client, &acme, &[&nameless, &event("named", ",\"fail\":true"), &nameless]);
    let frame = crate::support::key("acmekeyb", 11);
    let answer = client.try_post("/v1/events", &frame, "application/octet-stream", b"abc", "x-device: f1\r\n").unwrap();
    assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
    let listed = || rejections(&place, &["list"])["newest"].as_array().unwrap().clone();
    let before = wait_for("the rejections", Duration::from_secs(30), || Some(listed()).filter(|l| l.len() == 4));
    let padding = "x".repeat(40_000);
    wait_for("raw to be trimmed", Duration::from_secs(60), || {
        // Its receipt would be gone at once.
        let body = event("padding", &format!(",\"note\":\"{padding}\""));
        assert_eq!(client.post("/v1/events", &acme, "application/json", body.as_bytes()).status, 202);
        let log = EmbeddedLog::read_only(&place.data().join("log")).unwrap();
        (log.bounds(LogName::Raw, 0).unwrap().start > 4).then_some(())
    });
    write_script(&place, "function transform(e)\n  return { temperature = e.temperature, seq = e.seq }\nend\n");
    apply(&place, &[]);
    let release = ["release", "--code", "script_error", "--code", "decode_failed"];
    let told = rejections(&place, &release);
    // The frame's source finds its asset in a header.
    assert_eq!((&told["released"], &told["gone"]), (&3.into(), &1.into()), "{told}");
    rejections(&place, &release);
    server.drain();
    assert_eq!(rejections(&place, &release)["released"], 0);
    server.stop();
    assert!(place.verify().1);
    let mut expected: Vec<String> =
        before.iter().filter(|w| w["code"] == "script_error").map(|w| w["event_id"].as_str().unwrap().to_owned()).collect();
    expected.push("padding".into());
    expected.sort();
    assert_eq!(ids(&place), expected, "under the ids that they had");
}
