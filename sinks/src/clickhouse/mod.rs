//! ClickHouse: one table for each of ours, all tenants in it, by its HTTP interface.
//!
//! ```text
//! cut ─▶ table (made, or columns added, and compared once a schema) ─▶ one INSERT … FORMAT ArrowStream, token = cut's name
//!          blocks of the log, spliced unchanged: they are never decoded here
//! ```
//! One cut is one insert is one block, so it is stored whole or not at all, and a repeat under its token changes nothing for
//! as long as the table remembers the token. Beyond that the table's own rows tell what it holds: the highest `_epoch` of a
//! log and partition.

mod columns;
mod http;
pub mod policies;
pub mod probe;
mod splice;
mod table;
pub mod verify;

use hashbrown::HashMap;
use http::Http;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tidegate_schemas::ids::{Epoch, LogId, Partition, is_id};
use tidegate_schemas::secret::Secret;
use tidegate_schemas::sink::{Cut, Grain, Rows, Sink, SinkError, Target};
use tidegate_schemas::{BoxFuture, fault, limits};

use arrow::datatypes::SchemaRef;

/// The sink's name, in cursors, metrics and receipts.
pub const NAME: &str = "clickhouse";

/// How ClickHouse is reached, and what tables it shall have.
pub struct ClickHouseOptions {
    /// Its HTTP interface, `http://` or `https://`, without user and password.
    pub url: String,
    /// The database of all tables; it is made where it is missing.
    pub database: String,
    /// Who signs in.
    pub user: String,
    /// With what.
    pub password: Option<Secret>,
    /// PEM file of the authorities that its certificate is signed by; otherwise those of the system.
    pub ca_file: Option<PathBuf>,
    /// A statement or insert that takes longer has failed.
    pub patience: Duration,
    /// How its tables are kept.
    pub tables: TableOptions,
}

/// How tables are kept.
#[derive(Clone, Copy, Debug)]
pub struct TableOptions {
    /// Days after which rows are deleted, by their recorded date; otherwise they stay.
    pub retention_days: Option<u32>,
    /// Inserts that a table knows again by their token.
    pub window: u64,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self { retention_days: None, window: limits::CLICKHOUSE_DEDUPLICATION_WINDOW as u64 }
    }
}

/// The sink.
pub struct ClickHouseSink {
    http: Http,
    names: Names,
    tables: TableOptions,
    /// The schema that each table was last compared with.
    ready: Mutex<HashMap<String, SchemaRef>>,
}

/// Names as SQL takes them.
struct Names {
    database: String,
}

impl Names {
    /// A table with its database, quoted. Ids hold no quotes; a database's name may.
    fn table(&self, table: &str) -> String {
        format!("{}.{}", identifier(&self.database), identifier(table))
    }
}

fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

impl ClickHouseSink {
    /// Asks nothing yet: a server that is away now may be there when rows are.
    pub fn open(options: ClickHouseOptions) -> Result<Self, SinkError> {
        let http = Http::open(&options)?;
        Ok(Self { http, names: Names { database: options.database }, tables: options.tables, ready: Mutex::default() })
    }

    fn ready(&self, table: &str, schema: &SchemaRef) -> bool {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).get(table).is_some_and(|known| known == schema)
    }

    /// Remembers what a table was compared with, or forgets it.
    fn note(&self, table: &str, schema: Option<SchemaRef>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.len() >= limits::SINK_TARGETS_MAX {
            ready.clear();
        }
        match schema {
            Some(schema) => ready.insert(table.to_owned(), schema),
            None => ready.remove(table),
        };
    }

    async fn insert(&self, cut: &Cut) -> Result<(), SinkError> {
        let table = cut.target.table.as_str();
        let doing = || format!("inserting {} into {}", cut.name(), self.location(&cut.target));
        let wrong = |detail: String| SinkError::Permanent { doing: doing(), detail };
        if !is_id(table) {
            return Err(wrong(format!("{table:?} is no table id")));
        }
        let Rows::Streams(streams) = &cut.rows else { return Err(wrong("it holds one tenant's batches".into())) };
        let pieces = splice::splice(streams).map_err(|e| wrong(e.to_owned()))?;
        if !self.ready(table, &cut.schema) || !self.still_takes(table, &cut.schema).await? {
            self.prepare(table, &cut.schema).await?;
            self.note(table, Some(SchemaRef::clone(&cut.schema)));
        }
        fault::point("insert.before_send");
        let done = self.http.insert(&table::insert(&self.names.table(table), &cut.schema), &table::settings(&cut.name()), pieces).await;
        fault::point("insert.after_send");
        done.map_err(|failure| {
            if failure.is_about_the_table() {
                self.note(table, None);
            }
            failure.of(doing())
        })
    }
}

impl Sink for ClickHouseSink {
    fn name(&self) -> &'static str {
        NAME
    }

    fn grain(&self) -> Grain {
        Grain::Table
    }

    fn held(&self, log: LogId, partition: Partition, target: &Target) -> BoxFuture<'_, Result<Option<Epoch>, SinkError>> {
        let target = target.clone();
        Box::pin(async move { self.highest_epoch(log, partition, &target).await })
    }

    fn repeats(&self, cut: &Cut) -> BoxFuture<'_, Result<bool, SinkError>> {
        let cut = Cut { rows: Rows::Streams(Vec::new()), ..cut.clone() };
        Box::pin(async move { self.is_inside_window(&cut).await })
    }

    fn deliver(&self, cut: Cut) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(async move { self.insert(&cut).await })
    }

    fn location(&self, target: &Target) -> String {
        format!("{}.{}", self.names.database, target.table)
    }
}
