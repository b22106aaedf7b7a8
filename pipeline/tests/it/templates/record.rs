//! Tests of a template out of what its devices sent.

use super::new_template;
use crate::support::{Options, Place};
use crate::tools::{arg, json, text, tidegate};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

/// A template's folder among a place's definitions, and `template record` on it beside the place's server.
struct Recording<'a> {
    place: &'a Place,
    dir: std::path::PathBuf,
}

impl Recording<'_> {
    fn run(&self, more: &[&str]) -> Output {
        let config = self.place.path("tidegate.toml");
        tidegate(&[&["template", "record", arg(&self.dir), "--config", arg(&config), "--json"], more].concat())
    }

    /// The tests that were written, as JSON, the oldest event first; and how many there were already.
    fn tests(&self, more: &[&str]) -> (Vec<Value>, usize) {
        let output = self.run(more);
        assert!(output.status.success(), "{output:?}");
        let told = json(&output);
        let all = told["tests"].as_array().unwrap();
        let new: Vec<Value> = all
            .iter()
            .filter(|t| t["written"] == true)
            .map(|t| serde_json::from_str(&std::fs::read_to_string(self.dir.join(t["file"].as_str().unwrap())).unwrap()).unwrap())
            .collect();
        assert_eq!(told["written"], new.len());
        let kept = all.len() - new.len();
        (new, kept)
    }
}

#[test]
fn recorded_traffic_becomes_tests() {
    let place = Place::new("[cut]\nrows = 10\nseconds_min = 0\nedge_seconds = 1\n");
    // A source of which nobody knows yet what it sends, whose gateway says where it stands.
    let (sources, keys) = (place.path("definitions/sources.toml"), place.path("definitions/keys.toml"));
    let append = |file: &Path, more: &str| std::fs::write(file, std::fs::read_to_string(file).unwrap() + more).unwrap();
    append(
        &sources,
        "[[source]]\nid = \"fresh\"\nnode = \"acme\"\nasset = { pointer = \"/device\" }\nmeta = [\"x-site\"]\noccurred_at = { pointer = \"/at\" }\nevent_type = { pointer = \"/kind\" }\n\n",
    );
    let hash = tidegate_ingest_http::hash_secret(&[77; 32]);
    append(&keys, &format!("[[key]]\nid = \"fresh\"\ntenant = \"acme\"\nsource = \"fresh\"\nsha256 = \"{hash}\"\n"));
    let server = place.start(&Options::default());
    let post = |key: &str, kind: &str, body: &[u8], headers: &str| {
        let answer = server.client().try_post("/v1/events", key, kind, body, headers).unwrap();
        assert_eq!(answer.status, 202, "{}", text(&answer.body));
    };
    let acme = b"[{\"device\":\"SN-0042\",\"id\":\"1\", \"temperature\":21.50,\"seq\":1},{\"device\":\"SN-0042\",\"id\":\"2\",\"temperature\":900},\
                 {\"device\":\"SN-7\",\"id\":\"3\",\"temperature\":2,\"note\":\"beside SN-0042\"}]";
    post(&place.keys[0], "application/json", acme, "");
    post(&place.keys[1], "application/json", b"{\"device\":\"b\",\"id\":\"1\",\"temperature\":3}", "");
    post(&crate::support::key("acmekeyb", 11), "application/octet-stream", &[1, 2], "x-device: f1\r\n");
    post(
        &crate::support::key("fresh", 77),
        "application/json",
        b"{\"device\":\"n1\",\"payload\":\"0929500c1c\",\"at\":1767323045000,\"kind\":\"uplink\"}",
        "x-site: north\r\n",
    );
    server.drain();

    let of = |template: &str| Recording { place: &place, dir: place.path("definitions/templates/vendor").join(template) };
    let meter = of("meter");
    let (all, _) = meter.tests(&["--tenant", "acme"]);
    assert_eq!(all.len(), 3);
    assert_eq!(all[0]["event"], serde_json::json!({ "device": "SN-0042", "id": "1", "temperature": 21.5, "seq": 1 }));
    assert_eq!((&all[0]["asset"], &all[0]["description"]), (&"SN-0042".into(), &"recorded from acme/meters".into()));
    assert_eq!((&all[0]["rows"][0]["temperature"], &all[0]["rows"][0]["event_type"]), (&21.5.into(), &"meter".into()));
    assert_eq!(all[1]["rejected"], serde_json::json!({ "stage": "transform", "code": "out_of_range" }));
    // As it was sent, to the space.
    let file = std::fs::read_dir(meter.dir.join("tests")).unwrap().map(|e| std::fs::read_to_string(e.unwrap().path()).unwrap());
    assert!(file.into_iter().any(|t| t.contains("{\"device\":\"SN-0042\",\"id\":\"1\", \"temperature\":21.50,\"seq\":1}")));
    // What was written passes; nothing is written over unless asked.
    assert!(tidegate(&["template", "test", arg(&meter.dir)]).status.success());
    assert_eq!(meter.tests(&["--tenant", "acme"]), (Vec::new(), 3));
    assert_eq!(meter.tests(&["--tenant", "acme", "--overwrite"]).0, all);
    assert_eq!(meter.tests(&["--count", "1"]).0[0]["asset"], "b", "the newest");
    assert_eq!(meter.tests(&["--tenant", "beta", "--since", "2020-01-01T00:00:00Z"]).1, 1);
    assert_eq!(meter.run(&["--until", "2020-01-01T00:00:00Z"]).status.code(), Some(1));
    assert_eq!(meter.run(&["--since", "yesterday"]).status.code(), Some(2));

    let (refused, _) = meter.tests(&["--rejected", "--code", "out_of_range"]);
    assert!(refused.is_empty(), "the same event has the same name");
    std::fs::remove_dir_all(meter.dir.join("tests")).unwrap();
    let (refused, _) = meter.tests(&["--rejected"]);
    assert_eq!((refused.len(), &refused[0]["event"]["id"]), (1, &"2".into()));
    assert_eq!(refused[0]["description"], "recorded from acme/meters, refused at transform: out_of_range");
    assert_eq!(meter.run(&["--code", "script_error"]).status.code(), Some(1));

    // Masked, wherever it stands; a name that is nowhere writes nothing.
    std::fs::remove_dir_all(meter.dir.join("tests")).unwrap();
    let slip = meter.run(&["--tenant", "acme", "--mask", "device,devise"]);
    assert_eq!(slip.status.code(), Some(2));
    assert!(text(&slip.stderr).contains("nothing is written: none of 3 events has devise to be masked"), "{slip:?}");
    assert!(!meter.dir.join("tests").exists());
    let (masked, _) = meter.tests(&["--tenant", "acme", "--mask", "device,/note"]);
    assert_eq!((&masked[0]["event"]["device"], &masked[0]["asset"]), (&"AA-1111".into(), &"AA-1111".into()));
    assert_eq!((&masked[2]["event"]["note"], &masked[2]["rows"][0]["note"]), (&"aaaaaa AA-1111".into(), &"aaaaaa AA-1111".into()));
    for entry in std::fs::read_dir(meter.dir.join("tests")).unwrap() {
        assert!(!std::fs::read_to_string(entry.unwrap().path()).unwrap().contains("SN-0042"));
    }
    // Bytes are told as digits.
    let (frames, _) = of("frame").tests(&[]);
    assert_eq!((&frames[0]["bytes_hex"], &frames[0]["rows"][0]["level"]), (&"0102".into(), &258.into()));
    assert_eq!(frames.len(), 1);

    // A template that nobody has published yet, of events that found none; or of those of another.
    let (_root, dir) = new_template();
    let probe = Recording { place: &place, dir };
    assert_eq!(probe.run(&[]).status.code(), Some(1));
    let (found, _) = probe.tests(&["--source", "fresh"]);
    assert_eq!((found.len(), &found[0]["meta"]["x-site"], &found[0]["decoded"]["humidity"]), (1, &"north".into(), &40.into()));
    assert_eq!((&found[0]["occurred_at"], &found[0]["event_type"]), (&"2026-01-02T03:04:05Z".into(), &"uplink".into()));
    assert_eq!(found[0]["rows"][0]["event_type"], "uplink");
    let (refused, kept) = probe.tests(&["--asset", "n1", "--rejected"]);
    assert_eq!((refused.len(), kept), (0, 1), "the same event, with all that came with it");
    std::fs::remove_dir_all(probe.dir.join("tests")).unwrap();
    let (masked, _) = probe.tests(&["--source", "fresh", "--mask", "at,kind"]);
    assert_eq!((&masked[0]["occurred_at"], &masked[0]["event_type"]), (&Value::Null, &"aaaaaa".into()));
    assert_eq!(probe.tests(&["--template", "meter"]).0.len(), 4);
    assert!(tidegate(&["template", "test", arg(&probe.dir)]).status.success());
    server.stop();
    assert_eq!(probe.tests(&["--template", "frame", "--overwrite"]).0.len(), 0, "bytes, and the template has a place for them in an event");
}
