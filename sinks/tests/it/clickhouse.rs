//! The real engine: each row once, whatever is interrupted, repeated or lost, and every value as it was.

mod driven;
pub mod engine;
mod tables;
mod values;

use crate::log::{MemoryLog, header};
use engine::{Engine, PASSWORD, USER};
use std::sync::Arc;
use std::time::Duration;
use tidegate_schemas::block::Block;
use tidegate_schemas::ids::Partition;
use tidegate_schemas::log::SinkCursor;
use tidegate_schemas::secret::Secret;
use tidegate_schemas::sink::{Cut, CutParameters, Grain};
use tidegate_schemas::system::SystemTable;
use tidegate_sinks::clickhouse::{ClickHouseOptions, ClickHouseSink, TableOptions};
use tidegate_sinks::driver::{Follower, TableSelection};

/// 2026-11-25 00:00 UTC.
const DAY: f64 = 20_782.0 * 86_400.0;

fn cut() -> CutParameters {
    CutParameters { rows: 20, rows_max: 60, seconds_min: 5, edge_seconds: 30, ..CutParameters::default() }
}

fn options(engine: &Engine, database: &str) -> ClickHouseOptions {
    ClickHouseOptions {
        url: engine.url(),
        database: database.into(),
        user: USER.into(),
        password: Some(Secret::new(PASSWORD.as_bytes())),
        ca_file: None,
        patience: Duration::from_secs(20),
        tables: TableOptions::default(),
    }
}

fn open(engine: &Engine, database: &str) -> Arc<ClickHouseSink> {
    Arc::new(ClickHouseSink::open(options(engine, database)).unwrap())
}

/// The one cut of these blocks.
fn cut_of(partition: Partition, epoch: u64, make: impl FnOnce(&tidegate_schemas::block::EpochHeader) -> Vec<Block>) -> Cut {
    let log = MemoryLog::new(partition + 1);
    let at = header(epoch, DAY + epoch as f64, cut());
    log.epoch(partition, &at, make(&at), vec![]);
    log.epoch(partition, &header(epoch + 1, DAY + epoch as f64 + 3_600.0, cut()), vec![], vec![]);
    let cuts = cuts(&Arc::new(log), partition);
    assert_eq!(cuts.len(), 1);
    cuts.into_iter().next().unwrap()
}

/// All cuts that close.
fn cuts(log: &Arc<MemoryLog>, partition: Partition) -> Vec<Cut> {
    let start = SinkCursor { clean: 0, audit: 0, epoch: 0 };
    let selection = TableSelection { system: vec![SystemTable::ScriptRuns] };
    let mut follower = Follower::new(Arc::clone(log) as _, partition, Grain::Table, selection, start);
    let mut cuts = Vec::new();
    loop {
        let step = follower.advance(Duration::ZERO, 1 << 20).unwrap();
        if step.closed.is_empty() && step.cursor.is_none() && step.read.is_none() && follower.unread().unwrap() == 0 {
            return cuts;
        }
        cuts.extend(step.closed);
    }
}
