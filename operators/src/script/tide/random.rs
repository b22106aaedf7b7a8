//! `tide.random`: numbers that follow from an event's identity alone, so a replay draws the same ones.

use crate::event::Event;
use std::cell::Cell;
use tidegate_schemas::verdict::StageName;

/// The generator of a host: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Default)]
pub(crate) struct Random(Cell<u64>);

/// What an event's numbers begin with: its key, or its place where it has none; and the stage at which scripts are
/// entered, so that those on both sides of a native stage do not draw the same.
pub(crate) fn seed(event: &Event, from: StageName) -> u64 {
    let (high, low) = event.key.split_at(8);
    let word = |bytes: &[u8]| bytes.iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    let place = match event.key.iter().all(|b| *b == 0) {
        true => mixed(event.origin.at.offset) ^ u64::from(event.origin.at.ordinal),
        false => word(low),
    };
    mixed(mixed(word(high) ^ mixed(place)) ^ from as u64)
}

impl Random {
    /// An event begins.
    pub(crate) fn start(&self, seed: u64) {
        self.0.set(seed);
    }

    fn next(&self) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
        mixed(self.0.get())
    }

    /// From 0 up to 1, without 1.
    pub(super) fn unit(&self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Below `bound`, by Lemire's multiplication: its bias is below 2⁻¹¹ for the largest bound and nothing for usual ones.
    pub(super) fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
