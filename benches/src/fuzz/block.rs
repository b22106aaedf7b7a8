//! Blocks of any bytes: a batch or an error, and a batch is written again as the same.

use bytes::Bytes;
use std::cell::Cell;
use tidegate_schemas::block::{Block, OUTCOMES, OutcomesBlock, Output, by_tenant, compact, decode, encode};

thread_local! {
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread would be caught: Arrow's decoder panics on some damaged streams, and `schemas` makes an
/// error of that.
pub fn is_decoding() -> bool {
    DECODING.get()
}

/// Reads the bytes as the Arrow stream of a block.
pub fn block(bytes: &[u8]) {
    let block = Block { table: OUTCOMES.into(), epoch: 7, part: 1, parts: 1, rows: 1, stream: Bytes::copy_from_slice(bytes) };
    let Ok(Output::Block(block)) = Output::read(&block.into_record()) else { panic!("a block is a block, whatever it holds") };
    assert_eq!((&*block.table, block.epoch, block.part, block.parts, block.rows), (OUTCOMES, 7, 1, 1, 1));
    DECODING.set(true);
    let (schema, batch) = (block.schema(), block.batch());
    DECODING.set(false);
    let Ok(batch) = batch else { return };
    assert_eq!(schema, Ok(batch.schema()));
    if let Ok(stream) = encode(&batch) {
        let again = decode(&stream).unwrap();
        assert_eq!((again.schema(), again.num_rows()), (batch.schema(), batch.num_rows()));
    }
    if let Ok(outcomes) = OutcomesBlock::read(&batch) {
        assert_eq!(outcomes.len(), batch.num_rows());
        let blocks = OutcomesBlock::build(7, &outcomes).unwrap();
        let again: Vec<_> = blocks.iter().flat_map(|b| OutcomesBlock::read(&b.batch().unwrap()).unwrap()).collect();
        assert_eq!(again, outcomes);
    }
    assert_eq!(compact(&batch).num_rows(), batch.num_rows());
    let rows: usize = by_tenant(&batch).iter().map(|(_, rows)| rows.num_rows()).sum();
    assert!(rows == batch.num_rows() || rows == 0, "{rows} of {} rows have a tenant", batch.num_rows());
}
