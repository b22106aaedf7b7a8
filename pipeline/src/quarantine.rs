//! Quarantines on their way: a partition obeys its own from the epoch after the one that saw the faults, and says so in
//! every commit record until the catalog has them; each commit tells them to the task that publishes them, so neither a
//! crash nor a full queue loses one.
//!
//! ```text
//! settle ─▶ partition ─ commit record ─▶ (restart) ─▶ partition
//!               └─ each commit ─▶ publish ─▶ control ─▶ catalog of every process ─▶ partition forgets its own
//! ```

use crate::definitions::{Extent, Publisher};
use hashbrown::HashSet;
use std::sync::Arc;
use tidegate_operators::event::Bundle;
use tidegate_operators::stages::quarantine::{self, Failed, Streaks};
use tidegate_schemas::block::Attribution;
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::commit::Fault;
use tidegate_schemas::definition::{Definition, Quarantine};
use tidegate_schemas::fault;
use tidegate_schemas::ids::{Position, TenantId};
use tidegate_schemas::verdict::Code;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A partition's own quarantines, and the faults that may become some.
#[derive(Default)]
pub struct Quarantines {
    own: Vec<Quarantine>,
    streaks: Streaks,
}

impl Quarantines {
    /// Goes on with those of the last commit.
    pub fn after(last: Vec<Quarantine>) -> Self {
        Self { own: last, streaks: Streaks::default() }
    }

    /// Those that the catalog does not have, in the order in which they were made.
    pub fn own(&self) -> &[Quarantine] {
        &self.own
    }

    /// Forgets what the catalog of an epoch has, or has no version for any more.
    pub fn forget_known(&mut self, catalog: &Catalog) {
        self.own.retain(|q| {
            let published = catalog.template(&q.owner, q.template.as_str()).is_some_and(|t| t.version == q.version);
            published && catalog.quarantine(&q.tenant, &q.version).is_none()
        });
    }

    /// Refuses events of an epoch under its catalog.
    pub fn apply(&self, bundles: &mut [Bundle], catalog: &Catalog) {
        let own = |tenant: &TenantId, version: &str| self.own.iter().find(|q| q.tenant == *tenant && q.version == version);
        quarantine::apply(bundles, |tenant, version| catalog.quarantine(tenant, version).map(|q| &**q).or_else(|| own(tenant, version)));
    }

    /// Looks at the faults of an epoch that was settled: from the next one on they count.
    pub fn judge(&mut self, bundles: &[Bundle], faults: &[Fault], of: &Attribution) {
        for failed in self.streaks.count(bundles, faults) {
            self.add(failed, of);
        }
    }

    /// Quarantines the version of an event at which the process died.
    pub fn add_crashed(&mut self, bundles: &[Bundle], at: Position, of: &Attribution) {
        let bundle = bundles.iter().find(|b| b.events.iter().any(|e| e.origin.at == at));
        if let Some(Bundle { source: Some(source), plan: Some(plan), .. }) = bundle {
            let (tenant, template) = (source.tenant.clone(), Arc::clone(&plan.template));
            self.add(Failed { tenant, template, at, code: Code::Crashed.as_str().into() }, of);
        }
    }

    /// Adds one, unless it is there.
    fn add(&mut self, failed: Failed, of: &Attribution) {
        let Failed { tenant, template, at, code } = failed;
        let quarantine = Quarantine {
            tenant,
            owner: template.template.owner.clone(),
            template: template.template.id.clone(),
            version: template.version.clone(),
            cause: code,
            partition: of.partition,
            epoch: of.epoch,
            at,
        };
        if self.own.iter().any(|q| q.tenant == quarantine.tenant && q.version == quarantine.version) {
            return;
        }
        metrics::counter!("tidegate_quarantines_total").increment(1);
        tracing::warn!(
            tenant = %quarantine.tenant,
            template = quarantine.label(),
            cause = quarantine.cause,
            partition = quarantine.partition,
            offset = quarantine.at.offset,
            ordinal = quarantine.at.ordinal,
            "template version quarantined for this tenant: its events become rejections until a corrected version is published"
        );
        self.own.push(quarantine);
    }
}

/// Publishes what partitions tell, as the actor `system`. What cannot be published now is told again.
pub async fn publish(mut told: mpsc::Receiver<Quarantine>, publisher: Publisher, stop: CancellationToken) {
    // The log says once that a version cannot be published; it is tried as long as it is told.
    let mut failing: HashSet<String> = HashSet::new();
    while let Some(Some(quarantine)) = stop.run_until_cancelled(told.recv()).await {
        let catalog = publisher.follower.current();
        let published = catalog.template(&quarantine.owner, quarantine.template.as_str()).is_some_and(|t| t.version == quarantine.version);
        if !published || catalog.quarantine(&quarantine.tenant, &quarantine.version).is_some() {
            continue;
        }
        let label = quarantine.label();
        fault::point("quarantine.before_publish");
        match publisher.publish(vec![Definition::Quarantine(quarantine)], Extent::Part, "system").await {
            Ok(_) => {
                failing.remove(&label);
            }
            Err(error) => {
                if failing.len() < tidegate_schemas::limits::QUARANTINES_TOLD_MAX && failing.insert(label.clone()) {
                    let error = tidegate_schemas::causes::chain(&error);
                    tracing::warn!(template = label, error, "quarantine is not in control yet: partitions that saw the faults obey it");
                }
            }
        }
    }
}
