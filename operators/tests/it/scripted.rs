//! What tests of scripts share: a template, events of it, and their way through the three stages.

use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidegate_operators::event::{Bundle, EpochContext, Event, Plan, Progress};
use tidegate_operators::script::{Host, HostOptions, Watch};
use tidegate_operators::stages;
use tidegate_schemas::catalog::{PinnedAsset, PinnedSource, PinnedTemplate};
use tidegate_schemas::definition::*;
use tidegate_schemas::document::{Document, Forms};
use tidegate_schemas::envelope::Envelope;
use tidegate_schemas::ids::*;
use tidegate_schemas::row::{Cell, Origin, Row};
use tidegate_schemas::table::{Field, FieldType, Table};
use tidegate_schemas::verdict::{Rejection, StageName};

pub const RECEIVED: i64 = 1_700_000_000_123_456;
pub const CONTEXT: EpochContext = EpochContext { recorded_at: 1_800_000_000_000_000 };

/// A directory of the shared data, where this machine has it.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("TIDEGATE_REQUIRE_DATA").is_none(), "{} is missing", path.display());
    eprintln!("skipped: {} is missing", path.display());
    None
}

pub fn host() -> Host {
    Host::new(HostOptions { states_max: 4, native: true }, Arc::new(Watch::default()))
}

/// A watchdog for a watch: kills what is seen running for 100 ms. It ends with the value.
pub struct Watchdog(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Watchdog {
    pub fn start(watch: Arc<Watch>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut event, mut seen) = (None, 0);
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
                let now = watch.running();
                seen = if now.is_some() && now == event { seen + 1 } else { 0 };
                event = now;
                if let (Some(event), 20..) = (event, seen) {
                    watch.kill(event);
                }
            }
        });
        Self(stop, Some(thread))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.take().unwrap().join().unwrap();
    }
}

pub fn field(name: &str, kind: FieldType) -> Field {
    Field { name: name.into(), kind, unit: None, required: false, min: None, max: None }
}

/// A template with nothing but its fields.
pub fn template(fields: Vec<Field>) -> Template {
    Template {
        id: TemplateId::new("probe").unwrap(),
        owner: NodeId::new("vendor").unwrap(),
        title: "Probe".into(),
        table: TableId::new("probe-0001").unwrap(),
        payload: None,
        inputs: Vec::new(),
        fields,
        limits: ScriptLimits::default(),
        decode: None,
        validate: None,
        transform: None,
    }
}

pub fn script(source: &str) -> Script {
    Script { source: source.into() }
}

/// A template that only has a transform script.
pub fn transforming(source: &str, fields: Vec<Field>) -> Template {
    Template { transform: Some(Transform::Script(script(source))), ..template(fields) }
}

/// An asset of a customer with attributes.
pub fn asset(node: &str, id: &str, attributes: &[(&str, &str)]) -> Arc<PinnedAsset> {
    let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let asset = Asset { id: id.into(), node: NodeId::new(node).unwrap(), template: None, attributes };
    Arc::new(PinnedAsset { asset, path: node.into() })
}

/// A bundle of `tenant` over `events`; those that are no JSON are raw bytes.
pub fn bundle(tenant: &str, template: Template, events: &[&[u8]]) -> Bundle {
    let node = NodeId::new(tenant).unwrap();
    let table = Table { id: template.table.clone(), owner: template.owner.clone(), name: "probe".into(), fields: Vec::new() };
    let table = table.with(&template.fields).unwrap();
    let source = Source {
        id: SourceId::new("in").unwrap(),
        node: node.clone(),
        template: None,
        template_at: None,
        asset: Place::Fixed("a".into()),
        event_id: None,
        occurred_at: None,
        event_type: None,
        meta: vec!["x-model".into()],
    };
    let envelope = Arc::new(Envelope {
        tenant: TenantId::new(tenant).unwrap(),
        node,
        source: source.id.clone(),
        credential: CredentialId::new("k").unwrap(),
        receipt: ReceiptId([1; 16]),
        received_at: RECEIVED,
        revision: 1,
        content_type: "application/json".into(),
        idempotency: None,
        traceparent: None,
        meta: [("header:x-model".to_owned(), "m7".to_owned()), ("header:x-other".to_owned(), "hidden".to_owned())].into(),
        events: Vec::new(),
        refused: Vec::new(),
        release: None,
    });
    let mut forms = Forms::default();
    let event = |(n, bytes): (usize, &&[u8])| {
        let bytes = Bytes::copy_from_slice(bytes);
        Event {
            origin: Origin {
                at: Position { offset: 9, ordinal: n as u32 },
                index: n as u32,
                event_id: format!("e{n}").into(),
                asset: "asset-7".into(),
                received_at: RECEIVED,
            },
            key: [n as u8; 16],
            envelope: Arc::clone(&envelope),
            document: Document::parse_like(bytes.clone(), &mut forms).unwrap_or_else(|_| Document::null()),
            bytes,
            decoded: None,
            occurred_at: None,
            event_type: None,
            asset: None,
            steps: 0,
            notes: Vec::new(),
            progress: Progress::At(StageName::Decode),
        }
    };
    let version = template.version();
    let label = format!("{}@{}", template.id, &version[..12]).into();
    let plan = Plan { template: Arc::new(PinnedTemplate { template, version, label }), table: Arc::new(table) };
    let source = PinnedSource { source, tenant: TenantId::new(tenant).unwrap(), path: tenant.into() };
    Bundle::new(Some(Arc::new(source)), Some(plan), events.iter().enumerate().map(event).collect())
}

/// All three stages.
pub fn run(host: &mut Host, bundle: &mut Bundle) {
    stages::apply(bundle, host, &CONTEXT);
}

/// What became of an event.
#[derive(Clone, Debug)]
pub enum Ended {
    Rows(Vec<Row>),
    Filtered,
    Rejected(Rejection),
}

/// What became of each event.
pub fn ended(bundle: &Bundle) -> Vec<Ended> {
    let end = |event: &Event| match &event.progress {
        Progress::Transformed(_) => Ended::Rows(bundle.rows_of(event).unwrap()),
        Progress::Filtered => Ended::Filtered,
        Progress::Rejected(rejection) => Ended::Rejected(Rejection::clone(rejection)),
        other => panic!("{other:?}"),
    };
    bundle.events.iter().map(end).collect()
}

/// What became of one JSON event of a template.
pub fn one(host: &mut Host, template: Template, event: &str) -> Ended {
    let mut bundle = bundle("acme", template, &[event.as_bytes()]);
    run(host, &mut bundle);
    ended(&bundle).remove(0)
}

pub fn rows(ended: Ended) -> Vec<Row> {
    match ended {
        Ended::Rows(rows) => rows,
        other => panic!("no rows: {other:?}"),
    }
}

pub fn rejection(ended: Ended) -> Rejection {
    match ended {
        Ended::Rejected(rejection) => rejection,
        other => panic!("not rejected: {other:?}"),
    }
}

/// The only cell of the only row of a transform over `event` with one field `v`.
pub fn cell(kind: FieldType, source: &str, event: &str) -> Cell<'static> {
    let mut rows = rows(one(&mut host(), transforming(source, vec![field("v", kind)]), event));
    rows.remove(0).cells.remove(0)
}

/// The text that an expression over `event` has.
pub fn text_of(expression: &str) -> String {
    let source = format!("function transform(event) return {{ v = tostring({expression}) }} end");
    match cell(FieldType::Text, &source, "{}") {
        Cell::Text(text) => text.into(),
        other => panic!("{other:?}"),
    }
}
