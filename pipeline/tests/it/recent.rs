//! What is kept of the last commits answers as the log itself would.

use crate::log::commit_record;
use crate::support::{Random, seed};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidegate_pipeline::commits::{Covering, covering};
use tidegate_pipeline::log::embedded::{EmbeddedLog, Options};
use tidegate_pipeline::recent::RecentCommits;
use tidegate_schemas::ids::{Epoch, Position, TenantId};
use tidegate_schemas::log::{CommitUnit, EventLog, Owner};

/// The epoch whose commit covers a position; nothing where it is ahead, as far as the log goes.
fn epoch(found: Covering) -> Option<Epoch> {
    match found {
        Covering::Found(commit) => Some(commit.epoch),
        Covering::Ahead => None,
        Covering::Gone => panic!("nothing was trimmed"),
    }
}

fn commit(log: &EmbeddedLog, owner: &Owner, epoch: Epoch, raw_from: Position, raw_to: Position) {
    let commit = Box::new(move |_: &_| commit_record(epoch, raw_from, raw_to).into_record());
    log.commit(owner, vec![CommitUnit { epoch, clean: vec![], audit: vec![], commit, raw_next: 0 }]).unwrap();
}

#[test]
fn recent_commits_answer_as_the_log_does() {
    let mut random = Random(seed());
    let tenant = TenantId::new("acme").unwrap();
    for begun_after in [0, 1, 20] {
        let folder = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(folder.path(), Options { partitions: 2, ..Options::default() }).unwrap();
        let owner = log.fence(0).unwrap();
        let recent = Arc::new(RecentCommits::new(Arc::clone(&log) as _));
        let stop = Arc::new(AtomicBool::new(false));
        let mut following = None;
        let mut at = Position::default();
        for number in 1..=40 {
            if number > begun_after && following.is_none() {
                let (recent, stop) = (Arc::clone(&recent), Arc::clone(&stop));
                following = Some(std::thread::spawn(move || recent.follow(&stop)));
                std::thread::sleep(Duration::from_millis(60));
            }
            // Empty epochs, ends inside a record, and gaps that were accepted.
            let from = if random.below(10) == 0 { Position { offset: at.offset + 2, ordinal: 0 } } else { at };
            at = match random.below(4) {
                0 => from,
                1 => Position { offset: from.offset, ordinal: from.ordinal + 3 },
                _ => Position { offset: from.offset + 1 + random.below(3), ordinal: random.below(3) as u32 },
            };
            commit(&log, &owner, number, from, at);
        }
        let last = Position { offset: at.offset + 1, ordinal: 0 };
        commit(&log, &owner, 41, at, last);
        // It follows a moment behind.
        let waited = Instant::now();
        for offset in 0..=last.offset {
            for ordinal in 0..8 {
                let at = Position { offset, ordinal };
                let known = epoch(covering(&*log, 0, &tenant, at).unwrap());
                while epoch(recent.covering(0, &tenant, at).unwrap()) != known {
                    assert!(waited.elapsed() < Duration::from_secs(60), "{at:?} is of {known:?}, followed after {begun_after} commits");
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        assert_eq!(epoch(recent.covering(1, &tenant, at).unwrap()), None, "another partition has no commits");
        stop.store(true, Ordering::Relaxed);
        following.unwrap().join().unwrap();
    }
}
