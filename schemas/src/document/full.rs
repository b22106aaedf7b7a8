//! Any JSON, by serde_json's parser: what the scanner of the usual leaves to it, and the words for what is wrong.

use super::{Document, DocumentError, Node};
use crate::limits::JSON_DEPTH_MAX;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

const DEPTH_MESSAGE: &str = "document nested too deeply";

/// The document of a text, but for the bytes, in which its texts without escapes stay.
pub(super) fn document(text: &str) -> Result<Document, DocumentError> {
    let mut document = Document { nodes: Vec::with_capacity(text.len() / 10 + 1), ..Document::null() };
    let mut parser = serde_json::Deserializer::from_str(text);
    let seed = Builder { base: text.as_ptr() as usize, document: &mut document, depth: 0 };
    if let Err(error) = seed.deserialize(&mut parser).and_then(|()| parser.end()) {
        let message = error.to_string();
        if message.starts_with(DEPTH_MESSAGE) || message.starts_with("recursion limit") {
            return Err(DocumentError::Depth);
        }
        return Err(syntax_error(text, &error));
    }
    document.nodes.shrink_to_fit();
    Ok(document)
}

/// Turns a parser's line and column into a byte offset.
fn syntax_error(text: &str, error: &serde_json::Error) -> DocumentError {
    let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let message = error.to_string();
    let detail = message.split(" at line ").next().unwrap_or_default().to_owned();
    // Column 0 means "before the first byte of the line"; at the end of input it points past the last byte.
    DocumentError::Syntax { detail, offset: (before + error.column().saturating_sub(1)).min(text.len()) }
}

struct Builder<'d> {
    base: usize,
    document: &'d mut Document,
    depth: usize,
}

impl Builder<'_> {
    fn borrowed(&mut self, text: &str) {
        let start = (text.as_ptr() as usize - self.base) as u32;
        self.document.nodes.push(Node::Text { start, len: text.len() as u32 });
    }

    fn owned(&mut self, text: &str) {
        let start = self.document.side.len() as u32;
        self.document.side.push_str(text);
        self.document.nodes.push(Node::SideText { start, len: text.len() as u32 });
    }

    fn inner(&mut self) -> Builder<'_> {
        Builder { base: self.base, document: self.document, depth: self.depth + 1 }
    }

    fn enter<E: serde::de::Error>(&mut self) -> Result<usize, E> {
        if self.depth >= JSON_DEPTH_MAX {
            return Err(E::custom(DEPTH_MESSAGE));
        }
        self.document.nodes.push(Node::Null);
        Ok(self.document.nodes.len() - 1)
    }
}

impl<'de> DeserializeSeed<'de> for Builder<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Builder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        self.document.nodes.push(Node::Null);
        Ok(())
    }
    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.document.nodes.push(Node::Bool(value));
        Ok(())
    }
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.document.nodes.push(Node::Int(value));
        Ok(())
    }
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.document.nodes.push(i64::try_from(value).map_or(Node::Uint(value), Node::Int));
        Ok(())
    }
    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.document.nodes.push(Node::Float(value));
        Ok(())
    }
    fn visit_borrowed_str<E>(mut self, value: &'de str) -> Result<(), E> {
        self.borrowed(value);
        Ok(())
    }
    fn visit_str<E>(mut self, value: &str) -> Result<(), E> {
        self.owned(value);
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let at = self.enter()?;
        let mut len = 0;
        while seq.next_element_seed(self.inner())?.is_some() {
            len += 1;
        }
        self.document.nodes[at] = Node::List { len, end: self.document.nodes.len() as u32 };
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let at = self.enter()?;
        let mut len = 0;
        while map.next_key_seed(Key(self.inner()))?.is_some() {
            map.next_value_seed(self.inner())?;
            len += 1;
        }
        self.document.nodes[at] = Node::Map { len, end: self.document.nodes.len() as u32 };
        Ok(())
    }
}

/// A key is a text and nothing else, whatever a parser would make of it.
struct Key<'d>(Builder<'d>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_str(self.0)
    }
}
