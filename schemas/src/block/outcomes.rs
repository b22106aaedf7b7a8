//! Outcomes, to columns and back: the only input of the duplicate state and of per-event receipts.

use super::build::{PART_BYTES, Parts};
use super::{Block, BlockError, OUTCOMES};
use crate::ids::{Epoch, Position, TenantId};
use crate::verdict::{Outcome, Verdict};
use arrow::array::*;
use arrow::datatypes::{DataType, Field, Int8Type, Int32Type, Int64Type, Schema, SchemaRef};
use hashbrown::HashMap;
use std::sync::Arc;

/// Outcomes as a block of `audit`: the only input of the duplicate state and of receipts.
pub struct OutcomesBlock;

impl OutcomesBlock {
    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("_offset", DataType::Int64, false),
            Field::new("_ordinal", DataType::Int32, false),
            Field::new("_index", DataType::Int32, false),
            Field::new("tenant", DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into()), false),
            Field::new("verdict", DataType::Int8, false),
            Field::new("key", DataType::FixedSizeBinary(16), false),
        ]))
    }

    /// The blocks of an epoch's outcomes, in raw order.
    pub fn build(epoch: Epoch, outcomes: &[Outcome]) -> Result<Vec<Block>, BlockError> {
        let mut parts = Parts::new(OUTCOMES, Self::schema());
        for chunk in outcomes.chunks(PART_BYTES / 48) {
            let mut keys = FixedSizeBinaryBuilder::with_capacity(chunk.len(), 16);
            for outcome in chunk {
                keys.append_value(outcome.key).map_err(|e| BlockError(e.to_string()))?;
            }
            parts.end(vec![
                Arc::new(Int64Array::from_iter_values(chunk.iter().map(|o| o.at.offset as i64))),
                Arc::new(Int32Array::from_iter_values(chunk.iter().map(|o| o.at.ordinal as i32))),
                Arc::new(Int32Array::from_iter_values(chunk.iter().map(|o| o.index as i32))),
                Arc::new(tenants(chunk)?),
                Arc::new(Int8Array::from_iter_values(chunk.iter().map(|o| o.verdict as i8))),
                Arc::new(keys.finish()),
            ])?;
        }
        Ok(parts.into_blocks(epoch))
    }

    /// Reads a part back.
    pub fn read(batch: &RecordBatch) -> Result<Vec<Outcome>, BlockError> {
        if batch.schema() != Self::schema() {
            return Err(BlockError("it is no outcomes block".into()));
        }
        let offsets = batch.column(0).as_primitive::<Int64Type>().values();
        let ordinals = batch.column(1).as_primitive::<Int32Type>().values();
        let indexes = batch.column(2).as_primitive::<Int32Type>().values();
        let tenants = batch.column(3).as_dictionary::<Int32Type>();
        let names = tenants.values().as_string::<i32>().iter().map(|name| TenantId::new(name.unwrap_or_default()));
        let names = names.collect::<Result<Vec<_>, _>>().map_err(|e| BlockError(e.to_string()))?;
        let verdicts = batch.column(4).as_primitive::<Int8Type>().values();
        let keys = batch.column(5).as_fixed_size_binary();
        (0..batch.num_rows())
            .map(|i| {
                Ok(Outcome {
                    at: Position { offset: offsets[i] as u64, ordinal: ordinals[i] as u32 },
                    index: indexes[i] as u32,
                    tenant: tenants.key(i).and_then(|k| names.get(k).cloned()).ok_or_else(|| BlockError("tenant is missing".into()))?,
                    verdict: Verdict::from_u8(verdicts[i] as u8).ok_or_else(|| BlockError("verdict is unknown".into()))?,
                    key: keys.value(i).try_into().map_err(|_| BlockError("key is not 16 bytes".into()))?,
                })
            })
            .collect()
    }
}

/// The tenants as a dictionary. Outcomes come in runs of one tenant, so a name is looked up once a run.
fn tenants(outcomes: &[Outcome]) -> Result<DictionaryArray<Int32Type>, BlockError> {
    let (mut names, mut keys) = (HashMap::<&TenantId, i32>::new(), Vec::with_capacity(outcomes.len()));
    let mut values = StringBuilder::new();
    for run in outcomes.chunk_by(|a, b| a.tenant == b.tenant) {
        let next = names.len() as i32;
        let key = *names.entry(&run[0].tenant).or_insert_with(|| {
            values.append_value(run[0].tenant.as_str());
            next
        });
        keys.resize(keys.len() + run.len(), key);
    }
    DictionaryArray::try_new(Int32Array::from(keys), Arc::new(values.finish())).map_err(|e| BlockError(e.to_string()))
}
