//! What the tables hold, read back: for `tidegate verify`. Reads only; one file at a time, a batch at a time.

use super::table::{self, Engine, LOG_FOLDER};
use super::{Runtime, application, checksum, folder};
use crate::objects::{self, Objects};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::{KernelError, Snapshot, SnapshotRef};
use hashbrown::HashSet;
use object_store::{GetResult, GetResultPayload, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::ChunkReader;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use tidegate_schemas::causes;
use tidegate_schemas::ids::{Epoch, LogId, Partition, TableId, TenantId};
use tidegate_schemas::limits::{VERIFY_FILE_BYTES_MAX, VERIFY_KEYS_MAX};
use tidegate_schemas::system::SystemTable;
use url::Url;

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
    pub folder: Url,
}

impl TableRef {
    /// Its folder, as people write it.
    pub fn place(&self) -> String {
        objects::place(&self.folder)
    }
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
#[error("reading {place}: {detail}")]
pub struct VerifyError {
    /// The folder or file.
    pub place: String,
    /// What went wrong.
    pub detail: String,
}

fn at(url: &Url) -> impl Fn(&dyn Display) -> VerifyError + '_ {
    move |detail| VerifyError { place: objects::place(url), detail: detail.to_string() }
}

/// Reads tables. Its calls block.
pub struct Verifier {
    objects: Objects,
    engine: Engine,
    handle: tokio::runtime::Handle,
    deep: bool,
    _runtime: Runtime,
}

/// The rows of one log and partition in one file.
struct Span {
    file: Url,
    rows: u64,
    first: Key,
    last: Key,
    ascending: bool,
}

type Spans = BTreeMap<(LogId, Partition), Vec<Span>>;

impl Verifier {
    /// For the tables of a folder.
    pub fn open(objects: Objects) -> Result<Self, VerifyError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(|e| at(objects.root())(&e))?;
        let handle = runtime.handle().clone();
        let engine = table::engine(Arc::clone(objects.store()), handle.clone());
        Ok(Self { objects, engine, handle, deep: false, _runtime: Runtime(Some(runtime)) })
    }

    /// Whether every byte of each file is read, rather than its footer and the columns that say where rows come from.
    pub fn deep(self, deep: bool) -> Self {
        Self { deep, ..self }
    }

    /// All tables, in order.
    pub fn tables(&self) -> Result<Vec<TableRef>, VerifyError> {
        apart(|| {
            let folders = |of: &Url| self.handle.block_on(self.objects.folders(of)).map_err(|e| at(of)(&causes::chain(&e)));
            let mut found = Vec::new();
            for tenant in folders(self.objects.root())? {
                let Ok(tenant) = TenantId::new(&tenant) else { continue };
                for table in folders(&self.objects.place_of(&[tenant.as_str()]))? {
                    let Ok(table) = TableId::new(&table) else { continue };
                    found.extend(self.there(&tenant, &table)?);
                }
            }
            found.sort();
            Ok(found)
        })
    }

    /// The table of a tenant, where it has one.
    pub fn find(&self, tenant: &TenantId, table: &TableId) -> Result<Option<TableRef>, VerifyError> {
        apart(|| self.there(tenant, table))
    }

    fn there(&self, tenant: &TenantId, table: &TableId) -> Result<Option<TableRef>, VerifyError> {
        let folder = folder(&self.objects, tenant, table.as_str());
        let log = folder.join(LOG_FOLDER).map_err(|e| at(&folder)(&e))?;
        let there = self.handle.block_on(self.objects.any(&log, "")).map_err(|e| at(&log)(&causes::chain(&e)))?;
        Ok(there.then(|| TableRef { tenant: tenant.clone(), table: table.clone(), folder }))
    }

    /// Reads the provenance of every row of a table's newest version.
    pub fn table(&self, table: &TableRef) -> Result<Held, VerifyError> {
        apart(|| self.read(table))
    }

    fn read(&self, table: &TableRef) -> Result<Held, VerifyError> {
        let fail = |e: KernelError| at(&table.folder)(&causes::chain(e.without_backtrace()));
        let snapshot = Snapshot::builder_for(table.folder.as_str()).build(self.engine.as_ref()).map_err(fail)?;
        let mut held = Held { version: snapshot.version(), ..Held::default() };
        let mut spans = Spans::new();
        for (file, size) in self.files(&snapshot, &table.folder)? {
            held.files += 1;
            held.bytes += size;
            self.read_file(&file, &mut |batch| count(batch, &file, &mut held.rows, &mut spans))?;
        }
        for (of, spans) in &mut spans {
            let cursor = snapshot.get_app_id_version(&application(of.0, of.1), self.engine.as_ref()).map_err(fail)?;
            held.cursors.insert(*of, cursor.and_then(|v| Epoch::try_from(v).ok()));
            // Rows of a run are no events of their own.
            if table.table.as_str() != SystemTable::ScriptRuns.as_str() {
                self.duplicates(*of, spans, &mut held)?;
            }
        }
        Ok(held)
    }

    /// Places and sizes of the live files.
    fn files(&self, snapshot: &SnapshotRef, table: &Url) -> Result<Vec<(Url, u64)>, VerifyError> {
        let fail = |e: KernelError| at(table)(&causes::chain(e.without_backtrace()));
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
                // Another bucket's path would be read from this one.
                if (url.scheme(), url.host()) != (table.scheme(), table.host()) {
                    return Err(at(table)(&format!("{url} lies elsewhere")));
                }
                files.push((url, u64::try_from(sizes.value(i)).unwrap_or(0)));
            }
        }
        Ok(files)
    }

    /// Shows the provenance columns of a file.
    fn read_file(&self, file: &Url, see: &mut dyn FnMut(&Provenance<'_>) -> Result<(), String>) -> Result<(), VerifyError> {
        let fail = |e: object_store::Error| at(file)(&causes::chain(&e));
        let found = self.handle.block_on(self.objects.store().get(&objects::path(file).map_err(fail)?)).map_err(fail)?;
        if found.meta.size > VERIFY_FILE_BYTES_MAX as u64 && !self.objects.is_local() {
            return Err(at(file)(&format!("it has {} bytes; at most {VERIFY_FILE_BYTES_MAX} are held in memory", found.meta.size)));
        }
        match found {
            GetResult { payload: GetResultPayload::File(local, _), .. } => {
                self.whole(&local, file)?;
                read_batches(local, file, see)
            }
            remote => {
                let bytes = self.handle.block_on(remote.bytes()).map_err(fail)?;
                self.whole(&bytes, file)?;
                read_batches(bytes, file, see)
            }
        }
    }

    fn whole(&self, file: &impl ChunkReader, url: &Url) -> Result<(), VerifyError> {
        if self.deep { checksum::check(file).map_err(|detail| at(url)(&detail)) } else { Ok(()) }
    }

    /// Compares keys one by one only where files overlap, or where their order does not rule duplicates out.
    fn duplicates(&self, of: (LogId, Partition), spans: &mut [Span], held: &mut Held) -> Result<(), VerifyError> {
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
                self.compare(of, group, held)?;
            }
            start = end;
        }
        Ok(())
    }

    fn compare(&self, (log, partition): (LogId, Partition), group: &[Span], held: &mut Held) -> Result<(), VerifyError> {
        let rows: u64 = group.iter().map(|span| span.rows).sum();
        if rows > VERIFY_KEYS_MAX as u64 {
            return Err(at(&group[0].file)(&format!(
                "{} files with {rows} rows overlap; at most {VERIFY_KEYS_MAX} are compared",
                group.len()
            )));
        }
        let name = log.to_string();
        let mut seen: HashSet<Key> = HashSet::new();
        for span in group {
            self.read_file(&span.file, &mut |batch| {
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
}

/// On a thread of its own: kernel and store are waited for, which is not allowed where futures run.
fn apart<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(what).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Shows the provenance columns of a file, a batch at a time.
fn read_batches(
    file: impl ChunkReader + 'static,
    url: &Url,
    see: &mut dyn FnMut(&Provenance<'_>) -> Result<(), String>,
) -> Result<(), VerifyError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| at(url)(&e))?;
    let columns = ["_log", "_partition", "_offset", "_index", "_row", "_epoch"];
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
    let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(|e| at(url)(&e))?;
    for batch in reader {
        let batch = batch.map_err(|e| at(url)(&e))?;
        let provenance = Provenance::of(&batch).ok_or_else(|| at(url)(&"it lacks the columns that say where its rows come from"))?;
        see(&provenance).map_err(|e| at(url)(&e))?;
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
fn count(batch: &Provenance<'_>, file: &Url, rows: &mut BTreeMap<(LogId, Partition, Epoch), u64>, spans: &mut Spans) -> Result<(), String> {
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
            match of.last_mut().filter(|span| span.file == *file) {
                None => of.push(Span { file: file.clone(), rows: 1, first: key, last: key, ascending: true }),
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
