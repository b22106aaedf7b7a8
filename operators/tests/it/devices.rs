//! Decoders of real devices give what their makers' decoders give.

use crate::scripted::*;
use serde_json::{Value, json};
use tidegate_operators::event::Progress;
use tidegate_operators::script;
use tidegate_operators::stages::decode;
use tidegate_schemas::definition::*;

const DEVICES: [(&str, PayloadForm, Encoding, &str); 8] = [
    ("dragino-lht65", PayloadForm::Buffer, Encoding::Hex, include_str!("devices/dragino-lht65.luau")),
    ("browan-tbms100", PayloadForm::Buffer, Encoding::Base64, include_str!("devices/browan-tbms100.luau")),
    ("decentlab-dl-ctd10", PayloadForm::Buffer, Encoding::Hex, include_str!("devices/decentlab-dl-ctd10.luau")),
    ("milesight-em300-th", PayloadForm::Buffer, Encoding::Base64, include_str!("devices/milesight-em300-th.luau")),
    ("netvox-ra0716", PayloadForm::Bytes, Encoding::Base64, include_str!("devices/netvox-ra0716.luau")),
    ("talkpool-oy1100", PayloadForm::String, Encoding::Hex, include_str!("devices/talkpool-oy1100.luau")),
    ("tti-generic-node", PayloadForm::Buffer, Encoding::Base64, include_str!("devices/tti-generic-node.luau")),
    ("milesight-uc50x", PayloadForm::Buffer, Encoding::Hex, include_str!("devices/milesight-uc50x.luau")),
];

#[test]
fn examples_decode_as_expected() {
    let Some(devices) = shared("devices") else { return };
    let mut host = host();
    let mut checked = 0;
    for (device, form, encoding, source) in DEVICES {
        let template = Template {
            payload: Some(Payload { at: Some("/up/bytes".into()), encoding, form, f_port: Some("/up/port".into()) }),
            decode: Some(Decode::Script(script(source))),
            // A native stage behind the decoder: it needs what was decoded as a document.
            validate: Some(Validate::Rules(Vec::new())),
            ..template(Vec::new())
        };
        script::check(&template).unwrap();
        let file: Value = serde_json::from_slice(&std::fs::read(devices.join(format!("{device}.json"))).unwrap()).unwrap();
        for example in ["examples", "derived_examples"].iter().flat_map(|k| file[*k].as_array().unwrap()) {
            let hex = example["bytes_hex"].as_str().unwrap();
            let bytes = match encoding {
                Encoding::Base64 => tidegate_base64(&hex::decode(hex).unwrap()),
                _ => hex.to_owned(),
            };
            let event = json!({"up": {"bytes": bytes, "port": example["fPort"]}}).to_string();
            let mut bundle = bundle("acme", template.clone(), &[event.as_bytes()]);
            decode::apply(&mut bundle, &mut host, &CONTEXT);
            let event = &bundle.events[0];
            let expected = &example["expected"];
            let place = format!("{device}: {}", example["description"]);
            match (&event.progress, expected.get("errors")) {
                (Progress::Rejected(rejection), Some(errors)) => {
                    assert_eq!((rejection.code.as_str(), &json!([rejection.detail])), ("decode_failed", errors), "{place}");
                }
                (Progress::At(_), None) => {
                    let found = format!("{:?}", event.decoded.as_ref().unwrap());
                    same(&serde_json::from_str(&found).unwrap(), expected.get("data").unwrap_or(&Value::Null), &place);
                }
                other => panic!("{place}: {other:?}"),
            }
            checked += 1;
        }
    }
    assert!(checked > 25, "{checked}");
}

fn tidegate_base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)
}

/// Equal, numbers up to what the last digit of a division may do.
fn same(found: &Value, expected: &Value, place: &str) {
    match (found, expected) {
        (Value::Object(a), Value::Object(b)) => {
            assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{place}");
            a.iter().for_each(|(k, v)| same(v, &b[k], &format!("{place}/{k}")));
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{place}");
            a.iter().zip(b).for_each(|(a, b)| same(a, b, place));
        }
        (Value::Number(a), Value::Number(b)) => {
            assert!((a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-9, "{place}: {a} is not {b}");
        }
        _ => assert_eq!(found, expected, "{place}"),
    }
}
