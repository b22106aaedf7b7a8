//! Definitions: everything that admins and data engineers decide. Each is immutable in a version; a [`Change`] replaces
//! one by another, and the catalog is the fold of all changes.

mod chain;
mod quarantine;
mod template;

pub use chain::{Chain, ChangeId};
pub use quarantine::Quarantine;
pub use template::*;

use crate::ids::{CredentialId, NodeId, Revision, SourceId, TenantId};
use crate::log::{Header, Record};
use crate::sink::CutParameters;
use crate::table::Table;
use crate::time::Micros;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Kinds of organizations, from the root down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// Owns templates that its customers may use.
    Vendor,
    /// A tenant, with everything under it.
    Customer,
    /// Below a customer.
    Site,
    /// Below a site.
    Building,
    /// Below a building.
    Floor,
    /// Below a floor.
    Zone,
}

/// A node of the organization tree. Ids are unique over all vendors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Organization {
    /// The node.
    pub id: NodeId,
    /// What it is.
    pub kind: NodeKind,
    /// For people.
    pub name: String,
    /// The node above; none for a vendor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<NodeId>,
}

/// Where a value of an event is found without a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// RFC 6901 JSON pointer into the event.
    Pointer(String),
    /// Request header, for all events of the request.
    Header(String),
    /// Query parameter of the request's URL.
    Query(String),
    /// The one asset that the credential is bound to.
    Credential,
    /// Always this.
    Fixed(String),
}

/// Where events come in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Unique within the tenant.
    pub id: SourceId,
    /// What it belongs to.
    pub node: NodeId,
    /// Template of events whose asset names none; looked up at the source's node and above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Where an event names its template, before asset and source are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_at: Option<Place>,
    /// Where the asset's id is.
    pub asset: Place,
    /// Where the sender's event id is; without it, `Idempotency-Key` or receipt and index make one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Place>,
    /// Where the device's own time is, for rows whose transform returns none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<Place>,
    /// Where the event's type is, for rows whose transform returns none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<Place>,
    /// Request headers that scripts may read in `meta`, lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub meta: Vec<String>,
}

/// A thing that sends events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asset {
    /// As events carry it; unique within the tenant.
    pub id: String,
    /// Where it stands.
    pub node: NodeId,
    /// Its template, before the source's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// What scripts may know of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// An API key. Its secret is nowhere: only a hash of it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// The public part: `tg_<id>_<secret><checksum>`. Letters and digits only.
    pub id: CredentialId,
    /// The tenant's source that it opens.
    pub tenant: TenantId,
    /// The source.
    pub source: SourceId,
    /// SHA-256 of the secret, in hex.
    pub sha256: String,
    /// End of its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Micros>,
    /// The only assets that it may speak for; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assets: Option<Vec<String>>,
}

/// One definition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "of")]
pub enum Definition {
    /// A node of the tree.
    Organization(Organization),
    /// A table.
    Table(Table),
    /// A template version.
    Template(Box<Template>),
    /// A source.
    Source(Box<Source>),
    /// An asset.
    Asset(Asset),
    /// An API key.
    Key(ApiKey),
    /// How sinks cut; one for all.
    Cut(CutParameters),
    /// A template version that one tenant's events may not run.
    Quarantine(Quarantine),
}

/// What a definition is known by, stable over its versions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefinitionKey {
    /// `organization`, `table`, …; [`DefinitionKey::rank`] orders them.
    pub kind: String,
    /// Owner: a node, a tenant, or empty.
    pub owner: String,
    /// Id within the owner.
    pub id: String,
}

impl DefinitionKey {
    /// A definition may only refer to those of a lower rank, so changes are applied in this order and undone in reverse.
    pub fn rank(&self) -> usize {
        ["organization", "cut", "table", "template", "source", "asset", "key", "quarantine"]
            .iter()
            .position(|k| *k == self.kind)
            .unwrap_or(usize::MAX)
    }
}

impl Definition {
    /// What it is known by. Assets and sources are keyed by their node; the catalog holds them unique in the tenant.
    pub fn key(&self) -> DefinitionKey {
        let (kind, owner, id) = match self {
            Self::Organization(d) => ("organization", "", d.id.as_str()),
            Self::Table(d) => ("table", d.owner.as_str(), d.name.as_str()),
            Self::Template(d) => ("template", d.owner.as_str(), d.id.as_str()),
            Self::Source(d) => ("source", d.node.as_str(), d.id.as_str()),
            Self::Asset(d) => ("asset", d.node.as_str(), d.id.as_str()),
            Self::Key(d) => ("key", "", d.id.as_str()),
            Self::Cut(_) => ("cut", "", "cut"),
            Self::Quarantine(d) => {
                return DefinitionKey { kind: "quarantine".into(), owner: d.tenant.to_string(), id: d.label() };
            }
        };
        DefinitionKey { kind: kind.into(), owner: owner.into(), id: id.into() }
    }
}

/// One entry of the sequence: change, audit record and outbox entry at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// From 1, without gaps.
    pub revision: Revision,
    /// Which definition.
    pub definition: DefinitionKey,
    /// Its version, from 1.
    pub version: u64,
    /// Who did it.
    pub actor: String,
    /// When.
    pub at: Micros,
    /// As it was; absent for a new one.
    pub before: Option<Definition>,
    /// As it is; absent where it was removed.
    pub after: Option<Definition>,
}

/// A record of `control` that cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("change is unreadable: {0}")]
pub struct ChangeError(pub String);

impl Change {
    /// The record for `control`, but for its place there, which [`Chain::append`] adds.
    fn record(&self) -> Record {
        let headers = vec![Header::new("tg-kind", "change"), Header::new("tg-revision", self.revision.to_string())];
        Record { key: Bytes::new(), headers, value: serde_json::to_vec(self).unwrap_or_default().into() }
    }

    /// Reads a record of `control`.
    pub fn read(record: &Record) -> Result<Self, ChangeError> {
        serde_json::from_slice(&record.value).map_err(|e| ChangeError(e.to_string()))
    }
}
