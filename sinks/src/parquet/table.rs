//! One Delta table: found or created, widened, committed to.
//!
//! Every conflict means a new snapshot and `txn` read again: another writer may have delivered this very cut.

use super::{Written, encode, file, schema, statistics};
use crate::objects::{self, Objects};
use arrow::array::RecordBatch;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::expressions::{ColumnName, Scalar};
use delta_kernel::transaction::create_table::create_table;
use delta_kernel::transaction::data_layout::DataLayout;
use delta_kernel::transaction::{CommitResult, UpdateTableOperation};
use delta_kernel::{FileMeta, KernelError, KernelResult, Snapshot, SnapshotRef};
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use delta_kernel_default_engine::parquet::DataFileMetadata;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder, build_add_file_metadata};
use hashbrown::HashMap;
use object_store::ObjectStore;
use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::Arc;
use tidegate_schemas::causes;
use tidegate_schemas::fault;
use tidegate_schemas::ids::Epoch;
use tidegate_schemas::limits::{DELTA_COMMIT_TRIES_MAX, DELTA_FILES_READ_MAX};
use tidegate_schemas::sink::{Cut, SinkError};
use tidegate_schemas::table::DATE;
use url::Url;

/// The kernel's engine over one store.
pub(super) type Engine = Arc<DefaultEngine<TokioMultiThreadExecutor>>;

/// Where the versions of a table lie in its folder.
pub(super) const LOG_FOLDER: &str = "_delta_log/";

const WRITER: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));

/// The multi-thread executor: the other one can block itself while a checkpoint is written.
pub(super) fn engine(store: Arc<dyn ObjectStore>, runtime: tokio::runtime::Handle) -> Engine {
    let executor = Arc::new(TokioMultiThreadExecutor::new(runtime));
    let files = NonZeroUsize::new(DELTA_FILES_READ_MAX).unwrap_or(NonZeroUsize::MIN);
    Arc::new(DefaultEngineBuilder::new(store).with_buffer_size(files).with_task_executor(executor).build())
}

/// A table and what is known of it.
pub(super) struct Table {
    objects: Objects,
    folder: Url,
    /// The newest version that this process has seen or made.
    snapshot: Option<SnapshotRef>,
    /// `txn` versions as of that snapshot: reading one replays the log.
    done: HashMap<String, Option<Epoch>>,
}

impl Table {
    pub(super) fn new(objects: Objects, folder: Url) -> Self {
        Self { objects, folder, snapshot: None, done: HashMap::new() }
    }

    fn place(&self) -> String {
        objects::place(&self.folder)
    }

    /// Drops what is remembered.
    pub(super) fn forget(&mut self) {
        self.snapshot = None;
        self.done.clear();
    }

    /// The last epoch that an application has committed, from the newest version.
    pub(super) fn held(&mut self, engine: &Engine, application: &str) -> Result<Option<Epoch>, SinkError> {
        self.forget();
        match self.load(engine) {
            Ok(true) => self.done(engine, application).map_err(|e| self.failed("reading", &e)),
            Ok(false) => Ok(None),
            Err(error) => Err(self.failed("opening", &error)),
        }
    }

    /// Makes the file of a cut part of the table, unless it is.
    pub(super) fn commit(
        &mut self,
        engine: &Engine,
        application: &str,
        cut: &Cut,
        batches: &[RecordBatch],
        written: &Written,
        checkpoint_commits: u64,
    ) -> Result<(), SinkError> {
        for _ in 0..DELTA_COMMIT_TRIES_MAX {
            let tried = self.try_commit(engine, application, cut, batches, written, checkpoint_commits);
            if !matches!(tried, Ok(true)) {
                // A failed commit may or may not be there.
                self.forget();
            }
            match tried {
                Ok(true) => return Ok(()),
                Ok(false) => tracing::debug!(table = %self.place(), "conflict: building the commit again"),
                Err(Refused::Kernel(error)) => return Err(self.failed("committing to", &error)),
                Err(Refused::Schema(detail)) => {
                    return Err(SinkError::Permanent { doing: format!("committing {} to {}", cut.name(), self.place()), detail });
                }
            }
        }
        Err(SinkError::Retryable {
            doing: format!("committing to {}", self.place()),
            detail: format!("another writer was faster {DELTA_COMMIT_TRIES_MAX} times"),
        })
    }

    /// False means a conflict.
    fn try_commit(
        &mut self,
        engine: &Engine,
        application: &str,
        cut: &Cut,
        batches: &[RecordBatch],
        written: &Written,
        checkpoint_commits: u64,
    ) -> Result<bool, Refused> {
        let columns = schema::columns(&cut.schema).map_err(|e| Refused::Schema(e.to_string()))?;
        if !self.load(engine)? && !self.create(engine, &columns)? {
            return Ok(false);
        }
        if self.done(engine, application)?.is_some_and(|done| done >= cut.last) {
            return Ok(true);
        }
        let Some(snapshot) = self.snapshot.clone() else { return Ok(false) };
        let added = schema::missing(&snapshot.schema(), &columns).map_err(Refused::Schema)?;
        let version = i64::try_from(cut.last).map_err(|_| Refused::Schema(format!("epoch {} is no txn version", cut.last)))?;
        let mut builder = snapshot.update_table(UpdateTableOperation::StreamingUpdate, WRITER, true);
        for field in added {
            builder = builder.add_column(field);
        }
        let mut transaction =
            builder.build(engine.as_ref(), Box::new(FileSystemCommitter::new()))?.with_transaction_id(application.to_owned(), version);
        let date = [(DATE.to_owned(), Scalar::Date(cut.day))].into();
        let context = transaction.write_state()?.write_context_builder().with_partition_values(date).build()?;
        let (columns, table) = (compared(context.stats_columns()), context.physical_data_schema());
        let Some(statistics) = statistics::of(&written.footer, batches, &columns, table)? else { return Ok(true) };
        let location = context.table_root_dir().join(&file::place(cut)).map_err(KernelError::from)?;
        let meta = FileMeta { location, last_modified: cut.recorded_at / 1_000, size: written.size };
        transaction.add_files(build_add_file_metadata(DataFileMetadata::new(meta, statistics), &context)?);
        fault::point("delta.before_commit");
        match transaction.commit(engine.as_ref())? {
            CommitResult::Committed(committed) => {
                fault::point("delta.after_commit");
                self.snapshot = committed.post_commit_snapshot().cloned();
                self.done.insert(application.to_owned(), Some(cut.last));
                if committed.post_commit_stats().commits_since_checkpoint >= checkpoint_commits {
                    self.checkpoint(engine);
                }
                Ok(true)
            }
            CommitResult::Conflicted(_) => Ok(false),
            CommitResult::Retryable(retry) => Err(Refused::Kernel(retry.error)),
        }
    }

    /// Finds the newest version, where none is known; tells whether the table exists.
    fn load(&mut self, engine: &Engine) -> KernelResult<bool> {
        if self.snapshot.is_none() {
            if !self.exists()? {
                return Ok(false);
            }
            self.snapshot = Some(Snapshot::builder_for(self.folder.as_str()).build(engine.as_ref())?);
            self.done.clear();
        }
        Ok(true)
    }

    fn exists(&self) -> KernelResult<bool> {
        let log = self.folder.join(LOG_FOLDER).map_err(KernelError::from)?;
        // A file still being written has another name.
        Ok(tokio::runtime::Handle::current().block_on(self.objects.any(&log, ".json"))?)
    }

    /// Creates the table; false means that another writer did.
    fn create(&mut self, engine: &Engine, columns: &delta_kernel::schema::StructType) -> Result<bool, Refused> {
        let schema = schema::with_date(columns).map_err(|e| Refused::Schema(e.to_string()))?;
        let created = create_table(self.folder.as_str(), Arc::new(schema), WRITER, false)
            .with_data_layout(DataLayout::partitioned([DATE]))
            .build(engine.as_ref(), Box::new(FileSystemCommitter::new()))
            .and_then(|transaction| transaction.commit(engine.as_ref()));
        let created = match created {
            Ok(created) => created,
            // The kernel looks for a table first, and finding one is its error and our conflict.
            Err(_) if self.exists()? => return Ok(false),
            Err(error) => return Err(Refused::Kernel(error)),
        };
        match created {
            CommitResult::Committed(committed) => {
                self.snapshot = committed.post_commit_snapshot().cloned();
                self.done.clear();
                Ok(self.snapshot.is_some())
            }
            CommitResult::Conflicted(_) => Ok(false),
            CommitResult::Retryable(retry) => Err(Refused::Kernel(retry.error)),
        }
    }

    fn done(&mut self, engine: &Engine, application: &str) -> KernelResult<Option<Epoch>> {
        if let Some(done) = self.done.get(application) {
            return Ok(*done);
        }
        let Some(snapshot) = &self.snapshot else { return Ok(None) };
        let found = snapshot.get_app_id_version(application, engine.as_ref())?.and_then(|v| Epoch::try_from(v).ok());
        self.done.insert(application.to_owned(), found);
        Ok(found)
    }

    /// A table without its checkpoint is only slower to read, so a failure is told and forgotten.
    fn checkpoint(&mut self, engine: &Engine) {
        let Some(snapshot) = &self.snapshot else { return };
        match snapshot.checkpoint(engine.as_ref(), None) {
            Ok((_, newer)) => self.snapshot = Some(newer),
            Err(error) => tracing::warn!(table = %self.place(), %error, "checkpoint failed"),
        }
    }

    fn failed(&self, doing: &str, error: &KernelError) -> SinkError {
        let doing = format!("{doing} {}", self.place());
        // Its trace is no news to an operator, and reading the symbols for it took 200 MB where RUST_BACKTRACE was set.
        let detail = causes::chain(error.without_backtrace());
        if is_of_the_world(error) { SinkError::Retryable { doing, detail } } else { SinkError::Permanent { doing, detail } }
    }
}

/// Those of the columns of which files tell the least and the greatest value.
fn compared(columns: &[ColumnName]) -> Vec<ColumnName> {
    let is_compared = |column: &&ColumnName| !matches!(column.path(), [name] if encode::UNCOMPARED.contains(&name.as_str()));
    columns.iter().filter(is_compared).cloned().collect()
}

/// Whether the medium failed, rather than the table or its log being what we cannot write to.
fn is_of_the_world(error: &KernelError) -> bool {
    match error.without_backtrace() {
        KernelError::IOError(_) | KernelError::ObjectStore(_) | KernelError::FileNotFound(_) | KernelError::JoinFailure(_) => true,
        KernelError::Arrow(arrow::error::ArrowError::IoError(..)) => true,
        // A checkpoint is read by Parquet, whose error holds that of the store.
        other => causes(other).any(|e| e.is::<object_store::Error>() || e.is::<std::io::Error>()),
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&e| e.source())
}

enum Refused {
    /// The kernel or the medium.
    Kernel(KernelError),
    /// The cut does not go into the table.
    Schema(String),
}

impl From<KernelError> for Refused {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}
