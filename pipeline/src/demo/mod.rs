//! The demonstration: an organization tree, device templates, and a simulated fleet that finds every way in which an
//! event can go wrong.
//!
//! ```text
//! content (embedded folder of definitions + fresh keys) ─▶ folder ─▶ published like any other
//! fleet (a process of its own) ─ HTTP ─▶ the edge
//! ```

pub mod content;
pub mod fleet;
