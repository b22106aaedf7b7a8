//! Metrics of the edge. Handles of the hot path are made once; none has an asset or event id as a label.

use crate::problem::Reply;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Handles, bound to the recorder that is installed when the edge starts.
pub(crate) struct EdgeMetrics {
    pub(crate) accepted: Counter,
    pub(crate) refused: Counter,
    pub(crate) bytes: Counter,
    pub(crate) bodies_in_flight: Gauge,
    pub(crate) requests_in_flight: Gauge,
    pub(crate) publish_seconds: Histogram,
    pub(crate) connections: Gauge,
}

impl EdgeMetrics {
    pub(crate) fn new() -> Self {
        Self {
            accepted: counter!("tidegate_ingest_events_total", "result" => "accepted"),
            refused: counter!("tidegate_ingest_events_total", "result" => "refused"),
            bytes: counter!("tidegate_ingest_bytes_total"),
            bodies_in_flight: gauge!("tidegate_http_bodies_in_flight_bytes"),
            requests_in_flight: gauge!("tidegate_http_requests_in_flight"),
            publish_seconds: histogram!("tidegate_ingest_publish_seconds"),
            connections: gauge!("tidegate_http_connections"),
        }
    }

    /// Counts an answer. Routes and statuses are few, so the registry stays small.
    pub(crate) fn answered(&self, route: &'static str, reply: &Reply) {
        counter!("tidegate_http_requests_total", "route" => route, "status" => status_label(reply.status().as_u16())).increment(1);
    }

    /// A request begins; it ends when the guard is dropped, also where its client goes away.
    pub(crate) fn begin(&self) -> InFlight {
        self.requests_in_flight.increment(1);
        InFlight(self.requests_in_flight.clone())
    }

    /// Counts a connection that was closed by the edge, or never served.
    pub(crate) fn closed(&self, reason: &'static str) {
        counter!("tidegate_http_connections_closed_total", "reason" => reason).increment(1);
    }
}

/// A request under way.
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// Counts a credential that opened nothing.
pub(crate) fn denied(reason: &'static str) {
    counter!("tidegate_http_denials_total", "reason" => reason).increment(1);
}

/// The text of a status without an allocation for those that the edge answers.
fn status_label(status: u16) -> std::borrow::Cow<'static, str> {
    macro_rules! known { ($($code:literal)*) => { match status { $($code => stringify!($code).into(),)* other => other.to_string().into() } } }
    known!(200 202 400 401 403 404 405 408 410 413 415 422 431 500 503)
}
