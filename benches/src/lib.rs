//! Workloads and measuring for the benches and the end-to-end harness, and the functions that fuzzing calls. Nobody
//! imports this crate but `fuzz`, which only hands bytes to them.

pub mod by_hand;
pub mod climate;
pub mod committed;
mod envelope;
pub mod fuzz;
pub mod machine;
pub mod stages;
pub mod workload;
