//! New API keys. The secret leaves this process once, in the hands of whoever asked for it; definitions hold its hash.

use super::check;
use super::folder::{Folder, read_files};
use crate::config::place::Faults;
use std::fmt::Write;
use std::path::Path;
use tidegate_ingest_http::{hash_secret, issue_key};
use tidegate_schemas::ids::CredentialId;
use tidegate_schemas::secret::Secret;

/// A key that nobody had before.
pub struct Issued {
    /// Its public part.
    pub id: CredentialId,
    /// The printable key, `tg_<id>_<secret><checksum>`.
    pub key: Secret,
    /// What its definition holds of the secret.
    pub sha256: String,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The id would not pass as part of a key.
    #[error("{0:?} is no id of a key: 1 to 64 letters and digits")]
    Id(String),
    /// The system gives no randomness.
    #[error("no random numbers for a secret: {0}")]
    Random(String),
}

/// Makes a key of 256 random bits of the system.
pub fn issue(id: &str) -> Result<Issued, IssueError> {
    let alphanumeric = id.bytes().all(|b| b.is_ascii_alphanumeric());
    let id = CredentialId::new(id).ok().filter(|_| alphanumeric).ok_or_else(|| IssueError::Id(id.chars().take(80).collect()))?;
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|e| IssueError::Random(e.to_string()))?;
    let (key, sha256) = (Secret::new(issue_key(&id, &secret).into_bytes()), hash_secret(&secret));
    Ok(Issued { id, key, sha256 })
}

impl Issued {
    /// Whether an entry fits into a folder of definitions: its tenant and source are there, its id is not.
    ///
    /// # Errors
    /// What would be wrong with the folder, the entry at the end of its `keys.toml`.
    pub fn fits(entry: &str, folder: &Path) -> Result<(), Faults> {
        let mut files = read_files(folder)?;
        let keys = files.entry("keys.toml".into()).or_default();
        keys.push('\n');
        keys.push_str(entry);
        let faults = check::unsound(&Folder::parse(&files)?);
        if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
    }

    /// The entry of `keys.toml`.
    pub fn entry(&self, tenant: &str, source: &str, assets: &[String]) -> String {
        let mut entry = format!(
            "[[key]]\nid = \"{}\"\ntenant = {}\nsource = {}\nsha256 = \"{}\"\n",
            self.id,
            quoted(tenant),
            quoted(source),
            self.sha256
        );
        if !assets.is_empty() {
            let list: Vec<String> = assets.iter().map(|a| quoted(a)).collect();
            // Writing to a String cannot fail.
            let _ = writeln!(entry, "assets = [{}]", list.join(", "));
        }
        entry
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
