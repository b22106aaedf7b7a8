//! Where the durable part of each chain ended, outside of the chain: a file that lost its end looks like one whose last
//! write was torn, and only what stands elsewhere tells them apart.
//!
//! Written after the sync of a group and before anybody hears of it, and not synced itself: it survives the death of the
//! process at once and that of the machine half a minute later. It may therefore be behind, never ahead, and what it says
//! was acknowledged, or could have been. One sector holds all of it, so it is written as a whole.

use super::layout::{self, Chain};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use tidegate_schemas::ids::LogId;

/// Its name in the log's folder.
pub const FILE: &str = "ends";
/// segment 8 | byte 8 | crc 4, over the log's id, the chain, and both.
const SLOT: usize = 20;
/// Distance of slots.
const STEP: u64 = 64;

/// Up to where a chain is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// Its last segment.
    pub segment: u64,
    /// One past the last byte there.
    pub byte: u64,
}

/// The file, for the owner of the log.
pub struct Ends {
    /// Missing where it could not be created: damage is found less often then, and nothing else depends on it.
    file: Option<File>,
    log: LogId,
}

impl Ends {
    /// Opens or creates it.
    pub fn open(dir: &Path, log: LogId) -> Self {
        let path = dir.join(FILE);
        let open = || -> std::io::Result<File> {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let length = STEP * Chain::ALL.len() as u64;
            if file.metadata()?.len() < length {
                // All of its blocks exist from now on, so a full disk does not keep it from being written.
                file.write_all_at(&vec![0; length as usize], 0)?;
                file.sync_all()?;
            }
            Ok(file)
        };
        let file = open().inspect_err(|error| tracing::warn!(%error, path = %path.display(), "the ends of the log are not kept")).ok();
        if file.is_some() {
            // A power cut that takes the entry takes what it says, and that is all.
            let _ = layout::sync_folder(dir);
        }
        Self { file, log }
    }

    /// Notes the end of a chain. Where that fails the former one stands, which is as true.
    pub fn note(&self, chain: Chain, end: End) {
        if let Some(file) = &self.file {
            let _ = file.write_all_at(&encode(self.log, chain, end), STEP * chain.place() as u64);
        }
    }
}

/// What is noted of a chain; `None` where nothing is, or nothing that can be read.
pub fn noted(dir: &Path, log: LogId, chain: Chain) -> Option<End> {
    let mut slot = [0; SLOT];
    File::open(dir.join(FILE)).ok()?.read_exact_at(&mut slot, STEP * chain.place() as u64).ok()?;
    let number = |at: usize| slot.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let end = End { segment: number(0)?, byte: number(8)? };
    (encode(log, chain, end) == slot).then_some(end)
}

fn encode(log: LogId, chain: Chain, end: End) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..8].copy_from_slice(&end.segment.to_le_bytes());
    slot[8..16].copy_from_slice(&end.byte.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&log.0);
    crc.update(&(chain as u32).to_le_bytes());
    crc.update(&slot[..16]);
    slot[16..].copy_from_slice(&crc.finalize().to_le_bytes());
    slot
}
