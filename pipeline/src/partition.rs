//! One partition under way: read `raw`, seal epochs, feed the graph, hand settled epochs to the committer.
//!
//! ```text
//! raw ─▶ gathering ─seal─▶ graph ─settled─▶ committer ─▶ clean, audit, commits
//!            └──────◀─ held ───┘
//! ```

mod account;

use account::Account;

use crate::assignment::Assignment;
use crate::committer::{Committer, Sealed};
use crate::epoch::{EpochBounds, EpochInput, Gathering};
use crate::graph::{Done, Graph, GraphError, Shared};
use crate::quarantine::Quarantines;
use crate::recovery::{DuplicateBounds, Recovered, RecoveryError};
use crate::snapshot::Snapshots;
use crate::suspects::{Marker, Suspects, Suspicion};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tidegate_ingest_http::Catalogs;
use tidegate_operators::script::Host;
use tidegate_operators::stages::settle::SettleError;
use tidegate_schemas::block::Attribution;
use tidegate_schemas::commit::Fault;
use tidegate_schemas::definition::Quarantine;
use tidegate_schemas::envelope::EnvelopeError;
use tidegate_schemas::ids::{Epoch, Partition, Position, Revision};
use tidegate_schemas::limits::{
    EPOCHS_UNDER_WAY_MAX, READ_BYTES_MAX, RECORD_BYTES_MAX, SEALED_BYTES_MAX, SEALING_STOPS_PERCENT, SNAPSHOTS_PERCENT,
};
use tidegate_schemas::log::{Entry, EventLog, LogError, LogName};
use tidegate_schemas::time::Micros;
use timely::worker::Worker;
use tokio::sync::mpsc;

/// The fault of an epoch before which requests were deleted unprocessed, and which was to go on all the same.
pub const RAW_GAP: &str = "raw_gap";
/// The room that is left in a log is for so many epochs, over all partitions and those under way.
const ROOM_PARTS: u64 = 32;
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
    /// Where quarantines are told, to be published.
    pub quarantines: mpsc::Sender<Quarantine>,
    /// Events at which the process died.
    pub suspects: Arc<Suspects>,
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
    ahead: Ahead,
    marker: Marker,
    account: Account,
    suspicion: Option<Suspicion>,
    /// Bytes of the epochs that are sealed and not committed, the oldest first.
    sealed: VecDeque<u64>,
    /// Whether the log has no room for events.
    is_full: bool,
    since_snapshot: u64,
    last_seal: Instant,
    /// The end of `raw` as far as is known, and when the log was asked for it.
    raw_end: u64,
    last_asked: Instant,
    /// Where requests are missing that were deleted unprocessed: the next commit record tells.
    gaps: Vec<Position>,
}

/// What was read of `raw` and has no epoch yet: an epoch seldom ends where a read does, and a reader of Kafka that is asked
/// for a place before its own has to be sent there, and fetches it anew.
#[derive(Default)]
struct Ahead {
    /// Where the first of them, if any, was looked for.
    from: u64,
    entries: VecDeque<Entry>,
}

impl Ahead {
    /// Whether what comes next is here.
    fn stands_at(&self, from: u64) -> bool {
        self.from == from && !self.entries.is_empty()
    }

    fn next(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.from = entry.offset + 1;
        Some(entry)
    }
}

impl Partitioned {
    /// Goes on with a partition that was taken over.
    pub fn begin(
        number: Partition,
        recovered: Recovered,
        around: &Surroundings,
        host: &Rc<RefCell<Host>>,
        marker: &Marker,
        worker: &mut Worker,
    ) -> Result<Self, PartitionError> {
        let Recovered { owner, last, duplicates, raw } = recovered;
        let account = Account::after(last.as_ref());
        let quarantines = Quarantines::after(last.as_ref().map(|c| c.quarantines.clone()).unwrap_or_default());
        let time = around.settings.epoch.time;
        let mut gathering = match &last {
            Some(last) => Gathering::after(around.settings.epoch, last),
            None => Gathering::new(around.settings.epoch, Position::default()),
        };
        // One that cannot begin has a lag, too.
        tell_lag(number, raw.end.saturating_sub(gathering.oldest().offset));
        let gaps = skip_gap(number, &mut gathering, raw.start, around.settings.accept_gap)?;
        let graph = Graph::new(worker, Shared::new(Rc::clone(host), duplicates, quarantines, time, marker.clone()), account.next);
        let suspicion = Suspicion::begin(&around.suspects, number);
        graph.set_single(suspicion.is_some());
        gathering.set_alone(suspicion.as_ref().and_then(Suspicion::at));
        let committer = Committer::start(Arc::clone(&around.log), owner, around.snapshots.clone())?;
        Ok(Self {
            number,
            around: around.clone(),
            host: Rc::clone(host),
            graph: Some(graph),
            committer,
            gathering,
            ahead: Ahead::default(),
            marker: marker.clone(),
            suspicion,
            account,
            sealed: VecDeque::new(),
            is_full: false,
            since_snapshot: 0,
            last_seal: Instant::now(),
            raw_end: raw.end,
            last_asked: Instant::now(),
            gaps,
        })
    }

    /// One round of work; tells whether there was any.
    pub fn turn(&mut self, worker: &mut Worker) -> Result<bool, PartitionError> {
        let mut worked = self.collect()?;
        let now = Instant::now();
        if self.suspicion.as_ref().is_some_and(|s| s.rests(now)) {
            return Ok(worked);
        }
        let catalog = self.around.catalogs.current();
        if catalog.revision() < self.account.revision {
            return Ok(worked); // the follower of `control` is still behind the last commit
        }
        let room = self.room();
        self.gathering.narrow(room);
        if room > 0 {
            self.gathering.take_rest(catalog.revision(), now);
            if self.gathering.has_room() {
                worked |= self.read(catalog.revision(), now)?;
            }
            worked |= self.read_behind(catalog.revision())?;
        }
        let idle = now.duration_since(self.last_seal) >= self.around.settings.tick;
        // Where the process died, what came before must be committed before anything else may kill it.
        let at_once = if self.suspicion.is_some() { 1 } else { EPOCHS_UNDER_WAY_MAX };
        let room = self.sealed.len() < at_once && self.sealed.iter().sum::<u64>() < SEALED_BYTES_MAX as u64;
        if room && (self.gathering.is_due(now) || idle) {
            self.seal(worker)?;
            worked = true;
        }
        Ok(worked)
    }

    /// What an epoch may take in: a log that is nearly full has no room for a large one. Where it has none for what one record
    /// may become, epochs are empty: time passes all the same, sinks close their cuts, and what they have is deleted.
    fn room(&mut self) -> u64 {
        let usage = self.around.log.usage();
        let left = usage.share(SEALING_STOPS_PERCENT).saturating_sub(usage.bytes + self.sealed.iter().sum::<u64>());
        let is_full = left < (4 * RECORD_BYTES_MAX as u64).min(usage.budget / ROOM_PARTS);
        if is_full && !std::mem::replace(&mut self.is_full, is_full) {
            let partition = self.number;
            tracing::warn!(partition, used = usage.bytes, budget = usage.budget, "log is nearly full: epochs wait for sinks to catch up");
        }
        self.is_full = is_full;
        if is_full { 0 } else { left / ROOM_PARTS }
    }

    /// Output after which a snapshot is due: a log that makes do with less than it was promised keeps less of what recovery needs.
    fn snapshot_bytes(&self) -> u64 {
        let share = self.around.log.usage().share(SNAPSHOTS_PERCENT) / u64::from(self.around.log.partitions().max(1));
        self.around.settings.snapshot_bytes.min(share)
    }

    fn tell(&self, sealed: usize, sealed_bytes: u64) {
        tell_lag(self.number, self.raw_end.saturating_sub(self.gathering.oldest().offset));
        let partition = self.number.to_string();
        metrics::gauge!("tidegate_tenants_behind", "partition" => partition.clone()).set(self.gathering.tenants_behind() as f64);
        metrics::gauge!("tidegate_epochs_sealed", "partition" => partition.clone()).set(sealed as f64);
        metrics::gauge!("tidegate_epochs_sealed_bytes", "partition" => partition).set(sealed_bytes as f64);
    }

    /// Ends the partition's part of the dataflow.
    pub fn drop_from(mut self, worker: &mut Worker) {
        self.tell(0, 0);
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
            self.acquit(committed.epoch);
            if let Some(snapshot) = committed.snapshot {
                self.account.snapshot = Some(snapshot);
                self.account.unreferred = true;
            }
            if let Some(end) = committed.raw_end {
                self.raw_end = self.raw_end.max(end);
            }
        }
        if any && let Some(graph) = &self.graph {
            // Where the queue is full they are told again after the next commit.
            let _ = graph.quarantines().borrow().own().iter().all(|q| self.around.quarantines.try_send(q.clone()).is_ok());
        }
        Ok(any)
    }

    /// Ends a suspicion with the epoch that settled it.
    fn acquit(&mut self, committed: Epoch) {
        if let Some(suspicion) = self.suspicion.take_if(|s| s.is_over(committed)) {
            suspicion.clear();
            self.gathering.set_alone(None);
            if let Some(graph) = &self.graph {
                graph.set_single(false);
            }
        }
    }

    fn read(&mut self, known: Revision, now: Instant) -> Result<bool, PartitionError> {
        if !self.ahead.stands_at(self.gathering.wants()) {
            let from = self.gathering.wants();
            let entries = self.around.log.poll(LogName::Raw, self.number, from, READ_BYTES_MAX, Duration::ZERO)?;
            self.raw_end = self.raw_end.max(entries.last().map_or(0, |last| last.offset + 1));
            self.ahead = Ahead { from, entries: entries.into() };
        }
        let mut any = false;
        while self.gathering.has_room() {
            let Some(entry) = self.ahead.next() else { break };
            self.gathering.offer(&entry, known, now).map_err(|cause| PartitionError::Envelope { offset: entry.offset, cause })?;
            any = true;
        }
        Ok(any)
    }

    /// Reads on for the tenants that are behind.
    fn read_behind(&mut self, known: Revision) -> Result<bool, PartitionError> {
        let mut any = false;
        for (tenant, from) in self.gathering.wants_behind(known) {
            for entry in self.around.log.read(LogName::Raw, self.number, from, READ_BYTES_MAX)? {
                let offered = self.gathering.offer_behind(&tenant, &entry, known);
                any = true;
                if !offered.map_err(|cause| PartitionError::Envelope { offset: entry.offset, cause })? {
                    break;
                }
            }
        }
        Ok(any)
    }

    fn seal(&mut self, worker: &mut Worker) -> Result<(), PartitionError> {
        let recorded_at = (self.around.clock)().max(self.account.recorded_at + 1);
        let of = Attribution { log: self.around.log.log_id(), partition: self.number, epoch: self.account.next, recorded_at };
        let mut input = self.gathering.seal(of, self.around.catalogs.current());
        input.crashed = self.suspicion.as_ref().and_then(Suspicion::convicted).filter(|at| input.holds(*at));
        let suspects = Arc::clone(&self.around.suspects);
        let _turn = suspects.turn();
        if let Some(graph) = &self.graph {
            graph.quarantines().borrow_mut().forget_known(&input.catalog);
        }
        self.last_seal = Instant::now();
        let (input, done) = self.run(worker, input)?;
        self.commit(&input, done)
    }

    /// Runs the epoch through the graph. Where its output is too large it is abandoned and cut in half.
    fn run(&mut self, worker: &mut Worker, input: EpochInput) -> Result<(Rc<EpochInput>, Done), PartitionError> {
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
            Ok(done) => Ok((input, done)),
            Err(GraphError::Settle(SettleError::TooLarge { bytes })) if input.events() > 1 => {
                tracing::info!(partition = self.number, epoch, bytes, events = input.events(), "epoch abandoned: cut smaller");
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
            let quarantines = old.quarantines().take();
            old.drop_from(worker);
            let graph = Graph::new(
                worker,
                Shared::new(Rc::clone(&self.host), duplicates, quarantines, self.around.settings.epoch.time, self.marker.clone()),
                input.of.epoch,
            );
            graph.set_single(self.suspicion.is_some());
            self.graph = Some(graph);
        }
        input.smaller(input.events() / 2)
    }

    fn commit(&mut self, input: &EpochInput, done: Done) -> Result<(), PartitionError> {
        let Done { mut settled, behind, times } = done;
        // What is left of it is read again from the log.
        self.gathering.resume(input.to, &behind);
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.passed(input, settled.counts.received, self.gathering.oldest());
        }
        for tenant in &settled.tenants {
            let time = times.get(&tenant.tenant).copied().unwrap_or_default();
            self.gathering.learn(&tenant.tenant, tenant.counts.received, tenant.steps, time);
        }
        settled.faults.extend(self.gaps.drain(..).map(|at| Fault { at, code: RAW_GAP.into() }));
        crate::telemetry::epoch(&settled);
        let quarantines = self.graph.as_ref().map(|g| g.quarantines().borrow().own().to_vec()).unwrap_or_default();
        if let Some(graph) = &self.graph {
            crate::telemetry::duplicates(self.number, &graph.duplicates().borrow(), input.of.recorded_at);
        }
        self.since_snapshot += u64::from(settled.counts.received > 0);
        let settings = &self.around.settings;
        let due = self.since_snapshot >= settings.snapshot_epochs || self.account.output_bytes >= self.snapshot_bytes();
        let state = due.then(|| {
            (self.since_snapshot, self.account.output_bytes) = (0, 0);
            self.graph.as_ref().map(|g| g.duplicates().borrow().encode()).unwrap_or_default()
        });
        let referred = std::mem::take(&mut self.account.unreferred).then(|| self.account.snapshot.clone()).flatten();
        let before = self.account.output_bytes;
        let unit = self.account.unit(input, settled, behind, quarantines);
        self.sealed.push_back(self.account.output_bytes - before);
        let asks_end = self.last_asked.elapsed() >= LAG_EVERY;
        if asks_end {
            self.last_asked = Instant::now();
            self.tell(self.sealed.len(), self.sealed.iter().sum());
        }
        self.committer.submit(Sealed { unit, state, referred, asks_end })?;
        Ok(())
    }
}

/// Tells how many records of `raw` are not processed.
pub fn tell_lag(partition: Partition, lag: u64) {
    metrics::gauge!("tidegate_raw_lag_records", "partition" => partition.to_string()).set(lag as f64);
}

/// Goes on behind what was deleted unprocessed, where that is accepted; tells the places where something is missing. A reader
/// does not always tell of it.
fn skip_gap(partition: Partition, gathering: &mut Gathering, start: u64, accept: bool) -> Result<Vec<Position>, LogError> {
    let from = gathering.wants();
    if from < start && !accept {
        return Err(LogError::Gone { log: LogName::Raw.as_str(), partition, from, start });
    }
    if !accept {
        return Ok(Vec::new());
    }
    let gaps = gathering.skip_to(Position { offset: start, ordinal: 0 });
    if let Some(from) = gaps.iter().map(|at| at.offset).min() {
        tracing::warn!(partition, from, start, "requests that were never processed are gone: going on behind them");
    }
    Ok(gaps)
}
