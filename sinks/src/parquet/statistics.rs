//! What a commit says of a file's columns, from the file's footer: finding it out once more would be a tenth of a delivery.

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use delta_kernel::KernelResult;
use delta_kernel::expressions::ColumnName;
use delta_kernel::schema::StructType;
use delta_kernel_default_engine::stats::FileStatsAccumulator;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use std::sync::Arc;

/// Members of what the kernel makes; the others are right as it makes them.
const ROWS: &str = "numRecords";
const NULLS: &str = "nullCount";

/// The statistics of a file with these rows. The kernel is shown two rows, the least and the greatest values, and cuts long texts
/// short as Delta wants them; what it counts is told by the rows themselves.
pub(super) fn of(
    footer: &ParquetMetaData,
    batches: &[RecordBatch],
    columns: &[ColumnName],
    table: &StructType,
) -> KernelResult<Option<StructArray>> {
    let ([group], Some(first)) = (footer.row_groups(), batches.first()) else { return Ok(None) };
    let mut kernel = FileStatsAccumulator::new(columns, table);
    kernel.merge(&bounds(group, &first.schema())?)?;
    let Some(made) = kernel.finish()? else { return Ok(None) };
    let (fields, mut arrays, nulls) = made.into_parts();
    for (field, array) in fields.iter().zip(&mut arrays) {
        match field.name().as_str() {
            ROWS => *array = count(batches.iter().map(RecordBatch::num_rows).sum()),
            NULLS => *array = null_counts(array.as_struct(), batches)?,
            _ => {}
        }
    }
    Ok(Some(StructArray::try_new(fields, arrays, nulls)?))
}

fn count(rows: usize) -> ArrayRef {
    Arc::new(Int64Array::from(vec![rows as i64]))
}

fn null_counts(columns: &StructArray, batches: &[RecordBatch]) -> Result<ArrayRef, ArrowError> {
    let nulls = |batch: &RecordBatch, name| batch.column_by_name(name).map_or(0, |column| column.null_count());
    let counts = columns.fields().iter().map(|field| count(batches.iter().map(|batch| nulls(batch, field.name())).sum()));
    Ok(Arc::new(StructArray::try_new(columns.fields().clone(), counts.collect(), None)?))
}

/// Two rows: the least value of each column and the greatest, null where none is known.
fn bounds(group: &RowGroupMetaData, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let fields: Vec<Field> = schema.fields().iter().map(|f| Field::new(f.name(), f.data_type().clone(), true)).collect();
    let of = |field: &Field| {
        let column = group.columns().iter().find(|c| c.column_path().parts() == [field.name().as_str()]);
        column.and_then(|c| pair(field.data_type(), c.statistics()?)).unwrap_or_else(|| new_null_array(field.data_type(), 2))
    };
    let arrays = fields.iter().map(of).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}

fn pair(kind: &DataType, statistics: &Statistics) -> Option<ArrayRef> {
    Some(match (kind, statistics) {
        (DataType::Int32, Statistics::Int32(v)) => Arc::new(Int32Array::from(vec![v.min_opt().copied(), v.max_opt().copied()])),
        (DataType::Int64, Statistics::Int64(v)) => Arc::new(Int64Array::from(vec![v.min_opt().copied(), v.max_opt().copied()])),
        (DataType::Timestamp(TimeUnit::Microsecond, _), Statistics::Int64(v)) => {
            let pair = TimestampMicrosecondArray::from(vec![v.min_opt().copied(), v.max_opt().copied()]);
            Arc::new(pair.with_data_type(kind.clone()))
        }
        // Readers of Delta take what is no number for greater than all numbers; of a Parquet file it is left out.
        (DataType::Float64, Statistics::Double(v)) => {
            let above = v.max_opt().copied().filter(|_| v.nan_count_opt() == Some(0));
            Arc::new(Float64Array::from(vec![v.min_opt().copied(), above]))
        }
        (DataType::Utf8, Statistics::ByteArray(v)) => {
            let text = |bytes: Option<&parquet::data_type::ByteArray>| bytes.and_then(|b| b.as_utf8().ok().map(str::to_owned));
            Arc::new(StringArray::from(vec![text(v.min_opt()), text(v.max_opt())]))
        }
        _ => return None,
    })
}
