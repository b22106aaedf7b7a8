//! Template versions that are kept from running.

use super::{DefinitionKey, Template};
use crate::ids::{Epoch, NodeId, Partition, Position, TemplateId, TenantId};
use serde::{Deserialize, Serialize};

/// A template version whose scripts failed the host for one tenant: that tenant's events are refused before they run it.
/// Its other versions, and other tenants that use the same template, are not concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantine {
    /// Whose events.
    pub tenant: TenantId,
    /// The template's owner.
    pub owner: NodeId,
    /// The template.
    pub template: TemplateId,
    /// SHA-256 of its canonical form, in hex.
    pub version: String,
    /// Code of the fault: `timed_out`, `memory_exhausted` or `crashed`.
    pub cause: String,
    /// Where it was seen.
    pub partition: Partition,
    /// The epoch after which the partition obeyed it.
    pub epoch: Epoch,
    /// The event that was one too many.
    pub at: Position,
}

impl Quarantine {
    /// The template with the first digits of its version, as rows carry it.
    pub fn label(&self) -> String {
        format!("{}@{}", self.template, self.version.get(..12).unwrap_or(&self.version))
    }

    /// The template that it is about.
    pub fn template_key(&self) -> DefinitionKey {
        DefinitionKey { kind: "template".into(), owner: self.owner.to_string(), id: self.template.to_string() }
    }

    /// Whether this is the version that it is about.
    pub fn is_of(&self, template: &Template) -> bool {
        template.version() == self.version
    }
}
