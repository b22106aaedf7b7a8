//! Somebody else who compacts a table, as other tools do: two files become one, in a version of its own.

use crate::home::Home;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub struct Maintainer<'a> {
    home: &'a Home,
    table: &'a str,
    /// The version after those that were read.
    next: usize,
    live: BTreeMap<String, Value>,
}

impl<'a> Maintainer<'a> {
    pub fn new(home: &'a Home, table: &'a str) -> Self {
        Self { home, table, next: 0, live: BTreeMap::new() }
    }

    /// Puts one file in the place of the two smallest of a day; whether there were two, and nobody else was faster.
    pub async fn compact(&mut self) -> bool {
        self.read().await;
        let mut days: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
        self.live.values().for_each(|add| days.entry(add["partitionValues"]["date"].to_string()).or_default().push(add));
        let Some(mut files) = days.into_values().find(|files| files.len() > 1) else { return false };
        files.sort_by_key(|add| add["size"].as_u64());
        let mut writer = None;
        let mut actions = vec![json!({ "commitInfo": { "timestamp": 0, "operation": "OPTIMIZE", "operationParameters": {} } })];
        let mut rows = 0;
        for add in &files[..2] {
            let bytes = self.home.read(&format!("{}/{}", self.table, text(&add["path"]))).await;
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap();
            let schema = reader.schema().clone();
            let writer = writer.get_or_insert_with(|| ArrowWriter::try_new(Vec::new(), schema, None).unwrap());
            for batch in reader.build().unwrap() {
                let batch = batch.unwrap();
                rows += batch.num_rows();
                writer.write(&batch).unwrap();
            }
            let (path, values, size) = (&add["path"], &add["partitionValues"], &add["size"]);
            actions.push(json!({ "remove": {
                "path": path, "deletionTimestamp": 0, "dataChange": false, "extendedFileMetadata": true, "partitionValues": values, "size": size,
            } }));
        }
        let merged = writer.unwrap().into_inner().unwrap();
        let (folder, _) = text(&files[0]["path"]).rsplit_once('/').unwrap();
        let path = format!("{folder}/compacted-{}.parquet", self.next);
        actions.push(json!({ "add": {
            "path": path, "partitionValues": files[0]["partitionValues"], "size": merged.len(), "modificationTime": 0, "dataChange": false,
            "stats": json!({ "numRecords": rows }).to_string(),
        } }));
        self.home.write(&format!("{}/{path}", self.table), merged).await;
        let version: String = actions.iter().map(|action| format!("{action}\n")).collect();
        self.home.create(&self.version(), version.into_bytes()).await
    }

    /// The versions that came meanwhile.
    async fn read(&mut self) {
        let names = self.home.list(&format!("{}/_delta_log", self.table), ".json").await;
        while self.next < names.len() {
            for line in self.home.text(&self.version()).await.lines() {
                let action: Value = serde_json::from_str(line).unwrap();
                if let Some(add) = action.get("add") {
                    self.live.insert(text(&add["path"]).to_owned(), add.clone());
                }
                if let Some(remove) = action.get("remove") {
                    self.live.remove(text(&remove["path"])).unwrap();
                }
            }
            self.next += 1;
        }
    }

    fn version(&self) -> String {
        format!("{}/_delta_log/{:020}.json", self.table, self.next)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}
