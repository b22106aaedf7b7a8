//! Tables: what they are made like, how they grow, what is refused; and how often a row is in them.

use super::engine::{self, shared};
use super::{cut_of, open, options};
use crate::rows::{blocks, runs, table};
use expect_test::expect;
use std::sync::Arc;
use tidegate_schemas::sink::{Sink, SinkError};
use tidegate_schemas::table::FieldType;
use tidegate_sinks::clickhouse::{ClickHouseSink, TableOptions};

const EVERY: [(&str, FieldType, Option<&str>); 6] = [
    ("select", FieldType::Bool, None),
    ("count", FieldType::I64, Some("1")),
    ("note", FieldType::Text, None),
    ("raw", FieldType::Json, None),
    ("seen", FieldType::Timestamp, None),
    ("Order", FieldType::F64, Some("m/s'2")),
];

#[tokio::test]
async fn a_table_is_what_its_fields_say() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    let sink = open(engine, &database);
    let climate = table("climate-7f3a", &EVERY);
    sink.deliver(cut_of(3, 7, |h| blocks(3, h, &climate, &[("acme", 4), ("beta", 2)]))).await.unwrap();
    let made = engine.ask(&format!("SHOW CREATE TABLE `{database}`.`climate-7f3a` FORMAT TSVRaw"));
    expect![[r#"
        CREATE TABLE DATABASE.`climate-7f3a`
        (
            `tenant` LowCardinality(String) CODEC(ZSTD(1)),
            `organization` LowCardinality(String) CODEC(ZSTD(1)),
            `event_id` String CODEC(ZSTD(1)),
            `source` LowCardinality(String) CODEC(ZSTD(1)),
            `asset` LowCardinality(String) CODEC(ZSTD(1)),
            `event_type` LowCardinality(String) CODEC(ZSTD(1)),
            `occurred_at` DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
            `received_at` DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
            `recorded_at` DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
            `template` LowCardinality(String) CODEC(ZSTD(1)),
            `temperature` Nullable(Float64) COMMENT 'Cel' CODEC(ZSTD(1)),
            `select` Nullable(Bool) CODEC(ZSTD(1)),
            `count` Nullable(Int64) COMMENT '1' CODEC(Delta(8), ZSTD(1)),
            `note` Nullable(String) CODEC(ZSTD(1)),
            `raw` Nullable(String) CODEC(ZSTD(1)),
            `seen` Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)),
            `Order` Nullable(Float64) COMMENT 'm/s\'2' CODEC(ZSTD(1)),
            `attributes` Map(LowCardinality(String), Nullable(String)) CODEC(ZSTD(1)),
            `_log` LowCardinality(String) CODEC(ZSTD(1)),
            `_partition` Int32 CODEC(Delta(4), ZSTD(1)),
            `_offset` Int64 CODEC(Delta(8), ZSTD(1)),
            `_index` Int32 CODEC(Delta(4), ZSTD(1)),
            `_row` Int32 CODEC(Delta(4), ZSTD(1)),
            `_epoch` Int64 CODEC(Delta(8), ZSTD(1)),
            PROJECTION recovery
            (
                SELECT
                    _log,
                    _partition,
                    max(_epoch)
                GROUP BY
                    _log,
                    _partition
            )
        )
        ENGINE = MergeTree
        PARTITION BY toDate(recorded_at)
        ORDER BY (tenant, asset, occurred_at, recorded_at)
        SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1, index_granularity = 8192
    "#]]
    .assert_eq(&made.replace(&format!("`{database}`"), "DATABASE"));
    let rows = engine
        .rows(&format!("SELECT tenant, count() AS n, sum(count) AS s FROM `{database}`.`climate-7f3a` GROUP BY tenant ORDER BY tenant"));
    assert_eq!(rows, [serde_json::json!({ "tenant": "acme", "n": 4, "s": 6 }), serde_json::json!({ "tenant": "beta", "n": 2, "s": 1 })]);

    // A system table goes the same way.
    sink.deliver(cut_of(3, 7, |h| runs(3, h, &["acme", "beta"]))).await.unwrap();
    let codes = engine.ask(&format!("SELECT codes['script_error'], duration FROM `{database}`.script_runs WHERE tenant = 'beta'"));
    assert_eq!(codes, "2\t77\n");
}

#[tokio::test]
async fn columns_come_before_the_first_row_that_needs_them_and_old_blocks_still_fit() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    let (old, new) = (table("climate", &[]), table("climate", &EVERY));
    // Two processes that begin at once, each with a partition of its own, before and behind the change.
    let (one, other) = (open(engine, &database), open(engine, &database));
    for epoch in [1, 3] {
        let (a, b) = tokio::join!(
            one.deliver(cut_of(0, epoch, |h| blocks(0, h, &old, &[("acme", 3)]))),
            other.deliver(cut_of(1, epoch, |h| blocks(1, h, &new, &[("acme", 5)])))
        );
        a.unwrap();
        b.unwrap();
    }
    let told = engine.ask(&format!("SELECT _partition, count(), countIf(note IS NULL), countIf(count IS NULL) FROM `{database}`.climate GROUP BY _partition ORDER BY _partition"));
    assert_eq!(told, "0\t6\t6\t6\n1\t10\t0\t0\n");
    let columns =
        engine.ask(&format!("SELECT name FROM system.columns WHERE database = '{database}' AND table = 'climate' ORDER BY position"));
    let place = |name: &str| columns.lines().position(|l| l == name).unwrap();
    assert!(place("temperature") < place("select") && place("Order") < place("attributes"), "{columns}");
}

#[tokio::test]
async fn the_newest_row_of_each_asset_has_a_view_that_grows_with_its_table() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    let sink = open(engine, &database);
    let (old, new) = (table("climate-1", &[]), table("climate-1", &[("n", FieldType::I64, None)]));
    for epoch in 1..=3 {
        sink.deliver(cut_of(0, epoch, |h| blocks(0, h, &old, &[("acme", 7), ("beta", 2)]))).await.unwrap();
    }
    let view = format!("`{database}`.`climate-1_latest`");
    let newest = || engine.ask(&format!("SELECT tenant, asset, _epoch, _index FROM {view} ORDER BY tenant, asset"));
    // The rows of an epoch share their time, so the highest place decides.
    let of_three = "acme\tacme-pump-0\t3\t6406\nacme\tacme-pump-1\t3\t4406\nacme\tacme-pump-2\t3\t5406\nbeta\tbeta-pump-0\t3\t412\nbeta\tbeta-pump-1\t3\t1412\n";
    assert_eq!(newest(), of_three);
    sink.deliver(cut_of(1, 9, |h| blocks(1, h, &new, &[("acme", 1)]))).await.unwrap();
    assert!(newest().starts_with("acme\tacme-pump-0\t9\t406\nacme\tacme-pump-1\t3\t4406\n"), "{}", newest());
    assert_eq!(engine.ask(&format!("SELECT n FROM {view} WHERE asset = 'acme-pump-0'")), "0\n");
}

#[tokio::test]
async fn a_table_that_would_change_values_is_refused_with_the_place() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    let sink = open(engine, &database);
    let climate = table("climate", &[("count", FieldType::I64, None)]);
    let cut = cut_of(0, 1, |h| blocks(0, h, &climate, &[("acme", 3)]));
    sink.deliver(cut.clone()).await.unwrap();
    engine.ask(&format!("ALTER TABLE `{database}`.climate MODIFY COLUMN count Nullable(Int8)"));
    // Whoever comes anew, and who knew the table as it was.
    for sink in [open(engine, &database), sink] {
        let error = sink.deliver(cut.clone()).await.unwrap_err();
        assert!(matches!(error, SinkError::Permanent { .. }), "{error}");
        assert_eq!(
            error.to_string(),
            format!(
                "preparing table {database}.climate: column count is Nullable(Int8) there and Nullable(Int64) in the log; alter it, or rename the table away so that a new one is made"
            )
        );
    }
    let alter = |how: &str| engine.ask(&format!("ALTER TABLE `{database}`.climate {how}"));
    alter("DROP COLUMN count");
    alter("ADD COLUMN count Int64");
    let error = open(engine, &database).deliver(cut).await.unwrap_err();
    assert!(error.to_string().contains("column count is Int64 there and Nullable(Int64) in the log"), "{error}");
    // What only says how a value is stored or shown is the owner's business, and so are columns of his own.
    alter("DROP COLUMN count");
    alter("ADD COLUMN count Nullable(Int64), ADD COLUMN owner String DEFAULT 'me'");
    alter("MODIFY COLUMN received_at DateTime64(6, 'Europe/Berlin'), MODIFY COLUMN organization String");
    open(engine, &database).deliver(cut_of(0, 2, |h| blocks(0, h, &climate, &[("acme", 3)]))).await.unwrap();
    assert_eq!(engine.number(&format!("SELECT countIf(owner = 'me') FROM `{database}`.climate")), 6);
}

#[tokio::test]
async fn a_table_that_somebody_dropped_is_made_again_and_one_that_lost_a_setting_gets_it_back() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    let climate = table("climate", &[]);
    let sink = open(engine, &database);
    sink.deliver(cut_of(0, 1, |h| blocks(0, h, &climate, &[("acme", 3)]))).await.unwrap();
    engine.ask(&format!("DROP TABLE `{database}`.climate SYNC"));
    let next = cut_of(0, 2, |h| blocks(0, h, &climate, &[("acme", 3)]));
    sink.deliver(next).await.unwrap();
    assert_eq!(engine.number(&format!("SELECT count() FROM `{database}`.climate")), 3);

    engine.ask(&format!("ALTER TABLE `{database}`.climate RESET SETTING non_replicated_deduplication_window, fsync_after_insert"));
    let tables = TableOptions { retention_days: Some(30_000), ..TableOptions::default() };
    let sink = ClickHouseSink::open(tidegate_sinks::clickhouse::ClickHouseOptions { tables, ..options(engine, &database) }).unwrap();
    let third = cut_of(0, 3, |h| blocks(0, h, &climate, &[("acme", 3)]));
    sink.deliver(third).await.unwrap();
    let full = || engine.ask(&format!("SELECT engine_full FROM system.tables WHERE database = '{database}' AND name = 'climate'"));
    let stored = full();
    for wanted in
        ["non_replicated_deduplication_window = 10000", "fsync_after_insert = 1", "TTL toDate(recorded_at) + toIntervalDay(30000)"]
    {
        assert!(stored.contains(wanted), "{stored}");
    }
    // As it is configured, without a repeat of the change, and gone when it is configured away.
    let mutations = || engine.number(&format!("SELECT count() FROM system.mutations WHERE database = '{database}'"));
    let before = mutations();
    let sink = ClickHouseSink::open(tidegate_sinks::clickhouse::ClickHouseOptions { tables, ..options(engine, &database) }).unwrap();
    sink.deliver(cut_of(0, 4, |h| blocks(0, h, &climate, &[("acme", 3)]))).await.unwrap();
    assert_eq!((full(), mutations()), (stored, before));
    open(engine, &database).deliver(cut_of(0, 5, |h| blocks(0, h, &climate, &[("acme", 3)]))).await.unwrap();
    assert!(!full().contains("TTL"), "{}", full());
    assert_eq!(engine.number(&format!("SELECT count() FROM `{database}`.climate")), 12);
}

#[tokio::test]
async fn a_cut_is_there_once_however_often_and_by_whomever_it_is_delivered() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    let climate = table("climate", &[]);
    let make = |partition, epoch| cut_of(partition, epoch, |h| [blocks(partition, h, &climate, &[("acme", 30), ("beta", 4)])].concat());
    let sinks: Vec<Arc<ClickHouseSink>> = (0..4).map(|_| open(engine, &database)).collect();
    sinks[0].deliver(make(0, 1)).await.unwrap();
    for cut in [make(0, 2), make(1, 2)] {
        // A process that woke up again, and its successors.
        let all = futures(&sinks, &cut).await;
        all.into_iter().for_each(|delivered| delivered.unwrap());
        sinks[1].deliver(cut).await.unwrap();
    }
    assert_eq!(engine.number(&format!("SELECT count() FROM `{database}`.climate")), 3 * 34);
    // One insert, one block: all or nothing.
    let parts = format!("SELECT max(n) FROM (SELECT uniqExact(_part) AS n FROM `{database}`.climate GROUP BY _partition, _epoch)");
    assert_eq!(engine.number(&parts), 1);
    for (partition, held) in [(0, Some(2)), (1, Some(2)), (2, None)] {
        assert_eq!(sinks[0].held(crate::log::LOG, partition, &make(0, 2).target).await.unwrap(), held);
    }
    assert_eq!(sinks[0].held(tidegate_schemas::ids::LogId([8; 16]), 0, &make(0, 2).target).await.unwrap(), None);
    let nowhere = open(engine, &engine::database());
    assert_eq!(nowhere.held(crate::log::LOG, 0, &make(0, 2).target).await.unwrap(), None);
}

async fn futures(sinks: &[Arc<ClickHouseSink>], cut: &tidegate_schemas::sink::Cut) -> Vec<Result<(), SinkError>> {
    let mut tasks = tokio::task::JoinSet::new();
    for sink in sinks {
        let (sink, cut) = (Arc::clone(sink), cut.clone());
        tasks.spawn(async move { sink.deliver(cut).await });
    }
    tasks.join_all().await
}

#[tokio::test]
async fn the_repeat_of_the_last_cut_completes_what_hangs_on_the_table() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    let climate = table("climate", &[]);
    let make = |epoch| cut_of(0, epoch, |h| blocks(0, h, &climate, &[("acme", 30)]));
    let sink = open(engine, &database);
    sink.deliver(make(1)).await.unwrap();
    // The server died between the table and its view.
    engine.ask(&format!("CREATE TABLE `{database}`.hourly (asset String, n UInt64) ENGINE = MergeTree ORDER BY asset SETTINGS non_replicated_deduplication_window = 100"));
    engine.ask(&format!("CREATE MATERIALIZED VIEW `{database}`.to_hourly TO `{database}`.hourly AS SELECT asset, count() AS n FROM `{database}`.climate GROUP BY asset"));
    let hourly = || engine.number(&format!("SELECT sum(n) FROM `{database}`.hourly"));
    assert_eq!(hourly(), 0);
    for _ in 0..3 {
        assert!(sink.repeats(&make(1)).await.unwrap());
        sink.deliver(make(1)).await.unwrap();
        assert_eq!((hourly(), engine.number(&format!("SELECT count() FROM `{database}`.climate"))), (30, 30));
    }
}

#[tokio::test]
async fn beyond_the_window_a_cut_is_not_repeated() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    let climate = table("climate", &[]);
    let make = |partition, epoch| cut_of(partition, epoch, |h| blocks(partition, h, &climate, &[("acme", 3)]));
    let tables = TableOptions { window: 8, ..TableOptions::default() };
    let sink = ClickHouseSink::open(tidegate_sinks::clickhouse::ClickHouseOptions { tables, ..options(engine, &database) }).unwrap();
    sink.deliver(make(0, 1)).await.unwrap();
    for epoch in 1..=4 {
        assert!(sink.repeats(&make(0, 1)).await.unwrap());
        sink.deliver(make(1, epoch)).await.unwrap();
    }
    for epoch in 5..=12 {
        sink.deliver(make(1, epoch)).await.unwrap();
        assert!(!sink.repeats(&make(0, 1)).await.unwrap(), "after {epoch}");
    }
    engine.ask(&format!("OPTIMIZE TABLE `{database}`.climate FINAL"));
    assert!(!sink.repeats(&make(0, 1)).await.unwrap());
    let count = || engine.number(&format!("SELECT count() FROM `{database}`.climate WHERE _partition = 0"));
    assert_eq!(count(), 3);
    // That it matters: the table does not know the token any more.
    sink.deliver(make(0, 1)).await.unwrap();
    assert_eq!(count(), 6);
}

#[tokio::test]
async fn what_the_server_says_is_retried_or_parks() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    let climate = table("climate", &[]);
    let cut = cut_of(0, 1, |h| blocks(0, h, &climate, &[("acme", 3)]));
    let with = |url: String, user: &str, password: &str| {
        let secret = tidegate_schemas::secret::Secret::new(password.as_bytes());
        let options =
            tidegate_sinks::clickhouse::ClickHouseOptions { url, user: user.into(), password: Some(secret), ..options(engine, &database) };
        ClickHouseSink::open(options).unwrap()
    };
    let nobody = "http://127.0.0.1:1".to_owned();
    for (sink, word) in [
        (with(engine.url(), engine::USER, "guessed"), "AUTHENTICATION_FAILED"),
        (with(engine.url(), "reader", ""), "READONLY"),
        (with(nobody, engine::USER, engine::PASSWORD), "Connection refused"),
    ] {
        let error = sink.deliver(cut.clone()).await.unwrap_err();
        assert!(matches!(error, SinkError::Retryable { .. }) && error.to_string().contains(word), "{error}");
        assert!(!error.to_string().contains("guessed"), "{error}");
    }
    // A constraint of the owner's that rows break: they would break it again.
    let sink = open(engine, &database);
    sink.deliver(cut.clone()).await.unwrap();
    engine.ask(&format!("ALTER TABLE `{database}`.climate ADD CONSTRAINT known CHECK tenant != 'beta'"));
    let error = sink.deliver(cut_of(0, 2, |h| blocks(0, h, &climate, &[("acme", 3), ("beta", 1)]))).await.unwrap_err();
    assert!(matches!(error, SinkError::Permanent { .. }), "{error}");
    assert_eq!(engine.number(&format!("SELECT count() FROM `{database}`.climate")), 3, "all or nothing");
    let held = sink.held(crate::log::LOG, 0, &cut.target).await.unwrap();
    assert_eq!(held, Some(1));
}

#[tokio::test]
async fn a_doctor_tries_everything_and_leaves_nothing() {
    let Some(engine) = shared() else { return };
    let database = engine::database();
    let sink = open(engine, &database);
    let reached = sink.reach().await.unwrap();
    assert!(reached.fits && reached.version.starts_with("26."), "{reached:?}");
    assert!(reached.skew < std::time::Duration::from_secs(5), "one clock: {reached:?}");
    let databases = || engine.number(&format!("SELECT count() FROM system.databases WHERE name = '{database}'"));
    let before = databases();
    let exercised = sink.exercise().await.unwrap();
    assert_eq!((exercised.rows, exercised.left, databases()), (1, None, before));
    // One that was there stays, with what is in it.
    engine.ask(&format!("CREATE DATABASE IF NOT EXISTS `{database}`"));
    engine.ask(&format!("CREATE TABLE `{database}`.kept (n Int8) ENGINE = MergeTree ORDER BY n"));
    assert_eq!(sink.exercise().await.unwrap().rows, 1);
    assert_eq!(engine.number(&format!("SELECT count() FROM system.tables WHERE database = '{database}'")), 1);
}
