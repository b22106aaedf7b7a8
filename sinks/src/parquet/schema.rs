//! What a cut's schema asks of the table that it goes into.

use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use delta_kernel::engine::arrow_conversion::TryFromArrow;
use delta_kernel::schema::{DataType, StructField, StructType};
use tidegate_schemas::table::DATE;

/// Metadata of a field that readers rely on.
const UNIT: &str = "unit";

/// The columns of a cut as Delta has them: dictionaries are strings, units are metadata.
pub(super) fn columns(schema: &Schema) -> Result<StructType, ArrowError> {
    StructType::try_from_arrow(schema)
}

/// The schema of a new table: the cut's columns and the date that it is partitioned by.
pub(super) fn with_date(columns: &StructType) -> delta_kernel::KernelResult<StructType> {
    StructType::try_new(columns.fields().cloned().chain([StructField::nullable(DATE, DataType::DATE)]))
}

/// The columns that a table must get before it takes a cut, or why it cannot take it.
pub(super) fn missing(table: &StructType, cut: &StructType) -> Result<Vec<StructField>, String> {
    let mut added = Vec::new();
    for field in cut.fields() {
        match table.field(field.name()) {
            Some(old) if old.data_type() != field.data_type() => {
                return Err(format!("column {} is {} in the table and {} in the log", field.name(), old.data_type(), field.data_type()));
            }
            Some(old) if unit(old) != unit(field) => {
                return Err(format!(
                    "column {} has unit {} in the table and {} in the log",
                    field.name(),
                    unit(old).unwrap_or_else(|| "none".into()),
                    unit(field).unwrap_or_else(|| "none".into())
                ));
            }
            Some(old) if field.is_nullable() && !old.is_nullable() => {
                return Err(format!("column {} takes no null in the table", field.name()));
            }
            Some(_) => {}
            None if !field.is_nullable() => return Err(format!("column {} is new and takes no null", field.name())),
            None => match table.fields().find(|old| old.name().eq_ignore_ascii_case(field.name())) {
                Some(old) => return Err(format!("column {} differs from column {} in case only", field.name(), old.name())),
                None => added.push(field.clone()),
            },
        }
    }
    match table.fields().find(|old| !old.is_nullable() && cut.field(old.name()).is_none()) {
        Some(old) => Err(format!("column {} of the table takes no null and is not in the log", old.name())),
        None => Ok(added),
    }
}

fn unit(field: &StructField) -> Option<String> {
    field.metadata.get(UNIT).map(ToString::to_string)
}
