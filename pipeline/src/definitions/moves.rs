//! What moves: a comparison takes a definition from its old place and then puts it in its new one, since its place is part of its key.

use super::diff::{Refusal, RefusalCause};
use super::publish::{Action, PublishedChange};
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::definition::Change;
use tidegate_schemas::ids::{NodeId, TenantId};

/// The changes as people are told them: a move is one of them.
pub(super) fn listed(changes: &[Change]) -> Vec<PublishedChange> {
    let mut listed: Vec<PublishedChange> = Vec::with_capacity(changes.len());
    for (i, change) in changes.iter().enumerate() {
        let mut told = PublishedChange::of(change);
        if !left(changes, i).is_empty()
            && let Some(before) = listed.pop()
        {
            told.action = Action::Moved;
            told.moved_from = Some(before.definition.owner);
        }
        listed.push(told);
    }
    listed
}

/// Definitions that would go to another tenant.
pub(super) fn between_tenants(catalog: &Catalog, changes: &[Change]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    // Its new place may be among the changes.
    let mut catalog = catalog.clone();
    for (i, change) in changes.iter().enumerate() {
        let to = tenant(&catalog, change);
        let from: Vec<Option<TenantId>> = left(changes, i).iter().map(|old| tenant(&catalog, old)).collect();
        if let ([.., Some(last)], Some(to)) = (from.as_slice(), &to)
            && !from.iter().flatten().any(|from| from == to)
        {
            let cause = RefusalCause::Tenants { from: last.clone(), to: to.clone() };
            refusals.push(Refusal { definition: change.definition.clone(), cause });
        }
        // They were tried before.
        let _ = catalog.apply(change);
    }
    refusals
}

/// The removals just before a change by which its definition leaves its old places; none where it does not move.
fn left(changes: &[Change], at: usize) -> &[Change] {
    let change = &changes[at];
    if change.before.is_some() || change.after.is_none() {
        return &[];
    }
    let of = |old: &Change| {
        old.after.is_none() && (&old.definition.kind, &old.definition.id) == (&change.definition.kind, &change.definition.id)
    };
    let first = changes[..at].iter().rposition(|old| !of(old)).map_or(0, |i| i + 1);
    &changes[first..at]
}

fn tenant(catalog: &Catalog, change: &Change) -> Option<TenantId> {
    catalog.node(&NodeId::new(&change.definition.owner).ok()?)?.tenant.clone()
}
