//! Worker threads: each runs single-threaded timely computations, one dataflow for each partition that it owns.
//!
//! A partition that fails is dropped and taken over anew with back-off; its neighbours go on. Taking one over is mostly waiting
//! for a broker, so it has a thread of its own: several are taken over side by side, and those at work go on meanwhile.

use crate::assignment::Stopped;
use crate::partition::{PartitionError, Partitioned, Surroundings, tell_lag};
use crate::recovery::{Recovered, RecoveryError, TAKE_OVERS_MAX, recover};
use crate::suspects::Marker;
use crate::watchdog::Watchdog;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tidegate_operators::script::{Host, HostOptions, Watch};
use tidegate_schemas::causes::chain;
use tidegate_schemas::ids::Partition;
use tidegate_schemas::limits::SCRIPT_STATES_MAX;
use timely::WorkerConfig;
use timely::communication::Allocator;
use timely::worker::Worker;

/// First and longest pause of a worker without work: the log's latency, a few ms, is of the same order.
const PAUSE: (Duration, Duration) = (Duration::from_millis(3), Duration::from_millis(12));
/// First and longest pause before a failed partition is taken over again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// A partition that has run for so long after a failure goes on as if there had been none.
const STEADY: Duration = Duration::from_secs(5);

/// The worker threads of a process.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// Outlives the threads: scripts are under way while they stop.
    _watchdog: Watchdog,
}

impl Workers {
    /// Starts them, as many as the assignment counts.
    pub fn start(around: &Surroundings) -> std::io::Result<Self> {
        let count = around.assignment.workers();
        let watches: Vec<Arc<Watch>> = (0..count).map(|_| Arc::new(Watch::default())).collect();
        let watchdog = Watchdog::start()?;
        let mut threads = Vec::new();
        for (index, watch) in watches.into_iter().enumerate() {
            let (around, watchdog) = (around.clone(), watchdog.handle());
            threads.push(std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                watchdog.guard(Arc::clone(&watch));
                run(&around, index, watch);
            })?);
        }
        Ok(Self { threads, stop: Arc::clone(&around.stop), _watchdog: watchdog })
    }

    /// Stops them and waits: what was handed to a committer is committed.
    pub fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

enum Slot {
    /// `pause` and `tries` are those of before, until it has run for a while.
    Running { partition: Box<Partitioned>, since: Instant, pause: Duration, tries: u32 },
    /// It is being taken over.
    TakingOver { recovery: JoinHandle<Result<Recovered, RecoveryError>>, pause: Duration, tries: u32 },
    /// `tries` counts those that failed in a row.
    Waiting { until: Instant, pause: Duration, tries: u32 },
}

fn run(around: &Surroundings, index: usize, watch: Arc<Watch>) {
    let marker = Marker::of(&around.suspects, index);
    let mut host = Host::new(HostOptions { states_max: SCRIPT_STATES_MAX, native: true }, watch);
    host.keep_notes();
    let host = Rc::new(RefCell::new(host));
    let mut worker = Worker::new(WorkerConfig::default(), Allocator::Thread(Default::default()), None);
    let mut slots: BTreeMap<Partition, Slot> = BTreeMap::new();
    let mut pause = PAUSE.0;
    while !around.stop.load(Ordering::Relaxed) {
        let mine = around.assignment.of(index);
        while let Some(lost) = slots.keys().find(|p| !mine.contains(p)).copied() {
            let_go(lost, slots.remove(&lost), around, &mut worker);
            tracing::info!(partition = lost, "partition let go");
        }
        let mut worked = false;
        let mut taking_over = slots.values().filter(|slot| matches!(slot, Slot::TakingOver { .. })).count();
        for partition in mine {
            let state = match slots.remove(&partition) {
                Some(Slot::Waiting { until, pause, tries }) if until <= Instant::now() && taking_over < TAKE_OVERS_MAX => {
                    taking_over += 1;
                    take_over(partition, around, pause, tries + 1)
                }
                Some(state) => state,
                None if around.assignment.begin(partition) => Slot::Waiting { until: Instant::now(), pause: BACK_OFF.0, tries: 0 },
                None => continue,
            };
            let (state, did) = turn(partition, state, around, &host, &marker, &mut worker);
            slots.insert(partition, state);
            worked |= did;
        }
        if worked {
            pause = PAUSE.0;
        } else {
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE.1);
        }
    }
    for (partition, slot) in slots {
        let_go(partition, Some(slot), around, &mut worker);
    }
}

/// Ends a partition's dataflow, once what was handed to its committer is committed or has failed. One that is being taken over
/// is waited for: nobody may fence it after it was given away.
fn let_go(partition: Partition, slot: Option<Slot>, around: &Surroundings, worker: &mut Worker) {
    match slot {
        Some(Slot::Running { partition: running, .. }) => running.drop_from(worker),
        Some(Slot::TakingOver { recovery, .. }) => match recovery.join() {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(partition, error = chain(&error), "what was being taken over is given away"),
            Err(_) => tracing::error!(partition, "taking over panicked; the partition is given away"),
        },
        Some(Slot::Waiting { .. }) | None => {}
    }
    // Both are somebody else's to tell from now on.
    stopped(partition, false);
    tell_lag(partition, 0);
    around.assignment.end(partition);
}

/// Begins to take a partition over.
fn take_over(number: Partition, around: &Surroundings, pause: Duration, tries: u32) -> Slot {
    let (log, snapshots, bounds) = (Arc::clone(&around.log), around.snapshots.clone(), around.settings.duplicates);
    let recover = move || recover(&*log, &snapshots, number, bounds);
    match std::thread::Builder::new().name(format!("take-over-{number}")).spawn(recover) {
        Ok(recovery) => Slot::TakingOver { recovery, pause, tries },
        Err(error) => failed(number, &error.into(), pause, tries, around),
    }
}

fn turn(
    number: Partition,
    slot: Slot,
    around: &Surroundings,
    host: &Rc<RefCell<Host>>,
    marker: &Marker,
    worker: &mut Worker,
) -> (Slot, bool) {
    match slot {
        Slot::Waiting { .. } => (slot, false),
        Slot::TakingOver { ref recovery, .. } if !recovery.is_finished() => (slot, false),
        Slot::TakingOver { recovery, pause, tries } => {
            // A panic of it is this thread's, as if it had happened here.
            let recovered = recovery.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let begun = recovered.map_err(PartitionError::from);
            match begun.and_then(|recovered| Partitioned::begin(number, recovered, around, host, marker, worker)) {
                Ok(partition) => (Slot::Running { partition: Box::new(partition), since: Instant::now(), pause, tries: tries - 1 }, true),
                Err(error) => (failed(number, &error, pause, tries, around), false),
            }
        }
        Slot::Running { mut partition, since, mut pause, mut tries } => match partition.turn(worker) {
            Ok(worked) => {
                if tries > 0 && since.elapsed() > STEADY {
                    (pause, tries) = (BACK_OFF.0, 0);
                    around.assignment.goes_on(number);
                    stopped(number, false);
                }
                (Slot::Running { partition, since, pause, tries }, worked)
            }
            Err(error) => {
                partition.drop_from(worker);
                (failed(number, &error, pause, tries + 1, around), false)
            }
        },
    }
}

fn stopped(number: Partition, is_stopped: bool) {
    metrics::gauge!("tidegate_partition_stopped", "partition" => number.to_string()).set(f64::from(u8::from(is_stopped)));
}

/// Tells why a partition stopped. Each time less often: what keeps one away can last, and has been said.
fn failed(number: Partition, error: &PartitionError, pause: Duration, tries: u32, around: &Surroundings) -> Slot {
    metrics::counter!("tidegate_partition_failures_total").increment(1);
    stopped(number, true);
    around.assignment.stopped(Stopped { partition: number, tries, failure: chain(error) });
    if tries.is_power_of_two() {
        tracing::error!(
            partition = number,
            error = chain(error),
            tries,
            pause_seconds = pause.as_secs_f64(),
            "partition stopped; it is taken over again"
        );
    }
    Slot::Waiting { until: Instant::now() + pause, pause: (pause * 2).min(BACK_OFF.1), tries }
}
