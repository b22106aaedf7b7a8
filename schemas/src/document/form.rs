//! The form of documents: what is left of one where its scalars are taken out. A fleet's events differ in their scalars only, so
//! whoever has looked at the form of one knows of all others where everything stands.
//!
//! ```text
//! {"device":"dev-7","at":[12.5,3]}      a text
//! {"device":       ,"at":[    , ]}      its form: what lies between the scalars is compared, and not read again
//! ```

use super::scan::Scan;
use super::{Document, Node, Value};
use crate::limits::{DOCUMENT_FORM_NODES_MAX, DOCUMENT_FORMS_KEPT, DOCUMENT_FORMS_MADE_MAX};
use std::sync::Arc;

/// The same in two documents means that each node of one is what the node of its number is in the other, but for the values of
/// scalars.
#[derive(Debug, PartialEq)]
pub struct Form {
    /// What such a document has at each place. Names stand in `text`.
    nodes: Box<[Node]>,
    /// A document's text without its scalars.
    text: Box<str>,
    /// Where in the text a scalar is missing, in their order.
    holes: Box<[usize]>,
}

/// What stands at a place of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'f> {
    /// A scalar, the one of this number; see [`Document::scalar`].
    Scalar(usize),
    /// The name of the member whose value comes next.
    Name(&'f str),
    /// A list; its elements follow up to the place where it ends.
    List(usize),
    /// An object; its members follow up to the place where it ends.
    Map(usize),
}

/// The forms in which the documents of one source came last.
#[derive(Debug, Default)]
pub struct Forms {
    /// The one before first.
    kept: Vec<Arc<Form>>,
    made: usize,
}

/// Where a JSON pointer led: in documents of the same form it leads to the same place.
#[derive(Debug, Default)]
pub struct Lookup {
    form: Option<Arc<Form>>,
    at: Option<usize>,
}

impl Form {
    /// The form of what was scanned; none where it is too large to keep.
    fn of(document: &Document) -> Option<Self> {
        let (sent, mut nodes) = (&*document.sent, document.nodes.clone());
        if nodes.len() > DOCUMENT_FORM_NODES_MAX {
            return None;
        }
        let (mut text, mut holes) = (String::with_capacity(sent.len()), Vec::new());
        let (mut at, mut node) = (0, 0);
        while let Some(byte) = sent.as_bytes().get(at) {
            let begin = at;
            match byte {
                b'{' | b'[' => {
                    at += 1;
                    node += 1;
                }
                b'}' | b']' | b',' | b':' | b' ' | b'\n' | b'\r' | b'\t' => at += 1,
                _ => {
                    let is_name;
                    (at, is_name) = match nodes.get(node)? {
                        Node::Text { len, .. } => {
                            let end = at + *len as usize + 2;
                            (end, sent.get(end..)?.trim_ascii_start().starts_with(':'))
                        }
                        _ => (sent[at..].find(|c| matches!(c, '}' | ']' | ',' | '\0'..=' ')).map_or(sent.len(), |len| at + len), false),
                    };
                    if !is_name {
                        nodes[node] = Node::Scalar(holes.len() as u32);
                        holes.push(text.len());
                        node += 1;
                        continue;
                    }
                    nodes[node] = Node::Name { start: text.len() as u32 + 1, len: (at - begin - 2) as u32 };
                    node += 1;
                }
            }
            text.push_str(&sent[begin..at]);
        }
        Some(Self { nodes: nodes.into(), text: text.into(), holes: holes.into() })
    }

    /// The form of what was built; none where it is too large to keep. No text is read by it, and such a document keeps all of
    /// its nodes.
    fn of_built(document: &Document) -> Option<Self> {
        let nodes = &document.nodes;
        if nodes.len() > DOCUMENT_FORM_NODES_MAX {
            return None;
        }
        let mut of: Vec<Node> = (0..nodes.len() as u32).map(Node::Scalar).collect();
        let mut text = String::new();
        for (at, node) in nodes.iter().enumerate() {
            match node {
                Node::List { .. } | Node::Map { .. } => of[at] = *node,
                _ => continue,
            }
            for (at, _) in (Value { document, at }).members() {
                let name = document.text(nodes[at]);
                of[at] = Node::Name { start: text.len() as u32, len: name.len() as u32 };
                text.push_str(name);
            }
        }
        Some(Self { nodes: of.into(), text: text.into(), holes: Box::default() })
    }

    /// Whether this is the form of a document that was built.
    fn is_of(&self, document: &Document) -> bool {
        let is_alike = |(ours, theirs): (&Node, &Node)| match (ours, theirs) {
            (Node::Name { start, len }, _) => document.is(*theirs, self.name(*start, *len)),
            (Node::Scalar(_), theirs) => !matches!(theirs, Node::List { .. } | Node::Map { .. }),
            (ours, theirs) => ours == theirs,
        };
        self.nodes.len() == document.nodes.len() && self.nodes.iter().zip(&document.nodes).all(is_alike)
    }

    /// The scalars of a text that has this form; none where it has not, or where one of them is not usual.
    fn read(&self, text: &str) -> Option<Vec<Node>> {
        let mut scan = Scan::new(text);
        let (literals, mut begin) = (self.text.as_bytes(), 0);
        // No memory is taken for a text that begins otherwise.
        let mut scalars = Vec::new();
        for hole in &self.holes {
            scan.literal(&literals[begin..*hole])?;
            if scalars.is_empty() {
                scalars.reserve_exact(self.holes.len());
            }
            scalars.push(scan.scalar()?);
            begin = *hole;
        }
        scan.literal(&literals[begin..])?;
        scan.is_at_end().then_some(scalars)
    }

    /// What a document of this form keeps of the nodes that were scanned.
    pub(super) fn scalars_of(&self, nodes: &[Node]) -> Vec<Node> {
        self.nodes.iter().zip(nodes).filter(|(ours, _)| matches!(ours, Node::Scalar(_))).map(|(_, theirs)| *theirs).collect()
    }

    /// What a document of this form has at a place.
    #[inline]
    pub(super) fn node(&self, at: usize) -> Node {
        self.nodes[at]
    }

    /// A member's name.
    #[inline]
    pub(super) fn name(&self, start: u32, len: u32) -> &str {
        &self.text[start as usize..(start + len) as usize]
    }

    /// What stands at a place.
    pub fn part(&self, at: usize) -> Part<'_> {
        match self.nodes[at] {
            Node::Name { start, len } => Part::Name(self.name(start, len)),
            Node::List { end, .. } => Part::List(end as usize),
            Node::Map { end, .. } => Part::Map(end as usize),
            Node::Scalar(number) => Part::Scalar(number as usize),
            node => unreachable!("{node:?} is no part of a form"),
        }
    }

    /// The place behind what stands at a place.
    pub fn behind(&self, at: usize) -> usize {
        match self.part(at) {
            Part::List(end) | Part::Map(end) => end,
            Part::Scalar(_) | Part::Name(_) => at + 1,
        }
    }
}

impl Forms {
    /// The scalars of a text that has one of the forms met before, and that form.
    pub(super) fn read(&mut self, text: &str) -> Option<(Vec<Node>, Arc<Form>)> {
        let (at, scalars) = self.kept.iter().enumerate().find_map(|(at, form)| Some((at, form.read(text)?)))?;
        self.kept[..=at].rotate_right(1);
        Some((scalars, Arc::clone(&self.kept[0])))
    }

    /// The form of a document that was scanned and has none of those met before; none where it is not worth keeping.
    pub(super) fn add(&mut self, document: &Document) -> Option<Arc<Form>> {
        self.keep(|| Form::of(document))
    }

    /// The form of a document that was built; none where it is not worth keeping.
    pub(super) fn of_built(&mut self, document: &Document) -> Option<Arc<Form>> {
        match self.kept.iter().position(|form| form.is_of(document)) {
            Some(at) => {
                self.kept[..=at].rotate_right(1);
                self.kept.first().cloned()
            }
            None => self.keep(|| Form::of_built(document)),
        }
    }

    fn keep(&mut self, form: impl FnOnce() -> Option<Form>) -> Option<Arc<Form>> {
        // Where documents are never alike, looking for what they have in common does not pay.
        if self.made >= DOCUMENT_FORMS_MADE_MAX {
            return None;
        }
        let form = Arc::new(form()?);
        self.made += 1;
        self.kept.truncate(DOCUMENT_FORMS_KEPT - 1);
        self.kept.insert(0, Arc::clone(&form));
        Some(form)
    }
}

impl Lookup {
    /// The value at a JSON pointer, always the same one for a lookup.
    pub fn find<'d>(&mut self, document: &'d Document, pointer: &str) -> Option<Value<'d>> {
        let is_known = matches!((&self.form, document.form()), (Some(known), Some(form)) if Arc::ptr_eq(known, form));
        if !is_known {
            self.at = document.pointer(pointer).map(Value::place);
            self.form = document.form().cloned();
        }
        self.at.map(|at| document.at(at))
    }
}
