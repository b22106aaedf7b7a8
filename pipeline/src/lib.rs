//! Composes Tidegate: logs, graph, epochs, recovery, workers and the command line. The one binary is `tidegate`.
//!
//! ```text
//! ingest-http ─▶ log raw ─▶ worker (graph of operators) ─▶ log clean, audit, commits ─▶ sinks
//!                             ▲ catalog ◀─ log control ◀─ definitions
//! ```

pub mod account;
pub mod assignment;
pub mod choice;
pub mod cli;
pub mod commits;
pub mod committer;
pub mod config;
pub mod definitions;
pub mod delivery;
pub mod demo;
pub mod doctor;
pub mod epoch;
pub mod fault;
pub mod graph;
pub mod log;
pub mod partition;
pub mod quarantine;
pub mod receipts;
pub mod recent;
pub mod recorded;
pub mod recovery;
pub mod rejections;
pub mod release;
pub mod scan;
pub mod server;
pub mod shares;
pub mod snapshot;
pub mod suspects;
pub mod tap;
pub mod telemetry;
pub mod usage;
pub mod verify;
pub mod watchdog;
pub mod worker;
