//! What people write: folders of definitions, the configuration, tests of templates; and changes as `control` has them.
//! The first byte chooses.

use super::input::Input;
use tidegate_pipeline::config::Config;
use tidegate_pipeline::definitions::diff::stand_alone;
use tidegate_pipeline::definitions::folder::{Files, TestFile};
use tidegate_pipeline::definitions::{Extent, Folder, Known, diff, trial};
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::definition::{Chain, Change, Definition};
use tidegate_schemas::log::Record;

/// A line that begins a file of a folder: this, and its path.
pub(super) const FILE: &str = "=== ";
/// Changes folded from one input.
const CHANGES_MAX: usize = 100;

/// Reads one of the texts.
pub fn definitions(bytes: &[u8]) {
    let mut input = Input(bytes);
    let kind = input.u8();
    let Ok(text) = std::str::from_utf8(input.0) else { return };
    match kind % 4 {
        0 => folder(text),
        1 => config(text),
        2 => changes(text),
        _ => test(text),
    }
}

pub(super) fn files(text: &str) -> Files {
    let mut files = Files::new();
    let mut path = "organizations.toml".to_owned();
    for line in text.split_inclusive('\n') {
        match line.strip_prefix(FILE) {
            Some(next) => path = next.trim_end().to_owned(),
            None => files.entry(path.clone()).or_default().push_str(line),
        }
    }
    files
}

fn folder(text: &str) {
    let folder = match Folder::parse(&files(text)) {
        Ok(folder) => folder,
        Err(faults) => {
            assert!(!faults.0.is_empty() && !faults.to_string().is_empty(), "a refusal says why");
            return;
        }
    };
    for definition in &folder.definitions {
        let json = serde_json::to_string(definition).unwrap();
        assert_eq!(&serde_json::from_str::<Definition>(&json).unwrap(), definition, "read back from {json}");
    }
    if stand_alone(&folder.definitions).is_err() {
        return;
    }
    // Published to nothing, and once more to what was published: then nothing differs, here and after a start.
    let (mut catalog, mut known, mut restarted) = (Catalog::default(), Known::default(), Known::default());
    let mut chain = Chain::default();
    for change in diff(&catalog, &known, &folder.definitions, Extent::Whole, "fuzz", 0).unwrap() {
        catalog.apply(&change).unwrap();
        known.apply(&change);
        restarted.apply(&Change::read(&chain.append(&change)).unwrap());
    }
    for known in [&known, &restarted] {
        let again = diff(&catalog, known, &folder.definitions, Extent::Whole, "fuzz", 0).unwrap();
        assert!(again.is_empty(), "published twice: {again:?}");
    }
    let nothing = diff(&catalog, &known, &[], Extent::Whole, "fuzz", 0).unwrap();
    for change in nothing {
        catalog.apply(&change).unwrap();
    }
}

fn config(text: &str) {
    match Config::parse(text, "tidegate.toml") {
        Ok(config) => {
            let written = toml::to_string(&config).unwrap();
            assert_eq!(Config::parse(&written, "again").unwrap(), config);
            config.server.edge_settings();
            assert!(config.process.workers(config.log.partitions, 2) >= 1);
            let _ = (config.tables(), config.control_socket(), config.process.epoch_age(), config.process.tick());
        }
        Err(error) => assert!(error.to_string().contains("tidegate.toml"), "{error}"),
    }
}

/// A change a line. A refused one leaves the catalog as it was.
fn changes(text: &str) {
    let mut catalog = Catalog::default();
    for line in text.lines().take(CHANGES_MAX) {
        let record = Record { value: line.as_bytes().to_vec().into(), ..Record::default() };
        let Ok(mut change) = Change::read(&record) else { continue };
        assert_eq!(Change::read(&Chain::default().append(&change)).unwrap(), change);
        let before = (catalog.revision(), catalog.len());
        if catalog.apply(&change).is_err() {
            assert_eq!((catalog.revision(), catalog.len()), before);
            // As if its number were right.
            change.revision = before.0 + 1;
            let _ = catalog.apply(&change);
        }
        assert!(catalog.revision() == before.0 || catalog.revision() == before.0 + 1);
    }
    for template in catalog.templates() {
        let (owner, id) = (&template.template.owner, template.template.id.as_str());
        assert!(catalog.template(owner, id).is_none_or(|t| t.template.id.as_str() == id));
    }
}

/// Any text as a test of a template without scripts.
fn test(text: &str) {
    let files = files(super::seeds::FOLDER);
    let folder = Folder::parse(&files).unwrap();
    let template = folder.definitions.iter().find(|d| matches!(d, Definition::Template(_))).unwrap().key();
    let file = "templates/vend/t1/tests/one.json".to_owned();
    let mut faults = Vec::new();
    trial::run(&trial::Templates::of(&folder), &TestFile { template, file, text: text.to_owned() }, &mut faults);
    for fault in faults {
        assert!(fault.to_string().starts_with("templates/vend/t1/tests/one.json"));
    }
}
