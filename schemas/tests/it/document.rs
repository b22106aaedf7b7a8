use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;
use tidegate_schemas::document::{Document, DocumentError, Forms, Lookup, Value};

fn parse(text: &str) -> Result<Document, DocumentError> {
    Document::parse(Bytes::copy_from_slice(text.as_bytes()))
}

fn json(document: &Document) -> String {
    let mut out = String::new();
    document.root().write_json(&mut out);
    out
}

#[test]
fn a_document_says_what_was_sent() {
    for text in [
        "null",
        "true",
        "-3",
        "18446744073709551615",
        "1.5",
        "\"x\"",
        "[]",
        "{}",
        "[1,[2,[]],{\"a\":{}}]",
        "{\"a\":\"line\\nbreak\",\"b\":\"\u{e9}\"}",
    ] {
        assert_eq!(json(&parse(text).unwrap()), text);
    }
}

#[test]
fn pointers_follow_rfc_6901() {
    let document = parse(r#"{"a":[{"b":1},{"b":2}],"m~n":3,"x/y":4,"":5,"twice":1,"twice":2}"#).unwrap();
    for (pointer, expected) in [
        ("/a/1/b", Some("2")),
        ("/m~0n", Some("3")),
        ("/x~1y", Some("4")),
        ("/", Some("5")),
        ("/twice", Some("2")),
        ("/a/2", None),
        ("/a/x", None),
        ("a", None),
    ] {
        let found = document.pointer(pointer).map(|v| {
            let mut out = String::new();
            v.write_json(&mut out);
            out
        });
        assert_eq!(found.as_deref(), expected, "{pointer}");
    }
}

#[test]
fn errors_name_the_byte() {
    for (text, offset) in [("{\"a\":}", 5), ("[1,\n2,,]", 6), ("", 0), ("[1", 2)] {
        match parse(text) {
            Err(DocumentError::Syntax { offset: found, .. }) => {
                assert!(found.abs_diff(offset) <= 1, "{text:?}: {found} instead of {offset}")
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }
    assert_eq!(parse(&format!("{}{}", "[".repeat(65), "]".repeat(65))).unwrap_err(), DocumentError::Depth);
    assert!(parse(&format!("{}{}", "[".repeat(64), "]".repeat(64))).is_ok());
    assert!(Document::parse(Bytes::from_static(b"\"\xff\"")).is_err());
}

#[test]
fn numbers_are_the_nearest_and_of_their_kind() {
    for text in [
        "0",
        "-7",
        "123456789012345678",
        "1234567890123456789",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616",
        "-0",
        "-0.0",
        "0.1",
        "90.08302973663159",
        "9007199254740993.0",
        "900719925474099.3",
        "0.000000000000000001",
        "123456789.123456789",
        "1e5",
        "1E-7",
        "1.5e+3",
        "5e-324",
        "2.2250738585072011e-308",
        "1e400",
        "01",
        "1.",
        ".5",
        "-",
        "1e",
        "1e+",
        "--1",
        "1 2",
        " 1\t",
    ] {
        let theirs = serde_json::from_str::<serde_json::Value>(text).ok();
        let ours = parse(text).ok().map(|d| serde_json::from_str::<serde_json::Value>(&json(&d)).unwrap());
        assert_eq!(ours, theirs, "{text}");
        if let (Ok(document), Ok(nearest)) = (parse(text), text.trim().parse::<f64>()) {
            assert_eq!(document.root().as_f64().map(f64::to_bits), Some(nearest.to_bits()), "{text}");
        }
    }
}

#[test]
fn of_a_key_that_occurs_twice_the_last_is_written() {
    for (text, written) in [
        (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
        (r#"{"a":{"b":1},"c":3,"a":{"b":1,"b":[{"d":1,"d":2}]}}"#, r#"{"c":3,"a":{"b":[{"d":2}]}}"#),
        (r#"{"\u0061":1,"a":2,"":3,"":4}"#, r#"{"a":2,"":4}"#),
    ] {
        assert_eq!(json(&parse(text).unwrap()), written, "{text}");
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        "\\PC*".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map("\\PC{0,6}", inner, 0..6).prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_survives(value in any_json()) {
        let text = value.to_string();
        prop_assert_eq!(json(&parse(&text).unwrap()), text);
    }

    /// The scanner of the usual JSON and the full parser are one to their readers.
    #[test]
    fn what_is_nearly_json_is_what_serde_json_makes_of_it(text in "[\\[\\]{}\":, 0-9.eE+truefalsn\\\\-]{0,24}") {
        let ours = parse(&text).ok().map(|d| serde_json::from_str::<serde_json::Value>(&json(&d)).unwrap());
        prop_assert_eq!(ours, serde_json::from_str::<serde_json::Value>(&text).ok());
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let ours = Document::parse(Bytes::from(bytes.clone())).is_ok();
        prop_assert_eq!(ours, serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
    }

    /// Whatever came before: a document says what it says alone, it has the form of another one exactly where only scalars
    /// differ, and a lookup finds what the pointer leads to.
    #[test]
    fn forms_change_nothing(values in prop::collection::vec(small_json(), 1..12), again in 0..12_usize) {
        let (mut forms, mut lookups) = (Forms::default(), POINTERS.map(|pointer| (pointer, Lookup::default())));
        let mut known: Vec<(serde_json::Value, Arc<tidegate_schemas::document::Form>)> = Vec::new();
        for value in values.iter().chain(values.get(again)).chain(values.first()) {
            let text = value.to_string();
            let document = Document::parse_like(Bytes::from(text.clone()), &mut forms).unwrap();
            prop_assert_eq!(json(&document), text);
            for (pointer, lookup) in &mut lookups {
                let expected = document.pointer(pointer).map(Value::place);
                prop_assert_eq!(lookup.find(&document, pointer).map(Value::place), expected, "{}", pointer);
            }
            if let Some(form) = document.form() {
                for (other, of_other) in &known {
                    prop_assert_eq!(skeleton(other) == skeleton(value), **of_other == **form, "{} beside {}", other, value);
                }
                known.push((value.clone(), Arc::clone(form)));
            }
        }
        prop_assert!(!known.is_empty());
    }
}

const POINTERS: [&str; 6] = ["", "/a", "/a/0", "/b/a", "/b/b/1", "/\u{e9}"];

/// Few names and few lengths, so that many are of one form.
fn small_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![Just(serde_json::Value::Null), (0..1_000_i64).prop_map(Into::into), "[a-z]{0,3}".prop_map(Into::into)];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Into::into),
            prop::collection::btree_map("[ab\u{e9}]", inner, 0..3).prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
        ]
    })
}

/// A value without its scalars.
fn skeleton(value: &serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Array(list) => list.iter().map(skeleton).collect(),
        serde_json::Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), skeleton(value))).collect(),
        _ => serde_json::Value::Null,
    }
}
