//! What definitions say about themselves. No label holds an id.

use super::publish::{Action, PublishedChange};
use tidegate_schemas::catalog::Catalog;

/// A newer catalog is in use.
pub(super) fn catalog(catalog: &Catalog) {
    metrics::gauge!("tidegate_catalog_revision").set(catalog.revision() as f64);
    metrics::gauge!("tidegate_catalog_definitions").set(catalog.len() as f64);
    metrics::gauge!("tidegate_quarantined_versions").set(catalog.quarantines().count() as f64);
}

/// Changes were published.
pub(super) fn published(changes: &[PublishedChange]) {
    for action in [Action::Added, Action::Changed, Action::Moved, Action::Removed] {
        let name = match action {
            Action::Added => "added",
            Action::Changed => "changed",
            Action::Moved => "moved",
            Action::Removed => "removed",
        };
        let count = changes.iter().filter(|c| c.action == action).count();
        metrics::counter!("tidegate_definition_changes_total", "action" => name).increment(count as u64);
    }
}
