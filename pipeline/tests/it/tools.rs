//! The command line as people meet it: the binary itself, its output and how it exits.

use crate::support::{BINARY, Options, Place};
use expect_test::expect;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn tidegate(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).env_remove("TIDEGATE_LOG").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn arg(path: &Path) -> &str {
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
    }
    std::fs::write(&config, "[telemetry]\nlog_filter = \"loud\"\n").unwrap();
    let refused = tidegate(&["check", "--config", arg(&config)]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(text(&refused.stderr).matches("is no level").count(), 1, "{refused:?}");
}
