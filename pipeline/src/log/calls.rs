//! What every implementation refuses in the same words: a partition that is not there, a record that is too large.

use tidegate_schemas::ids::Partition;
use tidegate_schemas::limits;
use tidegate_schemas::log::{LogError, LogName, Record};

/// Checks the partition of a call.
pub fn check_partition(log: LogName, partition: Partition, partitions: u32) -> Result<(), LogError> {
    let width = if log == LogName::Control { 1 } else { partitions };
    if partition < width {
        return Ok(());
    }
    let detail = format!("partition {partition} does not exist; there are {width}");
    Err(LogError::Io { doing: format!("use {}", log.as_str()), detail })
}

/// Checks the size of a record.
pub fn check_size(record: &Record) -> Result<(), LogError> {
    let (value, rest) = (record.value.len(), record.size() - record.value.len());
    if value > limits::RECORD_BYTES_MAX {
        return Err(LogError::TooLarge { bytes: value, max: limits::RECORD_BYTES_MAX });
    }
    if rest > limits::RECORD_HEADERS_BYTES_MAX {
        return Err(LogError::TooLarge { bytes: rest, max: limits::RECORD_HEADERS_BYTES_MAX });
    }
    Ok(())
}

/// How full a log may be for a commit of so many bytes, in per cent of its budget.
pub fn fullest(bytes: usize) -> usize {
    if bytes <= limits::EPOCH_EMPTY_BYTES_MAX { limits::TICKS_STOP_PERCENT } else { limits::SEALING_STOPS_PERCENT }
}
