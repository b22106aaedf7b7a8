//! Writes into a test what was found: its input stays as it is, member by member, and only what is expected changes.

use super::compare::{members, value_rows};
use super::form::TestForm;
use super::lines::script_of;
use super::stages::{self, Ended, Input};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use std::io::{self, Write};
use tidegate_schemas::definition::Template;
use tidegate_schemas::table::Table;
use tidegate_schemas::verdict::StageName;

/// The text of a test that expects what is found.
pub(super) fn text(template: &Template, table: &Table, form: &TestForm<'_>, input: &Input, ended: &Ended) -> String {
    let mut out: Vec<(&str, String)> = vec![("description", line(&form.description))];
    let mut given = |name, value: Option<String>| out.extend(value.map(|v| (name, v)));
    given("bytes_hex", form.bytes_hex.as_ref().map(line));
    given("fPort", form.f_port.as_ref().map(line));
    given("event", form.event.map(|e| e.get().to_owned()));
    given("asset", form.asset.as_ref().map(line));
    given("attributes", (!form.attributes.is_empty()).then(|| line(&form.attributes)));
    given("meta", (!form.meta.is_empty()).then(|| line(&form.meta)));
    given("received_at", form.received_at.as_ref().map(line));
    given("occurred_at", form.occurred_at.as_ref().map(line));
    given("event_type", form.event_type.as_ref().map(line));
    // A test that had no end is a new one: it gets all that can be said.
    let is_new = form.ends() == 0;
    let decodes = script_of(template, StageName::Decode).is_some();
    if form.decoded.is_some() || (is_new && decodes) {
        given("decoded", stages::decoded(template, table, input).map(|d| line(&d)));
    }
    let judged = !matches!(ended, Ended::Rejected(r) if r.stage == StageName::Validate);
    given("valid", form.valid.map(|_| line(&judged)));
    match ended {
        Ended::Filtered => out.push(("filtered", "true".into())),
        Ended::Rejected(r) => {
            let mut end = serde_json::Map::new();
            end.insert("stage".into(), r.stage.as_str().into());
            end.insert("code".into(), r.code.clone().into());
            out.push(("rejected", line(&end)));
        }
        Ended::Rows(rows) => {
            let compared = |name: &str| form.rows.iter().flatten().any(|row| row.contains_key(name));
            let mut wanted = members(is_new);
            wanted.event_type |= compared("event_type");
            wanted.occurred_at |= compared("occurred_at");
            wanted.attributes |= compared("attributes");
            let rows: Vec<String> = value_rows(rows, table, &wanted).iter().map(|row| format!("    {}", line(row))).collect();
            let rows = if rows.is_empty() { "[]".to_owned() } else { format!("[\n{}\n  ]", rows.join(",\n")) };
            out.push(("rows", rows));
        }
    }
    let members: Vec<String> = out.iter().map(|(name, value)| format!("  {}: {value}", line(name))).collect();
    format!("{{\n{}\n}}\n", members.join(",\n"))
}

/// A value in one line, with room around what it holds.
pub fn line<T: Serialize + ?Sized>(value: &T) -> String {
    let mut out = Vec::new();
    // Values of JSON always serialise, and writing to memory cannot fail.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut out, Roomy::default()));
    String::from_utf8(out).unwrap_or_default()
}

/// `{ "a": [ 1, 2 ], "b": {} }`
#[derive(Default)]
struct Roomy {
    /// Whether something stands in the container that was opened last.
    holds: bool,
}

impl Roomy {
    fn before<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.holds = true;
        writer.write_all(if first { b" " } else { b", " })
    }

    fn end<W: ?Sized + Write>(&mut self, writer: &mut W, close: &[u8]) -> io::Result<()> {
        if std::mem::replace(&mut self.holds, true) {
            writer.write_all(b" ")?;
        }
        writer.write_all(close)
    }
}

impl Formatter for Roomy {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.holds = false;
        writer.write_all(b"[")
    }
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.before(writer, first)
    }
    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b"]")
    }
    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.holds = false;
        writer.write_all(b"{")
    }
    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.before(writer, first)
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b"}")
    }
}
