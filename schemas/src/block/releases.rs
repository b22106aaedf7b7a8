//! Released events and what became of them, to columns: the audit of releases, in the commit that settles each of them.

use super::build::{Attribution, Names, Parts, Provenance};
use super::{Block, BlockError};
use crate::envelope::{Release, Released};
use crate::row::Origin;
use crate::system::SystemTable;
use crate::verdict::Verdict;
use arrow::array::*;
use std::sync::Arc;

/// Rows of a part: with ids and codes of the largest size it stays below a record's bound.
const PART_ROWS: usize = 500;

/// A released event on its way into `releases`.
pub struct ReleaseRow<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// Where it came in.
    pub source: &'a str,
    /// The event as it came again.
    pub origin: &'a Origin,
    /// Template and version that it met, empty where none was found.
    pub template: &'a str,
    /// What became of it.
    pub verdict: Verdict,
    /// Who released it, and when.
    pub release: &'a Release,
    /// Its rejection.
    pub of: &'a Released,
}

/// The `releases` blocks of one epoch; `rows` come sorted by tenant.
pub fn releases(of: &Attribution, rows: &[ReleaseRow<'_>]) -> Result<Vec<Block>, BlockError> {
    let table = SystemTable::Releases;
    let mut parts = Parts::new(table.as_str(), table.schema());
    for chunk in rows.chunks(PART_ROWS) {
        let (mut names, mut provenance) = (<[Names; 6]>::default(), Provenance::default());
        for row in chunk {
            let values = [row.tenant, row.source, row.template, row.verdict.as_str(), &row.of.code, &row.release.by];
            for (builder, value) in names.iter_mut().zip(values) {
                builder.append_value(value);
            }
            provenance.push(row.origin.at, row.origin.index, 0);
        }
        let [tenant, source, template, verdict, code, by] = &mut names;
        let texts =
            |get: for<'r> fn(&'r ReleaseRow<'_>) -> &'r str| -> ArrayRef { Arc::new(StringArray::from_iter_values(chunk.iter().map(get))) };
        let numbers =
            |get: fn(&ReleaseRow<'_>) -> u64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(chunk.iter().map(|r| get(r) as i64))) };
        let released_at = TimestampMicrosecondArray::from_iter_values(chunk.iter().map(|r| r.release.at)).with_timezone("UTC");
        let recorded_at = TimestampMicrosecondArray::from_value(of.recorded_at, chunk.len()).with_timezone("UTC");
        let mut columns: Vec<ArrayRef> = vec![
            tenant.finish()?,
            source.finish()?,
            texts(|r| &r.origin.asset),
            texts(|r| &r.origin.event_id),
            template.finish()?,
            verdict.finish()?,
            code.finish()?,
            numbers(|r| r.of.epoch),
            numbers(|r| r.release.offset),
            by.finish()?,
            Arc::new(released_at),
            Arc::new(recorded_at),
        ];
        provenance.finish(of, &mut columns)?;
        parts.end(columns)?;
    }
    Ok(parts.into_blocks(of.epoch))
}

/// The rejections of a `releases` block that were released: offset in `raw`, and index in the request.
///
/// # Errors
/// It is no such block.
pub fn released(batch: &RecordBatch) -> Result<Vec<(u64, u32)>, BlockError> {
    let missing = |name: &str| BlockError(format!("column {name} of releases is missing"));
    let offsets = batch.column_by_name("rejection_offset").and_then(|c| c.as_any().downcast_ref::<Int64Array>());
    let indexes = batch.column_by_name("_index").and_then(|c| c.as_any().downcast_ref::<Int32Array>());
    let (offsets, indexes) = (offsets.ok_or_else(|| missing("rejection_offset"))?, indexes.ok_or_else(|| missing("_index"))?);
    Ok(offsets.values().iter().zip(indexes.values()).map(|(offset, index)| (*offset as u64, *index as u32)).collect())
}
