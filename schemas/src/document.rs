//! The document: what an event says, as a flat tape over the event's own bytes.
//!
//! Texts without escapes stay where they were sent; one allocation holds all nodes. A container's node tells where it
//! ends, so a reader skips what it does not want. Of a document whose form is known only the scalars are kept.

mod form;
mod full;
mod scan;

pub use form::{Form, Forms, Lookup, Part};

use crate::limits::JSON_DEPTH_MAX;
use bytes::Bytes;
use bytestring::ByteString;
use hashbrown::{HashMap, HashSet};
use std::fmt;
use std::str::Utf8Error;
use std::sync::Arc;

/// A parsed value that owns a reference to its bytes.
#[derive(Clone)]
pub struct Document {
    sent: ByteString,
    /// Texts that are not in `sent` as they are: those with escapes.
    side: String,
    /// All of them, or where there is a form those to which its nodes point.
    nodes: Vec<Node>,
    /// What it has in common with others, where that was looked for.
    form: Option<Arc<Form>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    /// In `sent`.
    Text {
        start: u32,
        len: u32,
    },
    /// In the form's text: the name of a member.
    Name {
        start: u32,
        len: u32,
    },
    /// In `side`.
    SideText {
        start: u32,
        len: u32,
    },
    /// Of a form: the node of this number in a document.
    Scalar(u32),
    /// Elements follow up to the node `end`.
    List {
        len: u32,
        end: u32,
    },
    /// Pairs of a text node and a value follow up to the node `end`.
    Map {
        len: u32,
        end: u32,
    },
}

/// A value inside a document.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    document: &'a Document,
    at: usize,
}

/// A value by kind.
#[derive(Clone, Copy)]
pub enum Kind<'a> {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// An integer that fits.
    Int(i64),
    /// An integer above `i64::MAX`.
    Uint(u64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(&'a str),
    /// A list of so many elements; see [`Value::elements`].
    List(usize),
    /// An object of so many pairs; see [`Value::pairs`].
    Map(usize),
}

/// Why bytes are no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The bytes are no JSON.
    #[error("not JSON: {detail} at byte {offset}")]
    Syntax {
        /// What is wrong.
        detail: String,
        /// Where, from 0.
        offset: usize,
    },
    /// More levels than [`JSON_DEPTH_MAX`].
    #[error("nested deeper than {JSON_DEPTH_MAX} levels")]
    Depth,
}

impl Document {
    /// Parses one JSON value. Where a key occurs twice the last one counts, as most readers have it.
    pub fn parse(bytes: Bytes) -> Result<Self, DocumentError> {
        let sent = text(bytes)?;
        match scan::nodes(&sent) {
            Some(nodes) => Ok(Self { sent, nodes, ..Self::null() }),
            None => full::document(&sent).map(|document| Self { sent, ..document }),
        }
    }

    /// The same, with the document's form where it is usual: several times quicker where it is that of one before.
    pub fn parse_like(bytes: Bytes, forms: &mut Forms) -> Result<Self, DocumentError> {
        let sent = text(bytes)?;
        if let Some((nodes, form)) = forms.read(&sent) {
            return Ok(Self { sent, nodes, form: Some(form), ..Self::null() });
        }
        let Some(nodes) = scan::nodes(&sent) else { return full::document(&sent).map(|document| Self { sent, ..document }) };
        let document = Self { sent, nodes, ..Self::null() };
        Ok(match forms.add(&document) {
            Some(form) => Self { nodes: form.scalars_of(&document.nodes), form: Some(form), ..document },
            None => document,
        })
    }

    /// A document that is one `null`: for events that are raw bytes.
    pub fn null() -> Self {
        Self { sent: ByteString::new(), side: String::new(), nodes: Vec::new(), form: None }
    }

    /// Its form, where that was looked for and is worth keeping.
    pub fn form(&self) -> Option<&Arc<Form>> {
        self.form.as_ref()
    }

    /// The value at a place of its form, which it must be of; at the place of a name that as a text.
    pub fn at(&self, place: usize) -> Value<'_> {
        Value { document: self, at: place }
    }

    /// The scalar of this number in its form, which it must be of.
    #[inline]
    pub fn scalar(&self, number: usize) -> Kind<'_> {
        self.kind(self.nodes[number])
    }

    /// The whole value.
    pub fn root(&self) -> Value<'_> {
        Value { document: self, at: 0 }
    }

    /// The value at an RFC 6901 JSON pointer (`""` is the whole).
    pub fn pointer(&self, pointer: &str) -> Option<Value<'_>> {
        self.root().pointer(pointer)
    }

    #[inline]
    fn text(&self, node: Node) -> &str {
        match node {
            Node::Text { start, len } => &self.sent[start as usize..(start + len) as usize],
            Node::SideText { start, len } => &self.side[start as usize..(start + len) as usize],
            Node::Name { start, len } => self.form.as_ref().map_or("", |form| form.name(start, len)),
            _ => "",
        }
    }

    /// Whether a node is this text: lengths tell most of them apart.
    fn is(&self, node: Node, text: &str) -> bool {
        matches!(node, Node::Text { len, .. } | Node::SideText { len, .. } | Node::Name { len, .. } if len as usize == text.len())
            && self.text(node) == text
    }

    /// A document without nodes and form is one `null`: every event begins and ends as one.
    #[inline]
    fn node(&self, at: usize) -> Node {
        let at = match self.form.as_ref().map(|form| form.node(at)) {
            None => at,
            Some(Node::Scalar(number)) => number as usize,
            Some(node) => return node,
        };
        self.nodes.get(at).copied().unwrap_or(Node::Null)
    }

    #[inline]
    fn kind(&self, node: Node) -> Kind<'_> {
        match node {
            Node::Null | Node::Scalar(_) => Kind::Null,
            Node::Bool(b) => Kind::Bool(b),
            Node::Int(i) => Kind::Int(i),
            Node::Uint(u) => Kind::Uint(u),
            Node::Float(f) => Kind::Float(f),
            Node::Text { .. } | Node::SideText { .. } | Node::Name { .. } => Kind::Text(self.text(node)),
            Node::List { len, .. } => Kind::List(len as usize),
            Node::Map { len, .. } => Kind::Map(len as usize),
        }
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        match self.node(at) {
            Node::List { end, .. } | Node::Map { end, .. } => end as usize,
            _ => at + 1,
        }
    }
}

impl<'a> Value<'a> {
    /// Where in its document it stands; see [`Form`].
    pub fn place(self) -> usize {
        self.at
    }

    /// What it is.
    #[inline]
    pub fn kind(self) -> Kind<'a> {
        self.document.kind(self.document.node(self.at))
    }

    /// The elements of a list; none for anything else.
    pub fn elements(self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (mut at, end) = match self.document.node(self.at) {
            Node::List { end, .. } => (self.at + 1, end as usize),
            _ => (0, 0),
        };
        let document = self.document;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let value = Value { document, at };
            at = document.next(at);
            Some(value)
        })
    }

    /// The pairs of an object in the order sent; none for anything else.
    pub fn pairs(self) -> impl Iterator<Item = (&'a str, Value<'a>)> + use<'a> {
        let document = self.document;
        self.members().map(move |(at, value)| (document.text(document.node(at)), value))
    }

    /// Places of keys, with their values.
    fn members(self) -> impl Iterator<Item = (usize, Value<'a>)> + use<'a> {
        let (mut at, end) = match self.document.node(self.at) {
            Node::Map { end, .. } => (self.at + 1, end as usize),
            _ => (0, 0),
        };
        let document = self.document;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let member = (at, Value { document, at: at + 1 });
            at = document.next(at + 1);
            Some(member)
        })
    }

    /// The member of an object; where a key occurs twice, the last.
    pub fn get(self, key: &str) -> Option<Value<'a>> {
        self.members().filter(|(at, _)| self.document.is(self.document.node(*at), key)).last().map(|(_, v)| v)
    }

    /// The value at an RFC 6901 JSON pointer.
    pub fn pointer(self, pointer: &str) -> Option<Value<'a>> {
        if pointer.is_empty() {
            return Some(self);
        }
        pointer.strip_prefix('/')?.split('/').try_fold(self, |value, token| match value.kind() {
            Kind::Map(_) if token.contains('~') => value.get(&token.replace("~1", "/").replace("~0", "~")),
            Kind::Map(_) => value.get(token),
            Kind::List(_) => value.elements().nth(list_index(token)?),
            _ => None,
        })
    }

    /// The text, where it is one.
    pub fn as_str(self) -> Option<&'a str> {
        match self.kind() {
            Kind::Text(t) => Some(t),
            _ => None,
        }
    }

    /// The number as a float, where it is one.
    pub fn as_f64(self) -> Option<f64> {
        match self.kind() {
            Kind::Int(i) => Some(i as f64),
            Kind::Uint(u) => Some(u as f64),
            Kind::Float(f) => Some(f),
            _ => None,
        }
    }

    /// Writes the value as JSON. Where a key occurs twice the last one is written: readers of JSON do not agree on which counts.
    pub fn write_json(self, out: &mut String) {
        let mut text = |t: &str| out.push_str(&serde_json::to_string(t).unwrap_or_default());
        match self.kind() {
            Kind::Null => out.push_str("null"),
            Kind::Bool(b) => out.push_str(if b { "true" } else { "false" }),
            Kind::Int(i) => out.push_str(&i.to_string()),
            Kind::Uint(u) => out.push_str(&u.to_string()),
            Kind::Float(f) => out.push_str(&serde_json::Number::from_f64(f).map_or("null".to_owned(), |n| n.to_string())),
            Kind::Text(t) => text(t),
            Kind::List(_) => {
                out.push('[');
                for (i, value) in self.elements().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    value.write_json(out);
                }
                out.push(']');
            }
            Kind::Map(len) => {
                let last = self.last_members(len);
                out.push('{');
                for (i, (at, value)) in self.members().filter(|(at, _)| last.as_ref().is_none_or(|last| last.contains(at))).enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    out.push_str(&serde_json::to_string(self.document.text(self.document.node(at))).unwrap_or_default());
                    out.push(':');
                    value.write_json(out);
                }
                out.push('}');
            }
        }
    }

    /// Places of the keys of an object that count, where a key occurs twice; none where all do.
    fn last_members(self, len: usize) -> Option<HashSet<usize>> {
        let names: HashMap<&str, usize> = self.members().map(|(at, _)| (self.document.text(self.document.node(at)), at)).collect();
        (names.len() < len).then(|| names.into_values().collect())
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.root().write_json(&mut out);
        f.write_str(&out)
    }
}

/// Builds a document that nobody parsed: values one after the other, containers between `open` and `close_…`.
#[derive(Default)]
pub struct DocumentBuilder {
    side: String,
    nodes: Vec<Node>,
}

impl DocumentBuilder {
    /// With room for so many nodes, and bytes of texts.
    pub fn with_capacity(nodes: usize, bytes: usize) -> Self {
        Self { side: String::with_capacity(bytes), nodes: Vec::with_capacity(nodes) }
    }
    /// How many nodes and bytes of texts there are.
    pub fn size(&self) -> (usize, usize) {
        (self.nodes.len(), self.side.len())
    }
    /// Adds `null`.
    pub fn null(&mut self) {
        self.nodes.push(Node::Null);
    }
    /// Adds a boolean.
    pub fn bool(&mut self, value: bool) {
        self.nodes.push(Node::Bool(value));
    }
    /// Adds an integer.
    pub fn int(&mut self, value: i64) {
        self.nodes.push(Node::Int(value));
    }
    /// Adds a number.
    pub fn float(&mut self, value: f64) {
        self.nodes.push(Node::Float(value));
    }
    /// Adds a text: a value, or the key of the value that follows.
    pub fn text(&mut self, value: &str) {
        let start = self.side.len() as u32;
        self.side.push_str(value);
        self.nodes.push(Node::SideText { start, len: value.len() as u32 });
    }
    /// Begins a container; what it is says the one who closes it.
    pub fn open(&mut self) -> usize {
        self.nodes.push(Node::Null);
        self.nodes.len() - 1
    }
    /// Ends a list of `len` elements that `open` began at `at`.
    pub fn close_list(&mut self, at: usize, len: u32) {
        self.nodes[at] = Node::List { len, end: self.nodes.len() as u32 };
    }
    /// Ends an object of `len` pairs that `open` began at `at`.
    pub fn close_map(&mut self, at: usize, len: u32) {
        self.nodes[at] = Node::Map { len, end: self.nodes.len() as u32 };
    }
    /// The document; one without any value is `null`.
    pub fn finish(mut self) -> Document {
        if self.nodes.is_empty() {
            self.nodes.push(Node::Null);
        }
        Document { side: self.side, nodes: self.nodes, ..Document::null() }
    }
    /// The same with its form, where that is worth keeping.
    pub fn finish_like(self, forms: &mut Forms) -> Document {
        let document = self.finish();
        Document { form: forms.of_built(&document), ..document }
    }
}

fn text(bytes: Bytes) -> Result<ByteString, DocumentError> {
    bytes.try_into().map_err(|e: Utf8Error| DocumentError::Syntax { detail: "invalid UTF-8".into(), offset: e.valid_up_to() })
}

/// An index as RFC 6901 writes it: without a sign and without leading zeros, so that a place has one name only.
fn list_index(token: &str) -> Option<usize> {
    let one_form = token == "0" || !token.starts_with(['0', '+']);
    token.parse().ok().filter(|_| one_form)
}
