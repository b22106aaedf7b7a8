//! Where a secret is found when it is needed: configurations are shown and written, so no secret stands in one.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tidegate_schemas::log::LogError;
use tidegate_schemas::secret::Secret;

/// The place of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretPlace {
    /// The first line of a file.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
}

/// Why there is no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {detail}; {remedy}")]
pub struct SecretError {
    /// The setting that names the place.
    pub setting: &'static str,
    /// What is wrong.
    pub detail: String,
    /// What mends it.
    pub remedy: &'static str,
}

impl From<SecretError> for LogError {
    fn from(error: SecretError) -> Self {
        Self::Unfit { place: error.setting.into(), detail: error.detail, remedy: error.remedy.into() }
    }
}

impl SecretPlace {
    /// The file that is named.
    pub fn file(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::File(path) => Some(path),
            Self::Env(_) => None,
        }
    }

    /// Fetches it; `setting` is what an error names.
    pub fn load(&self, setting: &'static str) -> Result<Secret, SecretError> {
        let unfit = |detail: String, remedy| SecretError { setting, detail, remedy };
        let text = match self {
            Self::File(path) => std::fs::read_to_string(path)
                .map_err(|e| unfit(format!("{} cannot be read: {e}", path.display()), "name a file that this process may read"))?,
            Self::Env(name) => {
                std::env::var(name).map_err(|_| unfit(format!("variable {name} is not set"), "set it, or name a file instead"))?
            }
        };
        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() {
            return Err(unfit("is empty".into(), "put the secret on its first line"));
        }
        Ok(Secret::new(line.as_bytes()))
    }
}
