//! Implementations of the five logs; the contract is `tidegate_schemas::log::EventLog`.

pub mod embedded;
