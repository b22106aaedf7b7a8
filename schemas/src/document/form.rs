//! The form of documents: what is left of one where its scalars are taken out. A fleet's events differ in their scalars only, so
//! whoever has looked at the form of one knows of all others where everything stands.

use super::{Document, Node, Value};
use crate::limits::{DOCUMENT_FORM_NODES_MAX, DOCUMENT_FORMS_KEPT, DOCUMENT_FORMS_MADE_MAX};
use std::sync::Arc;

/// Where containers begin and end, and the names of members: the same in two documents means that each node of one is what
/// the node of its number is in the other, but for the values of scalars.
#[derive(Debug, PartialEq, Eq)]
pub struct Form {
    steps: Box<[Step]>,
    /// One behind the other, each with what follows it in JSON without spaces: a quote and a colon.
    names: Box<[u8]>,
    containers: usize,
}

/// A node of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Scalar,
    /// Of a member; its value is the next node. `word` is how it begins, compared where `mask` is set.
    Name {
        start: u32,
        len: u32,
        word: u64,
        mask: u64,
    },
    /// It ends before this place. How many elements it has follows from where those end that are in it.
    List(u32),
    Map(u32),
}

/// What stands at a place of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'f> {
    /// A scalar.
    Scalar,
    /// The name of the member whose value comes next.
    Name(&'f [u8]),
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
        let nodes = &document.nodes;
        if nodes.len() > DOCUMENT_FORM_NODES_MAX {
            return None;
        }
        let (mut steps, mut names, mut containers) = (vec![Step::Scalar; nodes.len()], Vec::new(), 0);
        for (at, node) in nodes.iter().enumerate() {
            match *node {
                Node::List { end, .. } => steps[at] = Step::List(end),
                Node::Map { end, .. } => {
                    steps[at] = Step::Map(end);
                    for (at, _) in (Value { document, at }).members() {
                        let (start, name) = (names.len(), document.raw(nodes[at]));
                        names.extend_from_slice(name);
                        names.extend_from_slice(b"\":");
                        let (mut word, mut mask) = ([0; 8], [0; 8]);
                        for (i, byte) in names[start..].iter().enumerate().take(8) {
                            (word[i], mask[i]) = (*byte, u8::MAX);
                        }
                        let (word, mask) = (u64::from_ne_bytes(word), u64::from_ne_bytes(mask));
                        steps[at] = Step::Name { start: start as u32, len: name.len() as u32, word, mask };
                    }
                }
                _ => continue,
            }
            containers += 1;
        }
        Some(Self { steps: steps.into(), names: names.into(), containers })
    }

    /// What stands at a place.
    pub fn part(&self, at: usize) -> Part<'_> {
        match self.steps.get(at) {
            Some(Step::Name { start, len, .. }) => Part::Name(&self.names[*start as usize..(*start + *len) as usize]),
            Some(Step::List(end)) => Part::List(*end as usize),
            Some(Step::Map(end)) => Part::Map(*end as usize),
            Some(Step::Scalar) | None => Part::Scalar,
        }
    }

    /// The place behind what stands at a place.
    pub fn behind(&self, at: usize) -> usize {
        match self.part(at) {
            Part::List(end) | Part::Map(end) => end,
            Part::Scalar | Part::Name(_) => at + 1,
        }
    }

    /// The length of the name at a place, where a text goes on with it, a quote and a colon. Most names are short: compared as
    /// one word they take no call.
    #[inline]
    pub(super) fn name_at(&self, at: usize, text: &[u8]) -> Option<usize> {
        let Some(Step::Name { start, len, word, mask }) = self.steps.get(at) else { return None };
        let (start, len) = (*start as usize, *len as usize);
        let begins = text.first_chunk().is_none_or(|begin| (u64::from_ne_bytes(*begin) ^ word) & mask == 0);
        let is_short = len + 2 <= 8 && text.len() >= 8;
        (begins && (is_short || text.starts_with(self.names.get(start..start + len + 2)?))).then_some(len)
    }

    /// Whether this is the name at a place.
    pub(super) fn is_name(&self, at: usize, name: &[u8]) -> bool {
        matches!(self.part(at), Part::Name(known) if known == name)
    }

    /// Whether this is the container that stands at a place.
    pub(super) fn has(&self, at: usize, container: Node) -> bool {
        match (self.steps.get(at), container) {
            (Some(Step::List(ours)), Node::List { end, .. }) | (Some(Step::Map(ours)), Node::Map { end, .. }) => *ours == end,
            _ => false,
        }
    }

    /// Whether a document with so many nodes and containers, all of which are in their places, has this form.
    pub(super) fn is_whole(&self, nodes: usize, containers: usize) -> bool {
        nodes == self.steps.len() && containers == self.containers
    }
}

impl Forms {
    /// The form that the next document probably has.
    pub(super) fn expected(&self) -> Option<&Arc<Form>> {
        self.kept.first()
    }

    /// The form of a document that has not the expected one; none where it is not worth keeping.
    pub(super) fn find(&mut self, document: &Document) -> Option<Arc<Form>> {
        if self.made >= DOCUMENT_FORMS_MADE_MAX {
            return None;
        }
        let form = Form::of(document)?;
        match self.kept.iter().position(|known| **known == form) {
            Some(at) => self.kept[..=at].rotate_right(1),
            None => {
                // Where documents are never alike, looking for what they have in common does not pay.
                self.made += 1;
                self.kept.truncate(DOCUMENT_FORMS_KEPT - 1);
                self.kept.insert(0, Arc::new(form));
            }
        }
        self.kept.first().cloned()
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
