//! Everything of this crate, tested at its boundaries.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod authority;
mod clickhouse;
mod cutting;
mod driving;
mod encoding;
mod follow;
mod home;
mod log;
mod maintainer;
mod objects;
mod parquet;
mod python;
mod rows;
mod running;
mod s3;
mod verify;
