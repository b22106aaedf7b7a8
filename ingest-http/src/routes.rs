//! The table of routes, and what is common to all: the head's cap, errors as problems, panics as 500, one line in the log.
//!
//! A new resource is a file, a variant, a line of [`ROUTES`] and an arm in `dispatch`.

use crate::edge::Shared;
use crate::problem::{Problem, Reply, json};
use crate::{events, receipts};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;
use tidegate_schemas::ids::TenantId;
use tidegate_schemas::limits::HEAD_BYTES_MAX;
use tidegate_schemas::receipt::Receipt;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Open,
    /// Who holds a credential of a source.
    Credential,
}

/// One route, for tests and documents.
#[derive(Debug, Clone, Copy)]
pub struct RouteInfo {
    /// With `{…}` for what varies; also the label of metrics.
    pub pattern: &'static str,
    /// As in `Allow`.
    pub methods: &'static str,
    /// Who may call it.
    pub access: Access,
}

/// All routes.
pub const ROUTES: [RouteInfo; 6] = [
    RouteInfo { pattern: "/v1/events", methods: "POST", access: Access::Credential },
    RouteInfo { pattern: "/v1/sources/{source}/events", methods: "POST", access: Access::Credential },
    RouteInfo { pattern: "/v1/receipts/{receipt}", methods: "GET, HEAD", access: Access::Credential },
    RouteInfo { pattern: "/health", methods: "GET, HEAD", access: Access::Open },
    RouteInfo { pattern: "/ready", methods: "GET, HEAD", access: Access::Open },
    RouteInfo { pattern: "/metrics", methods: "GET, HEAD", access: Access::Open },
];

#[derive(Clone, Copy)]
enum Route<'a> {
    Events,
    SourceEvents(&'a str),
    Receipt(&'a str),
    Health,
    Ready,
    Metrics,
}

/// What a request is known by in the log, gathered on its way.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) tenant: Option<TenantId>,
    receipt: Option<String>,
    accepted: usize,
    refused: usize,
}

impl Notes {
    /// The receipt's text is only made where somebody reads it.
    pub(crate) fn accepted(&mut self, receipt: &Receipt, accepted: usize, refused: usize) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            self.receipt = Some(receipt.id.to_string());
        }
        (self.accepted, self.refused) = (accepted, refused);
    }
}

/// Answers a request, whatever happens on the way.
pub(crate) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Reply {
    let started = Instant::now();
    let _in_flight = shared.metrics.begin();
    let path = request.uri().path().to_owned();
    let route = Route::find(&path);
    let label = route.map_or("none", |r| r.info().pattern);
    let mut notes = Notes::default();
    let outcome = {
        let mut work = pin!(dispatch(&shared, request, route, &mut notes));
        poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(poll) => poll,
            Err(panic) => Poll::Ready(Err(Problem::internal(format!("panic: {}", panic_text(&*panic))))),
        })
        .await
    };
    let (mut code, mut log) = ("", None);
    let reply = outcome.unwrap_or_else(|mut problem| {
        (code, log) = (problem.code, problem.log.take());
        problem.into_reply()
    });
    shared.metrics.answered(label, &reply);
    note(&shared, label, &reply, started, &notes, code, log.as_deref());
    reply
}

/// One line for each request; neither URL nor headers, which may carry secrets. A 500 is told each time, since its sender
/// has its id; what the whole process cannot do now (503) once, and then as a number.
fn note(shared: &Shared, route: &'static str, reply: &Reply, started: Instant, notes: &Notes, code: &'static str, log: Option<&str>) {
    let status = reply.status().as_u16();
    let tenant = notes.tenant.as_ref().map_or("", TenantId::as_str);
    let repeated = match status {
        // Answers that are no problems, such as that of `/ready`, are nobody's failure.
        503 if !code.is_empty() => shared.repeated.refused(code, Instant::now()),
        500.. if status != 503 => Some(0),
        _ => None,
    };
    if let Some(repeated) = repeated {
        tracing::warn!(route, status, tenant, repeated, cause = log.unwrap_or_default(), "request failed");
        return;
    }
    if notes.accepted > 0
        && let Some(refused) = shared.repeated.taken(Instant::now())
    {
        tracing::info!(refused, "requests are taken again");
    }
    tracing::debug!(
        route,
        status,
        tenant,
        receipt = notes.receipt.as_deref().unwrap_or_default(),
        accepted = notes.accepted,
        refused = notes.refused,
        cause = log.unwrap_or_default(),
        micros = started.elapsed().as_micros() as u64,
        "request answered"
    );
}

async fn dispatch(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    route: Option<Route<'_>>,
    notes: &mut Notes,
) -> Result<Reply, Box<Problem>> {
    let Some(route) = route else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", "there is no such path; events go to POST /v1/events"));
    };
    let allowed = route.info().methods;
    if !allowed.split(", ").any(|m| m == request.method().as_str()) {
        return Err(Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "Method not allowed",
            format!("this path answers {allowed}"),
        )
        .with_header(ALLOW, HeaderValue::from_static(allowed)));
    }
    check_head(request.headers())?;
    match route {
        Route::Events | Route::SourceEvents(_) if !shared.edge.settings.takes_events => {
            let detail = "this process takes no events (server.roles); send them to one that has the role ingest";
            Err(Problem::new(StatusCode::NOT_FOUND, "no-ingest", "No ingest here", detail))
        }
        Route::Events => events::post(shared, request, None, notes).await,
        Route::SourceEvents(source) => events::post(shared, request, Some(source), notes).await,
        Route::Receipt(receipt) => {
            let (parts, _) = request.into_parts();
            receipts::get(shared, &parts, receipt, notes).await
        }
        Route::Health => Ok(json(StatusCode::OK, &serde_json::json!({ "alive": true }))),
        Route::Ready => {
            let readiness = shared.edge.operations.ready().await;
            Ok(json(if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &readiness.body))
        }
        Route::Metrics => {
            let mut reply = Response::new(Full::new(Bytes::from(shared.edge.operations.metrics())));
            reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
            Ok(reply)
        }
    }
}

fn check_head(headers: &HeaderMap) -> Result<(), Box<Problem>> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes <= HEAD_BYTES_MAX {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "head-too-large",
        "Headers too large",
        format!("the headers have {bytes} bytes, more than {HEAD_BYTES_MAX}"),
    )
    .closing())
}

impl<'a> Route<'a> {
    fn find(path: &'a str) -> Option<Self> {
        Some(match path {
            "/v1/events" => Self::Events,
            "/health" => Self::Health,
            "/ready" => Self::Ready,
            "/metrics" => Self::Metrics,
            _ => {
                let one = |text: &'a str| Some(text).filter(|t| !t.is_empty() && !t.contains('/'));
                match path.strip_prefix("/v1/sources/").and_then(|rest| rest.strip_suffix("/events")) {
                    Some(source) => Self::SourceEvents(one(source)?),
                    None => Self::Receipt(one(path.strip_prefix("/v1/receipts/")?)?),
                }
            }
        })
    }

    fn info(self) -> &'static RouteInfo {
        &ROUTES[match self {
            Self::Events => 0,
            Self::SourceEvents(_) => 1,
            Self::Receipt(_) => 2,
            Self::Health => 3,
            Self::Ready => 4,
            Self::Metrics => 5,
        }]
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
