//! Temporary.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
mod config;
mod definitions;
mod memory;
