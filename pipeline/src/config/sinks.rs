//! Where rows go.

use super::objects::Location;
use super::secret::{SecretError, SecretPlace};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;
use tidegate_schemas::limits;
use tidegate_sinks::clickhouse::{ClickHouseOptions, TableOptions};

/// `[sink.…]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sinks {
    /// Delta Lake tables.
    pub parquet: Parquet,
    /// Tables of ClickHouse.
    pub clickhouse: ClickHouse,
}

impl Sinks {
    /// Every file and folder that is named.
    pub fn files(&mut self) -> Vec<&mut PathBuf> {
        let clickhouse = &mut self.clickhouse;
        let password = clickhouse.password.as_mut().and_then(SecretPlace::file);
        [self.parquet.path.as_mut().and_then(Location::folder_mut), clickhouse.ca_file.as_mut(), password].into_iter().flatten().collect()
    }
}

/// `[sink.parquet]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Parquet {
    /// Whether rows go there.
    pub enabled: bool,
    /// Root of the tables, a folder or `s3://bucket/folder`; absent: `tables` in the data folder. Relative to the configuration
    /// file's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Location>,
    /// System tables that go there too: `rejections`, `script_runs`, `script_logs`, `releases`.
    pub system_tables: Vec<String>,
}

impl Default for Parquet {
    fn default() -> Self {
        Self { enabled: true, path: None, system_tables: Vec::new() }
    }
}

/// `[sink.clickhouse]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClickHouse {
    /// Whether rows go there.
    pub enabled: bool,
    /// Its HTTP interface; `https` encrypts.
    pub url: String,
    /// The database of all tables, made where it is missing.
    pub database: String,
    /// Who signs in.
    pub user: String,
    /// Where the password is; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretPlace>,
    /// Certificates of the authorities that the server is signed by, PEM; absent: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Days after which rows are deleted, by the date at which they were recorded, old rows too; absent: they stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    /// A statement or insert that takes longer has failed, and is tried again.
    pub request_seconds_max: u32,
    /// System tables that go there too.
    pub system_tables: Vec<String>,
}

impl Default for ClickHouse {
    fn default() -> Self {
        Self {
            enabled: false,
            url: "http://localhost:8123".into(),
            database: "tidegate".into(),
            user: "default".into(),
            password: None,
            ca_file: None,
            retention_days: None,
            request_seconds_max: limits::CLICKHOUSE_REQUEST_SECONDS as u32,
            system_tables: vec!["rejections".into(), "script_runs".into()],
        }
    }
}

impl ClickHouse {
    /// As the sink takes them, with the password.
    pub fn options(&self) -> Result<ClickHouseOptions, SecretError> {
        Ok(ClickHouseOptions {
            url: self.url.clone(),
            database: self.database.clone(),
            user: self.user.clone(),
            password: self.password.as_ref().map(|p| p.load("sink.clickhouse.password")).transpose()?,
            ca_file: self.ca_file.clone(),
            patience: Duration::from_secs(self.request_seconds_max.into()),
            tables: TableOptions { retention_days: self.retention_days, ..TableOptions::default() },
        })
    }
}
