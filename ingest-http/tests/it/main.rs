//! Integration tests: a real server on a real port, with a log in memory behind it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod answers;
mod connections;
mod credentials;
mod http2;
mod json_suite;
mod receipts;
mod records;
mod secrets;
mod support;
