//! What a partition's commit records say one after the other: each goes on where the one before ended.

use crate::epoch::EpochInput;
use tidegate_operators::stages::settle::Settled;
use tidegate_schemas::block::{Block, EpochHeader};
use tidegate_schemas::commit::{Behind, CommitRecord, Counts, SnapshotRef};
use tidegate_schemas::definition::Quarantine;
use tidegate_schemas::ids::{Epoch, Revision};
use tidegate_schemas::log::{CommitUnit, Record};
use tidegate_schemas::system::SystemTable;
use tidegate_schemas::time::Micros;

/// What the next commit record continues.
pub(super) struct Account {
    pub(super) next: Epoch,
    pub(super) recorded_at: Micros,
    pub(super) revision: Revision,
    totals: Counts,
    rows_total: u64,
    pub(super) snapshot: Option<SnapshotRef>,
    /// Bytes of blocks since it was taken.
    pub(super) output_bytes: u64,
    /// Not yet referred to by any commit.
    pub(super) unreferred: bool,
}

impl Account {
    /// What goes on after a partition's last commit record, if it has any.
    pub(super) fn after(last: Option<&CommitRecord>) -> Self {
        Self {
            next: last.map_or(1, |c| c.epoch + 1),
            recorded_at: last.map_or(0, |c| c.recorded_at),
            revision: last.map_or(0, |c| c.revision),
            totals: last.map(|c| c.totals).unwrap_or_default(),
            rows_total: last.map_or(0, |c| c.rows_total),
            snapshot: last.and_then(|c| c.snapshot.clone()),
            output_bytes: 0,
            unreferred: false,
        }
    }

    /// What the epoch writes; the account goes on to the next one.
    pub(super) fn unit(&mut self, input: &EpochInput, settled: Settled, behind: Vec<Behind>, quarantines: Vec<Quarantine>) -> CommitUnit {
        let clean_rows: u64 = settled.rows.iter().filter(|r| SystemTable::named(&r.table).is_none()).map(|r| r.rows).sum();
        self.totals = self.totals.plus(settled.counts);
        self.rows_total += clean_rows;
        self.next = input.of.epoch + 1;
        self.recorded_at = input.of.recorded_at;
        self.revision = input.catalog.revision();
        let audit_blocks = settled.audit.len() as u32;
        let bytes = settled.clean.iter().chain(&settled.audit).map(|b| b.stream.len() as u64).sum();
        self.output_bytes += bytes;
        let header = |blocks: usize| EpochHeader {
            epoch: input.of.epoch,
            recorded_at: input.of.recorded_at,
            revision: input.catalog.revision(),
            cut: input.catalog.cut(),
            blocks: blocks as u32,
            audit: audit_blocks,
            bytes,
        };
        let records = |blocks: Vec<Block>| -> Vec<Record> {
            std::iter::once(header(blocks.len()).into_record()).chain(blocks.into_iter().map(Block::into_record)).collect()
        };
        let audit = if settled.audit.is_empty() { Vec::new() } else { records(settled.audit) };
        let record = CommitRecord {
            epoch: input.of.epoch,
            partition: input.of.partition,
            raw_from: input.from,
            raw_to: input.to,
            behind,
            revision: self.revision,
            recorded_at: self.recorded_at,
            templates: settled.templates,
            counts: settled.counts,
            tenants: settled.tenants,
            rows: settled.rows,
            totals: self.totals,
            rows_total: self.rows_total,
            clean: 0..0,
            audit: 0..0,
            output_hash: settled.hash,
            faults: settled.faults,
            quarantines,
            snapshot: self.snapshot.clone(),
        };
        let raw_next = record.settled_to().offset;
        CommitUnit {
            epoch: input.of.epoch,
            clean: records(settled.clean),
            audit,
            commit: Box::new(move |written| {
                CommitRecord { clean: written.clean.clone(), audit: written.audit.clone(), ..record.clone() }.into_record()
            }),
            raw_next,
        }
    }
}
