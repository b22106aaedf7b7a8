//! Opens records of `raw`: finds asset, event id and template of each event where its source says, without a script, and
//! gathers the events by source and template version, so that a script is met by many events in a row.

use crate::event::{Bundle, Event, Plan, Progress};
use crate::stages::transform::fields::{Scalar, event_type_bytes, timestamp};
use bytes::Bytes;
use hashbrown::HashMap;
use std::borrow::Cow;
use std::sync::Arc;
use tidegate_schemas::catalog::{Catalog, PinnedSource, PinnedTemplate};
use tidegate_schemas::definition::{ApiKey, Asset, Place};
use tidegate_schemas::document::{Document, DocumentError, Forms, Kind, Lookup, Value};
use tidegate_schemas::envelope::{Envelope, Refusal};
use tidegate_schemas::ids::{LogId, NodeId, Position};
use tidegate_schemas::limits::{ASSET_ID_BYTES_MAX, BUNDLE_EVENTS_MAX, EVENT_ID_BYTES_MAX, EVENT_TYPE_BYTES_MAX};
use tidegate_schemas::locate;
use tidegate_schemas::row::Origin;
use tidegate_schemas::time::Micros;
use tidegate_schemas::verdict::{Code, DuplicateKeys, Rejection, StageName};

/// The key of an event that ended before its id was known: it is never looked up and enters no state.
pub const NO_KEY: [u8; 16] = [0; 16];

/// The events of one record that belong to an epoch.
#[derive(Debug, Clone)]
pub struct Slice {
    /// Offset of the record in `raw`.
    pub offset: u64,
    /// Its headers.
    pub envelope: Arc<Envelope>,
    /// Its value.
    pub value: Bytes,
    /// First ordinal of the epoch.
    pub from: u32,
    /// One past the last.
    pub to: u32,
}

/// Whether a key was transformed or filtered in an earlier epoch.
pub type Seen<'a> = &'a dyn Fn(&[u8; 16]) -> bool;

/// Opens the slices of one epoch, in raw order.
pub fn apply(slices: &[Slice], catalog: &Catalog, log: LogId, seen: Seen<'_>) -> Vec<Bundle> {
    let sources: Vec<_> = slices.iter().map(|slice| catalog.source(&slice.envelope.tenant, &slice.envelope.source)).collect();
    let address_of = |source: Option<&Arc<PinnedSource>>| source.map_or(0, |s| Arc::as_ptr(s) as usize);
    let (mut gathered, mut ways): (_, HashMap<usize, Ways>) = (Gathered::default(), HashMap::new());
    for (slice, source) in slices.iter().zip(&sources) {
        let count = (slice.to - slice.from) as usize;
        ways.entry(address_of(*source)).or_default().to_come += count;
        gathered.room += 2 * count;
    }
    for (slice, source) in slices.iter().zip(sources) {
        let (source, ways) = (source.cloned(), ways.entry(address_of(source)).or_default());
        let mut record = OpenRecord {
            slice,
            catalog,
            seen,
            keys: DuplicateKeys::of(log, slice.envelope.tenant.as_str(), slice.envelope.source.as_str()),
            key: catalog.key(slice.envelope.credential.as_str()).cloned(),
            source,
            derived: DerivedId(format!("{}-", slice.envelope.receipt)),
            nobody: Arc::from(""),
            plans: Plans { catalog, last: None },
            ways,
        };
        for ordinal in slice.from..slice.to {
            let mut event = record.blank(ordinal);
            let is_planned = record.open(&mut event);
            let plan = if is_planned { record.plans.last() } else { None };
            gathered.push(record.source.as_ref(), plan, event, record.ways.to_come);
            record.ways.to_come -= 1;
        }
    }
    gathered.bundles
}

/// Bundles by source and template version. Those of the tables are the same objects as long as the catalog lives.
#[derive(Default)]
struct Gathered {
    bundles: Vec<Bundle>,
    /// Events for which bundles may still take room before they come: twice as many as there are, whatever the number of templates.
    room: usize,
    open: HashMap<(usize, usize), usize>,
}

impl Gathered {
    /// `most` is how many events of the source may go with this one: what grows is copied.
    fn push(&mut self, source: Option<&Arc<PinnedSource>>, plan: Option<&Plan>, event: Event, most: usize) {
        let address = (source.map_or(0, |s| Arc::as_ptr(s) as usize), plan.map_or(0, |p| Arc::as_ptr(&p.template) as usize));
        let at = *self.open.entry(address).or_insert(usize::MAX);
        match self.bundles.get_mut(at) {
            // Without a source the tenant is the envelope's own: such bundles hold one event each.
            Some(bundle) if bundle.events.len() < BUNDLE_EVENTS_MAX && source.is_some() => bundle.events.push(event),
            _ => {
                self.open.insert(address, self.bundles.len());
                let room = if source.is_some() { most.min(BUNDLE_EVENTS_MAX).min(self.room) } else { 0 };
                self.room -= room;
                let mut events = Vec::with_capacity(room);
                events.push(event);
                self.bundles.push(Bundle::new(source.cloned(), plan.cloned(), events));
            }
        }
    }
}

/// How events of one source were read before: most are of the same form, and have everything in the same place.
#[derive(Default)]
struct Ways {
    forms: Forms,
    asset: Lookup,
    event_id: Lookup,
    occurred_at: Lookup,
    event_type: Lookup,
    template: Lookup,
    /// Events of the epoch that are still to come.
    to_come: usize,
}

struct OpenRecord<'a> {
    slice: &'a Slice,
    catalog: &'a Catalog,
    seen: Seen<'a>,
    keys: DuplicateKeys,
    key: Option<Arc<ApiKey>>,
    source: Option<Arc<PinnedSource>>,
    derived: DerivedId,
    /// Stands for ids that are not known.
    nobody: Arc<str>,
    plans: Plans<'a>,
    ways: &'a mut Ways,
}

/// Finds the template versions that decide about a record's events.
struct Plans<'a> {
    catalog: &'a Catalog,
    /// Most records name one template only.
    last: Option<(NodeId, String, Plan)>,
}

/// Ids of events whose senders gave them none, by receipt and index.
struct DerivedId(String);

impl DerivedId {
    /// One that was released keeps what it had.
    fn of(&mut self, event: &Event) -> Arc<str> {
        let released = event.envelope.release.as_ref().and_then(|r| r.events.get(event.origin.at.ordinal as usize));
        if let Some(released) = released {
            return released.id.as_str().into();
        }
        let begin = self.0.len();
        self.0.push_str(itoa::Buffer::new().format(event.origin.index));
        let id = self.0.as_str().into();
        self.0.truncate(begin);
        id
    }
}

impl OpenRecord<'_> {
    /// What the edge said where it refused the event: those that it took come first.
    fn refused(&self, ordinal: u32) -> Option<&Refusal> {
        let envelope = &self.slice.envelope;
        (ordinal as usize).checked_sub(envelope.events.len()).map(|at| &envelope.refused[at])
    }

    /// The event before anything is known of it.
    fn blank(&self, ordinal: u32) -> Event {
        let envelope = &self.slice.envelope;
        let span = self.refused(ordinal).map_or_else(|| envelope.events[ordinal as usize], |refused| refused.span);
        Event {
            origin: Origin {
                at: Position { offset: self.slice.offset, ordinal },
                index: span.index,
                event_id: Arc::clone(&self.nobody),
                asset: Arc::clone(&self.nobody),
                received_at: envelope.received_at,
            },
            key: NO_KEY,
            envelope: Arc::clone(envelope),
            bytes: span.of(&self.slice.value),
            document: Document::null(),
            decoded: None,
            occurred_at: None,
            event_type: None,
            asset: None,
            steps: 0,
            notes: Vec::new(),
            progress: Progress::At(StageName::Decode),
        }
    }

    /// Finds what the source says of the event, or ends its way; whether it has a plan, the last one found. It stays where it
    /// is: events are large.
    fn open(&mut self, event: &mut Event) -> bool {
        let located = match self.refused(event.origin.at.ordinal) {
            None => self.locate(event),
            Some(refused) => Err(Rejection {
                stage: StageName::Ingest,
                code: refused.code.clone(),
                detail: refused.detail.clone(),
                pointer: refused.pointer.clone(),
                line: None,
            }),
        };
        located.unwrap_or_else(|rejection| {
            if event.origin.event_id.is_empty() {
                event.origin.event_id = self.derived.of(event);
            }
            event.reject(rejection);
            false
        })
    }

    fn locate(&mut self, event: &mut Event) -> Result<bool, Rejection> {
        let refuse = |code, detail: String| Rejection::new(StageName::Open, code, detail);
        let envelope = &*self.slice.envelope;
        let Some(source) = self.source.as_deref() else {
            return Err(refuse(Code::SourceUnknown, format!("source {} is not published any more", envelope.source)));
        };
        if envelope.content_type != "application/octet-stream" {
            event.document = Document::parse_like(event.bytes.clone(), &mut self.ways.forms).map_err(|e| match e {
                DocumentError::Syntax { .. } => refuse(Code::Syntax, e.to_string()),
                DocumentError::Depth => refuse(Code::TooDeep, e.to_string()),
            })?;
        }
        let found = Found { document: &event.document, envelope, key: self.key.as_deref() };
        let missing = |what: String| refuse(Code::AssetMissing, what).at(pointer_of(&source.source.asset));
        let asset = found.text(&source.source.asset, &mut self.ways.asset).map(|t| Arc::<str>::from(&*t)).filter(|a| !a.is_empty());
        let asset = asset.ok_or_else(|| missing(format!("there is no asset id where source {} says", envelope.source)))?;
        if asset.len() > ASSET_ID_BYTES_MAX {
            return Err(missing(format!("an asset id has 1 to {ASSET_ID_BYTES_MAX} bytes; this one has {}", asset.len())));
        }
        event.origin.asset = asset;
        event.asset = self.catalog.asset(&source.tenant, &event.origin.asset).cloned();
        event.origin.event_id = match found.event_id(source, &mut self.ways.event_id, event.origin.index)? {
            Some(id) => id,
            None => self.derived.of(event),
        };
        event.key = self.keys.key(&event.origin.event_id);
        if (self.seen)(&event.key) {
            event.go(Progress::Duplicate);
            return Ok(false);
        }
        if let Some(place) = &source.source.occurred_at {
            event.occurred_at = found.time(place, &mut self.ways.occurred_at)?;
        }
        let name = |place: &Option<Place>, way| found.text(place.as_ref()?, way).map(|t| Arc::<str>::from(&*t));
        event.event_type = name(&source.source.event_type, &mut self.ways.event_type);
        if let (Some(place), Some(text)) = (&source.source.event_type, &event.event_type)
            && !(1..=EVENT_TYPE_BYTES_MAX).contains(&text.len())
        {
            return Err(event_type_bytes(text.len()).into_rejection(StageName::Open).at(pointer_of(place)));
        }
        let named = name(&source.source.template_at, &mut self.ways.template);
        self.plans.find(source, event.asset.as_ref().map(|a| &a.asset), named)?;
        Ok(true)
    }
}

impl Plans<'_> {
    /// The one that was found last.
    fn last(&self) -> Option<&Plan> {
        self.last.as_ref().map(|(.., plan)| plan)
    }

    fn find(&mut self, source: &PinnedSource, asset: Option<&Asset>, named: Option<Arc<str>>) -> Result<(), Rejection> {
        let refuse = |detail: String| Rejection::new(StageName::Open, Code::TemplateUnknown, detail);
        let node = asset.map_or(&source.source.node, |a| &a.node);
        let name = match (&named, asset.and_then(|a| a.template.as_ref()), &source.source.template) {
            (Some(name), _, _) => &**name,
            (None, Some(name), _) | (None, None, Some(name)) => name.as_str(),
            (None, None, None) => return Err(refuse("neither the event, its asset nor its source names a template".into())),
        };
        if self.last.as_ref().is_some_and(|(at, known, _)| at == node && known == name) {
            return Ok(());
        }
        let found = self.catalog.template(node, name).and_then(|t| plan_of(self.catalog, t));
        let plan = found.ok_or_else(|| refuse(format!("no template {name:?} is published at {node} or above")))?;
        self.last = Some((node.clone(), name.to_owned(), plan));
        Ok(())
    }
}

/// A template version with its table.
pub fn plan_of(catalog: &Catalog, template: &Arc<PinnedTemplate>) -> Option<Plan> {
    let table = catalog.table(&template.template.table)?;
    Some(Plan { template: Arc::clone(template), table: Arc::clone(table) })
}

/// Where a source may find what it says of an event.
#[derive(Clone, Copy)]
struct Found<'a> {
    document: &'a Document,
    envelope: &'a Envelope,
    key: Option<&'a ApiKey>,
}

impl<'a> Found<'a> {
    fn text(self, place: &'a Place, way: &mut Lookup) -> Option<Cow<'a, str>> {
        locate::text(place, |pointer| way.find(self.document, pointer), &self.envelope.meta, self.key)
    }

    /// The sender's id, else one of `Idempotency-Key`, else `None`: then receipt and index make it.
    fn event_id(self, source: &'a PinnedSource, way: &mut Lookup, index: u32) -> Result<Option<Arc<str>>, Rejection> {
        let place = source.source.event_id.as_ref();
        // Taken for none, what is no id would end the sender's protection from duplicates without a word.
        if let Some(Place::Pointer(pointer)) = place
            && let Some(kind) = way.find(self.document, pointer).map(Value::kind)
            && let Kind::Bool(_) | Kind::Float(_) | Kind::List(_) | Kind::Map(_) = kind
        {
            let detail = format!("an event id is a text or an integer of 64 bits; this one is a {}", kind_of(kind));
            return Err(Rejection::new(StageName::Open, Code::EventIdInvalid, detail).at(pointer.as_str()));
        }
        if let Some(place) = place
            && let Some(id) = self.text(place, way)
        {
            if id.is_empty() || id.len() > EVENT_ID_BYTES_MAX {
                let detail = format!("an event id has 1 to {EVENT_ID_BYTES_MAX} bytes; this one has {}", id.len());
                return Err(Rejection::new(StageName::Open, Code::EventIdInvalid, detail).at(pointer_of(place)));
            }
            return Ok(Some((&*id).into()));
        }
        Ok(self.envelope.idempotency.as_ref().map(|k| format!("{k}-{index}").into()))
    }

    /// The time where the source says; `None` where nothing stands there, or null. What stands there and is no time is the
    /// event's mistake, and never silently replaced by the time at which it came.
    fn time(self, place: &'a Place, way: &mut Lookup) -> Result<Option<Micros>, Rejection> {
        let text;
        let found = match place {
            Place::Pointer(pointer) => way.find(self.document, pointer).map_or(Scalar::Null, |value| Scalar::from(value.kind())),
            other => {
                text = self.text(other, way);
                // Headers and query values have no types: a number is one by its text.
                text.as_deref().map_or(Scalar::Null, |text| text.parse().map_or(Scalar::Text(text), Scalar::Float))
            }
        };
        match found {
            Scalar::Null => Ok(None),
            _ => timestamp(found).map(Some).map_err(|no| {
                let detail = no.detail("the event's own time", found);
                Rejection::new(StageName::Open, Code::OccurredAtInvalid, detail).at(pointer_of(place))
            }),
        }
    }
}

fn kind_of(kind: Kind<'_>) -> &'static str {
    match kind {
        Kind::Float(_) => "number with a fraction, or beyond 64 bits",
        other => Scalar::from(other).name(),
    }
}

fn pointer_of(place: &Place) -> &str {
    match place {
        Place::Pointer(pointer) => pointer,
        _ => "",
    }
}
