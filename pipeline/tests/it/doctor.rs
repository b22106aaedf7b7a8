//! `doctor` on the parts of this machine; what it says of Kafka, ClickHouse and buckets is tested beside those.

use crate::support::{BINARY, Place};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// State and detail of each check, and whether all is well.
pub fn doctor(place: &Place) -> (BTreeMap<String, (String, String)>, bool) {
    let output = Command::new(BINARY).args(["doctor", "--json", "--config"]).arg(place.path("tidegate.toml")).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let text = |f: &Value, name: &str| f[name].as_str().unwrap().to_owned();
    let finding = |f: &Value| (text(f, "check"), (text(f, "state"), text(f, "detail")));
    (told["findings"].as_array().unwrap().iter().map(finding).collect(), output.status.success())
}

/// Every path below the place.
fn paths(place: &Place) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![place.root.path().to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            open.extend(path.is_dir().then(|| path.clone()));
            found.insert(path);
        }
    }
    found
}

#[test]
fn it_leaves_nothing_behind() {
    let place = Place::new("");
    let before = paths(&place);
    let (found, ok) = doctor(&place);
    assert!(ok, "{found:?}");
    assert!(found["sink.parquet.path"].1.contains("exactly one wins"), "{found:?}");
    assert_eq!(paths(&place), before);
}

#[test]
fn places_that_cannot_be_written_have_their_remedy() {
    let place = Place::new("[sink.parquet]\npath = \"taken/tables\"\n");
    std::fs::write(place.path("taken"), "a file").unwrap();
    let (found, ok) = doctor(&place);
    let (state, detail) = &found["sink.parquet.path"];
    assert!(!ok && state == "failed" && detail.ends_with("name a folder that this user may write to"), "{detail}");
}

#[test]
fn findings_are_told_as_they_are_made() {
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::new(&format!("[sink.clickhouse]\nenabled = true\nurl = \"http://{}\"\n", silent.local_addr().unwrap()));
    let mut command = Command::new(BINARY);
    let mut doctor = command.args(["doctor", "--config"]).arg(place.path("tidegate.toml")).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(doctor.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("ok       definitions"));
    assert_eq!(doctor.try_wait().unwrap(), None, "the rest is still to come");
    let rest: Vec<String> = lines.collect();
    let told = rest.iter().find(|line| line.contains("sink.clickhouse.url")).unwrap();
    assert!(told.contains("no answer within 10 s") && told.contains("port 8123 with http"), "{told}");
    assert_eq!(doctor.wait().unwrap().code(), Some(1));
}

#[test]
fn a_budget_above_the_disk_is_told() {
    let place = Place::new("[log]\nbudget_bytes = 1_000_000_000_000_000\n");
    let (found, ok) = doctor(&place);
    let (state, detail) = &found["log.budget_bytes"];
    assert!(ok && state == "warning" && detail.contains("makes do with what the disk has"), "{detail}");
}
