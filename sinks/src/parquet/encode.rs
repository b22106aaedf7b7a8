//! A file from rows: one row group, its columns by their different values where those are few, else by the library's writer.

use super::checksum;
use super::chunk::{self, Chunk, Compressor};
use super::distinct;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use std::sync::Arc;

/// Below so many rows a file stays uncompressed: a zstd context for each of thirty columns takes longer than the rows.
const TINY_ROWS: usize = 256;
const ZSTD_LEVEL: i32 = 1;

/// Columns whose least and greatest value help nobody to leave a file out: one value in all of a table, or none like another.
pub(super) const UNCOMPARED: [&str; 3] = ["tenant", "event_id", "_log"];
/// A column whose values are all different.
const UNIQUE: &str = "event_id";

/// The bytes of a file, and its footer.
pub(super) struct Encoded {
    pub bytes: Vec<u8>,
    pub footer: ParquetMetaData,
}

/// Rows in the order of the log, one row group, zstd 1, which is much of the work: so it shall get few bytes.
pub(super) fn encode(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Encoded> {
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let properties = Arc::new(properties(schema, rows)?);
    // Without the Arrow schema, which would say "dictionary" to Arrow readers while the table says "string".
    let parquet = ArrowSchemaConverter::new().convert(schema)?;
    let mut file = SerializedFileWriter::new(Vec::new(), parquet.root_schema_ptr(), Arc::clone(&properties))?;
    let chunks = chunks(schema, batches, rows, &file)?;
    let rest = schema.fields().iter().zip(&chunks).filter(|(_, chunk)| chunk.is_none()).map(|(field, _)| Arc::clone(field));
    let mut rest = library(&Arc::new(Schema::new(rest.collect::<Vec<_>>())), properties)?;
    let mut group = file.next_row_group()?;
    for (i, (field, chunk)) in schema.fields().iter().zip(chunks).enumerate() {
        if let Some(Chunk { bytes, close }) = chunk {
            group.append_column(&bytes, close)?;
            continue;
        }
        // A map is two columns of a file.
        let mut columns = Vec::new();
        for batch in batches {
            for (n, leaf) in compute_leaves(field, batch.column(i))?.iter().enumerate() {
                if n == columns.len() {
                    columns.push(rest.next().ok_or_else(|| ParquetError::General(format!("nothing writes column {}", field.name())))?);
                }
                columns[n].write(leaf)?;
            }
        }
        columns.into_iter().try_for_each(|column| column.close()?.append_to_row_group(&mut group))?;
    }
    group.close()?;
    file.flush()?;
    let checksum = checksum::of(file.inner());
    file.append_key_value_metadata(checksum);
    let footer = file.finish()?;
    Ok(Encoded { bytes: std::mem::take(file.inner_mut()), footer })
}

/// The columns that have few different values; none for each of the others.
fn chunks(schema: &SchemaRef, batches: &[RecordBatch], rows: usize, file: &SerializedFileWriter<Vec<u8>>) -> Result<Vec<Option<Chunk>>> {
    let tiny = rows < TINY_ROWS;
    let mut compressor = if tiny { None } else { Some(Compressor::new(ZSTD_LEVEL)?) };
    let chunk = |(i, field): (usize, &Arc<Field>)| {
        let name = field.name().as_str();
        // In a file of a few rows it saves nothing.
        if rows == 0 || name == UNIQUE || tiny && !matches!(field.data_type(), DataType::Dictionary(..)) {
            return Ok(None);
        }
        let arrays: Vec<&ArrayRef> = batches.iter().map(|batch| batch.column(i)).collect();
        let Some(distinct) = distinct::distinct(field.data_type(), &arrays) else { return Ok(None) };
        let Some(column) = file.schema_descr().columns().iter().find(|c| c.path().parts() == [name]) else { return Ok(None) };
        let level = ZstdLevel::try_new(ZSTD_LEVEL)?;
        chunk::write(column, &distinct, rows, level, compressor.as_mut(), !UNCOMPARED.contains(&name)).map(Some)
    };
    schema.fields().iter().enumerate().map(chunk).collect()
}

/// The library's writers of columns.
fn library(schema: &SchemaRef, properties: Arc<WriterProperties>) -> Result<impl Iterator<Item = ArrowColumnWriter> + use<>> {
    let parquet = ArrowSchemaConverter::new().convert(schema)?;
    let nowhere = SerializedFileWriter::new(std::io::sink(), parquet.root_schema_ptr(), properties)?;
    Ok(ArrowRowGroupWriterFactory::new(&nowhere, Arc::clone(schema)).create_column_writers(0)?.into_iter())
}

/// How the library writes what has many values: whole numbers and times are near those before them, and their differences take a
/// tenth of the bytes.
fn properties(schema: &SchemaRef, rows: usize) -> Result<WriterProperties> {
    let compression = if rows < TINY_ROWS { Compression::UNCOMPRESSED } else { Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?) };
    let mut properties = WriterProperties::builder()
        .set_created_by("tidegate".into())
        .set_compression(compression)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_dictionary_enabled(false);
    for field in schema.fields() {
        let column = ColumnPath::from(field.name().as_str());
        properties = match field.data_type() {
            DataType::Dictionary(_, _) => properties.set_column_dictionary_enabled(column, true),
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
