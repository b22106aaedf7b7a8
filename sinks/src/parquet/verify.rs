//! What the tables hold, read back: for `tidegate verify`. Reads only; one file at a time, a batch at a time.

use super::table::{self, Engine};
use super::{Runtime, application, folder};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::{KernelError, Snapshot, SnapshotRef};
use hashbrown::HashSet;
use object_store::local::LocalFileSystem;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_schemas::ids::{Epoch, LogId, Partition, TableId, TenantId};
use tidegate_schemas::limits::VERIFY_KEYS_MAX;
use tidegate_schemas::system::SystemTable;

/// Duplicates that are named; all are counted.
const NAMED_MAX: usize = 100;
/// Rows read at once.
const BATCH_ROWS: usize = 8_192;

/// A Delta table of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableRef {
    /// Whose rows.
    pub tenant: TenantId,
    /// Id of the table.
    pub table: TableId,
    /// Its folder.
    pub path: PathBuf,
}

/// Where a row comes from: unique in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Offset of the record in `raw`.
    pub offset: i64,
    /// Index of the event in its request.
    pub index: i32,
    /// Number of the row among those of its event.
    pub row: i32,
}

/// What one table holds in its newest version.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The version.
    pub version: u64,
    /// Live files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows by log, partition and epoch.
    pub rows: BTreeMap<(LogId, Partition, Epoch), u64>,
    /// The table's own cursors: `txn` of each log and partition that it has rows of.
    pub cursors: BTreeMap<(LogId, Partition), Option<Epoch>>,
    /// Rows that are there more than once, beyond the first.
    pub duplicates: u64,
    /// The first hundred of them.
    pub named: Vec<(LogId, Partition, Key)>,
}

/// Why a table cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reading {}: {detail}", path.display())]
pub struct VerifyError {
    /// The folder or file.
    pub path: PathBuf,
    /// What went wrong.
    pub detail: String,
}

fn at(path: &Path) -> impl Fn(&dyn Display) -> VerifyError + '_ {
    move |detail| VerifyError { path: path.to_owned(), detail: detail.to_string() }
}

/// Reads tables. Its calls block.
pub struct Verifier {
    root: PathBuf,
    engine: Engine,
    _runtime: Runtime,
}

/// The rows of one log and partition in one file.
struct Span {
    file: PathBuf,
    rows: u64,
    first: Key,
    last: Key,
    ascending: bool,
}

type Spans = BTreeMap<(LogId, Partition), Vec<Span>>;

impl Verifier {
    /// For the tables of a folder.
    pub fn open(root: &Path) -> Result<Self, VerifyError> {
        let root = root.canonicalize().map_err(|e| at(root)(&e))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(|e| at(&root)(&e))?;
        let engine = table::engine(Arc::new(LocalFileSystem::new()), runtime.handle().clone());
        Ok(Self { root, engine, _runtime: Runtime(Some(runtime)) })
    }

    /// All tables, in order.
    pub fn tables(&self) -> Result<Vec<TableRef>, VerifyError> {
        let mut found = Vec::new();
        for (tenant, path) in entries(&self.root)? {
            for (table, path) in entries(&path)? {
                let ids = TenantId::new(&tenant).ok().zip(TableId::new(&table).ok());
                if let Some((tenant, table)) = ids.filter(|_| path.join("_delta_log").is_dir()) {
                    found.push(TableRef { tenant, table, path });
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// The table of a tenant, where it has one.
    pub fn find(&self, tenant: &TenantId, table: &TableId) -> Option<TableRef> {
        let path = folder(&self.root, tenant, table.as_str());
        path.join("_delta_log").is_dir().then(|| TableRef { tenant: tenant.clone(), table: table.clone(), path })
    }

    /// Reads the provenance of every row of a table's newest version. On a thread of its own: the kernel must not wait
    /// where futures run.
    pub fn table(&self, table: &TableRef) -> Result<Held, VerifyError> {
        let read = std::thread::scope(|scope| scope.spawn(|| self.read(table)).join());
        read.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn read(&self, table: &TableRef) -> Result<Held, VerifyError> {
        let fail = |e: KernelError| at(&table.path)(e.without_backtrace());
        let snapshot = Snapshot::builder_for(table.path.to_string_lossy()).build(self.engine.as_ref()).map_err(fail)?;
        let mut held = Held { version: snapshot.version(), ..Held::default() };
        let mut spans = Spans::new();
        for (path, size) in self.files(&snapshot, &table.path)? {
            held.files += 1;
            held.bytes += size;
            read_file(&path, &mut |batch| count(batch, &path, &mut held.rows, &mut spans))?;
        }
        for (of, spans) in &mut spans {
            let cursor = snapshot.get_app_id_version(&application(of.0, of.1), self.engine.as_ref()).map_err(fail)?;
            held.cursors.insert(*of, cursor.and_then(|v| Epoch::try_from(v).ok()));
            // Rows of a run are no events of their own.
            if table.table.as_str() != SystemTable::ScriptRuns.as_str() {
                duplicates(*of, spans, &mut held)?;
            }
        }
        Ok(held)
    }

    /// Paths and sizes of the live files.
    fn files(&self, snapshot: &SnapshotRef, table: &Path) -> Result<Vec<(PathBuf, u64)>, VerifyError> {
        let fail = |e: KernelError| at(table)(e.without_backtrace());
        let mut files = Vec::new();
        let scan = Arc::clone(snapshot).scan_builder().build().map_err(fail)?;
        for found in scan.scan_metadata(self.engine.as_ref()).map_err(fail)? {
            let (data, mut selected) = found.map_err(fail)?.scan_files.into_parts();
            let data = ArrowEngineData::try_from_engine_data(data).map_err(fail)?;
            let batch = data.record_batch();
            selected.resize(batch.num_rows(), true);
            let missing = || at(table)(&"the scan lists no paths");
            let paths = batch.column_by_name("path").and_then(|c| c.as_string_opt::<i32>()).ok_or_else(missing)?;
            let sizes = batch.column_by_name("size").and_then(|c| c.as_primitive_opt::<Int64Type>()).ok_or_else(missing)?;
            if batch.column_by_name("deletionVector").is_some_and(|c| c.null_count() < c.len()) {
                return Err(at(table)(&"another writer deleted rows in place, which is not supported"));
            }
            for i in (0..batch.num_rows()).filter(|i| selected[*i]) {
                let url = snapshot.table_root().join(paths.value(i)).map_err(|e| at(table)(&e))?;
                let path = url.to_file_path().map_err(|()| at(table)(&format!("{url} is no local file")))?;
                files.push((path, u64::try_from(sizes.value(i)).unwrap_or(0)));
            }
        }
        Ok(files)
    }
}

/// Folders, with their names.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, VerifyError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| at(folder)(&e))? {
        let entry = entry.map_err(|e| at(folder)(&e))?;
        if let Some(name) = entry.file_name().to_str().filter(|_| entry.path().is_dir()) {
            found.push((name.to_owned(), entry.path()));
        }
    }
    Ok(found)
}

/// Shows the provenance columns of a file, a batch at a time.
fn read_file(path: &Path, see: &mut dyn FnMut(&Provenance<'_>) -> Result<(), String>) -> Result<(), VerifyError> {
    let file = File::open(path).map_err(|e| at(path)(&e))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| at(path)(&e))?;
    let columns = ["_log", "_partition", "_offset", "_index", "_row", "_epoch"];
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
    let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(|e| at(path)(&e))?;
    for batch in reader {
        let batch = batch.map_err(|e| at(path)(&e))?;
        let provenance = Provenance::of(&batch).ok_or_else(|| at(path)(&"it lacks the columns that say where its rows come from"))?;
        see(&provenance).map_err(|e| at(path)(&e))?;
    }
    Ok(())
}

struct Provenance<'a> {
    log: &'a arrow::array::StringArray,
    partition: &'a [i32],
    offset: &'a [i64],
    index: &'a [i32],
    row: &'a [i32],
    epoch: &'a [i64],
}

impl<'a> Provenance<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        let i32s = |name| Some(&**batch.column_by_name(name)?.as_primitive_opt::<Int32Type>()?.values());
        let i64s = |name| Some(&**batch.column_by_name(name)?.as_primitive_opt::<Int64Type>()?.values());
        Some(Self {
            log: batch.column_by_name("_log")?.as_string_opt::<i32>()?,
            partition: i32s("_partition")?,
            offset: i64s("_offset")?,
            index: i32s("_index")?,
            row: i32s("_row")?,
            epoch: i64s("_epoch")?,
        })
    }

    fn len(&self) -> usize {
        self.partition.len()
    }

    fn key(&self, i: usize) -> Key {
        Key { offset: self.offset[i], index: self.index[i], row: self.row[i] }
    }
}

/// Adds a batch to the account; consecutive rows mostly share log, partition and epoch.
fn count(
    batch: &Provenance<'_>,
    path: &Path,
    rows: &mut BTreeMap<(LogId, Partition, Epoch), u64>,
    spans: &mut Spans,
) -> Result<(), String> {
    let mut start = 0;
    while start < batch.len() {
        let same = |i: usize| {
            batch.epoch[i] == batch.epoch[start]
                && batch.partition[i] == batch.partition[start]
                && batch.log.value(i) == batch.log.value(start)
        };
        let end = (start + 1..batch.len()).find(|i| !same(*i)).unwrap_or(batch.len());
        let log = LogId::try_from(batch.log.value(start).to_owned()).map_err(|e| e.to_string())?;
        let partition = Partition::try_from(batch.partition[start]).map_err(|e| e.to_string())?;
        let epoch = Epoch::try_from(batch.epoch[start]).map_err(|e| e.to_string())?;
        *rows.entry((log, partition, epoch)).or_default() += (end - start) as u64;
        let of = spans.entry((log, partition)).or_default();
        for key in (start..end).map(|i| batch.key(i)) {
            match of.last_mut().filter(|span| span.file == path) {
                None => of.push(Span { file: path.to_owned(), rows: 1, first: key, last: key, ascending: true }),
                Some(span) => {
                    // Where keys rise all the time, none is there twice.
                    span.ascending &= key > span.last;
                    span.rows += 1;
                    span.first = span.first.min(key);
                    span.last = span.last.max(key);
                }
            }
        }
        start = end;
    }
    Ok(())
}

/// Compares keys one by one only where files overlap, or where their order does not rule duplicates out.
fn duplicates(of: (LogId, Partition), spans: &mut [Span], held: &mut Held) -> Result<(), VerifyError> {
    spans.sort_by_key(|span| span.first);
    let mut start = 0;
    while start < spans.len() {
        let mut last = spans[start].last;
        let mut end = start + 1;
        while end < spans.len() && spans[end].first <= last {
            last = last.max(spans[end].last);
            end += 1;
        }
        let group = &spans[start..end];
        if group.len() > 1 || !group[0].ascending {
            compare(of, group, held)?;
        }
        start = end;
    }
    Ok(())
}

fn compare((log, partition): (LogId, Partition), group: &[Span], held: &mut Held) -> Result<(), VerifyError> {
    let rows: u64 = group.iter().map(|span| span.rows).sum();
    if rows > VERIFY_KEYS_MAX as u64 {
        return Err(at(&group[0].file)(&format!("{} files with {rows} rows overlap; at most {VERIFY_KEYS_MAX} are compared", group.len())));
    }
    let name = log.to_string();
    let mut seen: HashSet<Key> = HashSet::new();
    for span in group {
        read_file(&span.file, &mut |batch| {
            for i in 0..batch.len() {
                if batch.partition[i] as Partition != partition || batch.log.value(i) != name || seen.insert(batch.key(i)) {
                    continue;
                }
                held.duplicates += 1;
                if held.named.len() < NAMED_MAX {
                    held.named.push((log, partition, batch.key(i)));
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}
