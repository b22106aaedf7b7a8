//! One payload stage by stage, and what a template costs.

use super::{edit, new_template, said};
use crate::tools::{arg, json, text, tidegate};
use expect_test::expect;
use serde_json::Value;

#[test]
fn a_payload_is_shown_stage_by_stage() {
    let (root, dir) = new_template();
    edit(
        &dir.join("decode.luau"),
        "  return {\n    data",
        "  tide.log(\"port\", input.fPort, \"asset\", input.asset.id)\n  return {\n    data",
    );
    let payload = root.path().join("payload");
    let shown = |bytes: &[u8], more: &[&str]| {
        std::fs::write(&payload, bytes).unwrap();
        let all = [&["template", "run", arg(&dir), "--payload", arg(&payload)], more].concat();
        let text = said(&dir, &all).replace(arg(&payload), "PAYLOAD");
        // Versions change with the text of the template, memory with the library.
        let lines = text.lines().map(|l| match l.split_once(['@']) {
            Some((start, _)) if l.starts_with("template") => format!("{start}@VERSION"),
            _ if l.starts_with("memory") => "memory     …".to_owned(),
            _ => l.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    expect![[r#"
        template   probe@VERSION
        asset      d7
        event      {"payload":"0929500c1c","port":3}
        decode     by decode.luau, 38 steps
                   { "battery": 3.1, "humidity": 40, "temperature": 23.45 }
        validate   by nothing
        transform  by fields by their names
        row 0      { "battery": 3.1, "event_type": "probe", "humidity": 40.0, "occurred_at": "1970-01-01T00:00:00Z", "temperature": 23.45 }
        log        decode: port 3 asset d7
        steps      38 of 10000
        memory     …
        exit 0"#]]
    .assert_eq(&shown(b"{\"payload\":\"0929500c1c\",\"port\":3}", &["--asset", "d7"]));
    expect![[r#"
        template   probe@VERSION
        asset      test-asset
        event      {"payload":"0929500c1c","port":9}
        decode     by decode.luau, 38 steps
                   { "battery": 3.1, "humidity": 40, "temperature": 23.45 }
        validate   by nothing
        transform  by fields by their names
        row 0      { "battery": 3.1, "event_type": "probe", "humidity": 40.0, "occurred_at": "1970-01-01T00:00:00Z", "temperature": 23.45 }
        log        decode: port 9 asset test-asset
        steps      38 of 10000
        memory     …
        exit 0"#]]
    .assert_eq(&shown(b"09 29 50 0c 1c\n", &["--f-port", "9"]));
    assert_eq!(shown(b"\x09\x29\x50\x0c\x1c", &["--f-port", "9"]), shown(b"0929500C1C", &["--f-port", "9"]));
    expect![[r#"
        template   probe@VERSION
        asset      test-asset
        event      {"payload":"0929500c","port":1}
        decode     by decode.luau, 8 steps
                   REJECTED decode_failed: 5 bytes are wanted, not 4
        validate   by nothing, not reached
        transform  by fields by their names, not reached
        steps      8 of 10000
        memory     …
        exit 3"#]]
    .assert_eq(&shown(&std::fs::read(dir.join("tests/short.json")).unwrap(), &[]));
    expect![[r#"
        template   probe@VERSION
        asset      test-asset
        event      {"payload":"7fff500c1c"}
        decode     by decode.luau, 38 steps
                   { "battery": 3.1, "humidity": 40, "temperature": 327.67 }
        validate   by nothing
        transform  by fields by their names
                   REJECTED out_of_range at /temperature: temperature is 327.67, above 85 (decode.luau:10)
        log        decode: port nil asset test-asset
        steps      38 of 10000
        memory     …
        exit 3"#]]
    .assert_eq(&shown(b"{\"payload\":\"7fff500c1c\"}", &[]));
    edit(&dir.join("decode.luau"), "input.fPort", "input.fPort.x");
    expect![[r#"
        template   probe@VERSION
        asset      test-asset
        event      {"payload":"0929500c1c"}
        decode     by decode.luau, 2 steps
                   REJECTED script_error: attempt to index nil with 'x' (decode.luau:7)
        validate   by nothing, not reached
        transform  by fields by their names, not reached
        steps      2 of 10000
        memory     …
        exit 3"#]]
    .assert_eq(&shown(b"0929500c1c", &[]));
    std::fs::write(dir.join("transform.luau"), "function transform(event)\n  if event.decoded.temperature > 20 then return nil end\n  return { temperature = 1, odd = { 1, 2 } }\nend\n").unwrap();
    edit(&dir.join("decode.luau"), "input.fPort.x", "input.fPort");
    expect![[r#"
        template   probe@VERSION
        asset      test-asset
        event      {"payload":"0929500c1c"}
        decode     by decode.luau, 38 steps
                   { "battery": 3.1, "humidity": 40, "temperature": 23.45 }
        validate   by nothing
        transform  by transform.luau, 2 steps
        filtered   left out on purpose
        log        decode: port nil asset test-asset
        steps      40 of 10000
        memory     …
        exit 0"#]]
    .assert_eq(&shown(b"0929500c1c", &[]));
    std::fs::write(&payload, "0000500c1c").unwrap();
    let traced = json(&tidegate(&["template", "run", arg(&dir), "--payload", arg(&payload), "--json"]));
    assert_eq!(traced["end"], "rows");
    assert_eq!(traced["rows"][0]["attributes"]["odd"], "[1,2]");
    assert_eq!(traced["decoded"]["battery"], 3.1);
    assert_eq!(traced["log"][0]["stage"], "decode");
    let stages: Vec<&str> = traced["stages"].as_array().unwrap().iter().map(|s| s["by"].as_str().unwrap()).collect();
    assert_eq!(stages, ["decode.luau", "nothing", "transform.luau"]);
    let of = |i: usize| traced["stages"][i]["steps"].as_u64().unwrap();
    assert_eq!(traced["steps"].as_u64().unwrap(), of(0) + of(2));
    assert!(traced["memory_bytes"].as_u64().unwrap() > 10_000);
    let nowhere = tidegate(&["template", "run", arg(&dir), "--payload", "nowhere"]);
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(text(&nowhere.stderr).contains("payload nowhere: No such file"), "{nowhere:?}");
}

#[test]
fn what_is_around_a_payload_can_be_given() {
    let (root, dir) = new_template();
    edit(
        &dir.join("decode.luau"),
        "  return {\n    data",
        "  return {\n    warnings = if input.fPort == 7 then { \"port 7 is old\", { code = 2 } } else {},\n    data",
    );
    std::fs::write(
        dir.join("transform.luau"),
        "function transform(event)\n  return { temperature = event.decoded.temperature, gateway = event.gateway }\nend\n",
    )
    .unwrap();
    let payload = root.path().join("payload");
    std::fs::write(&payload, "0929500c1c").unwrap();
    let ran = |more: &[&str]| tidegate(&[&["template", "run", arg(&dir), "--payload", arg(&payload)], more].concat());
    let shown = ran(&["--event", "{\"gateway\":\"g1\",\"port\":7}", "--received-at", "2026-01-02T03:04:05Z"]);
    let told = text(&shown.stdout);
    for expected in [
        "decode     by decode.luau, 18 steps",
        "           warning: port 7 is old\n           warning: { \"code\": 2 }\n",
        "\"attributes\": { \"gateway\": \"g1\" }",
        "\"occurred_at\": \"2026-01-02T03:04:05Z\"",
    ] {
        assert!(shown.status.success() && told.contains(expected), "{expected} is not in {told}");
    }
    let event = root.path().join("event.json");
    std::fs::write(&event, "{\"gateway\":\"g2\",\"port\":1}").unwrap();
    let traced = json(&ran(&["--event", arg(&event), "--f-port", "7", "--json"]));
    assert_eq!(traced["warnings"], serde_json::json!(["port 7 is old", { "code": 2 }]));
    assert_eq!(traced["rows"][0]["attributes"]["gateway"], "g2");
    assert_eq!(json(&ran(&["--json"]))["warnings"], serde_json::json!([]));
    for (more, told) in [
        (&["--event", "nowhere"][..], "--event nowhere: it is a file, or an object of JSON: No such file"),
        (&["--event", "{\"a\":}"], "no object of JSON"),
        (&["--received-at", "noon"], "--received-at \"noon\" is no RFC 3339 time"),
    ] {
        let refused = ran(more);
        assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains(told), "{refused:?}");
    }
    // What is an event or a test has nothing around it.
    for (payload, told) in
        [("{\"payload\":\"0929500c1c\"}", "this is an event already"), ("{\"description\":\"\",\"bytes_hex\":\"00\"}", "this is a test")]
    {
        std::fs::write(root.path().join("payload"), payload).unwrap();
        for more in [["--event", "{}"], ["--f-port", "5"]] {
            let refused = ran(&more);
            let stderr = text(&refused.stderr);
            assert!(refused.status.code() == Some(2) && stderr.contains(told) && stderr.contains(more[0]), "{refused:?}");
        }
    }
}

/// Templates without a payload, and those whose event is the payload.
#[test]
fn events_of_every_kind_can_be_tried() {
    let (root, dir) = new_template();
    let payload = root.path().join("payload");
    let ran = |bytes: &[u8]| {
        std::fs::write(&payload, bytes).unwrap();
        tidegate(&["template", "run", arg(&dir), "--payload", arg(&payload), "--json"])
    };
    edit(&dir.join("template.toml"), "at = \"/payload\"\nencoding = \"hex\"\nf_port = \"/port\"", "encoding = \"none\"");
    let raw = json(&ran(b"\x09\x29\x50\x0c\x1c"));
    assert_eq!((&raw["event"], &raw["rows"][0]["temperature"]), (&"0929500c1c".into(), &23.45.into()));
    // An object is an event of a source of JSON, and its text is the payload: the stages after decode see both.
    std::fs::write(dir.join("transform.luau"), "function transform(event)\n  return { temperature = event.t }\nend\n").unwrap();
    edit(&dir.join("decode.luau"), "~= 5", "~= 8");
    let object = json(&ran(b"{\"t\":21}"));
    assert_eq!((&object["event"], &object["rows"][0]["temperature"]), (&"{\"t\":21}".into(), &21.0.into()), "{object}");
    std::fs::remove_file(dir.join("transform.luau")).unwrap();
    std::fs::remove_file(dir.join("decode.luau")).unwrap();
    edit(&dir.join("template.toml"), "[payload]\nencoding = \"none\"", "");
    let plain = json(&ran(b"{\"temperature\":1}"));
    assert_eq!((&plain["decoded"], &plain["rows"][0]["temperature"]), (&Value::Null, &1.0.into()));
    let broken = ran(b"{\"temperature\":");
    assert_eq!(broken.status.code(), Some(2), "{broken:?}");
    let large = ran(&vec![b' '; 600_000]);
    assert!(text(&large.stderr).contains("an event of 600000 bytes, above 524288"), "{large:?}");
    let (root, dir) = new_template();
    let payload = root.path().join("payload");
    std::fs::write(&payload, "0x09 29 50 0c 1c\n").unwrap();
    let ran = |port: &str| tidegate(&["template", "run", arg(&dir), "--payload", arg(&payload), "--f-port", port, "--json"]);
    assert_eq!(json(&ran("2"))["rows"][0]["temperature"], 23.45);
    assert!(text(&ran("999").stderr).contains("999 is not in 0..=255"));
    for (bytes, told) in [
        ("0929500c1", "it has 9 hex digits, and two make a byte"),
        ("{\"payload\": \"0929\",}", "begins like a JSON object"),
        ("[9, 41]", "write the device's bytes as hex digits"),
    ] {
        std::fs::write(&payload, bytes).unwrap();
        let refused = tidegate(&["template", "run", arg(&dir), "--payload", arg(&payload)]);
        assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains(told), "{refused:?}");
    }
}

#[test]
fn a_template_is_measured() {
    let (_root, dir) = new_template();
    let measured = json(&tidegate(&["template", "bench", arg(&dir), "--events", "3000", "--json"]));
    let tests = measured["tests"].as_array().unwrap();
    let ends: Vec<&str> = tests.iter().map(|t| t["cost"]["end"].as_str().unwrap()).collect();
    assert_eq!(ends, ["rows", "rejected"]);
    for test in tests {
        let steps = test["cost"]["steps"].as_u64().unwrap();
        assert!((2..100).contains(&steps) && test["cost"]["nanoseconds"].is_u64() && test["cost"]["events"] == 3000, "{test}");
        // What is measured is what is run.
        let file = dir.join(test["file"].as_str().unwrap());
        assert_eq!(json(&tidegate(&["template", "run", arg(&dir), "--payload", arg(&file), "--json"]))["steps"], steps);
    }
    let people = text(&tidegate(&["template", "bench", arg(&dir), "--events", "10"]).stdout);
    assert!(people.contains("rows      tests/reading.json  a reading"), "{people}");
    std::fs::remove_dir_all(dir.join("tests")).unwrap();
    expect![[r#"
        tidegate: there is nothing to measure; add a test: DIR/tests/NAME.json
        exit 2"#]]
    .assert_eq(&said(&dir, &["template", "bench", arg(&dir)]));
}
