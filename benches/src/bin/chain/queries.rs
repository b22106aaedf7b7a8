//! Three questions of an analyst, to both stores, over the rows of a fleet that came there by the sinks' own way, in cuts of the
//! default's size: the files, parts and merges are those that a real table has.

use crate::engine::{self, Engine};
use crate::python;
use crate::sinks::{Delivered, Target, as_json, deliver, held, stored, table_of};
use anyhow::{Context, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tidegate_benches::climate::{self, ASSET, MONTH, TENANT};
use tidegate_benches::stages;

/// How often each question is asked; the median is told.
const PASSES: usize = 7;
/// Merges may go on for so long before the questions are asked.
const MERGES: Duration = Duration::from_secs(120);

/// What was found.
pub struct Outcome {
    /// Rows of each store.
    pub rows: u64,
    /// Both deliveries together.
    pub delivered: Delivered,
    /// Milliseconds, sizes, rows read.
    pub further: BTreeMap<&'static str, f64>,
}

/// A question, and the names of its figures.
struct Question {
    name: &'static str,
    sql: String,
    clickhouse_ms: &'static str,
    rows_read: &'static str,
    parquet_ms: &'static str,
}

fn questions(table: &str) -> [Question; 3] {
    let [since, until] = MONTH;
    let view = format!("{}_latest`", table.trim_end_matches('`'));
    [
        Question {
            name: "latest",
            sql: format!("SELECT asset, occurred_at, temperature FROM {view} WHERE tenant = '{TENANT}'"),
            clickhouse_ms: "latest_clickhouse_ms",
            rows_read: "latest_clickhouse_rows_read",
            parquet_ms: "latest_parquet_ms",
        },
        Question {
            name: "hourly",
            sql: format!(
                "SELECT splitByChar('/', organization)[3] AS place, toStartOfHour(occurred_at) AS hour, avg(temperature) FROM {table} \
                 WHERE tenant = '{TENANT}' GROUP BY place, hour"
            ),
            clickhouse_ms: "hourly_clickhouse_ms",
            rows_read: "hourly_clickhouse_rows_read",
            parquet_ms: "hourly_parquet_ms",
        },
        Question {
            name: "month",
            sql: format!(
                "SELECT occurred_at, humidity, temperature FROM {table} WHERE tenant = '{TENANT}' AND asset = '{ASSET}' \
                 AND occurred_at >= '{since}' AND occurred_at < '{until}' ORDER BY occurred_at"
            ),
            clickhouse_ms: "month_clickhouse_ms",
            rows_read: "month_clickhouse_rows_read",
            parquet_ms: "month_parquet_ms",
        },
    ]
}

/// An answer: how long it took, how many rows it has, the sum of its third column.
struct Answer {
    milliseconds: Vec<f64>,
    rows: usize,
    sum: f64,
}

/// Loads so many rows and asks.
pub fn measure(rows: u64) -> anyhow::Result<Outcome> {
    let engine = engine::own().context("no ClickHouse engine")?;
    let python = python::readers().context("no readers of Delta tables")?;
    let folder = tempfile::tempdir()?;
    let log = climate::fill(&folder.path().join("log"), &stages::catalog(&crate::definitions(), 1)?, rows)?;
    let (tables, database) = (folder.path().join("tables"), engine::database());
    let to_parquet = deliver(folder.path(), &log, Target::Parquet(&tables))?;
    let to_clickhouse = deliver(folder.path(), &log, Target::ClickHouse(&engine, &database))?;
    let table = table_of(&engine, &database, "w1")?;
    wait_for_merges(&engine, &database);
    let (files, bytes) = held(&tables, rows)?;
    let mut further = BTreeMap::from([
        ("parquet_load_s", to_parquet.seconds),
        ("clickhouse_load_s", to_clickhouse.seconds),
        ("parquet_files", files as f64),
        ("parquet_bytes_per_row", bytes as f64 / rows as f64),
        ("clickhouse_bytes_per_row", stored(&engine, &database, &table, rows)?),
        ("clickhouse_parts", engine.number(&format!("SELECT count() FROM system.parts WHERE database = '{database}' AND active")) as f64),
    ]);
    further.extend(as_json(&engine, &table, folder.path(), rows)?);
    let of_duckdb = ask_duckdb(&python, &folder_of(&tables)?)?;
    further.insert("parquet_open_ms", of_duckdb["open_ms"].as_f64().context("no time")?);
    for question in questions(&table) {
        let (asked, rows_read) = ask_clickhouse(&engine, &question.sql)?;
        let other = &of_duckdb[question.name];
        let told = |name: &str| other[name].as_f64().with_context(|| format!("no {name} of {}", question.name));
        ensure!(
            asked.rows as f64 == told("rows")? && (asked.sum - told("sum")?).abs() <= 1e-6 * asked.sum.abs(),
            "{}: {} rows and {} in ClickHouse, {other} in Parquet",
            question.name,
            asked.rows,
            asked.sum
        );
        let times = other["ms"].as_array().context("no times")?.iter().filter_map(serde_json::Value::as_f64).collect();
        further.insert(question.clickhouse_ms, median(asked.milliseconds));
        further.insert(question.rows_read, rows_read);
        further.insert(question.parquet_ms, median(times));
    }
    let delivered = Delivered {
        cpu_seconds: to_parquet.cpu_seconds + to_clickhouse.cpu_seconds,
        seconds: to_parquet.seconds + to_clickhouse.seconds,
        rss_max_bytes: to_parquet.rss_max_bytes.max(to_clickhouse.rss_max_bytes),
    };
    Ok(Outcome { rows, delivered, further })
}

fn wait_for_merges(engine: &Engine, database: &str) {
    let began = Instant::now();
    let merging = || engine.number(&format!("SELECT count() FROM system.merges WHERE database = '{database}'"));
    while began.elapsed() < MERGES && merging() > 0 {
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// The one table of the tenant.
fn folder_of(tables: &Path) -> anyhow::Result<PathBuf> {
    let mut found = std::fs::read_dir(tables.join(TENANT))?;
    Ok(found.next().context("no table")??.path())
}

fn ask_duckdb(python: &Path, table: &Path) -> anyhow::Result<serde_json::Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/chain/queries.py");
    let mut command = Command::new(python);
    command.arg(script).arg(table).arg(PASSES.to_string()).arg(ASSET).args(MONTH);
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Its answer, and the rows that the engine says it read for it.
fn ask_clickhouse(engine: &Engine, sql: &str) -> anyhow::Result<(Answer, f64)> {
    let mut answer = Answer { milliseconds: Vec::new(), rows: 0, sum: 0.0 };
    let ask = |format: &str| engine.try_ask(&format!("{sql} FORMAT {format}")).map_err(anyhow::Error::msg);
    for _ in 0..PASSES {
        let began = Instant::now();
        let rows = ask("TabSeparated")?;
        answer.milliseconds.push(began.elapsed().as_secs_f64() * 1e3);
        let values = rows.lines().map(|line| line.split('\t').nth(2).context("no third column")?.parse::<f64>().map_err(Into::into));
        let values = values.collect::<anyhow::Result<Vec<_>>>()?;
        (answer.rows, answer.sum) = (values.len(), values.iter().sum());
    }
    let told: serde_json::Value = serde_json::from_str(&ask("JSON")?)?;
    Ok((answer, told["statistics"]["rows_read"].as_f64().context("no statistics")?))
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}
