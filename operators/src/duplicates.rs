//! Which (source, event id) were transformed or filtered within the horizon: a fold over committed outcomes.
//!
//! Keys leave by whole epochs, in the order in which these were committed: those older than the horizon in recorded time,
//! and the oldest while there are more keys than allowed.

use hashbrown::HashSet;
use std::collections::VecDeque;
use tidegate_schemas::ids::Epoch;
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
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct EpochKeys {
    epoch: Epoch,
    recorded_at: Micros,
    keys: Vec<[u8; 16]>,
}

impl Duplicates {
    /// An empty state; `horizon` in microseconds of recorded time, `keys_max` keys in all.
    pub fn new(horizon: Micros, keys_max: usize) -> Self {
        Self { horizon, keys_max, keys: HashSet::new(), epochs: VecDeque::new() }
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

    /// The horizon in effect: recorded time between the oldest epoch with keys and `now`, at most the one set.
    pub fn horizon(&self, now: Micros) -> Micros {
        self.epochs.front().map_or(self.horizon, |e| (now - e.recorded_at).min(self.horizon))
    }

    /// Adds the outcomes of a committed epoch and lets go of what is too old.
    pub fn fold(&mut self, epoch: Epoch, recorded_at: Micros, outcomes: &[Outcome]) {
        let new = |o: &&Outcome| matches!(o.verdict, Verdict::Transformed | Verdict::Filtered) && o.key != NO_KEY;
        let keys: Vec<[u8; 16]> = outcomes.iter().filter(new).map(|o| o.key).filter(|k| self.keys.insert(*k)).collect();
        if !keys.is_empty() {
            self.epochs.push_back(EpochKeys { epoch, recorded_at, keys });
        }
        while let Some(oldest) = self.epochs.front()
            && (oldest.recorded_at < recorded_at - self.horizon || self.keys.len() > self.keys_max)
        {
            oldest.keys.iter().for_each(|k| {
                self.keys.remove(k);
            });
            self.epochs.pop_front();
        }
    }

    /// The state as bytes: for each epoch its number, recorded time, number of keys, keys.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.keys.len() * 16 + self.epochs.len() * 24);
        for epoch in &self.epochs {
            varint::put(&mut out, epoch.epoch);
            varint::put(&mut out, epoch.recorded_at as u64);
            varint::put(&mut out, epoch.keys.len() as u64);
            epoch.keys.iter().for_each(|k| out.extend_from_slice(k));
        }
        out
    }

    /// Reads [`Duplicates::encode`] back; `None` where the bytes are none.
    pub fn decode(horizon: Micros, keys_max: usize, mut bytes: &[u8]) -> Option<Self> {
        let mut state = Self::new(horizon, keys_max);
        while !bytes.is_empty() {
            let (epoch, recorded_at) = (varint::take(&mut bytes)?, varint::take(&mut bytes)? as Micros);
            let len = usize::try_from(varint::take(&mut bytes)?).ok()?.checked_mul(16)?;
            let (keys, rest) = bytes.split_at_checked(len)?;
            let keys: Vec<[u8; 16]> = keys.as_chunks::<16>().0.to_vec();
            state.keys.extend(keys.iter().copied());
            state.epochs.push_back(EpochKeys { epoch, recorded_at, keys });
            bytes = rest;
        }
        Some(state)
    }
}
