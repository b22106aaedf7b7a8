//! The envelope of a request that a bench or a fuzz function makes up.

use std::collections::BTreeMap;
use tidegate_schemas::envelope::{Envelope, Span};
use tidegate_schemas::ids::{CredentialId, IdError, NodeId, ReceiptId, SourceId, TenantId};

/// JSON of a source of a tenant, both by valid ids.
///
/// # Errors
/// Either text is no id.
pub fn envelope(tenant: &str, source: &str, events: Vec<Span>) -> Result<Envelope, IdError> {
    Ok(Envelope {
        tenant: TenantId::new(tenant)?,
        node: NodeId::new(tenant)?,
        source: SourceId::new(source)?,
        credential: CredentialId::new("k1")?,
        receipt: ReceiptId([5; 16]),
        received_at: 1_800_000_000_000_000,
        revision: 1,
        content_type: "application/json".into(),
        idempotency: None,
        traceparent: None,
        meta: BTreeMap::new(),
        events,
        refused: Vec::new(),
        release: None,
    })
}
