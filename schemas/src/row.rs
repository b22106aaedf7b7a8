//! Values of a tenant's table, and what a row has of its event.

use crate::ids::Position;
use crate::time::Micros;
use std::borrow::Cow;
use std::sync::Arc;

/// One value of a declared field.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell<'a> {
    /// Absent.
    Null,
    /// `bool`
    Bool(bool),
    /// `i64`
    I64(i64),
    /// `f64`
    F64(f64),
    /// `text`, and `json` as its text.
    Text(Cow<'a, str>),
    /// `timestamp`
    Timestamp(Micros),
}

impl Cell<'_> {
    /// The value by itself.
    pub fn into_owned(self) -> Cell<'static> {
        match self {
            Self::Null => Cell::Null,
            Self::Bool(value) => Cell::Bool(value),
            Self::I64(value) => Cell::I64(value),
            Self::F64(value) => Cell::F64(value),
            Self::Text(text) => Cell::Text(Cow::Owned(text.into_owned())),
            Self::Timestamp(at) => Cell::Timestamp(at),
        }
    }
}

/// What all rows of one event have in common.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The event's place in `raw`.
    pub at: Position,
    /// Its index in the request.
    pub index: u32,
    /// The sender's, or derived from receipt and index.
    pub event_id: Arc<str>,
    /// The asset's id as located.
    pub asset: Arc<str>,
    /// When the edge had it.
    pub received_at: Micros,
}

/// One row by itself, as tests and tools look at it. Its table gives the order of `cells`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The device's own time, else received-at.
    pub occurred_at: Micros,
    /// What kind of event it is, else the template's id.
    pub event_type: Arc<str>,
    /// As many as the table has fields, in its order.
    pub cells: Vec<Cell<'static>>,
    /// Undeclared fields, each as JSON text or plain text.
    pub attributes: Vec<(Box<str>, Box<str>)>,
}
