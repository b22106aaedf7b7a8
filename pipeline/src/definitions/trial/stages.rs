//! One event through decode, validate and transform, as a worker would run it.

use crate::config::place::{Fault, FilePlace};
use crate::watchdog::watched;
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_operators::event::{Bundle, EpochContext, Event, Plan, Progress};
use tidegate_operators::script::{self, Host, HostOptions};
use tidegate_operators::stages;
use tidegate_operators::stages::open::NO_KEY;
use tidegate_schemas::block::ScriptRun;
use tidegate_schemas::catalog::{PinnedAsset, PinnedSource, PinnedTemplate};
use tidegate_schemas::definition::{Asset, Decode, Place, Script, Source, Template, Transform, Validate};
use tidegate_schemas::document::{Document, Forms};
use tidegate_schemas::envelope::Envelope;
use tidegate_schemas::ids::{CredentialId, IdError, NodeId, Position, ReceiptId, SourceId, TenantId};
use tidegate_schemas::locate::header_key;
use tidegate_schemas::row::{Origin, Row};
use tidegate_schemas::table::Table;
use tidegate_schemas::time::Micros;
use tidegate_schemas::verdict::{Rejection, StageName};

/// What goes in.
pub(super) struct Input {
    pub(super) bytes: Bytes,
    /// Whether the bytes are no JSON.
    pub(super) raw: bool,
    pub(super) asset: String,
    pub(super) attributes: BTreeMap<String, String>,
    /// Headers that the source lets through.
    pub(super) meta: BTreeMap<String, String>,
    pub(super) received_at: Micros,
    /// What the source finds, where it looks for them.
    pub(super) occurred_at: Option<Micros>,
    pub(super) event_type: Option<String>,
}

/// How an event ended.
pub(super) enum Ended {
    Rows(Vec<Row>),
    Filtered,
    Rejected(Rejection),
}

/// Whether a template's scripts and patterns can be published.
pub fn check_scripts(template: &Template, faults: &mut Vec<Fault>) {
    let Err(error) = watched(|watch| script::check(template, watch)) else { return };
    let is_script = match error.stage {
        StageName::Decode => matches!(template.decode, Some(Decode::Script(_))),
        StageName::Validate => matches!(template.validate, Some(Validate::Script(_))),
        StageName::Transform => matches!(template.transform, Some(Transform::Script(_))),
        StageName::Ingest | StageName::Open => false,
    };
    let name = if is_script { format!("{}.luau", error.stage.as_str()) } else { "template.toml".to_owned() };
    let file = FilePlace::file(&format!("templates/{}/{}/{name}", template.owner, template.id));
    let at = error.line.and_then(|line| usize::try_from(line).ok()).map(|line| (line, 1));
    faults.push(Fault::new(FilePlace { at, ..file }, error.message, "correct it"));
}

/// Runs one event; every run has script states of its own, so no test leans on another.
pub(super) fn run(template: &Template, table: &Table, input: &Input) -> Ended {
    match through(template, table, input) {
        Ok(seen) => ended(seen.event.progress, seen.rows),
        Err(rejection) => Ended::Rejected(rejection),
    }
}

/// How an event ended, and with which rows.
pub(super) fn ended(progress: Progress, rows: Vec<Row>) -> Ended {
    match progress {
        Progress::Transformed(_) => Ended::Rows(rows),
        Progress::Filtered => Ended::Filtered,
        Progress::Rejected(rejection) => Ended::Rejected(*rejection),
        Progress::At(stage) => Ended::Rejected(refused(format!("the event stands still at {}", stage.as_str()))),
        Progress::Duplicate => Ended::Rejected(refused("a single event became a duplicate")),
    }
}

impl Ended {
    /// In one word, as a test names it.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Rows(_) => "rows",
            Self::Filtered => "filtered",
            Self::Rejected(_) => "rejected",
        }
    }
}

/// What decode returns as `data`: seen where the stages after it are no scripts.
pub(super) fn decoded(template: &Template, table: &Table, input: &Input) -> Option<Value> {
    let native = (Some(Validate::Rules(Vec::new())), Some(Transform::Mapping(Vec::new())));
    let alone = Template { validate: native.0, transform: native.1, ..template.clone() };
    let seen = through(&alone, table, input).ok()?;
    let mut text = String::new();
    seen.event.decoded?.root().write_json(&mut text);
    serde_json::from_str(&text).ok()
}

/// Has the decoder hand on as data what it returns as warnings; nobody else reads them.
const WARNED: &str = "
do
  local own = decode or decodeUplink
  function decode(input)
    local result = own(input)
    return { data = { tidegate_warnings = if type(result) == 'table' then result.warnings else nil } }
  end
end
";

/// What decode returns as `warnings`, where it is a script, came to an end, and warns of anything.
pub(super) fn warnings(template: &Template, table: &Table, input: &Input) -> Vec<Value> {
    let Some(Decode::Script(script)) = &template.decode else { return Vec::new() };
    let script = Script { source: format!("{}\n{WARNED}", script.source) };
    let told = decoded(&Template { decode: Some(Decode::Script(script)), ..template.clone() }, table, input);
    match told.and_then(|mut told| told.get_mut("tidegate_warnings").map(Value::take)) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(warnings)) => warnings,
        Some(Value::Object(none)) if none.is_empty() => Vec::new(),
        Some(warning) => vec![warning],
    }
}

/// One event that went through all stages, and what they left behind.
pub(super) struct Seen {
    pub(super) event: Event,
    pub(super) rows: Vec<Row>,
    /// The template's id and version.
    pub(super) label: String,
    pub(super) runs: Vec<ScriptRun>,
    pub(super) memory_bytes: usize,
}

pub(super) fn through(template: &Template, table: &Table, input: &Input) -> Result<Seen, Rejection> {
    let mut bundle = bundle(template, table, input, 1)?;
    let memory_bytes = watched(|watch| {
        let mut host = Host::new(HostOptions { states_max: 1, native: false }, watch);
        host.keep_notes();
        host.tell_lines();
        stages::apply(&mut bundle, &mut host, &EpochContext { recorded_at: input.received_at });
        bundle.source.as_ref().and_then(|s| host.used_memory(&s.tenant)).unwrap_or(0)
    });
    let label = bundle.plan.as_ref().map_or_else(String::new, |p| p.template.label.to_string());
    let event = bundle.events.pop().ok_or_else(|| refused("the stages lost the event"))?;
    let rows = bundle.rows_of(&event).unwrap_or_default();
    Ok(Seen { event, rows, label, runs: bundle.runs, memory_bytes })
}

/// The test itself, or the stages, are wrong: no event of a tenant ever ends so.
fn refused(detail: impl Into<String>) -> Rejection {
    Rejection::new(StageName::Open, tidegate_schemas::verdict::Code::Syntax, detail)
}

/// A bundle of so many times the same event, as `open` makes it.
pub(super) fn bundle(template: &Template, table: &Table, input: &Input, count: usize) -> Result<Bundle, Rejection> {
    let mut forms = Forms::default();
    let mut document = || match input.raw {
        true => Ok(Document::null()),
        false => Document::parse_like(input.bytes.clone(), &mut forms).map_err(|e| refused(e.to_string())),
    };
    let (source, envelope) = surroundings(template, input).map_err(|e| refused(e.to_string()))?;
    let version = template.version();
    let label = format!("{}@{}", template.id, &version[..12]).into();
    let pinned = PinnedTemplate { template: template.clone(), version, label };
    let asset = Asset { id: input.asset.clone(), node: template.owner.clone(), template: None, attributes: input.attributes.clone() };
    let asset = Arc::new(PinnedAsset { asset, path: template.owner.as_str().into() });
    let envelope = Arc::new(envelope);
    let mut event = |index: usize| {
        let origin = Origin {
            at: Position::default(),
            index: u32::try_from(index).unwrap_or(u32::MAX),
            event_id: "test".into(),
            asset: input.asset.as_str().into(),
            received_at: input.received_at,
        };
        Ok(Event {
            origin,
            key: NO_KEY,
            envelope: Arc::clone(&envelope),
            bytes: input.bytes.clone(),
            document: document()?,
            decoded: None,
            occurred_at: input.occurred_at,
            event_type: input.event_type.as_deref().map(Into::into),
            asset: Some(Arc::clone(&asset)),
            steps: 0,
            notes: Vec::new(),
            progress: Progress::At(StageName::Decode),
        })
    };
    let events: Vec<Event> = (0..count).map(&mut event).collect::<Result<_, Rejection>>()?;
    let plan = Plan { template: Arc::new(pinned), table: Arc::new(table.clone()) };
    Ok(Bundle::new(Some(Arc::new(source)), Some(plan), events))
}

/// A source and an envelope of nobody.
fn surroundings(template: &Template, input: &Input) -> Result<(PinnedSource, Envelope), IdError> {
    let (tenant, id) = (TenantId::new("test")?, SourceId::new("test")?);
    let node: NodeId = template.owner.clone();
    let source = Source {
        id: id.clone(),
        node: node.clone(),
        template: Some(template.id.to_string()),
        template_at: None,
        asset: Place::Fixed(input.asset.clone()),
        event_id: None,
        occurred_at: None,
        event_type: None,
        meta: input.meta.keys().cloned().collect(),
    };
    let envelope = Envelope {
        tenant: tenant.clone(),
        node,
        source: id,
        credential: CredentialId::new("test")?,
        receipt: ReceiptId([0; 16]),
        received_at: input.received_at,
        revision: 1,
        content_type: if input.raw { "application/octet-stream" } else { "application/json" }.into(),
        idempotency: None,
        traceparent: None,
        meta: input.meta.iter().map(|(name, value)| (header_key(name), value.clone())).collect(),
        events: Vec::new(),
        refused: Vec::new(),
        release: None,
    };
    Ok((PinnedSource { source, tenant, path: "test".into() }, envelope))
}
