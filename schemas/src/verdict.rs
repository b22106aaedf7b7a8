//! What becomes of an event: exactly one verdict each.

use crate::ids::{LogId, Position, TenantId};
use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;

/// The four ends of an event; received = the sum of them, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Verdict {
    /// It became rows.
    Transformed = 0,
    /// Its (source, event id) was transformed or filtered before, within the horizon.
    Duplicate = 1,
    /// It became a row of `rejections`.
    Rejected = 2,
    /// A script left it out on purpose.
    Filtered = 3,
}

impl Verdict {
    /// As in receipts and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transformed => "transformed",
            Self::Duplicate => "duplicate",
            Self::Rejected => "rejected",
            Self::Filtered => "filtered",
        }
    }

    /// The verdict of a wire byte.
    pub fn from_u8(byte: u8) -> Option<Self> {
        [Self::Transformed, Self::Duplicate, Self::Rejected, Self::Filtered].get(usize::from(byte)).copied()
    }
}

/// Where an event was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageName {
    /// At the edge.
    Ingest,
    /// Finding source, asset, id and template.
    Open,
    /// Bytes to document.
    Decode,
    /// Judging the document.
    Validate,
    /// Document to rows.
    Transform,
}

impl StageName {
    /// As in tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Open => "open",
            Self::Decode => "decode",
            Self::Validate => "validate",
            Self::Transform => "transform",
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Reasons of Tidegate itself. A script's own codes stand beside them in the same column.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name),* }
        impl Code {
            /// As in answers, tables and metrics.
            pub fn as_str(self) -> &'static str { match self { $(Self::$name => $text),* } }
            /// The reason of a name; none where it is a script's own.
            pub fn named(name: &str) -> Option<Self> { match name { $($text => Some(Self::$name),)* _ => None } }
        }
    };
}

codes! {
    /// The bytes are no JSON.
    Syntax = "syntax";
    /// Nested too deeply.
    TooDeep = "too_deep";
    /// One event above the bound.
    EventTooLarge = "event_too_large";
    /// The edge's record cannot be read.
    EnvelopeInvalid = "envelope_invalid";
    /// The source is no longer there.
    SourceUnknown = "source_unknown";
    /// The source's place for the asset id holds none.
    AssetMissing = "asset_missing";
    /// The credential may not speak for this asset.
    AssetNotAllowed = "asset_not_allowed";
    /// The source's place for the event id holds none that can be used.
    EventIdInvalid = "event_id_invalid";
    /// The source's place for the time of the event holds something that is no time, or one that tables cannot hold.
    OccurredAtInvalid = "occurred_at_invalid";
    /// No template of this name is published, or none is named.
    TemplateUnknown = "template_unknown";
    /// The template's payload is not where it says, or not in its encoding.
    PayloadInvalid = "payload_invalid";
    /// A decoder reported errors.
    DecodeFailed = "decode_failed";
    /// A validator said no without a code.
    Invalid = "invalid";
    /// A required field is absent or null.
    Required = "required";
    /// A value of another type than declared.
    WrongType = "wrong_type";
    /// A value outside its bounds.
    OutOfRange = "out_of_range";
    /// A value that is none of those allowed.
    NotAllowed = "not_allowed";
    /// A text that does not match its pattern.
    PatternMismatch = "pattern_mismatch";
    /// A script raised an error.
    ScriptError = "script_error";
    /// A script returned something that its stage cannot take.
    ResultInvalid = "result_invalid";
    /// Out of steps.
    StepsExhausted = "steps_exhausted";
    /// Out of memory.
    MemoryExhausted = "memory_exhausted";
    /// Out of the thread's CPU time.
    TimedOut = "timed_out";
    /// The result passes a bound.
    OutputTooLarge = "output_too_large";
    /// The template version is quarantined.
    Quarantined = "quarantined";
    /// The process died at this event, again and again.
    Crashed = "crashed";
}

/// Why an event was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Where.
    pub stage: StageName,
    /// A [`Code`], or a script's own.
    pub code: String,
    /// For people; at most [`crate::limits::REJECTION_DETAIL_BYTES_MAX`] bytes.
    pub detail: String,
    /// JSON pointer to the place, empty for the whole.
    pub pointer: String,
    /// Line in the script, from 1, where one failed.
    pub line: Option<i32>,
}

impl Rejection {
    /// A rejection by Tidegate itself.
    pub fn new(stage: StageName, code: Code, detail: impl Into<String>) -> Self {
        Self {
            stage,
            code: code.as_str().to_owned(),
            detail: cut(detail.into(), crate::limits::REJECTION_DETAIL_BYTES_MAX),
            pointer: String::new(),
            line: None,
        }
    }

    /// With the place.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = cut(pointer.into(), crate::limits::REJECTION_DETAIL_BYTES_MAX);
        self
    }
}

/// Cuts a text at a character boundary at or below `max` bytes.
pub fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = (0..=max).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// One event's line of an epoch's `outcomes` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The event.
    pub at: Position,
    /// Whose event.
    pub tenant: TenantId,
    /// Its index in the request.
    pub index: u32,
    /// What became of it.
    pub verdict: Verdict,
    /// Key of (tenant, source, event id); see [`DuplicateKeys`].
    pub key: [u8; 16],
}

/// Makes the keys under which events of one source are known as seen: SipHash-2-4 with 128 bits, keyed by the log's id, over
/// tenant, source and event id, each with its length. Keyed, so that no sender can make two ids collide.
#[derive(Clone, Debug)]
pub struct DuplicateKeys(SipHasher24);

impl DuplicateKeys {
    /// Of a tenant's source.
    pub fn of(log: LogId, tenant: &str, source: &str) -> Self {
        let mut hasher = SipHasher24::new_with_key(&log.0);
        [tenant, source].into_iter().for_each(|part| add(&mut hasher, part));
        Self(hasher)
    }

    /// Of an event.
    pub fn key(&self, event_id: &str) -> [u8; 16] {
        let mut hasher = self.0;
        add(&mut hasher, event_id);
        hasher.finish128().as_bytes()
    }
}

fn add(hasher: &mut SipHasher24, part: &str) {
    hasher.write(&(part.len() as u32).to_le_bytes());
    hasher.write(part.as_bytes());
}
