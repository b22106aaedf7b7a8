//! Which (source, event id) were transformed or filtered within the horizon: a fold over committed outcomes.
//!
//! Keys leave by whole epochs, in the order in which these were committed: those older than the horizon in recorded time;
//! and while there are more keys than allowed, the tenant with the most keys loses those of its oldest epoch. So tenants
//! under the equal share keep their whole horizon whatever the others send, and what they leave is shared by the rest
//! (max-min fairness).

use hashbrown::HashSet;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tidegate_schemas::ids::{Epoch, TenantId};
use tidegate_schemas::time::Micros;
use tidegate_schemas::varint;
use tidegate_schemas::verdict::{Outcome, Verdict};

use crate::stages::open::NO_KEY;

/// The duplicate state of one partition.
#[derive(Debug)]
pub struct Duplicates {
    horizon: Micros,
    keys_max: usize,
    keys: HashSet<[u8; 16]>,
    epochs: VecDeque<EpochKeys>,
    tenants: BTreeMap<TenantId, Share>,
    /// The tenants by number of keys, the largest last.
    largest: BTreeSet<(usize, TenantId)>,
    /// Recorded time of the newest keys that left before their horizon.
    dropped_early: Option<Micros>,
}

#[derive(Debug)]
struct EpochKeys {
    epoch: Epoch,
    recorded_at: Micros,
    tenants: BTreeMap<TenantId, Vec<[u8; 16]>>,
}

/// What one tenant has in the state.
#[derive(Debug, Default)]
struct Share {
    keys: usize,
    /// Epochs in which it has keys, the oldest first.
    epochs: VecDeque<Epoch>,
}

impl Duplicates {
    /// An empty state; `horizon` in microseconds of recorded time, `keys_max` keys in all.
    pub fn new(horizon: Micros, keys_max: usize) -> Self {
        Self {
            horizon,
            keys_max,
            keys: HashSet::new(),
            epochs: VecDeque::new(),
            tenants: BTreeMap::new(),
            largest: BTreeSet::new(),
            dropped_early: None,
        }
    }

    /// Whether the key is known.
    pub fn contains(&self, key: &[u8; 16]) -> bool {
        self.keys.contains(key)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The horizon in effect at `now` for the tenant that has the shortest: the one set, or the time since the newest
    /// keys that had to leave before theirs.
    pub fn horizon(&self, now: Micros) -> Micros {
        self.dropped_early.map_or(self.horizon, |dropped| now.saturating_sub(dropped).min(self.horizon))
    }

    /// Adds the outcomes of a committed epoch and lets go of what is too old or too much.
    pub fn fold(&mut self, epoch: Epoch, recorded_at: Micros, outcomes: &[Outcome]) {
        let mut tenants: BTreeMap<TenantId, Vec<[u8; 16]>> = BTreeMap::new();
        for run in outcomes.chunk_by(|a, b| a.tenant == b.tenant) {
            let seen = |o: &&Outcome| matches!(o.verdict, Verdict::Transformed | Verdict::Filtered) && o.key != NO_KEY;
            let mut new = run.iter().filter(seen).map(|o| o.key).filter(|k| self.keys.insert(*k)).peekable();
            if new.peek().is_some() {
                tenants.entry(run[0].tenant.clone()).or_default().extend(new);
            }
        }
        if !tenants.is_empty() {
            self.enter(EpochKeys { epoch, recorded_at, tenants });
        }
        let oldest = recorded_at.saturating_sub(self.horizon);
        while let Some(gone) = self.epochs.pop_front_if(|e| e.recorded_at < oldest) {
            gone.tenants.iter().for_each(|(tenant, keys)| self.leave(tenant, keys));
        }
        while self.keys.len() > self.keys_max {
            let Some((_, tenant)) = self.largest.last().cloned() else { break };
            self.shrink(&tenant);
        }
        while self.epochs.pop_front_if(|e| e.tenants.is_empty()).is_some() {}
    }

    /// Accounts an epoch whose keys are in the set.
    fn enter(&mut self, epoch: EpochKeys) {
        for (tenant, keys) in &epoch.tenants {
            let share = self.tenants.entry(tenant.clone()).or_default();
            self.largest.remove(&(share.keys, tenant.clone()));
            share.keys += keys.len();
            share.epochs.push_back(epoch.epoch);
            self.largest.insert((share.keys, tenant.clone()));
        }
        self.epochs.push_back(epoch);
    }

    /// Takes the keys of a tenant's oldest epoch out of the set and out of the account.
    fn leave(&mut self, tenant: &TenantId, keys: &[[u8; 16]]) {
        keys.iter().for_each(|k| {
            self.keys.remove(k);
        });
        let Some(share) = self.tenants.get_mut(tenant) else { return };
        self.largest.remove(&(share.keys, tenant.clone()));
        share.keys -= keys.len();
        share.epochs.pop_front();
        if share.epochs.is_empty() {
            self.tenants.remove(tenant);
        } else {
            self.largest.insert((share.keys, tenant.clone()));
        }
    }

    /// Drops the keys of a tenant's oldest epoch before their time.
    fn shrink(&mut self, tenant: &TenantId) {
        let oldest = self.tenants.get(tenant).and_then(|share| share.epochs.front()).copied();
        let found = oldest.and_then(|epoch| self.epochs.binary_search_by_key(&epoch, |e| e.epoch).ok());
        let Some(place) = found else { panic!("tenant {tenant} is accounted for an epoch that is not there") };
        let epoch = &mut self.epochs[place];
        self.dropped_early = self.dropped_early.max(Some(epoch.recorded_at));
        let keys = epoch.tenants.remove(tenant).unwrap_or_default();
        self.leave(tenant, &keys);
    }

    /// The state as bytes: whether and when keys last left early, then for each epoch its number, recorded time, number of tenants,
    /// and for each of these its id and keys, each with its length.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.keys.len() * 16 + self.epochs.len() * 48);
        varint::put(&mut out, u64::from(self.dropped_early.is_some()));
        varint::put(&mut out, self.dropped_early.unwrap_or_default() as u64);
        for epoch in &self.epochs {
            varint::put(&mut out, epoch.epoch);
            varint::put(&mut out, epoch.recorded_at as u64);
            varint::put(&mut out, epoch.tenants.len() as u64);
            for (tenant, keys) in &epoch.tenants {
                varint::put(&mut out, tenant.as_str().len() as u64);
                out.extend_from_slice(tenant.as_str().as_bytes());
                varint::put(&mut out, keys.len() as u64);
                keys.iter().for_each(|k| out.extend_from_slice(k));
            }
        }
        out
    }

    /// Reads [`Duplicates::encode`] back; `None` where the bytes are none.
    pub fn decode(horizon: Micros, keys_max: usize, mut bytes: &[u8]) -> Option<Self> {
        let mut state = Self::new(horizon, keys_max);
        let (is_some, dropped) = (varint::take(&mut bytes)? == 1, varint::take(&mut bytes)? as Micros);
        state.dropped_early = is_some.then_some(dropped);
        while !bytes.is_empty() {
            let (epoch, recorded_at) = (varint::take(&mut bytes)?, varint::take(&mut bytes)? as Micros);
            if state.epochs.back().is_some_and(|last| last.epoch >= epoch) {
                return None;
            }
            let mut tenants = BTreeMap::new();
            for _ in 0..varint::take(&mut bytes)? {
                let tenant = TenantId::new(std::str::from_utf8(take(&mut bytes, 1)?).ok()?).ok()?;
                let keys = take(&mut bytes, 16)?.as_chunks::<16>().0.to_vec();
                if keys.is_empty() || !keys.iter().all(|k| state.keys.insert(*k)) || tenants.insert(tenant, keys).is_some() {
                    return None;
                }
            }
            state.enter(EpochKeys { epoch, recorded_at, tenants });
        }
        Some(state)
    }
}

/// Takes a number off the front, and so many items of `size` bytes.
fn take<'a>(bytes: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let len = usize::try_from(varint::take(bytes)?).ok()?.checked_mul(size)?;
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}
