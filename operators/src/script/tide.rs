//! The library `tide` that scripts see: Luau in `tide/library.luau` (which reads bytes, checks and charges), over natives in
//! `tide/natives.rs` where Luau would be slow or cannot.

mod crc;
pub(crate) mod encoded;
mod natives;
mod patterns;
mod random;

pub(crate) use random::{Random, seed};

use crate::script::error::escaped;
use crate::script::meter::Meter;
use mlua::{Lua, Table, Value};
use std::rc::Rc;
use tidegate_schemas::limits::{SCRIPT_LOG_BYTES_MAX, SCRIPT_STRING_BYTES_MAX};
use tidegate_schemas::verdict::cut;

/// What the prelude needs from the host.
pub(crate) fn natives(lua: &Lua, meter: &Rc<Meter>) -> mlua::Result<Table> {
    let natives = lua.create_table()?;
    natives.raw_set("null", Value::NULL)?;
    natives.raw_set("string_bytes_max", SCRIPT_STRING_BYTES_MAX as f64)?;
    natives.raw_set("log_bytes_max", SCRIPT_LOG_BYTES_MAX as f64)?;
    let of = Rc::clone(meter);
    natives.raw_set("charge", lua.create_function(move |_, steps: f64| of.charge(steps))?)?;
    let of = Rc::clone(meter);
    natives.raw_set("out_of_memory", lua.create_function(move |_, ()| -> mlua::Result<()> { Err(of.out_of_memory()) })?)?;
    let of = Rc::clone(meter);
    natives.raw_set("caught", lua.create_function(move |_, value: Value| caught(&of, &value))?)?;
    natives.raw_set(
        "shown",
        lua.create_function(|lua, raised: Value| match &raised {
            Value::String(text) => match escaped(&text.as_bytes()) {
                Some(text) => Ok(Value::String(lua.create_string(text)?)),
                None => Ok(raised),
            },
            _ => Ok(raised),
        })?,
    )?;
    natives.raw_set("is_native", lua.create_function(|_, function: mlua::Function| Ok(function.info().what == "C"))?)?;
    let of = Rc::clone(meter);
    natives.raw_set("now", lua.create_function(move |_, ()| Ok(of.now()))?)?;
    let of = Rc::clone(meter);
    natives.raw_set(
        "log",
        lua.create_function(move |_, (text, over): (mlua::String, usize)| {
            let bytes = text.as_bytes().len();
            let taken = of.take_log(bytes);
            of.note(&cut(text.to_string_lossy(), taken), bytes - taken + over);
            Ok(())
        })?,
    )?;
    natives::bytes(lua, &natives)?;
    natives::random(lua, meter, &natives)?;
    natives::patterns(lua, meter, &natives)?;
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
