//! Finding asset id, event id and the like where the source says, without a script. The edge and the dataflow share it,
//! so both always see the same asset.

use crate::definition::{ApiKey, Place};
use crate::document::{Kind, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The name under which a header's value travels in the envelope.
pub fn header_key(name: &str) -> String {
    format!("header:{}", name.to_ascii_lowercase())
}

/// The name under which a query parameter's value travels in the envelope.
pub fn query_key(name: &str) -> String {
    format!("query:{name}")
}

/// The text at a place, of which `find` gives what a pointer leads to; integers as JSON writes them. `None` where there is
/// nothing, or what is no id: null, a boolean, a number beyond 64 bits or with a fraction, a list or an object.
pub fn text<'a>(
    place: &'a Place,
    find: impl FnOnce(&str) -> Option<Value<'a>>,
    meta: &'a BTreeMap<String, String>,
    key: Option<&'a ApiKey>,
) -> Option<Cow<'a, str>> {
    match place {
        Place::Pointer(pointer) => match find(pointer)?.kind() {
            Kind::Text(text) => Some(Cow::Borrowed(text)),
            Kind::Int(i) => Some(Cow::Owned(i.to_string())),
            Kind::Uint(u) => Some(Cow::Owned(u.to_string())),
            // Two numbers that differ beyond what a double holds would be one id.
            Kind::Null | Kind::Bool(_) | Kind::Float(_) | Kind::List(_) | Kind::Map(_) => None,
        },
        Place::Header(name) => meta.get(&header_key(name)).map(|v| Cow::Borrowed(v.as_str())),
        Place::Query(name) => meta.get(&query_key(name)).map(|v| Cow::Borrowed(v.as_str())),
        Place::Credential => match key?.assets.as_deref() {
            Some([only]) => Some(Cow::Borrowed(only)),
            _ => None,
        },
        Place::Fixed(text) => Some(Cow::Borrowed(text)),
    }
}
