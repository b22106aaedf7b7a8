//! The contract suite of logs, run on each implementation.
