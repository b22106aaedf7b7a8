//! The Luau that the host writes itself: for each form of document a function that makes the event's tables out of plain
//! arguments and runs a template's adjacent script stages over them.
//!
//! ```text
//! Rust ── arguments ──▶ tables ─▶ decode ─▶ validate ─▶ transform ── cells ──▶ Rust
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
    /// What was decoded, for a stage outside Luau.
    pub(crate) const LATER: i64 = 7;
    /// The declared fields of the only row, then `occurred_at` and `event_type`.
    pub(crate) const CELLS: i64 = 6;
}

/// Above this number rows are read as tables: Luau has so many registers.
const CELLS_MAX: usize = 100;

/// Arguments before those of the document, where the run decodes.
pub(crate) const INPUTS: [&str; 6] = ["payload", "f_port", "received_at", "asset", "attributes", "meta"];

/// The text of a run: a chunk that takes `mark`, the three functions and null, and returns a function. That one takes the
/// arguments of [`INPUTS`] where the run decodes, then those of the `form` as [`super::enter::Form`] wrote it, or a table
/// where there is none. `fields` are the declared names in order.
pub(crate) fn text(run: Run, fields: &[&str], form: Option<&[u8]>) -> String {
    let mut parameters: Vec<String> = Vec::new();
    let mut event = "event".to_owned();
    if run.decode {
        parameters.extend(INPUTS.iter().map(|n| (*n).to_owned()));
    }
    match form {
        None => parameters.push("event".into()),
        Some(form) => {
            let (mut rest, mut scalars) = (form, 0);
            event.clear();
            value_text(&mut event, &mut rest, &mut scalars);
            parameters.extend((0..scalars).map(|i| format!("s{i}")));
        }
    }
    let mut out = format!("local mark, decode, validate, transform, NULL = ...\nreturn function({})\n", parameters.join(", "));
    let _ = writeln!(out, "local event, data = {event}");
    if run.decode {
        out.push_str(
            "mark(1)\n\
             local out = decode({payload = payload, fPort = f_port, receivedAt = received_at, asset = {id = asset, attributes = attributes}, meta = meta})\n\
             if type(out) ~= \"table\" then return 1, 1, typeof(out) end\n\
             local errors = out.errors\n\
             if errors ~= nil and errors ~= NULL and (type(errors) ~= \"table\" or next(errors) ~= nil) then return 2, errors end\n\
             data = out.data\n",
        );
        if run.validate || run.transform == Transforming::Script {
            out.push_str("event.decoded = data\n");
        }
    }
    if run.validate {
        out.push_str("mark(2)\nlocal ok, why = validate(event)\nif ok ~= true then return 3, ok, why end\n");
    }
    match run.transform {
        Transforming::Later(_) => out.push_str("return 7, data\n"),
        Transforming::Default if fields.len() > CELLS_MAX => out.push_str("return 7, data\n"),
        Transforming::Default => {
            out.push_str("local row = if data == nil or data == NULL then {} else data\n");
            out.push_str("if type(row) ~= \"table\" or getmetatable(row) ~= nil then return 7, data end\nreturn 6");
            cells_text(&mut out, fields);
        }
        Transforming::Script => {
            out.push_str("mark(3)\nlocal row = transform(event)\nif row == nil then return 4 end\n");
            out.push_str("if type(row) ~= \"table\" then return 1, 3, typeof(row) end\n");
            if fields.len() <= CELLS_MAX {
                only_declared_text(&mut out, fields);
                out.push_str("return 6");
                cells_text(&mut out, fields);
                out.push_str("end\n");
            }
            out.push_str("return 5, row\n");
        }
    }
    out.push_str("end");
    out
}

/// Asks whether a row has nothing but declared fields. Taking them out of a copy and looking for what is left costs a third
/// of walking over the row, here or from Rust.
fn only_declared_text(out: &mut String, fields: &[&str]) {
    out.push_str("local only = getmetatable(row) == nil and row[1] == nil\nif only then\nlocal rest = table.clone(row)\n");
    for name in fields.iter().chain(&["occurred_at", "event_type"]) {
        let _ = writeln!(out, "rest[{}] = nil", quoted(name.as_bytes()));
    }
    // An empty table is no row.
    out.push_str("only = next(rest) == nil and next(row) ~= nil\nend\nif only then\n");
}

fn cells_text(out: &mut String, fields: &[&str]) {
    for name in fields.iter().chain(&["occurred_at", "event_type"]) {
        let _ = write!(out, ", row[{}]", quoted(name.as_bytes()));
    }
    out.push('\n');
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
                    // Only names of this form let Luau copy a prepared table.
                    let _ =
                        if is_name(key) { write!(out, "{} = ", String::from_utf8_lossy(key)) } else { write!(out, "[{}] = ", quoted(key)) };
                }
                value_text(out, form, scalars);
                out.push(',');
            }
            out.push('}');
        }
        _ => {}
    }
}

fn is_name(key: &[u8]) -> bool {
    const KEYWORDS: [&[u8]; 21] = [
        b"and",
        b"break",
        b"do",
        b"else",
        b"elseif",
        b"end",
        b"false",
        b"for",
        b"function",
        b"if",
        b"in",
        b"local",
        b"nil",
        b"not",
        b"or",
        b"repeat",
        b"return",
        b"then",
        b"true",
        b"until",
        b"while",
    ];
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    key.first().is_some_and(|b| !b.is_ascii_digit()) && key.iter().all(word) && !KEYWORDS.contains(&key)
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
