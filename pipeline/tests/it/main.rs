//! Integration tests.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod account;
mod assignment;
#[path = "../../../sinks/tests/it/authority.rs"]
mod authority;
mod backlog;
mod between;
mod black_hole;
mod clickhouse;
mod config;
mod crash;
mod damage;
mod definitions;
mod devices;
mod doctor;
mod engine;
mod fleet;
mod full_disk;
mod input;
mod isolation;
mod kafka;
mod log;
mod objects;
mod parked;
#[path = "../../../sinks/tests/it/python.rs"]
mod python;
mod readers;
mod recent;
mod recovery;
mod releases;
#[path = "../../../sinks/tests/it/s3.rs"]
mod s3;
mod scan;
mod shares;
mod support;
mod tables;
mod tap;
mod templates;
mod tools;
mod worker;
mod workspace;
