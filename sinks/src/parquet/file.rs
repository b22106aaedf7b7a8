//! One file of a table: encoded the same from the same rows, and put only where no file of the name exists.

use crate::objects::{self, Objects};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use object_store::{ObjectStoreExt, PutMode};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tidegate_schemas::limits::CUT_ROWS_MAX;
use tidegate_schemas::sink::{Cut, SinkError};
use tidegate_schemas::table::DATE;
use tidegate_schemas::time;
use url::Url;

/// Where a cut's file lies in the folder of its table.
pub(super) fn place(cut: &Cut) -> String {
    format!("{DATE}={}/{}.parquet", time::date(i64::from(cut.day) * time::DAY), cut.name())
}

/// Below so many rows a file stays uncompressed: a zstd context for each of thirty columns takes longer than the rows.
const TINY_ROWS: usize = 256;

/// Rows in the order of the log, one row group, zstd 1. Dictionaries pay only where the blocks have them.
pub(super) fn encode(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, ParquetError> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let compression = if rows < TINY_ROWS { Compression::UNCOMPRESSED } else { Compression::ZSTD(ZstdLevel::try_new(1)?) };
    let mut properties = WriterProperties::builder()
        .set_created_by("tidegate".into())
        .set_compression(compression)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        // A cut closes with the epoch that passes its bound.
        .set_max_row_group_row_count(Some(2 * CUT_ROWS_MAX))
        .set_offset_index_disabled(true)
        .set_dictionary_enabled(false);
    for field in schema.fields() {
        if matches!(field.data_type(), DataType::Dictionary(_, _)) {
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), true);
        }
    }
    // The Arrow schema would say "dictionary" to Arrow readers while the table says "string".
    let options = ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), SchemaRef::clone(schema), options)?;
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.into_inner()
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
                runtime.block_on(async { store.get(&location).await?.bytes().await }).map_err(|e| retryable(&objects::chain(&e)))?;
            if stored != encoded {
                same_table(&stored, &encoded).map_err(|detail| SinkError::Permanent {
                    doing: format!("comparing {name}, which exists, with the log"),
                    detail: format!("{detail}; move the file away if no version of the table refers to it"),
                })?;
            }
            Ok(stored.len() as u64)
        }
        Err(error) => Err(retryable(&objects::chain(&error))),
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
