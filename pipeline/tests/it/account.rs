//! What adds up: a jump over requests is a gap where its commit says so, and a difference where nobody does.

use crate::log::commit_record;
use tidegate_pipeline::account;
use tidegate_pipeline::log::embedded::{EmbeddedLog, Options};
use tidegate_pipeline::partition::RAW_GAP;
use tidegate_schemas::commit::{CommitRecord, Fault};
use tidegate_schemas::ids::Position;
use tidegate_schemas::log::{CommitUnit, EventLog};

#[test]
fn a_jump_over_requests_is_a_gap_only_where_it_was_accepted() {
    let (accepted, elsewhere) = (Position { offset: 4, ordinal: 2 }, Position { offset: 3, ordinal: 0 });
    for (at, gaps, faults) in [(Some(accepted), 1, 0), (Some(elsewhere), 0, 1), (None, 0, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(folder.path(), Options { partitions: 1, ..Options::default() }).unwrap();
        let owner = log.fence(0).unwrap();
        for (epoch, raw_from, raw_to) in
            [(1, Position::default(), accepted), (2, Position { offset: 9, ordinal: 0 }, Position { offset: 9, ordinal: 0 })]
        {
            let told = at.filter(|_| epoch == 2).map(|at| Fault { at, code: RAW_GAP.into() });
            let record = CommitRecord { faults: told.into_iter().collect(), ..commit_record(epoch, raw_from, raw_to) };
            let commit = Box::new(move |_: &_| record.clone().into_record());
            log.commit(&owner, vec![CommitUnit { epoch, clean: vec![], audit: vec![], commit, raw_next: 0 }]).unwrap();
        }
        let account = account::read(&*log).unwrap();
        assert_eq!((account.gaps.len(), account.faults.len()), (gaps, faults), "{at:?}: {:?} {:?}", account.gaps, account.faults);
    }
}
