//! The folder of a log: what lies in it, who it belongs to, and how a small file is replaced so that a power cut leaves
//! the old or the new one.

use super::{corrupt, failed};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use tidegate_schemas::ids::LogId;
use tidegate_schemas::limits;
use tidegate_schemas::log::{LogError, LogName};

/// A sequence of segments in a folder of its own. Separate, or retention could not delete files: what is kept longest
/// would hold the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// `raw`.
    Raw = 1,
    /// `clean`, `audit` and `commits`: an epoch is one write.
    Output = 2,
    /// Commit records of deleted segments of `Output`.
    Commits = 3,
    /// `control`.
    Control = 4,
}

/// The lane of `Output` that holds no records: its offsets say up to where `raw` is processed.
pub const PROGRESS: usize = 3;

/// A lock outlives its owner for a moment: while a killed process is taken down, and in a child between fork and exec.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

impl Chain {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Output, Self::Commits, Self::Control];

    /// The folder, and the label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Output => "output",
            Self::Commits => "commits",
            Self::Control => "control",
        }
    }

    /// Its place among all of them.
    pub fn place(self) -> usize {
        self as usize - 1
    }

    /// As stored.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|c| *c as u32 == number)
    }

    /// Sequences of offsets that share the chain, for each partition.
    pub fn lanes(self) -> usize {
        if self == Self::Output { 4 } else { 1 }
    }

    /// Partitions of each lane.
    pub fn width(self, partitions: u32) -> usize {
        if self == Self::Control { 1 } else { partitions as usize }
    }

    /// Lanes times partitions.
    pub fn slots(self, partitions: u32) -> usize {
        self.lanes() * self.width(partitions)
    }

    /// Where a log is written, and its lane there.
    pub fn of(log: LogName) -> (Self, usize) {
        match log {
            LogName::Raw => (Self::Raw, 0),
            LogName::Clean => (Self::Output, 0),
            LogName::Audit => (Self::Output, 1),
            LogName::Commits => (Self::Output, 2),
            LogName::Control => (Self::Control, 0),
        }
    }
}

/// What `log.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    /// Minted with the folder.
    pub log_id: LogId,
    /// Fixed with it.
    pub partitions: u32,
    /// Whether every chain has its first segment; from then on a chain without one is damage.
    pub ready: bool,
}

const MANIFEST: &str = "log.json";
const LOCK: &str = "lock";

impl Manifest {
    /// A new log.
    pub fn mint(partitions: u32) -> Result<Self, LogError> {
        if partitions == 0 || partitions as usize > limits::PARTITIONS_MAX {
            let detail = format!("{partitions} partitions were asked for; 1 to {} are possible", limits::PARTITIONS_MAX);
            return Err(LogError::Io { doing: "create log".into(), detail });
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|e| LogError::Io { doing: "draw log id".into(), detail: e.to_string() })?;
        Ok(Self { format: super::wire::FORMAT, log_id: LogId(id), partitions, ready: false })
    }

    /// Reads it; `None` where the folder has none. A folder without one must be empty, or it is not ours.
    pub fn load(dir: &Path) -> Result<Option<Self>, LogError> {
        let path = dir.join(MANIFEST);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                for entry in fs::read_dir(dir).map_err(|e| failed(format!("list {}", dir.display()), &e))? {
                    let name = entry.map_err(|e| failed(format!("list {}", dir.display()), &e))?.file_name();
                    if !matches!(name.to_str(), Some(LOCK | "log.json.new" | "lost+found")) {
                        return Err(corrupt(&path, 0, "it is missing, and the folder is not empty"));
                    }
                }
                return Ok(None);
            }
            Err(e) => return Err(failed(format!("read {}", path.display()), &e)),
        };
        let manifest: Self = serde_json::from_slice(&text).map_err(|e| corrupt(&path, 0, &e.to_string()))?;
        if manifest.format != super::wire::FORMAT {
            return Err(corrupt(&path, 0, &format!("format {} is not known to this version", manifest.format)));
        }
        // Whoever opens beside an owner has no other word for it, and sizes follow from it.
        if manifest.partitions == 0 || manifest.partitions as usize > limits::PARTITIONS_MAX {
            return Err(corrupt(&path, 0, &format!("{} partitions; there are 1 to {}", manifest.partitions, limits::PARTITIONS_MAX)));
        }
        Ok(Some(manifest))
    }

    /// Stores it.
    pub fn store(&self, dir: &Path) -> Result<(), LogError> {
        replace(dir, MANIFEST, &serde_json::to_vec_pretty(self).unwrap_or_default())
    }

    /// The error for a log that is not the expected one.
    pub fn foreign(&self, detail: String) -> LogError {
        LogError::Foreign { found: self.log_id, found_partitions: self.partitions, detail }
    }
}

/// Takes the folder for this process, or tells who has it. The right ends with the returned file.
pub fn lock(dir: &Path) -> Result<File, LogError> {
    let path = dir.join(LOCK);
    let doing = || format!("lock {}", path.display());
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(|e| failed(doing(), &e))?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if began.elapsed() < LOCK_PATIENCE => std::thread::sleep(Duration::from_millis(5)),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok()).unwrap_or(0);
                return Err(LogError::InUse { folder: dir.display().to_string(), pid });
            }
            Err(TryLockError::Error(e)) => return Err(failed(doing(), &e)),
        }
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(|e| failed(doing(), &e))?;
    Ok(file)
}

/// Makes the folder's entries durable.
pub fn sync_folder(dir: &Path) -> Result<(), LogError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| failed(format!("sync {}", dir.display()), &e))
}

/// Creates a folder and makes its entry durable.
pub fn make_folder(dir: &Path) -> Result<(), LogError> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(|e| failed(format!("create {}", dir.display()), &e))?;
    dir.parent().filter(|p| p.as_os_str().len() > 1).map_or(Ok(()), sync_folder)
}

/// Puts a whole file in place of another, durably.
pub fn replace(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), LogError> {
    let path = dir.join(name);
    write_new(&path, bytes)?;
    rename_new(dir, &path)
}

/// Writes `path` + `.new` and syncs it.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<File, LogError> {
    let new = path.with_added_extension("new");
    let written = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&new).and_then(|mut f| {
        f.write_all(bytes)?;
        f.sync_all()?;
        Ok(f)
    });
    written.map_err(|e| failed(format!("write {}", new.display()), &e))
}

/// Gives `path` + `.new` its name, durably.
pub fn rename_new(dir: &Path, path: &Path) -> Result<(), LogError> {
    fs::rename(path.with_added_extension("new"), path).map_err(|e| failed(format!("rename to {}", path.display()), &e))?;
    sync_folder(dir)
}
