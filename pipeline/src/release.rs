//! Release: refused events come again through `raw`, into their own partition, as their request brought them.
//!
//! ```text
//! rejections that wait ─▶ their records of raw (or their rows) ─▶ raw: the same events, with who released them
//!                                  ─▶ an epoch: duplicates are judged, rows and a row of `releases` written in one commit
//! ```
//! Nothing else is written, so nothing can come apart: an event was released once its new record is in `raw`. What was
//! released twice, by a repeated command or after a crash half-way, has the id that it had, and the second is a duplicate.

use crate::choice::RefusedChoice;
use crate::rejections::{Waiting, survey};
use crate::scan::ScanError;
use bytes::{Bytes, BytesMut};
use hashbrown::HashSet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidegate_schemas::block::{BlockError, Output, RejectionsRead};
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::definition::{Place, Source};
use tidegate_schemas::envelope::{Envelope, EnvelopeError, Release, Released, Span};
use tidegate_schemas::fault;
use tidegate_schemas::ids::{CredentialId, IdError, Partition, ReceiptId, SourceId, TenantId};
use tidegate_schemas::limits::{
    GROUP_COMMIT_BYTES_MAX, RECORD_BYTES_MAX, RELEASE_EVENTS_MAX, RELEASE_HEADER_BYTES_MAX, RELEASE_RECORDS_AT_ONCE,
};
use tidegate_schemas::log::{EventLog, LogError, LogName, Record};
use tidegate_schemas::time::Micros;
use tidegate_schemas::verdict::StageName;

/// What a release did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// Events that come again.
    pub released: u64,
    /// The same by the code of their rejection.
    pub codes: BTreeMap<String, u64>,
    /// Events whose template version is still in quarantine: they would be refused again.
    pub quarantined: u64,
    /// Events that the edge refused: what it found wrong stays wrong.
    pub of_the_edge: u64,
    /// Events whose request the log does not hold any more, and that cannot be run without its headers or credential.
    pub gone: u64,
    /// Whether there was more than one release takes.
    pub more: bool,
}

/// Why a release came to an end.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// What waits cannot be found out.
    #[error("rejections cannot be read")]
    Scan(#[from] ScanError),
    /// A row cannot be read back.
    #[error("rejections cannot be read")]
    Block(#[from] BlockError),
    /// A record of `raw` cannot be read.
    #[error("record {offset} of raw")]
    Envelope {
        /// Its offset.
        offset: u64,
        /// Why.
        #[source]
        cause: EnvelopeError,
    },
    /// A row names what is no id.
    #[error("rejections cannot be read")]
    Id(#[from] IdError),
    /// The log takes no more.
    #[error("after {released} events, which come again whatever happens now; release once more for the rest")]
    Publish {
        /// Events that were released before.
        released: u64,
        /// Why.
        #[source]
        cause: LogError,
    },
}

/// Who releases, and when.
pub struct Order<'a> {
    /// What is meant.
    pub choice: &'a RefusedChoice,
    /// Who wants it.
    pub by: &'a str,
    /// By the clock of the process.
    pub at: Micros,
}

/// Records for `raw`, each for its partition.
pub type Records = Vec<(Partition, Record)>;

/// Releases what is meant and waits, in raw order; `publish` appends to `raw` and returns once that is durable. Blocks.
///
/// # Errors
/// The log cannot be read, or takes no more.
pub fn release(
    log: &dyn EventLog,
    catalog: &Catalog,
    order: &Order<'_>,
    publish: impl Fn(Records) -> Result<(), LogError>,
) -> Result<Done, ReleaseError> {
    let found = survey(log, order.choice, RELEASE_EVENTS_MAX)?;
    let mut releasing =
        Releasing { log, catalog, order, done: Done { more: found.more, ..Done::default() }, ready: Vec::new(), events: Vec::new() };
    let quarantined: HashSet<(&str, String)> = catalog.quarantines().map(|q| (q.tenant.as_str(), q.label())).collect();
    let mut fit = found.waiting;
    fit.retain(|waiting| {
        let of_the_edge = waiting.stage == StageName::Ingest.as_str();
        let held = quarantined.contains(&(waiting.tenant.as_str(), waiting.template.clone()));
        releasing.done.of_the_edge += u64::from(of_the_edge);
        releasing.done.quarantined += u64::from(held && !of_the_edge);
        !of_the_edge && !held
    });
    for of_record in fit.chunk_by(|a, b| (a.partition, a.offset) == (b.partition, b.offset)) {
        releasing.take(of_record)?;
        let bytes: usize = releasing.ready.iter().map(|(_, record)| record.size()).sum();
        if releasing.ready.len() >= RELEASE_RECORDS_AT_ONCE || bytes >= GROUP_COMMIT_BYTES_MAX {
            releasing.publish(&publish)?;
        }
    }
    releasing.publish(&publish)?;
    Ok(releasing.done)
}

struct Releasing<'a> {
    log: &'a dyn EventLog,
    catalog: &'a Catalog,
    order: &'a Order<'a>,
    done: Done,
    ready: Records,
    /// Codes of the events that are ready.
    events: Vec<String>,
}

/// An event that comes again.
struct Again {
    index: u32,
    bytes: Bytes,
    released: Released,
}

impl Releasing<'_> {
    fn publish(&mut self, publish: impl Fn(Records) -> Result<(), LogError>) -> Result<(), ReleaseError> {
        if self.ready.is_empty() {
            return Ok(());
        }
        publish(std::mem::take(&mut self.ready)).map_err(|cause| ReleaseError::Publish { released: self.done.released, cause })?;
        for code in self.events.drain(..) {
            self.done.released += 1;
            *self.done.codes.entry(code).or_default() += 1;
        }
        fault::point("release.after_publish");
        Ok(())
    }

    /// Makes the events of one record ready.
    fn take(&mut self, waiting: &[Waiting]) -> Result<(), ReleaseError> {
        let Some(first) = waiting.first() else { return Ok(()) };
        let (head, again) = match self.request(first)? {
            Some((head, value)) => {
                let of = |w: &Waiting| {
                    let span = head.events.iter().find(|s| s.index == w.index)?;
                    Some(Again { index: w.index, bytes: span.of(&value), released: released(w) })
                };
                let again: Vec<Again> = waiting.iter().filter_map(of).collect();
                (head, again)
            }
            None => match self.without_request(first)? {
                Some(head) => (head, waiting.iter().map(|w| self.row_again(w)).collect::<Result<Vec<_>, _>>()?),
                None => {
                    self.done.gone += waiting.len() as u64;
                    return Ok(());
                }
            },
        };
        self.done.gone += (waiting.len() - again.len()) as u64;
        self.events.extend(again.iter().map(|a| a.released.code.clone()));
        let (by, at, offset) = (self.order.by.to_owned(), self.order.at, first.offset);
        let records = records(&head, &again, &Release { by, at, offset, events: Vec::new() });
        self.ready.extend(records.into_iter().map(|record| (first.partition, record)));
        Ok(())
    }

    /// The record that an event came in; none where it is trimmed.
    fn request(&self, waiting: &Waiting) -> Result<Option<(Envelope, Bytes)>, ReleaseError> {
        let found = match self.log.read(LogName::Raw, waiting.partition, waiting.offset, 1) {
            Err(LogError::Gone { .. }) => None,
            read => read.map_err(ScanError::from)?.into_iter().next().filter(|e| e.offset == waiting.offset),
        };
        let Some(entry) = found else { return Ok(None) };
        let envelope = Envelope::read(&entry.record).map_err(|cause| ReleaseError::Envelope { offset: entry.offset, cause })?;
        Ok((envelope.tenant.as_str() == waiting.tenant).then_some((envelope, entry.record.value)))
    }

    /// The head of a request whose record is trimmed, where its source needs nothing that only the record had.
    fn without_request(&self, waiting: &Waiting) -> Result<Option<Envelope>, ReleaseError> {
        let (tenant, id) = (TenantId::new(&waiting.tenant)?, SourceId::new(&waiting.source)?);
        let Some(source) = self.catalog.source(&tenant, &id).filter(|s| needs_event_alone(&s.source)) else { return Ok(None) };
        Ok(Some(Envelope {
            tenant,
            node: source.source.node.clone(),
            source: id,
            // No source that needs the event alone asks who sent it.
            credential: CredentialId::new("released")?,
            receipt: ReceiptId([0; 16]),
            received_at: waiting.received_at,
            revision: self.catalog.revision(),
            content_type: self.row(waiting)?.1,
            idempotency: None,
            traceparent: None,
            meta: BTreeMap::new(),
            events: Vec::new(),
            refused: Vec::new(),
            release: None,
        }))
    }

    fn row_again(&self, waiting: &Waiting) -> Result<Again, ReleaseError> {
        Ok(Again { index: waiting.index, bytes: self.row(waiting)?.0, released: released(waiting) })
    }

    /// The bytes of a rejection's row, and their media type.
    fn row(&self, waiting: &Waiting) -> Result<(Bytes, String), ReleaseError> {
        let gone = || BlockError("a row was trimmed while it was to be released".into());
        let (offset, row) = waiting.row;
        let entries = self.log.read(LogName::Audit, waiting.partition, offset, 1).map_err(ScanError::from)?;
        let entry = entries.into_iter().next().filter(|e| e.offset == offset).ok_or_else(gone)?;
        let Output::Block(block) = Output::read(&entry.record)? else { return Err(gone().into()) };
        let batch = block.batch()?;
        let rows = RejectionsRead::new(&batch)?;
        let refused = rows.rows().nth(row as usize).ok_or_else(gone)?;
        Ok((Bytes::copy_from_slice(refused.original), refused.content_type.to_owned()))
    }
}

fn released(waiting: &Waiting) -> Released {
    Released { id: waiting.event_id.clone(), code: waiting.code.clone(), epoch: waiting.epoch }
}

/// Whether the events of a source can be run by their bytes.
fn needs_event_alone(source: &Source) -> bool {
    let optional = [&source.template_at, &source.event_id, &source.occurred_at, &source.event_type];
    let mut places = optional.into_iter().flatten().chain([&source.asset]);
    source.meta.is_empty() && places.all(|p| matches!(p, Place::Pointer(_) | Place::Fixed(_)))
}

/// Cuts released events into records, each with the list of its rejections.
fn records(head: &Envelope, mut rest: &[Again], release: &Release) -> Vec<Record> {
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (mut bytes, mut listed, mut count) = (0, 0, 0);
        for again in rest {
            bytes += again.bytes.len();
            listed += serde_json::to_vec(&again.released).unwrap_or_default().len() + 1;
            if count > 0 && (bytes > RECORD_BYTES_MAX || listed > RELEASE_HEADER_BYTES_MAX) {
                break;
            }
            count += 1;
        }
        let (now, later) = rest.split_at(count);
        rest = later;
        let (mut value, mut events) = (BytesMut::new(), Vec::new());
        for again in now {
            events.push(Span { index: again.index, start: value.len() as u32, len: again.bytes.len() as u32 });
            value.extend_from_slice(&again.bytes);
        }
        let release = Release { events: now.iter().map(|a| a.released.clone()).collect(), ..release.clone() };
        let envelope = Envelope { events, refused: Vec::new(), release: Some(release), ..head.clone() };
        records.push(envelope.into_record(value.freeze()));
    }
    records
}
