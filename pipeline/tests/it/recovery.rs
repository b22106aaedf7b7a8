//! What recovery needs stays, however soon the log is trimmed after a start.

use crate::log::commit_record;
use std::sync::Arc;
use std::time::Duration;
use tidegate_operators::duplicates::Duplicates;
use tidegate_pipeline::log::embedded::{EmbeddedLog, Options};
use tidegate_pipeline::recovery::{DuplicateBounds, hold_states, recover};
use tidegate_pipeline::snapshot::Snapshots;
use tidegate_schemas::block::{Block, EpochHeader, OutcomesBlock};
use tidegate_schemas::commit::{CommitRecord, SnapshotRef};
use tidegate_schemas::ids::{Position, TenantId};
use tidegate_schemas::log::{CommitUnit, EventLog, LogName, SinkCursor};
use tidegate_schemas::sink::CutParameters;
use tidegate_schemas::verdict::{Outcome, Verdict};

const EPOCHS: u64 = 60;
const SNAPSHOT_AT: u64 = 20;
const BOUNDS: DuplicateBounds = DuplicateBounds { horizon: i64::MAX / 2, keys_max: 1_000_000 };

fn options() -> Options {
    Options { partitions: 1, segment_bytes: 16 << 10, raw_horizon: Duration::ZERO, audit_horizon: Duration::ZERO, ..Options::default() }
}

/// The keys of an epoch: many, so that a few epochs fill a segment.
fn outcomes(epoch: u64) -> Vec<Outcome> {
    (0..100u32)
        .map(|i| {
            let mut key = [1; 16];
            key[..8].copy_from_slice(&epoch.to_be_bytes());
            key[8..12].copy_from_slice(&i.to_be_bytes());
            Outcome {
                at: Position { offset: epoch, ordinal: i },
                index: i,
                tenant: TenantId::new("acme").unwrap(),
                verdict: Verdict::Transformed,
                key,
            }
        })
        .collect()
}

/// Commits epochs; those after [`SNAPSHOT_AT`] refer to a snapshot of the state then. All of it is delivered.
fn fill(log: &EmbeddedLog, snapshots: &Snapshots) {
    let owner = log.fence(0).unwrap();
    let (mut state, mut snapshot) = (Duplicates::new(BOUNDS.horizon, BOUNDS.keys_max), None);
    for epoch in 1..=EPOCHS {
        let blocks = OutcomesBlock::build(epoch, &outcomes(epoch)).unwrap();
        let header = || {
            EpochHeader { epoch, recorded_at: epoch as i64, revision: 1, cut: CutParameters::default(), blocks: 1, audit: 1, bytes: 0 }
                .into_record()
        };
        let here = Position::default();
        let record = CommitRecord { snapshot: snapshot.clone(), ..commit_record(epoch, here, here) };
        let unit = CommitUnit {
            epoch,
            clean: vec![header()],
            audit: std::iter::once(header()).chain(blocks.into_iter().map(Block::into_record)).collect(),
            commit: Box::new(move |_| record.clone().into_record()),
            // The log refuses to be told more than `raw` holds; nothing here reads it.
            raw_next: 0,
        };
        log.commit(&owner, vec![unit]).unwrap();
        state.fold(epoch, epoch as i64, &outcomes(epoch));
        if epoch == SNAPSHOT_AT {
            let name = snapshots.put(0, epoch, &state.encode()).unwrap();
            let audit_next = log.bounds(LogName::Audit, 0).unwrap().end;
            snapshot = Some(SnapshotRef { epoch, name, audit_next, commit: epoch - 1 });
        }
    }
    let end = |name| log.bounds(name, 0).unwrap().end;
    log.store_cursor("parquet", 0, SinkCursor { clean: end(LogName::Clean), audit: end(LogName::Audit), epoch: EPOCHS + 1 }).unwrap();
}

#[test]
fn a_trim_before_the_take_over_leaves_what_it_needs() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for held in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        let path = folder.path().join("log");
        let log = EmbeddedLog::open(&path, options()).unwrap();
        let snapshots = Snapshots::new(store, runtime.handle().clone(), log.log_id());
        fill(&log, &snapshots);
        drop(log);

        // A start: the holds of the process before are gone, and a partition may wait long for its worker.
        let log = EmbeddedLog::open(&path, options()).unwrap();
        if held {
            hold_states(&*log, &(0..log.partitions()).collect::<Vec<_>>()).unwrap();
        }
        assert!(log.trim().unwrap() > 0, "there was something to trim");
        assert!(log.bounds(LogName::Audit, 0).unwrap().start > 0);
        let recovered = recover(&*log, &snapshots, 0, BOUNDS);
        if !held {
            assert!(recovered.is_err(), "without the holds this test would prove nothing");
            continue;
        }
        let state = recovered.unwrap().duplicates;
        assert_eq!(state.len() as u64, EPOCHS * 100);
        assert!((1..=EPOCHS).all(|e| outcomes(e).iter().all(|o| state.contains(&o.key))));
    }
}
