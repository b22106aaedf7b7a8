//! Rows in columns against a list of rows: whatever is set, set again, taken back and gathered.

use proptest::prelude::*;
use std::sync::Arc;
use tidegate_schemas::block::*;
use tidegate_schemas::ids::{LogId, NodeId, Position, TableId};
use tidegate_schemas::row::{Cell, Origin, Row};
use tidegate_schemas::rows::Rows;
use tidegate_schemas::table::{Column, FieldType, Table};

const KINDS: [FieldType; 6] = [FieldType::Bool, FieldType::I64, FieldType::F64, FieldType::Text, FieldType::Json, FieldType::Timestamp];

fn table() -> Table {
    let column = |kind: FieldType| Column { name: format!("{kind:?}").to_lowercase(), kind, unit: None };
    Table { id: TableId::new("t").unwrap(), owner: NodeId::new("n").unwrap(), name: "t".into(), fields: KINDS.map(column).to_vec() }
}

/// What somebody does to the rows.
#[derive(Clone, Debug)]
enum Act {
    Set(usize, Cell<'static>),
    End(i64, u8, Vec<(Box<str>, Box<str>)>),
    Cancel,
    Truncate(usize),
}

fn cell() -> impl Strategy<Value = Cell<'static>> {
    prop_oneof![
        Just(Cell::Null),
        any::<bool>().prop_map(Cell::Bool),
        any::<i64>().prop_map(Cell::I64),
        (-9.0..9.0).prop_map(Cell::F64),
        "[a-é]{0,9}".prop_map(|text| Cell::Text(text.into())),
        // Ten of them end a part.
        (60_000..80_000_usize).prop_map(|len| Cell::Text("x".repeat(len).into())),
        (0..9_i64).prop_map(Cell::Timestamp),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let attributes = prop::collection::vec(("[a-c]{0,2}", "[a-c]{0,3}"), 0..3);
    let attributes = attributes.prop_map(|pairs| pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect());
    prop_oneof![
        8 => (0..KINDS.len(), cell()).prop_map(|(column, cell)| Act::Set(column, cell)),
        4 => (any::<i64>(), 0..3_u8, attributes).prop_map(|(at, kind, attributes)| Act::End(at, kind, attributes)),
        1 => Just(Act::Cancel),
        1 => (0..40_usize).prop_map(Act::Truncate),
    ]
}

/// A value of another type than its field's is none.
fn kept(kind: FieldType, cell: &Cell<'static>) -> Cell<'static> {
    match (kind, cell) {
        (FieldType::Bool, Cell::Bool(_))
        | (FieldType::I64, Cell::I64(_))
        | (FieldType::F64, Cell::F64(_))
        | (FieldType::Text | FieldType::Json, Cell::Text(_))
        | (FieldType::Timestamp, Cell::Timestamp(_)) => cell.clone(),
        _ => Cell::Null,
    }
}

/// The rows, and what they should be.
fn made(acts: &[Act]) -> (Rows, Vec<Row>) {
    let types: Vec<Arc<str>> = ["a", "b", "a"].map(Arc::from).to_vec();
    let (mut rows, mut expected) = (Rows::new(&table(), 3), Vec::new());
    let blank = || vec![Cell::Null; KINDS.len()];
    let mut cells = blank();
    for act in acts {
        match act {
            Act::Set(column, cell) => {
                rows.set(*column, cell.clone());
                cells[*column] = kept(KINDS[*column], cell);
                assert_eq!(rows.is_set(*column), cells[*column] != Cell::Null);
            }
            Act::End(at, kind, attributes) => {
                let event_type = &types[usize::from(*kind)];
                rows.end(*at, event_type, attributes.clone());
                let cells = std::mem::replace(&mut cells, blank());
                let event_type = Arc::clone(event_type);
                expected.push(Row { occurred_at: *at, event_type, cells, attributes: attributes.clone() });
            }
            Act::Cancel => {
                rows.cancel();
                cells = blank();
            }
            Act::Truncate(count) => {
                rows.truncate((*count).min(rows.len()));
                expected.truncate(*count);
                cells = blank();
            }
        }
    }
    (rows, expected)
}

fn blocks(push: impl FnOnce(&mut RowsBuilder, &dyn Fn(u32) -> Origin)) -> Vec<Block> {
    let of = Attribution { log: LogId([3; 16]), partition: 1, epoch: 2, recorded_at: 3 };
    let mut builder = RowsBuilder::new(of, &table(), 2);
    push(&mut builder, &|n| Origin {
        at: Position { offset: n.into(), ordinal: 0 },
        index: n,
        event_id: format!("e{n}").into(),
        asset: format!("a{}", n % 3).into(),
        received_at: 7,
    });
    builder.finish().unwrap()
}

fn head(origin: &Origin) -> Head<'_> {
    let tenant = if origin.index < 5 { "acme" } else { "beta" };
    Head { tenant, organization: "o", source: "s", template: "t@1", origin, number: 0 }
}

proptest! {
    #[test]
    fn columns_are_rows(acts in prop::collection::vec(act(), 0..120)) {
        let (rows, expected) = made(&acts);
        prop_assert_eq!(rows.range(0..rows.len() as u32), expected);
    }

    /// Gathered in ranges, in any order and with some left out, rows make the same blocks as one by one.
    #[test]
    fn ranges_are_rows(acts in prop::collection::vec(act(), 0..120), ranges in prop::collection::vec((0..30_usize, 0..9_usize), 0..6)) {
        let (rows, expected) = made(&acts);
        let ranges: Vec<_> =
            ranges.into_iter().map(|(from, len)| from.min(rows.len())..(from + len).min(rows.len())).collect();
        let by_range = blocks(|builder, origin| {
            let mut n = 0;
            for range in &ranges {
                let origins: Vec<Origin> = range.clone().map(|_| { n += 1; origin(n) }).collect();
                builder.extend(origins.iter().map(head), &rows, range.start).unwrap();
            }
        });
        let one_by_one = blocks(|builder, origin| {
            for (n, row) in (1..).zip(ranges.iter().flat_map(|range| &expected[range.clone()])) {
                builder.push(head(&origin(n)), row).unwrap();
            }
        });
        // To the byte: whoever replays an epoch in other ranges hashes the same.
        let streams = |blocks: &[Block]| blocks.iter().map(|block| block.stream.clone()).collect::<Vec<_>>();
        prop_assert!(streams(&by_range) == streams(&one_by_one));
        let mut expected = ranges.iter().flat_map(|range| &expected[range.clone()]);
        for block in by_range {
            let read = RowsRead::new(&block.batch().unwrap()).unwrap();
            for found in read.rows() {
                let row = expected.next().unwrap();
                let cells = found.cells().filter(|(name, _)| table().fields.iter().any(|field| field.name == *name));
                let cells: Vec<_> = cells.map(|(_, cell)| format!("{cell:?}")).collect();
                prop_assert_eq!(cells, row.cells.iter().map(|cell| format!("{cell:?}")).collect::<Vec<_>>());
            }
        }
        prop_assert!(expected.next().is_none());
    }
}
