//! What may be deleted: whole segments from the oldest on, behind everybody who still needs something.
//!
//! ```text
//! raw      behind what is processed, holds, and the replay horizon
//! output   behind every sink's cursor, holds, and the receipt horizon; its commit records move to `commits` first
//! commits  the oldest past its share of the budget, behind holds: each record carries running totals
//! control  nothing
//! ```
//! Past a share of the budget the horizons yield, oldest first; the rest is never deleted, however full the disk is.

use super::append::{Appender, Placed};
use super::layout::{Chain, PROGRESS};
use super::segments::{ReadError, Segments};
use super::writer::{Item, Writer};
use super::{EmbeddedLog, Writing, metrics, now};
use std::time::Duration;
use tidegate_schemas::fault;
use tidegate_schemas::ids::Partition;
use tidegate_schemas::limits;
use tidegate_schemas::log::{EventLog, LogError, LogName};

/// Deletes what nobody needs. Returns the bytes freed.
pub fn trim(log: &EmbeddedLog, writing: &Writing, archive: &mut Appender) -> Result<u64, LogError> {
    let mut freed = 0;
    archive.heal_if_due();
    let processed = log.holds.lower(LogName::Raw, log.output.next(PROGRESS));
    let before = older_than(log.options.raw_horizon);
    let count = deletable(&log.raw, writing, &writing.raw, || {
        let mut over = over_horizons(log);
        let processed = &processed;
        move |bytes, time, next: &[u64]| (time < before || take_from(&mut over, bytes)) && behind(next, processed)
    })?;
    freed += delete(&log.raw, count)?;

    let (clean, audit) = delivered(log);
    let (clean, audit) = (log.holds.lower(LogName::Clean, clean), log.holds.lower(LogName::Audit, audit));
    let before = older_than(log.options.audit_horizon);
    let width = clean.len();
    let count = deletable(&log.output, writing, &writing.output, || {
        let mut over = over_horizons(log);
        let (clean, audit) = (&clean, &audit);
        move |bytes, time, next: &[u64]| {
            (time < before || take_from(&mut over, bytes)) && behind(&next[..width], clean) && behind(&next[width..2 * width], audit)
        }
    })?;
    if count > 0 {
        move_commits(log, archive, count)?;
        freed += delete(&log.output, count)?;
    }

    let held = log.holds.lower(LogName::Commits, vec![u64::MAX; width]);
    let share = log.usage().share(limits::COMMITS_PERCENT);
    let mut over = log.archive.bytes().saturating_sub(share);
    let (count, _) = log.archive.prefix(|bytes, _, next| take_from(&mut over, bytes) && behind(next, &held));
    Ok(freed + delete(&log.archive, count)?)
}

/// Up to where every sink that ever stored a cursor has delivered, by partition.
fn delivered(log: &EmbeddedLog) -> (Vec<u64>, Vec<u64>) {
    (0..log.manifest.partitions).map(|p| log.cursors.lowest(p).unwrap_or((u64::MAX, u64::MAX))).unzip()
}

/// How many segments may go. Where the active one may too it is closed first, or an idle log would keep its last
/// records for ever. A chain that takes no writes keeps its active segment and lets go of the others: that is what makes
/// room on a full disk.
fn deletable<F: FnMut(u64, i64, &[u64]) -> bool>(
    segments: &Segments,
    writing: &Writing,
    writer: &Writer,
    may_go: impl Fn() -> F,
) -> Result<usize, LogError> {
    let (count, active) = segments.prefix(may_go());
    if !active || writing.health.is_failing(segments.chain) {
        return Ok(count);
    }
    let (tell, told) = crossbeam_channel::bounded(1);
    writer.submit_waiting(Item::roll(Box::new(move |result| {
        let _ = tell.send(result.map(drop));
    })))?;
    match told.recv().unwrap_or(Err(LogError::Closed)) {
        Err(_) if writing.health.is_failing(segments.chain) => return Ok(count),
        rolled => rolled?,
    }
    // Looked at again: more may have been written before it was closed.
    Ok(segments.prefix(may_go()).0)
}

/// Copies the commit records of the oldest segments of the output, durably.
fn move_commits(log: &EmbeddedLog, archive: &mut Appender, count: usize) -> Result<(), LogError> {
    let lane = Chain::of(LogName::Commits).1;
    for (partition, end) in log.output.first_after(count, lane).into_iter().enumerate() {
        let partition = partition as Partition;
        // A trim that was cut short between copy and deletion has copied some already.
        let mut next = log.archive.bounds(0, partition).end;
        while next < end {
            let entries = log.output.read(lane, partition, next, limits::GROUP_COMMIT_BYTES_MAX).map_err(|e| match e {
                ReadError::Failed(e) => e,
                ReadError::Gone(start) => LogError::Gone { log: LogName::Commits.as_str(), partition, from: next, start },
            })?;
            let records: Vec<_> = entries.into_iter().filter(|e| e.offset < end).map(|e| Placed::record(0, partition, e.record)).collect();
            next += records.len() as u64;
            archive.append(records.iter())?;
        }
    }
    Ok(())
}

fn delete(segments: &Segments, count: usize) -> Result<u64, LogError> {
    let mut freed = 0;
    for _ in 0..count {
        fault::point("trim.before_delete");
        freed += segments.delete_oldest()?;
        fault::point("trim.after_delete");
    }
    if freed > 0 {
        tracing::info!(chain = segments.chain.as_str(), segments = count, bytes = freed, "deleted what nobody needs");
        metrics::trimmed(segments.chain, freed);
    }
    Ok(freed)
}

/// Bytes by which the log has outgrown what horizons may keep.
fn over_horizons(log: &EmbeddedLog) -> u64 {
    let usage = log.usage();
    usage.bytes.saturating_sub(usage.share(limits::HORIZONS_PERCENT))
}

/// Whether there is something to free still; counts `bytes` as freed.
fn take_from(over: &mut u64, bytes: u64) -> bool {
    let any = *over > 0;
    *over = over.saturating_sub(bytes);
    any
}

fn behind(next: &[u64], bounds: &[u64]) -> bool {
    next.iter().zip(bounds).all(|(next, bound)| next <= bound)
}

/// The moment that lies so far back, µs.
fn older_than(horizon: Duration) -> i64 {
    now().saturating_sub(i64::try_from(horizon.as_micros()).unwrap_or(i64::MAX))
}
