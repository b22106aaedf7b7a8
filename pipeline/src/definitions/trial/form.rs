//! A test as it is written, and the event that it describes.

use super::stages::Input;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use tidegate_schemas::definition::{Encoding, Template};
use tidegate_schemas::limits::EVENT_TYPE_BYTES_MAX;
use tidegate_schemas::time;
use tidegate_schemas::verdict::StageName;

/// A test as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestForm<'a> {
    pub(super) description: String,
    #[serde(borrow, default)]
    pub(super) event: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) bytes_hex: Option<String>,
    #[serde(default, rename = "fPort")]
    pub(super) f_port: Option<u32>,
    #[serde(default)]
    pub(super) asset: Option<String>,
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) meta: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) received_at: Option<String>,
    #[serde(default)]
    pub(super) occurred_at: Option<String>,
    #[serde(default)]
    pub(super) event_type: Option<String>,
    #[serde(default)]
    pub(super) decoded: Option<Value>,
    #[serde(default)]
    pub(super) valid: Option<bool>,
    #[serde(default)]
    pub(super) rows: Option<Vec<serde_json::Map<String, Value>>>,
    #[serde(default)]
    pub(super) rejected: Option<RejectedForm>,
    #[serde(default)]
    pub(super) filtered: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RejectedForm {
    pub(super) stage: StageName,
    pub(super) code: String,
}

impl TestForm<'_> {
    /// How many ends are expected: one, or the test says nothing or too much.
    pub(super) fn ends(&self) -> usize {
        [self.rows.is_some(), self.rejected.is_some(), self.filtered == Some(true)].iter().filter(|e| **e).count()
    }

    /// The event that it describes.
    pub(super) fn input(&self, template: &Template) -> Result<Input, String> {
        let time = |name: &str, text: &Option<String>| match text {
            Some(text) => time::parse(text).map(Some).ok_or_else(|| format!("{name} {text:?} is no RFC 3339 time")),
            None => Ok(None),
        };
        let received_at = time("received_at", &self.received_at)?.unwrap_or(0);
        let occurred_at = time("occurred_at", &self.occurred_at)?;
        let (bytes, raw) = self.event_bytes(template)?;
        let asset = self.asset.clone().unwrap_or_else(|| "test-asset".into());
        if let Some(text) = self.event_type.as_ref().filter(|text| !(1..=EVENT_TYPE_BYTES_MAX).contains(&text.len())) {
            return Err(format!("event_type has {} bytes; it has 1 to {EVENT_TYPE_BYTES_MAX}", text.len()));
        }
        let (attributes, meta, event_type) = (self.attributes.clone(), self.meta.clone(), self.event_type.clone());
        Ok(Input { bytes: bytes.into(), raw, asset, attributes, meta, received_at, occurred_at, event_type })
    }

    /// The bytes, and whether they are no JSON.
    fn event_bytes(&self, template: &Template) -> Result<(Vec<u8>, bool), String> {
        let Some(digits) = &self.bytes_hex else {
            let event = self.event.ok_or("an input is needed: event, bytes_hex, or both")?;
            return Ok((event.get().as_bytes().to_vec(), false));
        };
        let payload = hex::decode(digits).map_err(|e| format!("bytes_hex {digits:?}: {e}"))?;
        around(template, &payload, self.f_port, self.event.map(RawValue::get))
    }
}

/// The event in which a device's bytes come to a template, with `event` around them; and whether it is no JSON.
pub(super) fn around(template: &Template, payload: &[u8], f_port: Option<u32>, event: Option<&str>) -> Result<(Vec<u8>, bool), String> {
    let place = template.payload.as_ref().ok_or("bytes_hex is given, and the template names no payload")?;
    let Some(at) = &place.at else { return Ok((payload.to_vec(), true)) };
    let text = match place.encoding {
        Encoding::Base64 => BASE64.encode(payload),
        Encoding::Hex => hex::encode(payload),
        Encoding::None => std::str::from_utf8(payload).map_err(|_| "bytes_hex is no text, and the payload's encoding is none")?.to_owned(),
    };
    let mut event: Value = match event {
        Some(event) => serde_json::from_str(event).map_err(|e| e.to_string())?,
        None => Value::Object(serde_json::Map::new()),
    };
    put(&mut event, at, Value::String(text))?;
    if let (Some(at), Some(port)) = (&place.f_port, f_port) {
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
