//! The contract of definition stores: one append-only, gapless sequence of changes.

use crate::BoxFuture;
use crate::definition::Change;
use crate::ids::Revision;

/// Why a store could not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Somebody else took this revision.
    #[error("revision {0} exists already: read the changes and try again")]
    Taken(Revision),
    /// The store is away or broken.
    #[error("{doing}: {detail}")]
    Unavailable {
        /// What was under way.
        doing: &'static str,
        /// What went wrong.
        detail: String,
    },
}

/// Where definitions live. Each change is one entry: change, audit record and outbox entry at once.
pub trait DefinitionStore: Send + Sync + 'static {
    /// Appends changes whose revisions follow the newest one without a gap; all or none.
    fn append(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// At most `max` changes after a revision, in order.
    fn changes(&self, after: Revision, max: usize) -> BoxFuture<'_, Result<Vec<Change>, StoreError>>;
}
