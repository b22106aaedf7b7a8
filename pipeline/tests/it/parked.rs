//! `verify` where not all is well: rows of parked tables are accounted for, and a sink that cannot be read hides no other.

use crate::support::{BINARY, Options, Place, wait_for};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

const SETTINGS: &str = "[log]\npartitions = 1\n\n[process]\nepoch_milliseconds = 20\ntick_milliseconds = 50\n\n\
                        [cut]\nrows = 10\nseconds_min = 0\nedge_seconds = 1\n";
const PATIENCE: Duration = Duration::from_secs(60);

fn sink(place: &Place, args: &[&str]) -> String {
    let output = Command::new(BINARY).arg("sink").args(args).arg("--config").arg(place.path("tidegate.toml")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn parked(place: &Place) -> Vec<Value> {
    let listed: Value = serde_json::from_str(&sink(place, &["list", "--json"])).unwrap();
    listed["sinks"][0]["parked"].as_array().unwrap().clone()
}

#[test]
fn rows_of_a_parked_table_are_no_difference() {
    let place = Place::new(SETTINGS);
    let server = place.start(&Options::default());
    let mut client = server.client();
    let mut send = |tenant: usize, from: u32| {
        let events: Vec<Value> = (from..from + 10).map(|n| json!({ "device": "d", "id": format!("e{n}"), "temperature": 1.5 })).collect();
        let answer = client.post("/v1/events", &place.keys[tenant], "application/json", Value::from(events).to_string().as_bytes());
        assert_eq!(answer.status, 202);
    };
    send(1, 0);
    server.drain();
    let (report, ok) = place.verify();
    assert!(ok, "{report:#}");
    let table = report["tables"][0]["table"].as_str().unwrap().to_owned();
    // Somebody else's file stands where acme's table would begin.
    let begins = place.tables().join("acme").join(&table).join("_delta_log/00000000000000000000.json");
    std::fs::create_dir_all(begins.parent().unwrap()).unwrap();
    std::fs::write(&begins, "{\"no\":\"table\"}\n").unwrap();
    send(0, 0);
    wait_for("the parked table", PATIENCE, || (!parked(&place).is_empty()).then_some(()));
    // It is out of the way; the rows wait for somebody to say so.
    std::fs::remove_dir_all(place.tables().join("acme")).unwrap();
    let told = |waiting: u64, dropped: u64| {
        let (report, _) = place.verify();
        let of_table = json!([{ "sink": "parquet", "tenant": "acme", "table": table, "rows": waiting, "rows_dropped": dropped }]);
        (report["parked"] == of_table && report["rows_parked"] == waiting && report["rows_dropped"] == dropped).then_some(report)
    };
    wait_for("an account of it", PATIENCE, || told(10, 0));
    sink(&place, &["drop", "parquet", &table]);
    wait_for("its end", PATIENCE, || parked(&place).is_empty().then_some(()));
    server.drain();
    server.stop();
    let (report, ok) = place.verify();
    assert!(ok && told(0, 10).is_some(), "{report:#}");
    let output = Command::new(BINARY).args(["verify", "--config"]).arg(place.path("tidegate.toml")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("rows of parked tables 0 waiting, 10 dropped\n"), "{text}");
    assert!(text.contains(&format!("DROPPED parquet acme/{table}: 10 rows, by tidegate sink drop")), "{text}");
    // What is on no record is missing still.
    std::fs::remove_dir_all(place.tables().join("beta")).unwrap();
    let (report, ok) = place.verify();
    assert!(!ok && report["differences_count"].as_u64() > Some(0), "{report:#}");
}

#[test]
fn a_sink_that_does_not_answer_hides_no_other() {
    let place = Place::new(SETTINGS);
    let server = place.start(&Options::default());
    let answer = server.client().post("/v1/events", &place.keys[0], "application/json", br#"{"device":"d","id":"e","temperature":1}"#);
    assert_eq!(answer.status, 202);
    server.drain();
    server.stop();
    let config = std::fs::read_to_string(place.path("tidegate.toml")).unwrap();
    // One that is not there, and one that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for (url, why) in [
        ("http://127.0.0.1:1".to_owned(), "Connection refused"),
        (format!("http://{}", silent.local_addr().unwrap()), "no answer within 10 s"),
    ] {
        std::fs::write(place.path("tidegate.toml"), format!("{config}\n[sink.clickhouse]\nenabled = true\nurl = \"{url}\"\n")).unwrap();
        let began = Instant::now();
        let (report, ok) = place.verify();
        assert!(!ok && began.elapsed() < PATIENCE / 2, "{report:#}");
        assert_eq!((&report["tables"][0]["sink"], &report["tables"][0]["rows"]), (&json!("parquet"), &json!(1)));
        let difference = report["differences"][0].as_str().unwrap();
        assert_eq!(report["differences_count"], 1, "{report:#}");
        assert!(
            difference.starts_with("clickhouse cannot be read, so its tables are not compared: ") && difference.contains(why),
            "{difference}"
        );
    }
}
