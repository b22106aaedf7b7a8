//! Expected values against found ones, and both as people read them.

use super::stages::Ended;
use serde_json::{Map, Number, Value};
use tidegate_schemas::row::{Cell, Row};
use tidegate_schemas::table::{FieldType, Table};
use tidegate_schemas::time;

/// Whether two values are the same; floats may differ in their last digits, and a member that is null may be absent.
pub(super) fn same(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            let member = |map: &Map<String, Value>, key: &str| map.get(key).cloned().unwrap_or(Value::Null);
            a.keys().chain(b.keys()).all(|key| same(&member(a, key), &member(b, key)))
        }
        // Luau has one empty table.
        (Value::Object(a), Value::Array(b)) | (Value::Array(b), Value::Object(a)) => a.is_empty() && b.is_empty(),
        (a, b) => a == b,
    }
}

fn same_number(a: &Number, b: &Number) -> bool {
    if a == b {
        return true;
    }
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0),
        _ => false,
    }
}

/// A difference, and the member that differs, where it is one.
pub(super) type Found = (Option<String>, String);

/// Differences between two values, member by member.
pub(super) fn values(place: &str, expected: &Value, found: &Value, out: &mut Vec<Found>) {
    match (expected, found) {
        _ if same(expected, found) => {}
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let member = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                values(&format!("{place}/{key}"), &member(a), &member(b), out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| values(&format!("{place}/{i}"), a, b, out));
        }
        _ => {
            let name = place.rsplit('/').find(|step| step.parse::<usize>().is_err()).filter(|_| place.contains('/'));
            let (found, expected) = shown(found, expected);
            out.push((name.map(str::to_owned), format!("{place} is {found}, expected {expected}")));
        }
    }
}

/// Differences between expected and found rows.
pub(super) fn rows(expected: &[Map<String, Value>], found: &[Row], table: &Table) -> Vec<Found> {
    if expected.len() != found.len() {
        return vec![(None, format!("{}, expected {}: {}", counted(found.len()), expected.len(), show_rows(found, table)))];
    }
    let mut differences = Vec::new();
    for (i, (expected, found)) in expected.iter().zip(found).enumerate() {
        let mut differs = |name: &str, found: &Value, wanted: &Value| {
            let (found, wanted) = shown(found, wanted);
            differences.push((Some(name.to_owned()), format!("row {i}: {name} is {found}, expected {wanted}")));
        };
        for (name, value) in expected {
            let found = match name.as_str() {
                "event_type" => Value::String(found.event_type.to_string()),
                "occurred_at" => Value::String(time::format(found.occurred_at)),
                "attributes" => attributes(found),
                _ => continue,
            };
            let wanted = if name == "occurred_at" { normal_time(value) } else { value.clone() };
            if !same(&wanted, &found) {
                differs(name, &found, value);
            }
        }
        for (column, cell) in table.fields.iter().zip(&found.cells) {
            let wanted = expected.get(&column.name).unwrap_or(&Value::Null);
            let wanted = if column.kind == FieldType::Timestamp { normal_time(wanted) } else { wanted.clone() };
            let cell = value_of(cell, column.kind);
            if !same(&wanted, &cell) {
                differs(&column.name, &cell, &wanted);
            }
        }
        let is_known =
            |name: &str| matches!(name, "event_type" | "occurred_at" | "attributes") || table.fields.iter().any(|c| c.name == name);
        let unknown = expected.keys().filter(|name| !is_known(name));
        differences.extend(unknown.map(|name| (None, format!("row {i}: {name} is no field of table {}", table.name))));
    }
    differences
}

/// Times in one form.
fn normal_time(value: &Value) -> Value {
    let at = value.as_str().and_then(time::parse).or_else(|| value.as_f64().and_then(time::from_millis));
    at.map_or_else(|| value.clone(), |at| Value::String(time::format(at)))
}

fn value_of(cell: &Cell<'_>, kind: FieldType) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Bool(b) => Value::Bool(*b),
        Cell::I64(i) => Value::from(*i),
        Cell::F64(f) => Value::from(*f),
        Cell::Text(text) if kind == FieldType::Json => serde_json::from_str(text).unwrap_or_else(|_| Value::from(&**text)),
        Cell::Text(text) => Value::from(&**text),
        Cell::Timestamp(at) => Value::String(time::format(*at)),
    }
}

fn attributes(row: &Row) -> Value {
    Value::Object(row.attributes.iter().map(|(k, v)| (k.to_string(), Value::from(&**v))).collect())
}

/// Characters of a text that people are shown.
const SHOWN_MAX: usize = 200;

/// A value as people read it: long texts cut.
pub fn short(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(short_text(text)),
        Value::Array(elements) => elements.iter().map(short).collect(),
        Value::Object(members) => Value::Object(members.iter().map(|(name, value)| (name.clone(), short(value))).collect()),
        other => other.clone(),
    }
}

/// Two values that differ, as people read them: whole where they would look alike.
fn shown(found: &Value, expected: &Value) -> (Value, Value) {
    let cut = (short(found), short(expected));
    if cut.0 == cut.1 { (found.clone(), expected.clone()) } else { cut }
}

/// A text as people read it: what is long is cut, and its bytes are told.
pub fn short_text(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

/// So many rows.
pub(super) fn counted(rows: usize) -> String {
    if rows == 1 { "1 row".into() } else { format!("{rows} rows") }
}

/// An end as people read it.
pub(super) fn ended(ended: &Ended, table: &Table) -> String {
    match ended {
        Ended::Rows(rows) => format!("{}: {}", counted(rows.len()), show_rows(rows, table)),
        Ended::Filtered => "no output".into(),
        Ended::Rejected(r) => {
            let at = if r.pointer.is_empty() { String::new() } else { format!(" at {}", r.pointer) };
            format!("rejection {} at {}{at} ({})", r.code, r.stage.as_str(), r.detail)
        }
    }
}

/// What a row states besides its fields.
pub(super) struct Members {
    pub(super) event_type: bool,
    pub(super) occurred_at: bool,
    pub(super) attributes: bool,
}

/// All of it, or nothing.
pub(super) fn members(all: bool) -> Members {
    Members { event_type: all, occurred_at: all, attributes: all }
}

/// Rows as a test would state them.
pub(super) fn value_rows(rows: &[Row], table: &Table, wanted: &Members) -> Vec<Map<String, Value>> {
    let row = |row: &Row| {
        let fields = table.fields.iter().zip(&row.cells).filter(|(_, cell)| **cell != Cell::Null);
        let mut members: Map<String, Value> = fields.map(|(column, cell)| (column.name.clone(), value_of(cell, column.kind))).collect();
        if wanted.event_type {
            members.insert("event_type".into(), Value::from(&*row.event_type));
        }
        if wanted.occurred_at {
            members.insert("occurred_at".into(), Value::from(time::format(row.occurred_at)));
        }
        if wanted.attributes && !row.attributes.is_empty() {
            members.insert("attributes".into(), attributes(row));
        }
        members
    };
    rows.iter().map(row).collect()
}

fn show_rows(rows: &[Row], table: &Table) -> String {
    let wanted = Members { occurred_at: false, ..members(true) };
    short(&Value::from_iter(value_rows(rows, table, &wanted))).to_string()
}
