//! What decoders return is what native stages after them find.

use crate::scripted::*;
use proptest::prelude::*;
use serde_json::Value as Json;
use tidegate_schemas::definition::*;
use tidegate_schemas::row::Cell;
use tidegate_schemas::table::FieldType;

/// Few names and few lengths, so that results are alike in part.
fn any_result() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![Just(Json::Null), (0..1_000_i64).prop_map(Into::into), "[a-z\u{e9}]{0,3}".prop_map(Into::into)];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let map = prop::collection::btree_map("[abc1\u{e9}]{1,2}", inner.clone(), 0..4);
        prop_oneof![prop::collection::vec(inner, 0..3).prop_map(Into::into), map.prop_map(|m| Json::Object(m.into_iter().collect())),]
    })
}

/// A value as Luau writes it, with the last members first.
fn luau(value: &Json) -> String {
    match value {
        Json::Array(list) => format!("{{{}}}", list.iter().map(luau).collect::<Vec<_>>().join(",")),
        Json::Object(map) => {
            let members: Vec<_> = map.iter().rev().map(|(name, value)| format!("[{name:?}]={}", luau(value))).collect();
            format!("{{{}}}", members.join(","))
        }
        scalar => scalar.to_string(),
    }
}

/// What is left of a value once it was a table: an empty one is an object, and one whose names are 1 to n stays one.
fn as_table(value: &Json) -> Json {
    match value {
        Json::Array(list) if list.is_empty() => Json::Object(serde_json::Map::default()),
        Json::Array(list) => list.iter().map(as_table).collect(),
        Json::Object(map) => map.iter().map(|(name, value)| (name.clone(), as_table(value))).collect(),
        scalar => scalar.clone(),
    }
}

proptest! {
    /// Whatever came before: rules and mappings find in what was decoded what the decoder returned.
    #[test]
    fn results_of_decoders_are_read_as_they_are(values in prop::collection::vec(any_result(), 1..6), turns in prop::collection::vec(0..6_usize, 1..24)) {
        let listed: Vec<_> = values.iter().map(luau).collect();
        let source = format!("local all = {{{}}} function decode(input) return {{ data = all[input.fPort] }} end", listed.join(","));
        const PLACES: [(&str, &str); 4] = [("whole", ""), ("a", "/a"), ("b", "/a/b"), ("c", "/b/0")];
        let from = |(field, place): &(&str, &str)| Mapping {
            field: (*field).into(), from: Some(format!("/decoded{place}")), constant: None, scale: None, offset: None,
        };
        let template = Template {
            payload: Some(Payload { at: None, encoding: Encoding::None, form: PayloadForm::Buffer, f_port: Some("/n".into()) }),
            decode: Some(Decode::Script(script(&source))),
            validate: Some(Validate::Rules(Vec::new())),
            transform: Some(Transform::Mapping(PLACES.iter().map(from).collect())),
            ..template(PLACES.iter().map(|(name, _)| field(name, FieldType::Json)).collect())
        };
        let events: Vec<Vec<u8>> = turns.iter().map(|turn| format!("{{\"n\":{}}}", turn % values.len() + 1).into_bytes()).collect();
        let mut bundle = bundle("acme", template, &events.iter().map(Vec::as_slice).collect::<Vec<_>>());
        run(&mut host(), &mut bundle);
        for (ended, turn) in ended(&bundle).into_iter().zip(turns) {
            let expected = as_table(&values[turn % values.len()]);
            let row = rows(ended).remove(0);
            for ((_, place), cell) in PLACES.iter().zip(&row.cells) {
                let found = match cell {
                    Cell::Text(text) => Some(text.parse::<Json>().unwrap()),
                    _ => None,
                };
                prop_assert_eq!(found.as_ref(), expected.pointer(place).filter(|v| !v.is_null()), "{} of {}", place, expected);
            }
        }
    }
}
