//! `GET /v1/receipts/{receipt}`, and waiting for it.

mod status;
mod wait;

pub use status::{EventState, EventStatus, ReceiptState, ReceiptStatus, SinkStatus};
pub(crate) use wait::{Known, Wait, Waited};

use crate::auth;
use crate::edge::Shared;
use crate::problem::{Problem, Reply, json};
use crate::routes::Notes;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::http::request::Parts;
use tidegate_schemas::BoxFuture;
use tidegate_schemas::ids::TenantId;
use tidegate_schemas::receipt::Receipt;

/// Knows what became of requests.
pub trait Receipts: Send + Sync + 'static {
    /// What became of the request of `receipt`, if it was one of `tenant`. The receipt comes from a client: what it says
    /// must be compared with the records themselves.
    fn look_up<'a>(&'a self, tenant: &'a TenantId, receipt: &'a Receipt) -> BoxFuture<'a, Result<ReceiptStatus, ReceiptFailure>>;

    /// Whether it is known, without a look, that some event of such a request has no verdict yet: a look would be in vain. It says
    /// nothing about whether there is such a request.
    fn is_ahead(&self, tenant: &TenantId, receipt: &Receipt) -> bool {
        let _ = (tenant, receipt);
        false
    }
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
    let waited = match Wait::preferred(&parts.headers, edge.settings.wait_max) {
        Some(Ok(wait)) => wait.wait(shared, &caller.tenant, &receipt, Known::No).await,
        Some(Err(_)) | None => Waited::Late(None),
    };
    let status = match waited {
        Waited::Met(status) => status,
        // The status names the sinks that there are.
        Waited::Late(_) | Waited::Unmeetable(_) => edge.receipts.look_up(&caller.tenant, &receipt).await.map_err(problem)?,
    };
    let mut reply = json(StatusCode::OK, &status);
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
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
