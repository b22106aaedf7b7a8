//! Reads Delta tables without anything of Tidegate's: the JSON log names the live files, Parquet holds the rows.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `_partition _offset _index _row`
pub type Place = (i32, i64, i32, i32);

/// One row, as far as tests compare it.
#[derive(Debug, Clone, PartialEq)]
pub struct TableRow {
    pub tenant: String,
    pub event_id: String,
    pub asset: String,
    pub place: Place,
    pub seq: Option<i64>,
    pub temperature: Option<f64>,
}

/// Folders that hold a Delta log.
pub fn find(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        if folder.join("_delta_log").is_dir() {
            found.push(folder);
            continue;
        }
        open.extend(std::fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().path()).filter(|p| p.is_dir()));
    }
    found.sort();
    found
}

/// Files that the newest version of a table names. The log's JSON files are all kept, so checkpoints need not be read.
pub fn live_files(table: &Path) -> Vec<PathBuf> {
    let mut log: Vec<PathBuf> = std::fs::read_dir(table.join("_delta_log"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .collect();
    log.sort();
    let mut live = BTreeMap::new();
    for file in log {
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let action: serde_json::Value = serde_json::from_str(line).unwrap();
            if let Some(path) = action["add"]["path"].as_str() {
                let again = live.insert(path.to_owned(), table.join(path.replace("%3D", "=").replace("%20", " ")));
                assert!(again.is_none(), "{path} is added twice");
            }
            if let Some(path) = action["remove"]["path"].as_str() {
                live.remove(path);
            }
        }
    }
    live.into_values().collect()
}

pub fn batches(table: &Path) -> Vec<RecordBatch> {
    let mut all = Vec::new();
    for file in live_files(table) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&file).unwrap()).unwrap().build().unwrap();
        all.extend(reader.map(Result::unwrap));
    }
    all
}

fn text(batch: &RecordBatch, name: &str, row: usize) -> String {
    let column = batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
    if let Some(plain) = column.as_string_opt::<i32>() {
        return plain.value(row).to_owned();
    }
    let names = column.as_dictionary::<Int32Type>();
    names.values().as_string::<i32>().value(names.keys().value(row) as usize).to_owned()
}

/// All rows of all tenants' tables below a folder.
pub fn rows(root: &Path) -> Vec<TableRow> {
    let mut all = Vec::new();
    let system = |table: &PathBuf| tidegate_schemas::system::SystemTable::named(table.file_name().unwrap().to_str().unwrap()).is_some();
    for table in find(root).into_iter().filter(|t| !system(t)) {
        for batch in batches(&table) {
            let i64s = |name: &str| batch.column_by_name(name).map(|c| c.as_primitive::<Int64Type>().clone());
            let i32s = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int32Type>().clone();
            let temperature = batch.column_by_name("temperature").map(|c| c.as_primitive::<Float64Type>().clone());
            let (seq, offset) = (i64s("seq"), i64s("_offset").unwrap());
            let (partition, index, row) = (i32s("_partition"), i32s("_index"), i32s("_row"));
            for i in 0..batch.num_rows() {
                all.push(TableRow {
                    tenant: text(&batch, "tenant", i),
                    event_id: text(&batch, "event_id", i),
                    asset: text(&batch, "asset", i),
                    place: (partition.value(i), offset.value(i), index.value(i), row.value(i)),
                    seq: seq.as_ref().filter(|c| c.is_valid(i)).map(|c| c.value(i)),
                    temperature: temperature.as_ref().filter(|c| c.is_valid(i)).map(|c| c.value(i)),
                });
            }
        }
    }
    all
}
