//! What the edge is given by the crate that composes it: every dependency is a trait or a value.

use crate::limits::{BodyBudget, Drain};
use crate::metrics::EdgeMetrics;
use crate::receipts::Receipts;
use crate::repeated::Repeated;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tidegate_schemas::BoxFuture;
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::limits;
use tidegate_schemas::log::EventLog;
use tidegate_schemas::time::Micros;
use tokio_util::task::TaskTracker;

/// Everything that the edge works with.
pub struct Edge {
    /// Where accepted events go.
    pub log: Arc<dyn EventLog>,
    /// Who may send what.
    pub catalog: Arc<dyn Catalogs>,
    /// What became of events.
    pub receipts: Arc<dyn Receipts>,
    /// The time of the edge, in microseconds since 1970.
    pub clock: fn() -> Micros,
    /// What the process says of itself.
    pub operations: Arc<dyn Operations>,
    /// Bounds and deadlines.
    pub settings: EdgeSettings,
}

/// The newest catalog. It is asked once for each request, so it must be cheap.
pub trait Catalogs: Send + Sync + 'static {
    /// The catalog as of the newest change known.
    fn current(&self) -> Arc<Catalog>;
}

/// What the process says of itself.
pub trait Operations: Send + Sync + 'static {
    /// Prometheus text.
    fn metrics(&self) -> String;
    /// Whether log and catalog are usable.
    fn ready(&self) -> BoxFuture<'_, Readiness>;
}

/// The answer of `/ready`.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// 200 or 503.
    pub ready: bool,
    /// What is up and what is not: sinks and parked tables.
    pub body: serde_json::Value,
}

/// Bounds and deadlines of the edge; the defaults are those of [`tidegate_schemas::limits`].
#[derive(Debug, Clone)]
pub struct EdgeSettings {
    /// Whether events are taken here; a process without the role answers health, metrics and receipts only.
    pub takes_events: bool,
    /// The address to listen on. The edge itself takes a bound listener; this is here so that the setting has one home.
    pub listen: SocketAddr,
    /// A request body as sent, in bytes.
    pub body_wire_bytes_max: usize,
    /// All bodies being read or awaiting the log, in bytes.
    pub bodies_in_flight_bytes_max: usize,
    /// Connections in all.
    pub connections_max: usize,
    /// Connections of one IPv4 address or IPv6 /64.
    pub connections_per_address_max: usize,
    /// From the connection's or the head's first moment to the head's end.
    pub head_deadline: Duration,
    /// For the largest body; a shorter one gets less.
    pub body_deadline: Duration,
    /// A kept-alive connection without a request.
    pub idle_deadline: Duration,
    /// For the log to answer.
    pub publish_deadline: Duration,
    /// For requests in flight after the stop.
    pub shutdown_deadline: Duration,
    /// Ceiling of `Prefer: wait`.
    pub wait_max: Duration,
}

impl Default for EdgeSettings {
    fn default() -> Self {
        let seconds = |s: usize| Duration::from_secs(s as u64);
        Self {
            takes_events: true,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            body_wire_bytes_max: limits::BODY_WIRE_BYTES_MAX,
            bodies_in_flight_bytes_max: limits::BODIES_IN_FLIGHT_BYTES_MAX,
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_address_max: limits::CONNECTIONS_PER_ADDRESS_MAX,
            head_deadline: seconds(limits::HEAD_SECONDS_MAX),
            body_deadline: seconds(limits::BODY_SECONDS_MAX),
            idle_deadline: seconds(limits::IDLE_SECONDS_MAX),
            publish_deadline: seconds(limits::PUBLISH_SECONDS_MAX),
            shutdown_deadline: seconds(limits::SHUTDOWN_SECONDS_MAX),
            wait_max: seconds(limits::RECEIPT_WAIT_SECONDS_MAX),
        }
    }
}

/// The edge at work: what was given, and what its requests share.
pub(crate) struct Shared {
    pub(crate) edge: Edge,
    pub(crate) bodies: Arc<BodyBudget>,
    pub(crate) drain: Drain,
    pub(crate) metrics: EdgeMetrics,
    pub(crate) repeated: Repeated,
    /// Owner of every task of the edge.
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    pub(crate) fn new(edge: Edge) -> Self {
        Self {
            bodies: Arc::new(BodyBudget::new(edge.settings.bodies_in_flight_bytes_max)),
            drain: Drain::default(),
            metrics: EdgeMetrics::new(),
            repeated: Repeated::default(),
            tasks: TaskTracker::new(),
            edge,
        }
    }
}
