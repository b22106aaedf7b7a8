//! The sinks alone: a log of committed rows that is there, and a process that does nothing but deliver it, by the driver of
//! production. What its CPU does is reading the log, checking and cutting blocks, and what the sink itself needs.

use crate::engine::{self, Engine, PASSWORD, USER};
use crate::server::again;
use anyhow::{Context, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_benches::committed::{self, Committed};
use tidegate_benches::stages;
use tidegate_benches::workload::Workload;
use tidegate_pipeline::usage;
use tidegate_schemas::secret::Secret;
use tidegate_schemas::sink::Sink;
use tidegate_sinks::clickhouse::{ClickHouseOptions, ClickHouseSink, TableOptions};
use tidegate_sinks::driver::{Driver, DriverOptions};
use tidegate_sinks::objects::Objects;
use tidegate_sinks::parquet::verify::Verifier;
use tidegate_sinks::parquet::{ParquetOptions, ParquetSink};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Where rows go.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// Delta tables in a folder.
    Parquet(&'a Path),
    /// A database of an engine.
    ClickHouse(&'a Engine, &'a str),
}

/// What a delivery cost.
#[derive(serde::Serialize, serde::Deserialize, Clone, Copy)]
pub struct Delivered {
    /// CPU of the delivering process.
    pub cpu_seconds: f64,
    /// How long it took.
    pub seconds: f64,
    /// Of the delivering process.
    pub rss_max_bytes: u64,
}

/// What a sink was measured to cost.
pub struct Outcome {
    /// Rows that the sink has.
    pub rows: u64,
    /// What their delivery cost.
    pub delivered: Delivered,
    /// Further figures.
    pub further: BTreeMap<&'static str, f64>,
}

/// Delivers so many events of W1 to Parquet.
pub fn parquet(events: u64) -> anyhow::Result<Outcome> {
    let (folder, log) = log_of_w1(events)?;
    let tables = folder.path().join("tables");
    let delivered = deliver(folder.path(), &log, Target::Parquet(&tables))?;
    let (files, bytes) = held(&tables, log.rows)?;
    let further = BTreeMap::from([
        ("parquet_files", files as f64),
        ("parquet_bytes_per_row", bytes as f64 / log.rows as f64),
        ("log_bytes_per_row", log.bytes as f64 / log.rows as f64),
    ]);
    Ok(Outcome { rows: log.rows, delivered, further })
}

/// Delivers so many events of W1 to ClickHouse.
pub fn clickhouse(events: u64) -> anyhow::Result<Outcome> {
    let engine = engine::own().context("no ClickHouse engine")?;
    let (folder, log) = log_of_w1(events)?;
    let database = engine::database();
    let cpu = usage::cpu_seconds(engine.pid());
    let delivered = deliver(folder.path(), &log, Target::ClickHouse(&engine, &database))?;
    let per_million = |seconds: f64| seconds / log.rows as f64 * 1e6;
    let mut further = BTreeMap::from([("engine_cpu_s_per_million", per_million(usage::cpu_seconds(engine.pid()) - cpu))]);
    let table = table_of(&engine, &database, "w1")?;
    further.insert("clickhouse_bytes_per_row", stored(&engine, &database, &table, log.rows)?);
    // One part a day, as background merges leave it behind in the end.
    engine.ask(&format!("OPTIMIZE TABLE {table} FINAL"));
    further.insert("clickhouse_merged_bytes_per_row", stored(&engine, &database, &table, log.rows)?);
    further.extend(as_json(&engine, &table, folder.path(), log.rows)?);
    let sent = Workload::W1.array(0, 1_000).len() as f64 / 1e3;
    further.insert("sent_bytes_per_row", sent);
    Ok(Outcome { rows: log.rows, delivered, further })
}

fn log_of_w1(events: u64) -> anyhow::Result<(tempfile::TempDir, Committed)> {
    let folder = tempfile::tempdir()?;
    let log = fill(folder.path(), events)?;
    Ok((folder, log))
}

fn fill(folder: &Path, events: u64) -> anyhow::Result<Committed> {
    let catalog = stages::catalog(&crate::definitions(), 1)?;
    committed::workload(&folder.join("log"), &catalog, Workload::W1, events)
}

/// `log FOLDER EVENTS`: a log that stays, for profiles of `deliver`; prints its last epoch.
pub fn making(args: &[String]) -> anyhow::Result<()> {
    let [folder, events] = args else { bail!("no folder and events") };
    println!("{}", fill(Path::new(folder), events.parse()?)?.last);
    Ok(())
}

/// Rows and files of Delta tables, once no row is missing or there twice.
pub fn held(tables: &Path, rows: u64) -> anyhow::Result<(u64, u64)> {
    let verifier = Verifier::open(Objects::folder(tables)?)?;
    let (mut found, mut files, mut bytes) = (0, 0, 0);
    for table in verifier.tables()? {
        let held = verifier.table(&table)?;
        ensure!(held.duplicates == 0, "{} rows are there more than once", held.duplicates);
        found += held.rows.values().sum::<u64>();
        (files, bytes) = (files + held.files, bytes + held.bytes);
    }
    ensure!(found == rows, "expected {rows} rows, the tables hold {found}");
    Ok((files, bytes))
}

/// The table of ours with this name, quoted.
pub fn table_of(engine: &Engine, database: &str, name: &str) -> anyhow::Result<String> {
    let sql = format!("SELECT name FROM system.tables WHERE database = '{database}' AND name LIKE '{name}-%' AND engine = 'MergeTree'");
    let found = engine.try_ask(&sql).map_err(anyhow::Error::msg)?;
    ensure!(found.lines().count() == 1, "no table, or several: {found:?}");
    Ok(format!("`{database}`.`{}`", found.trim()))
}

/// Bytes on disk of a row, once no row is missing or there twice.
pub fn stored(engine: &Engine, database: &str, table: &str, rows: u64) -> anyhow::Result<f64> {
    let found = engine.rows(&format!("SELECT count() AS rows, uniqExact(_offset, _index, _row) AS distinct FROM {table}"));
    let expected = serde_json::json!({ "rows": rows, "distinct": rows });
    ensure!(found == [expected.clone()], "expected {expected}, the table holds {found:?}");
    let bytes = engine.number(&format!("SELECT sum(bytes_on_disk) FROM system.parts WHERE database = '{database}' AND active"));
    Ok(bytes as f64 / rows as f64)
}

/// Rows that are written as JSON.
const JSON_ROWS: u64 = 500_000;

/// Bytes of the same rows, every column of them, as lines of JSON in the order in which they came, plain and compressed; the
/// engine writes them.
pub fn as_json(engine: &Engine, table: &str, folder: &Path, rows: u64) -> anyhow::Result<[(&'static str, f64); 2]> {
    let size = |ending: &str| {
        let file = folder.join(format!("rows.ndjson{ending}"));
        engine.ask(&format!(
            "INSERT INTO FUNCTION file('{}', JSONEachRow) SELECT * FROM {table} ORDER BY _offset, _index LIMIT {JSON_ROWS}",
            file.display()
        ));
        let bytes = std::fs::metadata(&file)?.len();
        std::fs::remove_file(&file)?;
        anyhow::Ok(bytes as f64 / rows.min(JSON_ROWS) as f64)
    };
    Ok([("ndjson_bytes_per_row", size("")?), ("ndjson_zstd_bytes_per_row", size(".zst")?)])
}

/// Delivers the log of a folder in a process of its own, as the product would be started.
pub fn deliver(folder: &Path, log: &Committed, target: Target<'_>) -> anyhow::Result<Delivered> {
    let mut command = again()?;
    command.arg("deliver").arg(folder).arg(log.last.to_string());
    match target {
        Target::Parquet(tables) => command.arg("parquet").arg(tables),
        Target::ClickHouse(engine, database) => command.args(["clickhouse", &engine.url(), database]),
    };
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the delivery ended with {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// That process: `deliver FOLDER EPOCH parquet TABLES` or `deliver FOLDER EPOCH clickhouse URL DATABASE`.
pub fn delivering(args: &[String]) -> anyhow::Result<()> {
    let [folder, last, rest @ ..] = args else { bail!("no folder and epoch") };
    let (folder, last) = (Path::new(folder), last.parse()?);
    let sink: Arc<dyn Sink> = match rest {
        [kind, tables] if kind == "parquet" => Arc::new(ParquetSink::open(Objects::folder(Path::new(tables))?, ParquetOptions::default())?),
        [kind, url, database] if kind == "clickhouse" => Arc::new(ClickHouseSink::open(ClickHouseOptions {
            url: url.clone(),
            database: database.clone(),
            user: USER.into(),
            password: Some(Secret::new(PASSWORD.as_bytes())),
            ca_file: None,
            patience: Duration::from_secs(120),
            tables: TableOptions::default(),
        })?),
        _ => bail!("no such sink: {rest:?}"),
    };
    let park = folder.join(sink.name());
    let log = committed::open(&folder.join("log"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let delivered = runtime.block_on(async {
        let (started, cpu) = (Instant::now(), usage::cpu_seconds(usage::SELF));
        let driver = Driver::new(log, sink, DriverOptions::new(park));
        let (progress, stop) = (driver.progress(), CancellationToken::new());
        let (_partitions, told) = watch::channel(BTreeSet::from([0]));
        let mut running = std::pin::pin!(driver.run(told, stop.clone()));
        while progress.settled(0) < last {
            tokio::select! {
                ended = &mut running => bail!("the driver ended: {ended:?}"),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
            let wrong = (progress.failure(), progress.parked(), progress.stopped());
            ensure!(wrong.0.is_none() && wrong.1.is_empty() && wrong.2.is_empty(), "{wrong:?}");
        }
        let delivered = Delivered {
            cpu_seconds: usage::cpu_seconds(usage::SELF) - cpu,
            seconds: started.elapsed().as_secs_f64(),
            rss_max_bytes: usage::rss_bytes(usage::SELF).1,
        };
        stop.cancel();
        running.await?;
        Ok(delivered)
    })?;
    println!("{}", serde_json::to_string(&delivered)?);
    Ok(())
}
