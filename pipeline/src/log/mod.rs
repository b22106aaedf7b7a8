//! Implementations of the five logs; the contract is `tidegate_schemas::log::EventLog`.

mod calls;
pub mod embedded;
mod holds;
pub mod kafka;
