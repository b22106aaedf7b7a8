//! The sinks, each with the progress of this process's driver: what receipts and `/ready` know of them. Of partitions that
//! other processes deliver, the tables themselves are asked.

use crate::recent::RecentCommits;
use crate::scan::ScanError;
use std::sync::Arc;
use tidegate_schemas::ids::{Epoch, Partition, Position};
use tidegate_schemas::log::{EventLog, LogError, LogName};
use tidegate_schemas::sink::{Grain, Sink, SinkError, Target};
use tidegate_sinks::driver::Progress;

/// A sink at work.
#[derive(Clone)]
pub struct RunningSink {
    /// Where rows go.
    pub sink: Arc<dyn Sink>,
    /// How far it is.
    pub progress: Arc<Progress>,
}

impl RunningSink {
    /// Whether the rows of an epoch are durable, and then where. Blocks, on a thread of a runtime.
    pub fn durable(&self, log: &dyn EventLog, partition: Partition, target: &Target, epoch: Epoch) -> Result<Option<String>, SinkError> {
        let grained = match self.sink.grain() {
            Grain::Tenant => target.clone(),
            Grain::Table => Target { tenant: None, ..target.clone() },
        };
        let through = if self.progress.is_active(partition) {
            self.progress.through(partition, &grained)
        } else {
            // It has rows of this epoch, so the target holds it once it holds any as late.
            let held = self.sink.held(log.log_id(), partition, &grained);
            tokio::runtime::Handle::current().block_on(held)?.unwrap_or(0)
        };
        Ok((through >= epoch).then(|| self.sink.location(target)))
    }

    /// Every epoch up to this one is delivered. Of what other processes deliver only common edges are known.
    pub fn settled(&self, log: &dyn EventLog, partition: Partition) -> Result<Epoch, LogError> {
        if self.progress.is_active(partition) {
            return Ok(self.progress.settled(partition));
        }
        Ok(log.cursor(self.sink.name(), partition)?.map_or(0, |c| c.epoch.saturating_sub(1)))
    }
}

/// Whether everything that `raw` holds now is committed, and delivered by every sink. Who asks asks again and again, so the
/// log is asked only for its end where commits are followed.
pub fn drained(log: &dyn EventLog, commits: &RecentCommits, sinks: &[RunningSink]) -> Result<bool, ScanError> {
    for partition in 0..log.partitions() {
        let raw = log.bounds(LogName::Raw, partition)?;
        let Some(last) = raw.end.checked_sub(1) else { continue };
        // The last event of the last record; its ordinal is unknown here, but nothing lies beyond it.
        let Some(commit) = commits.last(partition)? else { return Ok(false) };
        if commit.settled_to().offset < raw.end {
            return Ok(false);
        }
        let done = commits.first(partition, |commit| commit.settled_to() > Position { offset: last, ordinal: u32::MAX })?;
        let Some(done) = done else { continue };
        for sink in sinks {
            if sink.settled(log, partition)? < done.epoch {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
