//! What the catalog does not hold: each definition as it was written, and its version. A fold of the same changes.

use std::collections::BTreeMap;
use tidegate_schemas::definition::{Change, Definition, DefinitionKey};

/// All definitions by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// Removed ones stay with their version: a later one of the same key counts on from it.
    entries: BTreeMap<DefinitionKey, (u64, Option<Definition>)>,
}

impl Known {
    /// Applies the next change.
    pub fn apply(&mut self, change: &Change) {
        self.entries.insert(change.definition.clone(), (change.version, change.after.clone()));
    }

    /// A definition that is there.
    pub fn get(&self, key: &DefinitionKey) -> Option<&Definition> {
        self.entries.get(key)?.1.as_ref()
    }

    /// The newest version of a definition, 0 where there never was one.
    pub fn version(&self, key: &DefinitionKey) -> u64 {
        self.entries.get(key).map_or(0, |(version, _)| *version)
    }

    /// All definitions that are there.
    pub fn iter(&self) -> impl Iterator<Item = (&DefinitionKey, &Definition)> {
        self.entries.iter().filter_map(|(key, (_, definition))| Some((key, definition.as_ref()?)))
    }
}
