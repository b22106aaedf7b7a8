//! Many JSON pointers into one document, found in one walk over it.

use crate::event::Event;
use hashbrown::HashMap;
use std::sync::Arc;
use tidegate_schemas::definition::{Decode, Template};
use tidegate_schemas::document::{Document, Form, Kind, Value};
use tidegate_schemas::limits::DOCUMENT_FORMS_KEPT;

/// Pointers as a tree of their steps.
#[derive(Debug, Default)]
pub(crate) struct Places {
    root: Step,
    len: usize,
    /// Forms of the documents before, and where their values stood: in another of this form they stand there again.
    before: Vec<(Arc<Form>, Vec<Option<usize>>)>,
}

#[derive(Debug, Default)]
struct Step {
    /// Which pointers end here.
    ends: Vec<usize>,
    /// Members by name, in the order in which they were added: most documents have them in the same.
    next: Vec<(Box<str>, Step)>,
    by_name: HashMap<Box<str>, usize>,
}

impl Places {
    /// Adds a pointer; the number under which its value is found.
    pub(crate) fn add(&mut self, pointer: &str) -> usize {
        let mut step = &mut self.root;
        // What is no pointer is found nowhere, as with `Value::pointer`.
        let steps: Option<Vec<String>> = match pointer {
            "" => Some(Vec::new()),
            _ => pointer.strip_prefix('/').map(|p| p.split('/').map(|s| s.replace("~1", "/").replace("~0", "~")).collect()),
        };
        let number = self.len;
        self.len += 1;
        if let Some(steps) = steps {
            for name in steps {
                step = step.member(name.into());
            }
            step.ends.push(number);
        }
        number
    }

    /// How many pointers there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Looks for all of them, in the order in which they were added. Where a key occurs twice, the last one counts.
    pub(crate) fn find<'v>(&mut self, document: &'v Document) -> Vec<Option<Value<'v>>> {
        let Some(form) = document.form() else { return self.look(document) };
        if let Some((_, places)) = self.before.iter().find(|(before, _)| Arc::ptr_eq(before, form)) {
            return places.iter().map(|place| place.map(|place| document.at(place))).collect();
        }
        let found = self.look(document);
        self.before.truncate(DOCUMENT_FORMS_KEPT - 1);
        self.before.insert(0, (Arc::clone(form), found.iter().map(|value| value.map(Value::place)).collect()));
        found
    }

    fn look<'v>(&self, document: &'v Document) -> Vec<Option<Value<'v>>> {
        let mut found = vec![None; self.len];
        self.root.find(document.root(), &mut found);
        found
    }
}

impl Step {
    fn member(&mut self, name: Box<str>) -> &mut Self {
        let at = *self.by_name.entry(name.clone()).or_insert(self.next.len());
        if at == self.next.len() {
            self.next.push((name, Self::default()));
        }
        &mut self.next[at].1
    }

    fn find<'v>(&self, value: Value<'v>, found: &mut [Option<Value<'v>>]) {
        self.ends.iter().for_each(|n| found[*n] = Some(value));
        if self.next.is_empty() {
            return;
        }
        match value.kind() {
            Kind::Map(_) => {
                let mut expected = 0;
                for (key, value) in value.pairs() {
                    let at = match self.next.get(expected) {
                        Some((name, _)) if **name == *key => Some(expected),
                        _ => self.by_name.get(key).copied(),
                    };
                    if let Some(at) = at {
                        let step = &self.next[at].1;
                        step.forget(found);
                        step.find(value, found);
                        expected = at + 1;
                    }
                }
            }
            Kind::List(_) => {
                for (index, step) in &self.next {
                    if let Some(value) = index.parse().ok().and_then(|i| value.elements().nth(i)) {
                        step.find(value, found);
                    }
                }
            }
            _ => {}
        }
    }

    /// A later member of the same name replaces the earlier one with everything below it.
    fn forget(&self, found: &mut [Option<Value<'_>>]) {
        self.ends.iter().for_each(|n| found[*n] = None);
        self.next.iter().for_each(|(_, s)| s.forget(found));
    }
}

/// Places of a document and of what was decoded from it (`/decoded/…`), in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Both {
    sent: Places,
    decoded: Places,
    /// Whether the number is one of `decoded`, and which.
    order: Vec<(bool, usize)>,
    /// Without a decoder, `decoded` is a member like any other.
    decodes: bool,
}

impl Both {
    /// No places yet.
    pub(crate) fn new(template: &Template) -> Self {
        Self { decodes: matches!(template.decode, Some(Decode::Script(_))), ..Self::default() }
    }

    /// Adds a pointer.
    pub(crate) fn add(&mut self, pointer: &str) {
        let below = pointer.strip_prefix("/decoded").filter(|rest| self.decodes && (rest.is_empty() || rest.starts_with('/')));
        self.order.push(match below {
            Some(rest) => (true, self.decoded.add(rest)),
            None => (false, self.sent.add(pointer)),
        });
    }

    /// The values in the order of the pointers.
    pub(crate) fn find<'v>(&mut self, event: &'v Event) -> Vec<Option<Value<'v>>> {
        let sent = if self.sent.len() == 0 { Vec::new() } else { self.sent.find(&event.document) };
        if self.decoded.len() == 0 {
            return sent;
        }
        let Some(document) = &event.decoded else {
            return self.order.iter().map(|(decoded, n)| if *decoded { None } else { sent[*n] }).collect();
        };
        let decoded = self.decoded.find(document);
        self.order.iter().map(|(below, n)| if *below { decoded[*n] } else { sent[*n] }).collect()
    }
}
