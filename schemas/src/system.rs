//! System tables: rows of Tidegate's own, in `audit`. Their blocks go the way of all blocks.

use crate::table::{attributes, dictionary, provenance, timestamp};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

/// The tables of `audit`. Further ones: a line here and a schema below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SystemTable {
    /// Refused events with their original bytes.
    Rejections,
    /// Runs, failures, steps and time per tenant, template version and stage, once an epoch.
    ScriptRuns,
    /// What scripts logged.
    ScriptLogs,
    /// Refused events that somebody let go on, and what became of them: who did it, and when.
    Releases,
}

impl SystemTable {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rejections, Self::ScriptRuns, Self::ScriptLogs, Self::Releases];

    /// The name, which is also the table's id.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejections => "rejections",
            Self::ScriptRuns => "script_runs",
            Self::ScriptLogs => "script_logs",
            Self::Releases => "releases",
        }
    }

    /// The table of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == name)
    }

    /// The schema of the table's blocks; the first column is the tenant, as in every table.
    pub fn schema(self) -> SchemaRef {
        let mut fields = vec![Field::new("tenant", dictionary(), false)];
        match self {
            Self::Rejections => fields.extend([
                Field::new("organization", dictionary(), false),
                Field::new("event_id", DataType::Utf8, false),
                Field::new("source", dictionary(), false),
                Field::new("asset", DataType::Utf8, false),
                Field::new("template", dictionary(), false),
                Field::new("stage", dictionary(), false),
                Field::new("code", dictionary(), false),
                Field::new("detail", DataType::Utf8, false),
                Field::new("pointer", DataType::Utf8, false),
                Field::new("line", DataType::Int32, true),
                Field::new("received_at", timestamp(), false),
                Field::new("recorded_at", timestamp(), false),
                Field::new("content_type", dictionary(), false),
                Field::new("original", DataType::Binary, false),
            ]),
            Self::ScriptRuns => fields.extend([
                Field::new("template", dictionary(), false),
                Field::new("stage", dictionary(), false),
                Field::new("runs", DataType::Int64, false),
                Field::new("failures", DataType::Int64, false),
                Field::new("codes", attributes(), false),
                Field::new("steps", DataType::Int64, false),
                Field::new("bytes", DataType::Int64, false),
                Field::new("recorded_at", timestamp(), false),
                Field::new(DURATION, DataType::Int64, false).with_metadata([("unit".to_owned(), "us".to_owned())]),
            ]),
            Self::ScriptLogs => fields.extend([
                Field::new("source", dictionary(), false),
                Field::new("asset", dictionary(), false),
                Field::new("event_id", DataType::Utf8, false),
                Field::new("template", dictionary(), false),
                Field::new("stage", dictionary(), false),
                Field::new("text", DataType::Utf8, false),
                Field::new("bytes_cut", DataType::Int64, false),
                Field::new("recorded_at", timestamp(), false),
            ]),
            Self::Releases => fields.extend([
                Field::new("source", dictionary(), false),
                Field::new("asset", DataType::Utf8, false),
                Field::new("event_id", DataType::Utf8, false),
                Field::new("template", dictionary(), false),
                Field::new("verdict", dictionary(), false),
                Field::new("rejection_code", dictionary(), false),
                Field::new("rejection_epoch", DataType::Int64, false),
                Field::new("rejection_offset", DataType::Int64, false),
                Field::new("released_by", dictionary(), false),
                Field::new("released_at", timestamp(), false),
                Field::new("recorded_at", timestamp(), false),
            ]),
        }
        fields.extend(provenance());
        Arc::new(Schema::new(fields))
    }
}

/// The one column that differs between a run and its replay; the hash of an epoch's output leaves it out.
pub const DURATION: &str = "duration";
