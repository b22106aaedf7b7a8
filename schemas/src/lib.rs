//! Types, wire forms, contracts and limits of Tidegate.
//!
//! This crate performs no I/O, reads no clock and draws no randomness: everything here is a value, a pure function of
//! values, or a trait that others implement. Whatever is serialisable here is a frozen wire form.
//!
//! ```text
//! envelope ─▶ document ─▶ rows ─▶ block ─▶ commit       what an event becomes on its way
//! definition ─▶ catalog                                  what decides about it
//! log, sink, store                                       the contracts that the outer crates fulfil
//! ```

pub mod block;
pub mod catalog;
pub mod causes;
pub mod commit;
pub mod definition;
pub mod document;
pub mod envelope;
pub mod fault;
pub mod ids;
pub mod limits;
pub mod locate;
pub mod log;
pub mod receipt;
pub mod row;
pub mod rows;
pub mod secret;
pub mod sink;
pub mod store;
pub mod system;
pub mod table;
pub mod time;
pub mod varint;
pub mod verdict;

use std::future::Future;
use std::pin::Pin;

/// A boxed future, so that contracts stay usable as trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
