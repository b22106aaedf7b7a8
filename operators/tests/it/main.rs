//! Integration tests.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod devices;
mod duplicates;
mod hostile;
mod scripted;
mod scripts;
mod settle;
mod workloads;
