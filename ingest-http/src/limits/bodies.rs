//! The memory of the edge: bytes of all bodies that are being read or wait for the log.
//!
//! Bytes are counted as they arrive, not as they are announced, so a sender that announces much and sends little holds
//! little.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes in use and allowed.
pub(crate) struct BodyBudget {
    used: AtomicUsize,
    max: usize,
}

/// The share of one request; it is given back when this is dropped.
pub(crate) struct Held {
    budget: Arc<BodyBudget>,
    bytes: usize,
}

/// The budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BudgetFull;

impl BodyBudget {
    pub(crate) fn new(max: usize) -> Self {
        Self { used: AtomicUsize::new(0), max }
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// An empty share.
    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        Held { budget: Arc::clone(self), bytes: 0 }
    }
}

impl Held {
    /// Takes more, or leaves the share as it is.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), BudgetFull> {
        let before = self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.budget.max {
            self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(BudgetFull);
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_given_back_and_the_bound_holds() {
        let budget = Arc::new(BodyBudget::new(10));
        let mut first = budget.hold();
        assert_eq!(first.grow(6), Ok(()));
        let mut second = budget.hold();
        assert_eq!(second.grow(5), Err(BudgetFull));
        assert_eq!(second.grow(4), Ok(()));
        assert_eq!(budget.used(), 10);
        drop(first);
        assert_eq!(second.grow(6), Ok(()));
        drop(second);
        assert_eq!(budget.used(), 0);
    }
}
