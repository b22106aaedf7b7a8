//! What the catalog does not hold: each definition as it was written, and its version. A fold of the same changes.

use std::collections::BTreeMap;
use tidegate_schemas::definition::{Change, Definition, DefinitionKey};

/// All definitions by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// Version and canonical JSON: a quarter of the memory of the value, which the catalog holds besides and which only a
    /// change asks for. Removed ones stay with their version: a later one of the same key counts on from it.
    entries: BTreeMap<DefinitionKey, (u64, Option<Box<str>>)>,
}

impl Known {
    /// Applies the next change.
    pub fn apply(&mut self, change: &Change) {
        self.entries.insert(change.definition.clone(), (change.version, change.after.as_ref().map(canonical)));
    }

    /// A definition that is there.
    pub fn get(&self, key: &DefinitionKey) -> Option<Definition> {
        read(self.entries.get(key)?.1.as_ref()?)
    }

    /// Whether this very definition is there.
    pub fn holds(&self, key: &DefinitionKey, definition: &Definition) -> bool {
        self.entries.get(key).and_then(|(_, text)| text.as_deref()).is_some_and(|text| *text == *canonical(definition))
    }

    /// The newest version of a definition, 0 where there never was one.
    pub fn version(&self, key: &DefinitionKey) -> u64 {
        self.entries.get(key).map_or(0, |(version, _)| *version)
    }

    /// The keys of all definitions that are there.
    pub fn keys(&self) -> impl Iterator<Item = &DefinitionKey> {
        self.entries.iter().filter(|(_, (_, text))| text.is_some()).map(|(key, _)| key)
    }
}

/// The one form of a definition: fields in declared order, maps sorted.
fn canonical(definition: &Definition) -> Box<str> {
    // Definitions are structs and maps with text keys, which always serialise.
    serde_json::to_string(definition).unwrap_or_default().into_boxed_str()
}

fn read(text: &str) -> Option<Definition> {
    serde_json::from_str(text).ok()
}
