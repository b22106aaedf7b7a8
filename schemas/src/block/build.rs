//! What all builders of blocks share: provenance, parts that end before they could pass the log's record size, maps.

use super::{Block, BlockError, encode};
use crate::ids::{Epoch, LogId, Partition, Position};
use crate::limits::RECORD_BYTES_MAX;
use crate::time::Micros;
use arrow::array::*;
use arrow::datatypes::{Int32Type, SchemaRef};
use bytes::Bytes;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;
use std::sync::Arc;

/// Estimated bytes of a part: the estimate leaves out padding and messages, hence the margin. No row takes as much (`ROW_BYTES_MAX`).
pub(super) const PART_BYTES: usize = RECORD_BYTES_MAX / 4 * 3;

/// A column of names that repeat, as a dictionary in the order in which they came. Rows come in runs of one tenant, source and
/// template, so most names are the one before, which is not looked up.
#[derive(Default)]
pub(super) struct Names {
    keys: Vec<i32>,
    names: StringBuilder,
    known: HashTable<i32>,
    hasher: DefaultHashBuilder,
}

impl Names {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self { keys: Vec::with_capacity(rows), ..Self::default() }
    }

    pub(super) fn append_value(&mut self, name: &str) {
        let Self { keys, names, known, hasher } = self;
        if let Some(key) = keys.last().copied()
            && name_of(names, key) == name.as_bytes()
        {
            return keys.push(key);
        }
        let hash = hasher.hash_one(name.as_bytes());
        let key = match known.find(hash, |key| name_of(names, *key) == name.as_bytes()) {
            Some(key) => *key,
            None => {
                let key = known.len() as i32;
                known.insert_unique(hash, key, |key| hasher.hash_one(name_of(names, *key)));
                names.append_value(name);
                key
            }
        };
        keys.push(key);
    }

    /// Appends the name before once more.
    pub(super) fn repeat(&mut self) {
        self.keys.extend(self.keys.last().copied());
    }

    pub(super) fn finish(&mut self) -> Result<ArrayRef, BlockError> {
        self.known.clear();
        let keys = Int32Array::from(std::mem::take(&mut self.keys));
        let names = DictionaryArray::<Int32Type>::try_new(keys, Arc::new(self.names.finish()));
        names.map(|names| Arc::new(names) as ArrayRef).map_err(|e| BlockError(e.to_string()))
    }
}

/// What all rows of an epoch share.
#[derive(Clone, Debug)]
pub struct Attribution {
    /// The log.
    pub log: LogId,
    /// The partition.
    pub partition: Partition,
    /// The epoch.
    pub epoch: Epoch,
    /// Its recorded time.
    pub recorded_at: Micros,
}

fn name_of(names: &StringBuilder, key: i32) -> &[u8] {
    let offsets = names.offsets_slice();
    &names.values_slice()[offsets[key as usize] as usize..offsets[key as usize + 1] as usize]
}

/// `_log _partition _offset _index _row _epoch`.
#[derive(Default)]
pub(super) struct Provenance {
    offset: Vec<i64>,
    index: Vec<i32>,
    row: Vec<i32>,
}

impl Provenance {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self { offset: Vec::with_capacity(rows), index: Vec::with_capacity(rows), row: Vec::with_capacity(rows) }
    }

    pub(super) fn push(&mut self, at: Position, index: u32, row: u32) {
        self.offset.push(at.offset as i64);
        self.index.push(index as i32);
        self.row.push(row as i32);
    }

    pub(super) fn finish(&mut self, of: &Attribution, out: &mut Vec<ArrayRef>) -> Result<(), BlockError> {
        let Self { offset, index, row } = std::mem::take(self);
        let rows = offset.len();
        let log = StringArray::from_iter_values([of.log.to_string()]);
        let log = DictionaryArray::<Int32Type>::try_new(Int32Array::from_value(0, rows), Arc::new(log));
        out.push(Arc::new(log.map_err(|e| BlockError(e.to_string()))?));
        out.push(Arc::new(Int32Array::from_value(of.partition as i32, rows)));
        out.push(Arc::new(Int64Array::from(offset)));
        out.push(Arc::new(Int32Array::from(index)));
        out.push(Arc::new(Int32Array::from(row)));
        out.push(Arc::new(Int64Array::from_value(of.epoch as i64, rows)));
        Ok(())
    }
}

/// Collects finished batches of one table and numbers them at the end.
pub(super) struct Parts {
    table: String,
    schema: SchemaRef,
    pub(super) bytes: usize,
    pub(super) rows: usize,
    done: Vec<(u32, Bytes)>,
}

impl Parts {
    pub(super) fn new(table: &str, schema: SchemaRef) -> Self {
        Self { table: table.to_owned(), schema, bytes: 0, rows: 0, done: Vec::new() }
    }

    /// Ends a part with its columns; without any rows there is none.
    pub(super) fn end(&mut self, columns: Vec<ArrayRef>) -> Result<(), BlockError> {
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|e| BlockError(e.to_string()))?;
        if batch.num_rows() > 0 {
            self.done.push((batch.num_rows() as u32, encode(&batch)?));
        }
        (self.bytes, self.rows) = (0, 0);
        Ok(())
    }

    pub(super) fn into_blocks(self, epoch: Epoch) -> Vec<Block> {
        let parts = self.done.len() as u32;
        let block = |(i, (rows, stream)): (usize, (u32, Bytes))| Block {
            table: self.table.clone(),
            epoch,
            part: i as u32 + 1,
            parts,
            rows,
            stream,
        };
        self.done.into_iter().enumerate().map(block).collect()
    }
}

pub(super) fn text_map() -> MapBuilder<StringBuilder, StringBuilder> {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
}

pub(super) fn push_map<T: AsRef<str>>(map: &mut MapBuilder<StringBuilder, StringBuilder>, pairs: &[(T, T)]) -> Result<(), BlockError> {
    for (key, value) in pairs {
        map.keys().append_value(key);
        map.values().append_value(value);
    }
    map.append(true).map_err(|e| BlockError(e.to_string()))
}
