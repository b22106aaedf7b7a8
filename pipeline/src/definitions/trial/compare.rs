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

/// Differences between expected and found rows.
pub(super) fn rows(expected: &[Map<String, Value>], found: &[Row], table: &Table) -> Vec<String> {
    let shown = || show_rows(found, table);
    if expected.len() != found.len() {
        return vec![format!("{} rows, expected {}: {}", found.len(), expected.len(), shown())];
    }
    let mut differences = Vec::new();
    for (i, (expected, found)) in expected.iter().zip(found).enumerate() {
        for (name, value) in expected {
            let found = match name.as_str() {
                "event_type" => Value::String(found.event_type.to_string()),
                "occurred_at" => Value::String(time::format(found.occurred_at)),
                "attributes" => attributes(found),
                name if table.fields.iter().any(|c| c.name == name) => continue,
                name => {
                    differences.push(format!("row {i}: {name} is no field of table {}", table.name));
                    continue;
                }
            };
            let wanted = if name == "occurred_at" { normal_time(value) } else { value.clone() };
            if !same(&wanted, &found) {
                differences.push(format!("row {i}: {name} is {found}, expected {value}"));
            }
        }
        for (column, cell) in table.fields.iter().zip(&found.cells) {
            let wanted = expected.get(&column.name).unwrap_or(&Value::Null);
            let wanted = if column.kind == FieldType::Timestamp { normal_time(wanted) } else { wanted.clone() };
            let cell = value_of(cell, column.kind);
            if !same(&wanted, &cell) {
                differences.push(format!("row {i}: {} is {cell}, expected {wanted}", column.name));
            }
        }
    }
    differences
}

/// Times in one form.
fn normal_time(value: &Value) -> Value {
    let at = value.as_str().and_then(time::parse).or_else(|| value.as_f64().and_then(time::from_millis));
    at.map_or_else(|| value.clone(), |at| Value::String(time::format(at)))
}

fn value_of(cell: &Cell, kind: FieldType) -> Value {
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

/// An end as people read it.
pub(super) fn ended(ended: &Ended, table: &Table) -> String {
    match ended {
        Ended::Rows(rows) => format!("{} rows: {}", rows.len(), show_rows(rows, table)),
        Ended::Filtered => "no output".into(),
        Ended::Rejected(r) => {
            let line = r.line.map(|l| format!(" in line {l}")).unwrap_or_default();
            let at = if r.pointer.is_empty() { String::new() } else { format!(" at {}", r.pointer) };
            format!("rejection {} at {}{line}{at} ({})", r.code, r.stage.as_str(), r.detail)
        }
    }
}

/// Rows as a test would state them.
fn show_rows(rows: &[Row], table: &Table) -> String {
    let row = |row: &Row| {
        let mut members: Map<String, Value> = table
            .fields
            .iter()
            .zip(&row.cells)
            .filter(|(_, cell)| **cell != Cell::Null)
            .map(|(column, cell)| (column.name.clone(), value_of(cell, column.kind)))
            .collect();
        members.insert("event_type".into(), Value::from(&*row.event_type));
        if !row.attributes.is_empty() {
            members.insert("attributes".into(), attributes(row));
        }
        Value::Object(members)
    };
    Value::Array(rows.iter().map(row).collect()).to_string()
}
