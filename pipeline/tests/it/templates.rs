//! `tidegate template` as authors meet it: what it prints, and how it exits.

use crate::support::{Options, Place};
use crate::tools::{arg, json, text, tidegate};
use expect_test::expect;
use serde_json::Value;
use std::path::Path;
use std::process::Output;

/// A new template in a folder of definitions, where its owner is known.
fn new_template() -> (tempfile::TempDir, std::path::PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("templates/vend/probe");
    std::fs::create_dir_all(dir.parent().unwrap()).unwrap();
    assert!(tidegate(&["template", "new", arg(&dir)]).status.success());
    (root, dir)
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from} is not in {}", file.display());
    std::fs::write(file, text.replacen(from, to, 1)).unwrap();
}

/// What a command says to people, and how it exits; the folder is DIR.
fn said(dir: &Path, arguments: &[&str]) -> String {
    let output = tidegate(arguments);
    let all = format!("{}{}exit {}", text(&output.stdout), text(&output.stderr), output.status.code().unwrap());
    all.replace(arg(dir), "DIR")
}

#[test]
fn a_new_template_is_sound_and_its_tests_pass() {
    let (root, dir) = new_template();
    expect![[r#"
        template ok; 2 tests passed
        exit 0"#]]
    .assert_eq(&said(&dir, &["template", "check", arg(&dir)]));
    expect![[r#"
        ok       tests/reading.json  a reading
        ok       tests/short.json  a byte is missing
        2 tests, 0 differ
        exit 0"#]]
    .assert_eq(&said(&dir, &["template", "test", arg(&dir)]));
    let checked = json(&tidegate(&["template", "check", arg(&dir), "--json"]));
    assert_eq!(checked, serde_json::json!({ "template": "ok", "tests": 2, "warnings": [] }));
    // What was written is what --update would write.
    let before = std::fs::read_to_string(dir.join("tests/reading.json")).unwrap();
    std::fs::write(dir.join("tests/reading.json"), before.replace("40", "41")).unwrap();
    assert!(tidegate(&["template", "test", arg(&dir), "--update"]).status.success());
    assert_eq!(std::fs::read_to_string(dir.join("tests/reading.json")).unwrap(), before);
    // It has its place in a folder of definitions.
    std::fs::write(root.path().join("organizations.toml"), "[[organization]]\nid = \"vend\"\nkind = \"vendor\"\nname = \"V\"\n").unwrap();
    let whole = json(&tidegate(&["check", "--definitions", arg(root.path()), "--json"]));
    assert_eq!((&whole["definitions"], &whole["tests"]), (&3.into(), &2.into()));
    // Nothing is written over, and a name that is no id is refused.
    expect![[r#"
        tidegate: DIR is there already; name a folder that is not
        exit 2"#]]
    .assert_eq(&said(&dir, &["template", "new", arg(&dir)]));
    let odd = root.path().join("a b");
    expect![[r#"
        tidegate: "a b" cannot be a template's id; name a folder with 1 to 64 characters of a-z, A-Z, 0-9, '-', '_' and '.'
        exit 2"#]]
    .assert_eq(&said(root.path(), &["template", "new", arg(&odd)]));
    assert!(!odd.exists());
}

#[test]
fn faults_of_a_template_have_their_places() {
    let (_root, dir) = new_template();
    edit(&dir.join("decode.luau"), "function decode(input)", "function decode(input");
    edit(&dir.join("template.toml"), "\"Cel\"", "\"grad C\"");
    let told = said(&dir, &["template", "check", arg(&dir)]);
    expect![[r#"
        DIR/template.toml:13:1: unit of field temperature is no UCUM code; write it like "Cel", "%", "V" or "[ppm]", or leave it out
        exit 1"#]]
    .assert_eq(&told);
    assert_eq!((said(&dir, &["template", "test", arg(&dir)]), said(&dir, &["template", "bench", arg(&dir)])), (told.clone(), told));
    edit(&dir.join("template.toml"), "\"grad C\"", "\"Cel\"");
    expect![[r#"
        DIR/decode.luau:3:1: Expected ')' (to close '(' at line 2), got 'local'; correct it
        exit 1"#]]
    .assert_eq(&said(&dir, &["template", "check", arg(&dir)]));
    let machine = tidegate(&["template", "check", arg(&dir), "--json"]);
    assert_eq!(json(&machine)["faults"].as_array().unwrap().len(), 1);
    std::fs::remove_file(dir.join("template.toml")).unwrap();
    expect![[r#"
        DIR/template.toml: file is missing; name the folder of a template; tidegate template new DIR makes one
        exit 1"#]]
    .assert_eq(&said(&dir, &["template", "test", arg(&dir)]));
    expect![[r#"
        DIR/nowhere: there is no such folder; name one that is there
        exit 1"#]]
    .assert_eq(&said(&dir, &["template", "test", arg(&dir.join("nowhere"))]));
}

#[test]
fn scripts_that_take_long_are_stopped_wherever_they_are_tried() {
    let (_root, dir) = new_template();
    edit(&dir.join("template.toml"), "[payload]", "[limits]\nsteps = 1_000_000\nmemory_bytes = 4_194_304\n\n[payload]");
    // Few steps that take long: each copies a large string.
    let drag = "local s = string.rep('x', 20000) for i = 1, 300000 do local t = s .. i end\n";
    edit(&dir.join("decode.luau"), "function decode(input)\n", &format!("function decode(input)\n{drag}"));
    let tested = said(&dir, &["template", "test", arg(&dir)]);
    assert!(tested.contains("timed_out") && tested.ends_with("exit 1"), "{tested}");
    let payload = dir.join("tests/reading.json");
    let ran = json(&tidegate(&["template", "run", arg(&dir), "--payload", arg(&payload), "--json"]));
    assert_eq!(ran["end"], "rejected", "{ran}");
    // Twenty thousand of these would take hours.
    let measured = json(&tidegate(&["template", "bench", arg(&dir), "--json"]));
    assert!(
        measured["tests"].as_array().unwrap().iter().all(|t| (1..1_000).contains(&t["cost"]["events"].as_u64().unwrap())),
        "{measured}"
    );
    let text = std::fs::read_to_string(dir.join("decode.luau")).unwrap();
    std::fs::write(dir.join("decode.luau"), format!("{drag}{}", text.replace(drag, ""))).unwrap();
    let checked = said(&dir, &["template", "check", arg(&dir)]);
    assert!(checked.contains("its top level ends with timed_out"), "{checked}");
}

#[test]
fn what_is_hardly_meant_is_warned_of_and_fails_nothing() {
    let (_root, dir) = new_template();
    edit(&dir.join("decode.luau"), "humidity =", "humidty =");
    let rules = "[[validate]]\nat = \"/prot\"\ntype = \"i64\"\n\n[[validate]]\nat = \"/decoded/battery\"\nmin = 0\n\n\
                 [[validate]]\nat = \"/decoded/nowhere/x\"\nmin = 0\n\n";
    edit(&dir.join("template.toml"), "# Each field", &format!("{rules}# Each field"));
    assert!(tidegate(&["template", "test", arg(&dir), "--update"]).status.success());
    expect![[r#"
        warning: DIR/decode.luau:10: field `humidty` is not declared and is left out; did you mean `humidity`?
        warning: DIR/template.toml: [[validate]]: at = "/decoded/nowhere/x" is in no test's event
        warning: DIR/template.toml: [[validate]]: at = "/prot" is in no test's event; did you mean /port?
        template ok; 2 tests passed
        exit 0"#]]
    .assert_eq(&said(&dir, &["template", "check", arg(&dir)]));
    let tested = said(&dir, &["template", "test", arg(&dir)]);
    assert!(tested.contains("did you mean `humidity`?") && tested.ends_with("2 tests, 0 differ\nexit 0"), "{tested}");
    // What a script of rows gives beside the fields becomes an attribute; one that has a neighbour with a value is meant so.
    std::fs::write(
        dir.join("transform.luau"),
        "function transform(event)\n  local d = event.decoded\n  return { temperature = d.temperature, humidty = d.humidty, temperatur = 1 }\nend\n",
    )
    .unwrap();
    assert!(tidegate(&["template", "test", arg(&dir), "--update"]).status.success());
    let checked = json(&tidegate(&["template", "check", arg(&dir), "--json"]));
    let warnings: Vec<String> =
        checked["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap().replace(arg(&dir), "DIR")).collect();
    assert_eq!(
        warnings[2..],
        ["DIR/transform.luau:3: field `humidty` is not declared and goes to attributes; did you mean `humidity`?"],
        "{warnings:?}"
    );
    std::fs::remove_dir_all(dir.join("tests")).unwrap();
    expect![[r#"
        warning: DIR/template.toml: the template has no tests: write one into tests, or let `tidegate template record` do so from recorded traffic
        template ok; 0 tests passed
        exit 0"#]]
    .assert_eq(&said(&dir, &["template", "check", arg(&dir)]));
}

#[test]
fn long_values_are_cut_for_people() {
    let (root, dir) = new_template();
    edit(&dir.join("decode.luau"), "    data = {", "    data = { note = string.rep('ab', 5_000),");
    std::fs::write(dir.join("transform.luau"), "function transform(event)\n  return event.decoded\nend\n").unwrap();
    let payload = root.path().join("payload");
    std::fs::write(&payload, format!("{{\"payload\":\"0929500c1c\",\"more\":\"{}\"}}", "m".repeat(9_000))).unwrap();
    let run = ["template", "run", arg(&dir), "--payload", arg(&payload)];
    let people = text(&tidegate(&run).stdout);
    assert!(people.contains("ab… (10000 bytes)\"") && people.lines().all(|line| line.len() < 500), "{people}");
    let traced = json(&tidegate(&[&run[..], &["--json"]].concat()));
    assert_eq!(traced["rows"][0]["attributes"]["note"].as_str().unwrap().len(), 10_000);
    let tested = said(&dir, &["template", "test", arg(&dir)]);
    assert!(tested.contains("decoded/note is \"abab") && tested.lines().all(|line| line.len() < 600), "{tested}");
    // What is written into a test is whole.
    assert!(tidegate(&["template", "test", arg(&dir), "--update"]).status.success());
    assert!(std::fs::read_to_string(dir.join("tests/reading.json")).unwrap().len() > 10_000);
}

#[test]
fn what_a_script_spends_too_much_of_has_its_line() {
    let (root, dir) = new_template();
    let payload = root.path().join("payload");
    std::fs::write(&payload, "0929500c1c").unwrap();
    let script = std::fs::read_to_string(dir.join("decode.luau")).unwrap();
    let refused = |edits: &[(&str, &str)]| {
        std::fs::write(dir.join("decode.luau"), edits.iter().fold(script.clone(), |text, (from, to)| text.replacen(from, to, 1))).unwrap();
        let all = said(&dir, &["template", "run", arg(&dir), "--payload", arg(&payload)]);
        let tested = said(&dir, &["template", "test", arg(&dir)]);
        let told = all.lines().find_map(|line| line.trim().strip_prefix("REJECTED ")).unwrap_or(&all);
        (told.to_owned(), tested)
    };
    let begin = "function decode(input)\n";
    let (told, tested) =
        refused(&[(begin, "function decode(input)\n  local n = 0\n  while true do\n    n = math.max(n, tonumber(n) + 1)\n  end\n")]);
    assert_eq!(told, "steps_exhausted: more than 10000 steps over the event's stages (decode.luau:4)");
    assert!(tested.contains("expected 1 row (decode.luau:4)"), "{tested}");
    // Where a script catches what cannot be caught, and where the library spends it.
    let (told, _) =
        refused(&[(begin, "function decode(input)\n  pcall(function()\n    for i = 1, 1e9 do\n      tide.len('')\n    end\n  end)\n")]);
    assert!(told.starts_with("steps_exhausted") && told.contains("(decode.luau:"), "{told}");
    let (told, _) = refused(&[(begin, "function decode(input)\n\n  table.move({}, 1, 1e14, 2)\n")]);
    assert_eq!(told, "steps_exhausted: more than 10000 steps over the event's stages (decode.luau:4)");
    // A result has the place at which it had no room left.
    std::fs::write(
        dir.join("transform.luau"),
        "function transform(event)\n  return {\n    temperature = 1, list = { 1, string.rep('x', 70000) } }\nend\n",
    )
    .unwrap();
    let (told, _) = refused(&[]);
    assert_eq!(told, "output_too_large at /list/1: the event's result has more bytes than limits.result_bytes allows (transform.luau:3)");
    let (told, _) = refused(&[(begin, "while true do\nend\nfunction decode(input)\n")]);
    assert!(told.contains("DIR/decode.luau:2:1: its top level ends with steps_exhausted"), "{told}");
}

#[test]
fn tests_that_differ_are_shown_with_the_scripts_line_and_can_be_updated() {
    let (_root, dir) = new_template();
    edit(&dir.join("decode.luau"), "/ 100,", "/ 10,");
    edit(&dir.join("decode.luau"), "humidity = tide.read.u8(p, 2) / 2,", "humidity = tide.read.u8(p, 2) / 2, seq = 7,");
    let differs = &said(&dir, &["template", "test", arg(&dir)]);
    expect![[r#"
        DIFFERS  tests/reading.json  a reading
                 decoded/seq is 7, expected null (decode.luau:10)
                 decoded/temperature is 234.5, expected 23.45 (decode.luau:9)
                 rejection out_of_range at transform at /temperature (temperature is 234.5, above 85), expected 1 row (decode.luau:9)
        ok       tests/short.json  a byte is missing
        2 tests, 1 differ
        exit 1"#]]
    .assert_eq(differs);
    expect![[r#"
        DIR/tests/reading.json: test "a reading": decoded/seq is 7, expected null (decode.luau:10); correct the template, or what the test expects
        DIR/tests/reading.json: test "a reading": decoded/temperature is 234.5, expected 23.45 (decode.luau:9); correct the template, or what the test expects
        DIR/tests/reading.json: test "a reading": rejection out_of_range at transform at /temperature (temperature is 234.5, above 85), expected 1 row (decode.luau:9); correct the template, or what the test expects
        exit 1"#]].assert_eq(&said(&dir, &["template", "check", arg(&dir)]));
    // The rejection names the line that raised.
    edit(&dir.join("decode.luau"), "/ 10,", "/ 100,");
    edit(&dir.join("decode.luau"), "~= 5", "< 4");
    expect![[r#"
        DIFFERS  tests/reading.json  a reading
                 decoded/seq is 7, expected null (decode.luau:10)
        DIFFERS  tests/short.json  a byte is missing
                 rejection script_error at decode (2 bytes at 3 are outside of the 4 that there are), expected rejection decode_failed at decode (decode.luau:11)
        2 tests, 2 differ
        exit 1"#]].assert_eq(&said(&dir, &["template", "test", arg(&dir)]));
    let machine = tidegate(&["template", "test", arg(&dir), "--json"]);
    let told = json(&machine);
    assert_eq!((machine.status.code(), &told["failed"]), (Some(1), &2.into()), "{told}");
    assert_eq!(told["tests"][1]["differences"].as_array().unwrap().len(), 1);
    // A new test gets all that can be said; one that passes is left as it is written; a broken one is told.
    edit(&dir.join("decode.luau"), "< 4", "~= 5");
    let new = dir.join("tests/new.json");
    std::fs::write(
        &new,
        "{\"description\":\"new\",\"bytes_hex\":\"ff9c320bb8\",\"event\":{\"a\" :  1},\"received_at\":\"2026-01-01T00:00:00Z\"}",
    )
    .unwrap();
    let kept = std::fs::read_to_string(dir.join("tests/short.json")).unwrap().replace("  ", "\t");
    std::fs::write(dir.join("tests/short.json"), &kept).unwrap();
    std::fs::write(dir.join("tests/bad.json"), "{\"description\": 1}").unwrap();
    expect![[r#"
        DIFFERS  tests/bad.json
                 DIR/tests/bad.json:1:17: invalid type: integer `1`, expected a string; see the form of tests: tidegate manual definitions
        updated  tests/new.json
        updated  tests/reading.json  a reading
                 decoded/seq is 7, expected null (decode.luau:10)
        ok       tests/short.json  a byte is missing
        4 tests, 1 differ
        exit 1"#]]
    .assert_eq(&said(&dir, &["template", "test", arg(&dir), "--update"]));
    expect![[r#"
        {
          "description": "new",
          "bytes_hex": "ff9c320bb8",
          "event": {"a" :  1},
          "received_at": "2026-01-01T00:00:00Z",
          "decoded": { "battery": 3, "humidity": 25, "seq": 7, "temperature": -1 },
          "rows": [
            { "battery": 3.0, "event_type": "probe", "humidity": 25.0, "occurred_at": "2026-01-01T00:00:00Z", "temperature": -1.0 }
          ]
        }
    "#]]
    .assert_eq(&std::fs::read_to_string(&new).unwrap());
    expect![[r#"
        {
          "description": "a reading",
          "bytes_hex": "0929500c1c",
          "fPort": 1,
          "decoded": { "battery": 3.1, "humidity": 40, "seq": 7, "temperature": 23.45 },
          "rows": [
            { "battery": 3.1, "humidity": 40.0, "temperature": 23.45 }
          ]
        }
    "#]]
    .assert_eq(&std::fs::read_to_string(dir.join("tests/reading.json")).unwrap());
    assert_eq!(std::fs::read_to_string(dir.join("tests/short.json")).unwrap(), kept);
    assert_eq!(std::fs::read_to_string(dir.join("tests/bad.json")).unwrap(), "{\"description\": 1}");
    std::fs::remove_file(dir.join("tests/bad.json")).unwrap();
    assert!(tidegate(&["template", "test", arg(&dir)]).status.success());
}

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
        let refused = ran(&["--event", "{}"]);
        assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains(told), "{refused:?}");
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
