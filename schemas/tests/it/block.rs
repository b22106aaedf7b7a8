use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use proptest::prelude::*;
use std::sync::Arc;
use tidegate_schemas::block::*;
use tidegate_schemas::ids::{LogId, NodeId, Position, TableId, TenantId};
use tidegate_schemas::limits::RECORD_BYTES_MAX;
use tidegate_schemas::row::{Cell, Origin, Row};
use tidegate_schemas::table::{Column, FieldType, Table};
use tidegate_schemas::verdict::{Code, Outcome, Rejection, StageName, Verdict};

fn table() -> Table {
    let column = |name: &str, kind, unit: Option<&str>| Column { name: name.into(), kind, unit: unit.map(Into::into) };
    Table {
        id: TableId::new("climate-7f3a").unwrap(),
        owner: NodeId::new("acme").unwrap(),
        name: "climate".into(),
        fields: vec![
            column("temperature", FieldType::F64, Some("Cel")),
            column("count", FieldType::I64, None),
            column("label", FieldType::Text, None),
            column("open", FieldType::Bool, None),
            column("seen", FieldType::Timestamp, None),
        ],
    }
}

fn of() -> Attribution {
    Attribution { log: LogId([1; 16]), partition: 2, epoch: 9, recorded_at: 1_800_000_000_000_000 }
}

fn origin(offset: u64) -> Origin {
    Origin {
        at: Position { offset, ordinal: 0 },
        index: 0,
        event_id: format!("id-{offset}").into(),
        asset: format!("asset-{}", offset % 5).into(),
        received_at: 7,
    }
}

fn row(n: u64, label_len: usize) -> Row {
    Row {
        occurred_at: n as i64,
        event_type: Arc::from("reading"),
        cells: vec![
            Cell::F64(n as f64 / 2.0),
            Cell::I64(n as i64),
            Cell::Text("l".repeat(label_len).into()),
            Cell::Null,
            Cell::Timestamp(5),
        ],
        attributes: vec![("site".into(), "S1".into())],
    }
}

fn build(tenants: &[(&str, u64)], label_len: usize) -> Vec<Block> {
    let mut builder = RowsBuilder::new(of(), &table(), 0);
    let mut n = 0;
    for (tenant, rows) in tenants {
        for _ in 0..*rows {
            let origin = origin(n);
            let head = Head { tenant, organization: "v/c", source: "lns", template: "t@1", origin: &origin, number: 0 };
            builder.push(head, &row(n, label_len)).unwrap();
            n += 1;
        }
    }
    builder.finish().unwrap()
}

fn reread(block: Block) -> (Block, RecordBatch) {
    let Output::Block(read) = Output::read(&block.into_record()).unwrap() else { panic!("a block is a block") };
    let batch = read.batch().unwrap();
    (read, batch)
}

#[test]
fn rows_come_back_typed_and_in_order() {
    let blocks = build(&[("acme", 3), ("beta", 2)], 4);
    assert_eq!(blocks.len(), 1);
    let (block, batch) = reread(blocks.into_iter().next().unwrap());
    assert_eq!((block.table.as_str(), block.epoch, block.part, block.parts, block.rows), ("climate-7f3a", 9, 1, 1, 5));
    assert_eq!(batch.schema(), table().schema());
    assert_eq!(batch.schema().field_with_name("temperature").unwrap().metadata()["unit"], "Cel");
    let temperature = batch.column_by_name("temperature").unwrap().as_primitive::<arrow::datatypes::Float64Type>().clone();
    assert_eq!(temperature.values().to_vec(), [0.0, 0.5, 1.0, 1.5, 2.0]);
    assert_eq!(batch.column_by_name("open").unwrap().null_count(), 5);
}

#[test]
fn parts_stay_below_the_record_size_and_lose_nothing() {
    for label_len in [0, 300, 60_000] {
        let blocks = build(&[("acme", 700), ("beta", 900)], label_len);
        let parts = blocks.len() as u32;
        let mut rows = 0;
        for (i, block) in blocks.into_iter().enumerate() {
            assert!(block.stream.len() <= RECORD_BYTES_MAX, "{} bytes", block.stream.len());
            assert_eq!((block.part, block.parts), (i as u32 + 1, parts));
            rows += reread(block).1.num_rows();
        }
        assert_eq!(rows, 1_600);
    }
}

#[test]
fn a_slice_holds_nothing_of_other_tenants() {
    let (_, batch) = reread(build(&[("acme", 3), ("beta", 2), ("acme2", 1)], 4).remove(0));
    let slices = by_tenant(&batch);
    assert_eq!(slices.iter().map(|(t, b)| (t.as_str(), b.num_rows())).collect::<Vec<_>>(), [("acme", 3), ("beta", 2), ("acme2", 1)]);
    for (tenant, slice) in &slices {
        let bytes = encode(slice).unwrap();
        for (other, _) in slices.iter().filter(|(o, _)| !tenant.contains(o.as_str())) {
            assert!(!bytes.windows(other.len()).any(|w| w == other.as_bytes()), "{other} in the slice of {tenant}");
        }
        let names = slice.column(0).as_dictionary::<Int32Type>();
        assert_eq!(names.values().len(), 1);
    }
}

/// As a block of one tenant comes it is compact, and its names are not copied; whatever else comes out is what copying gives.
#[test]
fn names_that_are_all_in_use_stay_where_they_are() {
    let names = |keys: Vec<Option<i32>>, values: &[&str]| -> RecordBatch {
        let column = DictionaryArray::<Int32Type>::new(keys.into(), Arc::new(StringArray::from(values.to_vec())));
        RecordBatch::try_from_iter([("a", Arc::new(column) as ArrayRef)]).unwrap()
    };
    let shown = |batch: &RecordBatch| {
        let column = batch.column(0).as_dictionary::<Int32Type>();
        let values: Vec<_> = column.values().as_string::<i32>().iter().flatten().map(str::to_owned).collect();
        (column.keys().iter().collect::<Vec<_>>(), values)
    };
    let same = |batch: &RecordBatch| {
        let values = |b: &RecordBatch| b.column(0).as_dictionary::<Int32Type>().values().as_string::<i32>().values().as_ptr();
        values(batch) == values(&compact(batch))
    };
    let some = |keys: &[i32]| keys.iter().copied().map(Some).collect::<Vec<_>>();
    let whole = names(some(&[0, 0, 1, 0, 2]), &["x", "y", "z"]);
    assert!(same(&whole));
    for (batch, keys, values) in [
        (whole.slice(2, 3), some(&[0, 1, 2]), vec!["y", "x", "z"]),
        (whole.slice(0, 4), some(&[0, 0, 1, 0]), vec!["x", "y"]),
        (names(some(&[1, 0]), &["x", "y"]), some(&[0, 1]), vec!["y", "x"]),
        (names(some(&[0, 2]), &["x", "y", "z"]), some(&[0, 1]), vec!["x", "z"]),
        (names(vec![Some(0), None, Some(1)], &["x", "y"]), vec![Some(0), None, Some(1)], vec!["x", "y"]),
        (names(vec![None], &["x"]), vec![None], vec![]),
    ] {
        assert!(!same(&batch) || values.is_empty());
        assert_eq!(shown(&compact(&batch)), (keys, values.into_iter().map(str::to_owned).collect()));
    }
}

#[test]
fn a_changed_byte_is_noticed() {
    let block = build(&[("acme", 20)], 4).remove(0);
    let record = block.clone().into_record();
    for at in (0..block.stream.len()).step_by(7) {
        let mut damaged = record.clone();
        let mut bytes = damaged.value.to_vec();
        bytes[at] ^= 0x40;
        damaged.value = bytes.into();
        assert!(Output::read(&damaged).is_err(), "byte {at}");
    }
    for cut in [0, 1, 8, 100] {
        let _ = decode(&block.stream.slice(..cut)).unwrap_err();
    }
}

#[test]
fn rejections_hold_the_original_bytes() {
    let mut builder = RejectionsBuilder::new(of());
    let rejection = Rejection::new(StageName::Validate, Code::OutOfRange, "too hot").at("/t");
    for n in 0..3u8 {
        let origin = origin(u64::from(n));
        let original = vec![n; 400_000];
        builder
            .push(&RejectionRow {
                tenant: "acme",
                organization: "v/acme",
                source: "s",
                origin: &origin,
                template: "t@1",
                rejection: &rejection,
                content_type: "application/json",
                original: &original,
            })
            .unwrap();
    }
    let blocks = builder.finish().unwrap();
    assert_eq!(blocks.len(), 3, "two events of 400 kB do not fit one record");
    for (n, block) in blocks.into_iter().enumerate() {
        assert!(block.stream.len() <= RECORD_BYTES_MAX);
        let (_, batch) = reread(block);
        assert_eq!(batch.column_by_name("original").unwrap().as_binary::<i32>().value(0), vec![n as u8; 400_000]);
    }
}

proptest! {
    #[test]
    fn outcomes_come_back(all in prop::collection::vec((any::<u32>(), any::<u16>(), 0u8..4, 0u8..5, any::<[u8; 16]>()), 0..3_000)) {
        let outcomes: Vec<Outcome> = all.iter().enumerate().map(|(i, (offset, index, verdict, tenant, key))| Outcome {
            at: Position { offset: u64::from(*offset), ordinal: i as u32 },
            index: u32::from(*index),
            tenant: TenantId::new(&format!("tenant-{tenant}")).unwrap(),
            verdict: Verdict::from_u8(*verdict).unwrap(),
            key: *key,
        }).collect();
        let mut read = Vec::new();
        for block in OutcomesBlock::build(4, &outcomes).unwrap() {
            read.extend(OutcomesBlock::read(&reread(block).1).unwrap());
        }
        prop_assert_eq!(read, outcomes);
    }
}
