//! `Prefer: wait=N` (RFC 7240): for verdicts, or with `; sink=NAME` until that sink has the rows.

use super::{ReceiptFailure, ReceiptStatus};
use crate::edge::Shared;
use hyper::header::HeaderMap;
use std::time::Duration;
use tidegate_schemas::ids::TenantId;
use tidegate_schemas::receipt::Receipt;
use tokio::time::Instant;

/// First and longest pause between two looks at a receipt.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// A look is worth while after this, whatever is known without one: that may be behind.
const LOOK_ANYWAY: Duration = Duration::from_secs(1);
/// What is left for the last look.
const LAST_LOOK: Duration = Duration::from_millis(20);
/// How many sinks a request can name.
const SINKS_MAX: usize = 16;
/// Stands for every sink.
const ALL: &str = "*";

/// What a request waits for, and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wait {
    time: Duration,
    sinks: Vec<String>,
}

/// Whether the request is known to be there: of one that nobody has seen, the first look must tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Yes,
    No,
}

/// How waiting ended.
#[derive(Debug)]
pub(crate) enum Waited {
    /// What was waited for is there.
    Met(ReceiptStatus),
    /// It is not; what was seen last, where anything was.
    Late(Option<ReceiptStatus>),
    /// It never will be: no sink has this name, or the wish is none.
    Unmeetable(String),
}

impl Wait {
    /// The preference of a request, its time capped; none where nothing, or no time, is asked for. An error says what is wrong with
    /// the wait that is: whoever asks is not refused for it (RFC 7240), the events are taken, and the answer says that nothing was
    /// waited for.
    pub(crate) fn preferred(headers: &HeaderMap, max: Duration) -> Option<Result<Self, String>> {
        let preferences = headers.get_all("prefer").iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
        // The first that can be read.
        preferences
            .filter_map(|preference| Self::read(preference, max))
            .reduce(|first, next| if first.is_ok() { first } else { next.or(first) })
    }

    fn read(preference: &str, max: Duration) -> Option<Result<Self, String>> {
        let mut parts = preference.split(';').map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (part.trim(), name.trim(), value.trim().trim_matches('"'))
        });
        let (wish, _, seconds) = parts.next().filter(|(_, name, _)| name.eq_ignore_ascii_case("wait"))?;
        let Ok(seconds) = seconds.parse() else {
            return Some(Err(format!("{wish:?} is no time to wait: it is a whole number of seconds, as in wait=5")));
        };
        let sinks = parts.filter(|(_, name, _)| name.eq_ignore_ascii_case("sink")).take(SINKS_MAX);
        let wait = Self { time: Duration::from_secs(seconds).min(max), sinks: sinks.map(|(_, _, sink)| sink.to_owned()).collect() };
        (seconds > 0).then_some(Ok(wait))
    }

    /// Looks until it is met.
    pub(crate) async fn wait(&self, shared: &Shared, tenant: &TenantId, receipt: &Receipt, mut known: Known) -> Waited {
        let (mut looked_at, receipts) = (Instant::now(), &shared.edge.receipts);
        let (end, mut pause) = (looked_at + self.time, LOOK_EVERY.0);
        let mut seen = None;
        loop {
            let is_ahead = known == Known::Yes && looked_at.elapsed() < LOOK_ANYWAY && receipts.is_ahead(tenant, receipt);
            if !is_ahead {
                let Ok(looked) = tokio::time::timeout_at(end, receipts.look_up(tenant, receipt)).await else { return Waited::Late(seen) };
                match looked {
                    Ok(status) if status.is_pending() => seen = Some(status),
                    Ok(status) => match self.lacking(&status) {
                        Lacking::Nothing => return Waited::Met(status),
                        Lacking::Rows => seen = Some(status),
                        Lacking::Sink(detail) => return Waited::Unmeetable(detail),
                    },
                    Err(ReceiptFailure::Unavailable(_)) => {}
                    Err(ReceiptFailure::NotFound | ReceiptFailure::Gone) => return Waited::Late(None),
                }
                (known, looked_at) = (Known::Yes, Instant::now());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left <= LAST_LOOK {
                return Waited::Late(seen);
            }
            // To ask whether a look is worth while costs nothing, so that is done often. The last look ends in time.
            tokio::time::sleep(pause.min(left - LAST_LOOK)).await;
            if !is_ahead {
                pause = (pause * 3 / 2).min(LOOK_EVERY.1);
            }
        }
    }

    /// What is missing though every event has its verdict.
    fn lacking(&self, status: &ReceiptStatus) -> Lacking {
        let mut lacking = Lacking::Nothing;
        for event in status.events.iter().filter(|e| !e.sinks.is_empty()) {
            for wanted in &self.sinks {
                let mut named = event.sinks.iter().filter(|s| wanted == ALL || s.sink == *wanted).peekable();
                if named.peek().is_none() {
                    let mut there: Vec<&str> = event.sinks.iter().map(|s| &*s.sink).collect();
                    there.dedup();
                    return Lacking::Sink(format!("no sink is named {wanted:?}; these are there: {}, and * for all", there.join(", ")));
                }
                if named.any(|s| !s.durable) {
                    lacking = Lacking::Rows;
                }
            }
        }
        lacking
    }
}

enum Lacking {
    Nothing,
    Rows,
    Sink(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn preferences_are_read() {
        let max = Duration::from_secs(60);
        let read = |values: &[&'static str]| {
            let values = values.iter().map(|v| (hyper::header::HeaderName::from_static("prefer"), HeaderValue::from_static(v)));
            Wait::preferred(&values.collect(), max)?.ok().map(|w| (w.time.as_secs(), w.sinks.join(" ")))
        };
        for (values, expected) in [
            (&["wait=5"][..], Some((5, ""))),
            (&["respond-async, WAIT=\"7\""], Some((7, ""))),
            (&["respond-async", "wait=8"], Some((8, ""))),
            (&["wait=999"], Some((60, ""))),
            (&["wait=5; sink=parquet; sink=\"clickhouse\", x=1; sink=not"], Some((5, "parquet clickhouse"))),
            (&["wait = 5 ;Sink = * ; other; sinks=x"], Some((5, "*"))),
            (&["wait=0, wait=4"], Some((4, ""))),
            (&["wait=x, wait=4"], Some((4, ""))),
            (&["wait=0"], None),
            (&["wait=-1"], None),
            (&["wait=x"], None),
            (&["wait"], None),
            (&["waits=3"], None),
            (&["respond-async; wait=3"], None),
            (&[], None),
        ] {
            assert_eq!(read(values), expected.map(|(seconds, sinks)| (seconds, sinks.to_owned())), "{values:?}");
        }
    }
}
