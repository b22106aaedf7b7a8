//! `GET /v1/receipts/{receipt}`, and waiting for it.

mod status;

pub use status::{EventState, EventStatus, ReceiptState, ReceiptStatus, SinkStatus};

use crate::auth;
use crate::edge::Shared;
use crate::problem::{Problem, Reply, json};
use crate::routes::Notes;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use std::time::Duration;
use tidegate_schemas::BoxFuture;
use tidegate_schemas::ids::TenantId;
use tidegate_schemas::receipt::Receipt;
use tokio::time::Instant;

/// First and longest pause between two looks at a receipt.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Knows what became of requests.
pub trait Receipts: Send + Sync + 'static {
    /// What became of the request of `receipt`, if it was one of `tenant`. The receipt comes from a client: what it says
    /// must be compared with the records themselves.
    fn look_up<'a>(&'a self, tenant: &'a TenantId, receipt: &'a Receipt) -> BoxFuture<'a, Result<ReceiptStatus, ReceiptFailure>>;
}

/// Why nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptFailure {
    /// No such request of this tenant.
    #[error("no such receipt")]
    NotFound,
    /// Its records are deleted, or the horizon of outcomes has passed.
    #[error("receipt is past its retention")]
    Gone,
    /// The log cannot be read now.
    #[error("receipt cannot be looked up: {0}")]
    Unavailable(String),
}

/// Answers a look-up.
pub(crate) async fn get(shared: &Shared, parts: &Parts, text: &str, notes: &mut Notes) -> Result<Reply, Box<Problem>> {
    let edge = &shared.edge;
    let catalog = edge.catalog.current();
    let caller = auth::authenticate(&catalog, &parts.headers, parts.uri.query(), (edge.clock)()).map_err(auth::Denial::into_problem)?;
    notes.tenant = Some(caller.tenant.clone());
    let receipt = text.parse::<Receipt>().ok().filter(|r| r.is_of(edge.log.log_id())).ok_or_else(|| problem(ReceiptFailure::NotFound))?;
    let mut status = None;
    if let Some(wait) = prefer_wait(&parts.headers, edge.settings.wait_max) {
        status = wait_for(shared, &caller.tenant, &receipt, wait).await;
    }
    let status = match status {
        Some(status) => status,
        None => edge.receipts.look_up(&caller.tenant, &receipt).await.map_err(problem)?,
    };
    let mut reply = json(StatusCode::OK, &status);
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
}

/// Looks until every event has its verdict. `None` where that did not come to pass in time, or nothing is known.
pub(crate) async fn wait_for(shared: &Shared, tenant: &TenantId, receipt: &Receipt, wait: Duration) -> Option<ReceiptStatus> {
    let end = Instant::now() + wait;
    let mut pause = LOOK_EVERY.0;
    loop {
        match tokio::time::timeout_at(end, shared.edge.receipts.look_up(tenant, receipt)).await.ok()? {
            Ok(status) if !status.is_pending() => return Some(status),
            Ok(_) | Err(ReceiptFailure::Unavailable(_)) => {}
            Err(ReceiptFailure::NotFound | ReceiptFailure::Gone) => return None,
        }
        if Instant::now() + pause >= end {
            return None;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(LOOK_EVERY.1);
    }
}

/// `Prefer: wait=N` (RFC 7240), capped.
pub(crate) fn prefer_wait(headers: &HeaderMap, max: Duration) -> Option<Duration> {
    let preferences = headers.get_all("prefer").iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let seconds = preferences.filter_map(|p| p.split(';').next()?.split_once('=')).find_map(|(name, value)| {
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').parse::<u64>().ok()).flatten()
    })?;
    (seconds > 0).then(|| Duration::from_secs(seconds).min(max))
}

fn problem(failure: ReceiptFailure) -> Box<Problem> {
    match failure {
        ReceiptFailure::NotFound => Problem::new(
            StatusCode::NOT_FOUND,
            "receipt-unknown",
            "No such receipt",
            "this credential's tenant has no such receipt; send the text that an answer to a POST carried",
        ),
        ReceiptFailure::Gone => Problem::new(
            StatusCode::GONE,
            "receipt-gone",
            "Receipt past retention",
            "what became of these events is not kept any more; their rows, if any, carry the receipt's event ids",
        ),
        ReceiptFailure::Unavailable(_) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "receipt-unavailable",
            "Receipts unavailable",
            "what became of these events cannot be read now; ask again",
        )
        .retry_after(2)
        .logged(failure.to_string()),
    }
}
