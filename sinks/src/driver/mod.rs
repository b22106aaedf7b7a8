//! The driver: reads what was committed, cuts it, and brings the cuts to one sink. The only one that retries.
//!
//! ```text
//! partitions of this process ─▶ each: follow (read, cut) ─▶ deliver (held? skip : retry until durable | park) ─▶ cursor, at edges only
//! ```
//! While a delivery is under way its partition is not read on, so a dead sink costs lag and no memory. Errors that
//! repeating cannot mend park one table of one partition; the others and the cursor go on.

mod breaker;
mod deliver;
mod follow;
mod metrics;
mod park;
mod progress;
mod survey;

pub use follow::{Follower, Step};
pub use park::{Park, Parked, Wish, wish};
pub use progress::{Lag, Progress};
pub use survey::{Apart, Survey, apart, survey};

use breaker::Breaker;
use deliver::{Deliveries, Ended};
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_schemas::ids::Partition;
use tidegate_schemas::limits;
use tidegate_schemas::log::{EventLog, LogError, LogName, SinkCursor};
use tidegate_schemas::sink::{Cut, Sink, SinkError};
use tidegate_schemas::system::SystemTable;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// How long one look at the log waits for something new.
const WAIT: Duration = Duration::from_millis(500);
/// How often the lag is told: the end of a log is a question to a broker.
const LAG_EVERY: Duration = Duration::from_secs(1);
/// How often is looked whether somebody asks something of a parked table.
const HEED_EVERY: Duration = Duration::from_secs(2);
/// The first pause after a failure; it doubles up to [`DriverOptions::retry_seconds_max`].
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// Which tables a sink takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableSelection {
    /// Tables of `audit`, besides all tenants' tables of `clean`.
    pub system: Vec<SystemTable>,
}

/// How a driver works.
#[derive(Clone, Debug)]
pub struct DriverOptions {
    /// Longest pause between two attempts, in seconds.
    pub retry_seconds_max: u64,
    /// A call of the sink that takes longer is told of while it lasts.
    pub slow: Duration,
    /// Read from the log at once.
    pub read_bytes: usize,
    /// Which tables.
    pub tables: TableSelection,
    /// Folder of parked blocks.
    pub park: PathBuf,
    /// Bytes of parked blocks; what comes beyond is dropped as a recorded gap.
    pub park_bytes_max: u64,
    /// Goes on behind output that somebody else deleted; `verify` shows the rows that are missing.
    pub accept_gap: bool,
}

impl DriverOptions {
    /// The defaults, with a folder for what has to be parked.
    pub fn new(park: impl Into<PathBuf>) -> Self {
        Self {
            retry_seconds_max: limits::DELIVERY_RETRY_SECONDS_MAX as u64,
            slow: Duration::from_secs(limits::DELIVERY_SLOW_SECONDS as u64),
            read_bytes: limits::READ_BYTES_MAX,
            tables: TableSelection::default(),
            park: park.into(),
            park_bytes_max: limits::PARKED_BYTES_MAX as u64,
            accept_gap: false,
        }
    }
}

/// What the partitions of one driver share.
struct Shared {
    log: Arc<dyn EventLog>,
    sink: Arc<dyn Sink>,
    options: DriverOptions,
    progress: Arc<Progress>,
    deliveries: Semaphore,
    breaker: Breaker,
    readers: Semaphore,
}

/// Brings the output of a log to one sink: of those partitions that this process is told to.
pub struct Driver {
    shared: Arc<Shared>,
}

impl Driver {
    /// Reads nothing yet.
    pub fn new(log: Arc<dyn EventLog>, sink: Arc<dyn Sink>, options: DriverOptions) -> Self {
        let progress = Arc::new(Progress::new(log.partitions()));
        let deliveries = Semaphore::new(limits::DELIVERIES_UNDER_WAY_MAX);
        let readers = Semaphore::new(limits::SINK_READERS_MAX);
        let breaker = Breaker::new(sink.name());
        Self { shared: Arc::new(Shared { log, sink, options, progress, deliveries, breaker, readers }) }
    }

    /// How far it has come, and the switch that pauses it.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.shared.progress)
    }

    /// Works on `partitions`, which may change, until `stop` is cancelled, or until all have ended and nobody can name
    /// others. A partition that cannot go on ends alone and says why in [`Progress::stopped`]; the first such error is
    /// returned in the end.
    pub async fn run(self, mut partitions: watch::Receiver<BTreeSet<Partition>>, stop: CancellationToken) -> Result<(), SinkError> {
        let shared = self.shared;
        let (name, log) = (shared.sink.name(), shared.log.log_id());
        let (root, bytes_max) = (shared.options.park.clone(), shared.options.park_bytes_max);
        let park = blocking(move || Park::open(&root, name, log, bytes_max)).await.map_err(|e| SinkError::Permanent {
            doing: format!("opening {} for parked blocks", shared.options.park.display()),
            detail: e.to_string(),
        })?;
        let (park, running, failed, tasks) = (Arc::new(park), HashMap::new(), BTreeSet::new(), JoinSet::new());
        let mut team = Team { shared, park, stop, running, failed, tasks, first: None };
        let mut open = true;
        loop {
            let wanted = partitions.borrow_and_update().clone();
            team.follow(&wanted);
            if team.tasks.is_empty() && (team.stop.is_cancelled() || !open) {
                return team.first.map_or(Ok(()), Err);
            }
            tokio::select! {
                Some(ended) = team.tasks.join_next() => team.ended(ended),
                changed = partitions.changed(), if open => open = changed.is_ok(),
                () = team.stop.cancelled(), if team.tasks.is_empty() => {}
            }
        }
    }
}

/// The partitions at work.
struct Team {
    shared: Arc<Shared>,
    park: Arc<Park>,
    stop: CancellationToken,
    running: HashMap<Partition, CancellationToken>,
    /// Not begun again before they were away.
    failed: BTreeSet<Partition>,
    tasks: JoinSet<(Partition, Result<(), Ended>)>,
    first: Option<SinkError>,
}

impl Team {
    /// Begins with partitions that are new, and ends those that went.
    fn follow(&mut self, wanted: &BTreeSet<Partition>) {
        self.running.iter().filter(|(p, _)| !wanted.contains(*p)).for_each(|(_, token)| token.cancel());
        self.failed.retain(|p| wanted.contains(p));
        for &partition in wanted {
            if self.stop.is_cancelled() || self.failed.contains(&partition) || self.running.contains_key(&partition) {
                continue;
            }
            let token = self.stop.child_token();
            self.running.insert(partition, token.clone());
            let (shared, park) = (Arc::clone(&self.shared), Arc::clone(&self.park));
            self.tasks.spawn(async move { (partition, run_partition(&shared, park, partition, &token).await) });
        }
    }

    fn ended(&mut self, ended: Result<(Partition, Result<(), Ended>), JoinError>) {
        let (partition, result) = match ended {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime goes down, and this future with it.
            Err(_) => return,
        };
        self.running.remove(&partition);
        match result {
            Err(Ended::Failed(error)) => {
                tracing::error!(sink = self.shared.sink.name(), partition, %error, "partition stopped");
                self.shared.progress.stop(partition, &error.to_string());
                self.failed.insert(partition);
                self.first.get_or_insert(error);
            }
            // The log closed: there is nothing more to come.
            Ok(()) => {
                self.failed.insert(partition);
            }
            Err(Ended::Stopped) if self.stop.is_cancelled() => {}
            Err(Ended::Stopped) => self.shared.progress.end(partition),
        }
    }
}

/// A sink's cursor of a partition; for a new sink the start of the log, which is stored first: from then on nothing is
/// deleted that this sink has not delivered. Blocks.
pub fn cursor_or_start(log: &dyn EventLog, sink: &str, partition: Partition) -> Result<SinkCursor, LogError> {
    if let Some(cursor) = log.cursor(sink, partition)? {
        return Ok(cursor);
    }
    let clean = log.bounds(LogName::Clean, partition)?.start;
    let audit = log.bounds(LogName::Audit, partition)?.start;
    let cursor = SinkCursor { clean, audit, epoch: 0 };
    log.store_cursor(sink, partition, cursor)?;
    Ok(cursor)
}

async fn run_partition(shared: &Arc<Shared>, park: Arc<Park>, partition: Partition, stop: &CancellationToken) -> Result<(), Ended> {
    let cursor = begin(shared, partition, stop).await?;
    let (kept, held) = (Arc::clone(&park), blocking(move || park.list(partition)).await);
    let parked = held.map_err(|e| Ended::Failed(SinkError::Permanent { doing: "reading what is parked".into(), detail: e.to_string() }))?;
    let targets = parked.iter().map(|p| p.target.clone()).collect();
    shared.progress.begin(partition, cursor.epoch.saturating_sub(1), parked);
    metrics::tables_parked(shared.sink.name(), shared.progress.parked().len());
    let selection = shared.options.tables.clone();
    let mut follower = Follower::new(Arc::clone(&shared.log), partition, shared.sink.grain(), selection, cursor);
    let mut deliveries = Deliveries::new(Arc::clone(shared), kept, partition, targets);
    let (mut pause, mut last_lag, mut heeded) = (RETRY_FIRST, None::<Instant>, None::<Instant>);
    loop {
        wait_while_paused(shared, stop).await?;
        if heeded.is_none_or(|at| at.elapsed() >= HEED_EVERY) {
            heeded = Some(Instant::now());
            for target in deliveries.heed(stop).await? {
                shared.progress.unpark(partition, &target);
                metrics::tables_parked(shared.sink.name(), shared.progress.parked().len());
            }
        }
        let read_bytes = shared.options.read_bytes;
        let permit = tokio::select! {
            permit = shared.readers.acquire() => permit,
            () = stop.cancelled() => return Err(Ended::Stopped),
        };
        let lag_is_due = last_lag.is_none_or(|last| last.elapsed() >= LAG_EVERY);
        let result;
        (follower, result) = blocking(move || {
            let result = follower.advance(WAIT, read_bytes).and_then(|s| Ok((s, lag_is_due.then(|| follower.unread()).transpose()?)));
            (follower, result)
        })
        .await;
        drop(permit);
        let (step, unread) = match result {
            Ok(read) => read,
            Err(LogError::Closed) => return Ok(()),
            Err(error @ LogError::Io { .. }) => {
                retry_after(shared, stop, &mut pause, &format!("reading partition {partition}"), &error.to_string()).await?;
                continue;
            }
            Err(error) => return Err(failed(format!("reading partition {partition}"), &error)),
        };
        pause = RETRY_FIRST;
        shared.progress.reads_again(partition);
        shared.progress.read(partition, &step);
        metrics::read(shared.sink.name(), partition, &step);
        if let Some(records) = unread {
            last_lag = Some(Instant::now());
            tell_lag(shared, partition, records);
        }
        let targets: Vec<_> = step.closed.iter().map(|cut| cut.target.clone()).collect();
        deliver(shared, &mut deliveries, step.closed, &follower, stop).await?;
        for target in &targets {
            shared.progress.delivered(partition, target, follower.open_since(target));
        }
        if !targets.is_empty() {
            shared.progress.settle(partition);
        }
        if let Some(cursor) = step.cursor {
            store_cursor(shared, partition, cursor, stop).await?;
        }
    }
}

fn tell_lag(shared: &Shared, partition: Partition, records: u64) {
    shared.progress.unread(partition, records);
    metrics::lag(shared.sink.name(), partition, &shared.progress.lag(partition));
}

/// Delivers, and tells how the lag grows for as long as that takes.
async fn deliver(
    shared: &Arc<Shared>,
    deliveries: &mut Deliveries,
    cuts: Vec<Cut>,
    follower: &Follower,
    stop: &CancellationToken,
) -> Result<(), Ended> {
    let (partition, from) = follower.place();
    let mut delivered = std::pin::pin!(deliveries.deliver(cuts, stop));
    loop {
        tokio::select! {
            result = &mut delivered => return result,
            () = tokio::time::sleep(LAG_EVERY) => {
                let end = on_log(shared, move |log, _| Ok(log.bounds(LogName::Clean, partition)?.end)).await;
                if let Ok(end) = end {
                    tell_lag(shared, partition, end.saturating_sub(from));
                }
            }
        }
    }
}

/// Where to go on if what stands at a cursor was deleted: at the start of what is left, with whatever epoch stands there.
fn behind_gap(log: &dyn EventLog, sink: &str, partition: Partition, cursor: SinkCursor) -> Result<SinkCursor, LogError> {
    let (clean, audit) = (log.bounds(LogName::Clean, partition)?.start, log.bounds(LogName::Audit, partition)?.start);
    if clean <= cursor.clean {
        return Ok(cursor);
    }
    tracing::warn!(sink, partition, from = cursor.clean, start = clean, "rows that were never delivered are gone: going on behind them");
    Ok(SinkCursor { clean, audit, epoch: 0 })
}

/// [`cursor_or_start`], until it succeeds.
async fn begin(shared: &Arc<Shared>, partition: Partition, stop: &CancellationToken) -> Result<SinkCursor, Ended> {
    let mut pause = RETRY_FIRST;
    loop {
        let accept_gap = shared.options.accept_gap;
        let found = on_log(shared, move |log, sink| {
            let cursor = cursor_or_start(log, sink, partition)?;
            if accept_gap { behind_gap(log, sink, partition, cursor) } else { Ok(cursor) }
        });
        match found.await {
            Ok(cursor) => return Ok(cursor),
            Err(LogError::Closed) => return Err(Ended::Stopped),
            Err(error @ (LogError::Io { .. } | LogError::Full { .. })) => {
                retry_after(shared, stop, &mut pause, &format!("finding the cursor of partition {partition}"), &error.to_string()).await?;
            }
            Err(error) => return Err(failed(format!("finding the cursor of partition {partition}"), &error)),
        }
    }
}

async fn store_cursor(shared: &Arc<Shared>, partition: Partition, cursor: SinkCursor, stop: &CancellationToken) -> Result<(), Ended> {
    let mut pause = RETRY_FIRST;
    loop {
        match on_log(shared, move |log, sink| log.store_cursor(sink, partition, cursor)).await {
            Ok(()) => return Ok(()),
            Err(LogError::Closed) => return Err(Ended::Stopped),
            Err(error @ (LogError::Io { .. } | LogError::Full { .. })) => {
                retry_after(shared, stop, &mut pause, &format!("storing the cursor of partition {partition}"), &error.to_string()).await?;
            }
            Err(error) => return Err(failed(format!("storing the cursor of partition {partition}"), &error)),
        }
    }
}

async fn wait_while_paused(shared: &Shared, stop: &CancellationToken) -> Result<(), Ended> {
    while shared.progress.is_paused() {
        tokio::select! {
            () = shared.progress.resumed() => {}
            () = stop.cancelled() => {}
        }
        if stop.is_cancelled() {
            break;
        }
    }
    if stop.is_cancelled() { Err(Ended::Stopped) } else { Ok(()) }
}

/// A pause between half of it and all of it: those that failed together shall not come back together.
fn jittered(pause: Duration) -> Duration {
    // Each state of the standard library's hasher begins with other keys.
    let random = RandomState::new().build_hasher().finish();
    pause.mul_f64(0.5 + (random >> 12) as f64 / (1u64 << 53) as f64)
}

/// Waits before another attempt, and doubles the pause.
async fn retry_after(shared: &Shared, stop: &CancellationToken, pause: &mut Duration, doing: &str, detail: &str) -> Result<(), Ended> {
    let sink = shared.sink.name();
    tracing::warn!(sink, doing, detail, pause_ms = pause.as_millis() as u64, "trying again");
    metrics::retry(sink);
    shared.progress.failing(Some(format!("{doing}: {detail}")));
    tokio::select! {
        () = tokio::time::sleep(jittered(*pause)) => {}
        () = stop.cancelled() => return Err(Ended::Stopped),
    }
    *pause = (*pause * 2).min(Duration::from_secs(shared.options.retry_seconds_max.max(1)));
    Ok(())
}

fn failed(doing: String, error: &LogError) -> Ended {
    Ended::Failed(SinkError::Permanent { doing, detail: error.to_string() })
}

async fn on_log<T: Send + 'static>(
    shared: &Arc<Shared>,
    what: impl FnOnce(&dyn EventLog, &'static str) -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    let (log, sink) = (Arc::clone(&shared.log), shared.sink.name());
    blocking(move || what(log.as_ref(), sink)).await
}

/// Runs what blocks away from the workers of the runtime; a panic there goes on here.
async fn blocking<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(what).await {
        Ok(value) => value,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime goes down, and this future with it.
        Err(_) => std::future::pending().await,
    }
}
