//! What the benches measure scripts against is the same work.

use std::path::Path;
use tidegate_benches::stages::{Plan, catalog, run};
use tidegate_benches::workload::Workload;

#[test]
fn scripts_and_rules_give_the_rows_that_are_written_by_hand() {
    let definitions = Path::new(env!("CARGO_MANIFEST_DIR")).join("definitions");
    for (workload, tenants) in [(Workload::W1, 1), (Workload::W2, 1), (Workload::W3, 1), (Workload::W3, 3)] {
        let plan = Plan { workload, events: 600, epoch: 300, tenants, burst: 50 };
        let cost = run(&catalog(&definitions, tenants).unwrap(), &plan).unwrap();
        assert_eq!(cost.rows, (300..900).filter(|n| !workload.is_bad(*n)).count() as u64, "{workload:?}");
    }
}
