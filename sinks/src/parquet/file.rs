//! One file of a table: encoded the same from the same rows, and put only where no file of the name exists.

use crate::objects::{self, Objects};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use object_store::{ObjectStoreExt, PutMode};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tidegate_schemas::causes;
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

/// Columns whose least and greatest value help nobody to leave a file out: one value in all of a table, or none like another.
pub(super) const UNCOMPARED: [&str; 3] = ["tenant", "event_id", "_log"];
/// A column whose values are all different.
const UNIQUE: &str = "event_id";
/// Bytes of a dictionary of values, at most; and of each row, or it saves nothing. Where there come more, the rest is written plain.
const DICTIONARY_BYTES_MAX: usize = 64 << 10;
const DICTIONARY_ROW_BYTES: usize = 2;

/// Rows in the order of the log, one row group, zstd 1, which is most of the work: so it shall get few bytes.
pub(super) fn encode(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, ParquetError> {
    let options = ArrowWriterOptions::new().with_properties(properties(schema, batches.iter().map(RecordBatch::num_rows).sum())?);
    // The Arrow schema would say "dictionary" to Arrow readers while the table says "string".
    let options = options.with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), SchemaRef::clone(schema), options)?;
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.into_inner()
}

/// How each column is written. Whole numbers and times are near those before them: their differences take a tenth of the bytes.
/// Sensors repeat themselves: of their readings and texts each is written once, as long as those are few.
fn properties(schema: &SchemaRef, rows: usize) -> Result<WriterProperties, ParquetError> {
    let tiny = rows < TINY_ROWS;
    let compression = if tiny { Compression::UNCOMPRESSED } else { Compression::ZSTD(ZstdLevel::try_new(1)?) };
    let mut properties = WriterProperties::builder()
        .set_created_by("tidegate".into())
        .set_compression(compression)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        // A cut closes with the epoch that passes its bound.
        .set_max_row_group_row_count(Some(2 * CUT_ROWS_MAX))
        .set_offset_index_disabled(true)
        .set_dictionary_enabled(false);
    for field in schema.fields() {
        let column = ColumnPath::from(field.name().as_str());
        properties = match field.data_type() {
            DataType::Dictionary(_, _) => properties.set_column_dictionary_enabled(column, true),
            DataType::Float64 | DataType::Utf8 if !tiny && field.name() != UNIQUE => properties
                .set_column_dictionary_enabled(column.clone(), true)
                .set_column_dictionary_page_size_limit(column, DICTIONARY_BYTES_MAX.min(rows * DICTIONARY_ROW_BYTES)),
            DataType::Int32 | DataType::Int64 | DataType::Timestamp(..) => {
                properties.set_column_encoding(column, Encoding::DELTA_BINARY_PACKED)
            }
            _ => properties,
        };
    }
    for column in UNCOMPARED {
        properties = properties.set_column_statistics_enabled(ColumnPath::from(column), EnabledStatistics::None);
    }
    Ok(properties.build())
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
