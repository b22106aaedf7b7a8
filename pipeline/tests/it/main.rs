//! Integration tests.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod account;
mod assignment;
mod backlog;
mod clickhouse;
mod config;
mod crash;
mod damage;
mod definitions;
mod devices;
mod engine;
mod fleet;
mod full_disk;
mod input;
mod isolation;
mod kafka;
mod log;
mod readers;
mod recent;
mod recovery;
mod releases;
mod scan;
mod shares;
mod support;
mod tables;
mod tools;
mod workspace;
