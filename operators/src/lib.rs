//! The stages of the dataflow, and the sandbox that runs tenants' scripts inside them.
//!
//! This crate performs no I/O, reads no clock and draws no randomness: what a stage computes follows from its input, the
//! pinned plan and the epoch's recorded time. It never imports `sinks` or `ingest-http`.
//!
//! ```text
//! records ─▶ open ─▶ decode ─▶ validate ─▶ transform ─▶ settle ─▶ blocks, outcomes, counts
//!                      └────── script (Luau) ──────┘
//! ```

pub mod duplicates;
pub mod event;
pub mod script;
pub mod stages;
