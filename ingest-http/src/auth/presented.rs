//! Where a request carries its credential.

use super::{Denial, api_key};
use crate::events::query;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap};
use std::borrow::Cow;

/// Names under which clients put keys into URLs.
const QUERY_NAMES: [&str; 5] = ["api_key", "apikey", "api-key", "x-api-key", "access_token"];

/// The text of the credential: `Authorization` (Bearer, or the user name of Basic), else `X-API-Key`.
pub(super) fn credential(headers: &HeaderMap) -> Result<Cow<'_, str>, Denial> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let text = value.to_str().map_err(|_| Denial::Malformed)?;
        let (scheme, rest) = text.trim().split_once(' ').ok_or(Denial::Malformed)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(rest.trim().into());
        }
        if scheme.eq_ignore_ascii_case("basic") {
            let pair = STANDARD.decode(rest.trim()).map_err(|_| Denial::Malformed)?;
            let user = pair.split(|b| *b == b':').next().unwrap_or_default();
            return String::from_utf8(user.to_vec()).map(Cow::Owned).map_err(|_| Denial::Malformed);
        }
        return Err(Denial::Malformed);
    }
    let value = headers.get("x-api-key").ok_or(Denial::Absent)?;
    value.to_str().map(|text| text.trim().into()).map_err(|_| Denial::Malformed)
}

/// Whether a query carries something that is a key by its name or its form.
pub(super) fn in_query(text: &str) -> bool {
    query::pairs(text).any(|(name, value)| {
        QUERY_NAMES.iter().any(|n| name.eq_ignore_ascii_case(n)) || api_key::looks_like_one(&value) || api_key::looks_like_one(&name)
    })
}
