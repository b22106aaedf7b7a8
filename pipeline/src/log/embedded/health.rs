//! Which chains take no writes now, and why. A change of state is one line of the log; what is refused meanwhile is counted.

use super::layout::Chain;
use super::metrics;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tidegate_schemas::log::LogError;

/// The failures of a log's chains that last. Chains fail and heal one by one: each has files of its own, and the system
/// tells a failed write or sync to the file that it befell.
#[derive(Default)]
pub struct Health {
    chains: Mutex<[Option<Failure>; Chain::ALL.len()]>,
    /// How many there are, so that the usual case takes no lock.
    count: AtomicUsize,
}

struct Failure {
    /// What whoever wants to write is told.
    error: LogError,
    since: Instant,
    refused: u64,
    /// Only a restart ends it.
    lasting: bool,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, [Option<Failure>; Chain::ALL.len()]> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The failure of a chain, if it lasts, for whom it refuses.
    pub fn check(&self, chain: Chain) -> Result<(), LogError> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        match &mut self.lock()[chain.place()] {
            Some(failure) => {
                failure.refused += 1;
                metrics::refused("failed");
                Err(failure.error.clone())
            }
            None => Ok(()),
        }
    }

    /// Whether a chain takes no writes.
    pub fn is_failing(&self, chain: Chain) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.lock()[chain.place()].is_some()
    }

    /// The first failure that lasts, those that only a restart ends first.
    pub fn failing(&self) -> Option<LogError> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let chains = self.lock();
        let mut failures: Vec<_> = chains.iter().flatten().collect();
        failures.sort_by_key(|f| !f.lasting);
        failures.first().map(|f| f.error.clone())
    }

    /// A chain takes no writes from now on until it is healed.
    pub fn failed(&self, chain: Chain, error: &LogError) {
        let error = with_remedy(error, "nothing more is written there until it can be; it is tried again by itself");
        tracing::warn!(chain = chain.as_str(), %error, "the log failed");
        self.put(chain, error, false);
    }

    /// A chain takes no writes as long as the process lives.
    pub fn ended(&self, chain: Chain, error: &LogError) {
        let error = with_remedy(error, "nothing more is written there; restart the process");
        tracing::error!(chain = chain.as_str(), %error, "the log failed");
        self.put(chain, error, true);
    }

    fn put(&self, chain: Chain, error: LogError, lasting: bool) {
        metrics::failed();
        let mut chains = self.lock();
        let place = &mut chains[chain.place()];
        let (since, refused) = place.as_ref().map_or((Instant::now(), 0), |f| (f.since, f.refused));
        *place = Some(Failure { error, since, refused, lasting });
        self.count.store(chains.iter().flatten().count(), Ordering::Release);
    }

    /// A chain takes writes again.
    pub fn healed(&self, chain: Chain) {
        let mut chains = self.lock();
        if let Some(failure) = chains[chain.place()].take() {
            let seconds = failure.since.elapsed().as_secs_f64();
            tracing::warn!(chain = chain.as_str(), seconds, refused = failure.refused, "the log takes writes again");
        }
        self.count.store(chains.iter().flatten().count(), Ordering::Release);
    }
}

fn with_remedy(error: &LogError, remedy: &str) -> LogError {
    match error {
        LogError::Io { doing, detail } => LogError::Io { doing: doing.clone(), detail: format!("{detail}; {remedy}") },
        other => LogError::Io { doing: "write to the log".into(), detail: format!("{other}; {remedy}") },
    }
}
