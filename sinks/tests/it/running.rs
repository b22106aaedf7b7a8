//! A driver under way, as a process has one, and numbers that come again by their seed.

use crate::log::{MemoryLog, all};
use std::sync::Arc;
use std::time::Duration;
use tidegate_schemas::ids::Epoch;
use tidegate_schemas::log::EventLog;
use tidegate_schemas::sink::{Sink, SinkError};
use tidegate_sinks::driver::{Driver, DriverOptions, Progress};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Dropped, it breaks off as a process that dies.
pub struct Running {
    pub progress: Arc<Progress>,
    stop: CancellationToken,
    task: JoinSet<Result<(), SinkError>>,
}

impl Running {
    pub fn start(log: &Arc<MemoryLog>, sink: Arc<dyn Sink>, options: DriverOptions) -> Self {
        let driver = Driver::new(Arc::clone(log) as _, sink, options);
        let (progress, stop, mut task) = (driver.progress(), CancellationToken::new(), JoinSet::new());
        task.spawn(driver.run(all(log), stop.clone()));
        Self { progress, stop, task }
    }

    /// Waits at most so long.
    pub async fn until(&self, patience: Duration, what: impl Fn(&Progress) -> bool) {
        for _ in 0..patience.as_millis() / 10 {
            if what(&self.progress) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never came: lag {:?}, stopped {:?}, failing {:?}", self.progress.lag(0), self.progress.stopped(), self.progress.failure());
    }

    /// Ends where every partition is settled past an epoch and no table is parked.
    pub async fn finish(self, log: &MemoryLog, epoch: Epoch) {
        self.until(Duration::from_secs(180), |progress| (0..log.partitions()).all(|p| progress.settled(p) > epoch)).await;
        assert!(self.progress.parked().is_empty(), "{:?}", self.progress.parked());
        self.stop().await.unwrap();
    }

    pub async fn stop(self) -> Result<(), SinkError> {
        self.stop.cancel();
        self.ended().await
    }

    pub async fn ended(mut self) -> Result<(), SinkError> {
        self.task.join_next().await.unwrap().unwrap()
    }
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}
