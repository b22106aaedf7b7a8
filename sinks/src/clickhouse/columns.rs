//! What a block's schema asks of its table: pure, so that it can be read and tested without a server.

use super::{TableOptions, identifier};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use std::fmt::Write;

/// Rows of one partition go with it when they are too old.
const RECORDED_AT: &str = "recorded_at";
/// What rows are sorted by, as far as a table has it: who looks at one tenant, asset and time reads little else.
const ORDER: [&str; 4] = ["tenant", "asset", "occurred_at", RECORDED_AT];
/// Settings that every table has: without the first it forgets tokens at once, without the others a power cut may take rows
/// that were acknowledged.
pub(super) fn settings(options: TableOptions) -> [(&'static str, u64); 3] {
    [("non_replicated_deduplication_window", options.window), ("fsync_after_insert", 1), ("fsync_part_directory", 1)]
}

/// A column as ClickHouse has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: String,
    codec: &'static str,
    /// The unit.
    comment: Option<String>,
}

impl Column {
    fn of(field: &Field) -> Result<Self, String> {
        let (kind, codec) = match field.data_type() {
            DataType::Boolean => ("Bool", "ZSTD(1)"),
            DataType::Int32 => ("Int32", "Delta, ZSTD(1)"),
            DataType::Int64 => ("Int64", "Delta, ZSTD(1)"),
            DataType::Float64 => ("Float64", "ZSTD(1)"),
            DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if &**zone == "UTC" => ("DateTime64(6, 'UTC')", "Delta, ZSTD(1)"),
            DataType::Utf8 | DataType::Binary => ("String", "ZSTD(1)"),
            DataType::Dictionary(_, values) if **values == DataType::Utf8 => ("LowCardinality(String)", "ZSTD(1)"),
            DataType::Map(_, _) => ("Map(LowCardinality(String), Nullable(String))", "ZSTD(1)"),
            other => return Err(format!("column {} is {other}, which no table takes", field.name())),
        };
        let kind = match field.data_type() {
            _ if !field.is_nullable() => kind.to_owned(),
            DataType::Map(_, _) => return Err(format!("column {} is a map that may be missing", field.name())),
            DataType::Dictionary(_, _) => "LowCardinality(Nullable(String))".to_owned(),
            _ => format!("Nullable({kind})"),
        };
        Ok(Self { name: field.name().clone(), kind, codec, comment: field.metadata().get("unit").cloned() })
    }

    fn definition(&self) -> String {
        let comment = self.comment.as_ref().map(|c| format!(" COMMENT {}", super::literal(c))).unwrap_or_default();
        format!("{} {}{comment} CODEC({})", identifier(&self.name), self.kind, self.codec)
    }
}

/// The columns of a schema.
pub(super) fn of(schema: &Schema) -> Result<Vec<Column>, String> {
    schema.fields().iter().map(|f| Column::of(f)).collect()
}

/// The statement that makes a table, unless it is there.
pub(super) fn create(table: &str, columns: &[Column], options: TableOptions) -> Result<String, String> {
    let has = |name: &str| columns.iter().any(|c| c.name == name);
    if !has(RECORDED_AT) {
        return Err(format!("it has no column {RECORDED_AT}, which it would be partitioned by"));
    }
    let mut sql = format!("CREATE TABLE IF NOT EXISTS {table}\n(\n");
    for column in columns {
        let _ = writeln!(sql, "    {},", column.definition());
    }
    // What recovery asks for: read from here it costs milliseconds, however many rows there are.
    sql.push_str("    PROJECTION recovery (SELECT _log, _partition, max(_epoch) GROUP BY _log, _partition)\n)\nENGINE = MergeTree\n");
    let order: Vec<String> = ORDER.iter().filter(|name| has(name)).map(|name| identifier(name)).collect();
    let _ = write!(sql, "PARTITION BY toDate({RECORDED_AT})\nORDER BY ({})\n", order.join(", "));
    if let Some(days) = options.retention_days {
        let _ = writeln!(sql, "TTL {}", ttl(days));
    }
    let settings: Vec<String> = settings(options).iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let _ = write!(sql, "SETTINGS {}, ttl_only_drop_parts = 1", settings.join(", "));
    Ok(sql)
}

/// What makes a row the newest of its asset.
const NEWEST: [&str; 5] = ["occurred_at", RECORDED_AT, "_offset", "_index", "_row"];

/// The statement that makes the view of the newest row of each asset; nothing for a table that has no assets in time.
pub(super) fn latest(view: &str, table: &str, columns: &[Column]) -> Option<String> {
    ["tenant", "asset"].iter().chain(&NEWEST).all(|name| columns.iter().any(|c| c.name == *name)).then(|| {
        let newest = NEWEST.join(", ");
        let parts: Vec<String> = (1..=NEWEST.len()).map(|i| format!("newest.{i}")).collect();
        // Keys first, of all rows, then the rows: the columns of the others are not read.
        format!(
            "CREATE OR REPLACE VIEW {view} SQL SECURITY INVOKER AS SELECT * FROM {table} WHERE (tenant, asset, {newest}) IN \
             (SELECT tenant, asset, {} FROM (SELECT tenant, asset, max(({newest})) AS newest FROM {table} GROUP BY tenant, asset))",
            parts.join(", ")
        )
    })
}

/// When rows are deleted, in the words that the server itself uses when it is asked.
pub(super) fn ttl(days: u32) -> String {
    format!("toDate({RECORDED_AT}) + toIntervalDay({days})")
}

/// The statement that adds columns, each behind the one that it follows in the schema.
pub(super) fn add(table: &str, columns: &[Column], missing: &[&Column]) -> String {
    let place = |column: &Column| {
        let at = columns.iter().position(|c| c.name == column.name).unwrap_or_default();
        at.checked_sub(1).map_or(" FIRST".to_owned(), |before| format!(" AFTER {}", identifier(&columns[before].name)))
    };
    let added: Vec<String> = missing.iter().map(|c| format!("ADD COLUMN IF NOT EXISTS {}{}", c.definition(), place(c))).collect();
    format!("ALTER TABLE {table} {}", added.join(", "))
}

/// Whether a column of the table takes what the log has without changing it.
pub(super) fn takes(table: &str, ours: &str) -> bool {
    let (table, ours) = (plain(table), plain(ours));
    let inner = table.strip_prefix("Nullable(").and_then(|t| t.strip_suffix(')'));
    table == ours || inner == Some(ours.as_str())
}

/// A type without what only says how it is stored or shown.
fn plain(kind: &str) -> String {
    let text = kind.replace("LowCardinality(Nullable(String))", "Nullable(String)").replace("LowCardinality(String)", "String");
    match (text.find("DateTime64(6, '"), text.find("')")) {
        (Some(at), Some(end)) => format!("{}DateTime64(6){}", &text[..at], &text[end + 2..]),
        _ => text,
    }
}
