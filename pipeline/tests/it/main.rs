//! Integration tests.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod log;
mod workspace;
mod support;
mod tables;
mod crash;
mod backlog;
mod input;
mod isolation;
mod readers;
mod config;
mod definitions;
mod fleet;
