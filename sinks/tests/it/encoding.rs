//! Files of every size, from one block or many: each value comes back as it was, in the order of the log, however its column is
//! written.

use crate::home::Home;
use crate::log::{MemoryLog, header};
use crate::parquet::{DAY, cuts};
use crate::rows::{of, table};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::sync::Arc;
use tidegate_schemas::block::{Head, RowsBuilder};
use tidegate_schemas::ids::Position;
use tidegate_schemas::row::{Cell, Origin, Row};
use tidegate_schemas::sink::{CutParameters, Rows, Sink};
use tidegate_schemas::table::{FieldType, Table};
use tidegate_schemas::time;

const FLOATS: [f64; 9] = [0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 5e-324, f64::MAX, 0.1 + 0.2];
const INTEGERS: [i64; 6] = [i64::MAX, i64::MIN, 0, -1, (1 << 53) + 1, i64::MIN];
const TEXTS: [&str; 6] = ["", "\0", "a\0b", "\u{1f600}", "'`\"", "\r\n\t"];

fn fields() -> Table {
    let (number, text) = (FieldType::F64, FieldType::Text);
    table(
        "edges-1",
        &[
            ("few", number, None),
            ("many", number, None),
            ("i", FieldType::I64, None),
            ("word", text, None),
            ("note", text, None),
            ("at", FieldType::Timestamp, None),
            ("b", FieldType::Bool, None),
            ("runs", text, None),
            ("steps", FieldType::I64, None),
            ("day", FieldType::Timestamp, None),
        ],
    )
}

/// Row `n`: few values and many, each sort with nulls between them.
fn cells(n: usize) -> Vec<Cell<'static>> {
    let times = [time::STORABLE.start, -1, 0, 1, time::STORABLE.end - 1];
    let unless = |every: usize, cell: Cell<'static>| if n.is_multiple_of(every) { Cell::Null } else { cell };
    vec![
        Cell::Null,
        unless(11, Cell::F64(FLOATS[n % FLOATS.len()])),
        unless(13, Cell::F64(n as f64 * 1.1)),
        unless(7, Cell::I64(INTEGERS[n % INTEGERS.len()])),
        unless(5, Cell::Text(TEXTS[n % TEXTS.len()].into())),
        unless(17, Cell::Text(format!("note {n}").into())),
        unless(19, Cell::Timestamp(times[n % times.len()])),
        unless(3, Cell::Bool(n.is_multiple_of(2))),
        // Runs of every length up to 40, and steps with gaps in them.
        unless(311, Cell::Text(TEXTS[(n / (1 + n / 37 % 40)) % TEXTS.len()].into())),
        unless(1_009, Cell::I64(INTEGERS[n / 700 % INTEGERS.len()])),
        Cell::Timestamp(1),
    ]
}

/// Epochs of so many rows, the last of which closes the cut; the rows of `beta` come between and go elsewhere.
fn committed(epochs: &[usize]) -> Arc<MemoryLog> {
    let (log, table, mut n) = (MemoryLog::new(1), fields(), 0);
    for (i, rows) in epochs.iter().enumerate() {
        let at = header(i as u64 + 1, DAY + i as f64 / 1_000.0, CutParameters::default());
        let mut builder = RowsBuilder::new(of(0, &at), &table, *rows);
        let mut push = |tenant: &str, n: usize| {
            let origin = Origin {
                at: Position { offset: at.epoch, ordinal: n as u32 },
                index: n as u32,
                event_id: format!("e{n}").into(),
                asset: format!("pump-{}", n % 1_000).into(),
                received_at: at.recorded_at,
            };
            let row = Row { occurred_at: at.recorded_at - n as i64, event_type: "t".into(), cells: cells(n), attributes: Vec::new() };
            let head = Head { tenant, organization: "vendor/acme", source: "s", template: "edges@1", origin: &origin, number: 0 };
            builder.push(head, &row).unwrap();
        };
        (n..n + rows).for_each(|n| push("acme", n));
        n += rows;
        // A block of two tenants is no block of one.
        if rows % 10 == 3 {
            push("beta", 0);
        }
        log.epoch(0, &at, builder.finish().unwrap(), vec![]);
    }
    log.epoch(0, &header(epochs.len() as u64 + 1, DAY + 3_600.0, CutParameters::default()), vec![], vec![]);
    Arc::new(log)
}

#[tokio::test]
async fn values_come_back_from_files_of_every_size() {
    for epochs in [&[7][..], &[255], &[256, 1], &[3_000], &[1_500, 13, 2_000, 3, 4_000], &[5_000; 6]] {
        let (home, rows) = (Home::folder(), epochs.iter().sum::<usize>());
        let sink = home.sink();
        let log = committed(epochs);
        for cut in cuts(&log, 0).into_iter().filter(|c| c.target.tenant.as_ref().is_some_and(|t| t.as_str() == "acme")) {
            let Rows::Batches(batches) = &cut.rows else { panic!("no batches") };
            // Small pieces are gathered, large ones stay.
            assert!(batches.len() <= rows / 600 + epochs.len() + 1, "{} batches of {epochs:?}", batches.len());
            sink.deliver(cut).await.unwrap();
        }
        let files = home.list("acme/edges-1", ".parquet").await;
        assert_eq!(files.len(), 1, "{epochs:?}");
        let file = bytes::Bytes::from(home.read(&format!("acme/edges-1/{}", files[0])).await);
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let schema = Arc::clone(reader.schema());
        let read: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
        check(&concat_batches(&schema, &read).unwrap(), rows);
        assert_eq!(home.rows("edges-1", "acme"), rows as u64);
    }
}

fn check(read: &RecordBatch, rows: usize) {
    assert_eq!(read.num_rows(), rows);
    let column = |name: &str| read.column_by_name(name).unwrap();
    assert_eq!(column("asset").data_type(), &DataType::Utf8);
    for n in 0..rows {
        assert_eq!(column("event_id").as_string::<i32>().value(n), format!("e{n}"));
        assert_eq!(column("asset").as_string::<i32>().value(n), format!("pump-{}", n % 1_000));
        for (name, cell) in ["temperature", "few", "many", "i", "word", "note", "at", "b", "runs", "steps", "day"].into_iter().zip(cells(n))
        {
            let found = column(name);
            assert_eq!(found.is_null(n), cell == Cell::Null, "{name} of row {n}");
            match cell {
                Cell::F64(v) => assert_eq!(found.as_primitive::<Float64Type>().value(n).to_bits(), v.to_bits(), "{name} of row {n}"),
                Cell::I64(v) => assert_eq!(found.as_primitive::<Int64Type>().value(n), v, "{name} of row {n}"),
                Cell::Timestamp(v) => assert_eq!(found.as_primitive::<TimestampMicrosecondType>().value(n), v, "{name} of row {n}"),
                Cell::Text(v) => assert_eq!(found.as_string::<i32>().value(n), &*v, "{name} of row {n}"),
                Cell::Bool(v) => assert_eq!(found.as_boolean().value(n), v, "{name} of row {n}"),
                Cell::Null => {}
            }
        }
    }
}
