//! A folder of definitions, as people keep it under version control.
//!
//! ```text
//! organizations.toml  sources.toml  assets.toml  keys.toml      arrays of tables: [[organization]], …
//! templates/<owner>/<template>/template.toml                    what a template is, and its declarative stages
//!                              decode.luau validate.luau transform.luau
//!                              tests/*.json                     see `definitions::trial`
//! ```
//! Every file and field of it: `README.md` in the folder above this one.
//!
//! Reading collects texts, parsing is pure, and everything that is wrong is told at once. A file that has no place in this
//! layout is refused, since it would be a definition that somebody believes to be in effect.

mod entries;
mod template;
mod toml_entries;

use crate::config::place::{Fault, Faults, FilePlace};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use tidegate_schemas::definition::{Definition, DefinitionKey};
use tidegate_schemas::limits::CONTROL_SOCKET_BYTES_MAX;

pub use template::{TestFile, table_id};

/// The files of a folder: path from the folder on with `/`, and text.
pub type Files = BTreeMap<String, String>;

/// Definitions with the places where they stand.
#[derive(Debug, Default)]
pub struct Folder {
    /// In the order of the files; a table is made of what its owner's templates say about it.
    pub definitions: Vec<Definition>,
    /// Where each stands.
    pub places: BTreeMap<DefinitionKey, FilePlace>,
    /// Tests of templates.
    pub tests: Vec<TestFile>,
}

impl Folder {
    /// Reads and parses a folder.
    pub fn read(folder: &Path) -> Result<Self, Faults> {
        Self::parse(&read_files(folder)?)
    }

    /// Parses the files of a folder.
    pub fn parse(files: &Files) -> Result<Self, Faults> {
        let mut parsed = Self::default();
        let mut faults = Vec::new();
        let mut templates = template::Parts::new();
        for (path, text) in files {
            let parts: Vec<&str> = path.split('/').collect();
            match parts.as_slice() {
                ["organizations.toml" | "sources.toml" | "assets.toml" | "keys.toml"] => {
                    entries::parse(path, text, &mut parsed, &mut faults)
                }
                ["templates", owner, id, inner @ ..] if template::is_part(inner) => {
                    let name = &path[path.len() - inner.join("/").len()..];
                    templates.entry((owner, id)).or_default().push((name, path, text));
                }
                _ => faults.push(Fault::new(
                    FilePlace::file(path),
                    "this file has no place in a folder of definitions",
                    "move it, or see the layout: tidegate manual definitions (files *.md and those whose name begins with a dot are ignored)",
                )),
            }
        }
        template::parse(templates, &mut parsed, &mut faults);
        if faults.is_empty() {
            return Ok(parsed);
        }
        faults.sort();
        Err(Faults(faults))
    }

    /// Adds a definition; a key that is there already is a fault.
    fn add(&mut self, definition: Definition, place: FilePlace, faults: &mut Vec<Fault>) {
        let key = definition.key();
        if let Some(first) = self.places.get(&key) {
            let detail = format!("{} {} stands at {first} too", key.kind, key.id);
            faults.push(Fault::new(place, detail, "remove one of them, or rename it"));
            return;
        }
        self.places.insert(key, place);
        self.definitions.push(definition);
    }
}

/// The texts of a folder. The layout is of a fixed depth, so links cannot lead in circles.
pub(super) fn read_files(folder: &Path) -> Result<Files, Faults> {
    let mut reading = Reading { root: folder, files: Files::new(), bytes: 0, faults: Vec::new() };
    reading.folder(folder, 0);
    if reading.faults.is_empty() { Ok(reading.files) } else { Err(Faults(reading.faults)) }
}

/// Folders below the root: templates, owner, template, tests.
const FOLDERS_DEPTH_MAX: usize = 4;
/// How many of them stand above the files of a template.
const TEMPLATE_DEPTH: usize = 3;

struct Reading<'a> {
    root: &'a Path,
    files: Files,
    bytes: usize,
    faults: Vec<Fault>,
}

impl Reading<'_> {
    fn folder(&mut self, folder: &Path, depth: usize) {
        let entries = match std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return self.fault(folder, "there is no such folder".into(), "name one that is there");
            }
            Err(e) => return self.fault(folder, format!("folder cannot be read: {e}"), "name a folder that this user may read"),
        };
        for entry in entries {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || name.ends_with(".md") {
                continue;
            }
            // Of what a link leads to. Opening anything but a file may wait for ever, or never end.
            match path.metadata() {
                Ok(found) if found.is_file() => self.file(&path, found.len()),
                Ok(found) if !found.is_dir() => {
                    self.fault(&path, "this is no regular file".into(), "definitions are plain files: move it away")
                }
                Ok(_) if depth < FOLDERS_DEPTH_MAX => self.folder(&path, depth + 1),
                Ok(_) => self.fault(&path, "folder is deeper than the layout goes".into(), "move it away"),
                Err(e) => self.fault(&path, format!("file cannot be read: {e}"), "definitions are UTF-8 texts that this user may read"),
            }
        }
        let is_template = depth == TEMPLATE_DEPTH && folder.strip_prefix(self.root).is_ok_and(|inner| inner.starts_with("templates"));
        if is_template && std::fs::symlink_metadata(folder.join("template.toml")).is_err() {
            self.fault(&folder.join("template.toml"), "file is missing".into(), "add it, or remove the folder of the template");
        }
    }

    fn file(&mut self, path: &Path, bytes: u64) {
        self.bytes = self.bytes.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
        if self.bytes > CONTROL_SOCKET_BYTES_MAX {
            let remedy = "split it into several organizations' folders, or move what is no definition away";
            return self.fault(path, format!("the folder holds more than {CONTROL_SOCKET_BYTES_MAX} bytes"), remedy);
        }
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let inner = path.strip_prefix(self.root).unwrap_or(path);
                let name = inner.iter().map(|p| p.to_string_lossy()).collect::<Vec<_>>().join("/");
                self.files.insert(name, text);
            }
            Err(e) => self.fault(path, format!("file cannot be read: {e}"), "definitions are UTF-8 texts that this user may read"),
        }
    }

    fn fault(&mut self, path: &Path, detail: String, remedy: &str) {
        self.faults.push(Fault::new(FilePlace::file(&path.display().to_string()), detail, remedy));
    }
}
