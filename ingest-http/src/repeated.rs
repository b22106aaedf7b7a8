//! Refusals of one kind come by the thousand while the log is away: the first is told, the others are counted, and told in
//! one line now and then.

use hashbrown::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_schemas::limits::REPEATED_WARNING_SECONDS;

/// A success ends an outage only after so long without a refusal: a log that wavers would else be told of each time.
const QUIET: Duration = Duration::from_secs(1);

/// What was refused, by kind. Kinds are the codes of problems, so they are few.
#[derive(Default)]
pub(crate) struct Repeated {
    kinds: Mutex<HashMap<&'static str, Told>>,
    /// Whether there is one, so that successes take no lock.
    any: AtomicBool,
}

struct Told {
    at: Instant,
    last: Instant,
    /// Since `at`.
    more: u64,
    all: u64,
}

impl Repeated {
    /// How many of the kind were not told since the last that was, where this one is to be told.
    pub(crate) fn refused(&self, kind: &'static str, now: Instant) -> Option<u64> {
        self.any.store(true, Ordering::Relaxed);
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(told) = kinds.get_mut(kind) else {
            kinds.insert(kind, Told { at: now, last: now, more: 0, all: 1 });
            return Some(0);
        };
        (told.last, told.all) = (now, told.all + 1);
        if now.saturating_duration_since(told.at) < Duration::from_secs(REPEATED_WARNING_SECONDS as u64) {
            told.more += 1;
            return None;
        }
        told.at = now;
        Some(std::mem::take(&mut told.more))
    }

    /// The log took something: how many had been refused, where that is over.
    pub(crate) fn taken(&self, now: Instant) -> Option<u64> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let over = kinds.values().all(|told| now.saturating_duration_since(told.last) >= QUIET);
        if !over {
            return None;
        }
        self.any.store(false, Ordering::Relaxed);
        Some(kinds.drain().map(|(_, told)| told.all).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_for_each_change_and_a_count_now_and_then() {
        let repeated = Repeated::default();
        let begin = Instant::now();
        let at = |millis: u64| begin + Duration::from_millis(millis);
        assert_eq!(repeated.taken(at(0)), None);
        assert_eq!(repeated.refused("log-away", at(0)), Some(0));
        assert!((1..1_000).all(|i| repeated.refused("log-away", at(i)).is_none()));
        assert_eq!(repeated.refused("busy", at(1_000)), Some(0), "another kind is another state");
        assert_eq!(repeated.taken(at(1_500)), None, "it wavers");
        assert_eq!(repeated.refused("log-away", at(59_999)), None);
        assert_eq!(repeated.refused("log-away", at(60_000)), Some(1_000));
        assert_eq!(repeated.refused("log-away", at(60_001)), None);
        assert_eq!(repeated.taken(at(61_001)), Some(1_004));
        assert_eq!(repeated.taken(at(61_002)), None);
        assert_eq!(repeated.refused("log-away", at(61_003)), Some(0));
    }
}
