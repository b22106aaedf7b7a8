//! The crates depend on one another as the design draws it, and on nothing heavier than they need.

use std::collections::BTreeMap;
use std::path::Path;

fn manifest(folder: &str) -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder).join("Cargo.toml");
    std::fs::read_to_string(&path).unwrap().parse().unwrap()
}

fn dependencies(folder: &str, section: &str) -> Vec<String> {
    manifest(folder).get(section).and_then(|d| d.as_table()).map(|d| d.keys().cloned().collect()).unwrap_or_default()
}

fn own(folder: &str, section: &str) -> Vec<String> {
    let mut found: Vec<String> =
        dependencies(folder, section).iter().filter_map(|d| d.strip_prefix("tidegate-").map(str::to_owned)).collect();
    found.sort();
    found
}

#[test]
fn siblings_never_meet() {
    let drawn = BTreeMap::from([
        ("schemas", vec![]),
        ("operators", vec!["schemas"]),
        ("sinks", vec!["schemas"]),
        ("ingest-http", vec!["schemas"]),
        ("pipeline", vec!["ingest-http", "operators", "schemas", "sinks"]),
    ]);
    for (folder, expected) in &drawn {
        assert_eq!(own(folder, "dependencies"), *expected, "{folder}");
        assert!(!own(folder, "dev-dependencies").contains(&"benches".to_owned()), "{folder}: nobody imports benches");
    }
    let members: Vec<String> =
        manifest(".")["workspace"]["members"].as_array().unwrap().iter().map(|m| m.as_str().unwrap().to_owned()).collect();
    let mut folders: Vec<&str> = drawn.keys().copied().chain(["benches"]).collect();
    folders.sort_unstable();
    let mut found = members.clone();
    found.sort();
    assert_eq!(found, folders);
}

#[test]
fn heavy_crates_stay_where_they_are_needed() {
    let allowed = BTreeMap::from([
        ("timely", vec!["pipeline"]),
        ("mlua", vec!["operators"]),
        ("axum", vec!["ingest-http"]),
        ("delta_kernel", vec!["sinks"]),
        ("parquet", vec!["sinks"]),
        ("object_store", vec!["sinks", "pipeline"]),
    ]);
    for folder in ["schemas", "operators", "sinks", "ingest-http", "pipeline"] {
        for dependency in dependencies(folder, "dependencies") {
            if let Some(places) = allowed.get(dependency.as_str()) {
                assert!(places.contains(&folder), "{folder} depends on {dependency}");
            }
        }
    }
}

/// The first invariant of the design, read off the sources: no I/O, no clock, no randomness in the pure crates.
#[test]
fn schemas_and_operators_are_pure() {
    let forbidden =
        ["std::fs", "std::net", "Instant::now", "SystemTime", "getrandom", "thread_rng", "std::process", "tokio::", "std::thread::spawn"];
    for folder in ["schemas/src", "operators/src"] {
        each_source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), &mut |path, text| {
            for word in forbidden {
                assert!(!text.contains(word), "{} uses {word}", path.display());
            }
        });
    }
}

/// timely is confined to the files that draw or drive the graph.
#[test]
fn timely_is_confined() {
    each_source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut |path, text| {
        let name = path.file_name().unwrap().to_str().unwrap();
        if !["graph.rs", "worker.rs", "partition.rs"].contains(&name) {
            assert!(!text.contains("timely::"), "{} uses timely", path.display());
        }
    });
}

/// Every fault point that is listed is passed somewhere in the code.
#[test]
fn fault_points_exist() {
    let mut all = String::new();
    for folder in ["pipeline/src", "sinks/src"] {
        each_source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), &mut |_, text| all.push_str(text));
    }
    for point in tidegate_schemas::fault::POINTS {
        assert!(all.contains(&format!("\"{point}\"")), "fault point {point} is listed and passed nowhere");
    }
}

fn each_source(folder: &Path, look: &mut dyn FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            each_source(&path, look);
        } else if path.extension().is_some_and(|e| e == "rs") {
            look(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}
