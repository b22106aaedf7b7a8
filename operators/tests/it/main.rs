//! Integration tests.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod declared;
mod decoded;
mod drivers;
mod duplicates;
mod engine;
mod guide;
mod hostile;
mod library;
mod logs;
mod quarantine;
mod scripted;
mod scripts;
mod settle;
mod workloads;
