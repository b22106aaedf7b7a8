//! The sample library decodes every example of the devices' data sheets, those of their makers and those derived from the
//! layouts, to exactly what is expected.

use crate::support::shared;
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use tidegate_operators::event::{Bundle, EpochContext, Event, Plan, Progress};
use tidegate_operators::script::{Host, HostOptions, Watch};
use tidegate_operators::stages::decode;
use tidegate_pipeline::definitions::Folder;
use tidegate_pipeline::demo::content;
use tidegate_schemas::catalog::{PinnedSource, PinnedTemplate};
use tidegate_schemas::definition::{Definition, Encoding, Place, Source, Template, Transform, Validate};
use tidegate_schemas::document::Document;
use tidegate_schemas::envelope::Envelope;
use tidegate_schemas::ids::*;
use tidegate_schemas::row::Origin;
use tidegate_schemas::table::Table;
use tidegate_schemas::verdict::StageName;

/// A device's file, and the template that speaks for it.
const DEVICES: [(&str, &str); 15] = [
    ("browan-tbms100", "tbms100"),
    ("decentlab-dl-ctd10", "dl-ctd10"),
    ("decentlab-dl-tbrg", "dl-tbrg"),
    ("dragino-cpl01", "cpl01"),
    ("dragino-lht65", "lht65"),
    ("elsys-tlv", "ers"),
    ("mclimate-vicki", "vicki"),
    ("milesight-em300-th", "em300-th"),
    ("milesight-uc50x", "uc50x"),
    ("netvox-r718b2", "r718b2"),
    ("netvox-ra0716", "ra0716"),
    ("sensative-strips", "strips"),
    ("sensecap-s210x", "s210x"),
    ("talkpool-oy1100", "oy1100"),
    ("tti-generic-node", "generic-node"),
];

#[test]
fn every_example_of_every_device_decodes() {
    let Some(folder) = shared("devices") else { return };
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), DEVICES.len(), "a device without a template");
    let mut files = content::files();
    files.insert("keys.toml".into(), content::issue_keys().unwrap().0);
    let library = Folder::parse(&files).unwrap_or_else(|faults| panic!("{faults}"));
    let mut checked = 0;
    for native in [false, true] {
        let mut host = Host::new(HostOptions { states_max: 1, native }, Arc::new(Watch::default()));
        for (file, id) in DEVICES {
            let template = library.definitions.iter().find_map(|d| match d {
                Definition::Template(template) if template.id.as_str() == id => Some(template),
                _ => None,
            });
            let template = template.unwrap_or_else(|| panic!("no template {id}"));
            let sheet: Value = serde_json::from_slice(&std::fs::read(folder.join(format!("{file}.json"))).unwrap()).unwrap();
            for example in ["examples", "derived_examples"].iter().flat_map(|k| sheet[*k].as_array().unwrap()) {
                let place = format!("{file}: {}", example["description"]);
                let (found, expected) = (decoded(&mut host, template, example), &example["expected"]);
                match (found, expected.get("errors")) {
                    (Err(told), Some(errors)) => assert_eq!(&json!([told]), errors, "{place}"),
                    (Ok(data), None) => same(&data, expected.get("data").unwrap_or(&Value::Null), &place),
                    (found, _) => panic!("{place}: {found:?}"),
                }
                checked += 1;
            }
        }
    }
    assert!(checked >= 2 * 50, "{checked}");
}

/// What decode makes of an example: data, or errors.
fn decoded(host: &mut Host, template: &Template, example: &Value) -> Result<Value, String> {
    // Native stages behind the decoder: they need what was decoded as a document.
    let native = (Some(Validate::Rules(Vec::new())), Some(Transform::Mapping(Vec::new())));
    let template = Template { validate: native.0, transform: native.1, ..template.clone() };
    let mut bundle = bundle(template, example);
    decode::apply(&mut bundle, host, &EpochContext { recorded_at: 0 });
    let event = bundle.events.remove(0);
    match event.progress {
        Progress::At(_) => {
            let mut text = String::new();
            event.decoded.unwrap().root().write_json(&mut text);
            Ok(serde_json::from_str(&text).unwrap())
        }
        Progress::Rejected(rejection) if rejection.code == "decode_failed" => Err(rejection.detail),
        other => panic!("{example}: {other:?}"),
    }
}

fn bundle(template: Template, example: &Value) -> Bundle {
    use base64::Engine;
    let payload = template.payload.as_ref().unwrap();
    let places = (payload.at.as_deref(), payload.encoding, payload.f_port.as_deref());
    assert_eq!(places, (Some("/data"), Encoding::Base64, Some("/fPort")), "{}", template.id);
    let payload = hex::decode(example["bytes_hex"].as_str().unwrap()).unwrap();
    let payload = base64::engine::general_purpose::STANDARD.encode(payload);
    let bytes = Bytes::from(json!({"data": payload, "fPort": example["fPort"]}).to_string());
    let (tenant, node, source) = (TenantId::new("acme").unwrap(), template.owner.clone(), SourceId::new("in").unwrap());
    let table = Table { id: template.table.clone(), owner: node.clone(), name: "t".into(), fields: Vec::new() };
    let envelope = Envelope {
        tenant: tenant.clone(),
        node: node.clone(),
        source: source.clone(),
        credential: CredentialId::new("k").unwrap(),
        receipt: ReceiptId([0; 16]),
        received_at: 0,
        revision: 1,
        content_type: "application/json".into(),
        idempotency: None,
        traceparent: None,
        meta: Default::default(),
        events: Vec::new(),
        refused: Vec::new(),
        release: None,
    };
    let source = Source {
        id: source,
        node,
        template: None,
        template_at: None,
        asset: Place::Fixed("a".into()),
        event_id: None,
        occurred_at: None,
        event_type: None,
        meta: Vec::new(),
    };
    let event = Event {
        origin: Origin { at: Position::default(), index: 0, event_id: "e".into(), asset: "a".into(), received_at: 0 },
        key: [0; 16],
        envelope: Arc::new(envelope),
        document: Document::parse(bytes.clone()).unwrap(),
        bytes,
        decoded: None,
        occurred_at: None,
        event_type: None,
        asset: None,
        steps: 0,
        notes: Vec::new(),
        progress: Progress::At(StageName::Decode),
    };
    let table = Arc::new(table.with(&template.fields).unwrap());
    let (version, label) = (template.version(), template.id.to_string().into());
    let plan = Plan { template: Arc::new(PinnedTemplate { template, version, label }), table };
    Bundle::new(Some(Arc::new(PinnedSource { source, tenant, path: "acme".into() })), Some(plan), vec![event])
}

/// Equal to the last bit of every number: the makers' decoders compute in doubles as well. Luau has one empty table.
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
        (Value::Object(a), Value::Array(b)) => assert!(a.is_empty() && b.is_empty(), "{place}: {found} is not {expected}"),
        (Value::Number(a), Value::Number(b)) => assert_eq!(a.as_f64(), b.as_f64(), "{place}"),
        _ => assert_eq!(found, expected, "{place}"),
    }
}
