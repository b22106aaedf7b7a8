//! Tenants that are behind: whatever is held, each tenant's events come once and in raw order, also after a crash; and
//! nobody gets more of an epoch's time than stands to him.

use crate::log::commit_record;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_operators::event::Bundle;
use tidegate_operators::stages::open;
use tidegate_pipeline::epoch::{EpochBounds, EpochInput, Gathering};
use tidegate_pipeline::shares::Shares;
use tidegate_schemas::block::Attribution;
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::commit::CommitRecord;
use tidegate_schemas::envelope::{Envelope, Span};
use tidegate_schemas::ids::*;
use tidegate_schemas::log::Entry;
use tidegate_schemas::verdict::StageName;

const LOG: LogId = LogId([7; 16]);
const TENANTS: [&str; 4] = ["acme", "beta", "gamma", "delta"];

/// A request of so many events of a tenant.
fn entry(offset: u64, tenant: &str, events: u32) -> Entry {
    let value = Bytes::from(vec![b'7'; events as usize]);
    let envelope = Envelope {
        tenant: TenantId::new(tenant).unwrap(),
        node: NodeId::new(tenant).unwrap(),
        source: SourceId::new("s").unwrap(),
        credential: CredentialId::new("k").unwrap(),
        receipt: ReceiptId([1; 16]),
        received_at: 1,
        revision: 0,
        content_type: "application/json".into(),
        idempotency: None,
        traceparent: None,
        meta: BTreeMap::new(),
        events: (0..events).map(|i| Span { index: i, start: i, len: 1 }).collect(),
        refused: Vec::new(),
        release: None,
    };
    Entry { offset, record: envelope.into_record(value) }
}

fn record(input: &EpochInput, held: &BTreeMap<TenantId, Position>) -> CommitRecord {
    CommitRecord { behind: input.behind_after(held), ..commit_record(input.of.epoch, input.from, input.to) }
}

/// One turn of a partition: reads what there is.
fn read(gathering: &mut Gathering, raw: &[Entry]) {
    let from = |offset: u64| raw[(offset as usize).min(raw.len())..].iter();
    gathering.take_rest(0, Instant::now());
    if gathering.has_room() {
        for entry in from(gathering.wants()) {
            if !gathering.has_room() {
                break;
            }
            gathering.offer(entry, 0, Instant::now()).unwrap();
        }
    }
    for (tenant, offset) in gathering.wants_behind(0) {
        for entry in from(offset) {
            if !gathering.offer_behind(&tenant, entry, 0).unwrap() {
                break;
            }
        }
    }
}

fn seal(gathering: &mut Gathering, epoch: u64) -> EpochInput {
    gathering.seal(Attribution { log: LOG, partition: 0, epoch, recorded_at: epoch as i64 }, Arc::new(Catalog::default()))
}

/// Where each tenant's events of an epoch lie, in the order of its slices.
fn places(input: &EpochInput) -> BTreeMap<TenantId, Vec<Position>> {
    let mut places: BTreeMap<TenantId, Vec<Position>> = BTreeMap::new();
    for slice in &input.slices {
        let of = places.entry(slice.envelope.tenant.clone()).or_default();
        of.extend((slice.from..slice.to).map(|ordinal| Position { offset: slice.offset, ordinal }));
    }
    places
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn every_event_comes_once_and_in_order(
        requests in prop::collection::vec((0..TENANTS.len(), 1..30u32), 1..60),
        events in 2..40u64,
        choices in prop::collection::vec((0..100u8, any::<prop::sample::Index>()), 400),
    ) {
        let raw: Vec<Entry> = requests.iter().enumerate().map(|(i, (t, n))| entry(i as u64, TENANTS[*t], *n)).collect();
        let bounds = EpochBounds { events, ..EpochBounds::default() };
        let (mut gathering, mut last) = (Gathering::new(bounds, Position::default()), None::<CommitRecord>);
        let mut seen: BTreeMap<TenantId, Vec<Position>> = BTreeMap::new();
        let mut choices = choices.into_iter().cycle();
        let end = Position { offset: raw.len() as u64, ordinal: 0 };
        let mut epoch = 0;
        while last.as_ref().is_none_or(|l| l.settled_to() < end) {
            epoch += 1;
            prop_assert!(epoch < 5_000, "it stands still at {:?}", last);
            read(&mut gathering, &raw);
            let mut input = seal(&mut gathering, epoch);
            prop_assert!(input.events() <= 2 * events.max(TENANTS.len() as u64));
            let (choice, index) = choices.next().unwrap();
            if choice < 10 && input.events() > 1 {
                // Its output was too large.
                input = input.smaller(input.events() / 2);
                prop_assert!(input.events() >= 1);
            }
            let mut places = places(&input);
            let mut held = BTreeMap::new();
            if choice >= 40 && !places.is_empty() {
                // Some tenant stops; another one goes on, or nothing would ever end.
                let tenant = places.keys().nth(index.index(places.len())).unwrap().clone();
                let of = places.get_mut(&tenant).unwrap();
                let at = index.index(of.len());
                if places.len() > 1 || at > 0 {
                    let of = places.get_mut(&tenant).unwrap();
                    held.insert(tenant, of[at]);
                    of.truncate(at);
                }
            }
            let commit = record(&input, &held);
            for (tenant, places) in places {
                let range = commit.range_of(&tenant);
                prop_assert!(places.iter().all(|at| range.contains(at)), "{tenant} {places:?} {range:?}");
                seen.entry(tenant).or_default().extend(places);
            }
            if let Some(before) = &last {
                prop_assert_eq!(commit.raw_from, before.raw_to);
                for (tenant, at) in before.still_behind() {
                    prop_assert_eq!(commit.range_of(tenant).start, at);
                }
                prop_assert!(commit.settled_to() >= before.settled_to());
            }
            if (20..30).contains(&choice) {
                // A crash after the commit.
                gathering = Gathering::after(bounds, &commit);
            } else {
                gathering.resume(commit.raw_to, &commit.behind);
            }
            last = Some(commit);
        }
        for tenant in TENANTS {
            let all: Vec<Position> = requests.iter().enumerate().filter(|(_, (t, _))| TENANTS[*t] == tenant)
                .flat_map(|(i, (_, n))| (0..*n).map(move |ordinal| Position { offset: i as u64, ordinal })).collect();
            prop_assert_eq!(seen.remove(&TenantId::new(tenant).unwrap()).unwrap_or_default(), all, "{}", tenant);
        }
    }
}

/// An epoch of so many events of each tenant, opened; without definitions each event is a bundle of its own.
fn opened(events: &[(&str, u32)], costs: &[(&str, f64)]) -> (EpochInput, Vec<Bundle>) {
    let mut gathering = Gathering::new(EpochBounds::default(), Position::default());
    for (tenant, seconds) in costs {
        gathering.learn(&TenantId::new(tenant).unwrap(), 1, 0, Duration::from_secs_f64(*seconds));
    }
    let raw: Vec<Entry> = events.iter().enumerate().map(|(i, (tenant, n))| entry(i as u64, tenant, *n)).collect();
    read(&mut gathering, &raw);
    let input = seal(&mut gathering, 1);
    let bundles = open::apply(&input.slices, &input.catalog, LOG, &|_| false);
    (input, bundles)
}

/// Runs an epoch of a second with what each tenant's events take; tells how many events of each ran, and the time of all.
fn run(events: &[(&str, u32)], costs: &[(&str, f64)], takes: &[(&str, u64)]) -> (BTreeMap<String, usize>, Duration) {
    let (input, bundles) = opened(events, costs);
    let (mut shares, portions) = Shares::of(&input, Duration::from_secs(1), bundles);
    let mut spent = Duration::ZERO;
    for portion in &portions {
        if shares.may_run(StageName::Decode, portion) {
            let tenant = portion.bundle.events[0].envelope.tenant.as_str();
            let each = takes.iter().find(|(t, _)| *t == tenant).map_or(0, |(_, ms)| *ms);
            let time = Duration::from_millis(each) * portion.bundle.events.len() as u32;
            shares.spend(portion, time);
            spent += time;
        }
    }
    let (bundles, held) = shares.settle(portions);
    let mut ran: BTreeMap<String, usize> = BTreeMap::new();
    for bundle in &bundles {
        *ran.entry(bundle.events[0].envelope.tenant.to_string()).or_default() += bundle.events.len();
    }
    // What is held is what comes after what ran, of each tenant.
    for (tenant, at) in &held.from {
        let of = |b: &&Bundle| b.events[0].envelope.tenant == *tenant;
        assert!(bundles.iter().filter(of).flat_map(|b| &b.events).all(|e| e.origin.at < *at));
    }
    let total: u32 = events.iter().map(|(_, n)| n).sum();
    assert!(ran.values().sum::<usize>() == total as usize || !held.from.is_empty());
    (ran, spent)
}

#[test]
fn one_tenant_takes_its_share_and_others_run() {
    let of = |ran: &BTreeMap<String, usize>, tenant: &str| ran.get(tenant).copied().unwrap_or(0);
    // Nothing is known: the flood runs first, is stopped, and the others run whole.
    let (ran, spent) = run(&[("acme", 1_000), ("beta", 300), ("gamma", 20)], &[], &[("acme", 100), ("beta", 1)]);
    assert_eq!((of(&ran, "beta"), of(&ran, "gamma")), (300, 20));
    assert!(of(&ran, "acme") >= 8 && spent < Duration::from_millis(3_100), "{ran:?} {spent:?}");
    // It is known: the flood comes last, and takes what is left.
    let (ran, spent) = run(&[("acme", 1_000), ("beta", 300)], &[("acme", 0.1), ("beta", 0.001)], &[("acme", 100), ("beta", 1)]);
    assert_eq!(of(&ran, "beta"), 300);
    assert!(of(&ran, "acme") >= 5 && spent < Duration::from_millis(2_000), "{ran:?} {spent:?}");
    // Whoever is alone has all of it, and no more.
    let (ran, spent) = run(&[("acme", 1_000)], &[("acme", 0.01)], &[("acme", 10)]);
    assert!(of(&ran, "acme") >= 100 && spent < Duration::from_millis(3_000), "{ran:?} {spent:?}");
    // Cheap events are never stopped, however many.
    let (ran, _) = run(&[("acme", 2_400), ("beta", 2_400)], &[], &[]);
    assert_eq!((of(&ran, "acme"), of(&ran, "beta")), (2_400, 2_400));
    // Two floods get equal shares.
    let (ran, _) = run(&[("acme", 500), ("beta", 500)], &[("acme", 0.05), ("beta", 0.05)], &[("acme", 50), ("beta", 50)]);
    assert!(of(&ran, "acme") >= 10 && of(&ran, "beta") >= 10, "{ran:?}");
    // All are slow: it ends all the same, and somebody ran.
    let tenants: Vec<String> = (0..100).map(|i| format!("t{i}")).collect();
    let events: Vec<(&str, u32)> = tenants.iter().map(|t| (t.as_str(), 5)).collect();
    let takes: Vec<(&str, u64)> = tenants.iter().map(|t| (t.as_str(), 200)).collect();
    let (ran, spent) = run(&events, &[], &takes);
    assert!(!ran.is_empty() && spent <= Duration::from_millis(4_000), "{ran:?} {spent:?}");
}
