//! A template to begin with, and a whole place for it: small, sound, and with tests that pass.

use super::key::{self, IssueError, Issued};
use std::io;
use std::path::{Path, PathBuf};
use tidegate_schemas::ids::is_id;

/// Its files; the id of the new template takes the place of this one.
const ID: &str = "my-template";
const FILES: [(&str, &str); 4] = [
    ("template.toml", include_str!("scaffold/template.toml")),
    ("decode.luau", include_str!("scaffold/decode.luau")),
    ("tests/reading.json", include_str!("scaffold/tests/reading.json")),
    ("tests/short.json", include_str!("scaffold/tests/short.json")),
];

/// Those of a place beside its template: a configuration and a folder of definitions.
const PLACE: [(&str, &str); 4] = [
    ("tidegate.toml", include_str!("scaffold/place/tidegate.toml")),
    ("definitions/organizations.toml", include_str!("scaffold/place/organizations.toml")),
    ("definitions/sources.toml", include_str!("scaffold/place/sources.toml")),
    ("definitions/assets.toml", include_str!("scaffold/place/assets.toml")),
];
/// What stands above the key's entry.
const KEYS: &str = include_str!("scaffold/place/keys.toml");
const TEMPLATE: &str = "definitions/templates/my-vendor/my-template";
/// The only one that `keys.toml` lets in: its tenant, its source, its id.
const KEY: [&str; 3] = ["my-tenant", "gateway", "first"];

/// Why there is no new template or place.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// The folder's name is the template's id.
    #[error("{0:?} cannot be a template's id; name a folder with 1 to 64 characters of a-z, A-Z, 0-9, '-', '_' and '.'")]
    Id(String),
    /// Nothing is written over.
    #[error("{0} is there already; name a folder that is not")]
    There(PathBuf),
    /// No key can be made.
    #[error(transparent)]
    Key(#[from] IssueError),
    /// A file cannot be written.
    #[error("{file} cannot be written")]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Writes the folder of a new template, and returns its files.
pub fn write(dir: &Path) -> Result<Vec<PathBuf>, ScaffoldError> {
    let id = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if !is_id(&id) {
        return Err(ScaffoldError::Id(id));
    }
    files(dir, FILES.iter().map(|(name, text)| (*name, text.replace(ID, &id))))
}

/// Writes a new place: a configuration, definitions of an organization with a template, and a key that opens its source. Returns the
/// key, which is kept nowhere, and the files.
pub fn place(dir: &Path) -> Result<(Issued, Vec<PathBuf>), ScaffoldError> {
    let [tenant, source, id] = KEY;
    let issued = key::issue(id)?;
    let keys = ("definitions/keys.toml", format!("{KEYS}\n{}", issued.entry(tenant, source, &[])));
    let mut written = files(dir, PLACE.iter().map(|(name, text)| (*name, (*text).to_owned())).chain([keys]))?;
    written.extend(write(&dir.join(TEMPLATE))?);
    Ok((issued, written))
}

fn files<'n>(dir: &Path, texts: impl Iterator<Item = (&'n str, String)>) -> Result<Vec<PathBuf>, ScaffoldError> {
    if std::fs::symlink_metadata(dir).is_ok() {
        return Err(ScaffoldError::There(dir.to_owned()));
    }
    let mut written = Vec::new();
    for (name, text) in texts {
        let file = dir.join(name);
        let made = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        let wrote = made.and_then(|()| std::fs::write(&file, text));
        wrote.map_err(|cause| ScaffoldError::File { file: file.clone(), cause })?;
        written.push(file);
    }
    Ok(written)
}
