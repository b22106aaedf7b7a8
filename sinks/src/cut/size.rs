//! How large rows are, as a property of the rows alone: what an allocator or a version of Arrow makes of them must not
//! decide where a cut closes.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type};

/// Bytes of the values of a batch, without validity and padding. A dictionary counts with all of its values, so the
/// batch comes compacted.
pub fn plain_bytes(batch: &RecordBatch) -> u64 {
    batch.columns().iter().map(column_bytes).sum::<usize>() as u64
}

fn column_bytes(column: &ArrayRef) -> usize {
    let span = |offsets: &[i32]| offsets.last().zip(offsets.first()).map_or(0, |(end, start)| (end - start) as usize);
    let rows = column.len();
    match column.data_type() {
        DataType::Utf8 => 4 * rows + span(column.as_string::<i32>().value_offsets()),
        DataType::Binary => 4 * rows + span(column.as_binary::<i32>().value_offsets()),
        DataType::Dictionary(_, _) => column.as_dictionary_opt::<Int32Type>().map_or(4 * rows, |d| 4 * rows + column_bytes(d.values())),
        DataType::Map(_, _) => {
            let map = column.as_map();
            let (start, entries) = (map.value_offsets().first().copied().unwrap_or(0), span(map.value_offsets()));
            let part = |c: &ArrayRef| column_bytes(&c.slice(start as usize, entries));
            4 * rows + part(map.keys()) + part(map.values())
        }
        other => other.primitive_width().unwrap_or(1) * rows,
    }
}
