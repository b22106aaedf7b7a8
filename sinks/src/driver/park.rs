//! Cuts of parked tables, kept apart until somebody mends the table: the cursor does not wait for them.
//!
//! ```text
//! <folder>/<sink>/<log>/<partition>/<table>/<tenant or _>/parked.json          why, and since which epoch
//!                                                        /<cut name>.arrow     its rows, an Arrow IPC stream
//!                                                        /<cut name>.gap       dropped: the budget was used up, or by hand
//!                                                        /resume, /drop        what somebody asks for, until it is done
//! ```
//! All names follow from the log, so keeping the same cut again after a crash changes nothing.

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_schemas::block;
use tidegate_schemas::ids::{Epoch, LogId, Partition, TenantId};
use tidegate_schemas::sink::{Cut, Rows, Target};
use tidegate_schemas::time;

/// Says that a table is parked.
pub(super) const NOTE: &str = "parked.json";

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
pub(super) struct Note {
    pub table: String,
    pub tenant: Option<TenantId>,
    pub partition: Partition,
    pub first: Epoch,
    pub reason: String,
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
        let folder = place(&self.folder, cut.partition, &cut.target);
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
        let note = folder.join(NOTE);
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

/// What somebody asks for a parked table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Deliver what waits, and go on.
    Resume,
    /// Give up what waits, and go on.
    Drop,
}

impl Wish {
    const ALL: [Self; 2] = [Self::Resume, Self::Drop];

    fn file(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Drop => "drop",
        }
    }
}

/// Leaves a wish for every parked table that is meant: whoever delivers the partition takes note of it within seconds. Returns what
/// is meant.
pub fn wish(root: &Path, sink: &str, log: LogId, wish: Wish, meant: impl Fn(&super::Survey) -> bool) -> io::Result<Vec<super::Survey>> {
    let parked = super::survey(root, sink, log)?.into_iter().filter(meant).collect::<Vec<_>>();
    for found in &parked {
        let target = Target { table: found.table.clone(), tenant: found.tenant.clone() };
        put(&place(&root.join(sink).join(log.to_string()), found.partition, &target).join(wish.file()), b"")?;
    }
    Ok(parked)
}

/// The folder of a target.
fn place(folder: &Path, partition: Partition, target: &Target) -> PathBuf {
    folder.join(partition.to_string()).join(&target.table).join(target.tenant.as_ref().map_or("_", TenantId::as_str))
}

impl Park {
    /// What is asked for a parked table, if anything is.
    pub fn wished(&self, partition: Partition, target: &Target) -> Option<Wish> {
        let place = place(&self.folder, partition, target);
        Wish::ALL.into_iter().find(|wish| place.join(wish.file()).exists())
    }

    /// The cuts that wait, in order of their epochs.
    pub fn waiting(&self, partition: Partition, target: &Target) -> io::Result<Vec<Waiting>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(place(&self.folder, partition, target))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "arrow") {
                found.push(Waiting::at(path)?);
            }
        }
        found.sort_by_key(|w| w.first);
        Ok(found)
    }

    /// Reads a cut that waits, as it was.
    pub fn load(&self, log: LogId, partition: Partition, target: &Target, waiting: &Waiting) -> io::Result<Cut> {
        let reader = StreamReader::try_new(BufReader::new(File::open(&waiting.path)?), None).map_err(io::Error::other)?;
        let schema = reader.schema();
        let batches = reader.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
        let recorded_at = batches.last().and_then(|b| {
            let times = b.column_by_name("recorded_at")?.as_primitive_opt::<TimestampMicrosecondType>()?;
            times.values().last().copied()
        });
        let recorded_at = recorded_at.ok_or_else(|| io::Error::other(format!("{} holds no recorded time", waiting.path.display())))?;
        let rows_count = batches.iter().map(|b| b.num_rows() as u64).sum();
        let rows = match target.tenant {
            Some(_) => Rows::Batches(batches),
            None => Rows::Streams(batches.iter().map(block::encode).collect::<Result<_, _>>().map_err(io::Error::other)?),
        };
        Ok(Cut {
            log,
            partition,
            target: target.clone(),
            first: waiting.first,
            last: waiting.last,
            day: time::day(recorded_at),
            recorded_at,
            schema,
            rows_count,
            bytes: waiting.bytes,
            rows,
        })
    }

    /// Forgets a cut that waits no longer.
    pub fn forget(&self, waiting: &Waiting) -> io::Result<()> {
        fs::remove_file(&waiting.path)?;
        self.bytes.fetch_sub(waiting.bytes, Ordering::SeqCst);
        Ok(())
    }

    /// Gives a cut up, which stays recorded.
    pub fn give_up(&self, waiting: &Waiting, rows: u64) -> io::Result<()> {
        let name = waiting.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let gap = Gap { cut: &name, first: waiting.first, last: waiting.last, rows };
        put(&waiting.path.with_extension("gap"), &serde_json::to_vec(&gap)?)?;
        self.forget(waiting)
    }

    /// The wish is done; or it was in vain, and the table stays parked for this reason.
    pub fn done(&self, partition: Partition, target: &Target, in_vain: Option<&str>) -> io::Result<Option<Parked>> {
        let place = place(&self.folder, partition, target);
        for wish in Wish::ALL {
            match fs::remove_file(place.join(wish.file())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Last: a table without its note is not parked.
        let note = place.join(NOTE);
        let Some(reason) = in_vain else {
            fs::remove_file(note)?;
            File::open(&place)?.sync_all()?;
            return Ok(None);
        };
        let old: Note = serde_json::from_slice(&fs::read(&note)?)?;
        let fresh = Note { reason: reason.to_owned(), ..old };
        put(&note, &serde_json::to_vec(&fresh)?)?;
        Ok(Some(Parked::from(fresh)))
    }
}

/// A cut that waits.
pub struct Waiting {
    path: PathBuf,
    /// Its first epoch.
    pub first: Epoch,
    last: Epoch,
    bytes: u64,
}

impl Waiting {
    fn at(path: PathBuf) -> io::Result<Self> {
        let bytes = fs::metadata(&path)?.len();
        let (first, last) = epochs(&path)?;
        Ok(Self { first, last, bytes, path })
    }
}

/// The first and the last epoch of what is kept of a cut, by its name.
pub(super) fn epochs(kept: &Path) -> io::Result<(Epoch, Epoch)> {
    let name = kept.file_stem().unwrap_or_default().to_string_lossy();
    let mut parts = name.rsplitn(3, '-').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(last)), Some(Ok(first))) => Ok((first, last)),
        _ => Err(io::Error::other(format!("{} is not named like a cut", kept.display()))),
    }
}

impl From<Note> for Parked {
    fn from(note: Note) -> Self {
        let target = Target { table: note.table, tenant: note.tenant };
        Self { partition: note.partition, target, first: note.first, reason: note.reason }
    }
}

fn encode(cut: &Cut) -> Result<Vec<u8>, ArrowError> {
    // A stream: in a file each column would need one dictionary for all batches.
    let mut writer = StreamWriter::try_new(Vec::new(), &cut.schema)?;
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

pub(super) fn walk(folder: &Path, see: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { walk(&path, see)? } else { see(&path)? }
    }
    Ok(())
}
