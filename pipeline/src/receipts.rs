//! Receipts: from the places of a request's records to what became of each of its events.
//!
//! The record tells whose request it was; the commit record that covers its position tells the epoch; that epoch's
//! outcomes tell each event's end; the sinks' progress tells where rows are durable.

use crate::commits::Covering;
use crate::delivery::RunningSink;
use crate::recent::RecentCommits;
use crate::scan::{self, ScanError};
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use tidegate_ingest_http::{Catalogs, EventState, EventStatus, ReceiptFailure, ReceiptStatus, Receipts, SinkStatus};
use tidegate_schemas::BoxFuture;
use tidegate_schemas::block::{OUTCOMES, OutcomesBlock, Output, Refused, RejectionsRead};
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::commit::CommitRecord;
use tidegate_schemas::envelope::Envelope;
use tidegate_schemas::ids::{Epoch, Partition, Position, TenantId};
use tidegate_schemas::log::{EventLog, LogError, LogName};
use tidegate_schemas::receipt::Receipt;
use tidegate_schemas::sink::Target;
use tidegate_schemas::system::SystemTable;
use tidegate_schemas::time::{self, Micros};
use tidegate_schemas::verdict::{Outcome, Verdict};

/// Answers receipts from the log.
pub struct LogReceipts {
    log: Arc<dyn EventLog>,
    commits: Arc<RecentCommits>,
    sinks: Vec<RunningSink>,
    catalogs: Arc<dyn Catalogs>,
}

impl LogReceipts {
    /// Over a log, and the sinks that this process knows of; the catalog says when they close their cuts.
    pub fn new(log: Arc<dyn EventLog>, commits: Arc<RecentCommits>, sinks: Vec<RunningSink>, catalogs: Arc<dyn Catalogs>) -> Self {
        Self { log, commits, sinks, catalogs }
    }
}

impl Receipts for LogReceipts {
    fn look_up(&self, tenant: &TenantId, receipt: &Receipt) -> BoxFuture<'_, Result<ReceiptStatus, ReceiptFailure>> {
        let (log, commits, sinks) = (Arc::clone(&self.log), Arc::clone(&self.commits), self.sinks.clone());
        let (catalog, tenant, receipt) = (self.catalogs.current(), tenant.clone(), receipt.clone());
        let search = Search { log, commits, sinks, catalog, tenant, receipt };
        Box::pin(async move {
            let found = tokio::task::spawn_blocking(move || search.run()).await;
            found.unwrap_or_else(|error| Err(ReceiptFailure::Unavailable(error.to_string())))
        })
    }

    fn is_ahead(&self, tenant: &TenantId, receipt: &Receipt) -> bool {
        let is_ahead = |&(partition, offset): &(Partition, u64)| {
            partition < self.log.partitions() && self.commits.is_ahead(partition, tenant, Position { offset, ordinal: 0 })
        };
        receipt.is_of(self.log.log_id()) && receipt.records.iter().any(is_ahead)
    }
}

struct Search {
    log: Arc<dyn EventLog>,
    commits: Arc<RecentCommits>,
    sinks: Vec<RunningSink>,
    catalog: Arc<Catalog>,
    tenant: TenantId,
    receipt: Receipt,
}

/// Why an event was refused, as its row says.
struct Reason {
    code: String,
    detail: String,
    pointer: String,
    stage: String,
    line: Option<i32>,
}

impl Reason {
    fn of(refused: &Refused<'_>) -> Self {
        Self {
            code: refused.code.to_owned(),
            detail: refused.detail.to_owned(),
            pointer: refused.pointer.to_owned(),
            stage: refused.stage.to_owned(),
            line: refused.line,
        }
    }
}

/// Which sinks have the rows of an epoch, and which have all rows up to it.
struct Delivered {
    rows: Vec<SinkStatus>,
    before: Vec<SinkStatus>,
}

impl Search {
    fn run(self) -> Result<ReceiptStatus, ReceiptFailure> {
        if !self.receipt.is_of(self.log.log_id()) {
            return Err(ReceiptFailure::NotFound);
        }
        let (mut events, mut received_at, mut edge) = (Vec::new(), 0, None);
        for (partition, offset) in &self.receipt.records {
            if *partition >= self.log.partitions() {
                return Err(ReceiptFailure::NotFound);
            }
            let envelope = self.envelope(*partition, *offset)?;
            received_at = envelope.received_at;
            events.extend(self.events(*partition, *offset, &envelope, &mut edge)?);
        }
        events.sort_by_key(|e| e.index);
        Ok(ReceiptStatus::new(time::format(received_at), events).delivered_by(edge.map(time::format)))
    }

    fn envelope(&self, partition: Partition, offset: u64) -> Result<Envelope, ReceiptFailure> {
        let entry = self.log.read(LogName::Raw, partition, offset, 1).map_err(failure)?.into_iter().next();
        let entry = entry.filter(|e| e.offset == offset).ok_or(ReceiptFailure::NotFound)?;
        let envelope = Envelope::read(&entry.record).map_err(|e| ReceiptFailure::Unavailable(e.to_string()))?;
        // One answer for what is not there and what belongs to somebody else.
        if envelope.tenant == self.tenant && envelope.receipt == self.receipt.id { Ok(envelope) } else { Err(ReceiptFailure::NotFound) }
    }

    /// What became of a record's events; `edge` becomes the time by which sinks close the last epoch that some of them lack.
    fn events(
        &self,
        partition: Partition,
        offset: u64,
        envelope: &Envelope,
        edge: &mut Option<Micros>,
    ) -> Result<Vec<EventStatus>, ReceiptFailure> {
        let all = envelope.len() as u32;
        let index = |ordinal: u32| {
            let refused = || envelope.refused.get(ordinal as usize - envelope.events.len()).map(|r| r.span.index);
            envelope.events.get(ordinal as usize).map(|s| s.index).or_else(refused).unwrap_or(0)
        };
        let mut events = Vec::with_capacity(all as usize);
        let mut at = Position { offset, ordinal: 0 };
        while at.ordinal < all {
            let commit = match self.commits.covering(partition, &self.tenant, at).map_err(failure)? {
                Covering::Found(commit) => commit,
                Covering::Ahead => break,
                Covering::Gone => return Err(ReceiptFailure::Gone),
            };
            let to = commit.range_of(&self.tenant).end;
            let end = if to.offset > offset { all } else { to.ordinal.min(all) };
            let (mut outcomes, reasons) = self.audit(partition, &commit, offset)?;
            outcomes.retain(|o| (at.ordinal..end).contains(&o.at.ordinal));
            // The same for all events of a commit: sinks are asked once, and only where somebody's rows are there.
            let is_any = |verdict| outcomes.iter().any(|o| o.verdict == verdict);
            let delivered = Delivered {
                rows: if is_any(Verdict::Transformed) { self.sinks(partition, &commit)? } else { Vec::new() },
                before: if is_any(Verdict::Duplicate) { self.sinks_so_far(partition, commit.epoch)? } else { Vec::new() },
            };
            if delivered.rows.iter().chain(&delivered.before).any(|sink| !sink.durable) {
                *edge = (*edge).max(Some(self.catalog.closed_by(commit.recorded_at)));
            }
            events.extend(outcomes.iter().map(|o| settled(&commit, o, reasons.get(&o.index), &delivered)));
            at.ordinal = end;
        }
        events.extend((at.ordinal..all).map(|ordinal| EventStatus::new(index(ordinal), EventState::Stored)));
        Ok(events)
    }

    /// The tenant's tables of the epoch, by sink.
    fn sinks(&self, partition: Partition, commit: &CommitRecord) -> Result<Vec<SinkStatus>, ReceiptFailure> {
        let tables: BTreeSet<&str> = commit
            .rows
            .iter()
            .filter(|r| r.tenant == self.tenant && SystemTable::named(&r.table).is_none())
            .map(|r| r.table.as_str())
            .collect();
        let state = |sink: &RunningSink, table: &str| {
            let target = Target { table: table.to_owned(), tenant: Some(self.tenant.clone()) };
            let location = sink.durable(&*self.log, partition, &target, commit.epoch);
            let location = location.map_err(|e| ReceiptFailure::Unavailable(e.to_string()))?;
            Ok(SinkStatus { sink: sink.sink.name().to_owned(), durable: location.is_some(), location })
        };
        self.sinks.iter().flat_map(|s| tables.iter().map(move |t| state(s, t))).collect()
    }

    /// The sinks that have every row of the tenant up to an epoch: the row of a repeated event came with one of those epochs, and
    /// nothing tells which.
    fn sinks_so_far(&self, partition: Partition, epoch: Epoch) -> Result<Vec<SinkStatus>, ReceiptFailure> {
        let state = |sink: &RunningSink| {
            let settled = sink.settled(&*self.log, partition).map_err(failure)? >= epoch;
            let is_of = |tenant: Option<&TenantId>| tenant.is_none_or(|tenant| *tenant == self.tenant);
            let parked = sink.progress.parked();
            let waits = parked.iter().any(|p| p.partition == partition && p.first <= epoch && is_of(p.target.tenant.as_ref()));
            Ok(SinkStatus { sink: sink.sink.name().to_owned(), durable: settled && !waits, location: None })
        };
        self.sinks.iter().map(state).collect()
    }

    /// The outcomes of one record in an epoch, and the reasons of those refused, by index.
    fn audit(
        &self,
        partition: Partition,
        commit: &CommitRecord,
        offset: u64,
    ) -> Result<(Vec<Outcome>, HashMap<u32, Reason>), ReceiptFailure> {
        let fail = |e| ScanError::Block(partition, e);
        let (mut outcomes, mut reasons) = (Vec::new(), HashMap::new());
        scan::each(&*self.log, LogName::Audit, partition, commit.audit.clone(), |entry| {
            match Output::read(&entry.record).map_err(fail)? {
                Output::Block(block) if block.table == OUTCOMES => {
                    let all = OutcomesBlock::read(&block.batch().map_err(fail)?).map_err(fail)?;
                    outcomes.extend(all.into_iter().filter(|o| o.at.offset == offset));
                }
                Output::Block(block) if block.table == SystemTable::Rejections.as_str() => {
                    let batch = block.batch().map_err(fail)?;
                    let of_record = RejectionsRead::new(&batch).map_err(fail)?;
                    reasons.extend(of_record.rows().filter(|r| r.offset == offset).map(|r| (r.index, Reason::of(&r))));
                }
                _ => {}
            }
            Ok::<_, ScanError>(())
        })
        .map_err(failure)?;
        Ok((outcomes, reasons))
    }
}

fn settled(commit: &CommitRecord, outcome: &Outcome, reason: Option<&Reason>, delivered: &Delivered) -> EventStatus {
    let sinks = match outcome.verdict {
        Verdict::Transformed => delivered.rows.clone(),
        Verdict::Duplicate => delivered.before.clone(),
        Verdict::Filtered | Verdict::Rejected => Vec::new(),
    };
    EventStatus {
        index: outcome.index,
        state: outcome.verdict.into(),
        code: reason.map(|r| r.code.clone()),
        detail: reason.map(|r| r.detail.clone()),
        pointer: reason.map(|r| r.pointer.clone()),
        stage: reason.map(|r| r.stage.clone()),
        line: reason.and_then(|r| r.line),
        epoch: Some(commit.epoch),
        sinks,
    }
}

fn failure(error: impl Into<ScanError>) -> ReceiptFailure {
    match error.into() {
        ScanError::Log(LogError::Gone { .. }) => ReceiptFailure::Gone,
        other => ReceiptFailure::Unavailable(tidegate_schemas::causes::chain(&other)),
    }
}
