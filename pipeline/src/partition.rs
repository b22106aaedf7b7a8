//! One partition under way: read `raw`, seal epochs, feed the graph, hand settled epochs to the committer.
//!
//! ```text
//! raw ─▶ gathering ─seal─▶ graph ─settled─▶ committer ─▶ clean, audit, commits
//! ```

use crate::assignment::Assignment;
use crate::committer::{Committer, Sealed};
use crate::epoch::{EpochBounds, EpochInput, Gathering};
use crate::graph::{Graph, GraphError, Shared};
use crate::recovery::{DuplicateBounds, Recovered, RecoveryError, recover};
use crate::snapshot::Snapshots;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tidegate_ingest_http::Catalogs;
use tidegate_operators::script::Host;
use tidegate_operators::stages::settle::{SettleError, Settled};
use tidegate_schemas::block::{Attribution, Block, EpochHeader};
use tidegate_schemas::commit::{CommitRecord, Counts, Fault, SnapshotRef};
use tidegate_schemas::envelope::EnvelopeError;
use tidegate_schemas::ids::{Epoch, Partition, Position, Revision};
use tidegate_schemas::limits::{EPOCHS_UNDER_WAY_MAX, READ_BYTES_MAX, SEALED_BYTES_MAX};
use tidegate_schemas::log::{CommitUnit, EventLog, LogError, LogName, Record};
use tidegate_schemas::system::SystemTable;
use tidegate_schemas::time::Micros;
use timely::worker::Worker;

/// The fault of an epoch before which requests were deleted unprocessed, and which was to go on all the same.
pub const RAW_GAP: &str = "raw_gap";
/// How often the lag is told: the end of a log is a question to a broker.
const LAG_EVERY: Duration = Duration::from_secs(1);

/// What all partitions of a process share.
#[derive(Clone)]
pub struct Surroundings {
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// Definitions in effect.
    pub catalogs: Arc<dyn Catalogs>,
    /// The partitions to process.
    pub assignment: Arc<Assignment>,
    /// Where states are kept.
    pub snapshots: Snapshots,
    /// Microseconds since 1970.
    pub clock: fn() -> Micros,
    /// Set when the process ends.
    pub stop: Arc<AtomicBool>,
    /// How it is done.
    pub settings: ProcessSettings,
}

/// How partitions are processed.
#[derive(Debug, Clone, Copy)]
pub struct ProcessSettings {
    /// When an epoch is full.
    pub epoch: EpochBounds,
    /// An idle partition commits an empty epoch so often.
    pub tick: Duration,
    /// A snapshot is taken after so many epochs with events.
    pub snapshot_epochs: u64,
    /// Or after so many bytes of output: the log keeps what came since.
    pub snapshot_bytes: u64,
    /// The duplicate state.
    pub duplicates: DuplicateBounds,
    /// Goes on behind records of `raw` that somebody else deleted.
    pub accept_gap: bool,
}

/// Why a partition stopped.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// The log failed, or another owner took over.
    #[error("log")]
    Log(#[from] LogError),
    /// It cannot be taken over.
    #[error("recovery")]
    Recovery(#[from] RecoveryError),
    /// A record of `raw` cannot be read.
    #[error("record {offset} of raw")]
    Envelope {
        /// Its offset.
        offset: u64,
        /// The reason.
        #[source]
        cause: EnvelopeError,
    },
    /// An epoch came to no result.
    #[error("epoch {epoch}")]
    Graph {
        /// The epoch.
        epoch: Epoch,
        /// The reason.
        #[source]
        cause: GraphError,
    },
    /// No thread.
    #[error("committer cannot start")]
    Thread(#[from] std::io::Error),
}

/// A partition that this process owns.
pub struct Partitioned {
    number: Partition,
    around: Surroundings,
    host: Rc<RefCell<Host>>,
    graph: Option<Graph>,
    committer: Committer,
    gathering: Gathering,
    account: Account,
    /// Bytes of the epochs that are sealed and not committed, the oldest first.
    sealed: VecDeque<u64>,
    since_snapshot: u64,
    last_seal: Instant,
    last_lag: Instant,
    /// Where requests are missing that were deleted unprocessed: the next commit record tells.
    gap: Option<Position>,
}

/// What the next commit record continues.
struct Account {
    next: Epoch,
    recorded_at: Micros,
    revision: Revision,
    totals: Counts,
    rows_total: u64,
    snapshot: Option<SnapshotRef>,
    /// Bytes of blocks since it was taken.
    output_bytes: u64,
    /// Not yet referred to by any commit.
    unreferred: bool,
}

impl Partitioned {
    /// Takes the partition over.
    pub fn take_over(
        number: Partition,
        around: &Surroundings,
        host: &Rc<RefCell<Host>>,
        worker: &mut Worker,
    ) -> Result<Self, PartitionError> {
        let Recovered { owner, last, duplicates } = recover(&*around.log, &around.snapshots, number, around.settings.duplicates)?;
        let account = Account {
            next: last.as_ref().map_or(1, |c| c.epoch + 1),
            recorded_at: last.as_ref().map_or(0, |c| c.recorded_at),
            revision: last.as_ref().map_or(0, |c| c.revision),
            totals: last.as_ref().map(|c| c.totals).unwrap_or_default(),
            rows_total: last.as_ref().map_or(0, |c| c.rows_total),
            snapshot: last.as_ref().and_then(|c| c.snapshot.clone()),
            output_bytes: 0,
            unreferred: false,
        };
        let from = last.map_or(Position::default(), |c| c.raw_to);
        let behind = if around.settings.accept_gap { behind_gap(&*around.log, number, from)? } else { from };
        let (gap, from) = ((behind != from).then_some(from), behind);
        let graph = Graph::new(worker, Shared::new(Rc::clone(host), duplicates), account.next);
        let committer = Committer::start(Arc::clone(&around.log), owner, around.snapshots.clone(), Arc::clone(&around.stop))?;
        Ok(Self {
            number,
            around: around.clone(),
            host: Rc::clone(host),
            graph: Some(graph),
            committer,
            gathering: Gathering::new(around.settings.epoch, from),
            account,
            sealed: VecDeque::new(),
            since_snapshot: 0,
            last_seal: Instant::now(),
            last_lag: Instant::now(),
            gap,
        })
    }

    /// One round of work; tells whether there was any.
    pub fn turn(&mut self, worker: &mut Worker) -> Result<bool, PartitionError> {
        let mut worked = self.collect()?;
        let now = Instant::now();
        let catalog = self.around.catalogs.current();
        if catalog.revision() < self.account.revision {
            return Ok(worked); // the follower of `control` is still behind the last commit
        }
        self.gathering.take_rest(catalog.revision(), now);
        if self.gathering.has_room() {
            worked |= self.read(catalog.revision(), now)?;
        }
        let idle = now.duration_since(self.last_seal) >= self.around.settings.tick;
        let room = self.sealed.len() < EPOCHS_UNDER_WAY_MAX && self.sealed.iter().sum::<u64>() < SEALED_BYTES_MAX as u64;
        if room && (self.gathering.is_due(now) || idle) {
            self.seal(worker)?;
            worked = true;
        }
        Ok(worked)
    }

    fn tell(&self, lag: u64, sealed: usize, sealed_bytes: u64) {
        let partition = self.number.to_string();
        metrics::gauge!("tidegate_raw_lag_records", "partition" => partition.clone()).set(lag as f64);
        metrics::gauge!("tidegate_epochs_sealed", "partition" => partition.clone()).set(sealed as f64);
        metrics::gauge!("tidegate_epochs_sealed_bytes", "partition" => partition).set(sealed_bytes as f64);
    }

    /// Ends the partition's part of the dataflow.
    pub fn drop_from(mut self, worker: &mut Worker) {
        self.tell(0, 0, 0);
        if let Some(graph) = self.graph.take() {
            graph.drop_from(worker);
        }
    }

    fn collect(&mut self) -> Result<bool, PartitionError> {
        let mut any = false;
        while let Some(result) = self.committer.poll() {
            let committed = result?;
            self.sealed.pop_front();
            any = true;
            if let Some(snapshot) = committed.snapshot {
                self.account.snapshot = Some(snapshot);
                self.account.unreferred = true;
            }
        }
        Ok(any)
    }

    fn read(&mut self, known: Revision, now: Instant) -> Result<bool, PartitionError> {
        let from = self.gathering.wants();
        let mut any = false;
        for entry in self.around.log.poll(LogName::Raw, self.number, from, READ_BYTES_MAX, Duration::ZERO)? {
            if !self.gathering.has_room() {
                break;
            }
            self.gathering.offer(&entry, known, now).map_err(|cause| PartitionError::Envelope { offset: entry.offset, cause })?;
            any = true;
        }
        Ok(any)
    }

    fn seal(&mut self, worker: &mut Worker) -> Result<(), PartitionError> {
        let recorded_at = (self.around.clock)().max(self.account.recorded_at + 1);
        let of = Attribution { log: self.around.log.log_id(), partition: self.number, epoch: self.account.next, recorded_at };
        let input = self.gathering.seal(of, self.around.catalogs.current());
        self.last_seal = Instant::now();
        if self.last_seal.duration_since(self.last_lag) >= LAG_EVERY {
            self.last_lag = self.last_seal;
            let lag = self.around.log.bounds(LogName::Raw, self.number)?.end.saturating_sub(self.gathering.wants());
            self.tell(lag, self.sealed.len(), self.sealed.iter().sum());
        }
        let (input, settled) = self.run(worker, input)?;
        self.commit(&input, settled)
    }

    /// Runs the epoch through the graph. Where its output is too large it is abandoned and cut in half.
    fn run(&mut self, worker: &mut Worker, input: EpochInput) -> Result<(Rc<EpochInput>, Settled), PartitionError> {
        let epoch = input.of.epoch;
        let Some(graph) = &mut self.graph else { return Err(LogError::Closed.into()) };
        // The host is the worker's: what an epoch that came to nothing left there is not this one's.
        drop(self.host.borrow_mut().take_faults());
        graph.feed(input);
        let (input, result) = loop {
            worker.step();
            if let Some(found) = graph.settled() {
                break found;
            }
        };
        match result {
            Ok(settled) => Ok((input, settled)),
            Err(GraphError::Settle(SettleError::TooLarge { bytes })) if events_of(&input) > 1 => {
                tracing::info!(partition = self.number, epoch, bytes, events = events_of(&input), "epoch abandoned: cut smaller");
                let half = self.redraw(worker, &input);
                self.run(worker, half)
            }
            Err(cause) => Err(PartitionError::Graph { epoch, cause }),
        }
    }

    /// A new dataflow in place of the one whose epoch was abandoned, and the first half of that epoch.
    fn redraw(&mut self, worker: &mut Worker, input: &EpochInput) -> EpochInput {
        if let Some(old) = self.graph.take() {
            let duplicates = old.duplicates().replace(tidegate_operators::duplicates::Duplicates::new(0, 0));
            old.drop_from(worker);
            self.graph = Some(Graph::new(worker, Shared::new(Rc::clone(&self.host), duplicates), input.of.epoch));
        }
        let bounds = EpochBounds { events: events_of(input) / 2, ..self.around.settings.epoch };
        let mut smaller = Gathering::new(bounds, input.from);
        for slice in &input.slices {
            if smaller.has_room() {
                smaller.offer_slice(slice);
            }
        }
        let half = smaller.seal(input.of.clone(), Arc::clone(&input.catalog));
        // What is left is read again from the log.
        self.gathering = Gathering::new(self.around.settings.epoch, half.to);
        half
    }

    fn commit(&mut self, input: &EpochInput, settled: Settled) -> Result<(), PartitionError> {
        self.gathering.learn(settled.counts.received, settled.tenants.iter().map(|t| t.steps).sum());
        let mut faults = self.host.borrow_mut().take_faults();
        faults.extend(self.gap.take().map(|at| Fault { at, code: RAW_GAP.into() }));
        crate::telemetry::epoch(&settled, &faults);
        if let Some(graph) = &self.graph {
            crate::telemetry::duplicates(self.number, &graph.duplicates().borrow(), input.of.recorded_at);
        }
        self.since_snapshot += u64::from(settled.counts.received > 0);
        let settings = &self.around.settings;
        let due = self.since_snapshot >= settings.snapshot_epochs || self.account.output_bytes >= settings.snapshot_bytes;
        let state = due.then(|| {
            (self.since_snapshot, self.account.output_bytes) = (0, 0);
            self.graph.as_ref().map(|g| g.duplicates().borrow().encode()).unwrap_or_default()
        });
        let referred = std::mem::take(&mut self.account.unreferred).then(|| self.account.snapshot.clone()).flatten();
        let before = self.account.output_bytes;
        let unit = self.account.unit(input, settled, faults);
        self.sealed.push_back(self.account.output_bytes - before);
        self.committer.submit(Sealed { unit, state, referred })?;
        Ok(())
    }
}

/// Where to go on if what stands at `from` was deleted.
fn behind_gap(log: &dyn EventLog, partition: Partition, from: Position) -> Result<Position, LogError> {
    let start = log.bounds(LogName::Raw, partition)?.start;
    if start <= from.offset {
        return Ok(from);
    }
    tracing::warn!(partition, from = from.offset, start, "requests that were never processed are gone: going on behind them");
    Ok(Position { offset: start, ordinal: 0 })
}

fn events_of(input: &EpochInput) -> u64 {
    input.slices.iter().map(|s| u64::from(s.to - s.from)).sum()
}

impl Account {
    /// What the epoch writes; the account goes on to the next one.
    fn unit(&mut self, input: &EpochInput, settled: Settled, faults: Vec<Fault>) -> CommitUnit {
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
            faults,
            snapshot: self.snapshot.clone(),
        };
        CommitUnit {
            epoch: input.of.epoch,
            clean: records(settled.clean),
            audit,
            commit: Box::new(move |written| {
                CommitRecord { clean: written.clean.clone(), audit: written.audit.clone(), ..record.clone() }.into_record()
            }),
            raw_next: input.to.offset,
        }
    }
}
