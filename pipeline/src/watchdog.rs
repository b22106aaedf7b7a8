//! The watchdog of scripts: one thread that looks at the CPU time of each worker thread and, where one event has used
//! more than its share, sets the flag that the script's interrupt reads. `operators` itself reads no clock.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tidegate_operators::script::Watch;
use tidegate_schemas::limits::SCRIPT_CPU_MILLISECONDS_MAX;

/// How often it looks: a script overruns its time by at most two of these.
const EVERY: Duration = Duration::from_millis(5);

struct Guarded {
    watch: Arc<Watch>,
    /// `schedstat` of the thread; its first number is nanoseconds on a CPU.
    schedstat: PathBuf,
    event: u64,
    /// What the thread had used when the event was met the second time; most are met once, and need no look at a file.
    since: Option<u64>,
}

/// The thread.
pub struct Watchdog {
    handle: Handle,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Registers worker threads.
#[derive(Clone, Default)]
pub struct Handle(Arc<Mutex<Vec<Guarded>>>);

impl Handle {
    /// Guards the calling thread.
    pub fn guard(&self, watch: Arc<Watch>) {
        // Linux: `/proc/thread-self` names this thread as `<pid>/task/<tid>`.
        let Ok(thread) = fs::read_link("/proc/thread-self") else {
            tracing::warn!("scripts have no time limit here: this system does not tell a thread's CPU time");
            return;
        };
        let guarded = Guarded { watch, schedstat: PathBuf::from("/proc").join(thread).join("schedstat"), event: 0, since: None };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(guarded);
    }
}

impl Watchdog {
    /// Starts the thread; it ends when this is dropped, after the last script.
    pub fn start() -> std::io::Result<Self> {
        let (handle, stop) = (Handle::default(), Arc::new(AtomicBool::new(false)));
        let (guarded, ends) = (handle.clone(), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                std::thread::sleep(EVERY);
                guarded.0.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().for_each(look);
            }
        })?;
        Ok(Self { handle, stop, thread: Some(thread) })
    }

    /// For worker threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

/// Runs scripts on the calling thread, watched: where people try scripts they end as they do in production.
pub fn watched<T>(run: impl FnOnce(Arc<Watch>) -> T) -> T {
    let (watch, watchdog) = (Arc::new(Watch::default()), Watchdog::start());
    match &watchdog {
        Ok(watchdog) => watchdog.handle().guard(Arc::clone(&watch)),
        Err(error) => tracing::warn!(error = %error, "scripts have no time limit here"),
    }
    run(watch)
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the watchdog panicked");
        }
    }
}

fn look(guarded: &mut Guarded) {
    let Some(event) = guarded.watch.running() else {
        guarded.event = 0;
        return;
    };
    if guarded.event != event {
        (guarded.event, guarded.since) = (event, None);
        return;
    }
    let Some(used) = fs::read_to_string(&guarded.schedstat).ok().and_then(|t| t.split(' ').next()?.parse::<u64>().ok()) else { return };
    if used - *guarded.since.get_or_insert(used) > SCRIPT_CPU_MILLISECONDS_MAX as u64 * 1_000_000 {
        guarded.watch.kill(event);
    }
}
