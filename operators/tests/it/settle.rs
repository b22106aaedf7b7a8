//! Verdicts do not depend on where epochs are cut, and everything adds up.

use bytes::Bytes;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidegate_operators::duplicates::Duplicates;
use tidegate_operators::event::{Bundle, Event, Progress};
use tidegate_operators::stages::open::{self, Slice};
use tidegate_operators::stages::settle;
use tidegate_schemas::block::{Attribution, Block, by_tenant};
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::definition::*;
use tidegate_schemas::envelope::{Envelope, Span};
use tidegate_schemas::ids::*;
use tidegate_schemas::row::{Cell, Row};
use tidegate_schemas::table::{Column, Field, FieldType, Table};
use tidegate_schemas::verdict::{Code, Rejection, StageName, Verdict};

const LOG: LogId = LogId([5; 16]);

/// Two customers of one vendor, with the same ids everywhere.
fn catalog() -> Catalog {
    let node = |id: &str| NodeId::new(id).unwrap();
    let organization = |id: &str, kind, parent: Option<&str>| {
        Definition::Organization(Organization { id: node(id), kind, name: id.into(), parent: parent.map(node) })
    };
    let field = Field { name: "n".into(), kind: FieldType::I64, unit: None, required: false, min: None, max: None };
    let source = |tenant: &str| {
        Definition::Source(Box::new(Source {
            id: SourceId::new("s").unwrap(),
            node: node(tenant),
            template: Some("t".into()),
            template_at: None,
            asset: Place::Pointer("/dev".into()),
            event_id: Some(Place::Pointer("/id".into())),
            occurred_at: Some(Place::Pointer("/ts".into())),
            event_type: Some(Place::Pointer("/kind".into())),
            meta: vec![],
        }))
    };
    let definitions = vec![
        organization("v", NodeKind::Vendor, None),
        organization("acme", NodeKind::Customer, Some("v")),
        organization("beta", NodeKind::Customer, Some("v")),
        organization("north", NodeKind::Site, Some("acme")),
        Definition::Table(Table {
            id: TableId::new("n-1").unwrap(),
            owner: node("v"),
            name: "n".into(),
            fields: vec![Column { name: "n".into(), kind: FieldType::I64, unit: None }],
        }),
        Definition::Template(Box::new(Template {
            id: TemplateId::new("t").unwrap(),
            owner: node("v"),
            title: "t".into(),
            table: TableId::new("n-1").unwrap(),
            payload: None,
            inputs: vec![],
            fields: vec![field],
            limits: ScriptLimits::default(),
            decode: None,
            validate: None,
            transform: None,
        })),
        source("acme"),
        source("beta"),
        Definition::Asset(Asset { id: "placed".into(), node: node("north"), template: None, attributes: BTreeMap::new() }),
    ];
    let mut catalog = Catalog::default();
    for (i, definition) in definitions.into_iter().enumerate() {
        let key = definition.key();
        let change =
            Change { revision: i as u64 + 1, definition: key, version: 1, actor: "t".into(), at: 0, before: None, after: Some(definition) };
        catalog.apply(&change).unwrap();
    }
    catalog
}

fn slice(offset: u64, tenant: &str, events: &[String]) -> Slice {
    let (mut value, mut spans) = (Vec::new(), Vec::new());
    for (i, event) in events.iter().enumerate() {
        spans.push(Span { index: i as u32, start: value.len() as u32, len: event.len() as u32 });
        value.extend_from_slice(event.as_bytes());
    }
    let envelope = Envelope {
        tenant: TenantId::new(tenant).unwrap(),
        node: NodeId::new(tenant).unwrap(),
        source: SourceId::new("s").unwrap(),
        credential: CredentialId::new("k").unwrap(),
        receipt: ReceiptId([offset as u8; 16]),
        received_at: 1_000,
        revision: 1,
        content_type: "application/json".into(),
        idempotency: None,
        traceparent: None,
        meta: BTreeMap::new(),
        events: spans,
        refused: vec![],
        release: None,
    };
    Slice { offset, envelope: Arc::new(envelope), value: Bytes::from(value), from: 0, to: events.len() as u32 }
}

/// Stands for the scripts: what an event becomes follows from its content alone.
fn stages(bundles: &mut [Bundle]) {
    for Bundle { events, rows, .. } in bundles {
        for event in events.iter_mut().filter(|e| e.is_at(StageName::Decode)) {
            let kind = event.document.pointer("/kind").and_then(|k| k.as_f64()).unwrap_or(0.0) as u8;
            let row = Row { occurred_at: 1, event_type: Arc::from("t"), cells: vec![Cell::I64(1)], attributes: vec![] };
            let first = rows.len() as u32;
            event.progress = match kind {
                0 | 1 => {
                    (0..=kind).for_each(|_| rows.push(&row));
                    Progress::Transformed(first..rows.len() as u32)
                }
                2 => Progress::Filtered,
                _ => Progress::Rejected(Rejection::new(StageName::Validate, Code::Invalid, "no").into()),
            };
        }
    }
}

type Sent = (bool, u8, u8); // tenant, id, kind

fn run(catalog: &Catalog, events: &[Sent], cuts: &BTreeSet<usize>) -> Vec<(u64, Verdict)> {
    let mut state = Duplicates::new(i64::MAX / 2, 1_000_000);
    let (mut verdicts, mut epoch, mut slices) = (Vec::new(), 1, Vec::new());
    for (i, (beta, id, kind)) in events.iter().enumerate() {
        let tenant = if *beta { "beta" } else { "acme" };
        slices.push(slice(i as u64, tenant, &[format!(r#"{{"dev":"d","id":"{id}","kind":{kind}}}"#)]));
        if cuts.contains(&i) || i + 1 == events.len() {
            let of = Attribution { log: LOG, partition: 0, epoch, recorded_at: epoch as i64 };
            let mut bundles = open::apply(&std::mem::take(&mut slices), catalog, LOG, &|k| state.contains(k));
            stages(&mut bundles);
            let settled = settle::apply(&bundles, &state, &of).unwrap();
            check(&settled);
            state.fold(epoch, of.recorded_at, &settled.outcomes);
            verdicts.extend(settled.outcomes.iter().map(|o| (o.at.offset, o.verdict)));
            epoch += 1;
        }
    }
    verdicts
}

/// Counts, rows by tenant, and blocks tell the same story.
fn check(settled: &settle::Settled) {
    assert!(settled.counts.balanced());
    let rows = |blocks: &[Block], table: &str| -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for block in blocks.iter().filter(|b| b.table == table) {
            for (tenant, slice) in by_tenant(&block.batch().unwrap()) {
                *sums.entry(tenant).or_default() += slice.num_rows() as u64;
            }
        }
        sums
    };
    let told = |table: &str| -> BTreeMap<String, u64> {
        settled.rows.iter().filter(|r| r.table == table).map(|r| (r.tenant.to_string(), r.rows)).collect()
    };
    assert_eq!(rows(&settled.clean, "n-1"), told("n-1"));
    assert_eq!(rows(&settled.audit, "rejections"), told("rejections"));
    assert_eq!(told("rejections").values().sum::<u64>(), settled.counts.rejected);
}

/// One event after the other, as the design says it.
fn oracle(events: &[Sent]) -> Vec<(u64, Verdict)> {
    let mut seen = BTreeSet::new();
    let mut verdicts = Vec::new();
    for (i, (tenant, id, kind)) in events.iter().enumerate() {
        let verdict = match kind {
            _ if seen.contains(&(*tenant, *id)) => Verdict::Duplicate,
            0 | 1 => Verdict::Transformed,
            2 => Verdict::Filtered,
            _ => Verdict::Rejected,
        };
        if matches!(verdict, Verdict::Transformed | Verdict::Filtered) {
            seen.insert((*tenant, *id));
        }
        verdicts.push((i as u64, verdict));
    }
    verdicts
}

proptest! {
    #[test]
    fn verdicts_do_not_depend_on_cuts(
        events in prop::collection::vec((any::<bool>(), 0u8..6, 0u8..4), 1..60),
        cuts in prop::collection::btree_set(0usize..60, 0..20),
    ) {
        prop_assert_eq!(run(&catalog(), &events, &cuts), oracle(&events));
    }
}

#[test]
fn events_are_refused_where_the_source_cannot_place_them() {
    let catalog = catalog();
    let long = format!(r#"{{"dev":"d","id":"{}"}}"#, "x".repeat(300));
    let deep = format!("{}1{}", "[".repeat(70), "]".repeat(70));
    let cases: [(&str, &str, &str); 10] = [
        ("not json", "{", "syntax"),
        ("too deep", &deep, "too_deep"),
        ("no asset", r#"{"id":"1"}"#, "asset_missing"),
        ("a null asset", r#"{"dev":null}"#, "asset_missing"),
        ("an empty asset", r#"{"dev":""}"#, "asset_missing"),
        ("a long event id", &long, "event_id_invalid"),
        ("a fraction for an event id", r#"{"dev":"d","id":1.5}"#, "event_id_invalid"),
        ("an event id beyond 64 bits", r#"{"dev":"d","id":18446744073709551616}"#, "event_id_invalid"),
        ("a boolean for an event id", r#"{"dev":"d","id":true}"#, "event_id_invalid"),
        ("an object for an event id", r#"{"dev":"d","id":{"a":1}}"#, "event_id_invalid"),
    ];
    for (what, text, code) in cases {
        let bundles = open::apply(&[slice(0, "acme", &[text.to_owned()])], &catalog, LOG, &|_| false);
        match &bundles[0].events[0].progress {
            Progress::Rejected(rejection) => assert_eq!(rejection.code, code, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(bundles[0].events[0].bytes, text.as_bytes(), "{what}");
    }
}

/// An event whose source points at `/ts`, as it is opened.
fn opened(text: &str) -> Event {
    open::apply(&[slice(0, "acme", &[text.to_owned()])], &catalog(), LOG, &|_| false).remove(0).events.remove(0)
}

#[test]
fn time_that_cannot_be_read_is_refused_and_an_absent_one_is_not() {
    for (ts, at) in [
        ("\"1970-01-01T00:00:00Z\"", Some(0)),
        ("\"1970-01-01T01:00:00+02:00\"", Some(-3_600_000_000)),
        ("\"2262-04-11T23:47:16.854775807Z\"", Some(9_223_372_036_854_775)),
        ("\"1900-01-01T00:00:00Z\"", Some(-2_208_988_800_000_000)),
        ("\"2299-12-31T23:59:59.999999Z\"", Some(10_413_791_999_999_999)),
        ("1767225600000.25", Some(1_767_225_600_000_250)),
        ("-1", Some(-1_000)),
        ("null", None),
    ] {
        let event = opened(&format!(r#"{{"dev":"d","ts":{ts}}}"#));
        assert!(matches!(event.progress, Progress::At(_)), "{ts}: {:?}", event.progress);
        assert_eq!(event.occurred_at, at, "{ts}");
    }
    assert_eq!(opened(r#"{"dev":"d"}"#).occurred_at, None);
    let range = "outside the years 1900 to 2299";
    for (ts, told) in [
        ("\"yesterday\"", "is \"yesterday\": neither milliseconds since 1970 nor RFC 3339 text"),
        ("\"\"", "neither"),
        ("\"2026-01-01\"", "neither"),
        ("\"2026-01-01T00:00:00\"", "neither"),
        ("\"1767225600000\"", "neither"),
        ("true", "is boolean: neither"),
        ("[1]", "is list: neither"),
        ("{\"at\":1}", "is object: neither"),
        ("\"0000-01-01T00:00:00Z\"", range),
        ("\"0001-01-01T00:00:00Z\"", range),
        ("\"1900-01-01T00:00:00+00:01\"", range),
        ("\"2300-01-01T00:00:00Z\"", range),
        ("\"9999-12-31T23:59:59Z\"", range),
        ("1e300", range),
        ("18446744073709551615", range),
        // Microseconds where milliseconds belong.
        ("1767225600000000", range),
    ] {
        let event = opened(&format!(r#"{{"dev":"d","ts":{ts}}}"#));
        let Progress::Rejected(rejection) = &event.progress else { panic!("{ts}: {:?}", event.progress) };
        assert_eq!((rejection.code.as_str(), rejection.pointer.as_str(), rejection.stage), ("occurred_at_invalid", "/ts", StageName::Open));
        assert!(rejection.detail.contains(told), "{ts}: {}", rejection.detail);
    }
}

#[test]
fn the_type_of_an_event_is_bounded() {
    let of = |bytes: usize| opened(&format!(r#"{{"dev":"d","kind":"{}"}}"#, "k".repeat(bytes)));
    assert_eq!(of(256).event_type.map(|kind| kind.len()), Some(256));
    for bytes in [0, 257] {
        let Progress::Rejected(rejection) = of(bytes).progress else { panic!("a type of {bytes} bytes was taken") };
        assert_eq!((rejection.code.as_str(), rejection.pointer.as_str(), rejection.stage), ("out_of_range", "/kind", StageName::Open));
        assert_eq!(rejection.detail, format!("event_type has {bytes} bytes; it has 1 to 256"));
    }
}

#[test]
fn numbers_are_ids_too_and_other_tenants_have_their_own() {
    let catalog = catalog();
    let event = r#"{"dev":17,"id":4,"ts":1767225600000}"#.to_owned();
    let key = |tenant: &str| {
        let bundles = open::apply(&[slice(0, tenant, std::slice::from_ref(&event))], &catalog, LOG, &|_| false);
        let opened = &bundles[0].events[0];
        assert_eq!((&*opened.origin.asset, &*opened.origin.event_id, opened.occurred_at), ("17", "4", Some(1_767_225_600_000_000)));
        opened.key
    };
    assert_ne!(key("acme"), key("beta"));
    let unknown = open::apply(&[slice(0, "gamma", std::slice::from_ref(&event))], &catalog, LOG, &|_| false);
    assert!(matches!(&unknown[0].events[0].progress, Progress::Rejected(r) if r.code == "source_unknown"));
}

#[test]
fn rows_stand_where_their_asset_stands() {
    let event = |dev: &str, id: u8, kind: u8| format!(r#"{{"dev":"{dev}","id":"{id}","kind":{kind}}}"#);
    let sent = [event("placed", 1, 0), event("other", 2, 0), event("placed", 3, 3), event("other", 4, 3)];
    let of_beta = [event("placed", 1, 0)];
    let mut bundles = open::apply(&[slice(0, "acme", &sent), slice(1, "beta", &of_beta)], &catalog(), LOG, &|_| false);
    stages(&mut bundles);
    let of = Attribution { log: LOG, partition: 0, epoch: 1, recorded_at: 1 };
    let settled = settle::apply(&bundles, &Duplicates::new(i64::MAX / 2, 1_000), &of).unwrap();
    let organizations = |block: &Block| -> Vec<String> {
        let batch = block.batch().unwrap();
        let column = arrow::compute::cast(batch.column_by_name("organization").unwrap(), &arrow::datatypes::DataType::Utf8).unwrap();
        arrow::array::AsArray::as_string::<i32>(&*column).iter().map(|o| o.unwrap().to_owned()).collect()
    };
    // The other customer has no asset of that id: there its source tells the place.
    assert_eq!(organizations(&settled.clean[0]), ["v/acme/north", "v/acme", "v/beta"]);
    let rejections = settled.audit.iter().find(|b| b.table == "rejections").unwrap();
    assert_eq!(organizations(rejections), ["v/acme/north", "v/acme"]);
}
