//! What a POST is answered: one place for every status of the table in the manual.

use super::body::Unread;
use super::record::Unfit;
use super::split::{Split, Unsplit};
use crate::problem::{Fault, Problem, Reply, json};
use crate::receipts::{EventStatus, ReceiptState, ReceiptStatus};
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use serde::Serialize;
use std::time::Duration;
use tidegate_schemas::envelope::Refusal;
use tidegate_schemas::limits::{EVENTS_PER_REQUEST_MAX, RECORD_BYTES_MAX, REFUSAL_HEADER_BYTES_MAX, REFUSALS_PER_ANSWER_MAX};
use tidegate_schemas::log::LogError;
use tidegate_schemas::receipt::Receipt;
use tidegate_schemas::verdict::Code;

/// What is told of a request that is stored.
pub(super) struct Accepted {
    pub(super) events: usize,
    pub(super) refused: Vec<Fault>,
}

#[derive(Serialize)]
struct Body<'a> {
    receipt: String,
    accepted: usize,
    rejected: &'a [Fault],
    #[serde(skip_serializing_if = "Option::is_none")]
    not_waited: Option<&'a str>,
    #[serde(flatten)]
    reached: Option<Reached<'a>>,
}

#[derive(Serialize)]
struct Reached<'a> {
    state: ReceiptState,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_by: Option<&'a str>,
    events: &'a [EventStatus],
}

impl Accepted {
    pub(super) fn new(split: &Split) -> Self {
        Self { events: split.accepted.len(), refused: split.refused.iter().map(fault).collect() }
    }

    /// 202: durable in the log. `not_waited` says why a preference could not be met, `seen` how far the events came within the time.
    pub(super) fn stored(&self, receipt: &Receipt, not_waited: Option<&str>, seen: Option<&ReceiptStatus>) -> Reply {
        json(StatusCode::ACCEPTED, &self.body(receipt, not_waited, seen))
    }

    /// 200: and what became of each event.
    pub(super) fn met(&self, receipt: &Receipt, status: &ReceiptStatus) -> Reply {
        let mut reply = json(StatusCode::OK, &self.body(receipt, None, Some(status)));
        reply.headers_mut().insert(HeaderName::from_static("preference-applied"), HeaderValue::from_static("wait"));
        reply
    }

    fn body<'a>(&'a self, receipt: &Receipt, not_waited: Option<&'a str>, seen: Option<&'a ReceiptStatus>) -> Body<'a> {
        let reached = seen.map(|seen| Reached { state: seen.state, delivered_by: seen.delivered_by.as_deref(), events: &seen.events });
        Body { receipt: receipt.to_string(), accepted: self.events, rejected: &self.refused, not_waited, reached }
    }
}

fn fault(refusal: &Refusal) -> Fault {
    Fault { index: Some(refusal.span.index), code: refusal.code.clone(), detail: refusal.detail.clone(), pointer: refusal.pointer.clone() }
}

/// No event can be taken, so nothing is stored.
pub(super) fn none_accepted(refused: &[Refusal]) -> Box<Problem> {
    let all = |code: Code| refused.iter().all(|r| r.code == code.as_str());
    let errors = refused.iter().take(REFUSALS_PER_ANSWER_MAX).map(fault).collect();
    let detail = match refused {
        [one] => format!("the event was refused and nothing is stored: {}", one.detail),
        many => format!("all {} events were refused and nothing is stored; the first {REFUSALS_PER_ANSWER_MAX} are named", many.len()),
    };
    let problem = if all(Code::EventTooLarge) {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "event-too-large", "Event too large", detail)
    } else if all(Code::AssetNotAllowed) {
        Problem::new(StatusCode::FORBIDDEN, "asset-not-allowed", "Asset not allowed", detail)
    } else {
        Problem::new(StatusCode::BAD_REQUEST, "all-refused", "No event accepted", detail)
    };
    problem.with_errors(errors)
}

pub(super) fn unsplit(unsplit: Unsplit) -> Box<Problem> {
    let bad = |code, title, detail: String| Problem::new(StatusCode::BAD_REQUEST, code, title, detail);
    match unsplit {
        Unsplit::Empty => bad("empty-body", "Empty body", "the body has no bytes, so it holds no event".into()),
        Unsplit::NoEvents => bad("no-events", "No events", "the body is well-formed and holds no event".into()),
        Unsplit::Syntax(syntax) => {
            let detail = syntax.message();
            let code = Code::Syntax.as_str().to_owned();
            bad("syntax", "Malformed JSON", format!("{detail}; nothing is stored")).with_errors(vec![Fault {
                index: None,
                code,
                detail,
                pointer: String::new(),
            }])
        }
        Unsplit::TooMany => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-many-events",
            "Too many events",
            format!("a request takes at most {EVENTS_PER_REQUEST_MAX} events; send the rest in another one"),
        ),
    }
}

pub(super) fn unread(unread: Unread, max: usize) -> Box<Problem> {
    match unread {
        Unread::TooLarge => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "Body too large",
            format!("a body takes at most {max} bytes; send the events in several requests"),
        )
        .closing(),
        Unread::Full => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "Too many bodies at once",
            "the memory for bodies is in use; nothing of this request is stored: send it again",
        )
        .retry_after(1)
        .closing()
        .logged("body budget is used up"),
        Unread::Late => {
            Problem::new(StatusCode::REQUEST_TIMEOUT, "body-late", "Body too slow", "the body did not arrive in time; nothing is stored")
                .closing()
        }
        Unread::Broken(error) => {
            Problem::new(StatusCode::BAD_REQUEST, "body-broken", "Body broken off", "the body's framing is broken; nothing is stored")
                .closing()
                .logged(format!("body broke off: {error}"))
        }
    }
}

pub(super) fn unfit(unfit: Unfit) -> Box<Problem> {
    match unfit {
        Unfit::RefusalsTooMany => Problem::new(
            StatusCode::BAD_REQUEST,
            "too-many-refused",
            "Too many refused events",
            format!(
                "the list of refused events passes {REFUSAL_HEADER_BYTES_MAX} bytes, so the request is refused as a whole and nothing \
                 is stored"
            ),
        ),
        Unfit::RefusedTooLarge => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "refused-too-large",
            "Refused events too large",
            format!(
                "the refused events have more than {RECORD_BYTES_MAX} bytes together, so the request is refused as a whole and nothing is \
                 stored; send fewer events at once"
            ),
        ),
        Unfit::TooManyRecords => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "Body too large",
            "the request needs more records than a receipt names; send the events in several requests",
        ),
    }
}

/// The log said no. Only a full log surely stored nothing.
pub(super) fn unpublished(error: &LogError, seconds: u64) -> Box<Problem> {
    let (code, title, detail) = match error {
        LogError::Full { .. } => ("log-full", "Log full", "the log is full; nothing of this request is stored: send it again later"),
        _ => ("log-away", "Log away", "the log does not take events now; send the request again later, with the same ids"),
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, title, detail).retry_after(seconds).logged(format!("publish failed: {error}"))
}

/// The log said nothing in time.
pub(super) fn unanswered(after: Duration, seconds: u64) -> Box<Problem> {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "log-away",
        "Log away",
        "the log did not answer in time, so these events may or may not be stored; send the request again, with the same ids",
    )
    .retry_after(seconds)
    .logged(format!("publish had no answer after {} s", after.as_secs_f32()))
}
