//! `tidegate tap` beside a real server: live rows, of one tenant, filtered, and nothing of the server's is touched.

use crate::kafka::{broker, cluster};
use crate::support::{BINARY, Client, Options, Place, files, wait_for};
use crate::tables;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::*;
use expect_test::expect;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;
use tidegate_pipeline::log::embedded::EmbeddedLog;
use tidegate_schemas::envelope::partition_of;
use tidegate_schemas::ids::TenantId;
use tidegate_schemas::log::{EventLog, LogName};
use tidegate_schemas::time;

const SETTINGS: &str = "[log]\npartitions = 1\n\n[process]\nepoch_milliseconds = 20\ntick_milliseconds = 50\n\n\
                        [sink.parquet]\nsystem_tables = [\"rejections\"]\n\n\
                        [cut]\nrows = 10\nseconds_min = 0\nedge_seconds = 1\n";
const PATIENCE: Duration = Duration::from_secs(60);

fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("tap").args(arguments).arg("--config").arg(place.path("tidegate.toml")).env_remove("TIDEGATE_LOG");
    command
}

/// A tap that ends by itself.
fn whole(place: &Place, arguments: &[&str]) -> Output {
    command(place, &[arguments, &["--until-end"]].concat()).output().unwrap()
}

/// The rows that it shows.
fn rows(place: &Place, arguments: &[&str]) -> Vec<Value> {
    let output = whole(place, &[arguments, &["--json"]].concat());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn refused(place: &Place, arguments: &[&str]) -> String {
    let output = whole(place, arguments);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["event_id"].as_str().unwrap()).collect()
}

/// A tap at work, killed when the test lets go of it.
struct Live {
    child: Child,
    lines: Option<Receiver<String>>,
}

impl Live {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let mut child = command(place, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = sync_channel(1);
        // Ends with the output, or with whoever reads it no further: then the pipe is closed.
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self { child, lines: Some(lines) }
    }

    /// The next line; waits for it. None at the end.
    fn line(&mut self) -> Option<String> {
        match self.lines.as_ref().unwrap().recv_timeout(PATIENCE) {
            Err(RecvTimeoutError::Timeout) => {
                self.child.kill().unwrap();
                panic!("no row came within {PATIENCE:?}: {:?}", self.end());
            }
            told => told.ok(),
        }
    }

    fn id(&mut self) -> String {
        let line = self.line().unwrap_or_else(|| panic!("it ended: {:?}", self.end()));
        let row: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        row["event_id"].as_str().unwrap().to_owned()
    }

    /// Its exit code, where it ends by itself, and what it complained about.
    fn end(&mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        let mut told = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        (status.code(), told)
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn post(client: &mut Client, key: &str, events: &[Value]) {
    let answer = client.post("/v1/events", key, "application/json", serde_json::to_string(events).unwrap().as_bytes());
    assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
}

fn event(id: &str) -> Value {
    json!({ "device": "d1", "id": id, "temperature": 20.5, "seq": 1 })
}

/// Every file of the data folder.
fn content(place: &Place) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = Vec::new();
    files(&place.data(), &mut all);
    // A socket is no content.
    all.into_iter().filter(|f| f.is_file()).map(|f| (f.clone(), std::fs::read(&f).unwrap())).collect()
}

#[test]
fn live_rows_are_followed_and_nothing_of_the_server_is_touched() {
    let place = Place::new(SETTINGS);
    let server = place.start(&Options::default());
    let (mut client, acme, beta) = (server.client(), place.keys[0].clone(), place.keys[1].clone());
    post(&mut client, &acme, &[event("old-1"), event("old-2")]);
    server.drain();
    // From the beginning, and on: each row is read before the next event is sent.
    let mut all = Live::start(&place, &["--tenant", "acme", "--from", "beginning", "--json"]);
    assert_eq!((all.id(), all.id()), ("old-1".into(), "old-2".into()));
    for n in 0..20 {
        // The neighbour uses the same ids.
        post(&mut client, &beta, &[event(&format!("live-{n}"))]);
        post(&mut client, &acme, &[event(&format!("live-{n}"))]);
        assert_eq!(all.id(), format!("live-{n}"));
    }
    // From now on: nothing of before, whenever it begins.
    let mut now = Live::start(&place, &["--tenant", "acme", "--json", "--limit", "2"]);
    let mut told = Vec::new();
    wait_for("two rows from now on", PATIENCE, || {
        told.push(format!("now-{}", told.len()));
        post(&mut client, &acme, &[event(&told[told.len() - 1])]);
        now.child.try_wait().unwrap()
    });
    let shown = [now.id(), now.id()];
    assert_eq!((now.line(), now.end()), (None, (Some(0), String::new())));
    let at = told.iter().position(|id| *id == shown[0]).unwrap_or_else(|| panic!("{shown:?} are not among {told:?}"));
    assert_eq!(shown, told[at..at + 2]);
    // A server that comes back is followed on.
    server.stop();
    let server = place.start(&Options::default());
    post(&mut server.client(), &acme, &[event("again")]);
    while all.id() != "again" {}
    server.drain();
    server.stop();
    let before = content(&place);
    assert!(before.keys().any(|f| f.ends_with("cursors.json")));
    assert_eq!(rows(&place, &["--tenant", "acme"]).len(), 23 + told.len());
    assert_eq!(rows(&place, &["--tenant", "beta"]).len(), 20);
    assert!(before == content(&place), "something was written");
    let (verified, ok) = place.verify();
    assert!(ok, "{verified:#}");
}

#[test]
fn a_reader_that_leaves_ends_a_tap_that_waits() {
    let place = Place::new(SETTINGS);
    let server = place.start(&Options::default());
    let mut tap = command(&place, &["--tenant", "acme"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // No row ever comes, and an epoch without any every 50 ms.
    drop(tap.stdout.take());
    wait_for("the end", PATIENCE, || tap.try_wait().unwrap().map(|status| assert_eq!(status.code(), Some(141))));
    let mut told = String::new();
    tap.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(told, "");
    server.stop();
}

#[test]
fn a_tap_without_a_server_says_what_it_waits_for() {
    let place = Place::new(SETTINGS);
    place.start(&Options::default()).stop();
    let mut tap = command(&place, &["--tenant", "acme", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    BufReader::new(tap.stderr.take().unwrap()).read_line(&mut told).unwrap();
    tap.kill().unwrap();
    tap.wait().unwrap();
    assert!(told.starts_with("tidegate: nothing was committed for 10 s: ") && told.contains("tidegate run"), "{told}");
}

#[test]
fn each_tenant_sees_its_own_rows_only() {
    let place = Place::new(SETTINGS);
    let server = place.start(&Options::default());
    let mut client = server.client();
    // The same ids of everything, and one epoch for both where that can be: only the values tell them apart.
    for round in 0..10 {
        for (key, of) in place.keys.iter().zip([0, 1]) {
            let mut events = vec![json!({ "device": "d", "id": format!("e{round}"), "temperature": of, "note": format!("of {of}") })];
            events.push(json!({ "device": "d", "id": format!("r{round}"), "temperature": 900 + of }));
            post(&mut client, key, &events);
        }
    }
    server.drain();
    for (tenant, of) in [("acme", 0), ("beta", 1)] {
        let shown = rows(&place, &["--tenant", tenant]);
        assert_eq!(shown.len(), 10);
        assert!(shown.iter().all(|r| r["tenant"] == tenant && r["note"] == format!("of {of}")), "{shown:?}");
        let refused = rows(&place, &["--tenant", tenant, "--table", "rejections"]);
        assert_eq!(refused.len(), 10);
        let original = format!("{}", 900 + of);
        assert!(refused.iter().all(|r| r["tenant"] == tenant && r["original"].as_str().unwrap().contains(&original)), "{refused:?}");
        // A condition never widens what is seen.
        let other = if of == 0 { "beta" } else { "acme" };
        assert_eq!(rows(&place, &["--tenant", tenant, "--where", &format!("tenant = {other}")]), Vec::<Value>::new());
        assert_eq!(rows(&place, &["--tenant", tenant, "--where", "tenant != nobody"]).len(), 10);
    }
    server.stop();
}

#[test]
fn conditions_choose_rows() {
    let place = Place::new(SETTINGS);
    let server = place.start(&Options::default());
    let mut client = server.client();
    let events = [
        json!({ "device": "a", "id": "1", "temperature": 10.5, "seq": 1, "note": "cold", "ts": "2026-01-01T00:00:00Z" }),
        json!({ "device": "b", "id": "2", "temperature": 30, "seq": 2, "note": "9 = nine", "ts": "2026-01-02T00:00:00Z" }),
        json!({ "device": "c", "id": "3", "temperature": -0.0, "seq": -3, "note": "", "ts": "2026-01-03T00:00:00Z" }),
        json!({ "device": "a", "id": "4", "temperature": 30.25, "ts": "2026-01-04T00:00:00+02:00" }),
    ];
    post(&mut client, &place.keys[0], &events);
    // Another table of the tenant, without these fields.
    let frames = crate::support::key("acmekeyb", 11);
    let headers = "x-device: f\r\n";
    let answer = client.try_post("/v1/events", &frames, "application/octet-stream", &[1, 2], headers).unwrap();
    assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
    server.drain();
    let long_ago = "2020-01-01T00:00:00Z";
    let after = "2126-01-01T00:00:00Z";
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &["1", "2", "3", "4"]),
        (&["--where", "temperature > 30"], &["4"]),
        (&["--where", "temperature >= 30"], &["2", "4"]),
        (&["--where", "temperature<30"], &["1", "3"]),
        (&["--where", "temperature <= 10.5"], &["1", "3"]),
        (&["--where", "temperature = 30.0"], &["2"]),
        (&["--where", "temperature = 0"], &["3"]),
        (&["--where", "temperature != 30"], &["1", "3", "4"]),
        (&["--where", "seq > -3"], &["1", "2"]),
        // Without a value nothing is met.
        (&["--where", "seq != 1"], &["2", "3"]),
        (&["--where", "note = cold"], &["1"]),
        (&["--where", "note = 'cold'"], &["1"]),
        (&["--where", "note = ''"], &["3"]),
        (&["--where", "note = 9 = nine"], &["2"]),
        (&["--where", "note > 9"], &["1", "2"]),
        (&["--where", "occurred_at >= 2026-01-03T00:00:00Z"], &["3", "4"]),
        (&["--where", "occurred_at = 2026-01-03T22:00:00Z"], &["4"]),
        (&["--where", "asset = a"], &["1", "4"]),
        (&["--where", "asset = a", "--where", "temperature > 30"], &["4"]),
        (&["--where", "temperature > 0", "--where", "temperature < 30", "--where", "seq = 1"], &["1"]),
        (&["--asset", "a"], &["1", "4"]),
        (&["--asset", "a", "--asset", "c"], &["1", "3", "4"]),
        (&["--asset", "nobody"], &[]),
        (&["--source", "meters"], &["1", "2", "3", "4"]),
        (&["--source", "bytes"], &[]),
        (&["--where", "event_type = meter"], &["1", "2", "3", "4"]),
        (&["--where", "organization = vendor/acme"], &["1", "2", "3", "4"]),
        (&["--where", "_row = 0"], &["1", "2", "3", "4"]),
        (&["--since", long_ago], &["1", "2", "3", "4"]),
        (&["--since", after], &[]),
        (&["--until", long_ago], &[]),
        (&["--from", "1d"], &["1", "2", "3", "4"]),
        (&["--from", "now"], &[]),
        (&["--from", "beginning", "--limit", "3"], &["1", "2", "3"]),
        (&["--limit", "9"], &["1", "2", "3", "4"]),
    ];
    for (arguments, wanted) in cases {
        let shown = rows(&place, &[&["--tenant", "acme", "--table", "meters"], *arguments].concat());
        assert_eq!(ids(&shown), *wanted, "{arguments:?}");
    }
    // Over all tables: one that lacks the field has no row that meets it.
    let tables = |arguments: &[&str]| -> Vec<String> {
        let shown = rows(&place, &[&["--tenant", "acme"], arguments].concat());
        let mut all: Vec<String> = shown.iter().map(|r| r["_table"].as_str().unwrap().split('-').next().unwrap().to_owned()).collect();
        all.sort();
        all
    };
    assert_eq!(tables(&[]), ["frames", "meters", "meters", "meters", "meters"]);
    assert_eq!(tables(&["--where", "level = 258"]), ["frames"]);
    assert_eq!(tables(&["--where", "temperature > 30"]), ["meters"]);
    server.stop();
}

#[test]
fn json_equals_the_rows_of_the_parquet_table() {
    let place = Place::new(SETTINGS);
    let server = place.start(&Options::default());
    let mut client = server.client();
    for batch in 0..5 {
        let event = |n: i64| {
            json!({ "device": format!("d{}", n % 3), "id": format!("{batch}-{n}"), "temperature": n as f64 / 7.0, "seq": n - (1 << 40),
                                     "note": if n % 2 == 0 { Value::Null } else { json!("ü \"q\"\n\u{1}") }, "extra": { "deep": [n] } })
        };
        post(&mut client, &place.keys[0], &(0..40).map(event).collect::<Vec<_>>());
        post(&mut client, &place.keys[0], &[json!({ "device": "d", "id": format!("no-{batch}"), "temperature": 99 })]);
    }
    server.drain();
    server.stop();
    for (table, count) in [("meters", 200), ("rejections", 5)] {
        let folder = tables::find(&place.tables()).into_iter().find(|t| t.to_str().unwrap().contains(&format!("acme/{table}"))).unwrap();
        let mut stored: Vec<Value> = tables::batches(&folder).iter().flat_map(as_json).collect();
        let mut shown = rows(&place, &["--tenant", "acme", "--table", table]);
        for row in &mut shown {
            let id = row.as_object_mut().unwrap().remove("_table").unwrap();
            assert!(folder.to_str().unwrap().ends_with(id.as_str().unwrap()), "{id} {}", folder.display());
        }
        let place_of = |row: &Value| (row["_offset"].as_i64(), row["_index"].as_i64(), row["_row"].as_i64());
        stored.sort_by_key(place_of);
        shown.sort_by_key(place_of);
        assert_eq!((stored.len(), shown.len()), (count, count));
        assert_eq!(shown, stored);
    }
    // Types of their own, and the table's order of columns.
    let text = String::from_utf8(whole(&place, &["--tenant", "acme", "--table", "meters", "--json", "--limit", "1"]).stdout).unwrap();
    let row: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&row["seq"], &row["attributes"]), (&json!(-(1i64 << 40)), &json!({ "extra": "{\"deep\":[0]}" })));
    assert!(row["received_at"].as_str().is_some_and(|t| time::parse(t).is_some()), "{row}");
    assert!(text.starts_with("{\"_table\":\"meters-") && text.contains("\"temperature\":0.0,\"seq\":"), "{text}");
}

/// The rows of a batch, by the types of its columns; by nothing of Tidegate's but how it writes a time.
fn as_json(batch: &RecordBatch) -> Vec<Value> {
    let value = |column: &ArrayRef, row: usize| match column.data_type() {
        _ if column.is_null(row) => Value::Null,
        DataType::Int32 => json!(column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => json!(column.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => json!(column.as_string::<i32>().value(row)),
        DataType::Binary => json!(std::str::from_utf8(column.as_binary::<i32>().value(row)).unwrap()),
        DataType::Dictionary(..) => {
            let names = column.as_dictionary::<Int32Type>();
            json!(names.values().as_string::<i32>().value(names.keys().value(row) as usize))
        }
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
            json!(time::format(column.as_primitive::<TimestampMicrosecondType>().value(row)))
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
            keys.iter().zip(values).map(|(k, v)| (k.unwrap().to_owned(), json!(v))).collect::<Map<_, _>>().into()
        }
        other => panic!("{other}"),
    };
    let row =
        |row| batch.schema().fields().iter().zip(batch.columns()).map(|(f, c)| (f.name().clone(), value(c, row))).collect::<Map<_, _>>();
    (0..batch.num_rows()).map(|n| row(n).into()).collect()
}

#[test]
fn rows_for_people() {
    let place = Place::new(SETTINGS);
    let server = place.start(&Options::default());
    let mut client = server.client();
    let event = |n: usize, temperature: f64, note: &str| {
        json!({ "device": format!("probe-{n}"), "id": n.to_string(), "temperature": temperature,
        "seq": n, "note": note, "extra": n, "ts": format!("2026-01-01T00:00:{:02}Z", n % 60) })
    };
    post(
        &mut client,
        &place.keys[0],
        &[event(7, 21.5, "ok"), event(8, -3.25, "\u{1b}[2J\n\u{202e}gone"), event(9, 30.0, &"long".repeat(20))],
    );
    post(&mut client, &place.keys[0], &[event(10, 99.0, "too warm")]);
    server.drain();
    let told = |arguments: &[&str]| {
        let output = whole(&place, arguments);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        // The mark of a table's owner is drawn from its name: it is the same everywhere.
        String::from_utf8(output.stdout).unwrap()
    };
    expect![[r#"
        meters-259b
        occurred_at           source  asset    event_type  temperature  seq  note                                               attributes
        2026-01-01T00:00:07Z  meters  probe-7  meter              21.5    7  ok                                                 extra=7
        2026-01-01T00:00:08Z  meters  probe-8  meter             -3.25    8  \u{1b}[2J\n\u{202e}gone                            extra=8
        2026-01-01T00:00:09Z  meters  probe-9  meter              30.0    9  longlonglonglonglonglonglonglonglonglonglonglong…  extra=9
    "#]]
    .assert_eq(&told(&["--tenant", "acme"]));
    let refused = told(&["--tenant", "acme", "--table", "rejections"]);
    let lines: Vec<&str> = refused.lines().collect();
    assert_eq!(lines.len(), 3, "{refused}");
    assert!(lines[0] == "rejections" && lines[1].starts_with("recorded_at"), "{refused}");
    assert!(lines[2].contains("  meters  probe-10  ") && lines[2].contains("  out_of_range  "), "{refused}");
    assert_eq!(told(&["--tenant", "beta"]), "");
    // A header comes again, and lines stay aligned to the one above them.
    let many: Vec<Value> = (0..100).map(|n| event(100 + n, 20.0, "many")).collect();
    post(&mut client, &place.keys[0], &many);
    server.drain();
    let all = told(&["--tenant", "acme", "--where", "note = many"]);
    assert_eq!(all.lines().filter(|l| l.starts_with("occurred_at")).count(), 3, "{all}");
    assert_eq!(all.lines().filter(|l| l.starts_with("2026")).count(), 100);
    let at = all.lines().nth(1).unwrap().find("attributes").unwrap();
    assert!(all.lines().filter(|l| l.starts_with("2026")).all(|l| l[at..].starts_with("extra=")), "{all}");
    server.stop();
}

#[test]
fn names_that_are_unknown_are_answered_with_those_that_there_are() {
    let place = Place::new(SETTINGS);
    let server = place.start(&Options::default());
    server.drain();
    let acme = |more: &[&str]| refused(&place, &[&["--tenant", "acme"], more].concat());
    let cases = [
        (refused(&place, &[]), "tidegate: whose rows? name a tenant: --tenant ID\n"),
        (refused(&place, &["--tenant", "nobody"]), "tidegate: there is no tenant nobody; there are acme, beta\n"),
        // A vendor is no tenant.
        (refused(&place, &["--tenant", "vendor"]), "tidegate: there is no tenant vendor; there are acme, beta\n"),
        (
            acme(&["--where", "humidity > 3", "--table", "script_runs"]),
            "there is no field humidity; there are tenant, template, stage, runs",
        ),
        (acme(&["--source", "meters", "--table", "script_runs"]), "there is no field source; there are tenant, template"),
        (acme(&["--where", "humidity > 3"]), "there is no field humidity; there are tenant, organization, event_id, source, asset"),
        (acme(&["--where", "temperature > warm"]), "tidegate: \"warm\" is no f64, which field temperature is\n"),
        (acme(&["--where", "seq = 1.5"]), "tidegate: \"1.5\" is no i64, which field seq is\n"),
        (acme(&["--where", "received_at > yesterday"]), "tidegate: \"yesterday\" is no timestamp, which field received_at is\n"),
        (acme(&["--where", "attributes = 1"]), "tidegate: field attributes is a map, which is not compared\n"),
        (acme(&["--where", "temperature == 1"]), "a field, one of = != < <= > >=, and a value"),
        (acme(&["--where", "temperature"]), "a field, one of = != < <= > >=, and a value"),
        (acme(&["--from", "yesterday"]), "it is beginning, now, or a number with s, m, h or d, like 10m"),
        (acme(&["--since", "yesterday"]), "it is no RFC 3339 time"),
        (acme(&["--limit", "0"]), "0 is not in 1.."),
    ];
    for (told, wanted) in cases {
        assert!(told.contains(wanted), "{told} instead of {wanted}");
    }
    let told = acme(&["--table", "metres"]);
    assert!(told.starts_with("tidegate: acme has no table metres; there are frames (frames-"), "{told}");
    assert!(told.contains(", meters (meters-") && told.ends_with(", rejections, releases, script_logs, script_runs\n"), "{told}");
    server.stop();
}

#[test]
fn a_reader_that_leaves_ends_it_without_a_word() {
    let place = Place::new(SETTINGS);
    let server = place.start(&Options::default());
    let mut client = server.client();
    for form in [&["--json"][..], &[]] {
        let mut tap = Live::start(&place, &[&["--tenant", "acme", "--from", "beginning"], form].concat());
        post(&mut client, &place.keys[0], &[event(&format!("first-{}", form.len()))]);
        assert!(tap.line().is_some());
        drop(tap.lines.take());
        let mut n = 0;
        wait_for("the end of the tap", PATIENCE, || {
            n += 1;
            post(&mut client, &place.keys[0], &[event(&format!("{}-{n}", form.len()))]);
            tap.child.try_wait().unwrap()
        });
        assert_eq!(tap.end(), (Some(141), String::new()));
    }
    server.stop();
}

/// One that sleeps while retention goes over it, and sees the server's files deleted under its feet.
#[test]
fn what_retention_deleted_is_told_and_gone_on_behind() {
    let place = Place::new(crate::crash::FAST);
    let server = place.start(&Options::default());
    let mut client = server.client();
    let acme = place.keys[0].clone();
    let mut tap = Live::start(&place, &["--tenant", "acme", "--from", "beginning", "--json"]);
    post(&mut client, &acme, &[event("first")]);
    assert_eq!(tap.id(), "first");
    tap.signal("-STOP");
    let partition = partition_of(&TenantId::new("acme").unwrap(), 3);
    let bounds = || EmbeddedLog::read_only(&place.data().join("log")).unwrap().bounds(LogName::Clean, partition).unwrap();
    let slept_at = bounds().end;
    let mut n = 0;
    wait_for("retention to pass the tap", PATIENCE, || {
        let events: Vec<Value> =
            (0..100).map(|i| json!({ "device": "d", "id": format!("s{n}-{i}"), "temperature": 1, "note": "x".repeat(200) })).collect();
        n += 1;
        post(&mut client, &acme, &events);
        (bounds().start > slept_at).then_some(())
    });
    tap.signal("-CONT");
    post(&mut client, &acme, &[event("last")]);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|id| id != "last") {
        seen.push(tap.id());
    }
    tap.child.kill().unwrap();
    let (_, told) = tap.end();
    assert!(
        told.starts_with("tidegate: offsets ") && told.contains(&format!(" of clean {partition} were deleted before they were read")),
        "{told}"
    );
    assert!(seen.len() < n * 100, "nothing was missing");
    server.drain();
    server.stop();
    let (verified, ok) = place.verify();
    assert!(ok, "{verified:#}");
}

#[test]
fn rows_on_kafka() {
    let Some(broker) = broker::shared() else { return };
    // There `clean` reaches back to the last common edge only.
    let place = Place::new(&cluster::settings(broker, "tap.").replace("edge_seconds = 1", "edge_seconds = 900"));
    let server = place.start(&Options::default());
    let mut client = server.client();
    let mut tap = Live::start(&place, &["--tenant", "acme", "--from", "beginning", "--json"]);
    for n in 0..5 {
        let [acme, beta] = place.keys.each_ref();
        post(&mut client, beta, &[event(&format!("e{n}"))]);
        post(&mut client, acme, &[event(&format!("e{n}")), json!({ "device": "d", "id": format!("r{n}"), "temperature": 900 })]);
        assert_eq!(tap.id(), format!("e{n}"));
    }
    let mut refused = Live::start(&place, &["--tenant", "acme", "--table", "rejections", "--from", "1h", "--limit", "5", "--json"]);
    assert_eq!([(); 5].map(|()| refused.id()), ["r0", "r1", "r2", "r3", "r4"]);
    assert_eq!(refused.end(), (Some(0), String::new()));
    // What is committed, and the offsets of markers behind it.
    assert_eq!(ids(&rows(&place, &["--tenant", "acme", "--where", "seq = 1"])), ["e0", "e1", "e2", "e3", "e4"]);
    assert_eq!(ids(&rows(&place, &["--tenant", "acme", "--from", "1h"])), ["e0", "e1", "e2", "e3", "e4"]);
    assert!(rows(&place, &["--tenant", "acme", "--from", "now"]).is_empty());
    server.stop();
}
