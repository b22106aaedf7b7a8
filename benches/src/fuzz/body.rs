//! Bodies of requests to records of `raw`, against a splitter that is as plain as can be: serde_json tells what a value is.

use super::input::Input;
use crate::envelope::envelope;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use tidegate_ingest_http::records_of;
use tidegate_schemas::envelope::Envelope;
use tidegate_schemas::limits::{EVENT_BYTES_MAX, EVENT_TOO_LARGE_BYTES_KEPT, JSON_DEPTH_MAX, RECORD_BYTES_MAX, RECORD_HEADERS_BYTES_MAX};
use tidegate_schemas::verdict::Code;

const TYPES: [&str; 4] = ["application/json", "application/x-ndjson", "application/octet-stream", "application/json; charset=utf-8"];

/// What becomes of one event: taken, or refused with a code.
type Fate = (Vec<u8>, Option<&'static str>);

/// Makes the records of a body. The first byte is its content type. Where the next two are its checksum, it is repeated until
/// it needs several records: so a seed can be large, and none of its mutations, which would take milliseconds each.
pub fn body(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (kind, checksum) = (usize::from(input.u8()) % TYPES.len(), input.u16());
    let mut body = input.0.to_vec();
    let repeats = (1..=2).contains(&kind) && body.len() > 256 && checksum_of(&body) == checksum;
    if repeats {
        body.push(b'\n');
        body = body.repeat((RECORD_BYTES_MAX + RECORD_BYTES_MAX / 2) / body.len());
    }
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(TYPES[kind]));
    let expected = match kind {
        0 | 3 => json(&body),
        1 => Some(lines(&body)),
        _ => Some(vec![judged(&body, true)]),
    };
    let expected = expected.filter(|events| !events.is_empty() && !body.is_empty());
    let records = match records_of(&headers, Bytes::from(body), head()) {
        Ok(records) => records,
        Err(status) => {
            assert!(status.is_client_error());
            // Too many or too large refusals end a request as well.
            let refused: usize = expected.iter().flatten().filter(|(_, code)| code.is_some()).count();
            assert!(expected.is_none() || refused > 100 || repeats, "{status} for {expected:?}");
            return;
        }
    };
    let expected = expected.expect("a body without events makes no record");
    let mut found: BTreeMap<u32, Fate> = BTreeMap::new();
    for (place, record) in records.iter().enumerate() {
        assert!(record.value.len() <= RECORD_BYTES_MAX && record.size() - record.value.len() <= RECORD_HEADERS_BYTES_MAX);
        let envelope = Envelope::read(record).unwrap();
        assert!(place == 0 || envelope.refused.is_empty() && !envelope.events.is_empty());
        let taken = envelope.events.iter().map(|span| (span.index, (span.of(&record.value).to_vec(), None)));
        let refused = envelope.refused.iter().map(|r| {
            let code = Code::named(&r.code).expect("a code of ours").as_str();
            (r.span.index, (r.span.of(&record.value).to_vec(), Some(code)))
        });
        for (index, fate) in taken.chain(refused) {
            assert!(found.insert(index, fate).is_none(), "event {index} goes into two records");
        }
    }
    assert!(found.keys().copied().eq(0..found.len() as u32), "an index is left out");
    assert!(found.into_values().eq(expected.iter().cloned()), "another outcome than {expected:?}");
}

/// What makes a seed a large body.
pub(super) fn checksum_of(body: &[u8]) -> u16 {
    crc32fast::hash(body) as u16
}

fn head() -> Envelope {
    let meta = BTreeMap::from([("header:x-site".into(), "S\u{1}1".repeat(100))]);
    Envelope { meta, ..envelope("acme", "lns", Vec::new()).unwrap() }
}

/// One value, or the elements of an array; none where the text is broken anywhere.
fn json(body: &[u8]) -> Option<Vec<Fate>> {
    let text = std::str::from_utf8(body).ok()?;
    if text.trim_start_matches(WHITE).starts_with('[') {
        let events: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        return Some(events.into_iter().map(|e| judged(e.get().as_bytes(), false)).collect());
    }
    let event: &RawValue = serde_json::from_str(text).ok()?;
    Some(vec![judged(event.get().as_bytes(), false)])
}

/// A value in each line that is not blank.
fn lines(body: &[u8]) -> Vec<Fate> {
    let of_line = |line: &[u8]| match std::str::from_utf8(line).map(serde_json::from_str::<&RawValue>) {
        Ok(Ok(value)) => judged(value.get().as_bytes(), false),
        _ => {
            let begin = line.iter().take_while(|b| WHITE.contains(&char::from(**b))).count();
            let bytes = line[begin..].trim_ascii_end();
            let large = bytes.len() > EVENT_BYTES_MAX;
            if large { judged(bytes, true) } else { (bytes.to_vec(), Some(Code::Syntax.as_str())) }
        }
    };
    let blank = |line: &&[u8]| !line.iter().all(|b| WHITE.contains(&char::from(*b)));
    body.split(|b| *b == b'\n').filter(blank).map(of_line).collect()
}

const WHITE: [char; 4] = [' ', '\t', '\r', '\n'];

fn judged(event: &[u8], raw: bool) -> Fate {
    if event.len() > EVENT_BYTES_MAX {
        return (event[..EVENT_TOO_LARGE_BYTES_KEPT].to_vec(), Some(Code::EventTooLarge.as_str()));
    }
    let deep = !raw && depth(event) > JSON_DEPTH_MAX;
    (event.to_vec(), deep.then_some(Code::TooDeep.as_str()))
}

/// Nesting of a text that is JSON.
fn depth(text: &[u8]) -> usize {
    let (mut open, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                open += 1;
                deepest = deepest.max(open);
            }
            b']' | b'}' if !quoted => open -= 1,
            _ => {}
        }
    }
    deepest
}
