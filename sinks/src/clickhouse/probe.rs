//! Tries what the sink needs of a server, each right by using it, in a table that is gone afterwards.

use super::{ClickHouseSink, TableOptions, columns, identifier, literal};
use arrow::datatypes::Schema;
use bytes::Bytes;
use serde::Deserialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_schemas::sink::SinkError;
use tidegate_schemas::table::{provenance, timestamp};

/// The oldest version that tables are made for.
const VERSION_MIN: u32 = 25;

/// What a server is.
#[derive(Clone, Debug)]
pub struct Reached {
    /// Its version.
    pub version: String,
    /// Whether tables can be made for it.
    pub fits: bool,
    /// How far its clock is from ours, beyond what the way there and back explains.
    pub skew: Duration,
}

/// What using every right came to.
#[derive(Clone, Debug)]
pub struct Exercised {
    /// How many of the two inserts under one token the table held: one is right.
    pub rows: u64,
    /// Why the database, which was made for this, could not be dropped again; nothing of ours needs that right.
    pub left: Option<String>,
}

#[derive(Deserialize)]
struct Count {
    rows: u64,
}

impl ClickHouseSink {
    /// Asks for version and time.
    pub async fn reach(&self) -> Result<Reached, SinkError> {
        #[derive(Deserialize)]
        struct Told {
            version: String,
            micros: i64,
        }
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let doing = || format!("reaching ClickHouse at {}", self.http.url());
        let before = now();
        let told = self.http.rows::<Told>("SELECT version() AS version, toUnixTimestamp64Micro(now64(6)) AS micros").await;
        let after = now();
        let told = told.map_err(|f| f.of(doing()))?.into_iter().next();
        let told = told.ok_or_else(|| SinkError::Retryable { doing: doing(), detail: "it answers nothing".into() })?;
        let at = Duration::from_micros(told.micros.unsigned_abs());
        let skew = before.saturating_sub(at).max(at.saturating_sub(after));
        let fits = told.version.split('.').next().and_then(|v| v.parse::<u32>().ok()).is_some_and(|v| v >= VERSION_MIN);
        Ok(Reached { version: told.version, fits, skew })
    }

    /// Makes a table, widens it, inserts twice under one token, reads, and drops it, with
    /// the database where that was not there.
    pub async fn exercise(&self) -> Result<Exercised, SinkError> {
        let database = &self.names.database;
        let found = |what: &str| format!("SELECT count() AS rows FROM system.{what} = {}", literal(database));
        let count = async |what| self.http.rows::<Count>(&found(what)).await.map(|found| found.first().map_or(0, |c| c.rows));
        let was_there = count("databases WHERE name").await.map_err(|f| f.of(format!("looking for database {database}")))? > 0;
        self.http
            .run(&format!("CREATE DATABASE IF NOT EXISTS {}", identifier(database)))
            .await
            .map_err(|f| f.of(format!("making database {database}")))?;
        let rows = self.exercise_in(database).await;
        // A server that starts meanwhile may have filled it.
        if !was_there && count("tables WHERE database").await.is_ok_and(|tables| tables == 0) {
            let dropped = self.http.run(&format!("DROP DATABASE IF EXISTS {}", identifier(database))).await;
            return Ok(Exercised { rows: rows?, left: dropped.err().map(|f| f.to_string()) });
        }
        Ok(Exercised { rows: rows?, left: None })
    }

    async fn exercise_in(&self, database: &str) -> Result<u64, SinkError> {
        let id = format!("tidegate-doctor-{}", std::process::id());
        let name = self.names.table(&id);
        let step = |what: &str| format!("{what} {database}.{id}");
        let mut fields = vec![arrow::datatypes::Field::new("recorded_at", timestamp(), false)];
        fields.extend(provenance());
        let unfit = |detail: String| SinkError::Permanent { doing: step("making table"), detail };
        let wanted = columns::of(&Schema::new(fields)).map_err(unfit)?;
        self.http
            .run(&columns::create(&name, &wanted, TableOptions { retention_days: None, ..self.tables }).map_err(unfit)?)
            .await
            .map_err(|f| f.of(step("making table")))?;
        let used = async {
            let widened = format!("ALTER TABLE {name} ADD COLUMN IF NOT EXISTS more Nullable(String)");
            self.http.run(&widened).await.map_err(|f| f.of(step("adding a column to")))?;
            let row = Bytes::from_static(
                b"{\"recorded_at\":0,\"_log\":\"doctor\",\"_partition\":0,\"_offset\":0,\"_index\":0,\"_row\":0,\"_epoch\":1}\n",
            );
            for _ in 0..2 {
                let sql = format!("INSERT INTO {name} (recorded_at, _log, _partition, _offset, _index, _row, _epoch) FORMAT JSONEachRow");
                self.http
                    .insert(&sql, &super::table::settings("doctor"), vec![row.clone()])
                    .await
                    .map_err(|f| f.of(step("inserting into")))?;
            }
            let counted = self.http.rows::<Count>(&format!("SELECT count() AS rows FROM {name}")).await;
            Ok(counted.map_err(|f| f.of(step("reading")))?.first().map_or(0, |c| c.rows))
        }
        .await;
        let dropped = self.http.run(&format!("DROP TABLE IF EXISTS {name}")).await.map_err(|f| f.of(step("dropping")));
        used.and_then(|rows| dropped.map(|_| rows))
    }
}
