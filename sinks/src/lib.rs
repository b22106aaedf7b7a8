//! Sinks: from committed blocks to tables that people read.
//!
//! ```text
//! log clean, audit ─▶ driver ─▶ cut (pure) ─▶ Sink::deliver ─▶ Parquet/Delta, ClickHouse
//!                       └─ cursor, retries, parked tables, progress
//! ```
//! This crate never decides what a row is and never knows how it came about. A cut is a pure function of the log, a
//! delivery may be repeated, and the driver is the only one that retries. A further sink is a folder beside `parquet`
//! and one arm where the process is composed.

pub mod clickhouse;
pub mod cut;
pub mod driver;
pub mod objects;
pub mod parquet;
