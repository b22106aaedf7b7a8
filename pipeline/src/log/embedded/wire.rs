//! The stored forms, all little-endian, each closed by a CRC-32. Frozen: a change is a new [`FORMAT`].
//!
//! ```text
//! segment  magic 8 | format 4 | chain 4 | log 16 | partitions 4 | id 8 | salt 8 | previous: end 8, link 4, time 8
//!          | next offset of every lane and partition, 8 each | crc 4
//! group    salt 8 | position 8 | body bytes 4 | records 4 | time 8 | link of the group before 4 | crc 4, then its records
//! record   body bytes 4 | crc of the body 4 | lane 1 | 0 | partition 2 | offset 8 | crc 4, then the body
//! body     key | headers | value            (lengths as LEB128; frequent header names as numbers)
//! ```
//! A group is what one fdatasync made durable. It is written where the durable part of the chain ends, so a valid group
//! header *is* the record of a durable end: whatever lies before it was synced. The salt is drawn for each segment, so
//! nothing that a tenant sends can look like a header.

use super::layout::Chain;
use bytes::Bytes;
use std::borrow::Cow;
use tidegate_schemas::ids::LogId;
use tidegate_schemas::log::{Header, Record};
use tidegate_schemas::varint;

/// Version of the stored forms.
pub const FORMAT: u32 = 1;
/// Bytes of a group header.
pub const GROUP_HEAD: usize = 40;
/// Bytes of a record header.
pub const RECORD_HEAD: usize = 24;
/// Bytes of a segment header before its offsets.
const SEGMENT_HEAD: usize = 72;
const MAGIC: [u8; 8] = *b"TGLOGSEG";

/// The first bytes of a segment: who it belongs to, and where every lane goes on in it, so that trimming is durable and a
/// partition without a record left never starts again at 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    pub log_id: LogId,
    pub chain: Chain,
    pub partitions: u32,
    pub id: u64,
    pub salt: [u8; 8],
    pub previous: Previous,
    /// By slot: lane × width + partition.
    pub next: Vec<u64>,
}

/// What a segment knows of the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Previous {
    /// Where it ends.
    pub end: u64,
    /// Link of its last group.
    pub link: u32,
    /// When it was last written to, µs.
    pub time: i64,
}

impl SegmentHead {
    /// Bytes of the header of such a segment.
    pub fn length(chain: Chain, partitions: u32) -> usize {
        SEGMENT_HEAD + chain.slots(partitions) * 8 + 4
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::length(self.chain, self.partitions));
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&(self.chain as u32).to_le_bytes());
        out.extend_from_slice(&self.log_id.0);
        out.extend_from_slice(&self.partitions.to_le_bytes());
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.previous.end.to_le_bytes());
        out.extend_from_slice(&self.previous.link.to_le_bytes());
        out.extend_from_slice(&self.previous.time.to_le_bytes());
        for next in &self.next {
            out.extend_from_slice(&next.to_le_bytes());
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a segment's first bytes; as many as there are may be given. Says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut rest = Fields(bytes);
        if rest.take::<8>() != Some(MAGIC) {
            return Err("it does not begin like a segment".into());
        }
        match rest.u32() {
            Some(FORMAT) => {}
            other => return Err(format!("format {} is not known to this version", other.unwrap_or(0))),
        }
        let read = |rest: &mut Fields<'_>| -> Option<Self> {
            let chain = Chain::from_number(rest.u32()?)?;
            let log_id = LogId(rest.take::<16>()?);
            let partitions = rest.u32()?;
            let id = rest.u64()?;
            let salt = rest.take::<8>()?;
            let previous = Previous { end: rest.u64()?, link: rest.u32()?, time: rest.u64()? as i64 };
            let next = (0..chain.slots(partitions)).map(|_| rest.u64()).collect::<Option<Vec<_>>>()?;
            let covered = bytes.len() - rest.0.len();
            (rest.u32()? == crc32fast::hash(&bytes[..covered])).then_some(Self { log_id, chain, partitions, id, salt, previous, next })
        };
        read(&mut rest).ok_or_else(|| "its header is damaged".into())
    }
}

/// The header of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHead {
    /// Its own first byte, which is where the durable part ended when it was written.
    pub position: u64,
    /// Bytes of its records.
    pub body: u32,
    /// Number of its records; a group without any only records the durable end.
    pub records: u32,
    /// When it was written, µs.
    pub time: i64,
    /// Link of the group before.
    pub previous: u32,
}

impl GroupHead {
    /// The stored form.
    pub fn encode(&self, salt: [u8; 8]) -> [u8; GROUP_HEAD] {
        let mut out = [0; GROUP_HEAD];
        out[..8].copy_from_slice(&salt);
        out[8..16].copy_from_slice(&self.position.to_le_bytes());
        out[16..20].copy_from_slice(&self.body.to_le_bytes());
        out[20..24].copy_from_slice(&self.records.to_le_bytes());
        out[24..32].copy_from_slice(&self.time.to_le_bytes());
        out[32..36].copy_from_slice(&self.previous.to_le_bytes());
        let crc = crc32fast::hash(&out[..36]);
        out[36..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header of the segment with this salt that stands at `position`; `None` where there is none.
    pub fn decode(bytes: &[u8], salt: [u8; 8], position: u64) -> Option<Self> {
        let mut rest = Fields(bytes.get(..GROUP_HEAD)?);
        let found = rest.take::<8>()?;
        let head = Self { position: rest.u64()?, body: rest.u32()?, records: rest.u32()?, time: rest.u64()? as i64, previous: rest.u32()? };
        (found == salt && head.position == position && rest.u32()? == crc32fast::hash(&bytes[..36])).then_some(head)
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// Bytes of the body.
    pub length: u32,
    /// CRC of the body.
    pub crc: u32,
    /// Which of the chain's logs.
    pub lane: u8,
    /// The partition.
    pub partition: u16,
    /// The offset.
    pub offset: u64,
}

impl RecordHead {
    /// The stored form.
    pub fn encode(&self) -> [u8; RECORD_HEAD] {
        let mut out = [0; RECORD_HEAD];
        out[..4].copy_from_slice(&self.length.to_le_bytes());
        out[4..8].copy_from_slice(&self.crc.to_le_bytes());
        out[8] = self.lane;
        out[10..12].copy_from_slice(&self.partition.to_le_bytes());
        out[12..20].copy_from_slice(&self.offset.to_le_bytes());
        let crc = crc32fast::hash(&out[..20]);
        out[20..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header; `None` where its CRC is wrong.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Fields(bytes.get(..RECORD_HEAD)?);
        let (length, crc) = (rest.u32()?, rest.u32()?);
        let [lane, _] = rest.take::<2>()?;
        let partition = u16::from_le_bytes(rest.take::<2>()?);
        let offset = rest.u64()?;
        (rest.u32()? == crc32fast::hash(&bytes[..20])).then_some(Self { length, crc, lane, partition, offset })
    }
}

/// Header names with a number, from 1 on. Frozen: only append. They would else be half of a small record.
pub const HEADER_NAMES: [&str; 21] = [
    "tg-version",
    "tg-tenant",
    "tg-node",
    "tg-source",
    "tg-credential",
    "tg-receipt",
    "tg-received-at",
    "tg-revision",
    "content-type",
    "tg-events",
    "tg-idempotency",
    "traceparent",
    "tg-meta",
    "tg-refused",
    "tg-kind",
    "tg-epoch",
    "tg-table",
    "tg-part",
    "tg-parts",
    "tg-rows",
    "tg-crc",
];

/// Appends the body of a record.
pub fn encode_body(out: &mut Vec<u8>, record: &Record) {
    varint::put(out, record.key.len() as u64);
    out.extend_from_slice(&record.key);
    varint::put(out, record.headers.len() as u64);
    for header in &record.headers {
        match HEADER_NAMES.iter().position(|n| *n == header.name) {
            Some(i) => varint::put(out, i as u64 + 1),
            None => {
                out.push(0);
                varint::put(out, header.name.len() as u64);
                out.extend_from_slice(header.name.as_bytes());
            }
        }
        varint::put(out, header.value.len() as u64);
        out.extend_from_slice(&header.value);
    }
    out.extend_from_slice(&record.value);
}

/// Reads the body of a record; all of it shares the memory of `body`.
pub fn decode_body(body: &Bytes) -> Option<Record> {
    let mut rest: &[u8] = body;
    let key = take(body, &mut rest)?;
    let count = varint::take(&mut rest)?;
    let mut headers = Vec::with_capacity(count.min(64) as usize);
    for _ in 0..count {
        let name = match varint::take(&mut rest)? {
            0 => Cow::Owned(String::from_utf8(take(body, &mut rest)?.to_vec()).ok()?),
            number => Cow::Borrowed(*HEADER_NAMES.get(usize::try_from(number).ok()? - 1)?),
        };
        headers.push(Header { name, value: take(body, &mut rest)? });
    }
    Some(Record { key, headers, value: body.slice_ref(rest) })
}

fn take(body: &Bytes, rest: &mut &[u8]) -> Option<Bytes> {
    let length = usize::try_from(varint::take(rest)?).ok()?;
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(body.slice_ref(taken))
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}
