//! The Luau that the host writes itself: one function that runs a template's adjacent script stages over one event, and
//! for each form of document a constructor that makes the event's tables out of plain arguments.
//!
//! ```text
//! Rust ── arguments ──▶ constructor ─▶ decode ─▶ validate ─▶ transform ── cells ──▶ Rust
//! ```
//! An event enters by one call and leaves by one list of results: a table touched from Rust costs more than the scripts.

use std::fmt::Write;
use tidegate_schemas::verdict::StageName;

/// Which stages one run executes in Luau.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) decode: bool,
    pub(crate) validate: bool,
    pub(crate) transform: Transforming,
}

/// How the run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transforming {
    /// A stage outside Luau comes next.
    Later(StageName),
    /// The members of what was decoded are the fields.
    Default,
    /// By the template's script.
    Script,
}

/// What the driver's first result says about the others.
pub(crate) mod tag {
    /// A result of the wrong type: which (of [`super::super::meter::STAGES`], from 1), what it was.
    pub(crate) const INVALID: i64 = 1;
    /// The decoder's errors.
    pub(crate) const ERRORS: i64 = 2;
    /// The validator's two results.
    pub(crate) const REFUSED: i64 = 3;
    /// `nil`: left out on purpose.
    pub(crate) const FILTERED: i64 = 4;
    /// A table: a list of rows, or a row with undeclared fields.
    pub(crate) const ROWS: i64 = 5;
    /// The declared fields of the only row, then `occurred_at` and `event_type`.
    pub(crate) const CELLS: i64 = 6;
    /// What was decoded, for a stage outside Luau.
    pub(crate) const LATER: i64 = 7;
}

/// Above this number rows are read as tables: Luau has so many registers.
const CELLS_MAX: usize = 100;

/// Arguments before those of the document, where the run decodes.
pub(crate) const INPUTS: [&str; 6] = ["payload", "f_port", "received_at", "asset", "attributes", "meta"];

/// The text of a run's function over `(input, event)`. `fields` are the declared names in order.
pub(crate) fn run_text(run: Run, fields: &[&str]) -> String {
    let mut out = String::from(
        "local mark, decode, validate, transform, NULL, type, typeof, next, getmetatable = ...\n\
         return function(input, event)\nlocal data\n",
    );
    if run.decode {
        out.push_str(
            "mark(1)\nlocal out = decode(input)\n\
             if type(out) ~= \"table\" then mark(0) return 1, 1, typeof(out) end\n\
             local errors = out.errors\n\
             if errors ~= nil and errors ~= NULL and (type(errors) ~= \"table\" or next(errors) ~= nil) then mark(0) return 2, errors end\n\
             data = out.data\n",
        );
        if run.validate || run.transform == Transforming::Script {
            out.push_str("event.decoded = data\n");
        }
    }
    if run.validate {
        out.push_str("mark(2)\nlocal ok, why = validate(event)\nif ok ~= true then mark(0) return 3, ok, why end\n");
    }
    match run.transform {
        Transforming::Later(_) => out.push_str("mark(0)\nreturn 7, data\nend"),
        Transforming::Default => {
            out.push_str("mark(0)\nlocal row = if data == nil or data == NULL then {} else data\n");
            if fields.len() > CELLS_MAX {
                out.push_str("return 7, data\nend");
            } else {
                out.push_str("if type(row) ~= \"table\" or getmetatable(row) ~= nil then return 7, data end\nreturn 6");
                fields.iter().for_each(|f| out.push_str(&format!(", row[{}]", quoted(f.as_bytes()))));
                out.push_str("\nend");
            }
        }
        Transforming::Script => {
            out.push_str("mark(3)\nlocal row = transform(event)\nmark(0)\nif row == nil then return 4 end\n");
            out.push_str("if type(row) ~= \"table\" then return 1, 3, typeof(row) end\n");
            if fields.len() <= CELLS_MAX {
                cells_text(&mut out, fields);
            }
            out.push_str("return 5, row\nend");
        }
    }
    out
}

/// Returns the declared fields where the row has no other. Counting them all in Luau is cheaper than looking from Rust.
fn cells_text(out: &mut String, fields: &[&str]) {
    out.push_str("if getmetatable(row) == nil then\nlocal n = 0\nfor _ in row do n += 1 if n > 300 then return 5, row end end\n");
    let names: Vec<String> = fields.iter().chain(&["occurred_at", "event_type"]).map(|f| quoted(f.as_bytes())).collect();
    for (i, name) in names.iter().enumerate() {
        let _ = write!(out, "local c{i} = row[{name}] if c{i} ~= nil then n -= 1 end\n");
    }
    // An empty table is an empty list.
    out.push_str("if n == 0 and next(row) ~= nil then return 6");
    (0..names.len()).for_each(|i| {
        let _ = write!(out, ", c{i}");
    });
    out.push_str(" end\nend\n");
}

/// The text of a constructor: `form` as [`super::enter::Form`] wrote it, or `None` for an event that comes as a table.
pub(crate) fn constructor_text(run: Run, form: Option<&[u8]>) -> String {
    let mut names: Vec<String> = Vec::new();
    let mut input = "nil".to_owned();
    if run.decode {
        names.extend(INPUTS.iter().map(|n| (*n).to_owned()));
        input = "{payload = payload, fPort = f_port, receivedAt = received_at, asset = {id = asset, attributes = attributes}, meta = meta}"
            .into();
    }
    let event = match form {
        None => {
            names.push("event".into());
            "event".to_owned()
        }
        Some(form) => {
            let (mut text, mut rest, mut scalars) = (String::new(), form, 0);
            value_text(&mut text, &mut rest, &mut scalars);
            names.extend((0..scalars).map(|i| format!("s{i}")));
            text
        }
    };
    format!("local run = ...\nreturn function({}) return run({input}, {event}) end", names.join(", "))
}

/// Bytes of a form: what a value is.
pub(crate) mod form {
    pub(crate) const SCALAR: u8 = b's';
    pub(crate) const LIST: u8 = b'l';
    pub(crate) const MAP: u8 = b'm';
    /// A key follows: four bytes of its length, and itself.
    pub(crate) const KEY: u8 = b'k';
    pub(crate) const END: u8 = b'e';
}

fn value_text(out: &mut String, form: &mut &[u8], scalars: &mut usize) {
    let Some((kind, rest)) = form.split_first() else { return };
    *form = rest;
    match *kind {
        form::SCALAR => {
            let _ = write!(out, "s{scalars}");
            *scalars += 1;
        }
        form::LIST | form::MAP => {
            out.push('{');
            while let Some((next, rest)) = form.split_first() {
                if *next == form::END {
                    *form = rest;
                    break;
                }
                if let (form::KEY, Some((len, rest))) = (*next, rest.split_first_chunk::<4>()) {
                    let (key, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
                    *form = rest;
                    let _ = write!(out, "[{}] = ", quoted(key));
                }
                value_text(out, form, scalars);
                out.push(',');
            }
            out.push('}');
        }
        _ => {}
    }
}

/// A Luau string literal of any bytes.
fn quoted(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for byte in bytes {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => {
                let _ = write!(out, "\\x{byte:02x}");
            }
            _ => out.push(char::from(*byte)),
        }
    }
    out.push('"');
    out
}
