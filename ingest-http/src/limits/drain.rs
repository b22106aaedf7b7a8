//! When to come back to a full log: from how fast it empties, as seen between refusals.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_schemas::limits::INTAKE_STOPS_PERCENT;
use tidegate_schemas::log::Usage;

/// Longest and shortest answer, in seconds: a sender must neither hammer nor give up.
const SECONDS: std::ops::RangeInclusive<f64> = 1.0..=60.0;
/// Without a measured rate: group commits take milliseconds, trims some seconds.
const UNKNOWN_SECONDS: f64 = 3.0;
/// Two observations closer than this say nothing.
const APART_MIN: Duration = Duration::from_millis(500);

/// What was seen of a log that is full.
#[derive(Default)]
pub(crate) struct Drain {
    seen: Mutex<Seen>,
}

#[derive(Default, Clone, Copy)]
struct Seen {
    last: Option<(Instant, u64)>,
    /// Bytes a second, above 0 where it empties.
    rate: f64,
}

impl Drain {
    /// Seconds for `Retry-After`. `jitter` spreads senders over the time that follows, so that they do not return at once.
    pub(crate) fn retry_after(&self, usage: Usage, now: Instant, jitter: u8) -> u64 {
        let rate = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            match seen.last {
                Some((at, bytes)) if now.saturating_duration_since(at) >= APART_MIN => {
                    seen.rate = (bytes as f64 - usage.bytes as f64) / now.saturating_duration_since(at).as_secs_f64();
                    seen.last = Some((now, usage.bytes));
                }
                Some(_) => {}
                None => seen.last = Some((now, usage.bytes)),
            }
            seen.rate
        };
        let excess = usage.bytes as f64 - usage.budget as f64 * INTAKE_STOPS_PERCENT as f64 / 100.0;
        let seconds = if rate > 0.0 { excess.max(0.0) / rate } else { UNKNOWN_SECONDS };
        let seconds = seconds.clamp(*SECONDS.start(), *SECONDS.end());
        (seconds * (1.0 + f64::from(jitter) / 255.0)).round().clamp(*SECONDS.start(), *SECONDS.end()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_follows_the_measured_rate() {
        let drain = Drain::default();
        let start = Instant::now();
        let usage = |bytes| Usage { bytes, budget: 1_000 };
        assert_eq!(drain.retry_after(usage(1_000), start, 0), 3, "nothing is known yet");
        // 10 bytes a second, 140 too many.
        assert_eq!(drain.retry_after(usage(990), start + Duration::from_secs(1), 0), 14);
        assert_eq!(drain.retry_after(usage(990), start + Duration::from_secs(1), 255), 28, "with all of the jitter");
        // It grows again: the rate says nothing.
        assert_eq!(drain.retry_after(usage(999), start + Duration::from_secs(2), 0), 3);
        // So slow that the ceiling answers.
        assert_eq!(drain.retry_after(usage(998), start + Duration::from_secs(3), 0), 60);
    }
}
