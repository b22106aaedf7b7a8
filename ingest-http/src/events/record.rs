//! Makes the records of a request: the whole body in one where it fits, else cut at event boundaries.
//!
//! Every accepted event goes into exactly one record, every refused one into the first. What would break that rule is an
//! error here, and then nothing of the request is stored.

use super::split::Split;
use bytes::{Bytes, BytesMut};
use tidegate_schemas::envelope::{Envelope, Refusal, Span};
use tidegate_schemas::limits::{RECEIPT_POSITIONS_MAX, RECORD_BYTES_MAX, REFUSAL_HEADER_BYTES_MAX};
use tidegate_schemas::log::Record;

/// What an event's place may take in the header `tg-events`: three small integers of up to 3, 4 and 3 bytes.
const PLACE_BYTES: usize = 10;

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
    if !split.refused.is_empty() && serde_json::to_vec(&split.refused).map_or(usize::MAX, |j| j.len()) > REFUSAL_HEADER_BYTES_MAX {
        return Err(Unfit::RefusalsTooMany);
    }
    if body.len() + split.accepted.len() * PLACE_BYTES <= RECORD_BYTES_MAX {
        return Ok(vec![Envelope { events: split.accepted, refused: split.refused, ..head }.into_record(body)]);
    }
    cut(&head, &body, split)
}

fn cut(head: &Envelope, body: &Bytes, split: Split) -> Result<Vec<Record>, Unfit> {
    let refused_bytes: usize = split.refused.iter().map(|r| r.span.len as usize).sum();
    if refused_bytes > RECORD_BYTES_MAX {
        return Err(Unfit::RefusedTooLarge);
    }
    let mut refused = Some(split.refused).filter(|r| !r.is_empty());
    let mut rest = &split.accepted[..];
    let mut records = Vec::new();
    while !rest.is_empty() || refused.is_some() {
        if records.len() == RECEIPT_POSITIONS_MAX {
            return Err(Unfit::TooManyRecords);
        }
        let room = RECORD_BYTES_MAX - if refused.is_some() { refused_bytes } else { 0 };
        let (now, later) = rest.split_at(fitting(rest, room));
        rest = later;
        let mut value = BytesMut::with_capacity(RECORD_BYTES_MAX - room + now.iter().map(|s| s.len as usize).sum::<usize>());
        let events = now.iter().map(|span| moved(span, body, &mut value)).collect();
        let refused = refused.take().unwrap_or_default();
        let refused = refused.into_iter().map(|r| Refusal { span: moved(&r.span, body, &mut value), ..r }).collect();
        records.push(Envelope { events, refused, ..head.clone() }.into_record(value.freeze()));
    }
    Ok(records)
}

/// How many of the first events go into `room` bytes. A whole record takes at least one, since an event is capped below it.
fn fitting(spans: &[Span], room: usize) -> usize {
    let mut used = 0;
    spans
        .iter()
        .take_while(|span| {
            used += span.len as usize + PLACE_BYTES;
            used <= room
        })
        .count()
}

fn moved(span: &Span, body: &Bytes, value: &mut BytesMut) -> Span {
    let start = value.len() as u32;
    value.extend_from_slice(&body[span.start as usize..(span.start + span.len) as usize]);
    Span { start, ..*span }
}
