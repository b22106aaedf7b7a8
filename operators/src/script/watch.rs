//! The seam to the watchdog: who runs, and who must stop.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a host announces and an outside thread answers. This crate reads no clock: the watchdog decides what is too long.
#[derive(Debug, Default)]
pub struct Watch {
    running: AtomicU64,
    kill: AtomicU64,
}

impl Watch {
    /// The serial number of the event whose scripts run, where any do. Numbers begin at 1 and never repeat.
    pub fn running(&self) -> Option<u64> {
        Some(self.running.load(Ordering::Relaxed)).filter(|n| *n > 0)
    }

    /// Stops the event of this number at its next safepoint; any other event is left alone.
    pub fn kill(&self, event: u64) {
        self.kill.store(event, Ordering::Relaxed);
    }

    pub(crate) fn begin(&self, event: u64) {
        self.running.store(event, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.running.store(0, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_killed(&self, event: u64) -> bool {
        self.kill.load(Ordering::Relaxed) == event
    }
}
