//! The manual of the folder: its examples are one folder in which nothing is wrong, and it names every field that there is.

use std::path::Path;
use tidegate_pipeline::definitions::check;
use tidegate_pipeline::definitions::folder::Files;

fn manual() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/definitions/README.md")).unwrap()
}

/// The blocks that name a file.
fn examples() -> Files {
    let mut files = Files::new();
    let mut file: Option<String> = None;
    for line in manual().lines() {
        match (line.strip_prefix("```"), &file) {
            (Some(info), None) => file = Some(info.split_once(' ').map_or("", |(_, path)| path).to_owned()),
            (Some(_), Some(_)) => file = None,
            (None, Some(path)) if !path.is_empty() => {
                let text = files.entry(path.clone()).or_default();
                text.push_str(line);
                text.push('\n');
            }
            _ => {}
        }
    }
    files
}

#[test]
fn its_examples_are_a_sound_folder() {
    let checked = check::check_files(&examples()).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(checked.tests, 3);
    let kinds: Vec<String> = examples().into_keys().collect();
    for file in ["organizations.toml", "sources.toml", "assets.toml", "keys.toml"] {
        assert!(kinds.iter().any(|k| k == file), "{file} has no example");
    }
}

/// Whatever a parser would take is described: it lists its fields when it meets an unknown one.
#[test]
fn it_names_every_field() {
    let (manual, examples) = (manual(), examples());
    let template = "templates/senscorp/probe/template.toml";
    let after = |path: &str, line: &str| (path.to_owned(), examples[path].replacen(line, &format!("{line}\nunknown = 1"), 1));
    let mut known = 0;
    for (path, text) in [
        after("organizations.toml", "[[organization]]"),
        after("sources.toml", "[[source]]"),
        ("sources.toml".into(), examples["sources.toml"].replace("{ fixed =", "{ unknown =")),
        after("assets.toml", "[[asset]]"),
        after("keys.toml", "[[key]]"),
        (template.into(), format!("unknown = 1\n{}", examples[template])),
        after(template, "[payload]"),
        after(template, "[limits]"),
        after(template, "[[fields]]"),
        after(template, "[[validate]]"),
        after(template, "[[transform]]"),
        ("templates/senscorp/probe/tests/mains.json".into(), "{ \"unknown\": 1 }".into()),
    ] {
        let mut files = examples.clone();
        files.insert(path.clone(), text);
        let told = check::check_files(&files).unwrap_err().to_string();
        let (_, listed) = told.split_once("`unknown`, expected ").unwrap_or_else(|| panic!("{path}: {told}"));
        for name in listed.split("; ").next().unwrap().split('`').skip(1).step_by(2) {
            let shown = [format!("`{name}`"), format!("`\"{name}\"`"), format!("`payload.{name}`"), format!("{{ {name} = ")];
            assert!(shown.iter().any(|s| manual.contains(s)), "{path}: {name} is not in the manual");
            known += 1;
        }
    }
    assert!(known > 60, "{known}");
}
