//! The whole dataflow of one partition.
//!
//! ```text
//! input ─▶ open ─▶ decode ─▶ validate ─▶ transform ─▶ settle ─▶ sealed epochs
//! ```
//! The timestamp is the epoch. `settle` waits until the frontier has passed an epoch, so an epoch is settled whole or
//! not at all. This file and `worker.rs` are the only ones that know timely.

use crate::epoch::EpochInput;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;
use tidegate_operators::duplicates::Duplicates;
use tidegate_operators::event::{Bundle, EpochContext};
use tidegate_operators::script::Host;
use tidegate_operators::stages::settle::{SettleError, Settled};
use tidegate_operators::stages::{self, Stage, open, settle};
use tidegate_schemas::ids::Epoch;
use tidegate_schemas::verdict::StageName;
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
    /// Epochs that were fed and not yet settled.
    under_way: Rc<RefCell<BTreeMap<Epoch, Rc<EpochInput>>>>,
    settled: Rc<RefCell<VecDeque<Outcome>>>,
}

/// An epoch, and what came of it.
pub type Outcome = (Rc<EpochInput>, Result<Settled, GraphError>);

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
    pub fn new(host: Rc<RefCell<Host>>, duplicates: Duplicates) -> Self {
        Self { host, duplicates: Rc::new(RefCell::new(duplicates)), under_way: Rc::default(), settled: Rc::default() }
    }
}

/// Draws the dataflow of one partition; a stage is a line of [`stages::ALL`].
fn draw<'scope>(scope: Scope<'scope, Epoch>, shared: &Shared) -> Handle<Epoch, Rc<EpochInput>> {
    let (input, epochs) = scope.new_input();
    // decode ▸ validate ▸ transform
    let staged = stages::ALL.into_iter().fold(opened(epochs, shared), |bundles, (name, stage)| staged(bundles, name, stage, shared));
    settled(staged, shared);
    input
}

fn opened<'scope>(epochs: StreamVec<'scope, Epoch, Rc<EpochInput>>, shared: &Shared) -> StreamVec<'scope, Epoch, Bundle> {
    let shared = shared.clone();
    epochs.unary::<Build<Vec<Bundle>>, _, _, _>(Pipeline, "open", move |_, _| {
        move |input, output| {
            input.for_each_stamp(|stamp, containers| {
                let mut session = output.session(&stamp);
                for epoch in containers.flat_map(|c| c.drain(..)) {
                    let duplicates = shared.duplicates.borrow();
                    let open = || open::apply(&epoch.slices, &epoch.catalog, epoch.of.log, &|key| duplicates.contains(key));
                    match guarded("open", open) {
                        Ok(bundles) => bundles.into_iter().for_each(|b| session.give(b)),
                        Err(error) => shared.fail(epoch.of.epoch, error),
                    }
                }
            });
        }
    })
}

fn staged<'scope>(
    bundles: StreamVec<'scope, Epoch, Bundle>,
    name: StageName,
    stage: Stage,
    shared: &Shared,
) -> StreamVec<'scope, Epoch, Bundle> {
    let shared = shared.clone();
    bundles.unary::<Build<Vec<Bundle>>, _, _, _>(Pipeline, name.as_str(), move |_, _| {
        move |input, output| {
            input.for_each_stamp(|stamp, containers| {
                let Some(epoch) = stamp.least().copied() else { return };
                let Some(context) = shared.context(epoch) else { return };
                let mut session = output.session(&stamp);
                for mut bundle in containers.flat_map(|c| c.drain(..)) {
                    let before = bundle.runs.len();
                    let started = Instant::now();
                    match guarded(name.as_str(), || stage(&mut bundle, &mut shared.host.borrow_mut(), &context)) {
                        Ok(()) => {
                            let taken = started.elapsed().as_micros() as u64;
                            // Fused stages run in one call: their time stands with the first of them.
                            if let Some(run) = bundle.runs.get_mut(before) {
                                run.duration += taken;
                            }
                            session.give(bundle);
                        }
                        Err(error) => shared.fail(epoch, error),
                    }
                }
            });
        }
    })
}

fn settled(bundles: StreamVec<'_, Epoch, Bundle>, shared: &Shared) {
    let shared = shared.clone();
    let mut waiting: BTreeMap<Epoch, Vec<Bundle>> = BTreeMap::new();
    bundles.sink(Pipeline, "settle", move |(input, frontier)| {
        input.for_each_stamp(|stamp, containers| {
            if let Some(epoch) = stamp.least().copied() {
                waiting.entry(epoch).or_default().extend(containers.flat_map(|c| c.drain(..)));
            }
        });
        loop {
            let passed = shared.under_way.borrow().first_key_value().map(|(e, _)| *e).filter(|e| !frontier.less_equal(e));
            let Some(epoch) = passed else { return };
            let Some(input) = shared.under_way.borrow_mut().remove(&epoch) else { return };
            let bundles = waiting.remove(&epoch).unwrap_or_default();
            let result = guarded("settle", || settle::apply(&bundles, &shared.duplicates.borrow(), &input.of));
            if let Ok(Ok(settled)) = &result {
                shared.duplicates.borrow_mut().fold(epoch, input.of.recorded_at, &settled.outcomes);
            }
            shared.settled.borrow_mut().push_back((input, result.and_then(|r| r.map_err(GraphError::from))));
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
        self.under_way.borrow().get(&epoch).map(|e| EpochContext { recorded_at: e.of.recorded_at })
    }

    /// Ends an epoch early; what still flows of it is dropped on the way.
    fn fail(&self, epoch: Epoch, error: GraphError) {
        if let Some(input) = self.under_way.borrow_mut().remove(&epoch) {
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
        self.shared.under_way.borrow_mut().insert(number, Rc::clone(&epoch));
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

    /// Drops the dataflow with whatever is inside.
    pub fn drop_from(self, worker: &mut Worker) {
        drop(self.input);
        worker.drop_dataflow(self.dataflow);
    }
}
