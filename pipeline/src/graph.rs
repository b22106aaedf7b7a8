//! The whole dataflow of one partition.
//!
//! ```text
//! input ─▶ open ─▶ decode ─▶ validate ─▶ transform ─▶ settle ─▶ sealed epochs
//!             └ portions: what one tenant may not run of them in this epoch passes by, and comes with a later one
//! ```
//! The timestamp is the epoch. `settle` waits until the frontier has passed an epoch, so an epoch is settled whole or
//! not at all. This file and `worker.rs` are the only ones that know timely.

use crate::epoch::EpochInput;
use crate::quarantine::Quarantines;
use crate::shares::{Portion, Shares};
use crate::suspects::{Marker, UnderWay as Noted};
use crate::usage::thread_time;
use hashbrown::HashMap;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tidegate_operators::duplicates::Duplicates;
use tidegate_operators::event::{Bundle, EpochContext};
use tidegate_operators::script::Host;
use tidegate_operators::stages::settle::{SettleError, Settled};
use tidegate_operators::stages::{self, Stage, open, quarantine, settle};
use tidegate_schemas::commit::{Behind, Fault};
use tidegate_schemas::ids::{Epoch, TenantId};
use tidegate_schemas::verdict::{Code, StageName};
use timely::container::CapacityContainerBuilder as Build;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::vec::input::Handle;
use timely::dataflow::operators::{Input, Operator};
use timely::dataflow::{Scope, StreamVec};
use timely::worker::Worker;

/// What the operators of one partition share. All of it lives on the worker's thread.
#[derive(Clone)]
pub struct Shared {
    /// Script states of the worker.
    pub host: Rc<RefCell<Host>>,
    /// Keys of all epochs that were settled before.
    pub duplicates: Rc<RefCell<Duplicates>>,
    /// Template versions that may not run, as the partition knows them before the catalog does.
    pub quarantines: Rc<RefCell<Quarantines>>,
    /// What an epoch's scripts may take.
    time: Duration,
    /// Where it is noted what runs.
    marker: Marker,
    /// Whether events run one by one.
    single: Rc<Cell<bool>>,
    /// Epochs that were fed and not yet settled.
    under_way: Rc<RefCell<BTreeMap<Epoch, UnderWay>>>,
    settled: Rc<RefCell<VecDeque<Outcome>>>,
}

/// An epoch on its way.
struct UnderWay {
    input: Rc<EpochInput>,
    shares: Shares,
}

/// An epoch, and what came of it.
pub type Outcome = (Rc<EpochInput>, Result<Done, GraphError>);

/// A settled epoch: what was held belongs to later ones.
pub struct Done {
    /// What it writes.
    pub settled: Settled,
    /// Tenants whose part of it differs from its range, by name.
    pub behind: Vec<Behind>,
    /// Time of scripts, by tenant.
    pub times: HashMap<TenantId, Duration>,
}

/// Why an epoch came to no result.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// It cannot be settled.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// An operator panicked: a defect, confined to this epoch.
    #[error("operator {operator} panicked: {message}")]
    Panicked {
        /// Its name.
        operator: &'static str,
        /// What it said.
        message: String,
    },
}

impl Shared {
    /// Shares a worker's host, with a partition's own state.
    pub fn new(host: Rc<RefCell<Host>>, duplicates: Duplicates, quarantines: Quarantines, time: Duration, marker: Marker) -> Self {
        Self {
            host,
            duplicates: Rc::new(RefCell::new(duplicates)),
            quarantines: Rc::new(RefCell::new(quarantines)),
            time,
            marker,
            single: Rc::default(),
            under_way: Rc::default(),
            settled: Rc::default(),
        }
    }
}

/// Draws the dataflow of one partition; a stage is a line of [`stages::ALL`].
fn draw<'scope>(scope: Scope<'scope, Epoch>, shared: &Shared) -> Handle<Epoch, Rc<EpochInput>> {
    let (input, epochs) = scope.new_input();
    // decode ▸ validate ▸ transform
    let staged = stages::ALL.into_iter().fold(opened(epochs, shared), |portions, (name, stage)| staged(portions, name, stage, shared));
    settled(staged, shared);
    input
}

fn opened<'scope>(epochs: StreamVec<'scope, Epoch, Rc<EpochInput>>, shared: &Shared) -> StreamVec<'scope, Epoch, Portion> {
    let shared = shared.clone();
    epochs.unary::<Build<Vec<Portion>>, _, _, _>(Pipeline, "open", move |_, _| {
        move |input, output| {
            input.for_each_stamp(|stamp, containers| {
                let mut session = output.session(&stamp);
                for epoch in containers.flat_map(|c| c.drain(..)) {
                    let duplicates = shared.duplicates.borrow();
                    let open = || open::apply(&epoch.slices, &epoch.catalog, epoch.of.log, &|key| duplicates.contains(key));
                    match guarded("open", open) {
                        Ok(mut bundles) => {
                            shared.quarantines.borrow().apply(&mut bundles, &epoch.catalog);
                            epoch.crashed.iter().for_each(|at| quarantine::refuse_crashed(&mut bundles, *at));
                            shared.share(&epoch, bundles).into_iter().for_each(|portion| session.give(portion));
                        }
                        Err(error) => shared.fail(epoch.of.epoch, error),
                    }
                }
            });
        }
    })
}

fn staged<'scope>(
    portions: StreamVec<'scope, Epoch, Portion>,
    name: StageName,
    stage: Stage,
    shared: &Shared,
) -> StreamVec<'scope, Epoch, Portion> {
    let shared = shared.clone();
    portions.unary::<Build<Vec<Portion>>, _, _, _>(Pipeline, name.as_str(), move |_, _| {
        move |input, output| {
            input.for_each_stamp(|stamp, containers| {
                let Some(epoch) = stamp.least().copied() else { return };
                let Some(context) = shared.context(epoch) else { return };
                let mut session = output.session(&stamp);
                for mut portion in containers.flat_map(|c| c.drain(..)) {
                    if !shared.may_run(epoch, name, &portion) {
                        session.give(portion);
                        continue;
                    }
                    // Of the processor and not of the clock: on a machine that is busy with other things a tenant's events would
                    // look expensive, most of them be held, and epochs shrink to what is left.
                    let started = thread_time();
                    match shared.run(epoch, &mut portion.bundle, name, stage, &context) {
                        Ok(()) => {
                            shared.spend(epoch, &portion, thread_time().saturating_sub(started));
                            session.give(portion);
                        }
                        Err(error) => shared.fail(epoch, error),
                    }
                }
                shared.marker.leave();
            });
        }
    })
}

fn settled(portions: StreamVec<'_, Epoch, Portion>, shared: &Shared) {
    let shared = shared.clone();
    let mut waiting: BTreeMap<Epoch, Vec<Portion>> = BTreeMap::new();
    portions.sink(Pipeline, "settle", move |(input, frontier)| {
        input.for_each_stamp(|stamp, containers| {
            if let Some(epoch) = stamp.least().copied() {
                waiting.entry(epoch).or_default().extend(containers.flat_map(|c| c.drain(..)));
            }
        });
        loop {
            let passed = shared.under_way.borrow().first_key_value().map(|(e, _)| *e).filter(|e| !frontier.less_equal(e));
            let Some(epoch) = passed else { return };
            let Some(UnderWay { input, shares }) = shared.under_way.borrow_mut().remove(&epoch) else { return };
            let portions = waiting.remove(&epoch).unwrap_or_default();
            let result = guarded("settle", || shared.settle(&input, shares, portions));
            shared.settled.borrow_mut().push_back((input, result.and_then(|r| r)));
        }
    });
}

/// Unwinding through a timely worker stalls its other dataflows, so a panic ends at its operator.
fn guarded<T>(operator: &'static str, run: impl FnOnce() -> T) -> Result<T, GraphError> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let message = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
        GraphError::Panicked { operator, message: message.unwrap_or_else(|| "no message".into()) }
    })
}

impl Shared {
    fn context(&self, epoch: Epoch) -> Option<EpochContext> {
        self.under_way.borrow().get(&epoch).map(|e| EpochContext { recorded_at: e.input.of.recorded_at })
    }

    /// The order and the portions in which an epoch's events run.
    fn share(&self, epoch: &EpochInput, bundles: Vec<Bundle>) -> Vec<Portion> {
        let (shares, portions) = Shares::of(epoch, self.time, bundles);
        if let Some(under_way) = self.under_way.borrow_mut().get_mut(&epoch.of.epoch) {
            under_way.shares = shares;
        }
        portions
    }

    /// Runs a stage and notes what runs, until somebody leaves the scripts: events one by one where the process died at one of them.
    fn run(&self, epoch: Epoch, bundle: &mut Bundle, name: StageName, stage: Stage, context: &EpochContext) -> Result<(), GraphError> {
        if !bundle.events.iter().any(|e| e.is_at(name)) {
            return Ok(());
        }
        let (partition, events) = match self.under_way.borrow().get(&epoch) {
            Some(under_way) => (under_way.input.of.partition, under_way.input.events()),
            None => return Ok(()),
        };
        if !self.single.get() {
            self.marker.enter(Noted::Epoch { partition, events });
            return self.timed(bundle, name, stage, context);
        }
        for event in std::mem::take(&mut bundle.events) {
            let at = event.origin.at;
            // With the rows of all: an event knows its own by their places.
            let (source, plan, rows) = (bundle.source.clone(), bundle.plan.clone(), std::mem::take(&mut bundle.rows));
            let mut one = Bundle { source, plan, events: vec![event], rows, runs: Vec::new() };
            self.marker.enter(Noted::Event { partition, at, events });
            self.timed(&mut one, name, stage, context)?;
            bundle.rows = one.rows;
            bundle.events.append(&mut one.events);
            bundle.runs.append(&mut one.runs);
        }
        Ok(())
    }

    fn timed(&self, bundle: &mut Bundle, name: StageName, stage: Stage, context: &EpochContext) -> Result<(), GraphError> {
        bundle.events.iter().filter(|e| e.is_at(name)).for_each(|e| crate::fault::event(&e.bytes));
        let before = bundle.runs.len();
        let started = Instant::now();
        guarded(name.as_str(), || stage(bundle, &mut self.host.borrow_mut(), context))?;
        // Fused stages run in one call: their time stands with the first of them.
        if let Some(run) = bundle.runs.get_mut(before) {
            run.duration += started.elapsed().as_micros() as u64;
        }
        Ok(())
    }

    fn may_run(&self, epoch: Epoch, stage: StageName, portion: &Portion) -> bool {
        self.under_way.borrow_mut().get_mut(&epoch).is_none_or(|e| e.shares.may_run(stage, portion))
    }

    fn spend(&self, epoch: Epoch, portion: &Portion, time: Duration) {
        if let Some(under_way) = self.under_way.borrow_mut().get_mut(&epoch) {
            under_way.shares.spend(portion, time);
        }
    }

    /// Settles what has run, and takes it into the partition's state.
    fn settle(&self, input: &EpochInput, shares: Shares, portions: Vec<Portion>) -> Result<Done, GraphError> {
        let (bundles, held) = shares.settle(portions);
        let mut settled = settle::apply(&bundles, &self.duplicates.borrow(), &input.of)?;
        settled.faults = self.host.borrow_mut().take_faults();
        settled.faults.retain(|fault| settled.outcomes.binary_search_by_key(&fault.at, |o| o.at).is_ok());
        if let Some(at) = input.crashed.filter(|at| settled.outcomes.iter().any(|o| o.at == *at)) {
            settled.faults.push(Fault { at, code: Code::Crashed.as_str().into() });
            self.quarantines.borrow_mut().add_crashed(&bundles, at, &input.of);
        }
        self.quarantines.borrow_mut().judge(&bundles, &settled.faults, &input.of);
        self.duplicates.borrow_mut().fold(input.of.epoch, input.of.recorded_at, &settled.outcomes);
        Ok(Done { behind: input.behind_after(&held.from), settled, times: held.times })
    }

    /// Ends an epoch early; what still flows of it is dropped on the way.
    fn fail(&self, epoch: Epoch, error: GraphError) {
        let failed = self.under_way.borrow_mut().remove(&epoch);
        if let Some(UnderWay { input, .. }) = failed {
            self.settled.borrow_mut().push_back((input, Err(error)));
        }
    }
}

/// One partition's dataflow inside a worker.
pub struct Graph {
    shared: Shared,
    input: Handle<Epoch, Rc<EpochInput>>,
    dataflow: usize,
}

impl Graph {
    /// Draws the dataflow; epochs below `first` never come.
    pub fn new(worker: &mut Worker, shared: Shared, first: Epoch) -> Self {
        let dataflow = worker.next_dataflow_index();
        let mut input = worker.dataflow(|scope| draw(scope, &shared));
        input.advance_to(first);
        Self { shared, input, dataflow }
    }

    /// Hands an epoch over. Epochs come in order.
    pub fn feed(&mut self, epoch: EpochInput) {
        let (number, epoch) = (epoch.of.epoch, Rc::new(epoch));
        self.shared.under_way.borrow_mut().insert(number, UnderWay { input: Rc::clone(&epoch), shares: Shares::default() });
        self.input.send(epoch);
        self.input.advance_to(number + 1);
        self.input.flush();
    }

    /// The next settled epoch, in order.
    pub fn settled(&mut self) -> Option<Outcome> {
        self.shared.settled.borrow_mut().pop_front()
    }

    /// The partition's duplicate state.
    pub fn duplicates(&self) -> &Rc<RefCell<Duplicates>> {
        &self.shared.duplicates
    }

    /// Runs events one by one, or not any more.
    pub fn set_single(&self, single: bool) {
        self.shared.single.set(single);
    }

    /// The partition's own quarantines.
    pub fn quarantines(&self) -> &Rc<RefCell<Quarantines>> {
        &self.shared.quarantines
    }

    /// Drops the dataflow with whatever is inside.
    pub fn drop_from(self, worker: &mut Worker) {
        drop(self.input);
        worker.drop_dataflow(self.dataflow);
    }
}
