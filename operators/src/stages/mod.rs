//! One file a stage. Between `open` and `settle` a stage is a function over a [`crate::event::Bundle`]; a new one is a
//! file here and a line in the graph.

pub mod decode;
pub mod open;
pub mod settle;
pub mod transform;
pub mod validate;
