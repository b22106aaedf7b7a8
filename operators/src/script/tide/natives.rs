//! What the Luau of `tide` needs from the host. A native gets bytes whose place and charge are settled, and returns what is
//! wrong, or nil and its values: the Luau around it raises errors at the script's line.

use crate::script::meter::Meter;
use crate::script::tide::crc;
use crate::script::tide::encoded::{from_base64, to_base64};
use crate::script::tide::patterns::Patterns;
use mlua::{Lua, String as LuaString, Table, Value};
use std::io::{Read, Seek, SeekFrom};
use std::rc::Rc;
use tidegate_schemas::time;

/// What a native returns: the problem, or the value.
type Outcome<T> = mlua::Result<(Option<String>, Option<T>)>;

fn outcome<T>(result: Result<T, String>) -> Outcome<T> {
    Ok(match result {
        Ok(value) => (None, Some(value)),
        Err(problem) => (Some(problem), None),
    })
}

/// Bytes to text and back, checks, time.
pub(super) fn bytes(lua: &Lua, natives: &Table) -> mlua::Result<()> {
    natives.raw_set("hex_encode", lua.create_function(|_, part: (Value, usize, usize)| Ok(hex::encode(of(&part))))?)?;
    natives.raw_set("base64_encode", lua.create_function(|_, part: (Value, usize, usize)| Ok(to_base64(&of(&part))))?)?;
    natives.raw_set(
        "hex_decode",
        lua.create_function(|lua, text: LuaString| match hex::decode(text.as_bytes()) {
            Ok(bytes) => outcome(Ok(lua.create_buffer(bytes)?)),
            Err(e) => outcome(Err(e.to_string().to_lowercase())),
        })?,
    )?;
    natives.raw_set(
        "base64_decode",
        lua.create_function(|lua, text: LuaString| {
            let mut bytes = Vec::new();
            outcome(match from_base64(&text.as_bytes(), &mut bytes) {
                Ok(()) => Ok(lua.create_buffer(bytes)?),
                Err(e) => Err(e.to_string().to_lowercase()),
            })
        })?,
    )?;
    let checks = lua.create_table()?;
    for algorithm in &crc::ALL {
        checks.raw_set(algorithm.name, lua.create_function(|_, part: (Value, usize, usize)| Ok(algorithm.of(&of(&part))))?)?;
    }
    natives.raw_set("crc", checks)?;
    // Beyond 2^53 a number of Lua is not exact: the text is what the host's own events carry.
    natives.raw_set("u64", lua.create_function(|_, (high, low): (u32, u32)| Ok((u64::from(high) << 32 | u64::from(low)).to_string()))?)?;
    natives.raw_set(
        "s64",
        lua.create_function(|_, (high, low): (u32, u32)| Ok(((u64::from(high) << 32 | u64::from(low)) as i64).to_string()))?,
    )?;
    natives.raw_set(
        "time_parse",
        lua.create_function(|_, text: LuaString| {
            let text = text.to_string_lossy();
            outcome(time::parse(&text).map(|at| at as f64 / 1_000.0).ok_or_else(|| format!("{text:?} is no RFC 3339 time")))
        })?,
    )?;
    natives.raw_set(
        "time_format",
        lua.create_function(|_, millis: f64| {
            outcome(time::from_millis(millis).map(time::format).ok_or_else(|| format!("{millis} ms lie outside the years -9999 to 9999")))
        })?,
    )
}

/// A part of a buffer or a string, which the caller has checked.
fn of((value, at, n): &(Value, usize, usize)) -> Vec<u8> {
    match value {
        Value::String(text) => text.as_bytes().get(*at..at.saturating_add(*n)).unwrap_or_default().to_vec(),
        Value::Buffer(buffer) => {
            // Not the whole of a large one for a few bytes.
            let mut part = vec![0; (*n).min(buffer.len())];
            let mut cursor = buffer.clone().cursor();
            let read = cursor.seek(SeekFrom::Start(*at as u64)).and_then(|_| cursor.read_exact(&mut part));
            if read.is_ok() { part } else { Vec::new() }
        }
        _ => Vec::new(),
    }
}

/// `tide.random`.
pub(super) fn random(lua: &Lua, meter: &Rc<Meter>, natives: &Table) -> mlua::Result<()> {
    let of = Rc::clone(meter);
    natives.raw_set("unit", lua.create_function(move |_, ()| Ok(of.random().unit()))?)?;
    let of = Rc::clone(meter);
    natives.raw_set("below", lua.create_function(move |_, bound: f64| Ok(of.random().below(bound as u64) as f64))?)
}

/// `tide.regex`.
pub(super) fn patterns(lua: &Lua, meter: &Rc<Meter>, natives: &Table) -> mlua::Result<()> {
    let patterns = Rc::new(Patterns::new(meter));
    let of = Rc::clone(&patterns);
    natives.raw_set(
        "regex_find",
        lua.create_function(move |_, (text, pattern, from): (LuaString, LuaString, usize)| {
            Ok(match of.find(&pattern.to_string_lossy(), &text.as_bytes(), from)? {
                Ok(Some((start, end))) => (None, Some(start + 1), Some(end)),
                Ok(None) => (None, None, None),
                Err(problem) => (Some(problem), None, None),
            })
        })?,
    )?;
    let of = Rc::clone(&patterns);
    natives.raw_set(
        "regex_groups",
        lua.create_function(move |lua, (text, pattern): (LuaString, LuaString)| {
            let found = of.groups(&pattern.to_string_lossy(), &text.as_bytes(), |regex, captures| {
                let groups = lua.create_table()?;
                for (index, name) in regex.capture_names().enumerate() {
                    let Some(group) = captures.get(index) else { continue };
                    let group = lua.create_string(group.as_bytes())?;
                    if let Some(name) = name {
                        groups.raw_set(name, &group)?;
                    }
                    groups.raw_set(index, group)?;
                }
                Ok(groups)
            })?;
            Ok(match found {
                Ok(groups) => (None, groups),
                Err(problem) => (Some(problem), None),
            })
        })?,
    )?;
    let of = Rc::clone(&patterns);
    natives.raw_set(
        "regex_all",
        lua.create_function(move |lua, (text, pattern): (LuaString, LuaString)| {
            let matches = lua.create_table()?;
            let found = of.all(&pattern.to_string_lossy(), &text.as_bytes(), |found| matches.raw_push(lua.create_string(found)?))?;
            outcome(found.map(|()| matches))
        })?,
    )?;
    natives.raw_set(
        "regex_replace",
        lua.create_function(move |lua, (text, pattern, by, max): (LuaString, LuaString, LuaString, f64)| {
            Ok(match patterns.replace(&pattern.to_string_lossy(), &text.as_bytes(), &by.as_bytes(), max as usize)? {
                Ok((made, count)) => (None, Some(lua.create_string(made)?), Some(count)),
                Err(problem) => (Some(problem), None, None),
            })
        })?,
    )
}
