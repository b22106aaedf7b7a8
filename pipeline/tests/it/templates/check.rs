//! What is wrong with a template, or hardly meant, and how it is told.

use super::{edit, new_template, said};
use crate::tools::{arg, json, text, tidegate};
use expect_test::expect;

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
    let (root, dir) = new_template();
    edit(&dir.join("decode.luau"), "humidity =", "humidty =");
    let rules = "[[validate]]\nat = \"/prot\"\ntype = \"i64\"\n\n[[validate]]\nat = \"/decoded/battery\"\nmin = 0\n\n\
                 [[validate]]\nat = \"/decoded/nowhere/x\"\nmin = 0\n\n";
    edit(&dir.join("template.toml"), "# Each field", &format!("{rules}# Each field"));
    assert!(tidegate(&["template", "test", arg(&dir), "--update"]).status.success());
    expect![[r#"
        warning: DIR/decode.luau:10: field `humidty` is not declared and is left out; did you mean `humidity`?
        warning: DIR/template.toml: [[validate]]: at = "/decoded/nowhere/x" is in no test's event
        warning: DIR/template.toml: [[validate]]: at = "/prot" is in no test's event; did you mean /port?
        warning: DIR/template.toml: field `humidity` has a value in no test's row: is it misspelt in a script, or is a test missing?
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
        [
            "DIR/template.toml: field `battery` has a value in no test's row: is it misspelt in a script, or is a test missing?",
            "DIR/template.toml: field `humidity` has a value in no test's row: is it misspelt in a script, or is a test missing?",
            "DIR/transform.luau:3: field `humidty` is not declared and goes to attributes; did you mean `humidity`?"
        ],
        "{warnings:?}"
    );
    // A whole folder is warned of as its templates are.
    std::fs::write(root.path().join("organizations.toml"), "[[organization]]\nid = \"vend\"\nkind = \"vendor\"\nname = \"V\"\n").unwrap();
    let whole = json(&tidegate(&["check", "--definitions", arg(root.path()), "--json"]));
    assert_eq!(whole["warnings"], checked["warnings"]);
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
