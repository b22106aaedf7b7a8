//! The sinks of this process, each with its driver's progress: what receipts and `/ready` know of them.

use crate::commits::{Covering, covering};
use crate::scan::ScanError;
use std::sync::Arc;
use tidegate_schemas::ids::{Epoch, Partition, Position};
use tidegate_schemas::log::{EventLog, LogName};
use tidegate_schemas::sink::{Grain, Sink, Target};
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
    /// Whether the rows of an epoch are durable, and then where.
    pub fn durable(&self, partition: Partition, target: &Target, epoch: Epoch) -> Option<String> {
        let grained = match self.sink.grain() {
            Grain::Tenant => target.clone(),
            Grain::Table => Target { tenant: None, ..target.clone() },
        };
        (self.progress.through(partition, &grained) >= epoch).then(|| self.sink.location(target))
    }

    /// Every epoch up to this one is delivered.
    pub fn settled(&self, partition: Partition) -> Epoch {
        self.progress.settled(partition)
    }
}

/// Whether everything that `raw` holds now is committed, and delivered by every sink.
pub fn drained(log: &dyn EventLog, sinks: &[RunningSink]) -> Result<bool, ScanError> {
    for partition in 0..log.partitions() {
        let raw = log.bounds(LogName::Raw, partition)?;
        let Some(last) = raw.end.checked_sub(1) else { continue };
        // The last event of the last record; its ordinal is unknown here, but nothing lies beyond it.
        let Some(commit) = crate::commits::last(log, partition)? else { return Ok(false) };
        if commit.raw_to.offset < raw.end {
            return Ok(false);
        }
        let epoch = match covering(log, partition, Position { offset: last, ordinal: u32::MAX })? {
            Covering::Found(commit) => commit.epoch,
            Covering::Gone => continue,
            Covering::Ahead => return Ok(false),
        };
        if sinks.iter().any(|s| s.settled(partition) < epoch) {
            return Ok(false);
        }
    }
    Ok(true)
}
