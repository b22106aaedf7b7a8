//! Parquet files in Delta Lake tables, one for each tenant and table, on the local file system or in an object store.
//!
//! ```text
//! <root>/acme/climate-7f3a/date=2026-11-25/<cut name>.parquet     put create-only, named by the log
//!                                      /_delta_log/….json                      add + txn(log/sink/partition → epoch)
//! ```
//! The file comes first, the commit makes it visible. `txn` is the table's own cursor, so repeating a delivery finds
//! that it is done, whoever did it. Readers need nothing of ours. Kernel and Parquet block, so all of it runs on
//! threads of a runtime of its own.

mod checksum;
mod chunk;
mod distinct;
mod encode;
mod file;
mod hybrid;
mod schema;
mod statistics;
mod table;
pub mod verify;

use crate::objects::{self, Objects, ObjectsError};
use ::parquet::file::metadata::ParquetMetaData;
use hashbrown::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use table::{Engine, Table};
use tidegate_schemas::ids::{Epoch, LogId, Partition, TenantId, is_id};
use tidegate_schemas::sink::{Cut, Grain, Rows, Sink, SinkError, Target};
use tidegate_schemas::{BoxFuture, fault, limits};
use tokio::sync::OnceCell;
use url::Url;

/// The sink's name, in cursors, application ids, metrics and receipts.
pub const NAME: &str = "parquet";

/// How tables are written.
#[derive(Clone, Copy, Debug)]
pub struct ParquetOptions {
    /// Tables whose newest snapshot is kept in memory.
    pub tables_open_max: usize,
    /// Commits between two checkpoints.
    pub checkpoint_commits: u64,
}

impl Default for ParquetOptions {
    fn default() -> Self {
        Self { tables_open_max: limits::DELTA_TABLES_OPEN_MAX, checkpoint_commits: limits::DELTA_CHECKPOINT_COMMITS as u64 }
    }
}

/// The sink.
pub struct ParquetSink {
    inner: Arc<Inner>,
    /// Whether the store has passed the race.
    fit: OnceCell<()>,
}

struct Inner {
    objects: Objects,
    engine: Engine,
    options: ParquetOptions,
    tables: Mutex<Tables>,
    /// Goes with the last piece of work rather than with the sink: what is under way waits for its timers and tasks.
    runtime: Runtime,
}

/// The file of a cut.
struct Written {
    /// Bytes of it, as it is stored.
    size: u64,
    /// As these rows were encoded here.
    footer: ParquetMetaData,
}

/// Tables in use; the least recently used one goes.
#[derive(Default)]
struct Tables {
    clock: u64,
    open: HashMap<Target, (u64, Arc<Mutex<Table>>)>,
}

/// The runtime of kernel and store. Dropping one waits, which is not allowed where futures run.
struct Runtime(Option<tokio::runtime::Runtime>);

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl ParquetSink {
    /// A sink for the tables of a folder. Nothing is asked of the store yet.
    pub fn open(objects: Objects, options: ParquetOptions) -> Result<Self, SinkError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("delta").enable_all().build().map_err(|e| {
                SinkError::Permanent { doing: format!("opening {}", objects::place(objects.root())), detail: e.to_string() }
            })?;
        let engine = table::engine(Arc::clone(objects.store()), runtime.handle().clone());
        let inner = Inner { objects, engine, options, tables: Mutex::default(), runtime: Runtime(Some(runtime)) };
        Ok(Self { inner: Arc::new(inner), fit: OnceCell::new() })
    }

    /// Lets the store show that conditional puts hold there, once.
    pub async fn check(&self) -> Result<(), ObjectsError> {
        let race = || async {
            let (inner, Some(runtime)) = (Arc::clone(&self.inner), &self.inner.runtime.0) else { return Ok(()) };
            let raced = runtime.spawn(async move { inner.objects.race().await }).await;
            raced.unwrap_or_else(|e| Err(ObjectsError::Failed { doing: "trying a store".into(), detail: e.to_string() }))
        };
        self.fit.get_or_try_init(race).await.map(|_| ())
    }

    /// No byte goes to a store that might let two writers make the same version. One that has not shown it yet, because it was
    /// away, is tried again by the driver; no table is parked for it.
    async fn checked(&self) -> Result<(), SinkError> {
        if self.inner.objects.is_local() {
            return Ok(());
        }
        self.check().await.map_err(|e| match e {
            ObjectsError::Failed { doing, detail } => SinkError::Retryable { doing, detail },
            unfit @ ObjectsError::Unfit { .. } => SinkError::Retryable { doing: "trying the store".into(), detail: unfit.to_string() },
        })
    }

    async fn run<T: Send + 'static>(
        &self,
        target: &Target,
        what: impl FnOnce(&Inner) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let inner = Arc::clone(&self.inner);
        let Some(runtime) = &self.inner.runtime.0 else { return Err(closing(target)) };
        match runtime.spawn_blocking(move || what(&inner)).await {
            Ok(result) => result,
            // One table that makes a library panic must not stop the others.
            Err(error) if error.is_panic() => Err(SinkError::Permanent {
                doing: format!("writing {}", self.location(target)),
                detail: "the table format library panicked; see the log for the place".into(),
            }),
            Err(_) => Err(closing(target)),
        }
    }
}

fn closing(target: &Target) -> SinkError {
    SinkError::Retryable { doing: format!("writing table {}", target.table), detail: "the sink is closing".into() }
}

impl Sink for ParquetSink {
    fn name(&self) -> &'static str {
        NAME
    }

    fn grain(&self) -> Grain {
        Grain::Tenant
    }

    fn held(&self, log: LogId, partition: Partition, target: &Target) -> BoxFuture<'_, Result<Option<Epoch>, SinkError>> {
        let target = target.clone();
        Box::pin(async move {
            let of = target.clone();
            self.run(&of, move |inner| inner.table(&target, |table| table.held(&inner.engine, &application(log, partition)))).await
        })
    }

    fn deliver(&self, cut: Cut) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(async move {
            let target = cut.target.clone();
            self.checked().await?;
            let cut = Arc::new(cut);
            let put = Arc::clone(&cut);
            let written = self.run(&target, move |inner| inner.put(&put)).await?;
            self.run(&target, move |inner| inner.commit(&cut, &written)).await
        })
    }

    fn location(&self, target: &Target) -> String {
        self.inner.folder(target).map_or_else(|e| e.to_string(), |folder| objects::place(&folder))
    }
}

impl Inner {
    /// Ids cannot leave the folder: they hold no separator and begin with a letter or digit.
    fn folder(&self, target: &Target) -> Result<Url, SinkError> {
        match &target.tenant {
            Some(tenant) if is_id(&target.table) => Ok(folder(&self.objects, tenant, &target.table)),
            _ => Err(SinkError::Permanent {
                doing: format!("finding the folder of table {:?}", target.table),
                detail: "it has no tenant or is no id".into(),
            }),
        }
    }

    /// Writes the cut's file, or finds it written.
    fn put(&self, cut: &Cut) -> Result<Written, SinkError> {
        let refused = |e: &dyn std::fmt::Display| SinkError::Permanent { doing: format!("encoding {}", cut.name()), detail: e.to_string() };
        let file = self.folder(&cut.target)?.join(&file::place(cut)).map_err(|e| refused(&e))?;
        let encoded = encode::encode(&cut.schema, batches(cut)?).map_err(|e| refused(&e))?;
        fault::point("put.before");
        let size = file::put(&self.objects, &file, encoded.bytes)?;
        fault::point("put.after");
        Ok(Written { size, footer: encoded.footer })
    }

    fn commit(&self, cut: &Cut, written: &Written) -> Result<(), SinkError> {
        let application = application(cut.log, cut.partition);
        self.table(&cut.target, |table| {
            table.commit(&self.engine, &application, cut, batches(cut)?, written, self.options.checkpoint_commits)
        })
    }

    /// One piece of work at a time on each table: of two commits one would only find a conflict.
    fn table<T>(&self, target: &Target, what: impl FnOnce(&mut Table) -> Result<T, SinkError>) -> Result<T, SinkError> {
        let folder = self.folder(target)?;
        let slot = {
            let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
            tables.clock += 1;
            let now = tables.clock;
            if tables.open.len() >= self.options.tables_open_max && !tables.open.contains_key(target) {
                let oldest = tables.open.iter().min_by_key(|(_, (used, _))| *used).map(|(t, _)| t.clone());
                oldest.and_then(|t| tables.open.remove(&t));
            }
            let (used, slot) =
                tables.open.entry(target.clone()).or_insert_with(|| (0, Arc::new(Mutex::new(Table::new(self.objects.clone(), folder)))));
            *used = now;
            Arc::clone(slot)
        };
        // After a panic inside the kernel what is remembered of the table is not trusted.
        let mut table = slot.lock().unwrap_or_else(|poisoned| {
            slot.clear_poison();
            let mut table = poisoned.into_inner();
            table.forget();
            table
        });
        what(&mut table)
    }
}

fn batches(cut: &Cut) -> Result<&[arrow::array::RecordBatch], SinkError> {
    match &cut.rows {
        Rows::Batches(batches) => Ok(batches),
        Rows::Streams(_) => {
            Err(SinkError::Permanent { doing: format!("reading cut {}", cut.name()), detail: "it holds streams of all tenants".into() })
        }
    }
}

/// No `name=value` above the table: polars takes such folders for partition columns, and then reads nothing (decision 0003).
fn folder(objects: &Objects, tenant: &TenantId, table: &str) -> Url {
    objects.place_of(&[tenant.as_str(), table])
}

/// The application id of a partition's cursor in the tables.
pub fn application(log: LogId, partition: Partition) -> String {
    format!("{log}/{NAME}/{partition}")
}
