//! What scripts did, to columns: one row for each tenant, template version and stage of an epoch.

use super::build::{Attribution, Names, Parts, Provenance, push_map, text_map};
use super::{Block, BlockError};
use crate::ids::Position;
use crate::system::SystemTable;
use arrow::array::*;
use std::sync::Arc;

/// What the scripts of one stage did for one tenant in one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptRun {
    /// Whose.
    pub tenant: String,
    /// Template and version.
    pub template: String,
    /// The stage.
    pub stage: String,
    /// Events that the stage saw.
    pub runs: u64,
    /// Failures by code, sorted.
    pub codes: Vec<(String, String)>,
    /// All failures.
    pub failures: u64,
    /// Steps spent.
    pub steps: u64,
    /// Bytes of the events.
    pub bytes: u64,
    /// Time, in microseconds.
    pub duration: u64,
}

/// The `script_runs` blocks of one epoch; `runs` come sorted by tenant.
pub fn script_runs(of: &Attribution, runs: &[ScriptRun]) -> Result<Vec<Block>, BlockError> {
    let table = SystemTable::ScriptRuns;
    let mut parts = Parts::new(table.as_str(), table.schema());
    for chunk in runs.chunks(1_000) {
        let (mut names, mut codes, mut provenance) = (<[Names; 3]>::default(), text_map(), Provenance::default());
        for run in chunk {
            for (builder, value) in names.iter_mut().zip([&run.tenant, &run.template, &run.stage]) {
                builder.append_value(value);
            }
            push_map(&mut codes, &run.codes)?;
            provenance.push(Position::default(), 0, 0);
        }
        let [tenant, template, stage] = &mut names;
        let numbers =
            |get: fn(&ScriptRun) -> u64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(chunk.iter().map(|r| get(r) as i64))) };
        let recorded_at = TimestampMicrosecondArray::from_value(of.recorded_at, chunk.len()).with_timezone("UTC");
        let mut columns: Vec<ArrayRef> = vec![
            tenant.finish()?,
            template.finish()?,
            stage.finish()?,
            numbers(|r| r.runs),
            numbers(|r| r.failures),
            Arc::new(codes.finish()),
            numbers(|r| r.steps),
            numbers(|r| r.bytes),
            Arc::new(recorded_at),
            numbers(|r| r.duration),
        ];
        provenance.finish(of, &mut columns)?;
        parts.end(columns)?;
    }
    Ok(parts.into_blocks(of.epoch))
}
