//! Commit records are read from two chains: the older ones have moved to an archive, since the output that they stood in was
//! deleted.

use super::layout::Chain;
use super::segments::ReadError;
use super::{EmbeddedLog, corrupt};
use tidegate_schemas::ids::Partition;
use tidegate_schemas::log::{Entry, LogName};

impl EmbeddedLog {
    /// Records from `from` on, from the archive and then from the output.
    pub(super) fn read_commits(&self, partition: Partition, from: u64, bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        let lane = Chain::of(LogName::Commits).1;
        loop {
            let output = self.output.bounds(lane, partition);
            let old = from < output.start;
            let mut entries = if old { self.archive.read(0, partition, from, bytes_max)? } else { Vec::new() };
            // Beside an owner the archive is opened later than the output, and commits were moved there since.
            entries.retain(|e| e.offset < output.end);
            let read: usize = entries.iter().map(|e| e.record.size()).sum();
            let next = entries.last().map_or(from, |e| e.offset + 1);
            if old && entries.is_empty() {
                // They are moved before they are deleted, so this is no race.
                let detail = format!("commits of partition {partition} from offset {from} on are missing");
                return Err(ReadError::Failed(corrupt(&self.archive.dir, 0, &detail)));
            }
            if old && (read >= bytes_max || next < self.archive.bounds(0, partition).end) {
                return Ok(entries);
            }
            match self.output.read(lane, partition, next, bytes_max.saturating_sub(read)) {
                Ok(newer) => {
                    entries.extend(newer);
                    return Ok(entries);
                }
                // Moved to the archive since.
                Err(ReadError::Gone(_)) if entries.is_empty() => {}
                Err(ReadError::Gone(_)) => return Ok(entries),
                Err(e) => return Err(e),
            }
        }
    }
}
