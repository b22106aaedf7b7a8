//! Documents against serde_json's values: the same texts are taken, and every place holds the same.

use bytes::Bytes;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use tidegate_schemas::definition::Place;
use tidegate_schemas::document::{Document, DocumentError, Forms, Kind, Value};
use tidegate_schemas::limits::JSON_DEPTH_MAX;
use tidegate_schemas::locate;

/// Places looked up in one document.
const PLACES_MAX: usize = 200;

/// Parses the bytes as a document.
pub fn document(bytes: &[u8]) {
    // serde_json's own values take names of this kind for something else.
    if bytes.windows(11).any(|w| w == b"$serde_json") || bytes.windows(2).any(|w| w == b"\\u") && bytes.windows(4).any(|w| w == b"0024") {
        return;
    }
    let theirs = serde_json::from_slice::<Json>(bytes);
    match (Document::parse(Bytes::copy_from_slice(bytes)), theirs) {
        (Ok(document), Ok(json)) => {
            assert!(depth(&json) <= JSON_DEPTH_MAX, "too deep for a document");
            same(document.root(), &json);
            beside_others(bytes, &json);
            let mut text = String::new();
            document.root().write_json(&mut text);
            assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), json, "as it is written");
            number(bytes, &document);
            places(&document, &json);
        }
        (Err(DocumentError::Depth), Ok(json)) => assert!(depth(&json) > JSON_DEPTH_MAX),
        // Both stop at the first thing that they cannot take, and one of them may get to the depth before it.
        (Err(DocumentError::Depth), Err(_)) => {}
        (Err(DocumentError::Syntax { offset, .. }), theirs) => {
            assert!(offset <= bytes.len(), "a fault behind the end");
            // Ours has a deeper limit than theirs for nothing but depth.
            assert!(theirs.is_err(), "serde_json takes it");
        }
        (Ok(_), Err(error)) => panic!("serde_json refuses it: {error}"),
    }
}

/// What came before changes nothing: documents that begin like it, and itself.
fn beside_others(bytes: &[u8], json: &Json) {
    for before in [&br#"{"a":[1,{"b":null}],"v":"x"}"#[..], &bytes[..bytes.len() / 2], bytes] {
        let mut forms = Forms::default();
        let _ = Document::parse_like(Bytes::copy_from_slice(before), &mut forms);
        match Document::parse_like(Bytes::copy_from_slice(bytes), &mut forms) {
            Ok(document) => same(document.root(), json),
            Err(error) => panic!("refused beside others: {error}"),
        }
    }
}

fn depth(json: &Json) -> usize {
    match json {
        Json::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Json::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn same(ours: Value<'_>, theirs: &Json) {
    match (ours.kind(), theirs) {
        (Kind::Null, Json::Null) => {}
        (Kind::Bool(a), Json::Bool(b)) => assert_eq!(a, *b),
        (Kind::Int(a), Json::Number(b)) => assert_eq!(Some(a), b.as_i64()),
        (Kind::Uint(a), Json::Number(b)) => assert!(a > i64::MAX as u64 && Some(a) == b.as_u64()),
        (Kind::Float(a), Json::Number(b)) => assert!(b.is_f64() && Some(a.to_bits()) == b.as_f64().map(f64::to_bits)),
        (Kind::Text(a), Json::String(b)) => assert_eq!(a, b),
        (Kind::List(len), Json::Array(list)) => {
            assert_eq!((len, ours.elements().count()), (list.len(), list.len()));
            ours.elements().zip(list).for_each(|(a, b)| same(a, b));
        }
        (Kind::Map(len), Json::Object(map)) => {
            assert_eq!(len, ours.pairs().count());
            // Where a key occurs twice, the last one counts.
            let last: BTreeMap<&str, Value<'_>> = ours.pairs().collect();
            assert_eq!(last.len(), map.len());
            for (key, value) in last {
                same(value, &map[key]);
                same(ours.get(key).unwrap(), &map[key]);
            }
        }
        (_, theirs) => panic!("another kind than {theirs}"),
    }
}

/// A document that is one number has the value nearest to what was sent.
fn number(bytes: &[u8], document: &Document) {
    let text = std::str::from_utf8(bytes).unwrap_or_default().trim();
    if let Kind::Float(found) = document.root().kind() {
        assert_eq!(text.parse::<f64>().map(f64::to_bits), Ok(found.to_bits()), "{text} is not {found}");
    }
}

/// Pointers to everything in the document, and some that come near.
fn places(document: &Document, json: &Json) {
    let mut left = vec![(String::new(), json)];
    let mut looked = 0;
    while let Some((pointer, value)) = left.pop()
        && looked < PLACES_MAX
    {
        looked += 1;
        let found = document.pointer(&pointer).unwrap_or_else(|| panic!("nothing at {pointer:?}"));
        same(found, value);
        located(document, &pointer, value);
        let near: &[&str] = match value {
            Json::Array(list) => {
                left.extend(list.iter().enumerate().map(|(i, v)| (format!("{pointer}/{i}"), v)));
                &["/00", "/+0", "/-0", "/-", "/ 0", "/", "/0/", "/18446744073709551616"]
            }
            Json::Object(map) => {
                let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
                left.extend(map.iter().map(|(k, v)| (format!("{pointer}/{}", escaped(k)), v)));
                &["/~", "/~2", "/~01", "/~10", "/"]
            }
            _ => &["/", "/0", "0"],
        };
        for end in near {
            let near = format!("{pointer}{end}");
            match (document.pointer(&near), json.pointer(&near)) {
                (Some(ours), Some(theirs)) => same(ours, theirs),
                (None, None) => {}
                (ours, theirs) => panic!("{near:?}: {} and {theirs:?}", ours.is_some()),
            }
        }
    }
}

/// The edge and the dataflow find the text of a place in the same way: texts and integers only.
fn located(document: &Document, pointer: &str, value: &Json) {
    let place = Place::Pointer(pointer.to_owned());
    let meta = BTreeMap::new();
    let found = locate::text(&place, |pointer| document.pointer(pointer), &meta, None);
    let expected = match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) if number.is_i64() || number.is_u64() => Some(value.to_string()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => None,
    };
    assert_eq!(found.as_deref(), expected.as_deref(), "at {pointer:?}");
}
