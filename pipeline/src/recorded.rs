//! Recorded events of a template: those that `raw` still holds, found as production finds them, or rejections.

use crate::choice::{Choice, Known};
use crate::definitions::CatalogFollower;
use crate::definitions::catalogs::CatalogsError;
use crate::scan::{self, ScanError};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use tidegate_operators::event::{Bundle, Event, Progress};
use tidegate_operators::stages::open::{self, Slice};
use tidegate_schemas::block::{Output, Refused, RejectionsRead};
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::definition::Source;
use tidegate_schemas::envelope::{Envelope, EnvelopeError};
use tidegate_schemas::ids::{Partition, TenantId};
use tidegate_schemas::locate::header_key;
use tidegate_schemas::log::{Entry, EventLog, LogError, LogName};
use tidegate_schemas::system::SystemTable;
use tidegate_schemas::time::Micros;
use tidegate_schemas::verdict::Code;

/// An event as it came in, with what its scripts may ask for besides.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Whose.
    pub tenant: String,
    /// Where it came in.
    pub source: String,
    /// The asset's id.
    pub asset: String,
    /// The asset's attributes, as they are now.
    pub attributes: BTreeMap<String, String>,
    /// Headers that the source lets through, by their names.
    pub meta: BTreeMap<String, String>,
    /// When it came.
    pub received_at: Micros,
    /// Its own time, where its source looks for it.
    pub occurred_at: Option<Micros>,
    /// Its type, where its source looks for it.
    pub event_type: Option<String>,
    /// Whether it is JSON, or bytes.
    pub is_json: bool,
    /// As sent.
    pub bytes: Bytes,
    /// Stage and code, where it was refused.
    pub refused: Option<(String, String)>,
}

/// Which events are wanted.
pub struct Wish<'a> {
    /// Whose, and when.
    pub of: &'a Choice,
    /// Those that go to this template. Where a source or an asset is named, those too that find no template at all.
    pub template: &'a str,
    /// Only refused ones, with one of these codes where there are any.
    pub refused: Option<&'a [String]>,
    /// How many at most: the newest, equal ones once.
    pub count: usize,
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum RecordedError {
    /// The log cannot be read.
    #[error("recorded events")]
    Scan(#[from] ScanError),
    /// There is no catalog to find sources by.
    #[error("definitions")]
    Catalogs(#[from] CatalogsError),
    /// A record is none.
    #[error("record {offset} of raw, partition {partition}")]
    Envelope {
        /// Its partition.
        partition: Partition,
        /// Its offset.
        offset: u64,
        /// Why.
        #[source]
        cause: EnvelopeError,
    },
}

impl From<LogError> for RecordedError {
    fn from(error: LogError) -> Self {
        Self::Scan(error.into())
    }
}

/// Finds events in a log, the oldest of the newest first. Blocks.
///
/// # Errors
/// The log cannot be read.
pub fn recorded(log: &Arc<dyn EventLog>, wish: &Wish<'_>) -> Result<Vec<Recorded>, RecordedError> {
    let catalog = CatalogFollower::open(Arc::clone(log))?.current();
    let search = Search { log: &**log, catalog: &catalog, wish };
    let mut all = Vec::new();
    for partition in 0..log.partitions() {
        let mut newest = Newest { most: wish.count, events: VecDeque::new() };
        match wish.refused {
            Some(codes) => search.rejections(partition, codes, &mut newest)?,
            None => search.raw(partition, &mut newest)?,
        }
        all.extend(newest.events);
    }
    all.sort_by_key(|event| event.received_at);
    all.drain(..all.len().saturating_sub(wish.count));
    Ok(all)
}

struct Search<'a> {
    log: &'a dyn EventLog,
    catalog: &'a Catalog,
    wish: &'a Wish<'a>,
}

/// The newest events that differ in their bytes.
struct Newest {
    most: usize,
    events: VecDeque<Recorded>,
}

impl Newest {
    fn push(&mut self, event: Recorded) {
        self.events.retain(|e| e.bytes != event.bytes);
        self.events.push_back(event);
        if self.events.len() > self.most {
            self.events.pop_front();
        }
    }
}

impl Search<'_> {
    fn raw(&self, partition: Partition, newest: &mut Newest) -> Result<(), RecordedError> {
        let bounds = self.log.bounds(LogName::Raw, partition)?;
        // The asset is known once a record is opened.
        let of = Choice { assets: Vec::new(), ..self.wish.of.clone() };
        scan::each(self.log, LogName::Raw, partition, bounds, |entry| {
            let envelope = Envelope::read(&entry.record);
            let envelope = envelope.map_err(|cause| RecordedError::Envelope { partition, offset: entry.offset, cause })?;
            let known =
                Known { tenant: envelope.tenant.as_str(), source: envelope.source.as_str(), asset: "", received_at: envelope.received_at };
            // What was released is here already as it came first.
            if !of.takes(known) || envelope.release.is_some() {
                return Ok(());
            }
            let to = envelope.events.len() as u32;
            let bundles = self.open(entry, envelope, 0..to);
            let mut events: Vec<(&Bundle, &Event)> = bundles.iter().flat_map(|b| b.events.iter().map(move |e| (b, e))).collect();
            events.sort_unstable_by_key(|(_, e)| e.origin.at);
            for (bundle, event) in events {
                if self.wish.of.takes_asset(&event.origin.asset) && self.is_of(bundle, event) {
                    newest.push(self.event(bundle, event));
                }
            }
            Ok::<_, RecordedError>(())
        })
    }

    /// Events of a record, as production finds them.
    fn open(&self, entry: &Entry, envelope: Envelope, Range { start: from, end: to }: Range<u32>) -> Vec<Bundle> {
        let slice = Slice { offset: entry.offset, envelope: Arc::new(envelope), value: entry.record.value.clone(), from, to };
        open::apply(&[slice], self.catalog, self.log.log_id(), &|_| false)
    }

    fn is_of(&self, bundle: &Bundle, event: &Event) -> bool {
        match (&bundle.plan, &event.progress) {
            (Some(plan), _) => plan.template.template.id.as_str() == self.wish.template,
            (None, Progress::Rejected(r)) => self.takes_homeless() && r.code == Code::TemplateUnknown.as_str(),
            (None, _) => false,
        }
    }

    /// Whether events without any template are meant: a template that was never published has no others.
    fn takes_homeless(&self) -> bool {
        self.wish.of.source.is_some() || !self.wish.of.assets.is_empty()
    }

    fn event(&self, bundle: &Bundle, event: &Event) -> Recorded {
        let envelope = &event.envelope;
        let source = bundle.source.as_ref().map(|s| &s.source);
        Recorded {
            tenant: envelope.tenant.to_string(),
            source: envelope.source.to_string(),
            asset: event.origin.asset.to_string(),
            attributes: event.asset.as_ref().map(|a| a.asset.attributes.clone()).unwrap_or_default(),
            meta: source.map(|s| let_through(s, envelope)).unwrap_or_default(),
            received_at: envelope.received_at,
            occurred_at: event.occurred_at,
            event_type: event.event_type.as_ref().map(|name| name.to_string()),
            is_json: is_json(&envelope.content_type),
            bytes: event.bytes.clone(),
            refused: None,
        }
    }

    fn rejections(&self, partition: Partition, codes: &[String], newest: &mut Newest) -> Result<(), RecordedError> {
        let bounds = self.log.bounds(LogName::Audit, partition)?;
        scan::each(self.log, LogName::Audit, partition, bounds, |entry| {
            let fail = |e| ScanError::Block(partition, e);
            let Output::Block(block) = Output::read(&entry.record).map_err(fail)? else { return Ok(()) };
            if block.table != SystemTable::Rejections.as_str() {
                return Ok(());
            }
            let batch = block.batch().map_err(fail)?;
            for refused in RejectionsRead::new(&batch).map_err(fail)?.rows() {
                let Refused { tenant, source, asset, received_at, code, .. } = refused;
                let is_of = match refused.template.split_once('@') {
                    Some((id, _)) => id == self.wish.template,
                    None => self.takes_homeless() && code == Code::TemplateUnknown.as_str(),
                };
                let wanted = codes.is_empty() || codes.iter().any(|c| c == code);
                if is_of && wanted && self.wish.of.takes(Known { tenant, source, asset, received_at }) {
                    newest.push(self.refused(partition, &refused)?);
                }
            }
            Ok::<_, RecordedError>(())
        })
    }

    fn refused(&self, partition: Partition, refused: &Refused<'_>) -> Result<Recorded, RecordedError> {
        let asset = TenantId::new(refused.tenant).ok().and_then(|tenant| self.catalog.asset(&tenant, refused.asset));
        // A rejection's row does not hold everything that came with the event.
        let sent = self.sent(partition, refused)?;
        let (occurred_at, event_type, meta) = sent.map(|r| (r.occurred_at, r.event_type, r.meta)).unwrap_or_default();
        Ok(Recorded {
            tenant: refused.tenant.to_owned(),
            source: refused.source.to_owned(),
            asset: refused.asset.to_owned(),
            attributes: asset.map(|a| a.asset.attributes.clone()).unwrap_or_default(),
            meta,
            received_at: refused.received_at,
            occurred_at,
            event_type,
            is_json: is_json(refused.content_type),
            bytes: Bytes::copy_from_slice(refused.original),
            refused: Some((refused.stage.to_owned(), refused.code.to_owned())),
        })
    }

    /// A refused event as it came: known as long as `raw` holds the request.
    fn sent(&self, partition: Partition, refused: &Refused<'_>) -> Result<Option<Recorded>, RecordedError> {
        let read = match self.log.read(LogName::Raw, partition, refused.offset, 1) {
            Err(LogError::Gone { .. }) => return Ok(None),
            read => read?,
        };
        let entry = read.first().filter(|entry| entry.offset == refused.offset);
        let Some((entry, envelope)) = entry.and_then(|entry| Some((entry, Envelope::read(&entry.record).ok()?))) else { return Ok(None) };
        // One of thousands that came together.
        let Some(ordinal) = envelope.events.iter().position(|span| span.index == refused.index) else { return Ok(None) };
        let bundles = self.open(entry, envelope, ordinal as u32..ordinal as u32 + 1);
        Ok(bundles.first().and_then(|bundle| Some(self.event(bundle, bundle.events.first()?))))
    }
}

fn let_through(source: &Source, envelope: &Envelope) -> BTreeMap<String, String> {
    let value = |name: &String| Some((name.clone(), envelope.meta.get(&header_key(name))?.clone()));
    source.meta.iter().filter_map(value).collect()
}

fn is_json(content_type: &str) -> bool {
    content_type != "application/octet-stream"
}
