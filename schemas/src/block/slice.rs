//! Slicing by tenant. A plain Arrow slice carries its whole dictionaries, other tenants' names among them: whoever
//! hands a tenant's rows on goes through [`compact`].

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int32Type};
use std::sync::Arc;

/// The rows of each tenant, in order, with dictionaries of their own. The first column is the tenant and the rows are
/// sorted by it; where they are not, a tenant appears more than once. Nothing where the first column is no tenant, or a row
/// has none.
pub fn by_tenant(batch: &RecordBatch) -> Vec<(String, RecordBatch)> {
    let Some(tenants) = batch.columns().first().and_then(|c| c.as_dictionary_opt::<Int32Type>()) else { return Vec::new() };
    let Some(names) = tenants.values().as_string_opt::<i32>() else { return Vec::new() };
    if tenants.logical_null_count() > 0 {
        return Vec::new();
    }
    let keys = tenants.keys().values();
    let mut out = Vec::new();
    let mut start = 0;
    for end in 1..=keys.len() {
        if end == keys.len() || keys[end] != keys[start] {
            out.push((names.value(keys[start] as usize).to_owned(), compact(&batch.slice(start, end - start))));
            start = end;
        }
    }
    out
}

/// The same rows, with dictionaries that hold exactly the values in use, in order of first use.
pub fn compact(batch: &RecordBatch) -> RecordBatch {
    let columns: Vec<ArrayRef> = batch.columns().iter().map(compact_column).collect();
    // Lengths and types are those of the batch.
    RecordBatch::try_new(batch.schema(), columns).unwrap_or_else(|_| batch.clone())
}

fn compact_column(column: &ArrayRef) -> ArrayRef {
    if !matches!(column.data_type(), DataType::Dictionary(k, v) if **k == DataType::Int32 && **v == DataType::Utf8) {
        return Arc::clone(column);
    }
    let old = column.as_dictionary::<Int32Type>();
    let names = old.values().as_string::<i32>();
    if is_compact(old.keys(), names.len()) {
        return Arc::clone(column);
    }
    let mut renamed = vec![-1i32; names.len()];
    let mut values: Vec<&str> = Vec::new();
    let keys: Int32Array = old
        .keys()
        .iter()
        .map(|key| {
            key.map(|key| {
                let slot = &mut renamed[key as usize];
                if *slot < 0 {
                    *slot = values.len() as i32;
                    values.push(names.value(key as usize));
                }
                *slot
            })
        })
        .collect();
    let values: ArrayRef = Arc::new(StringArray::from_iter_values(values));
    match DictionaryArray::<Int32Type>::try_new(keys, values) {
        Ok(array) => Arc::new(array),
        Err(_) => Arc::clone(column),
    }
}

/// Whether `names` names are just those in use, in order of first use: so they are built, and stay where a block is of one tenant.
fn is_compact(keys: &Int32Array, names: usize) -> bool {
    let mut next = 0;
    let in_order = keys.values().iter().all(|key| {
        next += i32::from(*key == next);
        *key < next
    });
    keys.null_count() == 0 && in_order && next as usize == names
}
