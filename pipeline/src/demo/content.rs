//! The demonstration's definitions: a folder like any other, embedded in the binary. Only its keys are made at start,
//! since a secret that is the same everywhere is none.

use crate::definitions::folder::Files;
use crate::definitions::key;
use include_dir::{Dir, include_dir};
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use tidegate_schemas::secret::Secret;

static FOLDER: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/src/demo/definitions");

/// The one asset of the source whose credential is its asset.
pub const TURNSTILE: &str = "turnstile-1";

/// Id, tenant, source, and the only asset that the key may speak for.
const KEYS: [(&str, &str, &str, Option<&str>); 10] = [
    ("acmelorawan", "acme", "lorawan", None),
    ("acmemotion", "acme", "motion", None),
    ("northwindlorawan", "northwind", "lorawan", None),
    ("northwindmotion", "northwind", "motion", None),
    ("harborlorawan", "harbor", "lorawan", None),
    ("harbortelemetry", "harbor", "telemetry", None),
    ("harborlab", "harbor", "lab", None),
    ("harborturnstile", "harbor", "turnstile", Some(TURNSTILE)),
    ("lakesidelorawan", "lakeside", "lorawan", None),
    ("lakesidetelemetry", "lakeside", "telemetry", None),
];

/// A key in the hands of a sender.
pub struct SenderKey {
    /// Whose.
    pub tenant: String,
    /// The source that it opens.
    pub source: String,
    /// The printable key.
    pub key: Secret,
}

/// Why the content cannot be written out.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// A file cannot be written.
    #[error("{file} cannot be written; give the demonstration a folder that it may write to")]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A key cannot be made.
    #[error(transparent)]
    Key(#[from] key::IssueError),
}

/// The embedded files, without `keys.toml`.
pub fn files() -> Files {
    fn collect(folder: &Dir<'_>, files: &mut Files) {
        for file in folder.files() {
            if let (Some(path), Some(text)) = (file.path().to_str(), file.contents_utf8()) {
                files.insert(path.replace('\\', "/"), text.to_owned());
            }
        }
        folder.dirs().for_each(|inner| collect(inner, files));
    }
    let mut files = Files::new();
    collect(&FOLDER, &mut files);
    files
}

/// Fresh keys: `keys.toml` with their hashes, and the keys themselves for the senders.
pub fn issue_keys() -> Result<(String, Vec<SenderKey>), ContentError> {
    let mut toml = String::from("# Made at the start of the demonstration; each start makes others. Only hashes are kept.\n");
    let mut keys = Vec::new();
    for (id, tenant, source, asset) in KEYS {
        let issued = key::issue(id)?;
        let assets: Vec<String> = asset.into_iter().map(str::to_owned).collect();
        // Writing to a String cannot fail.
        let _ = write!(toml, "\n{}", issued.entry(tenant, source, &assets));
        keys.push(SenderKey { tenant: tenant.to_owned(), source: source.to_owned(), key: issued.key });
    }
    Ok((toml, keys))
}

/// Writes the folder of definitions with fresh keys; files of an earlier start are replaced.
pub fn write(folder: &Path) -> Result<Vec<SenderKey>, ContentError> {
    let (toml, keys) = issue_keys()?;
    let mut files = files();
    files.insert("keys.toml".to_owned(), toml);
    for (name, text) in files {
        let file = folder.join(&name);
        let made = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::write(&file, text)).map_err(|cause| ContentError::File { file, cause })?;
    }
    Ok(keys)
}
