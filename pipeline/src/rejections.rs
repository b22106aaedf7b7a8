//! Rejections that wait: those that the log still holds and whose event neither came through since nor was released.
//!
//! ```text
//! audit   rejections ─▶ waiting ─▶ outcomes: transformed or filtered under its id ─▶ done
//!                          └─────▶ releases: it came again (and is another rejection, where it was refused again) ─▶ done
//! ```
//! The log alone tells, so a list and a release agree whatever died in between.

use crate::choice::{Known, RefusedChoice};
use crate::scan::{self, ScanError};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidegate_schemas::block::{self, OUTCOMES, OutcomesBlock, Output, Refused, RejectionsRead};
use tidegate_schemas::ids::{Epoch, Partition};
use tidegate_schemas::log::{EventLog, LogName};
use tidegate_schemas::system::SystemTable;
use tidegate_schemas::time::Micros;
use tidegate_schemas::verdict::{DuplicateKeys, Verdict};

/// A rejection that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Whose.
    pub tenant: String,
    /// Where it came in.
    pub source: String,
    /// The asset, empty where none was found.
    pub asset: String,
    /// The event's id.
    pub event_id: String,
    /// Template and version, empty where none was found.
    pub template: String,
    /// Where it was refused.
    pub stage: String,
    /// Why.
    pub code: String,
    /// The same for people.
    pub detail: String,
    /// The place in the document.
    pub pointer: String,
    /// The script's line.
    pub line: Option<i32>,
    /// When it came.
    pub received_at: Micros,
    /// Its partition.
    pub partition: Partition,
    /// The offset of its record in `raw`.
    pub offset: u64,
    /// Its index in the request.
    pub index: u32,
    /// The epoch that refused it.
    pub epoch: Epoch,
    /// Where its row is: the block's offset in `audit`, and the row.
    pub row: (u64, u32),
}

/// What waits.
#[derive(Debug, Default)]
pub struct Survey {
    /// By partition, in raw order.
    pub waiting: Vec<Waiting>,
    /// Whether there was more than could be looked at.
    pub more: bool,
}

impl Waiting {
    fn new(partition: Partition, row: (u64, u32), refused: &Refused<'_>) -> Self {
        Self {
            tenant: refused.tenant.into(),
            source: refused.source.into(),
            asset: refused.asset.into(),
            event_id: refused.event_id.into(),
            template: refused.template.into(),
            stage: refused.stage.into(),
            code: refused.code.into(),
            detail: refused.detail.into(),
            pointer: refused.pointer.into(),
            line: refused.line,
            received_at: refused.received_at,
            partition,
            offset: refused.offset,
            index: refused.index,
            epoch: refused.epoch,
            row,
        }
    }
}

/// A rejection's event: offset in `raw` and index in the request.
type Place = (u64, u32);

/// Reads `audit` of all partitions, and takes what is meant: of that the first `max` by their places. Blocks.
///
/// # Errors
/// The log cannot be read.
pub fn survey(log: &dyn EventLog, choice: &RefusedChoice, max: usize) -> Result<Survey, ScanError> {
    let mut found = Survey::default();
    for partition in 0..log.partitions() {
        let mut open =
            Open { choice, partition, max: max - found.waiting.len(), waiting: BTreeMap::new(), keys: HashMap::new(), more: false };
        let bounds = log.bounds(LogName::Audit, partition)?;
        scan::each(log, LogName::Audit, partition, bounds, |entry| {
            let fail = |e| ScanError::Block(partition, e);
            let Output::Block(block) = Output::read(&entry.record).map_err(fail)? else { return Ok(()) };
            let batch = || block.batch().map_err(fail);
            if block.table == SystemTable::Rejections.as_str() {
                let batch = batch()?;
                let rows = RejectionsRead::new(&batch).map_err(fail)?;
                rows.rows().zip(0..).for_each(|(refused, row)| open.meet(log, (entry.offset, row), &refused));
            } else if block.table == OUTCOMES && !open.keys.is_empty() {
                for outcome in OutcomesBlock::read(&batch()?).map_err(fail)? {
                    if matches!(outcome.verdict, Verdict::Transformed | Verdict::Filtered) {
                        open.came_through(&outcome.key);
                    }
                }
            } else if block.table == SystemTable::Releases.as_str() {
                block::released(&batch()?).map_err(fail)?.iter().for_each(|place| drop(open.waiting.remove(place)));
            }
            Ok::<_, ScanError>(())
        })?;
        found.more |= open.more;
        found.waiting.extend(open.waiting.into_values());
    }
    Ok(found)
}

/// Rejections of one partition of which nothing else was met yet.
struct Open<'a> {
    choice: &'a RefusedChoice,
    partition: Partition,
    max: usize,
    waiting: BTreeMap<Place, Waiting>,
    /// Those of an event id, which a sender may repeat until it comes through.
    keys: HashMap<[u8; 16], Vec<Place>>,
    more: bool,
}

impl Open<'_> {
    fn meet(&mut self, log: &dyn EventLog, row: (u64, u32), refused: &Refused<'_>) {
        let Refused { tenant, source, asset, received_at, .. } = *refused;
        if !self.choice.takes(Known { tenant, source, asset, received_at }, refused.template, refused.code) {
            return;
        }
        if self.waiting.len() >= self.max {
            self.more = true;
            return;
        }
        let place = (refused.offset, refused.index);
        self.keys.entry(DuplicateKeys::of(log.log_id(), tenant, source).key(refused.event_id)).or_default().push(place);
        self.waiting.insert(place, Waiting::new(self.partition, row, refused));
    }

    fn came_through(&mut self, key: &[u8; 16]) {
        for place in self.keys.remove(key).into_iter().flatten() {
            self.waiting.remove(&place);
        }
    }
}
