//! Which epochs go into one file or one insert: a pure function of the log and of the parameters in its headers.
//!
//! ```text
//! begin(header) ─ all cuts close here where recorded time passes an edge or a date, or enough bytes came since
//!   add(piece)… ─ a target's cut closes before an epoch of another schema
//! end()         ─ cuts close by rows, bytes and age, then the largest until the rest fits
//! ```
//! Nothing here reads a clock or depends on how much was read at once, so a restart at an edge finds the same cuts
//! under the same names. An epoch of a table is never split.

mod gather;
mod size;

pub use size::plain_bytes;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use gather::Gathered;
use std::collections::BTreeMap;
use tidegate_schemas::block::EpochHeader;
use tidegate_schemas::ids::{Epoch, LogId, Partition};
use tidegate_schemas::sink::{Cut, CutParameters, Target};
use tidegate_schemas::time::{self, Micros};

/// What an open cut takes besides its rows, for each column: builders and their first buffers. Counted, so that the
/// bound over all open cuts holds for many tenants of a few rows as well.
pub const OPEN_COLUMN_BYTES: u64 = 256;

/// Rows of one target from one block.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Where to.
    pub target: Target,
    /// How many rows.
    pub rows: u64,
    /// Their bytes: of the stream, or [`plain_bytes`] of the batch.
    pub bytes: u64,
    /// Their schema.
    pub schema: SchemaRef,
    /// The rows.
    pub data: PieceData,
}

/// The rows of a piece.
#[derive(Clone, Debug)]
pub enum PieceData {
    /// A whole block, for sinks that take all tenants of a table at once.
    Stream(Bytes),
    /// One tenant's rows, with dictionaries of their own. They are copied: a slice would keep its whole block.
    Batch(RecordBatch),
    /// The same, where they are all of a block that shares no memory with others.
    Whole(RecordBatch),
}

/// What the beginning of an epoch closes.
#[derive(Debug, Default)]
pub struct Begun {
    /// Cuts of the epochs before.
    pub closed: Vec<Cut>,
    /// Whether no cut reaches over this place: the cursor may stand at this header.
    pub edge: bool,
}

/// Why pieces make no cut. It says that the log was written wrongly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// Epochs must follow one another.
    #[error("epoch {epoch} of partition {partition} follows epoch {after}")]
    Order {
        /// The partition.
        partition: Partition,
        /// The epoch found.
        epoch: Epoch,
        /// The epoch before it.
        after: Epoch,
    },
    /// A table has one schema within an epoch.
    #[error("table {table} has two schemas in epoch {epoch} of partition {partition}")]
    Schema {
        /// Id of the table.
        table: String,
        /// The epoch.
        epoch: Epoch,
        /// The partition.
        partition: Partition,
    },
    /// A piece came outside an epoch.
    #[error("rows of table {table} of partition {partition} belong to no epoch")]
    Outside {
        /// Id of the table.
        table: String,
        /// The partition.
        partition: Partition,
    },
    /// Rows could not be joined.
    #[error("rows of table {table} cannot be joined: {detail}")]
    Rows {
        /// Id of the table.
        table: String,
        /// What Arrow said.
        detail: String,
    },
}

struct Open {
    first: Epoch,
    last: Epoch,
    began: Micros,
    recorded_at: Micros,
    schema: SchemaRef,
    rows: u64,
    bytes: u64,
    gathered: Gathered,
}

#[derive(Clone, Copy)]
struct Current {
    epoch: Epoch,
    recorded_at: Micros,
    inside: bool,
}

/// The open cuts of one partition.
pub struct Cutter {
    log: LogId,
    partition: Partition,
    parameters: CutParameters,
    current: Option<Current>,
    /// Bytes of the epochs since the last edge.
    since_edge: u64,
    open: BTreeMap<Target, Open>,
    open_bytes: u64,
    closed: Vec<Cut>,
}

impl Cutter {
    /// A cutter that has seen nothing: it starts at a sink's cursor.
    pub fn new(log: LogId, partition: Partition) -> Self {
        Self {
            log,
            partition,
            parameters: CutParameters::default(),
            current: None,
            since_edge: 0,
            open: BTreeMap::new(),
            open_bytes: 0,
            closed: Vec::new(),
        }
    }

    /// Begins an epoch. The first one only sets the parameters.
    pub fn begin(&mut self, header: &EpochHeader) -> Result<Begun, CutError> {
        let mut begun = Begun::default();
        match self.current {
            None => self.parameters = header.cut,
            Some(before) => {
                if before.inside || header.epoch <= before.epoch || header.recorded_at <= before.recorded_at {
                    return Err(CutError::Order { partition: self.partition, epoch: header.epoch, after: before.epoch });
                }
                begun.edge =
                    header.recorded_at >= self.parameters.next_edge(before.recorded_at) || self.since_edge >= self.parameters.edge_bytes;
                if begun.edge {
                    self.since_edge = 0;
                    self.close_where(|_, _| true)?;
                    self.parameters = header.cut;
                    begun.closed = std::mem::take(&mut self.closed);
                }
            }
        }
        self.since_edge += header.bytes;
        self.current = Some(Current { epoch: header.epoch, recorded_at: header.recorded_at, inside: true });
        Ok(begun)
    }

    /// Adds rows of the current epoch; tells whether they opened a cut where the target had none.
    pub fn add(&mut self, piece: Piece) -> Result<bool, CutError> {
        let Some(current) = self.current.filter(|c| c.inside) else {
            return Err(CutError::Outside { table: piece.target.table, partition: self.partition });
        };
        let mut opened = true;
        if let Some(open) = self.open.get(&piece.target) {
            opened = false;
            if open.schema != piece.schema {
                if open.last == current.epoch {
                    return Err(CutError::Schema { table: piece.target.table, epoch: current.epoch, partition: self.partition });
                }
                self.close(&piece.target.clone())?;
            }
        }
        let open = self.open.entry(piece.target.clone()).or_insert_with(|| {
            let gathered = Gathered::new(&piece.schema, &piece.data);
            let bytes = if matches!(gathered, Gathered::Columns(_)) { piece.schema.fields().len() as u64 * OPEN_COLUMN_BYTES } else { 0 };
            self.open_bytes += bytes;
            Open {
                first: current.epoch,
                last: current.epoch,
                began: current.recorded_at,
                recorded_at: current.recorded_at,
                schema: SchemaRef::clone(&piece.schema),
                rows: 0,
                bytes,
                gathered,
            }
        });
        let table = piece.target.table;
        open.gathered.push(piece.data).map_err(|e| CutError::Rows { table, detail: e.to_string() })?;
        (open.last, open.recorded_at) = (current.epoch, current.recorded_at);
        open.rows += piece.rows;
        open.bytes += piece.bytes;
        self.open_bytes += piece.bytes;
        Ok(opened)
    }

    /// Ends the current epoch, with rows or without: time passes in the log.
    pub fn end(&mut self) -> Result<Vec<Cut>, CutError> {
        let Some(current) = self.current.as_mut() else { return Ok(Vec::new()) };
        current.inside = false;
        let (now, p) = (current.recorded_at, self.parameters);
        let age_min = i64::try_from(p.seconds_min).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        self.close_where(|_, open| {
            open.rows >= p.rows_max || open.bytes >= p.bytes_max || (open.rows >= p.rows && now.saturating_sub(open.began) >= age_min)
        })?;
        while self.open_bytes > p.open_bytes_max {
            // Targets are in order, and of equals the first is taken: ties go by table, then tenant.
            let largest = self.open.iter().rev().max_by_key(|(_, open)| open.bytes).map(|(target, _)| target.clone());
            let Some(target) = largest else { break };
            self.close(&target)?;
        }
        Ok(std::mem::take(&mut self.closed))
    }

    /// First epoch of a target's open cut.
    pub fn open_since(&self, target: &Target) -> Option<Epoch> {
        self.open.get(target).map(|open| open.first)
    }

    /// How many cuts are open, and their bytes.
    pub fn open(&self) -> (usize, u64) {
        (self.open.len(), self.open_bytes)
    }

    fn close_where(&mut self, which: impl Fn(&Target, &Open) -> bool) -> Result<(), CutError> {
        let targets: Vec<Target> = self.open.iter().filter(|(t, o)| which(t, o)).map(|(t, _)| t.clone()).collect();
        targets.iter().try_for_each(|target| self.close(target))
    }

    fn close(&mut self, target: &Target) -> Result<(), CutError> {
        let Some((target, open)) = self.open.remove_entry(target) else { return Ok(()) };
        self.open_bytes -= open.bytes;
        let rows = open.gathered.finish().map_err(|e| CutError::Rows { table: target.table.clone(), detail: e.to_string() })?;
        self.closed.push(Cut {
            log: self.log,
            partition: self.partition,
            target,
            first: open.first,
            last: open.last,
            day: time::day(open.recorded_at),
            recorded_at: open.recorded_at,
            schema: open.schema,
            rows_count: open.rows,
            bytes: open.bytes,
            rows,
        });
        Ok(())
    }
}
