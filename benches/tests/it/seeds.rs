//! Every committed seed passes its function: those to begin from, and what fuzzing found once.

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use tidegate_benches::fuzz::{TARGETS, seeds};

/// Bytes of all seeds.
const SEEDS_BYTES_MAX: usize = 300_000;

#[test]
fn every_seed_passes() {
    let mut failed = Vec::new();
    for (name, target) in TARGETS {
        let seeds = seeds::of(name).unwrap();
        assert!(!seeds.is_empty(), "{name} has no seed");
        failed.extend(seeds.iter().filter(|(_, bytes)| catch_unwind(|| target(bytes)).is_err()).map(|(seed, _)| format!("{name}/{seed}")));
        // A parser meets nothing and less than it expects.
        for len in 0..3 {
            target(&seeds.values().next().unwrap()[..len]);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn targets_and_seeds_belong_together() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let within = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(seeds::folder().join("..").join(folder)).unwrap();
        entries.map(|e| e.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(within("seeds"), names, "folders of seeds");
    assert_eq!(within("targets"), names, "fuzz targets");
    let bytes: usize = TARGETS.iter().flat_map(|(name, _)| seeds::of(name).unwrap()).map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes <= SEEDS_BYTES_MAX, "{bytes} bytes of seeds");
}
