//! Integration tests of the vocabulary: what is written is what is read, and nothing else is accepted.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod block;
mod catalog;
mod condition;
mod document;
mod envelope;
mod forms;
mod rows;
