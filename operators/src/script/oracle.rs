//! The stages of an event by mlua's safe API, value by value, without a thought of speed: what the tests hold `raw` against.

use crate::event::Event;
use crate::script::driver::{Ended, Name, Transforming};
use crate::script::enter::{exact, is_input};
use crate::script::leave::{Lent, number};
use crate::script::raw::{Crossed, NO_UTF8, counted};
use crate::stages::transform::fields::Scalar;
use mlua::{Function, Lua, Table, Value};
use tidegate_schemas::definition::PayloadForm;
use tidegate_schemas::document::{self, Kind};
use tidegate_schemas::verdict::StageName;

/// Brings an event into Luau, runs its stages, and hands over to `read` how they ended. What a script raised is an error.
pub(crate) fn cross<R>(functions: &[Option<Function>; 3], of: &Crossed<'_>, read: impl FnOnce(mlua::Result<Ended<Safe>>) -> R) -> R {
    let mut ended = Ok(Ended::Filtered);
    // Within a function of the host, as the other driver is: how deep scripts may call one another depends on it.
    let called = counted(of.meter, || {
        of.lua.scope(|scope| {
            let stages = scope.create_function_mut(|_, ()| {
                ended = stages(functions, of);
                Ok(())
            })?;
            stages.call::<()>(())
        })
    });
    read(called.and(ended))
}

fn stages(functions: &[Option<Function>; 3], of: &Crossed<'_>) -> mlua::Result<Ended<Safe>> {
    let (lua, run) = (of.lua, of.run);
    let [decode, validate, transform] = functions;
    let mut data = None;
    if run.decode {
        let input = lua.create_table_with_capacity(0, 5)?;
        // What is absent takes its place as well: the order in which a script meets the members depends on it.
        match of.payload {
            None => input.raw_set("payload", Value::Nil)?,
            Some((bytes, PayloadForm::Buffer)) => input.raw_set("payload", lua.create_buffer(bytes)?)?,
            Some((bytes, PayloadForm::String)) => input.raw_set("payload", lua.create_string(bytes)?)?,
            Some((bytes, PayloadForm::Bytes)) => input.raw_set("payload", lua.create_sequence_from(bytes.iter().copied())?)?,
        }
        let asset = lua.create_table_with_capacity(0, 2)?;
        asset.raw_set("id", &*of.event.origin.asset)?;
        asset.raw_set("attributes", of.attributes)?;
        input.raw_set("fPort", of.f_port)?;
        input.raw_set("receivedAt", of.event.origin.received_at as f64 / 1_000.0)?;
        input.raw_set("asset", asset)?;
        input.raw_set("meta", of.meta)?;
        let (out, _) = call(of, 0, decode, input)?;
        let Value::Table(table) = &out else { return Ok(Ended::Invalid(StageName::Decode, Safe(out))) };
        let errors: Value = table.raw_get("errors")?;
        match &errors {
            Value::Nil => {}
            null if null.is_null() => {}
            Value::Table(list) if list.is_empty() => {}
            _ => return Ok(Ended::Errors(Safe(errors))),
        }
        let found: Value = table.raw_get("data")?;
        let is_known = |key: &Value| key.as_string().is_some_and(|key| key == "errors" || key == "warnings");
        if found.is_nil() && table.pairs::<Value, Value>().flatten().any(|(key, _)| !is_known(&key)) {
            return Ok(Ended::NoData(Safe(out)));
        }
        data = Some(found);
    }
    let event = event(lua, of.event, of.inputs, data.is_some())?;
    if let Some(data) = &data {
        event.raw_set("decoded", data)?;
    }
    if run.validate {
        let (verdict, why) = call(of, 1, validate, event.clone())?;
        if !matches!(verdict, Value::Boolean(true)) {
            return Ok(Ended::Refused(Safe(verdict), Safe(why)));
        }
    }
    Ok(match (run.transform, data) {
        (Transforming::Script, _) => match call(of, 2, transform, event)?.0 {
            Value::Nil => Ended::Filtered,
            rows @ Value::Table(_) => Ended::Rows(Safe(rows)),
            other => Ended::Invalid(StageName::Transform, Safe(other)),
        },
        (_, None) => Ended::Later(None),
        (Transforming::Default, Some(Value::Nil)) => Ended::Decoded(None),
        (Transforming::Default, Some(data)) if data.is_null() => Ended::Decoded(None),
        (Transforming::Default, Some(data @ Value::Table(_))) => Ended::Decoded(Some(Safe(data))),
        (_, Some(data)) => Ended::Later(Some(Safe(data))),
    })
}

fn call(of: &Crossed<'_>, stage: usize, function: &Option<Function>, argument: Table) -> mlua::Result<(Value, Value)> {
    if !of.meter.enter(of.lua, stage) {
        return Err(mlua::Error::runtime("nothing is left to spend"));
    }
    let function = function.as_ref().ok_or_else(|| mlua::Error::runtime("there is no such stage"))?;
    let results = function.call(argument)?;
    of.meter.leave(of.lua);
    Ok(results)
}

fn event(lua: &Lua, event: &Event, inputs: &[String], is_decoded: bool) -> mlua::Result<Table> {
    // As large as the other driver makes it: the order in which a script meets the members depends on it.
    let root = event.document.root();
    let len = match root.kind() {
        Kind::Map(_) => root.pairs().filter(|(key, _)| is_input(inputs, key)).count(),
        _ => 1,
    };
    let with_decoded = is_decoded || event.decoded.is_some();
    let table = lua.create_table_with_capacity(0, len + usize::from(with_decoded))?;
    if matches!(root.kind(), Kind::Map(_)) {
        for (key, member) in root.pairs().filter(|(key, _)| is_input(inputs, key)) {
            table.raw_set(key, value(lua, member)?)?;
        }
    } else {
        table.raw_set("value", value(lua, root)?)?;
    }
    if let Some(decoded) = &event.decoded {
        table.raw_set("decoded", value(lua, decoded.root())?)?;
    }
    Ok(table)
}

fn value(lua: &Lua, of: document::Value<'_>) -> mlua::Result<Value> {
    Ok(match of.kind() {
        Kind::Null => Value::NULL,
        Kind::Bool(b) => Value::Boolean(b),
        Kind::Int(i) => match exact(i) {
            Some(n) => Value::Number(n),
            None => Value::String(lua.create_string(i.to_string())?),
        },
        Kind::Uint(u) => Value::String(lua.create_string(u.to_string())?),
        Kind::Float(f) => Value::Number(f),
        Kind::Text(text) => Value::String(lua.create_string(text)?),
        Kind::List(len) => {
            let table = lua.create_table_with_capacity(len, 0)?;
            for element in of.elements() {
                table.raw_push(value(lua, element)?)?;
            }
            Value::Table(table)
        }
        Kind::Map(len) => {
            let table = lua.create_table_with_capacity(0, len)?;
            for (key, member) in of.pairs() {
                table.raw_set(key, value(lua, member)?)?;
            }
            Value::Table(table)
        }
    })
}

/// A value of mlua's.
pub(crate) struct Safe(Value);

impl Lent for Safe {
    /// A key.
    type Place = Value;

    fn name(&self) -> &'static str {
        match &self.0 {
            value if value.is_null() => "null",
            Value::Integer(_) => "number",
            Value::Buffer(_) => "buffer",
            Value::LightUserData(_) => "userdata",
            other => other.type_name(),
        }
    }

    fn is_nil(&self) -> bool {
        self.0.is_nil()
    }

    fn is_table(&self) -> bool {
        self.0.is_table()
    }

    fn text_lossy(&self) -> Option<String> {
        self.0.as_string().map(|text| text.to_string_lossy())
    }

    fn scalar<R>(&self, f: impl FnOnce(Scalar<'_>) -> R) -> R {
        match &self.0 {
            Value::Number(n) => f(number(*n)),
            Value::Integer(i) => f(number(*i as f64)),
            Value::Boolean(b) => f(Scalar::Bool(*b)),
            Value::Nil => f(Scalar::Null),
            value if value.is_null() => f(Scalar::Null),
            Value::String(text) => match text.to_str() {
                Ok(text) => f(Scalar::Text(&text)),
                Err(_) => f(Scalar::Other(NO_UTF8)),
            },
            _ => f(Scalar::Other(self.name())),
        }
    }

    fn len(&self) -> usize {
        self.0.as_table().map_or(0, Table::raw_len)
    }

    fn count(&self, most: usize, _: impl FnMut(usize, Scalar<'_>)) -> (usize, bool) {
        (self.0.as_table().map_or(0, |table| table.pairs::<Value, Value>().take(most).count()), false)
    }

    fn element<R>(&self, i: usize, f: impl FnOnce(&Self) -> R) -> R {
        self.at(&Value::Integer(i as i64), f)
    }

    fn member<R>(&self, name: Name<'_>, f: impl FnOnce(&Self) -> R) -> R {
        let value = self.0.as_table().and_then(|table| table.raw_get(name.text).ok());
        f(&Self(value.unwrap_or(Value::Nil)))
    }

    fn each<E>(&self, mut f: impl FnMut(&Self, &Self, Value) -> Result<(), E>) -> Result<(), E> {
        let Some(table) = self.0.as_table() else { return Ok(()) };
        for pair in table.pairs::<Value, Value>() {
            // It only fails for keys that the table does not have.
            let Ok((key, value)) = pair else { break };
            let place = key.clone();
            f(&Self(key), &Self(value), place)?;
        }
        Ok(())
    }

    fn at<R>(&self, place: &Value, f: impl FnOnce(&Self) -> R) -> R {
        let value = self.0.as_table().and_then(|table| table.raw_get(place).ok());
        f(&Self(value.unwrap_or(Value::Nil)))
    }
}
