//! One event through decode, validate and transform.

use crate::config::place::Fault;
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_schemas::definition::Template;
use tidegate_schemas::row::Row;
use tidegate_schemas::table::Table;
use tidegate_schemas::time::Micros;
use tidegate_schemas::verdict::Rejection;

/// What goes in.
pub(super) struct Input {
    pub(super) bytes: Bytes,
    /// Whether the bytes are no JSON.
    pub(super) raw: bool,
    pub(super) asset: String,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) received_at: Micros,
}

/// What came out.
pub(super) struct Outcome {
    /// What decode returned, where a native stage came after it.
    pub(super) decoded: Option<Value>,
    pub(super) ended: Ended,
}

/// How an event ended.
pub(super) enum Ended {
    Rows(Vec<Row>),
    Filtered,
    Rejected(Rejection),
}

/// Whether a template's scripts can be published.
pub fn check_scripts(_template: &Template, _faults: &mut Vec<Fault>) {}

pub(super) fn run(_template: &Template, _table: &Table, _input: &Input) -> Outcome {
    Outcome { decoded: None, ended: Ended::Filtered }
}
