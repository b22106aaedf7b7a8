//! Workloads and measuring for the benches and the end-to-end harness. Nobody imports this crate.

pub mod stages;
pub mod workload;
