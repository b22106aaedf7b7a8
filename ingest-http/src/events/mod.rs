//! `POST /v1/events` and `POST /v1/sources/{source}/events`.
//!
//! ```text
//! head: credential ▸ source ▸ format ▸ meta          refused here, the body is never waited for
//! body: read ▸ split ▸ assets ▸ records ▸ publish    202 once the log has them durably
//! ```

mod answer;
mod assets;
mod body;
mod encoding;
mod format;
mod json;
mod meta;
pub(crate) mod query;
mod record;
mod split;

use crate::auth::{self, Caller};
use crate::edge::Shared;
use crate::limits::Held;
use crate::problem::{Problem, Reply};
use crate::receipts::{Known, Wait, Waited};
use crate::routes::Notes;
use bytes::Bytes;
use format::Format;
use hyper::body::{Body, Incoming};
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use split::Split;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::envelope::{Envelope, partition_of};
use tidegate_schemas::ids::ReceiptId;
use tidegate_schemas::limits::LINGER_SECONDS_MAX;
use tidegate_schemas::log::{LogError, LogName, Record};
use tidegate_schemas::receipt::Receipt;

/// What the head of a request decides, before its body is waited for.
struct Head {
    catalog: Arc<Catalog>,
    caller: Caller,
    format: Format,
    meta: BTreeMap<String, String>,
    idempotency_key: Option<String>,
    traceparent: Option<String>,
    /// Or why not, where one is asked for in words that are none.
    wait: Option<Result<Wait, String>>,
}

/// Takes the events of a request in. `named` is the source in the URL.
pub(crate) async fn post(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    named: Option<&str>,
    notes: &mut Notes,
) -> Result<Reply, Box<Problem>> {
    let (parts, mut incoming) = request.into_parts();
    let head = match judge_head(shared, &parts, named, notes) {
        Ok(head) => head,
        Err(problem) => {
            linger(shared, &parts, incoming);
            return Err(problem);
        }
    };
    let settings = &shared.edge.settings;
    let max = settings.body_wire_bytes_max.min(u32::MAX as usize);
    let (body, held) = match body::read(&shared.bodies, &mut incoming, max, settings.body_deadline).await {
        Ok(read) => read,
        Err(unread) => {
            if !matches!(unread, body::Unread::Late | body::Unread::Broken(_)) {
                linger(shared, &parts, incoming);
            }
            return Err(answer::unread(unread, max));
        }
    };
    shared.metrics.bytes.increment(body.len() as u64);
    shared.metrics.bodies_in_flight.set(shared.bodies.used() as f64);
    let mut split = split::split(&body, head.format).map_err(answer::unsplit)?;
    assets::check(&head.caller, &body, head.format, &head.meta, &mut split);
    let wait = head.wait.clone();
    let tenant = head.caller.tenant.clone();
    let (receipt, accepted) = store(shared, head, body, split, held).await?;
    notes.accepted(&receipt, accepted.events, accepted.refused.len());
    let waited = match wait {
        Some(Ok(wait)) => wait.wait(shared, &tenant, &receipt, Known::Yes).await,
        Some(Err(why)) => Waited::Unmeetable(why),
        None => Waited::Late(None),
    };
    Ok(match waited {
        Waited::Met(status) => accepted.met(&receipt, &status),
        Waited::Late(seen) => accepted.stored(&receipt, None, seen.as_ref()),
        Waited::Unmeetable(why) => accepted.stored(&receipt, Some(&why), None),
    })
}

/// The records of `raw` that a body becomes, without sending it: what a POST publishes where at least one of its events is
/// accepted. `head` is what is known of the request, without events. Only the headers' `Content-Type` counts.
///
/// # Errors
/// The status of the answer, where the request is refused as a whole.
pub fn records_of(headers: &HeaderMap, body: Bytes, head: Envelope) -> Result<Vec<Record>, StatusCode> {
    let format = format::of(headers).map_err(|problem| problem.status())?;
    let split = split::split(&body, format).map_err(|unsplit| answer::unsplit(unsplit).status())?;
    record::build(head, body, split).map_err(|unfit| answer::unfit(unfit).status())
}

fn judge_head(shared: &Shared, parts: &Parts, named: Option<&str>, notes: &mut Notes) -> Result<Head, Box<Problem>> {
    let catalog = shared.edge.catalog.current();
    let query = parts.uri.query();
    let caller = auth::authenticate(&catalog, &parts.headers, query, (shared.edge.clock)()).map_err(auth::Denial::into_problem)?;
    notes.tenant = Some(caller.tenant.clone());
    if named.is_some_and(|name| name != caller.source.source.id.as_str()) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "source-not-allowed",
            "Source not allowed",
            "this credential opens another source; POST to /v1/events, where the credential names the source",
        ));
    }
    encoding::of(&parts.headers)?;
    Ok(Head {
        format: format::of(&parts.headers)?,
        meta: meta::gather(&caller.source.source, &parts.headers, query)?,
        idempotency_key: meta::idempotency_key(&parts.headers)?.map(str::to_owned),
        traceparent: meta::traceparent(&parts.headers),
        wait: Wait::preferred(&parts.headers, shared.edge.settings.wait_max),
        catalog,
        caller,
    })
}

/// Publishes the request and waits until the log has it durably. `held` ends with the log's answer.
async fn store(shared: &Shared, head: Head, body: Bytes, split: Split, held: Held) -> Result<(Receipt, answer::Accepted), Box<Problem>> {
    if split.accepted.is_empty() {
        shared.metrics.refused.increment(split.refused.len() as u64);
        return Err(answer::none_accepted(&split.refused));
    }
    let accepted = answer::Accepted::new(&split);
    let log = &shared.edge.log;
    let (id, partition) = (receipt_id()?, partition_of(&head.caller.tenant, log.partitions()));
    let records = record::build(envelope(shared, head, id, &body), body, split).map_err(answer::unfit)?;
    let records: Vec<(u32, Record)> = records.into_iter().map(|record| (partition, record)).collect();
    let started = Instant::now();
    let published = tokio::time::timeout(shared.edge.settings.publish_deadline, log.publish(LogName::Raw, records)).await;
    drop(held);
    shared.metrics.bodies_in_flight.set(shared.bodies.used() as f64);
    shared.metrics.publish_seconds.record(started.elapsed());
    let offsets = match published {
        Ok(Ok(offsets)) => offsets,
        Ok(Err(error @ LogError::TooLarge { .. })) => return Err(Problem::internal(error.to_string())),
        Ok(Err(error)) => {
            let seconds = shared.drain.retry_after(log.usage(), Instant::now(), id.0[0]);
            return Err(answer::unpublished(&error, seconds));
        }
        Err(_) => {
            let seconds = shared.drain.retry_after(log.usage(), Instant::now(), id.0[0]);
            return Err(answer::unanswered(shared.edge.settings.publish_deadline, seconds));
        }
    };
    shared.metrics.accepted.increment(accepted.events as u64);
    shared.metrics.refused.increment(accepted.refused.len() as u64);
    let places = offsets.into_iter().map(|offset| (partition, offset)).collect();
    Ok((Receipt::new(id, log.log_id(), places), accepted))
}

fn envelope(shared: &Shared, head: Head, receipt: ReceiptId, body: &[u8]) -> Envelope {
    Envelope {
        tenant: head.caller.tenant,
        node: head.caller.source.source.node.clone(),
        source: head.caller.source.source.id.clone(),
        credential: head.caller.credential,
        receipt,
        received_at: (shared.edge.clock)(),
        revision: head.catalog.revision(),
        content_type: head.format.event_type().to_owned(),
        idempotency: head.idempotency_key.map(|key| meta::idempotency(&key, body)),
        traceparent: head.traceparent,
        meta: head.meta,
        events: Vec::new(),
        refused: Vec::new(),
        release: None,
    }
}

fn receipt_id() -> Result<ReceiptId, Box<Problem>> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|e| Problem::internal(format!("the system gives no randomness: {e}")))?;
    Ok(ReceiptId(id))
}

/// Reads an unwanted body away for a moment, so that its sender gets to read the answer instead of a reset.
fn linger(shared: &Shared, parts: &Parts, mut body: Incoming) {
    // Who waits for "100 Continue" has sent nothing.
    if body.is_end_stream() || parts.headers.contains_key(hyper::header::EXPECT) {
        return;
    }
    let limit = Duration::from_secs(LINGER_SECONDS_MAX as u64);
    shared.tasks.spawn(async move {
        use http_body_util::BodyExt;
        let _ = tokio::time::timeout(limit, async { while let Some(Ok(_)) = body.frame().await {} }).await;
    });
}
