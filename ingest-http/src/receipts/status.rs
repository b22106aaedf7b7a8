//! What became of a request: the wire form of `GET /v1/receipts/{receipt}`. Serialisable means frozen.

use serde::Serialize;
use tidegate_schemas::ids::Epoch;
use tidegate_schemas::verdict::Verdict;

/// The answer for one receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReceiptStatus {
    /// The least of what its events have reached; those that were rejected count where all of them were.
    pub state: ReceiptState,
    /// How many events were rejected, where any were; they say why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_rejected: Option<usize>,
    /// When the request was complete, RFC 3339.
    pub received_at: String,
    /// RFC 3339, where rows are not in some sink yet: at this time at the latest sinks close what holds them, and deliver it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivered_by: Option<String>,
    /// In the order of the request, refused ones included.
    pub events: Vec<EventStatus>,
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptState {
    /// Some event is durable in the log and not yet processed.
    Stored,
    /// Every event has its verdict; some sink has not yet made its rows durable.
    Processed,
    /// Every event has its verdict and every sink has its rows.
    Delivered,
    /// Every event was rejected: there is nothing to deliver.
    Rejected,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventStatus {
    /// Its index in the request, from 0.
    pub index: u32,
    /// What became of it.
    pub state: EventState,
    /// Why it was rejected, as in `rejections`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The same for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// JSON pointer to the place in the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The stage that refused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The line of that stage's script, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<i32>,
    /// The epoch that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Where its rows are, for each sink.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<SinkStatus>,
}

/// What became of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventState {
    /// Durable in the log, not yet processed.
    Stored,
    /// It became rows.
    Transformed,
    /// Seen before.
    Duplicate,
    /// Left out on purpose.
    Filtered,
    /// It became a row of `rejections`.
    Rejected,
}

/// One event's rows in one sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SinkStatus {
    /// Name of the sink.
    pub sink: String,
    /// Whether the rows survive a crash of everything.
    pub durable: bool,
    /// Where they are: a path, or a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

impl ReceiptStatus {
    /// Derives the state from the events.
    pub fn new(received_at: String, events: Vec<EventStatus>) -> Self {
        let state = events.iter().map(EventStatus::reached).min().unwrap_or(ReceiptState::Delivered);
        let rejected = events.iter().filter(|e| e.state == EventState::Rejected).count();
        Self { state, events_rejected: (rejected > 0).then_some(rejected), received_at, delivered_by: None, events }
    }

    /// With the time at which sinks close what they do not have yet.
    #[must_use]
    pub fn delivered_by(mut self, at: Option<String>) -> Self {
        self.delivered_by = at.filter(|_| self.state == ReceiptState::Processed);
        self
    }

    /// Whether some event has no verdict yet.
    pub fn is_pending(&self) -> bool {
        self.state == ReceiptState::Stored
    }
}

impl EventStatus {
    /// An event of which nothing but its state is known.
    pub fn new(index: u32, state: EventState) -> Self {
        Self { index, state, code: None, detail: None, pointer: None, stage: None, line: None, epoch: None, sinks: Vec::new() }
    }

    fn reached(&self) -> ReceiptState {
        match self.state {
            EventState::Stored => ReceiptState::Stored,
            EventState::Rejected => ReceiptState::Rejected,
            _ if self.sinks.iter().all(|s| s.durable) => ReceiptState::Delivered,
            _ => ReceiptState::Processed,
        }
    }
}

impl From<Verdict> for EventState {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Transformed => Self::Transformed,
            Verdict::Duplicate => Self::Duplicate,
            Verdict::Rejected => Self::Rejected,
            Verdict::Filtered => Self::Filtered,
        }
    }
}
