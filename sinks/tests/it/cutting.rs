//! The cutter against a naive one, over any log and from any edge.

use crate::log::{LOG, header};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;
use tidegate_schemas::block::EpochHeader;
use tidegate_schemas::sink::{Cut, CutParameters, Rows, Target};
use tidegate_sinks::cut::{CutError, Cutter, Piece, PieceData};

/// Rows of a target in an epoch, in one or more parts.
#[derive(Clone, Debug)]
struct Rowset {
    target: usize,
    parts: Vec<(u64, u64)>,
    schema: usize,
}

#[derive(Clone, Debug)]
struct Epoch {
    number: u64,
    seconds: f64,
    cut: CutParameters,
    rowsets: Vec<Rowset>,
}

impl Epoch {
    fn bytes(&self) -> u64 {
        self.rowsets.iter().flat_map(|r| &r.parts).map(|p| p.1).sum()
    }
}

/// What identifies a cut: target, first, last, rows, bytes, schema, day, and the epochs that it holds.
type Summary = (Target, u64, u64, u64, u64, usize, i32, Vec<u64>);

fn target(i: usize) -> Target {
    let tenant = (i % 2 == 1).then(|| format!("tenant-{}", i / 2).try_into().unwrap());
    Target { table: format!("table-{}", i % 3), tenant }
}

fn schema(i: usize) -> SchemaRef {
    Arc::new(Schema::new((0..=i).map(|c| Field::new(format!("c{c}"), DataType::Int64, true)).collect::<Vec<_>>()))
}

fn piece(epoch: &Epoch, rowset: &Rowset, rows: u64, bytes: u64) -> Piece {
    let data = PieceData::Stream(Bytes::from(epoch.number.to_string()));
    Piece { target: target(rowset.target), rows, bytes, schema: schema(rowset.schema), data }
}

fn summary(cut: &Cut) -> Summary {
    let Rows::Streams(streams) = &cut.rows else { panic!("streams went in") };
    let mut epochs: Vec<u64> = streams.iter().map(|s| std::str::from_utf8(s).unwrap().parse().unwrap()).collect();
    epochs.dedup();
    (cut.target.clone(), cut.first, cut.last, cut.rows_count, cut.bytes, cut.schema.fields().len() - 1, cut.day, epochs)
}

/// Runs the cutter; returns the cuts by the epoch in which they closed, and the epochs at which the cursor may stand.
fn run(epochs: &[Epoch]) -> (Vec<(u64, Summary)>, Vec<usize>) {
    let mut cutter = Cutter::new(LOG, 3);
    let (mut cuts, mut edges) = (Vec::new(), vec![0]);
    for (i, epoch) in epochs.iter().enumerate() {
        let header = EpochHeader { bytes: epoch.bytes(), ..header(epoch.number, epoch.seconds, epoch.cut) };
        let begun = cutter.begin(&header).unwrap();
        if begun.edge {
            assert_eq!(cutter.open(), (0, 0));
            edges.push(i);
        }
        cuts.extend(begun.closed.iter().map(|c| (epoch.number, summary(c))));
        for rowset in &epoch.rowsets {
            for (rows, bytes) in &rowset.parts {
                cutter.add(piece(epoch, rowset, *rows, *bytes)).unwrap();
            }
        }
        cuts.extend(cutter.end().unwrap().iter().map(|c| (epoch.number, summary(c))));
        assert!(cutter.open().1 <= epochs.iter().map(|e| e.cut.open_bytes_max).max().unwrap());
    }
    (cuts, edges)
}

/// The rules, written down once more: for every epoch look at everything again.
fn naive(epochs: &[Epoch]) -> Vec<(u64, Summary)> {
    #[derive(Clone)]
    struct Open {
        target: Target,
        of: Vec<(usize, Rowset)>,
    }
    let rows = |o: &Open| o.of.iter().flat_map(|(_, r)| &r.parts).map(|p| p.0).sum::<u64>();
    let bytes = |o: &Open| o.of.iter().flat_map(|(_, r)| &r.parts).map(|p| p.1).sum::<u64>();
    let mut open: Vec<Open> = Vec::new();
    let mut out: Vec<(u64, Summary)> = Vec::new();
    let (mut p, mut since) = (epochs[0].cut, 0);
    for (i, epoch) in epochs.iter().enumerate() {
        let mut closed: Vec<Open> = Vec::new();
        let micros = (epoch.seconds * 1e6) as i64;
        let before = i.checked_sub(1).map(|b| (epochs[b].seconds * 1e6) as i64);
        let (edge, day) = (p.edge_seconds as i64 * 1_000_000, 86_400_000_000);
        if before.is_some_and(|b| b / edge != micros / edge || b / day != micros / day || since >= p.edge_bytes) {
            since = 0;
            open.sort_by(|a, b| a.target.cmp(&b.target));
            closed.append(&mut open);
            p = epoch.cut;
        }
        since += epoch.bytes();
        for rowset in &epoch.rowsets {
            let target = target(rowset.target);
            if let Some(at) = open.iter().position(|o| o.target == target && o.of[0].1.schema != rowset.schema) {
                closed.push(open.remove(at));
            }
            match open.iter_mut().find(|o| o.target == target) {
                Some(o) => o.of.push((i, rowset.clone())),
                None => open.push(Open { target, of: vec![(i, rowset.clone())] }),
            }
        }
        open.sort_by(|a, b| a.target.cmp(&b.target));
        let (full, rest): (Vec<Open>, Vec<Open>) = open.into_iter().partition(|o| {
            let age = micros - (epochs[o.of[0].0].seconds * 1e6) as i64;
            rows(o) >= p.rows_max || bytes(o) >= p.bytes_max || (rows(o) >= p.rows && age >= p.seconds_min as i64 * 1_000_000)
        });
        closed.extend(full);
        open = rest;
        while open.iter().map(bytes).sum::<u64>() > p.open_bytes_max {
            let most = open.iter().map(bytes).max().unwrap();
            let at = open.iter().position(|o| bytes(o) == most).unwrap();
            closed.push(open.remove(at));
        }
        out.extend(closed.into_iter().map(|o| {
            let (first, last) = (&epochs[o.of[0].0], &epochs[o.of[o.of.len() - 1].0]);
            let day = (last.seconds / 86_400.0) as i32;
            let mut of: Vec<u64> = o.of.iter().map(|(e, _)| epochs[*e].number).collect();
            of.dedup();
            (epoch.number, (o.target.clone(), first.number, last.number, rows(&o), bytes(&o), o.of[0].1.schema, day, of))
        }));
    }
    out
}

fn parameters() -> impl Strategy<Value = CutParameters> {
    let edges = (prop_oneof![Just(60u64), Just(300), Just(900)], 100u64..1_500);
    (1u64..40, 20u64..80, 50u64..400, 100u64..500, 0u64..90, edges).prop_map(
        |(rows, rows_max, bytes_max, open_bytes_max, seconds_min, (edge_seconds, edge_bytes))| CutParameters {
            rows,
            rows_max,
            bytes_max,
            open_bytes_max,
            seconds_min,
            edge_seconds,
            edge_bytes,
        },
    )
}

fn epochs() -> impl Strategy<Value = Vec<Epoch>> {
    let part = (1u64..12, 1u64..120);
    let rowset = (0usize..6, prop::collection::vec(part, 1..3), prop_oneof![9 => Just(0usize), 1 => Just(1)])
        .prop_map(|(target, parts, schema)| Rowset { target, parts, schema });
    let gap = prop_oneof![8 => 0.001f64..20.0, 1 => 20.0f64..2_000.0];
    let epoch = (gap, parameters(), prop::collection::vec(rowset, 0..4));
    // Starts before midnight, so that a date changes on the way.
    (86_000.0f64..86_400.0, parameters(), prop::collection::vec(epoch, 1..60), 1u64..100).prop_map(|(start, first, epochs, number)| {
        let (mut now, mut cut) = (start, first);
        let make = |(i, (gap, fresh, mut rowsets)): (usize, (f64, CutParameters, Vec<Rowset>))| {
            now += gap;
            if i % 7 == 6 {
                cut = fresh;
            }
            // Each table has one schema and one run of parts within an epoch.
            rowsets.sort_by_key(|r: &Rowset| target(r.target));
            rowsets.dedup_by_key(|r| target(r.target));
            Epoch { number: number + i as u64, seconds: now, cut, rowsets }
        };
        epochs.into_iter().enumerate().map(make).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn cuts_are_those_of_the_rules(epochs in epochs()) {
        prop_assert_eq!(run(&epochs).0, naive(&epochs));
    }

    #[test]
    fn a_restart_at_an_edge_finds_the_same_cuts(epochs in epochs(), at in any::<prop::sample::Index>()) {
        let (all, edges) = run(&epochs);
        let from = edges[at.index(edges.len())];
        let first = epochs[from].number;
        // What closed at the edge itself was delivered before the cursor was stored.
        let expected: Vec<_> = all.into_iter().filter(|(_, cut)| cut.1 >= first).collect();
        prop_assert_eq!(run(&epochs[from..]).0, expected);
    }
}

#[test]
fn a_large_tenant_closes_after_a_minute_and_a_small_one_at_the_edge() {
    let cut = CutParameters::default();
    let rowset = |target, rows| Rowset { target, parts: vec![(rows, rows * 200)], schema: 0 };
    let epochs: Vec<Epoch> = (0..20)
        .map(|i| Epoch { number: i + 1, seconds: 900_000.0 + i as f64 * 50.0, cut, rowsets: vec![rowset(0, 3_000), rowset(1, 2)] })
        .collect();
    let seen: Vec<_> =
        run(&epochs).0.iter().map(|(at, c)| format!("closed in {at}: {} {}..{} {} rows", c.0.table, c.1, c.2, c.3)).collect();
    // 900,000 s is an edge, and so is 900,900: epoch 19.
    assert_eq!(seen[0], "closed in 3: table-0 1..3 9000 rows");
    assert_eq!(seen[5], "closed in 18: table-0 16..18 9000 rows");
    assert_eq!(seen[6..], ["closed in 19: table-1 1..18 36 rows"]);
}

#[test]
fn wrong_logs_are_refused() {
    let cut = CutParameters::default();
    let rowset = Rowset { target: 0, parts: vec![(1, 1)], schema: 0 };
    let epoch = Epoch { number: 5, seconds: 10.0, cut, rowsets: vec![] };
    let mut cutter = Cutter::new(LOG, 0);
    assert!(matches!(cutter.add(piece(&epoch, &rowset, 1, 1)), Err(CutError::Outside { .. })));
    cutter.begin(&header(5, 10.0, cut)).unwrap();
    cutter.add(piece(&epoch, &rowset, 1, 1)).unwrap();
    let other = Rowset { schema: 1, ..rowset };
    assert!(matches!(cutter.add(piece(&epoch, &other, 1, 1)), Err(CutError::Schema { epoch: 5, .. })));
    assert!(matches!(cutter.begin(&header(6, 11.0, cut)), Err(CutError::Order { .. })));
    cutter.end().unwrap();
    assert!(matches!(cutter.begin(&header(5, 11.0, cut)), Err(CutError::Order { epoch: 5, after: 5, .. })));
    assert!(matches!(cutter.begin(&header(6, 10.0, cut)), Err(CutError::Order { epoch: 6, .. })));
    assert!(cutter.begin(&header(6, 10.1, cut)).is_ok());
}
