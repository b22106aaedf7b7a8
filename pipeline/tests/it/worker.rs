//! What a worker waits for keeps all its partitions waiting: what a broker that is away would not answer is asked elsewhere.

use crate::assignment::around;
use crate::between::{Between, Through};
use crate::log::publish;
use crate::support::wait_for;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tidegate_pipeline::assignment::Assignment;
use tidegate_pipeline::commits;
use tidegate_pipeline::log::embedded::{EmbeddedLog, Options};
use tidegate_pipeline::worker::Workers;
use tidegate_schemas::ids::Partition;
use tidegate_schemas::log::*;

/// Notes which threads ask where `raw` begins and ends.
struct Noting {
    inner: Arc<EmbeddedLog>,
    asked_by: Mutex<BTreeSet<String>>,
}

impl Between for Noting {
    fn inner(&self) -> &EmbeddedLog {
        &self.inner
    }
    fn bounds(&self, log: LogName, partition: Partition) -> Result<Range<u64>, LogError> {
        if log == LogName::Raw {
            self.asked_by.lock().unwrap().insert(std::thread::current().name().unwrap_or_default().to_owned());
        }
        self.inner.bounds(log, partition)
    }
}

#[test]
fn no_worker_asks_where_raw_ends() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), tokio::runtime::Runtime::new().unwrap());
    let inner = EmbeddedLog::open(dir.path(), Options { partitions: 2, ..Options::default() }).unwrap();
    let log = Arc::new(Through(Noting { inner, asked_by: Mutex::default() }));
    // One partition fails again and again, at what is no request; its neighbour goes on.
    publish(&*log, LogName::Raw, 0, &["no request"]);
    let assignment = Arc::new(Assignment::new(1));
    assignment.add(0..2);
    let began = Instant::now();
    let workers = Workers::start(&around(log.clone(), &assignment, dir.path(), &runtime)).unwrap();
    wait_for("failures, and a lag that is told", Duration::from_secs(60), || {
        let stopped = assignment.all_stopped();
        (stopped.iter().any(|s| s.tries > 2) && began.elapsed() > Duration::from_secs(2)).then_some(())
    });
    workers.stop();
    assert!(commits::last(&*log, 1).unwrap().is_some_and(|c| c.epoch > 10));
    let asked_by: Vec<String> = log.0.asked_by.lock().unwrap().iter().cloned().collect();
    assert_eq!(asked_by, ["commit-1", "take-over-0", "take-over-1"]);
}
