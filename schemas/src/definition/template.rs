//! Templates: what a kind of device sends, and how it becomes rows of one table.

use crate::document::Kind;
use crate::ids::{NodeId, TableId, TemplateId};
use crate::limits;
use crate::table::{Field, FieldType};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How the payload is written in the event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// RFC 4648 base64, with or without padding.
    #[default]
    Base64,
    /// Two hex digits a byte.
    Hex,
    /// The bytes of the text, or of the whole event where `at` is absent.
    None,
}

/// What a decoder gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadForm {
    /// A Luau buffer.
    #[default]
    Buffer,
    /// A string of bytes.
    String,
    /// An array of integers, from 1.
    Bytes,
}

/// Where a device's bytes lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// JSON pointer; absent where the whole event is the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// How they are written.
    #[serde(default)]
    pub encoding: Encoding,
    /// What the decoder gets.
    #[serde(default)]
    pub form: PayloadForm,
    /// JSON pointer to the LoRaWAN port, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub f_port: Option<String>,
}

/// A stage that is a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Luau text.
    pub source: String,
}

/// How bytes become a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decode {
    /// `decode(input)` or `decodeUplink(input)`.
    Script(Script),
    /// The event is the document; nothing is decoded.
    Json,
}

/// How a document is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validate {
    /// `validate(event)`.
    Script(Script),
    /// Rules, all of which must hold.
    Rules(Vec<Rule>),
}

/// How a document becomes rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transform {
    /// `transform(event)`.
    Script(Script),
    /// Fields from places.
    Mapping(Vec<Mapping>),
}

/// A declarative check of one place of the document (`/decoded/…` reaches what the decoder returned).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// JSON pointer.
    pub at: String,
    /// Type that a value must have.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<FieldType>,
    /// Whether it must be there and not null.
    #[serde(default)]
    pub required: bool,
    /// Least number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Greatest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The only texts allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub one_of: Vec<String>,
    /// Regular expression (linear time) that a text must match somewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
}

/// A declarative field: from a place or a constant, with a linear unit conversion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// A declared field, `occurred_at`, `event_type`, or any other name: then an attribute.
    pub field: String,
    /// JSON pointer into the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// A constant, where there is no `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constant: Option<String>,
    /// Numbers are multiplied by this first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// Then this is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<f64>,
}

/// What one event's scripts may use. Inside the hard limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScriptLimits {
    /// Steps of one event over its stages.
    pub steps: u64,
    /// Bytes of the script state.
    pub memory_bytes: u64,
    /// Bytes of one event's result.
    pub result_bytes: u64,
}

impl Default for ScriptLimits {
    fn default() -> Self {
        Self {
            steps: limits::SCRIPT_STEPS as u64,
            memory_bytes: limits::SCRIPT_MEMORY_BYTES as u64,
            result_bytes: limits::RESULT_BYTES_MAX as u64,
        }
    }
}

/// A template version. Immutable once published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Unique within the owner.
    pub id: TemplateId,
    /// A vendor, or a node of a customer.
    pub owner: NodeId,
    /// For people.
    pub title: String,
    /// The table that it fills.
    pub table: TableId,
    /// Where the device's bytes lie; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// The only top-level JSON fields that scripts read; all where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// What it fills of the table.
    pub fields: Vec<Field>,
    /// What its scripts may use.
    #[serde(default)]
    pub limits: ScriptLimits,
    /// First stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<Decode>,
    /// Second stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate: Option<Validate>,
    /// Third stage; where it is absent, each declared field is the member of the same name, of what was decoded or else sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<Transform>,
}

impl Template {
    /// SHA-256 of the canonical form (this struct as JSON, fields in declared order), in hex.
    pub fn version(&self) -> String {
        hex::encode(Sha256::digest(serde_json::to_vec(self).unwrap_or_default()))
    }
}

/// Whether a value has a declared type without a conversion that loses anything.
pub fn has_type(kind: FieldType, value: Kind<'_>) -> bool {
    match (kind, value) {
        (FieldType::Json, _) | (FieldType::Bool, Kind::Bool(_)) | (FieldType::Text, Kind::Text(_)) => true,
        (FieldType::I64, Kind::Int(_)) | (FieldType::F64 | FieldType::Timestamp, Kind::Int(_) | Kind::Uint(_) | Kind::Float(_)) => true,
        (FieldType::I64, Kind::Float(f)) => f.fract() == 0.0 && f.abs() < 9.2e18,
        (FieldType::Timestamp, Kind::Text(text)) => crate::time::parse(text).is_some(),
        _ => false,
    }
}
