//! The catalog: all definitions as of one revision, resolved and immutable. Ingest and workers build it from `control`
//! alone, by folding [`Change`]s.
//!
//! A change that refers to something absent is refused here, so nothing downstream checks a reference again.

use crate::definition::*;
use crate::ids::{CredentialId, NodeId, Revision, SourceId, TableId, TemplateId, TenantId};
use crate::limits::{CATALOG_DEFINITIONS_MAX, TREE_DEPTH_MAX};
use crate::sink::CutParameters;
use crate::table::{Table, TableError};
use crate::time::Micros;
use hashbrown::HashMap;
use std::sync::Arc;

/// A node with what follows from its place in the tree.
#[derive(Debug, Clone)]
pub struct Node {
    /// The definition.
    pub organization: Organization,
    /// Ids from the root to the node, joined by `/`.
    pub path: Arc<str>,
    /// The customer at or above it; none for vendors.
    pub tenant: Option<TenantId>,
    /// The node and all above it, from the node up.
    pub ancestors: Vec<NodeId>,
}

/// A template version, resolved.
#[derive(Debug)]
pub struct PinnedTemplate {
    /// The definition.
    pub template: Template,
    /// SHA-256 of its canonical form.
    pub version: String,
    /// `id@` and the first twelve digits of the version: as rows carry it.
    pub label: Arc<str>,
}

/// A source, resolved.
#[derive(Debug)]
pub struct PinnedSource {
    /// The definition.
    pub source: Source,
    /// The tenant of its node.
    pub tenant: TenantId,
    /// Path of its node.
    pub path: Arc<str>,
}

/// An asset, resolved.
#[derive(Debug, PartialEq)]
pub struct PinnedAsset {
    /// The definition.
    pub asset: Asset,
    /// Path of its node.
    pub path: Arc<str>,
}

/// All definitions as of one revision.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    revision: Revision,
    nodes: HashMap<NodeId, Arc<Node>>,
    tables: HashMap<TableId, Arc<Table>>,
    templates: HashMap<(NodeId, TemplateId), Arc<PinnedTemplate>>,
    sources: HashMap<(TenantId, SourceId), Arc<PinnedSource>>,
    assets: HashMap<TenantId, HashMap<String, Arc<PinnedAsset>>>,
    assets_count: usize,
    keys: HashMap<CredentialId, Arc<ApiKey>>,
    quarantines: HashMap<TenantId, HashMap<String, Arc<Quarantine>>>,
    cut: CutParameters,
    /// Those in effect before, up to the edge that came next when they were changed.
    cut_before: Option<(CutParameters, Micros)>,
}

/// Owners of a template that is named from elsewhere which are told.
const OWNERS_TOLD: usize = 3;

/// Why a change cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// Revisions are gapless.
    #[error("revision {found} follows {newest}: one is missing or repeated")]
    Gap {
        /// The newest applied.
        newest: Revision,
        /// The one offered.
        found: Revision,
    },
    /// It refers to something that is not there, or belongs to somebody else.
    #[error("{what} refers to {missing}, which is not there")]
    Missing {
        /// The definition.
        what: String,
        /// What it refers to.
        missing: String,
    },
    /// It names a template that stands where its node does not look.
    #[error("{what} names template {places}")]
    Elsewhere {
        /// The definition.
        what: String,
        /// The template, where it stands, and where it is looked for.
        places: String,
    },
    /// It breaks a rule.
    #[error("{what}: {detail}")]
    Invalid {
        /// The definition.
        what: String,
        /// The rule.
        detail: String,
    },
    /// Its fields do not fit its table.
    #[error("template {template}: {cause}")]
    Table {
        /// The template.
        template: String,
        /// The reason.
        #[source]
        cause: TableError,
    },
}

impl Catalog {
    /// As of which change.
    pub fn revision(&self) -> Revision {
        self.revision
    }
    /// How sinks cut.
    pub fn cut(&self) -> CutParameters {
        self.cut
    }
    /// A node.
    pub fn node(&self, id: &NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(id)
    }
    /// A table by its opaque id.
    pub fn table(&self, id: &TableId) -> Option<&Arc<Table>> {
        self.tables.get(id)
    }
    /// All tables.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values()
    }
    /// All tenants' nodes.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values().filter(|n| n.organization.kind == NodeKind::Customer)
    }
    /// All templates.
    pub fn templates(&self) -> impl Iterator<Item = &Arc<PinnedTemplate>> {
        self.templates.values()
    }
    /// A tenant's source.
    pub fn source(&self, tenant: &TenantId, source: &SourceId) -> Option<&Arc<PinnedSource>> {
        self.sources.get(&(tenant.clone(), source.clone()))
    }
    /// A tenant's asset.
    pub fn asset(&self, tenant: &TenantId, asset: &str) -> Option<&Arc<PinnedAsset>> {
        self.assets.get(tenant)?.get(asset)
    }
    /// An API key by its public id.
    pub fn key(&self, id: &str) -> Option<&Arc<ApiKey>> {
        self.keys.get(id)
    }
    /// Why a tenant's events may not run a template version, where that is so.
    pub fn quarantine(&self, tenant: &TenantId, version: &str) -> Option<&Arc<Quarantine>> {
        self.quarantines.get(tenant)?.get(version)
    }
    /// All quarantines.
    pub fn quarantines(&self) -> impl Iterator<Item = &Arc<Quarantine>> {
        self.quarantines.values().flat_map(HashMap::values)
    }
    /// The template that `name` means at a node: the node's own, else the nearest above.
    pub fn template(&self, node: &NodeId, name: &str) -> Option<&Arc<PinnedTemplate>> {
        let name = TemplateId::new(name).ok()?;
        self.nodes.get(node)?.ancestors.iter().find_map(|n| self.templates.get(&(n.clone(), name.clone())))
    }
    /// How many definitions there are.
    pub fn len(&self) -> usize {
        let rest = self.assets_count + self.keys.len() + self.quarantines().count();
        self.nodes.len() + self.tables.len() + self.templates.len() + self.sources.len() + rest
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Applies the next change.
    pub fn apply(&mut self, change: &Change) -> Result<(), CatalogError> {
        if change.revision != self.revision + 1 {
            return Err(CatalogError::Gap { newest: self.revision, found: change.revision });
        }
        let cut = self.cut;
        match (&change.after, &change.before) {
            (Some(after), before) => {
                if before.is_none() && self.len() >= CATALOG_DEFINITIONS_MAX {
                    return Err(invalid(after, format!("the catalog holds {CATALOG_DEFINITIONS_MAX} definitions, which is its bound")));
                }
                self.put(after)?;
            }
            (None, Some(before)) => self.remove(before)?,
            (None, None) => {}
        }
        // Nothing was cut before the first change.
        if self.cut != cut && self.revision > 0 {
            let held = self.cut_before.filter(|(_, until)| change.at < *until).map_or(cut, |(before, _)| before);
            self.cut_before = Some((held, held.next_edge(change.at)));
        }
        self.revision = change.revision;
        Ok(())
    }

    /// The recorded time by which sinks close what they take in at this one. They may close it before; changed parameters hold
    /// from their next edge on.
    pub fn closed_by(&self, at: Micros) -> Micros {
        let edge = self.cut.next_edge(at);
        self.cut_before.filter(|(_, until)| at < *until).map_or(edge, |(before, _)| edge.max(before.next_edge(at)))
    }

    fn put(&mut self, definition: &Definition) -> Result<(), CatalogError> {
        match definition {
            Definition::Organization(d) => {
                let node = self.placed(d)?;
                if let Some(old) = self.nodes.get(&d.id)
                    && (old.path != node.path || old.organization.kind != d.kind)
                {
                    return Err(invalid(definition, "a node keeps its kind and its place: make a new one".into()));
                }
                self.nodes.insert(d.id.clone(), Arc::new(node));
            }
            Definition::Table(d) => {
                self.node_of(definition, &d.owner)?;
                if let Some(old) = self.tables.get(&d.id) {
                    let kept = old.owner == d.owner && old.name == d.name && d.fields.starts_with(&old.fields);
                    if !kept {
                        return Err(invalid(definition, "a table may only gain fields at its end".into()));
                    }
                }
                self.tables.insert(d.id.clone(), Arc::new(d.clone()));
            }
            Definition::Template(d) => self.put_template(definition, d)?,
            Definition::Source(d) => {
                let node = self.node_of(definition, &d.node)?;
                let tenant =
                    node.tenant.clone().ok_or_else(|| invalid(definition, "a source belongs to a customer or a node below one".into()))?;
                let key = (tenant.clone(), d.id.clone());
                if self.sources.get(&key).is_some_and(|old| old.source.node != d.node) {
                    return Err(invalid(definition, "another node of this customer has a source of this id".into()));
                }
                self.names_template(definition, &node, d.template.as_deref())?;
                self.sources.insert(key, Arc::new(PinnedSource { source: (**d).clone(), tenant, path: Arc::clone(&node.path) }));
            }
            Definition::Asset(d) => {
                let node = self.node_of(definition, &d.node)?;
                let tenant =
                    node.tenant.clone().ok_or_else(|| invalid(definition, "an asset belongs to a customer or a node below one".into()))?;
                self.names_template(definition, &node, d.template.as_deref())?;
                let assets = self.assets.entry(tenant).or_default();
                if assets.get(&d.id).is_some_and(|old| old.asset.node != d.node) {
                    return Err(invalid(definition, "another node of this customer has an asset of this id".into()));
                }
                let pinned = PinnedAsset { asset: d.clone(), path: Arc::clone(&node.path) };
                self.assets_count += usize::from(assets.insert(d.id.clone(), Arc::new(pinned)).is_none());
            }
            Definition::Key(d) => {
                if self.source(&d.tenant, &d.source).is_none() {
                    return Err(missing(definition, format!("source {} of {}", d.source, d.tenant)));
                }
                if !d.id.as_str().bytes().all(|b| b.is_ascii_alphanumeric()) || hex::decode(&d.sha256).map_or(0, |h| h.len()) != 32 {
                    return Err(invalid(definition, "a key has an id of letters and digits, and the SHA-256 of its secret in hex".into()));
                }
                if self.keys.get(&d.id).is_some_and(|old| old.tenant != d.tenant) {
                    return Err(invalid(definition, "another customer has a key of this id".into()));
                }
                self.keys.insert(d.id.clone(), Arc::new(d.clone()));
            }
            Definition::Cut(d) => {
                if d.edge_seconds == 0 || d.edge_bytes == 0 || d.rows_max == 0 || d.bytes_max == 0 || d.open_bytes_max == 0 {
                    return Err(invalid(definition, "edge_seconds, edge_bytes, rows_max, bytes_max and open_bytes_max are above 0".into()));
                }
                self.cut = *d;
            }
            Definition::Quarantine(d) => {
                let node = NodeId::new(d.tenant.as_str()).ok().and_then(|id| self.nodes.get(&id));
                if node.is_none_or(|n| n.organization.kind != NodeKind::Customer) {
                    return Err(missing(definition, format!("organization {}", d.tenant)));
                }
                if self.templates.get(&(d.owner.clone(), d.template.clone())).is_none_or(|t| t.version != d.version) {
                    return Err(missing(definition, format!("this version of template {}", d.template)));
                }
                self.quarantines.entry(d.tenant.clone()).or_default().insert(d.version.clone(), Arc::new(d.clone()));
            }
        }
        Ok(())
    }

    /// Whether the template that a source or an asset of a node names is found from there.
    fn names_template(&self, definition: &Definition, node: &Node, name: Option<&str>) -> Result<(), CatalogError> {
        let id = &node.organization.id;
        let Some(name) = name.filter(|name| self.template(id, name).is_none()) else { return Ok(()) };
        let mut owners: Vec<String> = self.templates.keys().filter(|(_, id)| id.as_str() == name).map(|(owner, _)| place(owner)).collect();
        if owners.is_empty() {
            return Err(missing(definition, format!("template {name}")));
        }
        owners.sort();
        if let Some(more) = owners.len().checked_sub(OWNERS_TOLD).filter(|more| *more > 0) {
            owners.truncate(OWNERS_TOLD);
            owners.push(format!("{more} more"));
        }
        let (owners, above) = (owners.join(" and "), node.ancestors.iter().map(place).collect::<Vec<_>>().join(", "));
        let places = format!("{name}, which is not there for {id}: it stands below {owners}, and {id} finds those below {above}");
        Err(CatalogError::Elsewhere { what: what(definition), places })
    }

    fn put_template(&mut self, definition: &Definition, d: &Template) -> Result<(), CatalogError> {
        let node = self.node_of(definition, &d.owner)?;
        let table = self.tables.get(&d.table).ok_or_else(|| missing(definition, format!("table {}", d.table)))?;
        if !node.ancestors.contains(&table.owner) {
            return Err(missing(definition, format!("table {}", d.table)));
        }
        let widened = table.with(&d.fields).map_err(|cause| CatalogError::Table { template: d.id.to_string(), cause })?;
        if widened.fields != table.fields {
            return Err(invalid(definition, format!("table {} lacks some of its fields: the table is published first", table.name)));
        }
        let version = d.version();
        let label = format!("{}@{}", d.id, &version[..12]).into();
        self.templates.insert((d.owner.clone(), d.id.clone()), Arc::new(PinnedTemplate { template: d.clone(), version, label }));
        Ok(())
    }

    fn remove(&mut self, definition: &Definition) -> Result<(), CatalogError> {
        match definition {
            Definition::Organization(d) => {
                if self.nodes.values().any(|n| n.organization.parent.as_ref() == Some(&d.id)) {
                    return Err(invalid(definition, "nodes below it are still there".into()));
                }
                self.nodes.remove(&d.id);
            }
            // Rows of a table outlive its definition; blocks of epochs under way still need its schema.
            Definition::Table(d) => {
                if self.templates.values().any(|t| t.template.table == d.id) {
                    return Err(invalid(definition, "templates that fill it are still there".into()));
                }
                self.tables.remove(&d.id);
            }
            Definition::Template(d) => {
                self.templates.remove(&(d.owner.clone(), d.id.clone()));
            }
            Definition::Source(d) => {
                if let Some(tenant) = self.nodes.get(&d.node).and_then(|n| n.tenant.clone()) {
                    self.sources.remove(&(tenant, d.id.clone()));
                }
            }
            Definition::Asset(d) => {
                let tenant = self.nodes.get(&d.node).and_then(|n| n.tenant.clone());
                if let Some(assets) = tenant.and_then(|t| self.assets.get_mut(&t)) {
                    self.assets_count -= usize::from(assets.remove(&d.id).is_some());
                }
            }
            Definition::Key(d) => {
                self.keys.remove(&d.id);
            }
            Definition::Cut(_) => self.cut = CutParameters::default(),
            Definition::Quarantine(d) => {
                if let Some(of) = self.quarantines.get_mut(&d.tenant) {
                    of.remove(&d.version);
                }
            }
        }
        Ok(())
    }

    fn node_of(&self, definition: &Definition, id: &NodeId) -> Result<Arc<Node>, CatalogError> {
        self.nodes.get(id).cloned().ok_or_else(|| missing(definition, format!("organization {id}")))
    }

    fn placed(&self, d: &Organization) -> Result<Node, CatalogError> {
        let definition = Definition::Organization(d.clone());
        let Some(parent) = &d.parent else {
            if d.kind != NodeKind::Vendor {
                return Err(invalid(&definition, "only a vendor has no parent".into()));
            }
            return Ok(Node { organization: d.clone(), path: d.id.as_str().into(), tenant: None, ancestors: vec![d.id.clone()] });
        };
        let above = self.node_of(&definition, parent)?;
        if above.organization.kind >= d.kind {
            return Err(invalid(&definition, format!("a {:?} cannot stand below a {:?}", d.kind, above.organization.kind).to_lowercase()));
        }
        if above.tenant.is_none() && d.kind != NodeKind::Customer {
            return Err(invalid(&definition, "directly below a vendor stand customers".into()));
        }
        if above.ancestors.len() >= TREE_DEPTH_MAX {
            return Err(invalid(&definition, format!("the tree is at most {TREE_DEPTH_MAX} levels deep")));
        }
        let tenant = match d.kind {
            NodeKind::Customer => TenantId::new(d.id.as_str()).ok(),
            _ => above.tenant.clone(),
        };
        let ancestors = std::iter::once(d.id.clone()).chain(above.ancestors.iter().cloned()).collect();
        Ok(Node { organization: d.clone(), path: format!("{}/{}", above.path, d.id).into(), tenant, ancestors })
    }
}

/// Where an owner's templates lie in a folder of definitions.
fn place(owner: &NodeId) -> String {
    format!("templates/{owner}")
}

fn what(definition: &Definition) -> String {
    let key = definition.key();
    format!("{} {}", key.kind, key.id)
}

fn missing(definition: &Definition, missing: String) -> CatalogError {
    CatalogError::Missing { what: what(definition), missing }
}

fn invalid(definition: &Definition, detail: String) -> CatalogError {
    CatalogError::Invalid { what: what(definition), detail }
}
