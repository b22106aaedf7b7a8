//! Definitions from a folder, until the management API is their source. Whatever the way in, a definition becomes a
//! change in the log `control`, and everybody builds the catalog from `control` alone.
//!
//! ```text
//! folder ─ read, check (templates' tests run through the real stages) ─▶ definitions
//!     ─ control socket ─▶ diff against the catalog (tried on a clone) ─▶ changes ─▶ control ─▶ CatalogFollower
//! ```

pub mod catalogs;
pub mod check;
pub mod diff;
pub mod folder;
pub mod key;
pub mod known;
mod metrics;
mod moves;
pub mod publish;
pub mod scaffold;
pub mod single;
pub mod socket;
pub mod store;
pub mod trial;

pub use catalogs::CatalogFollower;
pub use diff::{Extent, diff};
pub use folder::Folder;
pub use known::Known;
pub use publish::{Published, Publisher};
pub use store::ControlStore;
