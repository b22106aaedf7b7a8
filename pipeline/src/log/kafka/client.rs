//! What librdkafka tells beside its answers: log lines, reasons and statistics. A refused password reaches callers as a
//! time-out only; the reason comes here, and errors quote it.

use super::metrics;
use hashbrown::HashMap;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A reason older than this explains nothing that happens now.
const REASON_AGE_MAX: Duration = Duration::from_secs(60);

const TRY_EVERY: Duration = Duration::from_secs(1);

/// Lines of one kind come no more often than this.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The role whose word counts on whether brokers can be reached: others may be idle.
pub const PUBLISHER: &str = "publisher";

/// What brokers said last, for all clients of a log.
#[derive(Default)]
pub struct Told {
    last: Mutex<Option<(Instant, RDKafkaErrorCode, String)>>,
    /// Where no broker can be reached: when somebody may try again.
    down: Mutex<Option<Instant>>,
    /// When which client told of which thing last: each of many readers tells of a lost connection again and again.
    lines: Mutex<HashMap<(&'static str, String), Instant>>,
}

impl Told {
    /// `text`, and what the broker said where it said something lately.
    pub fn explain(&self, text: impl ToString) -> String {
        match self.last() {
            Some((_, reason)) => format!("{}; last heard: {reason}", text.to_string()),
            None => text.to_string(),
        }
    }

    /// The last reason, unless it is old.
    pub fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(at, ..)| at.elapsed() < REASON_AGE_MAX).map(|(_, code, reason)| (*code, reason.clone()))
    }

    /// Whether no broker can be reached.
    pub fn is_down(&self) -> bool {
        self.down.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether it is time to knock again: connections that were closed for being idle look like brokers that are away, and
    /// nobody opens them before there is something to send.
    pub fn knock_is_due(&self) -> bool {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        let due = down.is_some_and(|next| Instant::now() >= next);
        if due {
            *down = Some(Instant::now() + TRY_EVERY);
        }
        due
    }

    fn is_news(&self, role: &'static str, facility: &str) -> bool {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (role, facility.to_owned());
        let news = lines.get(&key).is_none_or(|last| last.elapsed() >= TELL_EVERY);
        if news {
            lines.insert(key, Instant::now());
        }
        news
    }

    /// A broker answers.
    pub fn is_up(&self) {
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn lost(&self) {
        self.down.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| Instant::now() + TRY_EVERY);
    }

    fn note(&self, code: RDKafkaErrorCode, reason: &str) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), code, reason.to_owned()));
    }
}

/// The context of one client.
#[derive(Clone)]
pub struct Context {
    /// Its role, for log lines.
    pub role: &'static str,
    /// Shared with the other clients of the log.
    pub told: Arc<Told>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let client = self.role;
        if !self.told.is_news(client, facility) {
            tracing::debug!(client, facility, "{message}");
            return;
        }
        match level {
            // Its errors are lost connections and the like: what they mean for us is told by whoever asked.
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => tracing::error!(client, facility, "{message}"),
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!(client, facility, "{message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(client, facility, "{message}"),
            RDKafkaLogLevel::Debug => tracing::debug!(client, facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match super::errors::code(&error) {
            Some(RDKafkaErrorCode::PartitionEOF) | None => {}
            // What it means is said by the error before it.
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                if self.role == PUBLISHER {
                    self.told.lost();
                }
            }
            Some(code) => self.told.note(code, reason),
        }
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(|b| b.state == "UP") {
            self.told.is_up();
        }
        metrics::statistics(&statistics);
    }
}

impl ConsumerContext for Context {}
