//! From what is wanted to changes in `control`: the one way in, whether definitions come from the start of the process or
//! over the control socket.

use super::catalogs::{CatalogFollower, CatalogsError};
use super::diff::{Extent, Refusal, diff, lift};
use super::known::Known;
use super::{metrics, moves};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::definition::{Change, Definition, DefinitionKey};
use tidegate_schemas::ids::Revision;
use tidegate_schemas::store::{DefinitionStore, StoreError};
use tidegate_schemas::time::Micros;

/// Whoever else takes the next revision first is rare, and never for long.
const TRIES_MAX: usize = 5;

/// From what is published to the changes that are wanted.
type Compare = dyn Fn(&Catalog, &Known) -> Result<Vec<Change>, Vec<Refusal>> + Send + Sync;

/// Publishes definitions.
#[derive(Clone)]
pub struct Publisher {
    /// Where changes go.
    pub store: Arc<dyn DefinitionStore>,
    /// The catalog that they are changes of.
    pub follower: Arc<CatalogFollower>,
    /// When.
    pub now: fn() -> Micros,
}

/// What became of a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is new.
    Added,
    /// It is another than before.
    Changed,
    /// It stands at another node than before.
    Moved,
    /// It is gone.
    Removed,
}

/// One change of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedChange {
    /// Which definition.
    pub definition: DefinitionKey,
    /// What became of it.
    pub action: Action,
    /// The node where it stood, of one that moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<String>,
    /// Its version now.
    pub version: u64,
}

/// What was published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// The catalog's revision after it.
    pub revision: Revision,
    /// In the order in which they were published.
    pub changes: Vec<PublishedChange>,
    /// Definitions that were there as wanted.
    pub unchanged: usize,
}

/// Why nothing was published, or not all.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Definitions that cannot be published; nothing was.
    #[error("{} definitions were refused", .0.len())]
    Refused(Vec<Refusal>),
    /// The store cannot take them.
    #[error("definitions cannot be stored")]
    Store(#[from] StoreError),
    /// There is no catalog to compare with.
    #[error("the catalog cannot be built")]
    Catalog(#[from] CatalogsError),
    /// A defect.
    #[error("publishing was cut off")]
    Panicked(#[from] tokio::task::JoinError),
}

impl Publisher {
    /// Publishes what differs, and returns once the catalog has it.
    pub async fn publish(&self, wanted: Vec<Definition>, extent: Extent, actor: &str) -> Result<Published, PublishError> {
        let (at, count, name) = ((self.now)(), wanted.len(), actor.to_owned());
        let changes = move |catalog: &Catalog, known: &Known| diff(catalog, known, &wanted, extent, &name, at);
        self.publish_changes(Arc::new(changes), count, actor).await
    }

    /// Publishes a folder whole. Nothing goes to another tenant, unless that is `meant`.
    pub async fn apply(&self, wanted: Vec<Definition>, meant: bool, actor: &str) -> Result<Published, PublishError> {
        let (at, count, name) = ((self.now)(), wanted.len(), actor.to_owned());
        let changes = move |catalog: &Catalog, known: &Known| {
            let changes = diff(catalog, known, &wanted, Extent::Whole, &name, at)?;
            let refusals = if meant { Vec::new() } else { moves::between_tenants(catalog, &changes) };
            if refusals.is_empty() { Ok(changes) } else { Err(refusals) }
        };
        self.publish_changes(Arc::new(changes), count, actor).await
    }

    /// Lifts every quarantine.
    pub async fn lift_quarantines(&self, actor: &str) -> Result<Published, PublishError> {
        let (at, name) = ((self.now)(), actor.to_owned());
        self.publish_changes(Arc::new(move |catalog: &Catalog, known: &Known| lift(catalog, known, &name, at)), 0, actor).await
    }

    /// Publishes the changes that a comparison finds; `count` definitions are wanted.
    async fn publish_changes(&self, compare: Arc<Compare>, count: usize, actor: &str) -> Result<Published, PublishError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let changes = self.compare(Arc::clone(&compare)).await?;
            let listed = moves::listed(&changes);
            if !changes.is_empty() {
                match self.store.append(changes).await {
                    Err(StoreError::Taken(_)) if tries < TRIES_MAX => continue,
                    result => result?,
                }
            }
            let follower = Arc::clone(&self.follower);
            let revision = tokio::task::spawn_blocking(move || follower.catch_up()).await??;
            let put = listed.iter().filter(|c| c.action != Action::Removed).count();
            metrics::published(&listed);
            for change in &listed {
                let key = &change.definition;
                tracing::debug!(kind = key.kind, owner = key.owner, id = key.id, version = change.version, action = ?change.action, "definition");
                if let Some(from) = &change.moved_from {
                    tracing::info!(actor, kind = key.kind, id = key.id, from, to = key.owner, "definition moved");
                }
            }
            tracing::info!(actor, revision, changes = listed.len(), "definitions published");
            return Ok(Published { revision, unchanged: count.saturating_sub(put), changes: listed });
        }
    }

    async fn compare(&self, compare: Arc<Compare>) -> Result<Vec<Change>, PublishError> {
        let follower = Arc::clone(&self.follower);
        let compared = tokio::task::spawn_blocking(move || {
            follower.catch_up()?;
            Ok(follower.inspect(|catalog, known| compare(catalog, known)))
        });
        compared.await?.map_err(PublishError::Catalog)?.map_err(PublishError::Refused)
    }
}

impl PublishedChange {
    pub(super) fn of(change: &Change) -> Self {
        let action = match (&change.before, &change.after) {
            (_, None) => Action::Removed,
            (None, Some(_)) => Action::Added,
            (Some(_), Some(_)) => Action::Changed,
        };
        Self { definition: change.definition.clone(), action, moved_from: None, version: change.version }
    }
}
