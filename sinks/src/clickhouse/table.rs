//! One table: made and widened before the first row that needs it, and asked what it holds.

use super::http::Failure;
use super::{ClickHouseSink, columns, literal};
use arrow::datatypes::{Schema, SchemaRef};
use serde::Deserialize;
use tidegate_schemas::fault;
use tidegate_schemas::ids::{Epoch, LogId, Partition};
use tidegate_schemas::limits::{CLICKHOUSE_BLOCK_BYTES_MAX, CLICKHOUSE_BLOCK_ROWS_MAX};
use tidegate_schemas::sink::{Cut, Sink, SinkError, Target};

/// What the name of the view of the newest rows ends with. No table's id does.
const LATEST: &str = "_latest";

/// A line of `DESCRIBE TABLE`.
#[derive(Deserialize)]
struct Described {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

/// How a table is stored.
#[derive(Deserialize)]
struct Stored {
    engine_full: String,
}

/// The insert of a cut. Its columns are named: what the table has besides gets its defaults.
pub(super) fn insert(table: &str, schema: &Schema) -> String {
    let columns: Vec<String> = schema.fields().iter().map(|f| super::identifier(f.name())).collect();
    format!("INSERT INTO {table} ({}) FORMAT ArrowStream", columns.join(", "))
}

/// The settings of every insert: all or nothing, known again by its token, and nothing put in place of what does not fit.
/// The block sizes belong to the token: a repeat under others would be other blocks.
pub(super) fn settings(token: &str) -> [(&'static str, String); 8] {
    [
        ("insert_deduplication_token", token.to_owned()),
        ("insert_deduplicate", "1".into()),
        ("deduplicate_blocks_in_dependent_materialized_views", "1".into()),
        ("async_insert", "0".into()),
        ("min_insert_block_size_rows", CLICKHOUSE_BLOCK_ROWS_MAX.to_string()),
        ("min_insert_block_size_bytes", CLICKHOUSE_BLOCK_BYTES_MAX.to_string()),
        ("input_format_arrow_allow_missing_columns", "0".into()),
        ("input_format_null_as_default", "0".into()),
    ]
}

impl ClickHouseSink {
    /// Makes the table, or adds the columns that it lacks, and compares the rest: the server itself would drop what it does
    /// not know, and narrow what does not fit, without a word.
    pub(super) async fn prepare(&self, table: &str, schema: &SchemaRef) -> Result<(), SinkError> {
        let name = self.names.table(table);
        let doing = || format!("preparing table {}.{table}", self.names.database);
        let unfit = |detail: String| SinkError::Permanent { doing: doing(), detail };
        let wanted = columns::of(schema).map_err(unfit)?;
        let mut found = self.describe(&name).await.map_err(|f| f.of(doing()))?;
        let mut changed = found.is_empty();
        if changed {
            self.make(&columns::create(&name, &wanted, self.tables).map_err(unfit)?).await.map_err(|f| f.of(doing()))?;
            found = self.describe(&name).await.map_err(|f| f.of(doing()))?;
        }
        let missing: Vec<_> = wanted.iter().filter(|c| found.iter().all(|f| f.name != c.name)).collect();
        if !missing.is_empty() {
            changed = true;
            let sql = columns::add(&name, &wanted, &missing);
            self.change(&sql).await.map_err(|f| f.of(doing()))?;
            let names: Vec<&str> = missing.iter().map(|c| c.name.as_str()).collect();
            tracing::info!(table, columns = names.join(", "), "columns added");
            found = self.describe(&name).await.map_err(|f| f.of(doing()))?;
        }
        for column in &wanted {
            let kind = found.iter().find(|f| f.name == column.name).map_or("missing", |f| f.kind.as_str());
            if !columns::takes(kind, &column.kind) {
                return Err(unfit(format!(
                    "column {} is {kind} there and {} in the log; alter it, or rename the table away so that a new one is made",
                    column.name, column.kind
                )));
            }
        }
        self.keep_promises(table, &name).await.map_err(|f| f.of(doing()))?;
        let view = self.names.table(&format!("{table}{LATEST}"));
        if changed && let Some(sql) = columns::latest(&view, &name, &wanted) {
            // Rows do not wait for a view.
            if let Err(failure) = self.change(&sql).await {
                tracing::warn!(table, view, %failure, "the view of the newest rows could not be made");
            }
        }
        Ok(())
    }

    /// Whether a table that was prepared still has the columns that it had. Somebody may alter it at any time, and the server would
    /// change the values of an insert to fit; between this look and the insert it still can.
    pub(super) async fn still_takes(&self, table: &str, schema: &SchemaRef) -> Result<bool, SinkError> {
        let doing = || format!("looking at table {}.{table}", self.names.database);
        let wanted = columns::of(schema).map_err(|detail| SinkError::Permanent { doing: doing(), detail })?;
        let found = self.describe(&self.names.table(table)).await.map_err(|f| f.of(doing()))?;
        let takes = |c: &columns::Column| found.iter().any(|f| f.name == c.name && columns::takes(&f.kind, &c.kind));
        Ok(wanted.iter().all(takes))
    }

    /// The columns of a table; none where there is no table.
    async fn describe(&self, name: &str) -> Result<Vec<Described>, Failure> {
        match self.http.rows(&format!("DESCRIBE TABLE {name}")).await {
            Err(failure) if failure.is_absence() => Ok(Vec::new()),
            found => found,
        }
    }

    /// Makes a table, and its database where that is missing too.
    async fn make(&self, sql: &str) -> Result<(), Failure> {
        match self.change(sql).await {
            Err(failure) if failure.is_absence() => {
                self.http.run(&format!("CREATE DATABASE IF NOT EXISTS {}", super::identifier(&self.names.database))).await?;
                self.change(sql).await
            }
            made => made,
        }
    }

    async fn change(&self, sql: &str) -> Result<(), Failure> {
        fault::point("table.before_change");
        let done = self.http.run(sql).await;
        fault::point("table.after_change");
        done.map(drop)
    }

    /// Settings that a table needs and retention as it is configured, whoever made the table and when. Tables of other engines
    /// (replicated ones) keep tokens by settings of their own.
    async fn keep_promises(&self, table: &str, name: &str) -> Result<(), Failure> {
        let asked = format!(
            "SELECT engine_full FROM system.tables WHERE database = {} AND name = {}",
            literal(&self.names.database),
            literal(table)
        );
        let Some(stored) = self.http.rows::<Stored>(&asked).await?.into_iter().next().map(|s| s.engine_full) else { return Ok(()) };
        if stored.starts_with("MergeTree") {
            let least = |setting: &str| {
                let at = stored.find(&format!("{setting} = "))? + setting.len() + 3;
                stored[at..].split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
            };
            let wanted = columns::settings(self.tables);
            let missing = wanted.iter().filter(|(setting, value)| least(setting).is_none_or(|found| found < *value));
            let missing: Vec<String> = missing.map(|(setting, value)| format!("{setting} = {value}")).collect();
            if !missing.is_empty() {
                self.change(&format!("ALTER TABLE {name} MODIFY SETTING {}", missing.join(", "))).await?;
            }
        }
        match self.tables.retention_days.map(columns::ttl) {
            Some(ttl) if !stored.contains(&format!("TTL {ttl} ")) => {
                tracing::info!(table, ttl, "retention changed");
                self.change(&format!("ALTER TABLE {name} MODIFY TTL {ttl}")).await
            }
            None if stored.contains(" TTL toDate(recorded_at) + ") => {
                tracing::info!(table, "retention ended");
                self.change(&format!("ALTER TABLE {name} REMOVE TTL")).await
            }
            _ => Ok(()),
        }
    }

    /// The last epoch of a log's partition that a table holds.
    pub(super) async fn highest_epoch(&self, log: LogId, partition: Partition, target: &Target) -> Result<Option<Epoch>, SinkError> {
        #[derive(Deserialize)]
        struct Highest {
            epoch: Epoch,
        }
        let name = self.names.table(&target.table);
        let sql = format!("SELECT max(_epoch) AS epoch FROM {name} WHERE _log = '{log}' AND _partition = {partition}");
        match self.http.rows::<Highest>(&sql).await {
            Ok(found) => Ok(found.first().map(|h| h.epoch).filter(|epoch| *epoch > 0)),
            Err(failure) if failure.is_absence() => Ok(None),
            Err(failure) => Err(failure.of(format!("asking {} what it holds", self.location(target)))),
        }
    }

    /// Whether the table still knows this cut's token for sure. Its inserts are numbered, and parts tell the numbers that they
    /// hold: the distance from the cut's own part to the newest one bounds the inserts since. Half of the window is left to those
    /// under way. Once the part was merged with much older ones the bound says nothing any more, and the cut is not repeated. Of
    /// engines that count otherwise nothing is known.
    pub(super) async fn is_inside_window(&self, cut: &Cut) -> Result<bool, SinkError> {
        #[derive(Deserialize)]
        struct Distance {
            inserts: u64,
        }
        let name = self.names.table(&cut.target.table);
        let (database, table) = (literal(&self.names.database), literal(&cut.target.table));
        let parts = format!("system.parts WHERE database = {database} AND table = {table} AND active");
        let sql = format!(
            "SELECT (SELECT max(max_block_number) FROM {parts}) - min(min_block_number) AS inserts FROM {parts} AND name IN \
             (SELECT DISTINCT _part FROM {name} WHERE _log = '{}' AND _partition = {} AND _epoch = {}) \
             HAVING count() > 0 AND (SELECT engine FROM system.tables WHERE database = {database} AND name = {table}) = 'MergeTree'",
            cut.log, cut.partition, cut.last
        );
        let found = self.http.rows::<Distance>(&sql).await;
        let found = found.map_err(|f| f.of(format!("asking {} for its newest inserts", self.location(&cut.target))))?;
        Ok(found.first().is_some_and(|d| d.inserts <= self.tables.window / 2))
    }
}
