//! Every kind of mistake in a folder, with its message: file, line, column, what is wrong, and what mends it.

use super::{TEMPLATE, base};
use expect_test::{Expect, expect};
use tidegate_pipeline::definitions::check;
use tidegate_pipeline::definitions::folder::Files;

/// The base folder with some files replaced, added (or removed, where the text is empty).
fn check(replaced: &[(&str, &str)], message: Expect) {
    let mut files: Files = base();
    for (path, text) in replaced {
        if text.is_empty() {
            assert!(files.remove(*path).is_some(), "{path} is not in the base folder");
        } else {
            files.insert((*path).to_owned(), (*text).to_owned());
        }
    }
    let text = match check::check_files(&files) {
        Ok(checked) => format!("ok, {} tests", checked.tests),
        Err(faults) => faults.to_string(),
    };
    message.assert_eq(&text);
}

const TOML: &str = "templates/vend/t1/template.toml";
const TEST: &str = "templates/vend/t1/tests/one.json";

fn template(change: impl Fn(&str) -> String) -> String {
    change(TEMPLATE)
}

#[test]
fn a_sound_folder() {
    check(&[], expect!["ok, 1 tests"]);
}

#[test]
fn files_without_a_place() {
    check(
        &[("source.toml", "#"), ("templates/vend/readme.txt", "x"), ("templates/vend/t1/rules.luau", "x")],
        expect![[r#"
            source.toml: this file has no place in a folder of definitions; move it, or see the layout: tidegate manual definitions (files *.md and those whose name begins with a dot are ignored)
            templates/vend/readme.txt: this file has no place in a folder of definitions; move it, or see the layout: tidegate manual definitions (files *.md and those whose name begins with a dot are ignored)
            templates/vend/t1/rules.luau: this file has no place in a folder of definitions; move it, or see the layout: tidegate manual definitions (files *.md and those whose name begins with a dot are ignored)"#]],
    );
    check(&[(TOML, "")], expect!["templates/vend/t1/template.toml: file is missing; add it, or remove the folder of the template"]);
}

#[test]
fn wrong_toml() {
    check(
        &[("assets.toml", "[[asset]]\nid = \"a\nnode = 3\n")],
        expect![[r#"assets.toml:2:8: invalid basic string, expected `"`; correct it"#]],
    );
    check(
        &[("assets.toml", "[[assets]]\nid = \"a\"\n")],
        expect![[r#"assets.toml:1:3: unknown key "assets"; every entry of this file is headed [[asset]]"#]],
    );
    check(
        &[("assets.toml", "asset = 3\n")],
        expect!["assets.toml:1:9: an array of tables is wanted here; head each entry with its name in [[ ]]"],
    );
    check(
        &[(
            "assets.toml",
            "[[asset]]\nid = \"a\"\n\n[[asset]]\nid = \"b\"\nnode = \"no node\"\n\n[[asset]]\nid = \"c\"\nnode = \"cust\"\ncolour = 1\n",
        )],
        expect![[r#"
            assets.toml:1:1: missing field `node`; add it
            assets.toml:6:8: "no node" is no identifier: 1 to 64 characters of a-z, A-Z, 0-9, '-', '_' and '.', the first a letter or digit; correct it
            assets.toml:11:1: unknown field `colour`, expected one of `id`, `node`, `template`, `attributes`; correct its name, or remove it"#]],
    );
}

#[test]
fn entries_that_cannot_be() {
    check(
        &[(
            "assets.toml",
            "[[asset]]\nid = \"\"\nnode = \"cust\"\n\n[[asset]]\nid = \"a\"\nnode = \"cust\"\n\n[[asset]]\nid = \"a\"\nnode = \"cust\"\n",
        )],
        expect![[r#"
            assets.toml:2:6: asset id of 0 bytes; an asset's id has 1 to 128 bytes
            assets.toml:10:6: asset a stands at assets.toml:6:6 too; remove one of them, or rename it"#]],
    );
    let source = "[[source]]\nid = \"src\"\nnode = \"cust\"\nmeta = [\"X-Up\"]\nasset = { pointer = \"device\" }\nevent_id = { pointer = \"/a~2\" }\n";
    check(
        &[("sources.toml", source)],
        expect![[r#"
        sources.toml:2:6: "/a~2" is no JSON pointer; write it like "/data/temperature"; "" is the whole, ~1 is /, ~0 is ~
        sources.toml:2:6: "device" is no JSON pointer; write it like "/data/temperature"; "" is the whole, ~1 is /, ~0 is ~
        sources.toml:2:6: meta "X-Up" is no header name in lower case; write it like "x-gateway""#]],
    );
    let key = "[[key]]\nid = \"k-1\"\ntenant = \"cust\"\nsource = \"src\"\nsha256 = \"ab\"\n";
    check(
        &[("keys.toml", key)],
        expect!["keys.toml:2:6: key k-1: a key has an id of letters and digits, and the SHA-256 of its secret in hex; correct it"],
    );
    let key =
        format!("[[key]]\nid = \"k1\"\ntenant = \"cust\"\nsource = \"src\"\nsha256 = \"{}\"\nexpires_at = \"soon\"\n", "ab".repeat(32));
    check(
        &[("keys.toml", &key)],
        expect![[r#"keys.toml:2:6: expires_at "soon" is no RFC 3339 time; write it like "2027-01-31T00:00:00Z""#]],
    );
}

#[test]
fn references_that_lead_nowhere() {
    let source = |more: &str| format!("[[source]]\nid = \"src\"\n{more}\n");
    check(
        &[("sources.toml", &source("node = \"cust\"\ntemplate = \"t9\"\nasset = { pointer = \"/d\" }"))],
        expect!["sources.toml:2:6: source src refers to template t9, which is not there; define it, or correct the name"],
    );
    // One that is there for others says where.
    let other = format!("{}\n[[organization]]\nid = \"other\"\nkind = \"vendor\"\nname = \"O\"\n", base()["organizations.toml"]);
    let theirs = base()["templates/vend/t1/template.toml"].replace("id = \"t1\"", "id = \"t9\"");
    check(
        &[
            ("organizations.toml", &other),
            ("templates/other/t9/template.toml", &theirs),
            ("sources.toml", &source("node = \"cust\"\ntemplate = \"t9\"\nasset = { pointer = \"/d\" }")),
        ],
        expect![[
            "sources.toml:2:6: source src names template t9, which is not there for cust: it stands below templates/other, and cust finds those below templates/cust, templates/vend; put its folder where it is found, or name one that is there"
        ]],
    );
    check(
        &[("sources.toml", &source("node = \"vend\"\nasset = { pointer = \"/d\" }"))],
        expect!["sources.toml:2:6: source src: a source belongs to a customer or a node below one; correct it"],
    );
    check(
        &[("sources.toml", &source("node = \"cust\"\nasset = \"credential\""))],
        expect![[
            r#"keys.toml:2:6: key k1 is not bound to one asset, and source src takes the asset from the credential; give the key assets = ["…"] with one id, or the source another place"#
        ]],
    );
    let lost = "[[organization]]\nid = \"cust\"\nkind = \"customer\"\nname = \"C\"\nparent = \"gone\"\n";
    check(
        &[("organizations.toml", lost)],
        expect![[r#"
        organizations.toml:2:6: organization cust refers to organization gone, which is not there; define it, or correct the name
        templates/vend: table Climate refers to organization vend, which is not there; define it, or correct the name
        templates/vend/t1/template.toml: template t1 refers to organization vend, which is not there; define it, or correct the name"#]],
    );
    let node =
        |id: &str, parent: &str| format!("[[organization]]\nid = \"{id}\"\nkind = \"site\"\nname = \"N\"\nparent = \"{parent}\"\n\n");
    let nodes = [node("b", "c"), node("c", "a"), node("a", "b"), node("below", "c"), node("self", "self")];
    let vendor = &base()["organizations.toml"];
    check(
        &[("organizations.toml", &format!("{vendor}\n{}", nodes.concat()))],
        expect![[r#"
        organizations.toml:25:6: organizations stand in a circle: a below b below c below a; give one of them a parent outside the circle; a vendor has none
        organizations.toml:37:6: organizations stand in a circle: self below self; give one of them a parent outside the circle; a vendor has none"#]],
    );
    let circle = "[[organization]]\nid = \"cust\"\nkind = \"site\"\nname = \"C\"\nparent = \"vend\"\n\n\
                  [[organization]]\nid = \"vend\"\nkind = \"site\"\nname = \"V\"\nparent = \"cust\"\n";
    check(
        &[("organizations.toml", circle)],
        expect![
            "organizations.toml:2:6: organizations stand in a circle: cust below vend below cust; give one of them a parent outside the circle; a vendor has none"
        ],
    );
}

#[test]
fn templates_that_cannot_be() {
    check(
        &[(TOML, &template(|t| t.replace("id = \"t1\"", "id = \"t2\"")))],
        expect![[r#"templates/vend/t1/template.toml:1:6: id is "t2", and the folder is "t1"; give both the same name"#]],
    );
    check(
        &[(TOML, &template(|t| t.replace("Climate", "my climate")))],
        expect![[
            r#"templates/vend/t1/template.toml:3:9: "my climate-99d8" is no identifier: 1 to 64 characters of a-z, A-Z, 0-9, '-', '_' and '.', the first a letter or digit; name it with letters, digits, '-' and '_', at most 59 of them"#
        ]],
    );
    check(
        &[(TOML, &template(|t| t.replace("form = \"json\"", "form = \"xml\"")))],
        expect!["templates/vend/t1/template.toml:6:8: unknown variant `xml`, expected `json`; correct it"],
    );
    check(
        &[(TOML, &template(|t| format!("{t}\n[limits]\nsteps = 2_000_000\n")))],
        expect!["templates/vend/t1/template.toml: limits.steps is 2000000; it is 1 to 1000000"],
    );
    check(
        &[(TOML, &template(|t| format!("{t}min = 5\nmax = 1\n")))],
        expect!["templates/vend/t1/template.toml:8:1: min 5 is above max 1; exchange them"],
    );
    check(
        &[(TOML, &template(|t| t.replace("\"Cel\"", "\"grad C\"")))],
        expect![[
            r#"templates/vend/t1/template.toml:8:1: unit of field temperature is no UCUM code; write it like "Cel", "%", "V" or "[ppm]", or leave it out"#
        ]],
    );
    // Not a list of UCUM codes is kept, only their form: empty, long, with a control character, not of ASCII.
    for unit in ["", &"x".repeat(33), "C\\u0007", "\u{b0}C"] {
        check(
            &[(TOML, &template(|t| t.replace("\"Cel\"", &format!("\"{unit}\""))))],
            expect![[
                r#"templates/vend/t1/template.toml:8:1: unit of field temperature is no UCUM code; write it like "Cel", "%", "V" or "[ppm]", or leave it out"#
            ]],
        );
    }
    check(
        &[(TOML, &template(|t| t.replace("name = \"temperature\"", "name = \"tenant\"")))],
        expect![[
            r#"templates/vend/t1/template.toml:8:1: field name "tenant" is reserved; rename the field, or use another table than "Climate""#
        ]],
    );
    check(
        &[(TOML, &template(|t| format!("{t}\n[[fields]]\nname = \"Temperature\"\ntype = \"f64\"\n")))],
        expect![[r#"templates/vend/t1/template.toml:13:1: field "Temperature" occurs twice; remove one of them, or rename it"#]],
    );
    check(
        &[(TOML, &template(|t| format!("{t}\n[[fields]]\nname = \"x\"\ntype = \"decimal\"\n\n[[fields]]\nname = \"y\"\n")))],
        expect![[r#"
            templates/vend/t1/template.toml:15:8: unknown variant `decimal`, expected one of `bool`, `i64`, `f64`, `text`, `timestamp`, `json`; correct it
            templates/vend/t1/template.toml:17:1: missing field `type`; add it"#]],
    );
    check(
        &[(TOML, &template(|t| format!("{t}\n[[transform]]\nfield = \"x\"\nfrom = \"/x\"\n")))],
        expect![
            "templates/vend/t1/transform.luau: stage transform is given twice: as transform.luau and in templates/vend/t1/template.toml; remove one of them"
        ],
    );
    check(
        &[("templates/vend/t1/transform.luau", ""), (TOML, &template(|t| format!("{t}\n[[transform]]\nfield = \"x\"\n")))],
        expect![
            "templates/vend/t1/template.toml:13:1: field x has both a place and a constant, or neither; give it either from or constant"
        ],
    );
    let long = "-".repeat(70_000);
    check(
        &[("templates/vend/t1/transform.luau", &long)],
        expect!["templates/vend/t1/transform.luau: script of 70000 bytes; a stage has at most 65536 bytes"],
    );
}

/// What would refuse every event, or nothing at all, is found before an event comes.
#[test]
fn templates_that_could_never_work() {
    let field = |kind: &str, more: &str| format!("{TEMPLATE}\n[[fields]]\nname = \"f\"\ntype = \"{kind}\"\n{more}\n");
    let fields: String = ["bool", "text", "timestamp", "json"]
        .map(|kind| field(kind, "min = 1").replace(TEMPLATE, "").replace("\"f\"", &format!("\"{kind}\"")))
        .concat();
    check(
        &[(TOML, &format!("{TEMPLATE}{fields}"))],
        expect![[r#"
        templates/vend/t1/template.toml:13:1: field bool is no number (type bool), and has min or max; remove them: bounds are for i64 and f64
        templates/vend/t1/template.toml:18:1: field text is no number (type text), and has min or max; remove them: bounds are for i64 and f64
        templates/vend/t1/template.toml:23:1: field timestamp is no number (type timestamp), and has min or max; remove them: bounds are for i64 and f64
        templates/vend/t1/template.toml:28:1: field json is no number (type json), and has min or max; remove them: bounds are for i64 and f64"#]],
    );
    let rules =
        |rules: &[&str]| format!("{TEMPLATE}\n{}", rules.iter().map(|r| format!("[[validate]]\nat = \"/f\"\n{r}\n")).collect::<String>());
    check(
        &[(
            TOML,
            &rules(&[
                "type = \"text\"\nmax = 1",
                "type = \"bool\"\nmin = 1",
                "type = \"f64\"\none_of = [\"1\"]",
                "type = \"i64\"\npattern = \"1\"",
                "type = \"bool\"\none_of = [\"true\"]",
            ]),
        )],
        expect![[r#"
            templates/vend/t1/template.toml:13:1: the rule for "/f" wants type text, and has min or max; no value can be both: correct the type, or remove them
            templates/vend/t1/template.toml:17:1: the rule for "/f" wants type bool, and has min or max; no value can be both: correct the type, or remove them
            templates/vend/t1/template.toml:21:1: the rule for "/f" wants type f64, and has one_of or pattern; no value can be both: correct the type, or remove them
            templates/vend/t1/template.toml:25:1: the rule for "/f" wants type i64, and has one_of or pattern; no value can be both: correct the type, or remove them
            templates/vend/t1/template.toml:29:1: the rule for "/f" wants type bool, and has one_of or pattern; no value can be both: correct the type, or remove them"#]],
    );
    check(
        &[(
            TOML,
            &rules(&[
                "type = \"i64\"\nmax = 1",
                "type = \"timestamp\"\nmin = 1\npattern = \"Z$\"",
                "type = \"json\"\none_of = [\"1\"]\nmin = 0",
                "max = 1",
            ]),
        )],
        expect!["ok, 1 tests"],
    );
    let mapped = |kind: &str, more: &str, mappings: &[&str]| {
        let mappings: String = mappings.iter().map(|m| format!("\n[[transform]]\n{m}\n")).collect();
        format!("{}{mappings}", field(kind, more))
    };
    let check_mapping = |kind: &str, more: &str, mappings: &[&str], message: Expect| {
        check(&[("templates/vend/t1/transform.luau", ""), (TEST, ""), (TOML, &mapped(kind, more, mappings))], message);
    };
    let constant = |c: &str| format!("field = \"f\"\nconstant = '{c}'");
    for (kind, good) in
        [("bool", "true"), ("i64", "-7"), ("f64", "1.5"), ("text", ""), ("timestamp", "2026-01-01T00:00:00Z"), ("json", "[1]")]
    {
        check_mapping(kind, "", &[&constant(good)], expect!["ok, 0 tests"]);
    }
    let told = ["bool=yes", "i64=1.5", "i64=x", "f64=warm", "f64=NaN", "timestamp=soon", "json=[1"].map(|case| {
        let (kind, bad) = case.split_once('=').unwrap();
        let mut files = base();
        files.remove("templates/vend/t1/transform.luau");
        files.remove(TEST);
        files.insert(TOML.into(), mapped(kind, "", &[&constant(bad)]));
        check::check_files(&files).map_or_else(|faults| faults.to_string(), |_| format!("{case} is taken"))
    });
    expect![[r#"
        templates/vend/t1/template.toml:18:1: constant "yes": f is text, not a boolean; write a constant of type bool (as text), within its bounds
        templates/vend/t1/template.toml:18:1: constant "1.5": f is text, not an integer; write a constant of type i64 (as text), within its bounds
        templates/vend/t1/template.toml:18:1: constant "x": f is text, not an integer; write a constant of type i64 (as text), within its bounds
        templates/vend/t1/template.toml:18:1: constant "warm": f is text, not a number; write a constant of type f64 (as text), within its bounds
        templates/vend/t1/template.toml:18:1: constant "NaN": f is number, not finite (NaN); write a constant of type f64 (as text), within its bounds
        templates/vend/t1/template.toml:18:1: constant "soon": f is text, not milliseconds since 1970 or RFC 3339; write a constant of type timestamp (as text), within its bounds
        templates/vend/t1/template.toml:18:1: constant "[1": f is no JSON: not JSON: EOF while parsing a list at byte 1; write a constant of type json (as text), within its bounds"#]].assert_eq(&told.join("\n"));
    check_mapping(
        "f64",
        "max = 10",
        &[&constant("11")],
        expect![[
            r#"templates/vend/t1/template.toml:18:1: constant "11": f is 11, above 10; write a constant of type f64 (as text), within its bounds"#
        ]],
    );
    check_mapping(
        "text",
        "",
        &["field = \"occurred_at\"\nconstant = \"soon\"", "field = \"event_type\"\nconstant = \"\""],
        expect![[r#"
        templates/vend/t1/template.toml:18:1: constant "soon": occurred_at is "soon": neither milliseconds since 1970 nor RFC 3339 text; correct it
        templates/vend/t1/template.toml:22:1: constant "": event_type has 0 bytes; it has 1 to 256; correct it"#]],
    );
    check_mapping(
        "text",
        "",
        &["field = \"f\"\nfrom = \"/f\"\nscale = 2", "field = \"temperature\"\nconstant = \"1\"\noffset = 1"],
        expect![[r#"
            templates/vend/t1/template.toml:18:1: field f has scale or offset, and no number to convert; remove them: they are for numbers from a place
            templates/vend/t1/template.toml:23:1: field temperature has scale or offset, and no number to convert; remove them: they are for numbers from a place"#]],
    );
    check_mapping(
        "text",
        "",
        &["field = \"f\"\nfrom = \"/f\"", "field = \"x\"\nfrom = \"/x\"", "field = \"f\"\nfrom = \"/g\""],
        expect!["templates/vend/t1/template.toml:26:1: field f is mapped twice; remove one of them"],
    );
}

#[test]
fn two_keys_of_one_secret() {
    let key =
        |id: &str, hash: &str| format!("[[key]]\nid = \"{id}\"\ntenant = \"cust\"\nsource = \"src\"\nsha256 = \"{}\"\n\n", hash.repeat(32));
    check(
        &[("keys.toml", &[key("k1", "ab"), key("k2", "cd"), key("k3", "AB"), key("k4", "ef")].concat())],
        expect!["keys.toml:14:6: key k3 has the same sha256 as key k1; make one of them anew: tidegate key ID"],
    );
}

/// What a folder may hold that is no text: nothing of it is opened, and everything is named.
#[test]
fn folders_with_other_things_in_them() {
    let place = tempfile::tempdir().unwrap();
    for (name, text) in base() {
        let file = place.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    let told = || match check::check(place.path()) {
        Ok(checked) => format!("ok, {} tests", checked.tests),
        Err(faults) => faults.to_string().replace(&place.path().display().to_string(), "DIR"),
    };
    expect!["ok, 1 tests"].assert_eq(&told());
    let pipe = |name: &str| {
        let status = std::process::Command::new("mkfifo").arg(place.path().join(name)).status().unwrap();
        assert!(status.success());
    };
    pipe("assets2.toml");
    pipe("templates/vend/t1/validate.luau");
    let _socket = std::os::unix::net::UnixListener::bind(place.path().join("templates/s")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", place.path().join("zero.toml")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.path().join("lost.toml")).unwrap();
    std::os::unix::fs::symlink("keys.toml", place.path().join("to-keys.md")).unwrap();
    std::fs::create_dir_all(place.path().join("templates/vend/t2/tests")).unwrap();
    std::fs::create_dir_all(place.path().join("templates/vend/t3")).unwrap();
    std::fs::write(place.path().join("templates/vend/t3/README.md"), "# T3").unwrap();
    let mut lines: Vec<String> = told().lines().map(str::to_owned).collect();
    lines.sort();
    expect![[r#"
        DIR/assets2.toml: this is no regular file; definitions are plain files: move it away
        DIR/lost.toml: file cannot be read: No such file or directory (os error 2); definitions are UTF-8 texts that this user may read
        DIR/templates/s: this is no regular file; definitions are plain files: move it away
        DIR/templates/vend/t1/validate.luau: this is no regular file; definitions are plain files: move it away
        DIR/templates/vend/t2/template.toml: file is missing; add it, or remove the folder of the template
        DIR/templates/vend/t3/template.toml: file is missing; add it, or remove the folder of the template
        DIR/zero.toml: this is no regular file; definitions are plain files: move it away"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn tables_of_one_owner_agree() {
    let second = "id = \"t2\"\ntitle = \"Two\"\ntable = \"Climate\"\n\n[[fields]]\nname = \"temperature\"\ntype = \"f64\"\nunit = \"K\"\n";
    check(
        &[("templates/vend/t2/template.toml", second)],
        expect![[
            r#"templates/vend/t2/template.toml:5:1: field "temperature" is f64 in Cel in the table and f64 in K in the template: another type or unit takes another table; rename the field, or use another table than "Climate""#
        ]],
    );
}

#[test]
fn scripts_that_cannot_be() {
    check(
        &[("templates/vend/t1/transform.luau", "function transform(event)\n  return {\nend\n")],
        expect!["templates/vend/t1/transform.luau:3:1: Expected identifier when parsing expression, got 'end'; correct it"],
    );
    check(
        &[("templates/vend/t1/transform.luau", "function transfrom(event) return {} end\n")],
        expect!["templates/vend/t1/transform.luau: the script defines no function transform; correct it"],
    );
}

#[test]
fn tests_that_fail() {
    let test = |text: &str| text.replace('\'', "\"");
    let check_test = |text: &str, message| check(&[(TEST, &test(text))], message);
    check_test(
        "{'description': 'a', 'evnt': 1}",
        expect![
            "templates/vend/t1/tests/one.json:1:27: unknown field `evnt`, expected one of `description`, `event`, `bytes_hex`, `fPort`, `asset`, `attributes`, `meta`, `received_at`, `occurred_at`, `event_type`, `decoded`, `valid`, `rows`, `rejected`, `filtered`; see the form of tests: tidegate manual definitions"
        ],
    );
    check_test(
        "{'description': 'a', 'event': {'temperature': 2}}",
        expect![[
            r#"templates/vend/t1/tests/one.json: test "a": it expects nothing yet: write rows, rejected or filtered, or let `tidegate template test DIR --update` do so; see the form of tests: tidegate manual definitions"#
        ]],
    );
    check_test(
        "{'description': 'a', 'rows': []}",
        expect![[
            r#"templates/vend/t1/tests/one.json: test "a": an input is needed: event, bytes_hex, or both; see the form of tests: tidegate manual definitions"#
        ]],
    );
    check_test(
        "{'description': 'a', 'bytes_hex': '00', 'rows': []}",
        expect![[
            r#"templates/vend/t1/tests/one.json: test "a": bytes_hex is given, and the template names no payload; see the form of tests: tidegate manual definitions"#
        ]],
    );
    check_test(
        "{'description': 'a', 'event': {'temperature': 2}, 'rows': [{'temperature': 3, 'event_type': 't9'}]}",
        expect![[r#"
            templates/vend/t1/tests/one.json: test "a": row 0: event_type is "t1", expected "t9"; correct the template, or what the test expects
            templates/vend/t1/tests/one.json: test "a": row 0: temperature is 2.0, expected 3 (transform.luau:1); correct the template, or what the test expects"#]],
    );
    check_test(
        "{'description': 'a', 'event': {'temperature': 2}, 'rows': [{'heat': 3}]}",
        expect![[r#"
            templates/vend/t1/tests/one.json: test "a": row 0: heat is no field of table Climate; correct the template, or what the test expects
            templates/vend/t1/tests/one.json: test "a": row 0: temperature is 2.0, expected null (transform.luau:1); correct the template, or what the test expects"#]],
    );
    check_test(
        "{'description': 'a', 'event': {'temperature': 2}, 'rows': []}",
        expect![[
            r#"templates/vend/t1/tests/one.json: test "a": 1 row, expected 0: [{"event_type":"t1","temperature":2.0}]; correct the template, or what the test expects"#
        ]],
    );
    check_test(
        "{'description': 'a', 'event': {'temperature': 2}, 'filtered': true}",
        expect![[
            r#"templates/vend/t1/tests/one.json: test "a": 1 row: [{"event_type":"t1","temperature":2.0}], expected no output; correct the template, or what the test expects"#
        ]],
    );
    check_test(
        "{'description': 'a', 'event': {'temperature': 'warm'}, 'rows': [{'temperature': 2}]}",
        expect![[
            r#"templates/vend/t1/tests/one.json: test "a": rejection wrong_type at transform at /temperature (temperature is text, not a number), expected 1 row (transform.luau:1); correct the template, or what the test expects"#
        ]],
    );
    check_test(
        "{'description': 'a', 'event': {'temperature': 2}, 'valid': false, 'rejected': {'stage': 'validate', 'code': 'x'}}",
        expect![[r#"
            templates/vend/t1/tests/one.json: test "a": 1 row: [{"event_type":"t1","temperature":2.0}], expected rejection x at validate; correct the template, or what the test expects
            templates/vend/t1/tests/one.json: test "a": validate says true, expected false; correct the template, or what the test expects"#]],
    );
}
