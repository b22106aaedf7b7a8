//! Who may commit to a partition, and the places of what is committed: they are known before the write, since nobody
//! else writes to the partition, so an epoch's own record can name them.

use super::append::Placed;
use super::layout::{Chain, PROGRESS};
use super::segments::Segments;
use super::writer::{Item, Writer};
use crate::log::calls::check_size;
use std::sync::{Mutex, PoisonError};
use tidegate_schemas::ids::Partition;
use tidegate_schemas::limits;
use tidegate_schemas::log::{CommitUnit, LogError, LogName, Owner, Written};

/// One entry for each partition.
pub struct Owners(Vec<Mutex<Reserved>>);

#[derive(Clone, Copy)]
struct Reserved {
    generation: u64,
    clean: u64,
    audit: u64,
    raw_next: u64,
}

impl Owners {
    /// Goes on where the output ends. Generations begin at `generation`, which rises from one start to the next, so
    /// that an owner of an earlier one has lost its right.
    pub fn new(output: &Segments, generation: u64) -> Self {
        let lane = |log| output.next(Chain::of(log).1);
        let places = lane(LogName::Clean).into_iter().zip(lane(LogName::Audit)).zip(output.next(PROGRESS));
        Self(places.map(|((clean, audit), raw_next)| Mutex::new(Reserved { generation, clean, audit, raw_next })).collect())
    }

    /// Makes a new owner. What the former one has under way is durable, or failed, once this returns: else the new
    /// owner would read `commits` and miss an epoch that appears later.
    pub fn fence(&self, partition: Partition, output: &Writer) -> Result<Owner, LogError> {
        let mut reserved = self.0[partition as usize].lock().unwrap_or_else(PoisonError::into_inner);
        wait_for(output, Vec::new())?;
        reserved.generation += 1;
        Ok(Owner { partition, generation: reserved.generation })
    }

    /// Writes epochs in one group; `room` refuses where the budget is spent.
    pub fn commit(
        &self,
        owner: &Owner,
        units: Vec<CommitUnit>,
        raw_end: u64,
        room: impl Fn(usize) -> Result<(), LogError>,
        output: &Writer,
    ) -> Result<Vec<Written>, LogError> {
        let partition = owner.partition;
        let mut reserved = self.0[partition as usize].lock().unwrap_or_else(PoisonError::into_inner);
        if reserved.generation != owner.generation {
            return Err(LogError::Fenced { partition, generation: owner.generation });
        }
        // Only stored once everything is checked and written: a refused commit leaves no gap.
        let mut next = *reserved;
        let (mut records, mut written) = (Vec::new(), Vec::with_capacity(units.len()));
        for unit in units {
            if unit.raw_next < next.raw_next || unit.raw_next > raw_end {
                let detail = format!("it says that raw is processed up to {}, not in {}..={raw_end}", unit.raw_next, next.raw_next);
                return Err(LogError::Io { doing: format!("commit epoch {} of partition {partition}", unit.epoch), detail });
            }
            let place = Written {
                clean: next.clean..next.clean + unit.clean.len() as u64,
                audit: next.audit..next.audit + unit.audit.len() as u64,
            };
            next = Reserved { clean: place.clean.end, audit: place.audit.end, raw_next: unit.raw_next, ..next };
            let commit = (unit.commit)(&place);
            let lanes = [(LogName::Clean, unit.clean), (LogName::Audit, unit.audit), (LogName::Commits, vec![commit])];
            for (log, list) in lanes {
                for record in list {
                    check_size(&record)?;
                    records.push(Placed::record(Chain::of(log).1, partition, record));
                }
            }
            records.push(Placed::progress(partition, unit.raw_next));
            written.push(place);
        }
        let bytes = records.iter().map(Placed::size).sum();
        if bytes > limits::COMMIT_BYTES_MAX {
            return Err(LogError::TooLarge { bytes, max: limits::COMMIT_BYTES_MAX });
        }
        room(bytes)?;
        wait_for(output, records)?;
        *reserved = next;
        Ok(written)
    }
}

/// Queues and waits. The lock of the partition is held meanwhile: its epochs are written one call after the other.
fn wait_for(output: &Writer, records: Vec<Placed>) -> Result<(), LogError> {
    let (tell, told) = crossbeam_channel::bounded(1);
    output.submit_waiting(Item::new(
        records,
        Box::new(move |result| {
            let _ = tell.send(result.map(drop));
        }),
    ))?;
    told.recv().unwrap_or(Err(LogError::Closed))
}
