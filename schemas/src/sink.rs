//! The contract of sinks: a cut is a pure function of the log, a delivery may be repeated.

use crate::BoxFuture;
use crate::ids::{Epoch, LogId, Partition, TenantId};
use crate::limits;
use crate::time::{self, Micros};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// When a cut closes. Control data: every epoch's header carries them, and they change at common edges only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CutParameters {
    /// A cut of so many rows closes once it is `seconds_min` old.
    pub rows: u64,
    /// A cut of so many rows closes at once.
    pub rows_max: u64,
    /// A cut of so many block bytes closes at once.
    pub bytes_max: u64,
    /// Past so many block bytes over all open cuts of a partition the largest close first, ties by table and tenant.
    pub open_bytes_max: u64,
    /// Recorded time before a cut of enough rows closes.
    pub seconds_min: u64,
    /// All cuts close where recorded time passes a multiple of this.
    pub edge_seconds: u64,
    /// All cuts close once so many bytes of blocks came since they last did: between two edges the log keeps everything.
    pub edge_bytes: u64,
}

impl Default for CutParameters {
    fn default() -> Self {
        Self {
            rows: limits::CUT_ROWS as u64,
            rows_max: limits::CUT_ROWS_MAX as u64,
            bytes_max: limits::CUT_BYTES_MAX as u64,
            open_bytes_max: limits::OPEN_CUT_BYTES_MAX as u64,
            seconds_min: limits::CUT_SECONDS_MIN as u64,
            edge_seconds: limits::CUT_EDGE_SECONDS as u64,
            edge_bytes: limits::CUT_EDGE_BYTES as u64,
        }
    }
}

impl CutParameters {
    /// The recorded time from which on no cut reaches back to `at`: the next common edge, or the next day.
    pub fn next_edge(&self, at: Micros) -> Micros {
        let after = |every: Micros| at.div_euclid(every).saturating_add(1).saturating_mul(every);
        let edge = i64::try_from(self.edge_seconds.max(1)).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        after(edge).min(after(time::DAY))
    }
}

/// What one delivery takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// A cut holds the rows of all tenants of a table, as the blocks' streams.
    Table,
    /// A cut holds the rows of one tenant of a table, as batches with dictionaries of their own.
    Tenant,
}

/// Where the rows of a cut go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Id of the table.
    pub table: String,
    /// The tenant, for [`Grain::Tenant`].
    pub tenant: Option<TenantId>,
}

/// The rows of a cut.
#[derive(Clone, Debug)]
pub enum Rows {
    /// Whole blocks, for [`Grain::Table`].
    Streams(Vec<Bytes>),
    /// One tenant's rows, for [`Grain::Tenant`].
    Batches(Vec<RecordBatch>),
}

/// Consecutive epochs of one table of one partition, delivered as a whole.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The log.
    pub log: LogId,
    /// The partition.
    pub partition: Partition,
    /// Where to.
    pub target: Target,
    /// First epoch with rows.
    pub first: Epoch,
    /// Last epoch with rows.
    pub last: Epoch,
    /// Days since 1970 of the recorded time of all its epochs.
    pub day: i32,
    /// Recorded time of its last epoch.
    pub recorded_at: Micros,
    /// Schema of all its blocks.
    pub schema: SchemaRef,
    /// How many rows.
    pub rows_count: u64,
    /// Bytes of the blocks that they came in.
    pub bytes: u64,
    /// The rows.
    pub rows: Rows,
}

impl Cut {
    /// The same after any crash: `{log}-{partition}-{table}-{first}-{last}`; a tenant's cut lies in the tenant's folder.
    pub fn name(&self) -> String {
        format!("{}-{}-{}-{}-{}", self.log, self.partition, self.target.table, self.first, self.last)
    }
}

/// Why a delivery failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SinkError {
    /// The driver tries again.
    #[error("{doing}: {detail}")]
    Retryable {
        /// What was under way.
        doing: String,
        /// What went wrong.
        detail: String,
    },
    /// Trying again cannot help: the table is parked.
    #[error("{doing}: {detail}")]
    Permanent {
        /// What was under way.
        doing: String,
        /// What went wrong, and what mends it.
        detail: String,
    },
}

/// Delivers cuts. The driver is the only one that retries.
pub trait Sink: Send + Sync + 'static {
    /// As in cursors, metrics and receipts: `parquet`.
    fn name(&self) -> &'static str;

    /// What one delivery takes.
    fn grain(&self) -> Grain;

    /// The last epoch of this partition that the target holds; what ends at or before it is never delivered again.
    fn held(&self, log: LogId, partition: Partition, target: &Target) -> BoxFuture<'_, Result<Option<Epoch>, SinkError>>;

    /// Asked of the last cut that the target holds, when a driver begins: whether to deliver it once more, since what hangs on
    /// the table may lack it. Only where the sink knows the cut again for sure.
    fn repeats(&self, _cut: &Cut) -> BoxFuture<'_, Result<bool, SinkError>> {
        Box::pin(async { Ok(false) })
    }

    /// Delivers durably. Repeating the same cut must leave the same rows.
    fn deliver(&self, cut: Cut) -> BoxFuture<'_, Result<(), SinkError>>;

    /// Where people find the rows: a path or a table's name.
    fn location(&self, target: &Target) -> String;
}
