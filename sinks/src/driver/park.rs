//! Cuts of parked tables, kept apart until somebody mends the table: the cursor does not wait for them.
//!
//! ```text
//! <folder>/<sink>/<log>/<partition>/<table>/<tenant or _>/parked.json          why, and since which epoch
//!                                                        /<cut name>.arrow     its rows, an Arrow IPC file
//!                                                        /<cut name>.gap       dropped: the budget was used up
//! ```
//! All names follow from the log, so keeping the same cut again after a crash changes nothing.

use arrow::error::ArrowError;
use arrow::ipc::writer::FileWriter;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_schemas::block;
use tidegate_schemas::ids::{Epoch, LogId, Partition, TenantId};
use tidegate_schemas::sink::{Cut, Rows, Target};

/// A table of one partition that takes no cuts until it is resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The partition.
    pub partition: Partition,
    /// The table, and the tenant where the sink takes tenants.
    pub target: Target,
    /// The first epoch that was not delivered.
    pub first: Epoch,
    /// Why.
    pub reason: String,
}

/// What became of a cut that came to be parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Its rows wait.
    Rows,
    /// Its rows are dropped, which is recorded.
    Gap,
}

#[derive(Serialize, Deserialize)]
struct Note {
    table: String,
    tenant: Option<TenantId>,
    partition: Partition,
    first: Epoch,
    reason: String,
}

#[derive(Serialize)]
struct Gap<'a> {
    cut: &'a str,
    first: Epoch,
    last: Epoch,
    rows: u64,
}

/// The parked cuts of one sink and log.
pub struct Park {
    folder: PathBuf,
    bytes_max: u64,
    bytes: AtomicU64,
}

impl Park {
    /// Finds out how much is parked already.
    pub fn open(root: &Path, sink: &str, log: LogId, bytes_max: u64) -> io::Result<Self> {
        let folder = root.join(sink).join(log.to_string());
        fs::create_dir_all(&folder)?;
        let mut bytes = 0;
        walk(&folder, &mut |path| {
            if path.extension().is_some_and(|e| e == "arrow") {
                bytes += fs::metadata(path)?.len();
            }
            Ok(())
        })?;
        Ok(Self { folder, bytes_max, bytes: AtomicU64::new(bytes) })
    }

    /// What is parked of a partition, by whichever process.
    pub fn list(&self, partition: Partition) -> io::Result<Vec<Parked>> {
        let (folder, mut found) = (self.folder.join(partition.to_string()), Vec::new());
        if !folder.exists() {
            return Ok(found);
        }
        walk(&folder, &mut |path| {
            match path.extension().and_then(|e| e.to_str()) {
                Some("json") => found.push(Parked::from(serde_json::from_slice::<Note>(&fs::read(path)?)?)),
                // Left by a crash while it was written: whoever asks is about to work on the partition.
                Some("part") => fs::remove_file(path)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Bytes kept.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Keeps a cut durably, or records that it was dropped.
    pub fn keep(&self, cut: &Cut, reason: &str) -> io::Result<(Parked, Kept)> {
        let tenant = cut.target.tenant.as_ref().map_or("_", TenantId::as_str);
        let folder = self.folder.join(cut.partition.to_string()).join(&cut.target.table).join(tenant);
        fs::create_dir_all(&folder)?;
        let name = cut.name();
        let (rows, gap) = (folder.join(format!("{name}.arrow")), folder.join(format!("{name}.gap")));
        let kept = if rows.exists() {
            Kept::Rows
        } else if gap.exists() {
            Kept::Gap
        } else {
            let encoded = encode(cut).map_err(io::Error::other)?;
            let size = encoded.len() as u64;
            if self.bytes().saturating_add(size) > self.bytes_max {
                put(&gap, &serde_json::to_vec(&Gap { cut: &name, first: cut.first, last: cut.last, rows: cut.rows_count })?)?;
                Kept::Gap
            } else {
                put(&rows, &encoded)?;
                self.bytes.fetch_add(size, Ordering::SeqCst);
                Kept::Rows
            }
        };
        // Last, so that the table counts as parked only with its first cut safe; it keeps the first reason.
        let note = folder.join("parked.json");
        let parked = if note.exists() {
            Parked::from(serde_json::from_slice::<Note>(&fs::read(&note)?)?)
        } else {
            let fresh = Note {
                table: cut.target.table.clone(),
                tenant: cut.target.tenant.clone(),
                partition: cut.partition,
                first: cut.first,
                reason: reason.to_owned(),
            };
            put(&note, &serde_json::to_vec(&fresh)?)?;
            Parked::from(fresh)
        };
        Ok((parked, kept))
    }
}

impl From<Note> for Parked {
    fn from(note: Note) -> Self {
        let target = Target { table: note.table, tenant: note.tenant };
        Self { partition: note.partition, target, first: note.first, reason: note.reason }
    }
}

fn encode(cut: &Cut) -> Result<Vec<u8>, ArrowError> {
    let mut writer = FileWriter::try_new(Vec::new(), &cut.schema)?;
    match &cut.rows {
        Rows::Batches(batches) => batches.iter().try_for_each(|batch| writer.write(batch))?,
        Rows::Streams(streams) => {
            for stream in streams {
                let batch = block::decode(stream).map_err(|e| ArrowError::IpcError(e.to_string()))?;
                writer.write(&batch)?;
            }
        }
    }
    writer.into_inner()
}

/// Writes a file that is either whole or not there, and syncs it and its folder.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file = File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    // Folders above may be new as well.
    path.ancestors().skip(1).take(6).filter(|p| !p.as_os_str().is_empty()).try_for_each(|p| File::open(p)?.sync_all())
}

fn walk(folder: &Path, see: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { walk(&path, see)? } else { see(&path)? }
    }
    Ok(())
}
