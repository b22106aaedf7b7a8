//! The thread of a chain: takes everything that is queued, writes it as one group, tells who waits.

use super::append::{Appender, Placed};
use super::failed;
use super::health::Health;
use super::layout::Chain;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
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
    pub fn start(appender: Appender) -> Result<Self, LogError> {
        let (chain, health) = (appender.chain(), appender.health.clone());
        let queue = Arc::new(Queue { state: Mutex::default(), ready: Condvar::new(), room: Condvar::new() });
        let (shared, name) = (queue.clone(), format!("log-{}", chain.as_str()));
        let run = move || {
            let guard = Ending { queue: &shared, health: &health, chain };
            write_all(guard.queue, appender);
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
            // A panic of the thread is told to the log already.
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
    chain: Chain,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.health.ended(self.chain, &LogError::Io { doing: "write to the log".into(), detail: "its thread panicked".into() });
        }
        let mut state = self.queue.lock();
        state.closed = true;
        state.items.clear();
        drop(state);
        self.queue.room.notify_all();
    }
}

fn write_all(queue: &Queue, mut appender: Appender) {
    let mut batch: Vec<Item> = Vec::new();
    loop {
        let Some(bytes) = next_batch(queue, &mut appender, &mut batch) else { return };
        let written = appender.append(batch.iter().flat_map(|i| &i.records));
        if written.is_ok() {
            // Before anybody is told: who reads the files beside this process must find what it heard of.
            appender.mark();
        }
        let rolled = match &written {
            Ok(_) if batch.iter().any(|i| i.roll) => appender.roll(),
            Ok(_) => Ok(()),
            Err(e) => Err(e.clone()),
        };
        queue.lock().bytes -= bytes;
        queue.room.notify_all();
        let mut offsets = written.as_ref().map(|o| o.iter().copied());
        for item in batch.drain(..) {
            (item.done)(match &mut offsets {
                // What is durable is told so, also where the segment after it could not be made.
                Ok(_) if item.roll => rolled.clone().map(|()| Vec::new()),
                Ok(offsets) => Ok(offsets.take(item.records.len()).collect()),
                Err(e) => Err((*e).clone()),
            });
        }
    }
}

/// Waits for items and takes what fits into one group; heals the chain where that is due. `None` at the end.
fn next_batch(queue: &Queue, appender: &mut Appender, batch: &mut Vec<Item>) -> Option<usize> {
    loop {
        appender.heal_if_due();
        let mut state = queue.lock();
        if !state.items.is_empty() {
            return Some(take(&mut state, batch));
        }
        if state.closed {
            return None;
        }
        match appender.due() {
            None => drop(queue.ready.wait(state).unwrap_or_else(PoisonError::into_inner)),
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                drop(queue.ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner));
            }
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
