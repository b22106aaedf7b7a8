//! `tidegate template` as authors meet it: what it prints, and how it exits.

mod check;
mod record;
mod run;

use crate::tools::{arg, json, text, tidegate};
use expect_test::expect;
use std::path::Path;

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
