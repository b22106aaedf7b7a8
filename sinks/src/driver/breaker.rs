//! Keeps many partitions and tables from knocking together at a sink that is down.

use super::metrics;
use std::sync::atomic::{AtomicU32, Ordering};
use tidegate_schemas::limits::DELIVERY_FAILURES_MAX;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Open after some failures in a row, over all partitions and tables: from then on one attempt at a time finds out whether the
/// sink is back. The first success closes it.
pub(super) struct Breaker {
    sink: &'static str,
    failures: AtomicU32,
    probe: Semaphore,
}

impl Breaker {
    pub(super) fn new(sink: &'static str) -> Self {
        metrics::breaker(sink, false);
        Self { sink, failures: AtomicU32::new(0), probe: Semaphore::new(1) }
    }

    fn is_open(&self) -> bool {
        self.failures.load(Ordering::SeqCst) >= DELIVERY_FAILURES_MAX as u32
    }

    /// Waits for its turn where the sink seems to be down. What it returns is held during the attempt.
    pub(super) async fn pass(&self) -> Option<SemaphorePermit<'_>> {
        if !self.is_open() {
            return None;
        }
        // Nobody closes the semaphore.
        let turn = self.probe.acquire().await.ok();
        turn.filter(|_| self.is_open())
    }

    /// Notes how an attempt ended.
    pub(super) fn ended(&self, answered: bool) {
        let was_open = self.is_open();
        if answered {
            self.failures.store(0, Ordering::SeqCst);
        } else {
            // Saturates far above where it opens.
            self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_add(1)).ok();
        }
        if was_open != self.is_open() {
            metrics::breaker(self.sink, self.is_open());
            tracing::warn!(sink = self.sink, open = self.is_open(), "breaker");
        }
    }
}
