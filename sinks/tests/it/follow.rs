//! Reading: the cuts must not depend on how much is read at once, nor on where a restart falls.

use crate::log::{MemoryLog, header};
use crate::rows::{blocks, runs, table};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tidegate_schemas::block::Block;
use tidegate_schemas::log::{LogError, SinkCursor};
use tidegate_schemas::sink::{Cut, CutParameters, Grain, Rows};
use tidegate_schemas::system::SystemTable;
use tidegate_sinks::driver::{Follower, Step, TableSelection};

const START: SinkCursor = SinkCursor { clean: 0, audit: 0, epoch: 0 };

fn cut() -> CutParameters {
    CutParameters {
        rows: 40,
        rows_max: 90,
        bytes_max: 60_000,
        open_bytes_max: 90_000,
        seconds_min: 5,
        edge_seconds: 30,
        edge_bytes: 150_000,
    }
}

/// 60 epochs a second apart, some without rows, two tables, three tenants, `script_runs` in every third.
fn fill(log: &MemoryLog, epochs: u64) {
    let (climate, energy) = (table("climate-1", &[]), table("energy-2", &[]));
    for epoch in 1..=epochs {
        let header = header(epoch, 1_000.0 + epoch as f64, cut());
        let n = epoch as usize % 7;
        let mut clean: Vec<Block> = Vec::new();
        if n > 0 {
            clean.extend(blocks(0, &header, &climate, &[("acme", n * 3), ("beta", 1)]));
        }
        if n > 4 {
            clean.extend(blocks(0, &header, &energy, &[("acme", 2), ("gamma", n)]));
        }
        let audit = if epoch % 3 == 0 { runs(0, &header, &["acme", "beta"]) } else { Vec::new() };
        log.epoch(0, &header, clean, audit);
    }
}

/// Steps that bring nothing in a row, after which there is nothing more: read one by one, the records of an epoch in `audit` take
/// several that tell nothing.
const NOTHING_MORE: u32 = 8;

fn all(follower: &mut Follower, read_bytes: usize) -> (Vec<Cut>, Vec<SinkCursor>, u64) {
    let (mut cuts, mut cursors, mut read, mut nothing) = (Vec::new(), Vec::new(), 0, 0);
    while nothing < NOTHING_MORE {
        let step: Step = follower.advance(Duration::ZERO, read_bytes).unwrap();
        let brought = !step.closed.is_empty() || step.cursor.is_some() || step.read.is_some() || follower.unread().unwrap() > 0;
        nothing = if brought { 0 } else { nothing + 1 };
        read = step.read.map_or(read, |r| r.0);
        cuts.extend(step.closed);
        cursors.extend(step.cursor);
    }
    (cuts, cursors, read)
}

/// Name, tenant, rows and their bytes.
fn show(cuts: &[Cut]) -> Vec<String> {
    let rows = |cut: &Cut| match &cut.rows {
        Rows::Batches(batches) => batches.iter().map(|b| format!("{:?}", b.columns())).collect::<String>(),
        Rows::Streams(streams) => format!("{streams:?}"),
    };
    let short = |text: String| crc32(text.as_bytes());
    cuts.iter().map(|c| format!("{} {:?} {} {:08x}", c.name(), c.target.tenant, c.rows_count, short(rows(c)))).collect()
}

fn crc32(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

fn follower(log: &Arc<MemoryLog>, grain: Grain, system: &[SystemTable], cursor: SinkCursor) -> Follower {
    Follower::new(Arc::clone(log) as _, 0, grain, TableSelection { system: system.to_vec() }, cursor)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn neither_read_size_nor_restart_changes_a_cut(
        epochs in 1u64..70,
        read_bytes in prop_oneof![Just(1usize), 1usize..40_000, Just(4 << 20)],
        tenant in any::<bool>(),
        audit in any::<bool>(),
        at in any::<prop::sample::Index>(),
    ) {
        let log = Arc::new(MemoryLog::new(1));
        fill(&log, epochs);
        let grain = if tenant { Grain::Tenant } else { Grain::Table };
        let system: &[SystemTable] = if audit { &[SystemTable::ScriptRuns] } else { &[] };
        let (expected, cursors, read) = all(&mut follower(&log, grain, system, START), 1 << 20);
        prop_assert_eq!(read, epochs);
        let expected = show(&expected);

        let (cuts, same, _) = all(&mut follower(&log, grain, system, START), read_bytes);
        prop_assert_eq!(&show(&cuts), &expected);
        prop_assert_eq!(&same, &cursors);

        if !cursors.is_empty() {
            let cursor = cursors[at.index(cursors.len())];
            let (cuts, _, _) = all(&mut follower(&log, grain, system, cursor), read_bytes);
            let cuts = show(&cuts);
            prop_assert_eq!(&cuts[..], &expected[expected.len() - cuts.len()..]);
            prop_assert!(cuts.len() < expected.len() || cursor.epoch == 1);
        }
    }
}

/// The last epoch closes its cuts by the bytes since the last edge, and its records in `audit` are read after it.
#[test]
fn an_edge_by_bytes_at_the_very_end_is_seen_record_by_record() {
    let log = Arc::new(MemoryLog::new(1));
    fill(&log, 69);
    let [whole, single] = [1 << 20, 1].map(|bytes| all(&mut follower(&log, Grain::Table, &[SystemTable::ScriptRuns], START), bytes));
    assert_eq!((show(&single.0), single.1, single.2), (show(&whole.0), whole.1, 69));
}

/// A log of several machines shows the parts of one commit one after the other.
#[test]
fn an_audit_that_shows_later_is_waited_for() {
    let log = Arc::new(MemoryLog::new(1));
    fill(&log, 63);
    let system = [SystemTable::ScriptRuns];
    let (expected, ..) = all(&mut follower(&log, Grain::Tenant, &system, START), 1 << 20);
    for read_bytes in [1, 1 << 20] {
        let (mut late, mut cuts, mut read) = (follower(&log, Grain::Tenant, &system, START), Vec::new(), 0);
        for shown in 0..=42 {
            log.audit_shown.store(shown, Ordering::SeqCst);
            for _ in 0..400 {
                let step = late.advance(Duration::ZERO, read_bytes).unwrap();
                cuts.extend(step.closed);
                read = step.read.map_or(read, |r| r.0);
            }
            // Every third epoch has a header and a block in `audit`.
            assert_eq!(read, (shown as u64 / 2 * 3 + 2).min(63), "{shown} records of audit can be read");
        }
        assert_eq!(show(&cuts), show(&expected));
    }
}

#[test]
fn every_row_is_in_one_cut_or_open() {
    let log = Arc::new(MemoryLog::new(1));
    fill(&log, 63);
    // Far past the last epoch, so that everything closes.
    log.epoch(0, &header(64, 9_000.0, cut()), vec![], vec![]);
    for grain in [Grain::Tenant, Grain::Table] {
        let (cuts, cursors, read) = all(&mut follower(&log, grain, &[SystemTable::ScriptRuns], START), 1 << 20);
        let rows = |table: &str| cuts.iter().filter(|c| c.target.table == table).map(|c| c.rows_count).sum::<u64>();
        let n = |e: u64| e % 7;
        assert_eq!(rows("climate-1"), (1..=63).filter(|e| n(*e) > 0).map(|e| n(e) * 3 + 1).sum::<u64>());
        assert_eq!(rows("energy-2"), (1..=63).filter(|e| n(*e) > 4).map(|e| n(e) + 2).sum::<u64>());
        assert_eq!(rows("script_runs"), 21 * 2);
        assert_eq!((read, cursors.last().unwrap().epoch), (64, 64));
        for cut in &cuts {
            assert!(cut.first <= cut.last);
            if let Rows::Batches(batches) = &cut.rows {
                assert_eq!(batches.iter().map(|b| b.num_rows() as u64).sum::<u64>(), cut.rows_count);
            }
        }
    }
}

#[test]
fn a_sink_without_system_tables_lets_audit_be_trimmed() {
    let log = Arc::new(MemoryLog::new(1));
    fill(&log, 63);
    let (_, cursors, _) = all(&mut follower(&log, Grain::Tenant, &[], START), 1 << 20);
    assert_eq!(cursors.last().unwrap().audit, 42, "all of audit: 21 headers and 21 blocks");
}

#[test]
fn places_that_are_gone_or_damaged_stop_with_their_name() {
    let log = Arc::new(MemoryLog::new(1));
    fill(&log, 10);
    let advance = |cursor| follower(&log, Grain::Tenant, &[], cursor).advance(Duration::ZERO, 1 << 20).map(|_| ());
    let wrong = advance(SinkCursor { clean: 0, audit: 0, epoch: 4 }).unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "log is corrupt at clean partition 0 offset 0: epoch 1 begins where epoch 4 was expected; restore this file from a copy, or \
         move the folder away"
    );
    log.damage(0, 3);
    let damaged = advance(START).unwrap_err();
    assert!(
        damaged.to_string().starts_with("log is corrupt at clean partition 0 offset 3: block is unreadable: its checksum"),
        "{damaged}"
    );
    log.trim_clean(0, 5);
    assert!(matches!(advance(START), Err(LogError::Gone { from: 0, start: 5, .. })));
    // A sink that is new begins with the first whole epoch.
    let step = follower(&log, Grain::Tenant, &[], SinkCursor { clean: 5, audit: 0, epoch: 0 }).advance(Duration::ZERO, 1 << 20).unwrap();
    assert_eq!(step.opened[0].1, 4, "what is left of epoch 3 is passed over");
}
