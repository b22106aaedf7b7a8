//! Identifiers. Each is a type of its own, so that a tenant can never be passed where a source belongs.

use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Why a text is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no identifier: 1 to 64 characters of a-z, A-Z, 0-9, '-', '_' and '.', the first a letter or digit")]
pub struct IdError {
    /// The text as it was given, cut after 80 characters.
    pub text: String,
}

/// Whether `text` may name a definition: it goes into paths, metric labels and URLs as it is.
pub fn is_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes.first(), Some(b) if b.is_ascii_alphanumeric())
        && bytes.len() <= 64
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

macro_rules! definition_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the form; see [`is_id`].
            pub fn new(text: &str) -> Result<Self, IdError> {
                if is_id(text) { Ok(Self(text.into())) } else { Err(IdError { text: text.chars().take(80).collect() }) }
            }
            /// The text.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> { Self::new(&text) }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String { id.0.to_string() }
        }
        impl Borrow<str> for $name { fn borrow(&self) -> &str { &self.0 } }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{:?}", &*self.0) }
        }
    };
}

definition_id!(
    /// A customer organization: the unit of isolation.
    TenantId
);
definition_id!(
    /// A node of the organization tree, whatever its kind.
    NodeId
);
definition_id!(
    /// A source of events.
    SourceId
);
definition_id!(
    /// A credential of a source, for instance an API key's public id.
    CredentialId
);
definition_id!(
    /// A template: what a kind of device sends, and what becomes of it.
    TemplateId
);
definition_id!(
    /// The opaque id of a table, as in paths and ClickHouse names: `climate-7f3a`.
    TableId
);

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; 16]);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&hex::encode(self.0)) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{self}") }
        }
        impl From<$name> for String { fn from(id: $name) -> String { id.to_string() } }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                let mut id = [0; 16];
                hex::decode_to_slice(&text, &mut id).map_err(|_| IdError { text: text.chars().take(80).collect() })?;
                Ok(Self(id))
            }
        }
    };
}

random_id!(
    /// Minted once with the log and part of everything that refers to it, so that a re-created log never passes for the old one.
    LogId
);
random_id!(
    /// The 128-bit id of one accepted request.
    ReceiptId
);

/// A place in the sequence of changes: a catalog is the fold of all changes up to one.
pub type Revision = u64;
/// The number of an epoch within its partition, from 1 on.
pub type Epoch = u64;
/// A partition of the log.
pub type Partition = u32;

/// A place in a partition of `raw`: an event, or the place before which everything is processed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Offset of the record.
    pub offset: u64,
    /// Ordinal of the event among those of the record (not its index in the request).
    pub ordinal: u32,
}
