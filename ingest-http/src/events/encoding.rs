//! How a body is compressed, by its `Content-Encoding`. So far bodies travel as they are; a decoder comes to stand here,
//! between reading and splitting, with a cap of its own for decoded bytes.

use crate::problem::Problem;
use hyper::StatusCode;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue};

/// The encodings that can be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// None.
    Identity,
}

/// The one encoding of a request.
pub(super) fn of(headers: &HeaderMap) -> Result<Encoding, Box<Problem>> {
    let identity = |v: &HeaderValue| v.to_str().is_ok_and(|t| t.trim().is_empty() || t.trim().eq_ignore_ascii_case("identity"));
    if headers.get_all(CONTENT_ENCODING).iter().all(identity) {
        return Ok(Encoding::Identity);
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-encoding",
        "Unsupported Content-Encoding",
        "this Content-Encoding is not supported; send the body without one (identity)",
    )
    .with_header(ACCEPT_ENCODING, HeaderValue::from_static("identity")))
}
