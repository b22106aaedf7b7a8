//! The record of `raw`: the events of one request for one partition, as sent, with what the edge knows about them.
//!
//! Its form is the same on every log: headers that other Kafka clients can read, and a value. Where the request goes
//! whole into one record the value is the decoded body as it was sent; else it is the bytes of the record's events, one
//! after the other. In both cases the header `events` tells where each lies, so nobody splits a body twice.

use crate::ids::{CredentialId, Epoch, NodeId, Partition, ReceiptId, Revision, SourceId, TenantId};
use crate::log::{Header, Record};
use crate::time::Micros;
use crate::varint;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the form below.
pub const VERSION: u8 = 1;

/// What the edge knows about the events of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Whose events these are: from the credential, never from the request.
    pub tenant: TenantId,
    /// The node that the source belongs to.
    pub node: NodeId,
    /// Where they came in.
    pub source: SourceId,
    /// What let them in.
    pub credential: CredentialId,
    /// The request.
    pub receipt: ReceiptId,
    /// When the request was complete, by the clock of the edge.
    pub received_at: Micros,
    /// The catalog that the edge used.
    pub revision: Revision,
    /// Media type of each event, without parameters: `application/json`, `application/octet-stream`.
    pub content_type: String,
    /// `Idempotency-Key` with a hash of the body, where the sender gave one: with the index it is the event's id.
    pub idempotency: Option<String>,
    /// W3C `traceparent`, as it was sent.
    pub traceparent: Option<String>,
    /// Headers (`header:x-device`) and query values (`query:device`) that the source refers to or lets through.
    pub meta: BTreeMap<String, String>,
    /// Accepted events, in the order of the request.
    pub events: Vec<Span>,
    /// Refused events: only in the request's first record.
    pub refused: Vec<Refusal>,
    /// Why its events come once more, where they do.
    pub release: Option<Release>,
}

/// Events that were refused once, and that somebody let go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Who asked for it.
    pub by: String,
    /// When, by the clock of the process that did it.
    pub at: Micros,
    /// Offset of the record in which they were refused, in the same partition.
    pub offset: u64,
    /// The rejections, one for each event of the record, in the same order.
    pub events: Vec<Released>,
}

/// The rejection of an event that was released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Released {
    /// The event's id, as its rejection has it: what it keeps where its sender gave it none.
    pub id: String,
    /// The rejection's code.
    pub code: String,
    /// The epoch of the rejection.
    pub epoch: Epoch,
}

/// Where an event lies in the record's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Index of the event in the request.
    pub index: u32,
    /// First byte in the value.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

/// An event that the edge refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Where it lies.
    pub span: Span,
    /// Why, as in [`crate::verdict::Code`].
    pub code: String,
    /// An explanation for people.
    pub detail: String,
    /// JSON pointer to the place, empty for the whole.
    pub pointer: String,
}

/// Why a record is no envelope.
#[derive(Debug, thiserror::Error)]
#[error("record is no envelope: {0}")]
pub struct EnvelopeError(pub &'static str);

impl Span {
    /// The event's bytes, without a copy. Spans are checked when an envelope is read.
    pub fn of(&self, value: &Bytes) -> Bytes {
        value.slice(self.start as usize..self.start as usize + self.len as usize)
    }
}

impl Envelope {
    /// The record for the log; its key is the tenant, so that partitioners of other clients agree.
    pub fn into_record(self, value: Bytes) -> Record {
        let mut headers = vec![
            Header::new("tg-version", vec![VERSION]),
            Header::new("tg-tenant", self.tenant.as_str()),
            Header::new("tg-node", self.node.as_str()),
            Header::new("tg-source", self.source.as_str()),
            Header::new("tg-credential", self.credential.as_str()),
            Header::new("tg-receipt", self.receipt.to_string()),
            Header::new("tg-received-at", self.received_at.to_string()),
            Header::new("tg-revision", self.revision.to_string()),
            Header::new("content-type", self.content_type),
            Header::new("tg-events", encode_spans(&self.events)),
        ];
        if let Some(key) = self.idempotency {
            headers.push(Header::new("tg-idempotency", key));
        }
        if let Some(parent) = self.traceparent {
            headers.push(Header::new("traceparent", parent));
        }
        if !self.meta.is_empty() {
            headers.push(Header::new("tg-meta", json(&self.meta)));
        }
        if !self.refused.is_empty() {
            headers.push(Header::new("tg-refused", json(&self.refused)));
        }
        if let Some(release) = &self.release {
            headers.push(Header::new("tg-release", json(release)));
        }
        Record { key: Bytes::copy_from_slice(self.tenant.as_str().as_bytes()), headers, value }
    }

    /// Reads the headers of `record` and checks every span against its value.
    pub fn read(record: &Record) -> Result<Self, EnvelopeError> {
        match record.header("tg-version") {
            Some([VERSION]) => {}
            Some(_) => return Err(EnvelopeError("its format version is unknown: a newer Tidegate wrote it")),
            None => return Err(EnvelopeError("it has no format version")),
        }
        let size = record.value.len() as u64;
        let fits = |s: &Span| u64::from(s.start) + u64::from(s.len) <= size;
        let events = decode_spans(record.header("tg-events").ok_or(EnvelopeError("tg-events is missing"))?)
            .filter(|spans| spans.iter().all(fits))
            .ok_or(EnvelopeError("tg-events is malformed"))?;
        let refused: Vec<Refusal> = match record.header("tg-refused") {
            Some(bytes) => serde_json::from_slice(bytes).map_err(|_| EnvelopeError("tg-refused is malformed"))?,
            None => Vec::new(),
        };
        if !refused.iter().all(|r| fits(&r.span)) {
            return Err(EnvelopeError("tg-refused points outside the value"));
        }
        let release: Option<Release> = match record.header("tg-release") {
            Some(bytes) => Some(serde_json::from_slice(bytes).map_err(|_| EnvelopeError("tg-release is malformed"))?),
            None => None,
        };
        if release.as_ref().is_some_and(|r| r.events.len() != events.len() || !refused.is_empty()) {
            return Err(EnvelopeError("tg-release is not about the record's events"));
        }
        Ok(Self {
            tenant: TenantId::new(text(record, "tg-tenant")?).map_err(|_| EnvelopeError("tg-tenant is no id"))?,
            node: NodeId::new(text(record, "tg-node")?).map_err(|_| EnvelopeError("tg-node is no id"))?,
            source: SourceId::new(text(record, "tg-source")?).map_err(|_| EnvelopeError("tg-source is no id"))?,
            credential: CredentialId::new(text(record, "tg-credential")?).map_err(|_| EnvelopeError("tg-credential is no id"))?,
            receipt: ReceiptId::try_from(text(record, "tg-receipt")?.to_owned()).map_err(|_| EnvelopeError("tg-receipt is no id"))?,
            received_at: number(record, "tg-received-at")?,
            revision: number(record, "tg-revision")?,
            content_type: text(record, "content-type")?.to_owned(),
            idempotency: optional(record, "tg-idempotency")?,
            traceparent: optional(record, "traceparent")?,
            meta: match record.header("tg-meta") {
                Some(bytes) => serde_json::from_slice(bytes).map_err(|_| EnvelopeError("tg-meta is malformed"))?,
                None => BTreeMap::new(),
            },
            events,
            refused,
            release,
        })
    }

    /// Events in the record, refused ones included: ordinals count accepted events first, then refused ones.
    pub fn len(&self) -> usize {
        self.events.len() + self.refused.len()
    }

    /// Whether the record carries no event at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The partition of a tenant that is not spread: a stable hash, the same on both logs and in every version.
pub fn partition_of(tenant: &TenantId, partitions: u32) -> Partition {
    crc32fast::hash(tenant.as_str().as_bytes()) % partitions
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    // Maps with text keys and plain structs always serialise.
    serde_json::to_vec(value).unwrap_or_default()
}

fn text<'a>(record: &'a Record, name: &'static str) -> Result<&'a str, EnvelopeError> {
    record.header(name).and_then(|b| std::str::from_utf8(b).ok()).ok_or(EnvelopeError(name))
}

fn optional(record: &Record, name: &'static str) -> Result<Option<String>, EnvelopeError> {
    record.header(name).map(|b| String::from_utf8(b.to_vec()).map_err(|_| EnvelopeError(name))).transpose()
}

fn number<T: std::str::FromStr>(record: &Record, name: &'static str) -> Result<T, EnvelopeError> {
    text(record, name)?.parse().map_err(|_| EnvelopeError(name))
}

/// Three small integers an event: indexes skipped, bytes skipped, length.
fn encode_spans(spans: &[Span]) -> Vec<u8> {
    let mut out = Vec::with_capacity(spans.len() * 4);
    let (mut index, mut at) = (0, 0);
    for span in spans {
        varint::put(&mut out, u64::from(span.index - index));
        varint::put(&mut out, u64::from(span.start - at));
        varint::put(&mut out, u64::from(span.len));
        (index, at) = (span.index + 1, span.start + span.len);
    }
    out
}

fn decode_spans(mut bytes: &[u8]) -> Option<Vec<Span>> {
    let mut spans = Vec::with_capacity(bytes.len() / 3);
    let (mut index, mut at) = (0u32, 0u32);
    while !bytes.is_empty() {
        let mut next = || varint::take(&mut bytes).and_then(|v| u32::try_from(v).ok());
        let span = Span { index: index.checked_add(next()?)?, start: at.checked_add(next()?)?, len: next()? };
        (index, at) = (span.index.checked_add(1)?, span.start.checked_add(span.len)?);
        spans.push(span);
    }
    Some(spans)
}
