//! Reading a range of a log from one end to the other.

use std::ops::Range;
use std::time::Duration;
use tidegate_schemas::block::BlockError;
use tidegate_schemas::commit::CommitError;
use tidegate_schemas::ids::Partition;
use tidegate_schemas::limits::READ_BYTES_MAX;
use tidegate_schemas::log::{Entry, EventLog, LogError, LogName};

/// Why a log's records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The log failed.
    #[error("log")]
    Log(#[from] LogError),
    /// A commit record is unreadable.
    #[error("commits of partition {0}")]
    Commit(Partition, #[source] CommitError),
    /// A record of `clean` or `audit` is unreadable.
    #[error("output of partition {0}")]
    Block(Partition, #[source] BlockError),
}

/// A range that is known to be committed may take a moment to become visible: markers of one transaction reach the
/// partitions of a log one after the other. It is waited for so often, each time for so long.
const LOOKS: u32 = 100;
const LOOK: Duration = Duration::from_millis(100);

/// Shows every record of a range, in order. Waits for the end of one that is committed and not visible yet.
pub fn each<E: From<LogError>>(
    log: &dyn EventLog,
    name: LogName,
    partition: Partition,
    range: Range<u64>,
    mut see: impl FnMut(&Entry) -> Result<(), E>,
) -> Result<(), E> {
    let mut at = range.start;
    while at < range.end {
        let mut entries = log.read(name, partition, at, READ_BYTES_MAX)?;
        for _ in 0..LOOKS {
            if !entries.is_empty() {
                break;
            }
            // Beyond what is readable there may be offsets without records, never records without an end.
            if log.bounds(name, partition)?.end >= range.end {
                return Ok(());
            }
            entries = log.poll(name, partition, at, READ_BYTES_MAX, LOOK)?;
        }
        let Some(last) = entries.last() else {
            let doing = format!("reading {} of partition {partition} up to {}", name.as_str(), range.end);
            return Err(LogError::Io { doing, detail: format!("nothing is readable from {at} on") }.into());
        };
        at = last.offset + 1;
        entries.iter().filter(|e| e.offset < range.end).try_for_each(&mut see)?;
    }
    Ok(())
}
