//! The HTTP edge of Tidegate: it accepts connections, knows who speaks, takes events in and answers for them.
//!
//! It owns the accept loop with its deadlines and caps, credentials, the reading and splitting of bodies, the making of
//! `raw` records, and every answer, all errors as RFC 9457 problems. It never runs a script, never builds a document
//! unless a credential is bound to assets, never imports operators or sinks, and never answers 202 before the log has
//! the events durably. No tenant comes from anything but a verified credential.
//!
//! ```text
//! accept ─▶ connection ─▶ routes ─▶ auth ─▶ events: body ▸ split ▸ assets ▸ record ─▶ EventLog ─▶ 202
//!                                      └──▶ receipts ─▶ what became of each event
//! ```

pub mod auth;
mod edge;
mod events;
mod limits;
mod metrics;
mod problem;
mod receipts;
mod repeated;
mod routes;
mod serve;

pub use auth::{hash_secret, issue_key};
pub use edge::{Catalogs, Edge, EdgeSettings, Operations, Readiness};
pub use events::records_of;
pub use receipts::{EventState, EventStatus, ReceiptFailure, ReceiptState, ReceiptStatus, Receipts, SinkStatus};
pub use routes::{Access, ROUTES, RouteInfo};
pub use serve::serve;
