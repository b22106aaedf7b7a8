//! The duplicate state against a list that is filtered by the words of its description.

use proptest::prelude::*;
use tidegate_operators::duplicates::Duplicates;
use tidegate_schemas::ids::{Position, TenantId};
use tidegate_schemas::verdict::{Outcome, Verdict};

fn key(tenant: u8, id: u8) -> [u8; 16] {
    let mut key = [1; 16];
    (key[0], key[1]) = (tenant, id);
    key
}

fn outcome(tenant: u8, id: u8, verdict: u8) -> Outcome {
    Outcome {
        at: Position::default(),
        index: 0,
        tenant: TenantId::new(&format!("t{tenant}")).unwrap(),
        verdict: Verdict::from_u8(verdict).unwrap(),
        key: key(tenant, id),
    }
}

/// (epoch, recorded time, tenant, id) of every key that is kept.
#[derive(Default)]
struct Oracle(Vec<(u64, i64, u8, u8)>);

impl Oracle {
    fn fold(&mut self, epoch: u64, at: i64, outcomes: &[(u8, u8, u8)], horizon: i64, keys_max: usize) {
        for (tenant, id, verdict) in outcomes {
            let enters = matches!(Verdict::from_u8(*verdict).unwrap(), Verdict::Transformed | Verdict::Filtered);
            if enters && !self.contains(*tenant, *id) {
                self.0.push((epoch, at, *tenant, *id));
            }
        }
        self.0.retain(|e| e.1 >= at - horizon);
        while self.0.len() > keys_max {
            let of = |tenant: u8| self.0.iter().filter(|e| e.2 == tenant).count();
            let largest = (0..=u8::MAX).max_by_key(|t| (of(*t), *t)).unwrap();
            let oldest = self.0.iter().filter(|e| e.2 == largest).map(|e| e.0).min().unwrap();
            self.0.retain(|e| (e.2, e.0) != (largest, oldest));
        }
    }

    fn contains(&self, tenant: u8, id: u8) -> bool {
        self.0.iter().any(|e| (e.2, e.3) == (tenant, id))
    }
}

type Epochs = Vec<(i64, Vec<(u8, u8, u8)>)>;

fn epochs() -> impl Strategy<Value = Epochs> {
    prop::collection::vec((1i64..4, prop::collection::vec((0u8..5, 0u8..12, 0u8..4), 0..10)), 0..30)
}

proptest! {
    #[test]
    fn the_state_holds_what_the_oracle_holds(epochs in epochs(), horizon in 1i64..20, keys_max in 0usize..25) {
        let (mut state, mut oracle, mut now) = (Duplicates::new(horizon, keys_max), Oracle::default(), 1_000);
        for (n, (later, outcomes)) in epochs.iter().enumerate() {
            now += later;
            let epoch = n as u64 + 1;
            let all: Vec<_> = outcomes.iter().map(|(tenant, id, verdict)| outcome(*tenant, *id, *verdict)).collect();
            state.fold(epoch, now, &all);
            oracle.fold(epoch, now, outcomes, horizon, keys_max);
            prop_assert_eq!(state.len(), oracle.0.len());
            for (tenant, id) in (0..5).flat_map(|t| (0..12).map(move |i| (t, i))) {
                prop_assert_eq!(state.contains(&key(tenant, id)), oracle.contains(tenant, id));
            }
            // A snapshot at any moment goes on like the state itself.
            let read = Duplicates::decode(horizon, keys_max, &state.encode()).unwrap();
            prop_assert_eq!(read.encode(), state.encode());
            prop_assert_eq!(read.horizon(now), state.horizon(now));
            state = read;
        }
    }

    #[test]
    fn cut_bytes_are_no_state_or_a_smaller_one(epochs in epochs(), at in any::<prop::sample::Index>()) {
        let mut state = Duplicates::new(1_000, 1_000);
        for (n, (_, outcomes)) in epochs.iter().enumerate() {
            let all: Vec<_> = outcomes.iter().map(|(tenant, id, verdict)| outcome(*tenant, *id, *verdict)).collect();
            state.fold(n as u64 + 1, n as i64, &all);
        }
        let bytes = state.encode();
        if let Some(read) = Duplicates::decode(1_000, 1_000, &bytes[..at.index(bytes.len())]) {
            prop_assert!(read.len() < state.len());
        }
    }
}

#[test]
fn a_flood_of_one_tenant_takes_nothing_from_the_others() {
    let mut state = Duplicates::new(1_000_000, 100);
    state.fold(1, 10, &(0..20).map(|id| outcome(0, id, 0)).collect::<Vec<_>>());
    assert_eq!(state.horizon(500), 1_000_000);
    for epoch in 2..50 {
        state.fold(
            epoch,
            10 * epoch as i64,
            &(0..40)
                .map(|id| outcome(epoch as u8, id, 0))
                .map(|mut o| {
                    o.tenant = TenantId::new("flood").unwrap();
                    o
                })
                .collect::<Vec<_>>(),
        );
    }
    assert!((0..20).all(|id| state.contains(&key(0, id))), "twenty keys are below the equal share of fifty");
    assert_eq!(state.len(), 20 + 80, "the flood keeps what is left, in whole epochs");
    assert_eq!(state.horizon(490), 490 - 470, "the horizon in effect tells that keys of epoch 47 left early");
}
