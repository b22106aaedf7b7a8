//! Makes the records of a request: the whole body in one where it fits, else cut at event boundaries.
//!
//! Every accepted event goes into exactly one record, every refused one into the first. What would break that rule is an
//! error here, and then nothing of the request is stored.

use super::split::Split;
use bytes::{Bytes, BytesMut};
use tidegate_schemas::envelope::{Envelope, Refusal, Span};
use tidegate_schemas::limits::{RECEIPT_POSITIONS_MAX, RECORD_BYTES_MAX, RECORD_HEADERS_BYTES_MAX, REFUSAL_HEADER_BYTES_MAX};
use tidegate_schemas::log::Record;

/// What an event's place may take in the header `tg-events`: three small integers of up to 3, 4 and 3 bytes.
const PLACE_BYTES: usize = 10;
/// More than ids, names and trace context of an envelope take in headers, by their own bounds.
const OTHER_HEADERS_BYTES: usize = 2_048;
/// A byte of `meta` in JSON, at worst: a control character.
const ESCAPED_BYTES: usize = 6;

/// Why a request cannot be stored as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// The list of refused events is longer than one record's header takes.
    RefusalsTooMany,
    /// The refused events themselves do not fit into one record.
    RefusedTooLarge,
    /// More records than a receipt names.
    TooManyRecords,
}

/// The records, in order. `head` has no events yet.
pub(super) fn build(head: Envelope, body: Bytes, split: Split) -> Result<Vec<Record>, Unfit> {
    let refusals = if split.refused.is_empty() { 0 } else { serde_json::to_vec(&split.refused).map_or(usize::MAX, |j| j.len()) };
    if refusals > REFUSAL_HEADER_BYTES_MAX {
        return Err(Unfit::RefusalsTooMany);
    }
    let meta: usize = head.meta.iter().map(|(name, value)| (name.len() + value.len()) * ESCAPED_BYTES).sum();
    let places_max = (RECORD_HEADERS_BYTES_MAX - OTHER_HEADERS_BYTES).saturating_sub(meta) / PLACE_BYTES;
    let first_places_max = places_max.saturating_sub(refusals / PLACE_BYTES + 1);
    if body.len() <= RECORD_BYTES_MAX && split.accepted.len() <= first_places_max {
        return Ok(vec![Envelope { events: split.accepted, refused: split.refused, ..head }.into_record(body)]);
    }
    cut(&head, &body, split, first_places_max, places_max)
}

fn cut(head: &Envelope, body: &Bytes, split: Split, first_places_max: usize, places_max: usize) -> Result<Vec<Record>, Unfit> {
    let refused_bytes: usize = split.refused.iter().map(|r| r.span.len as usize).sum();
    if refused_bytes > RECORD_BYTES_MAX {
        return Err(Unfit::RefusedTooLarge);
    }
    let mut refused = split.refused;
    let mut rest = &split.accepted[..];
    let mut records = Vec::new();
    while records.is_empty() || !rest.is_empty() {
        if records.len() == RECEIPT_POSITIONS_MAX {
            return Err(Unfit::TooManyRecords);
        }
        let (taken, places) = if records.is_empty() { (refused_bytes, first_places_max) } else { (0, places_max) };
        let (count, bytes) = fitting(&rest[..rest.len().min(places)], RECORD_BYTES_MAX - taken);
        let (now, later) = rest.split_at(count);
        rest = later;
        let mut value = BytesMut::with_capacity(taken + bytes);
        let events = now.iter().map(|span| moved(span, body, &mut value)).collect();
        let refused = std::mem::take(&mut refused).into_iter().map(|r| Refusal { span: moved(&r.span, body, &mut value), ..r }).collect();
        records.push(Envelope { events, refused, ..head.clone() }.into_record(value.freeze()));
    }
    Ok(records)
}

/// How many of the first events go into `room` bytes, and their bytes. A record without refused ones takes at least one,
/// since an event is capped below it.
fn fitting(spans: &[Span], room: usize) -> (usize, usize) {
    let mut used = 0;
    for (count, span) in spans.iter().enumerate() {
        if used + span.len as usize > room {
            return (count, used);
        }
        used += span.len as usize;
    }
    (spans.len(), used)
}

fn moved(span: &Span, body: &Bytes, value: &mut BytesMut) -> Span {
    let start = value.len() as u32;
    value.extend_from_slice(&body[span.start as usize..(span.start + span.len) as usize]);
    Span { start, ..*span }
}
