//! Composes Tidegate: logs, graph, epochs, recovery, workers and the command line. The one binary is `tidegate`.
//!
//! ```text
//! ingest-http ─▶ log raw ─▶ worker (graph of operators) ─▶ log clean, audit, commits ─▶ sinks
//!                             ▲ catalog ◀─ log control ◀─ definitions
//! ```

pub mod config;
pub mod definitions;
pub mod demo;
pub mod log;
