//! The tables, opened by readers that have nothing of ours: `deltalake`, `polars` and `duckdb` in a Python virtual
//! environment that the test makes.

use crate::python;
use crate::support::{Options, Place, key, shared};
use crate::tables;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const FAST: &str = "[process]\nepoch_milliseconds = 20\ntick_milliseconds = 50\n\n[cut]\nrows = 200\nseconds_min = 0\nedge_seconds = 1\n";

fn read(python: &Path, table: &Path) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/readers.py");
    let output = Command::new(python).arg(script).arg(table).output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn table_of(place: &Place, tenant: &str, table: &str) -> PathBuf {
    let wanted = format!("/{tenant}/{table}-");
    tables::find(&place.data().join("tables"))
        .into_iter()
        .find(|t| t.to_str().unwrap().contains(&wanted))
        .unwrap_or_else(|| panic!("no table {wanted}"))
}

/// Numbers as numbers, whatever form JSON gave them.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(1.0),
        _ => a == b,
    }
}

#[test]
fn three_readers_see_what_was_sent() {
    let Some(python) = python::readers() else { return };
    let place = Place::new(FAST);
    let server = place.start(&Options::default());
    let mut client = server.client();
    let mut sent: BTreeMap<String, (f64, Option<i64>, Option<String>)> = BTreeMap::new();
    for request in 0..12 {
        let mut events = Vec::new();
        for i in 0..50 {
            let n = request * 50 + i;
            let (temperature, seq) = (f64::from(n % 900) / 10.0 - 39.0, (n % 7 != 0).then_some(i64::from(n) << 33));
            let note = (n % 3 == 0).then(|| format!("caf\u{e9} \"{n}\""));
            events.push(serde_json::json!({ "device": format!("d{}", n % 9), "id": format!("e{n}"), "ts": "2026-01-01T00:00:00.002Z",
                "temperature": temperature, "seq": seq, "note": note }));
            if temperature <= 85.0 {
                sent.insert(format!("e{n}"), (temperature, seq, note));
            }
        }
        let answer = client.post("/v1/events", &place.keys[0], "application/json", Value::from(events).to_string().as_bytes());
        assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
    }
    server.drain();
    server.stop();
    let seen = read(&python, &table_of(&place, "acme", "meters"));
    let types = &seen["types"];
    for (field, kind) in [
        ("temperature", "double"),
        ("seq", "long"),
        ("note", "string"),
        ("occurred_at", "timestamp"),
        ("attributes", "map"),
        ("date", "date"),
        ("tenant", "string"),
        ("_partition", "integer"),
    ] {
        assert_eq!(types[field], kind, "{field}");
    }
    assert_eq!(seen["units"], serde_json::json!({ "temperature": "Cel" }));
    for reader in ["deltalake", "polars", "duckdb"] {
        let rows = seen[reader].as_array().unwrap();
        assert_eq!(rows.len(), sent.len(), "{reader}");
        for row in rows {
            let (temperature, seq, note) = &sent[row["event_id"].as_str().unwrap()];
            assert!(same(&row["temperature"], &Value::from(*temperature)), "{reader}: {row}");
            // What crosses to a script above 2^53 is a text there; the column is a number again.
            assert_eq!(row["seq"].as_i64(), *seq, "{reader}: {row}");
            assert_eq!(row["note"].as_str(), note.as_deref(), "{reader}: {row}");
            assert_eq!(row["tenant"], "acme");
            assert!(row["occurred_at"].as_str().unwrap().starts_with("2026-01-01T00:00:00.002"), "{reader}: {row}");
        }
    }
    assert_eq!(seen["deltalake"].as_array().unwrap().len(), tables::rows(&place.data().join("tables")).len());
}

/// W3: its scripts, its events, its expected rows, computed without Lua.
#[test]
fn w3_gives_exactly_its_expected_rows() {
    let (Some(python), Some(sample), Some(expected)) =
        (python::readers(), shared("workload/w3-sample.ndjson"), shared("workload/w3-expected.ndjson"))
    else {
        return;
    };
    let place = Place::new(FAST);
    let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/definitions");
    let definitions = place.path("definitions");
    std::fs::remove_dir_all(&definitions).unwrap();
    copy(&bench, &definitions);
    let hash = tidegate_ingest_http::hash_secret(&[9; 32]);
    std::fs::write(
        definitions.join("keys.toml"),
        format!("[[key]]\nid = \"bench\"\ntenant = \"acme\"\nsource = \"w3\"\nsha256 = \"{hash}\"\n"),
    )
    .unwrap();
    let server = place.start(&Options::default());
    let body = std::fs::read(sample).unwrap();
    let answer = server.client().post("/v1/events", &key("bench", 9), "application/x-ndjson", &body);
    assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
    server.drain();
    server.stop();
    let seen = read(&python, &table_of(&place, "acme", "w3"));
    let expected: Vec<Value> = std::fs::read_to_string(expected).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for reader in ["deltalake", "polars", "duckdb"] {
        let rows = seen[reader].as_array().unwrap();
        assert_eq!(rows.len(), expected.len(), "{reader}");
        for (row, expected) in rows.iter().zip(&expected) {
            for (name, value) in expected.as_object().unwrap() {
                let found = match name.as_str() {
                    "id" => &row["event_id"],
                    // Milliseconds since 1970 in the source, a timestamp in the table.
                    "time" => {
                        let micros = tidegate_schemas::time::parse(&row["time"].as_str().unwrap().replace(' ', "T")).unwrap();
                        assert_eq!(micros / 1_000, value.as_i64().unwrap(), "{reader}: {row}");
                        continue;
                    }
                    name => &row[name],
                };
                assert!(same(found, value), "{reader}: {name} is {found}, expected {value}: {row}");
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &target) } else { std::fs::copy(entry.path(), target).map(drop).unwrap() }
    }
}
