//! What the envelope keeps of a request beside its body: the headers and query values that the source refers to or lets
//! through, the idempotency key and the trace context.

use super::query;
use crate::problem::Problem;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use tidegate_schemas::definition::{Place, Source};
use tidegate_schemas::limits::{IDEMPOTENCY_KEY_BYTES_MAX, META_BYTES_MAX};
use tidegate_schemas::locate::{header_key, query_key};

/// The values by the names under which [`tidegate_schemas::locate`] looks for them.
pub(super) fn gather(source: &Source, headers: &HeaderMap, query: Option<&str>) -> Result<BTreeMap<String, String>, Box<Problem>> {
    let mut meta = BTreeMap::new();
    for name in &source.meta {
        put_header(&mut meta, headers, name);
    }
    let optional = [&source.template_at, &source.event_id, &source.occurred_at, &source.event_type];
    for place in optional.into_iter().flatten().chain([&source.asset]) {
        match place {
            Place::Header(name) => put_header(&mut meta, headers, name),
            Place::Query(name) => {
                if let Some((_, value)) = query.and_then(|q| query::pairs(q).find(|(n, _)| n == name)) {
                    meta.insert(query_key(name), value.into_owned());
                }
            }
            Place::Pointer(_) | Place::Credential | Place::Fixed(_) => {}
        }
    }
    let bytes: usize = meta.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > META_BYTES_MAX {
        return Err(Problem::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "meta-too-large",
            "Headers too large",
            format!("the headers and query values that this source keeps have {bytes} bytes, more than {META_BYTES_MAX}"),
        ));
    }
    Ok(meta)
}

/// Several headers of one name are one list, as HTTP has it.
fn put_header(meta: &mut BTreeMap<String, String>, headers: &HeaderMap, name: &str) {
    let mut values = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()));
    let Some(first) = values.next() else { return };
    let value = values.fold(first.into_owned(), |all, next| all + ", " + &next);
    meta.insert(header_key(name), value);
}

/// The sender's `Idempotency-Key`: a quoted string (RFC 8941), as the draft has it, or the bare text.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Box<Problem>> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let key = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "idempotency-key",
            "Unusable Idempotency-Key",
            format!("an Idempotency-Key is 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters"),
        ));
    }
    Ok(Some(key))
}

/// Key and hash of the body: the same key with another body makes other event ids, so nothing is lost to a reused key.
/// (A table of keys in flight, for 409 and 422, would be asked before this.)
pub(super) fn idempotency(key: &str, body: &[u8]) -> String {
    let hash = Sha256::digest(body);
    format!("{key}:{}", hex::encode(&hash[..16]))
}

/// A valid W3C `traceparent`; anything else is no trace context and is left out, as the standard asks.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let hex = |range: std::ops::Range<usize>| text.get(range).is_some_and(|t| t.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    let dash = |at: usize| text.as_bytes().get(at) == Some(&b'-');
    let form = hex(0..2) && dash(2) && hex(3..35) && dash(35) && hex(36..52) && dash(52) && hex(53..55);
    // Version 00 ends here; a later one may carry more after a dash.
    let length = text.len() == 55 || (!text.starts_with("00") && dash(55) && text.len() <= 128);
    let zeros = |range: std::ops::Range<usize>| text.get(range).is_some_and(|t| t.bytes().all(|b| b == b'0'));
    (form && length && !text.starts_with("ff") && !zeros(3..35) && !zeros(36..52)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn only_valid_trace_contexts_are_kept() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        for (text, valid) in [
            (format!("00-{id}-01"), true),
            (format!("cc-{id}-01-what-comes"), true),
            (format!("00-{id}-01-more"), false),
            (format!("ff-{id}-01"), false),
            (format!("00-{}-01", id.to_uppercase()), false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01".to_owned(), false),
            (String::new(), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_str(&text).unwrap());
            assert_eq!(traceparent(&headers).is_some(), valid, "{text}");
        }
    }
}
