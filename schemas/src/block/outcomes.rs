//! Outcomes, to columns and back: the only input of the duplicate state and of per-event receipts.

use super::build::{PART_BYTES, Parts};
use super::{Block, BlockError, OUTCOMES};
use crate::ids::{Epoch, Position};
use crate::verdict::{Outcome, Verdict};
use arrow::array::*;
use arrow::datatypes::{DataType, Field, Int8Type, Int32Type, Int64Type, Schema, SchemaRef};
use std::sync::Arc;

/// Outcomes as a block of `audit`: the only input of the duplicate state and of receipts.
pub struct OutcomesBlock;

impl OutcomesBlock {
    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("_offset", DataType::Int64, false),
            Field::new("_ordinal", DataType::Int32, false),
            Field::new("_index", DataType::Int32, false),
            Field::new("verdict", DataType::Int8, false),
            Field::new("key", DataType::FixedSizeBinary(16), false),
        ]))
    }

    /// The blocks of an epoch's outcomes, in raw order.
    pub fn build(epoch: Epoch, outcomes: &[Outcome]) -> Result<Vec<Block>, BlockError> {
        let mut parts = Parts::new(OUTCOMES, Self::schema());
        for chunk in outcomes.chunks(PART_BYTES / 40) {
            let mut keys = FixedSizeBinaryBuilder::with_capacity(chunk.len(), 16);
            for outcome in chunk {
                keys.append_value(outcome.key).map_err(|e| BlockError(e.to_string()))?;
            }
            parts.end(vec![
                Arc::new(Int64Array::from_iter_values(chunk.iter().map(|o| o.at.offset as i64))),
                Arc::new(Int32Array::from_iter_values(chunk.iter().map(|o| o.at.ordinal as i32))),
                Arc::new(Int32Array::from_iter_values(chunk.iter().map(|o| o.index as i32))),
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
        let verdicts = batch.column(3).as_primitive::<Int8Type>().values();
        let keys = batch.column(4).as_fixed_size_binary();
        (0..batch.num_rows())
            .map(|i| {
                Ok(Outcome {
                    at: Position { offset: offsets[i] as u64, ordinal: ordinals[i] as u32 },
                    index: indexes[i] as u32,
                    verdict: Verdict::from_u8(verdicts[i] as u8).ok_or_else(|| BlockError("verdict is unknown".into()))?,
                    key: keys.value(i).try_into().map_err(|_| BlockError("key is not 16 bytes".into()))?,
                })
            })
            .collect()
    }
}
