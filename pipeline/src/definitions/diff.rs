//! What has to change so that the catalog holds what is wanted. Pure; every change is tried on a clone of the catalog, so
//! nothing invalid is ever published.
//!
//! Order: a definition refers to those of a lower rank only, so additions go from organizations (parents first) to keys,
//! and removals come last, the other way round. An asset or source that moves to another node leaves its old one first,
//! since the catalog holds it once in a tenant. Tables are never removed: their rows outlive them, and one that came back
//! under the same id with other columns would not fit its own files.

use super::known::Known;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_schemas::catalog::{Catalog, CatalogError};
use tidegate_schemas::definition::{Change, Definition, DefinitionKey};
use tidegate_schemas::ids::{NodeId, TenantId};
use tidegate_schemas::table::{Column, Field, Table, TableError};
use tidegate_schemas::time::Micros;

/// Whether what is not wanted goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The definitions are all that there shall be; only tables and cut parameters stay without being named.
    Whole,
    /// The definitions are added or replaced; all others stay.
    Part,
}

/// Why a definition cannot be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusalCause {
    /// The catalog refuses it.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Its columns do not fit those that the published table has.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Organizations each of which stands below the next, and the last below the first; the first is named again at the end.
    #[error("organizations stand in a circle: {}", .0.join(" below "))]
    Circle(Vec<String>),
    /// It would leave its tenant for another one.
    #[error("it would move from tenant {from} to tenant {to}; apply with --between-tenants where that is meant")]
    Tenants {
        /// Whose it is.
        from: TenantId,
        /// Whose it would be.
        to: TenantId,
    },
    /// The same key stands twice among those wanted.
    #[error("it is given twice")]
    Twice,
}

/// A definition that cannot be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which.
    pub definition: DefinitionKey,
    /// Why.
    pub cause: RefusalCause,
}

/// The changes that lead from the catalog to what is wanted; none where nothing differs.
///
/// # Errors
/// All definitions that cannot be published, without those that fail only because of another.
pub fn diff(
    catalog: &Catalog,
    known: &Known,
    wanted: &[Definition],
    extent: Extent,
    actor: &str,
    at: Micros,
) -> Result<Vec<Change>, Vec<Refusal>> {
    let wanted = keyed(known, wanted)?;
    if extent == Extent::Whole {
        // What is wanted must stand on its own, whatever is published beside it now.
        alone(&wanted)?;
    }
    let mut removed: BTreeSet<&DefinitionKey> = match extent {
        Extent::Part => BTreeSet::new(),
        Extent::Whole => known.keys().filter(|key| !stays(key) && !wanted.contains_key(*key)).collect(),
    };
    removed.extend(known.keys().filter(|key| key.kind == QUARANTINE && is_lifted(known, key, &wanted, extent)));
    let mut moved: BTreeMap<(&str, &str), Vec<&DefinitionKey>> = BTreeMap::new();
    for key in removed.iter().filter(|key| moves(key)) {
        moved.entry((&key.kind, &key.id)).or_default().push(key);
    }
    let mut trial = Trial::new(catalog.clone(), known, actor, at);
    for key in in_order(&wanted) {
        if known.holds(key, &wanted[key]) {
            continue;
        }
        for old in moved.remove(&(key.kind.as_str(), key.id.as_str())).unwrap_or_default() {
            trial.remove(old);
            removed.remove(old);
        }
        trial.put(key, &wanted[key]);
    }
    let organizations: Vec<Definition> = removed.iter().filter(|k| k.kind == ORGANIZATION).filter_map(|k| known.get(k)).collect();
    let depth = depths(organizations.iter());
    let mut removed: Vec<&DefinitionKey> = removed.into_iter().collect();
    removed.sort_by_key(|key| std::cmp::Reverse((key.rank(), depth_of(&depth, key), *key)));
    removed.into_iter().for_each(|key| trial.remove(key));
    let Trial { changes, refusals, .. } = trial;
    if refusals.is_empty() { Ok(changes) } else { Err(refusals) }
}

/// The catalog that definitions make without any other.
///
/// # Errors
/// As [`diff`].
pub fn stand_alone(wanted: &[Definition]) -> Result<Catalog, Vec<Refusal>> {
    alone(&keyed(&Known::default(), wanted)?)
}

fn alone(wanted: &Wanted<'_>) -> Result<Catalog, Vec<Refusal>> {
    let nothing = Known::default();
    let mut trial = Trial::new(Catalog::default(), &nothing, "", 0);
    for circle in circles(wanted) {
        trial.refuse_circle(circle);
    }
    for key in in_order(wanted) {
        trial.put(key, &wanted[key]);
        trial.changes.clear();
    }
    let Trial { catalog, refusals, .. } = trial;
    if refusals.is_empty() { Ok(catalog) } else { Err(refusals) }
}

/// The changes that lift every quarantine.
///
/// # Errors
/// As [`diff`].
pub fn lift(catalog: &Catalog, known: &Known, actor: &str, at: Micros) -> Result<Vec<Change>, Vec<Refusal>> {
    let mut trial = Trial::new(catalog.clone(), known, actor, at);
    known.keys().filter(|key| key.kind == QUARANTINE).for_each(|key| trial.remove(key));
    let Trial { changes, refusals, .. } = trial;
    if refusals.is_empty() { Ok(changes) } else { Err(refusals) }
}

const ORGANIZATION: &str = "organization";
const QUARANTINE: &str = "quarantine";

/// Kinds that stay when they are not named.
fn stays(key: &DefinitionKey) -> bool {
    matches!(key.kind.as_str(), "table" | "cut" | QUARANTINE)
}

/// A quarantine ends with its template version, and with its customer.
fn is_lifted(known: &Known, key: &DefinitionKey, wanted: &Wanted<'_>, extent: Extent) -> bool {
    let Some(Definition::Quarantine(quarantine)) = known.get(key) else { return false };
    let customer = DefinitionKey { kind: ORGANIZATION.into(), owner: String::new(), id: quarantine.tenant.to_string() };
    let template = wanted.get(&quarantine.template_key()).map(|d| &**d);
    match template {
        Some(Definition::Template(template)) if !quarantine.is_of(template) => true,
        None if extent == Extent::Whole => true,
        _ => extent == Extent::Whole && !wanted.contains_key(&customer),
    }
}

/// Kinds whose node is part of their key, though their id is unique in the tenant.
fn moves(key: &DefinitionKey) -> bool {
    matches!(key.kind.as_str(), "source" | "asset")
}

type Wanted<'a> = BTreeMap<DefinitionKey, Cow<'a, Definition>>;

/// What is wanted by key; a table keeps the columns that it has and gains the rest at its end.
fn keyed<'a>(known: &Known, wanted: &'a [Definition]) -> Result<Wanted<'a>, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let mut out = Wanted::new();
    for definition in wanted {
        let key = definition.key();
        let published = if let Definition::Table(_) = definition { known.get(&key) } else { None };
        let merged = match (definition, &published) {
            (Definition::Table(new), Some(Definition::Table(old))) => grown(old, new).map(|t| Cow::Owned(Definition::Table(t))),
            _ => Ok(Cow::Borrowed(definition)),
        };
        match merged {
            Err(cause) => refusals.push(Refusal { definition: key, cause: cause.into() }),
            Ok(definition) => {
                if out.insert(key.clone(), definition).is_some() {
                    refusals.push(Refusal { definition: key, cause: RefusalCause::Twice });
                }
            }
        }
    }
    if refusals.is_empty() { Ok(out) } else { Err(refusals) }
}

/// `old` with the columns of `new` that it lacks.
fn grown(old: &Table, new: &Table) -> Result<Table, TableError> {
    let field = |c: &Column| Field { name: c.name.clone(), kind: c.kind, unit: c.unit.clone(), required: false, min: None, max: None };
    old.with(&new.fields.iter().map(field).collect::<Vec<_>>())
}

/// Keys in the order in which they can be added.
fn in_order<'a>(wanted: &'a Wanted<'_>) -> Vec<&'a DefinitionKey> {
    let depth = depths(wanted.values().map(|d| &**d));
    let mut keys: Vec<_> = wanted.keys().collect();
    keys.sort_by_key(|key| (key.rank(), depth_of(&depth, key), *key));
    keys
}

fn depth_of(depths: &BTreeMap<&str, usize>, key: &DefinitionKey) -> usize {
    if key.kind == ORGANIZATION { depths.get(key.id.as_str()).copied().unwrap_or(0) } else { 0 }
}

/// Circles among organizations: each once, from its least id on and back to it.
fn circles(wanted: &Wanted<'_>) -> Vec<Vec<String>> {
    let parents: BTreeMap<&str, &str> = wanted
        .values()
        .filter_map(|d| match &**d {
            Definition::Organization(o) => Some((o.id.as_str(), o.parent.as_ref()?.as_str())),
            _ => None,
        })
        .collect();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    let mut found = Vec::new();
    for start in parents.keys().copied() {
        let mut way: Vec<&str> = Vec::new();
        let mut at = Some(start);
        while let Some(id) = at {
            if let Some(first) = way.iter().position(|w| *w == id) {
                let circle = &way[first..];
                let least = circle.iter().enumerate().min_by_key(|(_, id)| **id).map_or(0, |(i, _)| i);
                found.push(circle.iter().cycle().skip(least).take(circle.len() + 1).map(|id| (*id).to_owned()).collect());
                break;
            }
            if !known.insert(id) {
                break;
            }
            way.push(id);
            at = parents.get(id).copied();
        }
    }
    found
}

/// How many organizations stand above each; those in a circle count as deep as the walk goes.
fn depths<'a>(definitions: impl Iterator<Item = &'a Definition>) -> BTreeMap<&'a str, usize> {
    let parents: BTreeMap<&str, Option<&NodeId>> = definitions
        .filter_map(|d| match d {
            Definition::Organization(o) => Some((o.id.as_str(), o.parent.as_ref())),
            _ => None,
        })
        .collect();
    let depth = |id: &str| {
        let above = std::iter::successors(parents.get(id).copied().flatten(), |up| parents.get(up.as_str()).copied().flatten());
        above.take(tidegate_schemas::limits::TREE_DEPTH_MAX + 1).count()
    };
    parents.keys().map(|id| (*id, depth(id))).collect()
}

/// A catalog on which changes are tried.
struct Trial<'a> {
    catalog: Catalog,
    known: &'a Known,
    changes: Vec<Change>,
    refusals: Vec<Refusal>,
    /// What a later definition may miss because of an earlier refusal, as the catalog words it.
    absent: BTreeSet<String>,
    actor: &'a str,
    at: Micros,
}

impl<'a> Trial<'a> {
    fn new(catalog: Catalog, known: &'a Known, actor: &'a str, at: Micros) -> Self {
        Self { catalog, known, changes: Vec::new(), refusals: Vec::new(), absent: BTreeSet::new(), actor, at }
    }

    /// Refuses the organizations of a circle, in one message at the first of them.
    fn refuse_circle(&mut self, circle: Vec<String>) {
        let Some(first) = circle.first() else { return };
        let definition = DefinitionKey { kind: ORGANIZATION.into(), owner: String::new(), id: first.clone() };
        self.absent.extend(circle.iter().map(|id| format!("{ORGANIZATION} {id}")));
        self.refusals.push(Refusal { definition, cause: RefusalCause::Circle(circle) });
    }

    fn put(&mut self, key: &DefinitionKey, definition: &Definition) {
        if key.kind == ORGANIZATION && self.absent.contains(&words(definition)) {
            return;
        }
        if !self.step(key, Some(definition.clone())) {
            self.absent.insert(words(definition));
        }
    }

    fn remove(&mut self, key: &DefinitionKey) {
        self.step(key, None);
    }

    fn step(&mut self, key: &DefinitionKey, after: Option<Definition>) -> bool {
        let change = Change {
            revision: self.catalog.revision() + 1,
            definition: key.clone(),
            version: self.known.version(key) + 1,
            actor: self.actor.to_owned(),
            at: self.at,
            before: self.known.get(key),
            after,
        };
        match self.catalog.apply(&change) {
            Ok(()) => {
                self.changes.push(change);
                true
            }
            Err(CatalogError::Missing { missing, .. }) if self.is_absent(&missing) => false,
            Err(CatalogError::Elsewhere { .. })
                if change.after.as_ref().and_then(template_of).is_some_and(|name| self.is_absent(&format!("template {name}"))) =>
            {
                false
            }
            Err(cause) => {
                self.refusals.push(Refusal { definition: key.clone(), cause: cause.into() });
                false
            }
        }
    }

    fn is_absent(&self, missing: &str) -> bool {
        // A key misses "source x of tenant".
        self.absent.contains(missing) || missing.split_once(" of ").is_some_and(|(start, _)| self.absent.contains(start))
    }
}

/// The template that a definition names.
fn template_of(definition: &Definition) -> Option<&str> {
    match definition {
        Definition::Source(source) => source.template.as_deref(),
        Definition::Asset(asset) => asset.template.as_deref(),
        _ => None,
    }
}

/// How the catalog names a definition that it misses.
fn words(definition: &Definition) -> String {
    match definition {
        Definition::Table(d) => format!("table {}", d.id),
        other => {
            let key = other.key();
            format!("{} {}", key.kind, key.id)
        }
    }
}
