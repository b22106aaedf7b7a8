//! How an event gets into Lua: as plain arguments of a constructor made for its form, or, where forms vary too much, value
//! by value.

use crate::event::Event;
use crate::script::driver::form;
use crate::script::tide::BASE64;
use base64::Engine;
use mlua::{Either, Lua, Table, Value as LuaValue};
use tidegate_schemas::definition::{Encoding, Payload, PayloadForm};
use tidegate_schemas::document::{Kind, Value};
use tidegate_schemas::verdict::{Code, Rejection, StageName};

/// One argument. Texts and numbers go to Lua's stack directly, without a reference in between.
pub(crate) type Argument<'a> = Either<&'a str, Either<f64, LuaValue>>;

/// Integers beyond it are not exact in Lua's numbers: they cross as texts.
const EXACT: i64 = 1 << 53;
/// So many arguments fit into Luau's registers beside the others.
const SCALARS_MAX: usize = 160;

/// The form of an event (keys and nesting, without its values) and its scalars in order.
pub(crate) struct Form<'f, 'a> {
    pub(crate) bytes: &'f mut Vec<u8>,
    pub(crate) scalars: &'f mut Vec<Argument<'a>>,
}

/// Memory that serves one event after the other.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) payload: Vec<u8>,
    pub(crate) form: Vec<u8>,
}

/// Whether the event becomes arguments, and which: false where there are too many.
pub(crate) fn form<'a>(lua: &Lua, event: &'a Event, inputs: &[String], out: &mut Form<'_, 'a>) -> mlua::Result<bool> {
    let root = event.document.root();
    out.bytes.push(form::MAP);
    if matches!(root.kind(), Kind::Map(_)) {
        for (key, value) in root.raw_pairs().filter(|(key, _)| is_input(inputs, key)) {
            out.key(key);
            if !out.value(lua, value)? {
                return Ok(false);
            }
        }
    } else {
        out.key(b"value");
        if !out.value(lua, root)? {
            return Ok(false);
        }
    }
    if let Some(decoded) = &event.decoded {
        out.key(b"decoded");
        if !out.value(lua, decoded.root())? {
            return Ok(false);
        }
    }
    out.bytes.push(form::END);
    Ok(true)
}

impl<'a> Form<'_, 'a> {
    fn key(&mut self, key: &[u8]) {
        self.bytes.push(form::KEY);
        self.bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(key);
    }

    fn value(&mut self, lua: &Lua, value: Value<'a>) -> mlua::Result<bool> {
        match value.kind() {
            Kind::List(_) => {
                self.bytes.push(form::LIST);
                for element in value.elements() {
                    if !self.value(lua, element)? {
                        return Ok(false);
                    }
                }
                self.bytes.push(form::END);
            }
            Kind::Map(_) => {
                self.bytes.push(form::MAP);
                for (key, value) in value.raw_pairs() {
                    self.key(key);
                    if !self.value(lua, value)? {
                        return Ok(false);
                    }
                }
                self.bytes.push(form::END);
            }
            scalar => {
                self.bytes.push(form::SCALAR);
                self.scalars.push(argument(lua, scalar)?);
            }
        }
        Ok(self.scalars.len() <= SCALARS_MAX)
    }
}

/// A scalar as an argument; lists and objects are none.
fn argument<'a>(lua: &Lua, kind: Kind<'a>) -> mlua::Result<Argument<'a>> {
    let value = |v: LuaValue| Either::Right(Either::Right(v));
    let number = |n: f64| Either::Right(Either::Left(n));
    Ok(match kind {
        Kind::Null | Kind::List(_) | Kind::Map(_) => value(LuaValue::NULL),
        Kind::Bool(b) => value(LuaValue::Boolean(b)),
        Kind::Int(i) if (-EXACT..=EXACT).contains(&i) => number(i as f64),
        Kind::Int(i) => value(LuaValue::String(lua.create_string(i.to_string())?)),
        Kind::Uint(u) => value(LuaValue::String(lua.create_string(u.to_string())?)),
        Kind::Float(f) => number(f),
        Kind::Text(text) => Either::Left(text),
    })
}

fn is_input(inputs: &[String], key: &[u8]) -> bool {
    inputs.is_empty() || inputs.iter().any(|i| i.as_bytes() == key)
}

/// The event as a table, whatever its form.
pub(crate) fn table(lua: &Lua, event: &Event, inputs: &[String]) -> mlua::Result<Table> {
    let root = event.document.root();
    let table = match root.kind() {
        Kind::Map(len) => {
            let table = lua.create_table_with_capacity(0, if inputs.is_empty() { len + 1 } else { inputs.len() + 1 })?;
            for (key, value) in root.pairs().filter(|(key, _)| is_input(inputs, key.as_bytes())) {
                table.raw_set(key, lua_value(lua, value)?)?;
            }
            table
        }
        _ => {
            let table = lua.create_table_with_capacity(0, 2)?;
            table.raw_set("value", lua_value(lua, root)?)?;
            table
        }
    };
    if let Some(decoded) = &event.decoded {
        table.raw_set("decoded", lua_value(lua, decoded.root())?)?;
    }
    Ok(table)
}

fn lua_value<'a>(lua: &Lua, value: Value<'a>) -> mlua::Result<Either<Argument<'a>, Table>> {
    Ok(match value.kind() {
        Kind::List(len) => {
            let table = lua.create_table_with_capacity(len, 0)?;
            for element in value.elements() {
                table.raw_push(lua_value(lua, element)?)?;
            }
            Either::Right(table)
        }
        Kind::Map(len) => {
            let table = lua.create_table_with_capacity(0, len)?;
            for (key, value) in value.pairs() {
                table.raw_set(key, lua_value(lua, value)?)?;
            }
            Either::Right(table)
        }
        scalar => Either::Left(argument(lua, scalar)?),
    })
}

/// The device's bytes in the form that the decoder gets; nil where the template declares none.
pub(crate) fn payload(
    lua: &Lua,
    event: &Event,
    declared: Option<&Payload>,
    scratch: &mut Vec<u8>,
) -> mlua::Result<Result<LuaValue, Rejection>> {
    let Some(declared) = declared else { return Ok(Ok(LuaValue::Nil)) };
    let bytes = match payload_bytes(event, declared, scratch) {
        Ok(bytes) => bytes,
        Err(rejection) => return Ok(Err(rejection)),
    };
    Ok(Ok(match declared.form {
        PayloadForm::Buffer => LuaValue::Buffer(lua.create_buffer(bytes)?),
        PayloadForm::String => LuaValue::String(lua.create_string(bytes)?),
        PayloadForm::Bytes => LuaValue::Table(lua.create_sequence_from(bytes.iter().copied())?),
    }))
}

fn payload_bytes<'b>(event: &'b Event, declared: &Payload, scratch: &'b mut Vec<u8>) -> Result<&'b [u8], Rejection> {
    let pointer = declared.at.as_deref().unwrap_or_default();
    let refuse = |detail: String| Rejection::new(StageName::Decode, Code::PayloadInvalid, detail).at(pointer);
    let text: &[u8] = match &declared.at {
        None => &event.bytes,
        Some(at) => match event.document.pointer(at).map(Value::kind) {
            Some(Kind::Text(text)) => text.as_bytes(),
            Some(_) => return Err(refuse("the payload is no text".into())),
            None => return Err(refuse("there is no payload".into())),
        },
    };
    scratch.clear();
    match declared.encoding {
        Encoding::None => return Ok(text),
        Encoding::Base64 => BASE64.decode_vec(text, scratch).map_err(|e| refuse(format!("not base64: {e}").to_lowercase()))?,
        Encoding::Hex => {
            scratch.resize(text.len() / 2, 0);
            hex::decode_to_slice(text, scratch).map_err(|e| refuse(format!("not hex: {e}").to_lowercase()))?;
        }
    }
    Ok(scratch)
}
