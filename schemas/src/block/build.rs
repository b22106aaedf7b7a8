//! From rows to columns. Rows come sorted by tenant; a part ends before it could pass the log's record size.

use super::{Block, BlockError, OUTCOMES, encode};
use crate::ids::{Epoch, LogId, Partition, Position};
use crate::limits::RECORD_BYTES_MAX;
use crate::row::{Cell, Origin, Row};
use crate::system::SystemTable;
use crate::table::{FieldType, Table};
use crate::time::Micros;
use crate::verdict::{Outcome, Rejection, Verdict};
use arrow::array::*;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use bytes::Bytes;
use std::sync::Arc;

/// Estimated bytes at which a part ends: the estimate leaves out padding and messages, hence the margin.
const PART_BYTES: usize = RECORD_BYTES_MAX / 4 * 3;

type Names = StringDictionaryBuilder<Int32Type>;

/// What all rows of an epoch share.
#[derive(Clone, Debug)]
pub struct Attribution {
    /// The log.
    pub log: LogId,
    /// The partition.
    pub partition: Partition,
    /// The epoch.
    pub epoch: Epoch,
    /// Its recorded time.
    pub recorded_at: Micros,
}

/// `_log _partition _offset _index _row _epoch`.
#[derive(Default)]
struct Provenance {
    log: Names,
    partition: Int32Builder,
    offset: Int64Builder,
    index: Int32Builder,
    row: Int32Builder,
    epoch: Int64Builder,
}

impl Provenance {
    fn push(&mut self, of: &Attribution, log: &str, at: Position, index: u32, row: u32) {
        self.log.append_value(log);
        self.partition.append_value(of.partition as i32);
        self.offset.append_value(at.offset as i64);
        self.index.append_value(index as i32);
        self.row.append_value(row as i32);
        self.epoch.append_value(of.epoch as i64);
    }

    fn finish(&mut self, out: &mut Vec<ArrayRef>) {
        out.push(Arc::new(self.log.finish()));
        out.push(Arc::new(self.partition.finish()));
        out.push(Arc::new(self.offset.finish()));
        out.push(Arc::new(self.index.finish()));
        out.push(Arc::new(self.row.finish()));
        out.push(Arc::new(self.epoch.finish()));
    }
}

enum CellBuilder {
    Bool(BooleanBuilder),
    I64(Int64Builder),
    F64(Float64Builder),
    Text(StringBuilder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl CellBuilder {
    fn new(kind: FieldType) -> Self {
        match kind {
            FieldType::Bool => Self::Bool(BooleanBuilder::new()),
            FieldType::I64 => Self::I64(Int64Builder::new()),
            FieldType::F64 => Self::F64(Float64Builder::new()),
            FieldType::Text | FieldType::Json => Self::Text(StringBuilder::new()),
            FieldType::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::new()),
        }
    }

    /// Returns the bytes taken. A cell of another type was refused before it came here; it would be a null.
    fn push(&mut self, cell: Option<&Cell>) -> usize {
        match (self, cell) {
            (Self::Bool(b), Some(Cell::Bool(v))) => b.append_value(*v),
            (Self::Bool(b), _) => b.append_null(),
            (Self::I64(b), Some(Cell::I64(v))) => b.append_value(*v),
            (Self::I64(b), _) => b.append_null(),
            (Self::F64(b), Some(Cell::F64(v))) => b.append_value(*v),
            (Self::F64(b), _) => b.append_null(),
            (Self::Text(b), Some(Cell::Text(v))) => {
                b.append_value(v);
                return v.len() + 4;
            }
            (Self::Text(b), _) => b.append_null(),
            (Self::Timestamp(b), Some(Cell::Timestamp(v))) => b.append_value(*v),
            (Self::Timestamp(b), _) => b.append_null(),
        }
        9
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(b) => Arc::new(b.finish()),
            Self::I64(b) => Arc::new(b.finish()),
            Self::F64(b) => Arc::new(b.finish()),
            Self::Text(b) => Arc::new(b.finish()),
            Self::Timestamp(b) => Arc::new(b.finish().with_timezone("UTC")),
        }
    }
}

/// Collects finished batches of one table and numbers them at the end.
struct Parts {
    table: String,
    schema: SchemaRef,
    bytes: usize,
    rows: usize,
    done: Vec<(u32, Bytes)>,
}

impl Parts {
    fn new(table: &str, schema: SchemaRef) -> Self {
        Self { table: table.to_owned(), schema, bytes: 0, rows: 0, done: Vec::new() }
    }

    fn end(&mut self, columns: Vec<ArrayRef>) -> Result<(), BlockError> {
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|e| BlockError(e.to_string()))?;
        self.done.push((batch.num_rows() as u32, encode(&batch)?));
        (self.bytes, self.rows) = (0, 0);
        Ok(())
    }

    fn into_blocks(self, epoch: Epoch) -> Vec<Block> {
        let parts = self.done.len() as u32;
        let block = |(i, (rows, stream)): (usize, (u32, Bytes))| Block {
            table: self.table.clone(),
            epoch,
            part: i as u32 + 1,
            parts,
            rows,
            stream,
        };
        self.done.into_iter().enumerate().map(block).collect()
    }
}

/// Builds the blocks of one tenant table of one epoch.
pub struct RowsBuilder {
    of: Attribution,
    log: String,
    parts: Parts,
    names: [Names; 5],
    event_id: StringBuilder,
    times: [TimestampMicrosecondBuilder; 3],
    cells: Vec<CellBuilder>,
    kinds: Vec<FieldType>,
    attributes: MapBuilder<StringBuilder, StringBuilder>,
    template: Names,
    provenance: Provenance,
}

impl RowsBuilder {
    /// An empty block of `table`.
    pub fn new(of: Attribution, table: &Table) -> Self {
        let kinds: Vec<FieldType> = table.fields.iter().map(|c| c.kind).collect();
        Self {
            log: of.log.to_string(),
            of,
            parts: Parts::new(table.id.as_str(), table.schema()),
            names: Default::default(),
            event_id: StringBuilder::new(),
            times: Default::default(),
            cells: kinds.iter().map(|k| CellBuilder::new(*k)).collect(),
            kinds,
            attributes: text_map(),
            template: Names::new(),
            provenance: Provenance::default(),
        }
    }

    /// Appends one row; `number` is its place among the rows of its event. Rows come sorted by tenant.
    #[allow(clippy::too_many_arguments)] // one value for each of the leading columns
    pub fn push(
        &mut self,
        tenant: &str,
        organization: &str,
        source: &str,
        template: &str,
        origin: &Origin,
        number: u32,
        row: &Row,
    ) -> Result<(), BlockError> {
        for (builder, value) in self.names.iter_mut().zip([tenant, organization, source, &*origin.asset, &*row.event_type]) {
            builder.append_value(value);
        }
        self.event_id.append_value(&*origin.event_id);
        for (builder, value) in self.times.iter_mut().zip([row.occurred_at, origin.received_at, self.of.recorded_at]) {
            builder.append_value(value);
        }
        self.template.append_value(template);
        let mut bytes = 130
            + tenant.len()
            + organization.len()
            + source.len()
            + template.len()
            + origin.asset.len()
            + row.event_type.len()
            + origin.event_id.len();
        for (i, builder) in self.cells.iter_mut().enumerate() {
            bytes += builder.push(row.cells.get(i));
        }
        bytes += push_map(&mut self.attributes, &row.attributes)?;
        self.provenance.push(&self.of, &self.log, origin.at, origin.index, number);
        self.parts.bytes += bytes;
        self.parts.rows += 1;
        if self.parts.bytes >= PART_BYTES { self.end() } else { Ok(()) }
    }

    fn end(&mut self) -> Result<(), BlockError> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(17 + self.kinds.len());
        let [tenant, organization, source, asset, event_type] = &mut self.names;
        columns.push(Arc::new(tenant.finish()));
        columns.push(Arc::new(organization.finish()));
        columns.push(Arc::new(self.event_id.finish()));
        columns.push(Arc::new(source.finish()));
        columns.push(Arc::new(asset.finish()));
        columns.push(Arc::new(event_type.finish()));
        for builder in &mut self.times {
            columns.push(Arc::new(builder.finish().with_timezone("UTC")));
        }
        columns.push(Arc::new(self.template.finish()));
        for builder in &mut self.cells {
            columns.push(builder.finish());
        }
        columns.push(Arc::new(self.attributes.finish()));
        self.provenance.finish(&mut columns);
        self.parts.end(columns)
    }

    /// The blocks; none where no row was pushed.
    pub fn finish(mut self) -> Result<Vec<Block>, BlockError> {
        if self.parts.rows > 0 {
            self.end()?;
        }
        Ok(self.parts.into_blocks(self.of.epoch))
    }
}

fn text_map() -> MapBuilder<StringBuilder, StringBuilder> {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
}

fn push_map<T: AsRef<str>>(map: &mut MapBuilder<StringBuilder, StringBuilder>, pairs: &[(T, T)]) -> Result<usize, BlockError> {
    let mut bytes = 4;
    for (key, value) in pairs {
        map.keys().append_value(key);
        map.values().append_value(value);
        bytes += key.as_ref().len() + value.as_ref().len() + 9;
    }
    map.append(true).map_err(|e| BlockError(e.to_string()))?;
    Ok(bytes)
}

/// A refused event on its way into `rejections`.
pub struct RejectionRow<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// Path of the source's node.
    pub organization: &'a str,
    /// Where it came in.
    pub source: &'a str,
    /// The event.
    pub origin: &'a Origin,
    /// Template and version, empty where none was found.
    pub template: &'a str,
    /// Why.
    pub rejection: &'a Rejection,
    /// Media type of the bytes.
    pub content_type: &'a str,
    /// As sent.
    pub original: &'a [u8],
}

/// Builds the `rejections` blocks of one epoch.
pub struct RejectionsBuilder {
    of: Attribution,
    log: String,
    parts: Parts,
    names: [Names; 7],
    event_id: StringBuilder,
    asset: StringBuilder,
    detail: StringBuilder,
    pointer: StringBuilder,
    line: Int32Builder,
    times: [TimestampMicrosecondBuilder; 2],
    original: BinaryBuilder,
    provenance: Provenance,
}

impl RejectionsBuilder {
    /// An empty block.
    pub fn new(of: Attribution) -> Self {
        let table = SystemTable::Rejections;
        Self {
            log: of.log.to_string(),
            of,
            parts: Parts::new(table.as_str(), table.schema()),
            names: Default::default(),
            event_id: StringBuilder::new(),
            asset: StringBuilder::new(),
            detail: StringBuilder::new(),
            pointer: StringBuilder::new(),
            line: Int32Builder::new(),
            times: Default::default(),
            original: BinaryBuilder::new(),
            provenance: Provenance::default(),
        }
    }

    /// Appends one. They come sorted by tenant.
    pub fn push(&mut self, r: &RejectionRow<'_>) -> Result<(), BlockError> {
        let bytes = 160
            + r.original.len()
            + r.rejection.detail.len()
            + r.rejection.pointer.len()
            + r.rejection.code.len()
            + r.organization.len()
            + r.origin.event_id.len()
            + r.origin.asset.len()
            + r.tenant.len()
            + r.source.len()
            + r.template.len();
        if self.parts.rows > 0 && self.parts.bytes + bytes >= PART_BYTES {
            self.end()?;
        }
        let values = [r.tenant, r.organization, r.source, r.template, r.rejection.stage.as_str(), &r.rejection.code, r.content_type];
        for (builder, value) in self.names.iter_mut().zip(values) {
            builder.append_value(value);
        }
        self.event_id.append_value(&*r.origin.event_id);
        self.asset.append_value(&*r.origin.asset);
        self.detail.append_value(&r.rejection.detail);
        self.pointer.append_value(&r.rejection.pointer);
        self.line.append_option(r.rejection.line);
        self.times[0].append_value(r.origin.received_at);
        self.times[1].append_value(self.of.recorded_at);
        self.original.append_value(r.original);
        self.provenance.push(&self.of, &self.log, r.origin.at, r.origin.index, 0);
        self.parts.bytes += bytes;
        self.parts.rows += 1;
        Ok(())
    }

    fn end(&mut self) -> Result<(), BlockError> {
        let [tenant, organization, source, template, stage, code, content_type] = &mut self.names;
        let [received_at, recorded_at] = &mut self.times;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(tenant.finish()),
            Arc::new(organization.finish()),
            Arc::new(self.event_id.finish()),
            Arc::new(source.finish()),
            Arc::new(self.asset.finish()),
            Arc::new(template.finish()),
            Arc::new(stage.finish()),
            Arc::new(code.finish()),
            Arc::new(self.detail.finish()),
            Arc::new(self.pointer.finish()),
            Arc::new(self.line.finish()),
            Arc::new(received_at.finish().with_timezone("UTC")),
            Arc::new(recorded_at.finish().with_timezone("UTC")),
            Arc::new(content_type.finish()),
            Arc::new(self.original.finish()),
        ];
        self.provenance.finish(&mut columns);
        self.parts.end(columns)
    }

    /// The blocks; none where nothing was pushed.
    pub fn finish(mut self) -> Result<Vec<Block>, BlockError> {
        if self.parts.rows > 0 {
            self.end()?;
        }
        Ok(self.parts.into_blocks(self.of.epoch))
    }
}

/// What the scripts of one stage did for one tenant in one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptRun {
    /// Whose.
    pub tenant: String,
    /// Template and version.
    pub template: String,
    /// The stage.
    pub stage: String,
    /// Events that the stage saw.
    pub runs: u64,
    /// Failures by code, sorted.
    pub codes: Vec<(String, String)>,
    /// All failures.
    pub failures: u64,
    /// Steps spent.
    pub steps: u64,
    /// Bytes of the events.
    pub bytes: u64,
    /// Time, in microseconds.
    pub duration: u64,
}

/// The `script_runs` blocks of one epoch; `runs` come sorted by tenant.
pub fn script_runs(of: &Attribution, runs: &[ScriptRun]) -> Result<Vec<Block>, BlockError> {
    let table = SystemTable::ScriptRuns;
    let mut parts = Parts::new(table.as_str(), table.schema());
    let log = of.log.to_string();
    for chunk in runs.chunks(1_000) {
        let (mut names, mut codes, mut provenance) = (<[Names; 3]>::default(), text_map(), Provenance::default());
        for run in chunk {
            for (builder, value) in names.iter_mut().zip([&run.tenant, &run.template, &run.stage]) {
                builder.append_value(value);
            }
            push_map(&mut codes, &run.codes)?;
            provenance.push(of, &log, Position::default(), 0, 0);
        }
        let [tenant, template, stage] = &mut names;
        let numbers =
            |get: fn(&ScriptRun) -> u64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(chunk.iter().map(|r| get(r) as i64))) };
        let recorded_at = TimestampMicrosecondArray::from_value(of.recorded_at, chunk.len()).with_timezone("UTC");
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(tenant.finish()),
            Arc::new(template.finish()),
            Arc::new(stage.finish()),
            numbers(|r| r.runs),
            numbers(|r| r.failures),
            Arc::new(codes.finish()),
            numbers(|r| r.steps),
            numbers(|r| r.bytes),
            Arc::new(recorded_at),
            numbers(|r| r.duration),
        ];
        provenance.finish(&mut columns);
        parts.end(columns)?;
    }
    Ok(parts.into_blocks(of.epoch))
}

/// Outcomes as a block of `audit`: the only input of the duplicate state and of receipts.
pub struct OutcomesBlock;

impl OutcomesBlock {
    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("_offset", DataType::Int64, false),
            Field::new("_ordinal", DataType::Int32, false),
            Field::new("_index", DataType::Int32, false),
            Field::new("verdict", DataType::Int8, false),
            Field::new("key", DataType::FixedSizeBinary(16), false),
        ]))
    }

    /// The blocks of an epoch's outcomes, in raw order.
    pub fn build(epoch: Epoch, outcomes: &[Outcome]) -> Result<Vec<Block>, BlockError> {
        let mut parts = Parts::new(OUTCOMES, Self::schema());
        for chunk in outcomes.chunks(PART_BYTES / 40) {
            let mut keys = FixedSizeBinaryBuilder::with_capacity(chunk.len(), 16);
            for outcome in chunk {
                keys.append_value(outcome.key).map_err(|e| BlockError(e.to_string()))?;
            }
            parts.end(vec![
                Arc::new(Int64Array::from_iter_values(chunk.iter().map(|o| o.at.offset as i64))),
                Arc::new(Int32Array::from_iter_values(chunk.iter().map(|o| o.at.ordinal as i32))),
                Arc::new(Int32Array::from_iter_values(chunk.iter().map(|o| o.index as i32))),
                Arc::new(Int8Array::from_iter_values(chunk.iter().map(|o| o.verdict as i8))),
                Arc::new(keys.finish()),
            ])?;
        }
        Ok(parts.into_blocks(epoch))
    }

    /// Reads a part back.
    pub fn read(batch: &RecordBatch) -> Result<Vec<Outcome>, BlockError> {
        if batch.schema() != Self::schema() {
            return Err(BlockError("it is no outcomes block".into()));
        }
        let offsets = batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().values();
        let ordinals = batch.column(1).as_primitive::<Int32Type>().values();
        let indexes = batch.column(2).as_primitive::<Int32Type>().values();
        let verdicts = batch.column(3).as_primitive::<arrow::datatypes::Int8Type>().values();
        let keys = batch.column(4).as_fixed_size_binary();
        (0..batch.num_rows())
            .map(|i| {
                Ok(Outcome {
                    at: Position { offset: offsets[i] as u64, ordinal: ordinals[i] as u32 },
                    index: indexes[i] as u32,
                    verdict: Verdict::from_u8(verdicts[i] as u8).ok_or_else(|| BlockError("verdict is unknown".into()))?,
                    key: keys.value(i).try_into().map_err(|_| BlockError("key is not 16 bytes".into()))?,
                })
            })
            .collect()
    }
}
