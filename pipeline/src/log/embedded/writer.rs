//! The thread of a chain: takes everything that is queued, writes it as one group, tells who waits.

use super::append::{Appender, Placed};
use super::layout::Chain;
use super::{failed, metrics};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use tidegate_schemas::limits;
use tidegate_schemas::log::LogError;

/// What is told once a group is durable: the offsets of an item's records, in order.
pub type Done = Box<dyn FnOnce(Result<Vec<u64>, LogError>) + Send>;

/// Records that become durable together.
pub struct Item {
    records: Vec<Placed>,
    bytes: usize,
    roll: bool,
    done: Done,
}

impl Item {
    /// Records to write; without any it is told when everything before it is durable.
    pub fn new(records: Vec<Placed>, done: Done) -> Self {
        let bytes = records.iter().map(Placed::size).sum();
        Self { records, bytes, roll: false, done }
    }

    /// Bytes of its records.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Begins a segment.
    pub fn roll(done: Done) -> Self {
        Self { records: Vec::new(), bytes: 0, roll: true, done }
    }
}

/// The first failure of a log: from then on nothing is written until it is opened anew, since what a failed sync left
/// behind can not be known.
#[derive(Default)]
pub struct Health(OnceLock<LogError>);

impl Health {
    /// The failure, if there was one.
    pub fn check(&self) -> Result<(), LogError> {
        self.0.get().map_or(Ok(()), |e| Err(e.clone()))
    }

    /// Keeps the first failure.
    pub fn poison(&self, error: &LogError) {
        if self.0.set(error.clone()).is_ok() {
            metrics::poisoned();
            tracing::error!(%error, "log failed; nothing is written until it is opened anew");
        }
    }
}

/// A chain's thread and the queue to it.
pub struct Writer {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Queue {
    state: Mutex<Queued>,
    ready: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct Queued {
    items: VecDeque<Item>,
    /// Bytes of the items and of the group under way.
    bytes: usize,
    closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Starts the thread.
    pub fn start(chain: Chain, appender: Appender, health: Arc<Health>) -> Result<Self, LogError> {
        let queue = Arc::new(Queue { state: Mutex::default(), ready: Condvar::new(), room: Condvar::new() });
        let (shared, name) = (queue.clone(), format!("log-{}", chain.as_str()));
        let run = move || {
            let guard = Ending { queue: &shared, health: &health };
            write_all(guard.queue, appender, guard.health);
        };
        let thread = std::thread::Builder::new().name(name).spawn(run).map_err(|e| failed("start a thread of the log", &e))?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Queues, or refuses at once where there is no room.
    pub fn submit(&self, item: Item) -> Result<(), LogError> {
        let state = self.queue.lock();
        if state.closed {
            return Err(LogError::Closed);
        }
        if full(&state, &item) {
            return Err(LogError::Full { used: state.bytes as u64, budget: limits::APPEND_QUEUE_BYTES_MAX as u64 });
        }
        self.push(state, item);
        Ok(())
    }

    /// Queues, once there is room.
    pub fn submit_waiting(&self, item: Item) -> Result<(), LogError> {
        let mut state = self.queue.lock();
        while full(&state, &item) && !state.closed {
            state = self.queue.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return Err(LogError::Closed);
        }
        self.push(state, item);
        Ok(())
    }

    fn push(&self, mut state: MutexGuard<'_, Queued>, item: Item) {
        state.bytes += item.bytes;
        state.items.push_back(item);
        drop(state);
        self.queue.ready.notify_one();
    }

    /// Bytes that are not yet durable.
    pub fn queued(&self) -> u64 {
        self.queue.lock().bytes as u64
    }

    /// Takes nothing more.
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.queue.ready.notify_one();
        self.queue.room.notify_all();
    }

    /// Waits until what was queued is written and the thread has ended.
    pub fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the thread has poisoned the log already.
            let _ = thread.join();
        }
    }
}

/// One item always passes an empty queue, however large it is.
fn full(state: &Queued, item: &Item) -> bool {
    state.bytes > 0 && state.bytes + item.bytes > limits::APPEND_QUEUE_BYTES_MAX
}

/// Whatever ends the thread, nobody waits for it for ever.
struct Ending<'a> {
    queue: &'a Queue,
    health: &'a Health,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.health.poison(&LogError::Io { doing: "write to the log".into(), detail: "its thread panicked".into() });
        }
        let mut state = self.queue.lock();
        state.closed = true;
        state.items.clear();
        drop(state);
        self.queue.room.notify_all();
    }
}

fn write_all(queue: &Queue, mut appender: Appender, health: &Health) {
    let mut batch: Vec<Item> = Vec::new();
    loop {
        let bytes = {
            let mut state = queue.lock();
            while state.items.is_empty() {
                if state.closed {
                    return;
                }
                state = queue.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            take(&mut state, &mut batch)
        };
        let roll = batch.iter().any(|i| i.roll);
        let written = health.check().and_then(|()| {
            let offsets = appender.append(batch.iter().flat_map(|i| &i.records))?;
            if roll {
                appender.roll()?;
            }
            Ok(offsets)
        });
        if let Err(error) = &written {
            health.poison(error);
        }
        queue.lock().bytes -= bytes;
        queue.room.notify_all();
        if written.is_ok() {
            // Before anybody is told: who reads the files beside this process must find what it heard of.
            appender.mark();
        }
        let mut offsets = written.as_ref().map(|o| o.iter().copied());
        for item in batch.drain(..) {
            (item.done)(match &mut offsets {
                Ok(offsets) => Ok(offsets.take(item.records.len()).collect()),
                Err(e) => Err((*e).clone()),
            });
        }
    }
}

/// Takes what fits into one group, one item at least.
fn take(state: &mut Queued, batch: &mut Vec<Item>) -> usize {
    let mut bytes = 0;
    while let Some(item) = state.items.front() {
        if !batch.is_empty() && bytes + item.bytes > limits::GROUP_COMMIT_BYTES_MAX {
            break;
        }
        bytes += item.bytes;
        batch.extend(state.items.pop_front());
    }
    bytes
}
