//! A credential that is bound to assets cannot speak for another one. Only here, and only for such credentials, does the
//! edge build documents: the asset stands where the source says, and the dataflow will look in the same place.

use super::format::Format;
use super::split::Split;
use crate::auth::Caller;
use bytes::Bytes;
use hashbrown::HashSet;
use std::borrow::Cow;
use std::collections::BTreeMap;
use tidegate_schemas::definition::Place;
use tidegate_schemas::document::Document;
use tidegate_schemas::envelope::{Refusal, Span};
use tidegate_schemas::locate;
use tidegate_schemas::verdict::{Code, cut};

/// Moves events whose asset the credential may not speak for from the accepted to the refused ones.
pub(super) fn check(caller: &Caller, body: &Bytes, format: Format, meta: &BTreeMap<String, String>, split: &mut Split) {
    let Some(assets) = &caller.key.assets else { return };
    let allowed: HashSet<&str> = assets.iter().map(String::as_str).collect();
    let place = &caller.source.source.asset;
    let null = Document::null();
    let mut refused = Vec::new();
    split.accepted.retain(|span| {
        let document = match (place, format) {
            (Place::Pointer(_), Format::Json | Format::Ndjson) => match Document::parse(span.of(body)) {
                Ok(document) => Cow::Owned(document),
                Err(error) => {
                    refused.push(refusal(*span, Code::Syntax, error.to_string(), place));
                    return false;
                }
            },
            _ => Cow::Borrowed(&null),
        };
        let verdict = match locate::text(place, |pointer| document.pointer(pointer), meta, Some(&caller.key)) {
            None => Some((Code::AssetMissing, "the source's place for the asset holds none".to_owned())),
            Some(asset) if allowed.contains(&*asset) => None,
            Some(asset) => {
                Some((Code::AssetNotAllowed, format!("the credential may not speak for asset {:?}", cut(asset.into_owned(), 128))))
            }
        };
        let keep = verdict.is_none();
        refused.extend(verdict.map(|(code, detail)| refusal(*span, code, detail, place)));
        keep
    });
    if !refused.is_empty() {
        split.refused.append(&mut refused);
        split.refused.sort_by_key(|r| r.span.index);
    }
}

fn refusal(span: Span, code: Code, detail: String, place: &Place) -> Refusal {
    let pointer = match place {
        Place::Pointer(pointer) if code != Code::Syntax => pointer.clone(),
        _ => String::new(),
    };
    Refusal { span, code: code.as_str().to_owned(), detail, pointer }
}
