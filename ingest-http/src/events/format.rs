//! What a body is, by its `Content-Type`. A new format is a variant here and an arm in `split`.

use crate::problem::Problem;
use hyper::StatusCode;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};

/// How a body is split into events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// One value, or an array of events.
    Json,
    /// A value a line.
    Ndjson,
    /// One event of any bytes.
    Raw,
}

const SUPPORTED: &str = "application/json, application/x-ndjson, application/octet-stream";

impl Format {
    /// Media type of each event, as the envelope carries it.
    pub(super) fn event_type(self) -> &'static str {
        match self {
            Self::Json | Self::Ndjson => "application/json",
            Self::Raw => "application/octet-stream",
        }
    }
}

/// The format of a request.
pub(super) fn of(headers: &HeaderMap) -> Result<Format, Box<Problem>> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Err(unsupported("the request has no Content-Type"));
    };
    let text = value.to_str().map_err(|_| unsupported("the Content-Type is no text"))?;
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let format = match essence.as_str() {
        "application/json" => Format::Json,
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => Format::Ndjson,
        "application/octet-stream" => return Ok(Format::Raw),
        _ => return Err(unsupported("this Content-Type is not supported")),
    };
    for (name, value) in parts.filter_map(|p| p.split_once('=')) {
        let value = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("charset") && !value.eq_ignore_ascii_case("utf-8") && !value.eq_ignore_ascii_case("utf8") {
            return Err(unsupported("JSON is UTF-8: no other charset is supported"));
        }
    }
    Ok(format)
}

fn unsupported(what: &str) -> Box<Problem> {
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-media-type",
        "Unsupported Content-Type",
        format!("{what}; send one of {SUPPORTED}"),
    )
    .with_header(ACCEPT, HeaderValue::from_static(SUPPORTED))
}
