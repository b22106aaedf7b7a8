//! Tests of the crate against its boundary.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod by_hand;
mod seeds;
