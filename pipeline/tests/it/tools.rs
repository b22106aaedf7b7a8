//! The command line as people meet it: the binary itself, its output and how it exits.

use crate::support::{BINARY, Options, Place, wait_for};
use expect_test::expect;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

pub fn tidegate(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).env_remove("TIDEGATE_LOG").output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

pub fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_new_key_opens_its_source() {
    let place = Place::new("");
    let issued = tidegate(&["key", "k7", "--tenant", "acme", "--source", "meters", "--asset", "d \"1\"", "--asset", "d2", "--json"]);
    assert!(issued.status.success());
    let issued = json(&issued);
    let (key, entry) = (issued["key"].as_str().unwrap(), issued["entry"].as_str().unwrap());
    assert!(key.starts_with("tg_k7_") && key.len() == "tg_k7_".len() + 72, "{key}");
    assert!(!entry.contains(&key[6..70]) && entry.contains(issued["sha256"].as_str().unwrap()));
    let keys = place.path("definitions/keys.toml");
    let before = std::fs::read_to_string(&keys).unwrap();
    std::fs::write(&keys, format!("{before}\n{entry}")).unwrap();
    let server = place.start(&Options::default());
    let status = |asset: &str| {
        let body = format!("{{\"device\":{},\"id\":\"1\",\"temperature\":1}}", serde_json::to_string(asset).unwrap());
        server.client().post("/v1/events", key, "application/json", body.as_bytes()).status
    };
    assert_eq!((status("d \"1\""), status("d2"), status("d3")), (202, 202, 403));
}

#[test]
fn a_new_place_takes_events_at_once() {
    let place = Place::of(tempfile::tempdir().unwrap());
    let folder = place.root.path();
    let there = tidegate(&["init", arg(folder)]);
    assert!(there.status.code() == Some(2) && text(&there.stderr).contains("is there already"), "{there:?}");
    std::fs::remove_dir(folder).unwrap();
    let made = tidegate(&["init", arg(folder)]);
    let said = text(&made.stdout);
    let key = said.split_whitespace().find(|word| word.starts_with("tg_first_")).unwrap_or_else(|| panic!("{said}"));
    let checked = tidegate(&["check", "--config", arg(&place.path("tidegate.toml"))]);
    assert!(checked.status.success() && text(&checked.stdout).contains("2 tests"), "{checked:?}");

    // The event that it says to send.
    let body = said.lines().find_map(|line| line.trim().strip_prefix("-d '")?.strip_suffix('\'')).unwrap();
    let server = place.start(&Options { args: vec!["--listen".into(), "127.0.0.1:0".into()], ..Options::default() });
    let answer = server.client().try_post("/v1/events", key, "application/json", body.as_bytes(), "Prefer: wait=30\r\n").unwrap();
    let told = answer.json();
    // By when the table has the row is told: at the next half minute, unless that was just now.
    if told["state"] == "processed" {
        let edge = tidegate_schemas::time::parse(told["delivered_by"].as_str().unwrap()).unwrap();
        let left = edge - tidegate_pipeline::server::now();
        assert!(edge % 30_000_000 == 0 && left < 30_000_000, "{told}");
    }
    assert!(answer.status == 200 && ["processed", "delivered"].contains(&told["state"].as_str().unwrap()), "{told}");
    // In its table it is then; committed it is at once.
    let config = place.path("tidegate.toml");
    let tap = ["tap", "--config", arg(&config), "--tenant", "my-tenant", "--from", "beginning", "--limit", "1", "--json"];
    let row = json(&tidegate(&tap));
    server.stop();
    assert_eq!((&row["temperature"], &row["asset"]), (&23.45.into(), &"sensor-1".into()), "{row}");
    assert_eq!(row["organization"], "my-vendor/my-tenant/my-tenant-site");

    // Another edge holds once the old one has passed, which the start tells; rows of then are told the new one.
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("edge_seconds = 30", "edge_seconds = 7_200")).unwrap();
    let server = place.start(&Options { args: vec!["--listen".into(), "127.0.0.1:0".into()], ..Options::default() });
    let log = std::fs::read_to_string(&server.log).unwrap();
    assert!(log.contains("cut.edge_seconds is another now") && log.contains("old=30 new=7200"), "{log}");
    // The old edge may come meanwhile, and take an event with it; the next one is far away.
    let (told, receipt) = (2..9)
        .find_map(|n| {
            let event = body.replace("sensor-1-1", &format!("sensor-1-{n}"));
            assert_ne!(event, body);
            let late =
                server.client().try_post("/v1/events", key, "application/json", event.as_bytes(), "Prefer: wait=3; sink=*\r\n").unwrap();
            let told = late.json();
            assert_eq!(told["events"][0]["state"], "transformed", "{told}");
            let receipt = server.client().get(&format!("/v1/receipts/{}", told["receipt"].as_str().unwrap()), Some(key)).json();
            (late.status == 202 && receipt["state"] == "processed").then_some((told, receipt))
        })
        .unwrap();
    assert_eq!(told["state"], "processed");
    assert_eq!(receipt["delivered_by"], told["delivered_by"]);
    assert_eq!(tidegate_schemas::time::parse(told["delivered_by"].as_str().unwrap()).unwrap() % 7_200_000_000, 0, "{told}");
}

/// Who has the binary alone has the manual as well, and no message sends anybody to a file of the sources.
#[test]
fn the_manual_comes_with_the_binary() {
    let listed = text(&tidegate(&["manual"]).stdout);
    let topics: Vec<&str> = listed.lines().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!(topics, ["start", "settings", "definitions", "scripts", "kafka", "clickhouse", "objects"]);
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (topic, file) in
        [("settings", "tidegate.example.toml"), ("scripts", "operators/README.md"), ("objects", "pipeline/guides/objects.md")]
    {
        assert_eq!(text(&tidegate(&["manual", topic]).stdout), std::fs::read_to_string(crates.join(file)).unwrap(), "{topic}");
    }
    let unknown = tidegate(&["manual", "seting"]);
    assert!(unknown.status.code() == Some(2) && text(&unknown.stderr).contains("possible values: start, settings"), "{unknown:?}");
    let mut folders: Vec<_> = ["schemas", "operators", "sinks", "ingest-http", "pipeline"].map(|name| crates.join(name).join("src")).into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let is_text =
                path.extension().is_some_and(|end| end == "rs" || end == "toml" || end == "luau") && !path.ends_with("cli/manual.rs");
            for line in std::fs::read_to_string(&path).unwrap_or_default().lines().filter(|_| is_text) {
                let is_comment = path.extension().is_some_and(|end| end == "rs") && line.trim_start().starts_with("//");
                let names_one = ["README.md", "guides/", "example.toml"].iter().any(|name| line.contains(name));
                assert!(is_comment || !names_one, "{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn a_key_without_its_source_is_not_issued() {
    let place = Place::new("");
    let (definitions, config) = (place.path("definitions"), place.path("tidegate.toml"));
    let key = |source: &str, more: &[&str]| tidegate(&[&["key", "k7", "--tenant", "acme", "--source", source], more].concat());
    for folder in [["--definitions", arg(&definitions)], ["--config", arg(&config)]] {
        let refused = key("metres", &folder);
        assert_eq!((refused.status.code(), text(&refused.stdout).as_str()), (Some(1), ""), "{refused:?}");
        let said = text(&refused.stderr);
        assert!(said.starts_with("keys.toml:27:") && said.contains("key k7") && said.contains("metres"), "{said}");
        let issued = key("meters", &folder);
        assert!(issued.status.success() && issued.stderr.is_empty(), "{issued:?}");
    }
    let taken = tidegate(&["key", "acmekey", "--tenant", "acme", "--source", "meters", "--definitions", arg(&definitions)]);
    assert!(text(&taken.stderr).contains("key acmekey stands at"), "{taken:?}");
    assert!(text(&key("metres", &[]).stderr).contains("was not looked at: name the folder with --definitions"));
}

#[test]
fn keys_for_people() {
    let (first, again) = (tidegate(&["key", "k7"]), tidegate(&["key", "k7"]));
    assert_ne!(first.stdout, again.stdout, "every key is another");
    let shown = text(&first.stdout);
    let secret = &shown.lines().next().unwrap()[6..];
    let hash = shown.lines().find(|l| l.starts_with("sha256")).unwrap();
    expect![[r#"
        tg_k7_SECRET

        That is the key: it is shown this once, and kept nowhere. Whoever sends events sends it as
        Authorization: Bearer tg_k7_…

        Add to keys.toml, and publish with tidegate apply:

        [[key]]
        id = "k7"
        tenant = "TENANT"
        source = "SOURCE"
        sha256 = HASH

    "#]]
    .assert_eq(&shown.replace(secret, "SECRET").replace(hash, "sha256 = HASH"));
    for id in ["", "k 7", "k-7", "a.b", "\u{e9}", &"k".repeat(65)] {
        let refused = tidegate(&["key", id]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(
            refused.stdout.is_empty() && text(&refused.stderr).contains("is no id of a key: 1 to 64 letters and digits"),
            "{refused:?}"
        );
    }
}

#[test]
fn faults_are_told_once() {
    let place = Place::new("");
    let definitions = place.path("definitions");
    std::fs::write(definitions.join("assets.toml"), "[[asset]]\nid = \"a\"\nnode = \"nobody\"\n").unwrap();
    let config = place.path("tidegate.toml");
    let said = "assets.toml:2:6: asset a refers to organization nobody, which is not there; define it, or correct the name";
    for command in [&["apply", arg(&definitions), "--config", arg(&config)][..], &["check", "--config", arg(&config)]] {
        let people = tidegate(command);
        assert_eq!((people.status.code(), text(&people.stderr)), (Some(1), format!("{said}\n")));
        let machine = tidegate(&[command, &["--json"]].concat());
        assert_eq!((machine.status.code(), json(&machine)), (Some(1), serde_json::json!({ "faults": [said] })));
        assert_eq!(text(&machine.stderr), format!("{said}\n"));
    }
    std::fs::write(&config, "[telemetry]\nlog_filter = \"loud\"\n").unwrap();
    let refused = tidegate(&["check", "--config", arg(&config)]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(text(&refused.stderr).matches("is no level").count(), 1, "{refused:?}");
}

/// `tidegate … | head -1`: who reads no further is told nothing more, and nobody panics.
#[test]
fn a_reader_that_leaves_ends_a_command_without_a_word() {
    let mut command = Command::new(BINARY);
    command.args(["key", "k1", "--tenant", "acme", "--source", "chirp"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    // It may have written before its reader left.
    assert!(!told.contains("panicked") && matches!(output.status.code(), Some(0 | 141)), "{}: {told}", output.status);
}

#[test]
fn why_a_sink_cannot_be_removed() {
    let settings = |partitions, enabled| {
        format!("[log]\npartitions = {partitions}\n\n[cut]\nseconds_min = 0\nedge_seconds = 1\n\n[sink.parquet]\nenabled = {enabled}\n")
    };
    let mut place = Place::new(&settings(1, false));
    let remove = |place: &Place| {
        let output = tidegate(&["sink", "remove", "parquet", "--config", arg(&place.path("tidegate.toml"))]);
        assert!(!output.status.success());
        text(&output.stderr)
    };
    place.start(&Options::default()).stop();
    assert_eq!(remove(&place), "parquet holds nothing of this log; the log knows of no sinks\n");
    place.configure(settings(1, true));
    let server = place.start(&Options::default());
    wait_for("a place of the sink", Duration::from_secs(60), || {
        let listed = json(&tidegate(&["sink", "list", "--json", "--config", arg(&place.path("tidegate.toml"))]));
        listed["sinks"][0]["partitions"][0]["epoch"].as_u64()
    });
    server.stop();
    // No server has it, so none can be stopped.
    place.configure(settings(2, false));
    let told = remove(&place);
    assert!(told.contains("2 partitions are configured") && !told.contains("stop the server"), "{told}");
    place.configure(settings(1, false));
    let _server = place.start(&Options::default());
    let told = remove(&place);
    assert!(told.contains("stop the server that has it first"), "{told}");
}
