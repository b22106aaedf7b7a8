//! What the tables hold, read back: for `tidegate verify`.

use super::{ClickHouseSink, literal};
use hashbrown::HashMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use tidegate_schemas::ids::{Epoch, LogId, Partition, TenantId};
use tidegate_schemas::sink::SinkError;

/// Epochs whose rows are asked for at once: what their answer takes stays far below its bound.
const EPOCHS_AT_ONCE: u64 = 50_000;

/// Rows of one log in one table.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Rows of each tenant.
    pub totals: BTreeMap<TenantId, u64>,
    /// Rows by tenant, partition and epoch.
    pub rows: BTreeMap<(TenantId, Partition, Epoch), u64>,
    /// The last epoch of each partition, whosoever its rows are.
    pub cursors: BTreeMap<Partition, Epoch>,
    /// Rows that are there more than once, beyond the first, by tenant, with the place of one of them.
    pub duplicates: HashMap<TenantId, (u64, String)>,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
struct Total {
    tenant: TenantId,
    rows: u64,
}

#[derive(Deserialize)]
struct Cursor {
    partition: Partition,
    epoch: Epoch,
}

#[derive(Deserialize)]
struct Counted {
    tenant: TenantId,
    epoch: Epoch,
    rows: u64,
    places: u64,
    first: String,
}

impl ClickHouseSink {
    async fn ask<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, SinkError> {
        self.http.rows(sql).await.map_err(|f| f.of(format!("reading what database {} holds", self.names.database)))
    }

    /// Ids of all tables that have rows with a place in a log.
    pub async fn tables(&self) -> Result<Vec<String>, SinkError> {
        let sql = format!(
            "SELECT DISTINCT c.table AS name FROM system.columns AS c INNER JOIN system.tables AS t ON t.database = c.database AND t.name = c.table \
             WHERE c.database = {} AND c.name = '_epoch' AND t.engine LIKE '%MergeTree' ORDER BY name",
            literal(&self.names.database)
        );
        Ok(self.ask::<Name>(&sql).await?.into_iter().map(|n| n.name).collect())
    }

    /// Counts a table's rows of a log, in those epochs of each partition.
    pub async fn held_rows(&self, table: &str, log: LogId, epochs: &BTreeMap<Partition, (Epoch, Epoch)>) -> Result<Held, SinkError> {
        let (name, mut held) = (self.names.table(table), Held::default());
        let of = format!("FROM {name} WHERE _log = '{log}'");
        let totals = format!("SELECT tenant, count() AS rows {of} GROUP BY tenant");
        held.totals = self.ask::<Total>(&totals).await?.into_iter().map(|t| (t.tenant, t.rows)).collect();
        let cursors = format!("SELECT _partition AS partition, max(_epoch) AS epoch {of} GROUP BY _partition");
        held.cursors = self.ask::<Cursor>(&cursors).await?.into_iter().map(|c| (c.partition, c.epoch)).collect();
        for (partition, (first, last)) in epochs {
            let last = (*last).min(held.cursors.get(partition).copied().unwrap_or(0));
            let mut from = *first;
            while from <= last {
                let to = last.min(from + EPOCHS_AT_ONCE - 1);
                // A row has its epoch, so no place is in two of them.
                let sql = format!(
                    "SELECT tenant, _epoch AS epoch, count() AS rows, uniqExact(_offset, _index, _row) AS places, \
                     toString(min((_offset, _index, _row))) AS first \
                     {of} AND _partition = {partition} AND _epoch BETWEEN {from} AND {to} GROUP BY tenant, _epoch"
                );
                for counted in self.ask::<Counted>(&sql).await? {
                    if counted.rows > counted.places {
                        let first = || {
                            (
                                0,
                                format!(
                                    "partition {partition} epoch {}, which begins at (offset, index, row) {}",
                                    counted.epoch, counted.first
                                ),
                            )
                        };
                        held.duplicates.entry(counted.tenant.clone()).or_insert_with(first).0 += counted.rows - counted.places;
                    }
                    held.rows.insert((counted.tenant, *partition, counted.epoch), counted.rows);
                }
                from = to + 1;
            }
        }
        Ok(held)
    }
}
