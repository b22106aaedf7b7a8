//! Who may use how much of an epoch's time: what events of a tenant cost, as learned, and what they do use, as measured
//! while the epoch runs.
//!
//! Each tenant's events run in segments, in raw order: a few, twice as many, and so on. Before each further segment its
//! tenant must have used less than an equal share of the epoch's time, or than all others left over; else it *stops*: what
//! is left of its events is held, and comes with later epochs. So one tenant takes about the time of one epoch, whatever its
//! events cost. Tenants with little work go first.

use crate::epoch::EpochInput;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_operators::event::Bundle;
use tidegate_schemas::ids::{Position, TenantId};
use tidegate_schemas::limits::{COSTS_MAX, SEGMENT_EVENTS};
use tidegate_schemas::verdict::StageName;

/// What an event costs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Script steps.
    pub steps: f64,
    /// Seconds of its scripts.
    pub seconds: f64,
}

/// What events cost of late, by tenant. It is lost with the process, and learned again: what an epoch held stands in its
/// commit record.
#[derive(Debug, Default)]
pub struct Costs(HashMap<TenantId, Cost>);

impl Costs {
    /// An average event of a tenant; nothing is known of a new one.
    pub fn of(&self, tenant: &TenantId) -> Cost {
        self.0.get(tenant).copied().unwrap_or_default()
    }

    /// Learns from an epoch: at once where events became expensive, in steps of a fifth where they became cheap.
    pub fn learn(&mut self, tenant: &TenantId, events: u64, steps: u64, time: Duration) {
        if events == 0 {
            return;
        }
        let (each, events) = (self.of(tenant), events as f64);
        let follow = |old: f64, new: f64| if new > old { new } else { old + (new - old) * 0.2 };
        let cost = Cost { steps: follow(each.steps, steps as f64 / events), seconds: follow(each.seconds, time.as_secs_f64() / events) };
        if self.0.len() >= COSTS_MAX {
            self.0.clear();
        }
        self.0.insert(tenant.clone(), cost);
    }
}

/// Events of one bundle that lie in one of their tenant's segments.
#[derive(Debug)]
pub struct Portion {
    /// The events.
    pub bundle: Bundle,
    /// Whose they are.
    tenant: TenantId,
    /// The number of the segment, from 0.
    segment: u32,
}

/// The time of one epoch, as far as it is used.
#[derive(Debug, Default)]
pub struct Shares {
    time: Duration,
    spent: Duration,
    tenants: HashMap<TenantId, Share>,
    /// The tenant furthest behind: its first segment always runs.
    oldest: Option<TenantId>,
}

#[derive(Debug, Default)]
struct Share {
    spent: Duration,
    /// The segment that has begun, and in which stage: it runs to its end.
    begun: Option<(StageName, u32)>,
    /// The first segment that does not run.
    stopped: Option<u32>,
}

/// What came of the shares.
#[derive(Debug, Default)]
pub struct Held {
    /// Tenants that stopped, with the places of their next events.
    pub from: BTreeMap<TenantId, Position>,
    /// Time of scripts, by tenant.
    pub times: HashMap<TenantId, Duration>,
}

/// An epoch may take so many times what its scripts are to take, before nothing more of it runs.
const OVERRUN: u32 = 3;

impl Shares {
    /// The shares of an epoch, and its bundles cut into portions in the order in which they run.
    pub fn of(input: &EpochInput, time: Duration, bundles: Vec<Bundle>) -> (Self, Vec<Portion>) {
        let mut order: Vec<TenantId> = Vec::new();
        let mut by_tenant: HashMap<TenantId, Vec<Bundle>> = HashMap::new();
        for bundle in bundles {
            // A bundle has events, and all of them are one tenant's.
            let Some(tenant) = bundle.events.first().map(|e| e.envelope.tenant.clone()) else { continue };
            if !by_tenant.contains_key(&tenant) {
                order.push(tenant.clone());
            }
            by_tenant.entry(tenant).or_default().push(bundle);
        }
        let seconds = |tenant: &TenantId| {
            let events: usize = by_tenant.get(tenant).into_iter().flatten().map(|b| b.events.len()).sum();
            input.costs.get(tenant).copied().unwrap_or_default() * events as f64
        };
        order.sort_by(|a, b| seconds(a).total_cmp(&seconds(b)));
        let equal = time.as_secs_f64() / order.len().max(1) as f64;
        let (mut portions, mut tenants) = (Vec::new(), HashMap::new());
        for tenant in order {
            let cost = input.costs.get(&tenant).copied().unwrap_or_default().max(f64::MIN_POSITIVE);
            let first = ((equal / cost) as u64).clamp(1, SEGMENT_EVENTS as u64) as usize;
            segments(&tenant, by_tenant.remove(&tenant).unwrap_or_default(), first, &mut portions);
            tenants.insert(tenant, Share::default());
        }
        let oldest = input.behind.iter().min_by_key(|b| b.from).map(|b| b.tenant.clone());
        (Self { time, spent: Duration::ZERO, tenants, oldest }, portions)
    }

    /// Whether a portion may run in a stage. Where it may not, nothing of its tenant that comes after it may.
    pub fn may_run(&mut self, stage: StageName, portion: &Portion) -> bool {
        let equal = self.time / u32::try_from(self.tenants.len().max(1)).unwrap_or(u32::MAX);
        let left_over = self.time.saturating_sub(self.spent);
        let over = self.spent >= self.time * OVERRUN && (portion.segment > 0 || self.oldest.as_ref() != Some(&portion.tenant));
        let Some(share) = self.tenants.get_mut(&portion.tenant) else { return true };
        let begins = share.begun.replace((stage, portion.segment)) != Some((stage, portion.segment));
        let used = portion.segment > 0 && share.spent >= equal.max(left_over);
        if begins && (over || used) && share.stopped.is_none_or(|stopped| portion.segment < stopped) {
            share.stopped = Some(portion.segment);
        }
        share.stopped.is_none_or(|stopped| portion.segment < stopped)
    }

    /// A portion ran for so long.
    pub fn spend(&mut self, portion: &Portion, time: Duration) {
        self.spent += time;
        if let Some(share) = self.tenants.get_mut(&portion.tenant) {
            share.spent += time;
        }
    }

    /// The bundles that have run, and what is held.
    pub fn settle(self, portions: Vec<Portion>) -> (Vec<Bundle>, Held) {
        let (mut bundles, mut held) = (Vec::with_capacity(portions.len()), Held::default());
        for portion in portions {
            let stopped = self.tenants.get(&portion.tenant).and_then(|s| s.stopped);
            if stopped.is_none_or(|stopped| portion.segment < stopped) {
                bundles.push(portion.bundle);
            } else if let Some(first) = portion.bundle.events.first().map(|e| e.origin.at) {
                held.from.entry(portion.tenant).and_modify(|at| *at = first.min(*at)).or_insert(first);
            }
        }
        held.times = self.tenants.into_iter().map(|(tenant, share)| (tenant, share.spent)).collect();
        (bundles, held)
    }
}

/// Cuts one tenant's bundles where its segments of `first`, twice as many, … events end.
fn segments(tenant: &TenantId, bundles: Vec<Bundle>, first: usize, portions: &mut Vec<Portion>) {
    let total: usize = bundles.iter().map(|b| b.events.len()).sum();
    let mut ends: Vec<Position> = Vec::new();
    if total > first {
        let mut places: Vec<Position> = bundles.iter().flat_map(|b| b.events.iter().map(|e| e.origin.at)).collect();
        places.sort_unstable();
        let (mut size, mut end) = (first, first);
        while let Some(place) = places.get(end) {
            ends.push(*place);
            size *= 2;
            end += size;
        }
    }
    let mut parts: Vec<(usize, Bundle)> = Vec::with_capacity(bundles.len() + ends.len());
    for mut bundle in bundles {
        // From the last segment on, so that an event moves once.
        for (segment, end) in ends.iter().enumerate().rev() {
            let cut = bundle.events.partition_point(|e| e.origin.at < *end);
            if cut < bundle.events.len() {
                let events = bundle.events.split_off(cut);
                parts.push((segment + 1, Bundle::new(bundle.source.clone(), bundle.plan.clone(), events)));
            }
        }
        if !bundle.events.is_empty() {
            parts.push((0, bundle));
        }
    }
    parts.sort_by_key(|(segment, _)| *segment);
    portions.extend(parts.into_iter().map(|(segment, bundle)| Portion { bundle, tenant: tenant.clone(), segment: segment as u32 }));
}
