//! A function for each group of parsers: it takes any bytes, and panics where a parser breaks its word. libFuzzer calls
//! them (`benches/fuzz`), and an ordinary test replays the committed seeds through the same ones.
//!
//! ```text
//! document  JSON to the tape, pointers, places      against serde_json
//! forms     varint, time, receipt, ids, duplicates  round trips
//!           and snapshots
//! record    envelope, epoch header, commit, change  round trips
//! block     Arrow streams and what is read of them  round trips, outcomes
//! body      bodies to records of `raw`              against a naive splitter
//! request   heads over a real connection, answers   never a 5xx, never another's record
//! payload   hex and base64 in an event              against re-encoding
//! driver    scripts, documents and limits             against the oracle, and the next event
//! log       a folder of the embedded log            every record is one that was written
//! definitions  folders, configuration, tests,       a folder published is published
//!              changes
//! ```
//! A find becomes a seed of its own, named by what it found, beside the change that mends it.

// These are tests: what does not hold ends them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod block;
mod body;
mod definitions;
mod document;
mod driver;
mod forms;
mod input;
mod log;
mod payload;
mod record;
mod request;
pub mod seeds;

pub use block::{block, is_decoding};
pub use body::body;
pub use definitions::definitions;
pub use document::document;
pub use driver::driver;
pub use forms::forms;
pub use log::log;
pub use payload::payload;
pub use record::record;
pub use request::request;

/// One of the functions.
pub type Target = fn(&[u8]);

/// All of them by name: that of the fuzz target, and of the folder of its seeds.
pub const TARGETS: [(&str, Target); 10] = [
    ("document", document),
    ("forms", forms),
    ("record", record),
    ("block", block),
    ("body", body),
    ("request", request),
    ("payload", payload),
    ("driver", driver),
    ("log", log),
    ("definitions", definitions),
];
