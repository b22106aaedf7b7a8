//! One file of a table: put only where no file of the name exists.

use crate::objects::{self, Objects};
use bytes::Bytes;
use object_store::{ObjectStoreExt, PutMode};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use tidegate_schemas::causes;
use tidegate_schemas::sink::{Cut, SinkError};
use tidegate_schemas::table::DATE;
use tidegate_schemas::time;
use url::Url;

/// Where a cut's file lies in the folder of its table.
pub(super) fn place(cut: &Cut) -> String {
    format!("{DATE}={}/{}.parquet", time::date(i64::from(cut.day) * time::DAY), cut.name())
}

/// Puts the file durably; where it exists, checks it. Returns the size of the stored file. Blocks, on a thread of the
/// runtime.
pub(super) fn put(objects: &Objects, file: &Url, encoded: Vec<u8>) -> Result<u64, SinkError> {
    let runtime = tokio::runtime::Handle::current();
    let name = objects::place(file);
    let retryable = |e: &dyn std::fmt::Display| SinkError::Retryable { doing: format!("writing {name}"), detail: e.to_string() };
    let (store, location) = (objects.store(), objects::path(file).map_err(|e| retryable(&e))?);
    let encoded = Bytes::from(encoded);
    match runtime.block_on(store.put_opts(&location, encoded.clone().into(), PutMode::Create.into())) {
        Ok(_) => Ok(encoded.len() as u64),
        // Also where this very put made it, and its answer was lost.
        Err(object_store::Error::AlreadyExists { .. }) => {
            let stored =
                runtime.block_on(async { store.get(&location).await?.bytes().await }).map_err(|e| retryable(&causes::chain(&e)))?;
            if stored != encoded {
                same_table(&stored, &encoded).map_err(|detail| SinkError::Permanent {
                    doing: format!("comparing {name}, which exists, with the log"),
                    detail: format!("{detail}; move the file away if no version of the table refers to it"),
                })?;
            }
            Ok(stored.len() as u64)
        }
        Err(error) => Err(retryable(&causes::chain(&error))),
    }
}

/// Another version of the encoder may write other bytes for the same rows; their number and schema must agree.
fn same_table(stored: &Bytes, encoded: &Bytes) -> Result<(), String> {
    let footer = |bytes: &Bytes| ParquetMetaDataReader::new().parse_and_finish(bytes);
    let stored = footer(stored).map_err(|e| format!("it has no readable footer: {e}"))?;
    let expected = footer(encoded).map_err(|e| e.to_string())?;
    let rows = |m: &ParquetMetaData| m.file_metadata().num_rows();
    if rows(&stored) != rows(&expected) {
        return Err(format!("it has {} rows where the log has {}", rows(&stored), rows(&expected)));
    }
    if stored.file_metadata().schema() != expected.file_metadata().schema() {
        return Err("its columns are not those of the log".into());
    }
    Ok(())
}
