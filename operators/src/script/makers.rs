//! Functions that make documents' tables: a fleet's documents differ in their scalars only, and a table whose form is known is
//! made several times faster by Luau, out of those scalars, than member after member through its API.
//!
//! A function is compiled for a form that was met often. The table that it makes is the one which adding the members in their
//! order makes, so no script can tell the two by the order in which it walks them.

use crate::script::enter::is_input;
use crate::script::state::host_compiler;
use mlua::{ChunkMode, Function, Lua, Table};
use std::fmt::Write;
use std::sync::Arc;
use tidegate_schemas::document::{Form, Part};

/// Forms of one template's documents that are counted, and as many that have a function.
const FORMS_KEPT: usize = 4;
/// Scalars of a document. Luau has 200 local names in a function.
const SCALARS_MAX: usize = 128;
/// Levels of a document. Each takes registers.
const LEVELS_MAX: usize = 8;

/// Those of one environment.
pub(crate) struct Makers {
    native: bool,
    /// Documents of a form before it is worth compiling a function.
    met_min: usize,
    met: Vec<Met>,
    made: Vec<Maker>,
    /// Which of them gives way to the next.
    oldest: usize,
}

struct Met {
    form: Arc<Form>,
    with_decoded: bool,
    times: usize,
}

/// The function for one form.
pub(crate) struct Maker {
    form: Arc<Form>,
    /// Whether what was decoded is its last argument, and the last member of what it makes.
    with_decoded: bool,
    /// Numbers of the scalars that are its arguments, in their order; none where there can be no function.
    scalars: Option<Vec<usize>>,
}

impl Makers {
    pub(crate) fn new(native: bool, met_min: usize) -> Self {
        Self { native, met_min, met: Vec::new(), made: Vec::new(), oldest: 0 }
    }

    /// The number of the function for documents of this form, where there is one by now.
    pub(crate) fn find(&mut self, lua: &Lua, pins: &Table, form: &Arc<Form>, inputs: &[String], with_decoded: bool) -> Option<usize> {
        let known = |m: &Maker| m.with_decoded == with_decoded && Arc::ptr_eq(&m.form, form);
        let at = match self.made.iter().position(known) {
            Some(at) => at,
            None => self.meet(lua, pins, form, inputs, with_decoded)?,
        };
        self.made[at].scalars.as_ref().map(|_| at)
    }

    /// Numbers of the scalars that a function takes.
    pub(crate) fn scalars(&self, at: usize) -> &[usize] {
        self.made[at].scalars.as_deref().unwrap_or_default()
    }

    /// A form that is not known by its address: forms are found anew in every epoch.
    fn meet(&mut self, lua: &Lua, pins: &Table, form: &Arc<Form>, inputs: &[String], with_decoded: bool) -> Option<usize> {
        if let Some(at) = self.made.iter().position(|m| m.with_decoded == with_decoded && *m.form == **form) {
            self.made[at].form = Arc::clone(form);
            return Some(at);
        }
        let same = |met: &Met| met.with_decoded == with_decoded && (Arc::ptr_eq(&met.form, form) || *met.form == **form);
        let Some(at) = self.met.iter().position(same) else {
            self.met.truncate(FORMS_KEPT - 1);
            self.met.insert(0, Met { form: Arc::clone(form), with_decoded, times: 1 });
            return None;
        };
        self.met[at].times += 1;
        if self.met[at].times < self.met_min {
            return None;
        }
        self.met.remove(at);
        let at = if self.made.len() < FORMS_KEPT { self.made.len() } else { self.oldest };
        let maker = Maker { form: Arc::clone(form), with_decoded, scalars: self.make(lua, pins, at, form, inputs, with_decoded) };
        if at == self.made.len() {
            self.made.push(maker);
        } else {
            self.made[at] = maker;
            self.oldest = (at + 1) % FORMS_KEPT;
        }
        Some(at)
    }

    /// Compiles the function for a form and pins it; the scalars that it takes.
    fn make(&self, lua: &Lua, pins: &Table, at: usize, form: &Form, inputs: &[String], with_decoded: bool) -> Option<Vec<usize>> {
        let (source, scalars) = source(form, inputs, with_decoded)?;
        let bytecode = host_compiler().compile(source).ok()?;
        lua.enable_jit(self.native);
        let made = lua.load(bytecode).set_name("=tidegate").set_mode(ChunkMode::Binary).call::<Function>(());
        lua.enable_jit(false);
        pins.raw_set(pin(at), made.ok()?).ok()?;
        Some(scalars)
    }
}

/// Where among the pins a function stands.
pub(crate) fn pin(at: usize) -> i32 {
    -1 - at as i32
}

/// The text of a function that returns such a document, with the numbers of its arguments.
fn source(form: &Form, inputs: &[String], with_decoded: bool) -> Option<(String, Vec<usize>)> {
    let Part::Map(end) = form.part(0) else { return None };
    let mut writer = Writer { form, text: String::new(), scalars: Vec::new() };
    writer.members(1, end, 1, |name| is_input(inputs, name), with_decoded)?;
    let names = (0..writer.scalars.len()).map(argument).chain(with_decoded.then(|| DECODED.to_owned()));
    let (names, table) = (names.collect::<Vec<_>>().join(","), writer.text);
    Some((format!("return function({names}) return {table} end"), writer.scalars))
}

/// The argument for what was decoded, and the name of its member.
const DECODED: &str = "decoded";

/// Words that are no names in Luau.
const KEYWORDS: [&str; 21] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local", "nil", "not", "or", "repeat", "return",
    "then", "true", "until", "while",
];

fn argument(number: usize) -> String {
    format!("a{number}")
}

struct Writer<'f> {
    form: &'f Form,
    text: String,
    scalars: Vec<usize>,
}

impl Writer<'_> {
    /// Writes the value at a place; the place behind it. None where it is too large.
    fn value(&mut self, at: usize, level: usize) -> Option<usize> {
        match self.form.part(at) {
            _ if level > LEVELS_MAX => None,
            Part::Name(_) => None,
            Part::Map(end) => self.members(at + 1, end, level, |_| true, false),
            Part::List(end) => {
                self.text.push('{');
                let mut next = at + 1;
                while next < end {
                    next = self.value(next, level + 1)?;
                    self.text.push(',');
                }
                self.text.push('}');
                Some(end)
            }
            Part::Scalar(_) if self.scalars.len() >= SCALARS_MAX => None,
            Part::Scalar(number) => {
                self.text.push_str(&argument(self.scalars.len()));
                self.scalars.push(number);
                Some(at + 1)
            }
        }
    }

    /// Writes the name of a member: plainly where it is an identifier, of which Luau makes a template of the table.
    fn name(&mut self, name: &str) {
        let is_plain =
            name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.bytes().next().is_none_or(|b| b.is_ascii_digit());
        if is_plain && !KEYWORDS.contains(&name) {
            return self.text.push_str(name);
        }
        self.text.push_str("[\"");
        for byte in name.bytes() {
            // Writing to a String cannot fail.
            let _ = write!(self.text, "\\{byte:03}");
        }
        self.text.push_str("\"]");
    }

    /// Writes a table of the members up to a place, of which those count that `is_wanted` names.
    fn members(&mut self, from: usize, end: usize, level: usize, is_wanted: impl Fn(&str) -> bool, with_decoded: bool) -> Option<usize> {
        let form = self.form;
        let mut names: Vec<&str> = if with_decoded { vec![DECODED] } else { Vec::new() };
        self.text.push('{');
        let mut at = from;
        while at < end {
            let Part::Name(name) = form.part(at) else { return None };
            if !is_wanted(name) {
                at = form.behind(at + 1);
                continue;
            }
            // The last one of two counts: not what a table's constructor is asked for.
            if names.contains(&name) {
                return None;
            }
            names.push(name);
            self.name(name);
            self.text.push('=');
            at = self.value(at + 1, level + 1)?;
            self.text.push(',');
        }
        if with_decoded {
            self.text.push_str("decoded=decoded");
        }
        self.text.push('}');
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::source;
    use tidegate_schemas::document::{Document, Forms};

    fn made(json: &str, inputs: &[&str], with_decoded: bool) -> Option<(String, Vec<usize>)> {
        let document = Document::parse_like(json.to_owned().into(), &mut Forms::default()).ok()?;
        let inputs: Vec<String> = inputs.iter().map(|i| (*i).to_owned()).collect();
        source(document.form()?, &inputs, with_decoded)
    }

    #[test]
    fn a_function_makes_the_table_of_a_form() {
        for (json, inputs, with_decoded, expected) in [
            (r#"{"a":1}"#, &[][..], false, "return function(a0) return {a=a0,} end"),
            (r#"{"a":1}"#, &[], true, "return function(a0,decoded) return {a=a0,decoded=decoded} end"),
            (r#"{"b":{"c":[1,{}]},"a":[2,"x",[]]}"#, &["a"], false, "return function(a0,a1) return {a={a0,a1,{},},} end"),
            (r#"{"end":1,"1":"","":{}}"#, &[], false, r#"return function(a0,a1) return {["\101\110\100"]=a0,["\049"]=a1,[""]={},} end"#),
        ] {
            let (text, scalars) = made(json, inputs, with_decoded).unwrap();
            assert_eq!(text, expected);
            assert_eq!(scalars.len(), text.matches("a0,").count().min(1) + text.matches("a1,").count().min(1), "{text}");
        }
    }

    #[test]
    fn what_a_constructor_would_make_otherwise_is_left_to_the_api() {
        let long = format!("{{\"a\":[{}0]}}", "0,".repeat(128));
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(9), "]".repeat(9));
        for (json, with_decoded) in [
            (r#"{"a":1,"a":2}"#, false),
            (r#"{"b":{"a":1,"a":2}}"#, false),
            (r#"{"decoded":1}"#, true),
            ("[1]", false),
            ("1", false),
            (&long, false),
            (&deep, false),
        ] {
            assert_eq!(made(json, &[], with_decoded), None, "{json}");
        }
    }
}
