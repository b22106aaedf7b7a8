//! Bounds that requests share: bodies in flight, connections, and how long a full log takes to drain.
//! Rate limits by tenant and source come to stand here.

mod bodies;
mod connections;
mod drain;

pub(crate) use bodies::{BodyBudget, Held};
pub(crate) use connections::{Connections, Place};
pub(crate) use drain::Drain;
