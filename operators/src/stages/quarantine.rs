//! Template versions that failed the host too often for one tenant. Their events are refused after `open` and before any
//! script, so that they cost nothing and can be tried again under a better version.

use crate::event::Bundle;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_schemas::catalog::PinnedTemplate;
use tidegate_schemas::commit::Fault;
use tidegate_schemas::definition::Quarantine;
use tidegate_schemas::ids::{Position, TenantId};
use tidegate_schemas::limits::{CRASHES_MAX, QUARANTINE_FAULTS, SCRIPT_COMPILED_MAX};
use tidegate_schemas::verdict::{Code, Rejection, StageName};

/// Refuses the events that would run a quarantined version; `of` knows which are.
pub fn apply<'q>(bundles: &mut [Bundle], of: impl Fn(&TenantId, &str) -> Option<&'q Quarantine>) {
    for bundle in bundles {
        let Bundle { source: Some(source), plan: Some(plan), events, .. } = bundle else { continue };
        let Some(quarantine) = of(&source.tenant, &plan.template.version) else { continue };
        let detail = format!(
            "template {} is quarantined since its scripts ended with {} at partition {}, offset {}; publish a corrected version",
            quarantine.label(),
            quarantine.cause,
            quarantine.partition,
            quarantine.at.offset,
        );
        for event in events.iter_mut().filter(|e| e.is_at(StageName::Decode)) {
            event.reject(Rejection::new(StageName::Open, Code::Quarantined, detail.clone()));
        }
    }
}

/// Refuses an event at which the process died too often.
pub fn refuse_crashed(bundles: &mut [Bundle], at: Position) {
    for event in bundles.iter_mut().flat_map(|b| &mut b.events).filter(|e| e.origin.at == at && e.is_at(StageName::Decode)) {
        let detail = format!("the process died {CRASHES_MAX} times in a row while this event's scripts ran and nothing else did");
        event.reject(Rejection::new(StageName::Open, Code::Crashed, detail));
    }
}

/// A version that failed the host once too often.
#[derive(Debug)]
pub struct Failed {
    /// For whom.
    pub tenant: TenantId,
    /// The version.
    pub template: Arc<PinnedTemplate>,
    /// The last of the events.
    pub at: Position,
    /// Code of its fault.
    pub code: String,
}

/// Faults of the host in a row, by tenant and template version: versions without any are not here.
#[derive(Debug, Default)]
pub struct Streaks(HashMap<(TenantId, String), usize>);

impl Streaks {
    /// Counts an epoch's faults; an event in between that ended otherwise ends a streak. A version is told once its streak
    /// has [`QUARANTINE_FAULTS`], and counted anew from there.
    pub fn count(&mut self, bundles: &[Bundle], faults: &[Fault]) -> Vec<Failed> {
        if faults.is_empty() && self.0.is_empty() {
            return Vec::new();
        }
        let codes: HashMap<Position, &str> = faults.iter().map(|f| (f.at, f.code.as_str())).collect();
        let mut ran: BTreeMap<(&TenantId, &str), Ran<'_>> = BTreeMap::new();
        for bundle in bundles {
            let (Some(source), Some(plan)) = (&bundle.source, &bundle.plan) else { continue };
            let of =
                ran.entry((&source.tenant, &plan.template.version)).or_insert_with(|| Ran { template: &plan.template, events: Vec::new() });
            of.events.extend(bundle.events.iter().filter(|e| e.has_run()).map(|e| e.origin.at));
        }
        let mut told = Vec::new();
        for ((tenant, version), Ran { template, mut events }) in ran {
            events.sort_unstable();
            let key = (tenant.clone(), version.to_owned());
            let before = self.0.remove(&key).unwrap_or(0);
            match streak(before, &events, &codes) {
                Ok(0) => {}
                Ok(streak) => {
                    if self.0.len() >= SCRIPT_COMPILED_MAX {
                        self.0.clear();
                    }
                    self.0.insert(key, streak);
                }
                Err((at, code)) => {
                    told.push(Failed { tenant: tenant.clone(), template: Arc::clone(template), at, code: code.to_owned() });
                }
            }
        }
        told
    }
}

/// Events of a version that came to an end after `open`.
struct Ran<'b> {
    template: &'b Arc<PinnedTemplate>,
    events: Vec<Position>,
}

/// Faults in a row at the end of a version's events, or the event that was one too many.
fn streak<'f>(before: usize, events: &[Position], codes: &HashMap<Position, &'f str>) -> Result<usize, (Position, &'f str)> {
    events.iter().try_fold(before, |streak, at| match codes.get(at) {
        Some(code) if streak + 1 >= QUARANTINE_FAULTS => Err((*at, *code)),
        Some(_) => Ok(streak + 1),
        None => Ok(0),
    })
}
