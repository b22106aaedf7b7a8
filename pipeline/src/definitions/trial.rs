//! Tests of templates: an event goes through the very stages that production runs, and its outcome is compared.
//!
//! A test is a JSON object in `templates/<owner>/<template>/tests/*.json`:
//! ```json
//! { "description": "below zero",
//!   "bytes_hex": "0175640367f6ff046865", "fPort": 85,
//!   "decoded": { "battery": 100, "temperature": -1, "humidity": 50.5 },
//!   "rows": [ { "temperature": -1, "humidity": 50.5, "battery": 100 } ] }
//! ```
//! - Input: `event` is the event as sent; `bytes_hex` puts a payload where the template looks for it, in its encoding, and
//!   `fPort` its port; without a place for the payload the bytes are the event. `asset` (id), `attributes` (the asset's)
//!   and `received_at` (RFC 3339) are what scripts may ask for besides.
//! - Expected, each optional but one of the last three: `decoded` (what `decode` returns as `data`), `valid` (what
//!   `validate` says), and `rows`, `rejected` (`{"stage", "code"}`) or `filtered` (`true`).
//! - A row lists every declared field that is not null; `event_type`, `occurred_at` (RFC 3339) and `attributes` are
//!   compared where they are given. Numbers may differ in the last digits of a float.

mod compare;
mod stages;

pub use stages::check_scripts;

use super::folder::{Folder, TestFile};
use crate::config::place::{Fault, FilePlace};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use stages::{Ended, Input};
use std::collections::BTreeMap;
use tidegate_schemas::definition::{Definition, DefinitionKey, Encoding, Template};
use tidegate_schemas::ids::TableId;
use tidegate_schemas::table::Table;
use tidegate_schemas::time;
use tidegate_schemas::verdict::StageName;

/// What mends a test that cannot be read.
const FORM: &str = "see the form of tests in pipeline/src/definitions/README.md";

/// A test as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestForm<'a> {
    description: String,
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
    #[serde(default)]
    bytes_hex: Option<String>,
    #[serde(default, rename = "fPort")]
    f_port: Option<u32>,
    #[serde(default)]
    asset: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    received_at: Option<String>,
    #[serde(default)]
    decoded: Option<Value>,
    #[serde(default)]
    valid: Option<bool>,
    #[serde(default)]
    rows: Option<Vec<serde_json::Map<String, Value>>>,
    #[serde(default)]
    rejected: Option<RejectedForm>,
    #[serde(default)]
    filtered: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RejectedForm {
    stage: StageName,
    code: String,
}

/// A folder's templates and tables, to be found by its tests.
pub struct Templates<'a> {
    templates: BTreeMap<DefinitionKey, &'a Template>,
    tables: BTreeMap<&'a TableId, &'a Table>,
}

impl<'a> Templates<'a> {
    /// Those of a folder.
    pub fn of(folder: &'a Folder) -> Self {
        let mut found = Self { templates: BTreeMap::new(), tables: BTreeMap::new() };
        for definition in &folder.definitions {
            match definition {
                Definition::Template(template) => drop(found.templates.insert(definition.key(), template)),
                Definition::Table(table) => drop(found.tables.insert(&table.id, table)),
                _ => {}
            }
        }
        found
    }
}

/// Runs one test.
pub fn run(templates: &Templates<'_>, test: &TestFile, faults: &mut Vec<Fault>) {
    let place = FilePlace::file(&test.file);
    // A folder is whole before its tests run.
    let Some(template) = templates.templates.get(&test.template) else { return };
    let Some(table) = templates.tables.get(&template.table) else { return };
    let form: TestForm<'_> = match serde_json::from_str(&test.text) {
        Ok(form) => form,
        Err(e) => {
            let place = FilePlace { at: Some((e.line(), e.column())), ..place };
            let message = e.to_string();
            let detail = message.split(" at line ").next().unwrap_or_default();
            return faults.push(Fault::new(place, detail, FORM));
        }
    };
    for (detail, remedy) in outcome_differs(template, table, &form) {
        faults.push(Fault::new(place.clone(), format!("test {:?}: {detail}", form.description), remedy));
    }
}

/// What differs from what is expected, each with what mends it.
fn outcome_differs(template: &Template, table: &Table, form: &TestForm<'_>) -> Vec<(String, &'static str)> {
    const OUTCOME: &str = "correct the template, or what the test expects";
    let ends = [form.rows.is_some(), form.rejected.is_some(), form.filtered == Some(true)];
    if ends.iter().filter(|e| **e).count() != 1 {
        return vec![("exactly one of rows, rejected and filtered is expected".into(), FORM)];
    }
    let input = match input(template, form) {
        Ok(input) => input,
        Err(detail) => return vec![(detail, FORM)],
    };
    let mut differences = Vec::new();
    if let Some(expected) = &form.decoded {
        match stages::decoded(template, table, &input) {
            Some(found) if compare::same(expected, &found) => {}
            Some(found) => differences.push(format!("decode returned {found}, expected {expected}")),
            None => differences.push(format!("decode returned nothing, expected {expected}")),
        }
    }
    let ended = stages::run(template, table, &input);
    let refused = matches!(&ended, Ended::Rejected(r) if r.stage == StageName::Validate);
    if let Some(valid) = form.valid
        && valid == refused
    {
        differences.push(format!("validate says {}, expected {valid}", !refused));
    }
    let expected = (&form.rows, &form.rejected, &ended);
    match expected {
        (Some(expected), _, Ended::Rows(found)) => differences.extend(compare::rows(expected, found, table)),
        (_, Some(expected), Ended::Rejected(found)) if expected.stage == found.stage && expected.code == found.code => {}
        (None, None, Ended::Filtered) => {}
        (expected_rows, expected_rejection, found) => {
            let wanted = match (expected_rows, expected_rejection) {
                (Some(rows), _) => format!("{} rows", rows.len()),
                (_, Some(r)) => format!("rejection {} at {}", r.code, r.stage.as_str()),
                _ => "no output".into(),
            };
            differences.push(format!("{}, expected {wanted}", compare::ended(found, table)));
        }
    }
    differences.into_iter().map(|d| (d, OUTCOME)).collect()
}

/// The event that a test describes.
fn input(template: &Template, form: &TestForm<'_>) -> Result<Input, String> {
    let received_at = match &form.received_at {
        Some(text) => time::parse(text).ok_or_else(|| format!("received_at {text:?} is no RFC 3339 time"))?,
        None => 0,
    };
    let (bytes, raw) = event_bytes(template, form)?;
    let asset = form.asset.clone().unwrap_or_else(|| "test-asset".into());
    Ok(Input { bytes: bytes.into(), raw, asset, attributes: form.attributes.clone(), received_at })
}

/// The bytes, and whether they are no JSON.
fn event_bytes(template: &Template, form: &TestForm<'_>) -> Result<(Vec<u8>, bool), String> {
    let Some(digits) = &form.bytes_hex else {
        let event = form.event.ok_or("an input is needed: event, bytes_hex, or both")?;
        return Ok((event.get().as_bytes().to_vec(), false));
    };
    let payload = hex::decode(digits).map_err(|e| format!("bytes_hex {digits:?}: {e}"))?;
    let place = template.payload.as_ref().ok_or("bytes_hex is given, and the template names no payload")?;
    let Some(at) = &place.at else { return Ok((payload, true)) };
    let text = match place.encoding {
        Encoding::Base64 => BASE64.encode(&payload),
        Encoding::Hex => hex::encode(&payload),
        Encoding::None => String::from_utf8(payload).map_err(|_| "bytes_hex is no text, and the payload's encoding is none")?,
    };
    let mut event: Value = match form.event {
        Some(event) => serde_json::from_str(event.get()).map_err(|e| e.to_string())?,
        None => Value::Object(serde_json::Map::new()),
    };
    put(&mut event, at, Value::String(text))?;
    if let (Some(at), Some(port)) = (&place.f_port, form.f_port) {
        put(&mut event, at, port.into())?;
    }
    Ok((serde_json::to_vec(&event).map_err(|e| e.to_string())?, false))
}

/// Puts a value at a pointer, making the objects on the way.
fn put(event: &mut Value, pointer: &str, value: Value) -> Result<(), String> {
    let mut at = event;
    for token in pointer.split('/').skip(1) {
        let key = token.replace("~1", "/").replace("~0", "~");
        let object = at.as_object_mut().ok_or_else(|| format!("{pointer} does not lead through objects in this event"))?;
        at = object.entry(key).or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    *at = value;
    Ok(())
}
