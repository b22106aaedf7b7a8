//! The library `tide` that scripts see. A function is a native here and a line in `prelude.luau`, which gives its errors the
//! script's line: a native returns its value, or nil and what is wrong.

use crate::script::meter::Meter;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use mlua::{Buffer, Lua, Table, Value};
use std::rc::Rc;
use tidegate_schemas::limits::SCRIPT_STRING_BYTES_MAX;
use tidegate_schemas::verdict::cut;

/// RFC 4648 base64, padded or not.
pub(crate) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// What the prelude needs from the host.
pub(crate) fn natives(lua: &Lua, meter: &Rc<Meter>) -> mlua::Result<Table> {
    let natives = lua.create_table()?;
    natives.raw_set("null", Value::NULL)?;
    natives.raw_set("string_bytes_max", SCRIPT_STRING_BYTES_MAX as f64)?;
    let of = Rc::clone(meter);
    natives.raw_set("charge", lua.create_function(move |_, steps: f64| of.charge(steps))?)?;
    let of = Rc::clone(meter);
    natives.raw_set("out_of_memory", lua.create_function(move |_, ()| -> mlua::Result<()> { Err(of.out_of_memory()) })?)?;
    let of = Rc::clone(meter);
    natives.raw_set("caught", lua.create_function(move |_, value: Value| caught(&of, &value))?)?;
    let of = Rc::clone(meter);
    natives.raw_set("now", lua.create_function(move |_, ()| Ok(of.now()))?)?;
    let of = Rc::clone(meter);
    natives.raw_set(
        "log",
        lua.create_function(move |lua, text: mlua::String| {
            let taken = of.take_log(text.as_bytes().len());
            if taken > 0 {
                let tenant = lua.app_data_ref::<Tenant>().map_or_else(String::new, |t| t.0.clone());
                tracing::debug!(tenant, stage = of.stage().map_or("", |s| s.as_str()), text = cut(text.to_string_lossy(), taken), "script");
            }
            Ok(())
        })?,
    )?;
    natives.raw_set("hex_encode", lua.create_function(|_, value: Value| Ok(encoded(&value, |b| hex::encode(b))))?)?;
    natives.raw_set("base64_encode", lua.create_function(|_, value: Value| Ok(encoded(&value, |b| BASE64.encode(b))))?)?;
    natives.raw_set(
        "hex_decode",
        lua.create_function(|lua, value: Value| decoded(lua, &value, |b| hex::decode(b).map_err(|e| e.to_string())))?,
    )?;
    natives.raw_set(
        "base64_decode",
        lua.create_function(|lua, value: Value| decoded(lua, &value, |b| BASE64.decode(b).map_err(|e| e.to_string())))?,
    )?;
    Ok(natives)
}

/// The text of an error that a native raised. One about memory must not end in a script's `pcall`.
fn caught(meter: &Meter, value: &Value) -> mlua::Result<String> {
    match value {
        Value::Error(error) if is_memory(error) => Err(meter.out_of_memory()),
        Value::Error(error) => Ok(root(error).to_string()),
        other => Ok(other.type_name().to_owned()),
    }
}

/// Whether memory is at the root of an error.
pub(crate) fn is_memory(error: &mlua::Error) -> bool {
    matches!(root(error), mlua::Error::MemoryError(_))
}

/// The innermost cause of an error.
pub(crate) fn root(error: &mlua::Error) -> &mlua::Error {
    match error {
        mlua::Error::CallbackError { cause, .. } | mlua::Error::WithContext { cause, .. } => root(cause),
        other => other,
    }
}

/// Whose state it is, for the log.
pub(crate) struct Tenant(pub(crate) String);

fn encoded(value: &Value, encode: impl FnOnce(&[u8]) -> String) -> (Option<String>, Option<String>) {
    match bytes_of(value) {
        Some(bytes) => (Some(encode(&bytes)), None),
        None => (None, Some(format!("a buffer or a string is encoded, not {}", value.type_name()))),
    }
}

fn decoded(
    lua: &Lua,
    value: &Value,
    decode: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>,
) -> mlua::Result<(Option<Buffer>, Option<String>)> {
    let Value::String(text) = value else { return Ok((None, Some(format!("a string is decoded, not {}", value.type_name())))) };
    let bytes = decode(&text.as_bytes());
    match bytes {
        Ok(bytes) => Ok((Some(lua.create_buffer(bytes)?), None)),
        Err(problem) => Ok((None, Some(problem.to_lowercase()))),
    }
}

fn bytes_of(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Buffer(buffer) => Some(buffer.to_vec()),
        _ => None,
    }
}
