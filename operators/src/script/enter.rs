//! What an event looks like to Luau, whoever brings it in.

use crate::event::Event;
use crate::script::tide::encoded::from_base64;
use tidegate_schemas::definition::{Encoding, Payload};
use tidegate_schemas::document::{Kind, Lookup, Value};
use tidegate_schemas::verdict::{Code, Rejection, StageName};

/// Integers beyond it are not exact in Lua's numbers: they cross as texts.
const EXACT: i64 = 1 << 53;

/// An integer as a number, where a number can hold it.
pub(crate) fn exact(i: i64) -> Option<f64> {
    (-EXACT..=EXACT).contains(&i).then_some(i as f64)
}

/// Whether scripts get a member of the document.
pub(crate) fn is_input(inputs: &[String], key: &str) -> bool {
    inputs.is_empty() || inputs.iter().any(|i| i == key)
}

/// What stands where the template says that the device's port is: a number, or one that its sender wrote as a text.
pub(crate) fn f_port(event: &Event, declared: Option<&Payload>, way: &mut Lookup) -> Result<Option<f64>, Rejection> {
    let Some(at) = declared.and_then(|declared| declared.f_port.as_ref()) else { return Ok(None) };
    let Some(value) = way.find(&event.document, at) else { return Ok(None) };
    match value.kind() {
        Kind::Null => return Ok(None),
        Kind::Int(port @ 0..=255) => return Ok(Some(port as f64)),
        // As senders write it that know one kind of number.
        Kind::Float(port) if port.fract() == 0.0 && (0.0..=255.0).contains(&port) => return Ok(Some(port.abs())),
        Kind::Text(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
            if let Ok(port) = text.parse::<u8>() {
                return Ok(Some(port.into()));
            }
        }
        _ => {}
    }
    let detail = "the port is no whole number from 0 to 255, and no text of its digits";
    Err(Rejection::new(StageName::Decode, Code::PayloadInvalid, detail).at(at.as_str()))
}

/// The device's bytes; none where the template declares none. `scratch` holds them where they had to be decoded.
pub(crate) fn payload<'b>(
    event: &'b Event,
    declared: Option<&Payload>,
    way: &mut Lookup,
    scratch: &'b mut Vec<u8>,
) -> Result<Option<&'b [u8]>, Rejection> {
    let Some(declared) = declared else { return Ok(None) };
    let pointer = declared.at.as_deref().unwrap_or_default();
    let refuse = |detail: String| Rejection::new(StageName::Decode, Code::PayloadInvalid, detail).at(pointer);
    let text: &[u8] = match &declared.at {
        None => &event.bytes,
        Some(at) => match way.find(&event.document, at).map(Value::as_str) {
            Some(Some(text)) => text.as_bytes(),
            Some(None) => return Err(refuse("the payload is no text".into())),
            None => return Err(refuse("there is no payload".into())),
        },
    };
    scratch.clear();
    match declared.encoding {
        Encoding::None => return Ok(Some(text)),
        Encoding::Base64 => from_base64(text, scratch).map_err(|e| refuse(format!("not base64: {e}").to_lowercase()))?,
        Encoding::Hex => {
            scratch.resize(text.len() / 2, 0);
            hex::decode_to_slice(text, scratch).map_err(|e| refuse(format!("not hex: {e}").to_lowercase()))?;
        }
    }
    Ok(Some(scratch))
}
