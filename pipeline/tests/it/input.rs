//! What clients get wrong: a clear answer, or a rejection row that holds the original bytes; nothing lost, never a 500.

use crate::support::{Options, Place, key, shared};
use std::process::Command;

const FAST: &str = "[process]\nepoch_milliseconds = 20\ntick_milliseconds = 50\n\n[sink.parquet]\nsystem_tables = [\"rejections\"]\n\n\
                    [cut]\nrows = 200\nseconds_min = 0\nedge_seconds = 1\n";

#[test]
fn every_mistake_has_its_answer() {
    let place = Place::new(FAST);
    let server = place.start(&Options::default());
    let mut client = server.client();
    let (good, bytes_key, forged) = (place.keys[0].clone(), key("acmekeyb", 11), key("acmekey", 7));
    let long = format!("{{\"device\":\"d\",\"id\":\"{}\",\"temperature\":1}}", "x".repeat(1 << 20));
    let json = "application/json";
    let cases: Vec<(&str, &str, &str, Vec<u8>, u16)> = vec![
        ("an empty body", &good, json, vec![], 400),
        ("no events", &good, json, b"[]".to_vec(), 400),
        ("another type", &good, "text/html", b"{}".to_vec(), 415),
        ("truncated JSON", &good, json, b"{\"device\":\"d\",".to_vec(), 400),
        ("a truncated batch", &good, json, b"[{\"device\":\"d\"},{".to_vec(), 400),
        ("only bad lines", &good, "application/x-ndjson", b"{\n}\n".to_vec(), 400),
        ("invalid UTF-8", &good, json, b"\"\xff\"".to_vec(), 400),
        ("an unknown key", "tg_nobody_00", json, b"{}".to_vec(), 401),
        ("another's secret", &forged, json, b"{}".to_vec(), 401),
        ("an event of 1 MiB", &good, json, long.into_bytes(), 413),
        ("100 MB", &good, json, vec![b' '; 100_000_000], 413),
        // From here on the edge takes them, and the account names them.
        ("no asset", &good, json, b"{\"temperature\":1}".to_vec(), 202),
        ("a text where a number belongs", &good, json, br#"{"device":"d","id":"1","temperature":"hot"}"#.to_vec(), 202),
        ("out of range", &good, json, br#"{"device":"d","id":"2","temperature":900}"#.to_vec(), 202),
        ("a script that fails", &good, json, br#"{"device":"d","id":"3","temperature":1,"fail":true}"#.to_vec(), 202),
        ("a script that never ends", &good, json, br#"{"device":"d","id":"4","temperature":1,"forever":true}"#.to_vec(), 202),
        ("a scalar", &good, json, b"17".to_vec(), 202),
        ("a time that is none", &good, json, br#"{"device":"d","id":"5","temperature":1,"ts":"noon"}"#.to_vec(), 202),
        ("a time in the year 0", &good, json, br#"{"device":"d","id":"6","temperature":1,"ts":"0000-01-01T00:00:00Z"}"#.to_vec(), 202),
        ("wrong bytes for a decoder", &bytes_key, "application/octet-stream", vec![1, 2, 3], 202),
    ];
    let mut receipts = Vec::new();
    for (what, key, content_type, body, status) in &cases {
        let answer =
            client.try_post("/v1/events", key, content_type, body, "X-Device: frame-1\r\n").unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(answer.status, *status, "{what}: {}", String::from_utf8_lossy(&answer.body));
        if *status == 202 {
            receipts.push((*what, (*key).to_owned(), body.clone(), answer.json()["receipt"].as_str().unwrap().to_owned()));
        } else {
            assert!(answer.headers.contains("content-type: application/problem+json"), "{what}: {}", answer.headers);
            let problem = answer.json();
            assert!(problem["title"].is_string() && problem["status"] == *status, "{what}: {problem}");
        }
    }
    server.drain();
    let no_time = "occurred_at_invalid";
    let early = ["asset_missing", "wrong_type", "out_of_range", "script_error", "steps_exhausted", "asset_missing"];
    let codes = early.into_iter().chain([no_time, no_time, "decode_failed"]);
    for ((what, key, _, receipt), code) in receipts.iter().zip(codes) {
        let told = client.get(&format!("/v1/receipts/{receipt}"), Some(key));
        assert_eq!(told.status, 200, "{what}");
        let event = &told.json()["events"][0];
        assert_eq!((event["state"].as_str(), event["code"].as_str()), (Some("rejected"), Some(code)), "{what}: {event}");
        assert!(event["stage"].is_string() && (code != "script_error" || event["line"].as_i64() > Some(0)), "{what}: {event}");
        assert_eq!(client.get(&format!("/v1/receipts/{receipt}"), Some(&place.keys[1])).status, 404, "{what}: another tenant");
    }
    server.stop();
    let originals = originals(&place);
    for (what, _, body, _) in &receipts {
        assert!(originals.contains(body), "{what}: its bytes are not in rejections");
    }
    assert_eq!(originals.len(), receipts.len());
    assert!(place.verify().1);
}

/// `original` of every row of `rejections`.
fn originals(place: &Place) -> Vec<Vec<u8>> {
    use arrow::array::AsArray;
    let mut all = Vec::new();
    for table in crate::tables::find(&place.data().join("tables")).iter().filter(|t| t.to_str().unwrap().ends_with("rejections")) {
        for batch in crate::tables::batches(table) {
            let column = batch.column_by_name("original").unwrap().as_binary::<i32>().clone();
            all.extend((0..batch.num_rows()).map(|i| column.value(i).to_vec()));
        }
    }
    all
}

/// The whole suite as bodies: `y_` is accepted, `n_` refused, `i_` either; what is accepted is accounted for.
#[test]
fn the_json_test_suite_as_bodies() {
    let Some(folder) = shared("jsontestsuite") else { return };
    let place = Place::new(FAST);
    let server = place.start(&Options::default());
    let mut client = server.client();
    let (mut files, mut accepted) = (Vec::new(), 0u64);
    crate::support::files(&folder, &mut files);
    files.retain(|f| ["y_", "n_", "i_"].iter().any(|p| f.file_name().unwrap().to_str().unwrap().starts_with(p)));
    assert_eq!(files.len(), 318);
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let body = std::fs::read(&file).unwrap();
        let answer = client.try_post("/v1/events", &place.keys[0], "application/json", &body, "").unwrap_or_else(|e| panic!("{name}: {e}"));
        let empty_array = serde_json::from_slice::<Vec<serde_json::Value>>(&body).is_ok_and(|v| v.is_empty());
        match name.as_bytes()[0] {
            b'y' if !empty_array => assert_eq!(answer.status, 202, "{name}"),
            b'n' | b'y' => assert_eq!(answer.status, 400, "{name}"),
            _ => assert!([202, 400].contains(&answer.status), "{name}: {}", answer.status),
        }
        if answer.status == 202 {
            let told = answer.json();
            accepted += told["accepted"].as_u64().unwrap() + told["rejected"].as_array().map_or(0, |r| r.len() as u64);
        }
    }
    server.drain();
    server.stop();
    let (verified, ok) = place.verify();
    assert!(ok, "{verified:#}");
    assert_eq!(verified["received"].as_u64(), Some(accepted));
}

#[test]
fn a_second_server_in_the_folder_is_told_so() {
    let place = Place::new(FAST);
    let server = place.start(&Options::default());
    let Err(log) = place.try_start(&Options::default()) else { panic!("two servers in one folder") };
    assert!(log.contains("in use by another process"), "{log}");
    assert!(log.contains(&server.child.id().to_string()), "{log}");
    server.stop();
}

#[test]
fn definitions_are_applied_to_a_running_server() {
    let place = Place::new(FAST);
    let server = place.start(&Options::default());
    let apply = || {
        let output = Command::new(crate::support::BINARY)
            .arg("apply")
            .arg(place.path("definitions"))
            .arg("--config")
            .arg(place.path("tidegate.toml"))
            .arg("--json")
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (ok, first, errors) = apply();
    assert!(ok, "{errors}");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&first).unwrap()["changes"].as_array().unwrap().len(),
        0,
        "nothing differs: {first}"
    );
    let script = place.path("definitions/templates/vendor/meter/transform.luau");
    std::fs::write(&script, "function transform(e) return { temperature = e.temperature + 1, seq = e.seq } end\n").unwrap();
    let (ok, second, errors) = apply();
    assert!(ok, "{errors}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&second).unwrap()["changes"].as_array().unwrap().len(), 1, "{second}");
    let mut client = server.client();
    crate::support::wait_for("the new version to run", std::time::Duration::from_secs(20), || {
        let n = crate::support::Random(std::process::id().into()).next() ^ std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos() as u64;
        let body = format!("{{\"device\":\"d\",\"id\":\"n{n}\",\"temperature\":84.5}}");
        let answer = client.try_post("/v1/events", &place.keys[0], "application/json", body.as_bytes(), "Prefer: wait=10\r\n").unwrap();
        // 85.5 is out of range, so the new version refuses what the old one took.
        (answer.json()["events"][0]["code"] == "out_of_range").then_some(())
    });
    std::fs::write(&script, "function transform(e return end\n").unwrap();
    let (ok, told, errors) = apply();
    assert!(!ok && told.contains("transform.luau"), "{told}{errors}");
    server.stop();
}
