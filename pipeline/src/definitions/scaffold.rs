//! A template to begin with: small, sound, and with tests that pass.

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

/// Why there is no new template.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// The folder's name is the template's id.
    #[error("{0:?} cannot be a template's id; name a folder with 1 to 64 characters of a-z, A-Z, 0-9, '-', '_' and '.'")]
    Id(String),
    /// Nothing is written over.
    #[error("{0} is there already; name a folder that is not")]
    There(PathBuf),
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
    if std::fs::symlink_metadata(dir).is_ok() {
        return Err(ScaffoldError::There(dir.to_owned()));
    }
    let mut written = Vec::new();
    for (name, text) in FILES {
        let file = dir.join(name);
        let made = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        let wrote = made.and_then(|()| std::fs::write(&file, text.replace(ID, &id)));
        wrote.map_err(|cause| ScaffoldError::File { file: file.clone(), cause })?;
        written.push(file);
    }
    Ok(written)
}
