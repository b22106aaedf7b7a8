//! Stages that are declared and run without a script.

use crate::scripted::*;
use tidegate_schemas::definition::*;
use tidegate_schemas::row::Cell;
use tidegate_schemas::table::{Field, FieldType};

#[test]
fn rules_judge() {
    let rule = |at: &str| Rule { at: at.into(), kind: None, required: false, min: None, max: None, one_of: vec![], pattern: None };
    let rules = vec![
        Rule { required: true, kind: Some(FieldType::Text), ..rule("/id") },
        Rule { min: Some(0.0), max: Some(5.0), ..rule("/n") },
        Rule { one_of: vec!["a".into(), "b".into()], ..rule("/deep/0/e~1f") },
        Rule { pattern: Some("^x+$".into()), ..rule("/p") },
        Rule { kind: Some(FieldType::Timestamp), ..rule("/at") },
    ];
    let template = Template { validate: Some(Validate::Rules(rules)), ..template(vec![]) };
    let mut host = host();
    rows(one(&mut host, template.clone(), r#"{"id":"i","n":5,"deep":[{"e/f":"a"}],"p":"xx","at":"2026-01-01T00:00:00Z"}"#));
    rows(one(&mut host, template.clone(), r#"{"id":"i","n":null}"#));
    for (event, code, pointer) in [
        ("{}", "required", "/id"),
        (r#"{"id":null}"#, "required", "/id"),
        (r#"{"id":7}"#, "wrong_type", "/id"),
        (r#"{"id":7,"id":"twice: the last counts","n":9}"#, "out_of_range", "/n"),
        (r#"{"id":"i","n":-0.1}"#, "out_of_range", "/n"),
        (r#"{"id":"i","n":"5"}"#, "wrong_type", "/n"),
        (r#"{"id":"i","deep":[{"e/f":"c"}]}"#, "not_allowed", "/deep/0/e~1f"),
        (r#"{"id":"i","p":"xyx"}"#, "pattern_mismatch", "/p"),
        (r#"{"id":"i","at":"soon"}"#, "wrong_type", "/at"),
    ] {
        let rejection = rejection(one(&mut host, template.clone(), event));
        assert_eq!((rejection.code.as_str(), rejection.pointer.as_str()), (code, pointer), "{event}");
    }
    let several = rejection(one(&mut host, template, r#"{"n":9,"p":"y"}"#));
    assert_eq!(
        (several.code.as_str(), several.detail.as_str()),
        ("required", "/id is required; also out_of_range at /n, pattern_mismatch at /p")
    );
}

#[test]
fn mappings_map() {
    let map = |field: &str, from: Option<&str>, constant: Option<&str>| Mapping {
        field: field.into(),
        from: from.map(str::to_owned),
        constant: constant.map(str::to_owned),
        scale: None,
        offset: None,
    };
    let template = |mapping| Template {
        transform: Some(Transform::Mapping(mapping)),
        ..template(vec![
            field("n", FieldType::I64),
            field("f", FieldType::F64),
            field("b", FieldType::Bool),
            Field { required: true, ..field("t", FieldType::Text) },
        ])
    };
    let whole = vec![
        Mapping { scale: Some(10.0), ..map("n", Some("/a"), None) },
        map("f", None, Some("2.5")),
        map("b", None, Some("true")),
        map("t", Some("/t"), None),
        map("note", None, Some("fixed")),
        Mapping { offset: Some(1.0), ..map("more", Some("/a"), None) },
        map("whole", Some(""), None),
        map("occurred_at", Some("/ms"), None),
    ];
    let mut host = host();
    let row = rows(one(&mut host, template(whole.clone()), r#"{"a":1.5,"t":"x","ms":1000}"#)).remove(0);
    assert_eq!(row.cells, [Cell::I64(15), Cell::F64(2.5), Cell::Bool(true), Cell::Text("x".into())]);
    let attributes: Vec<(&str, &str)> = row.attributes.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(attributes, [("more", "2.5"), ("note", "fixed"), ("whole", r#"{"a":1.5,"t":"x","ms":1000}"#)]);
    assert_eq!(row.occurred_at, 1_000_000);
    for (event, code, pointer) in [
        (r#"{"a":1.55,"t":"x"}"#, "wrong_type", "/n"),
        (r#"{"a":1}"#, "required", "/t"),
        (r#"{"t":"x","ms":"?"}"#, "wrong_type", "/occurred_at"),
        (r#"{"t":"x","ms":1e18}"#, "out_of_range", "/occurred_at"),
    ] {
        let rejection = rejection(one(&mut host, template(whole.clone()), event));
        assert_eq!((rejection.code.as_str(), rejection.pointer.as_str()), (code, pointer), "{event}");
    }
    assert_eq!(rejection(one(&mut host, template(vec![]), r#"{"t":"not mapped"}"#)).code, "required");
}
