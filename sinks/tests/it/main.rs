//! Everything of this crate, tested at its boundaries.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clickhouse;
mod cutting;
mod driving;
mod follow;
mod log;
mod parquet;
mod rows;
mod verify;
