//! What one crossing into Luau is asked for and how it ends, whoever drives it.
//!
//! ```text
//! event ─▶ tables ─▶ decode ─▶ validate ─▶ transform ─▶ Ended ─▶ leave: rows, rejection, document
//! ```
//! `raw` drives it in production; the tests hold it against `oracle`, which goes by mlua's safe API.

use tidegate_schemas::definition::{Decode, Template, Transform, Validate};
use tidegate_schemas::verdict::StageName;

/// Which stages one run executes in Luau.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) decode: bool,
    pub(crate) validate: bool,
    pub(crate) transform: Transforming,
}

/// How the run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transforming {
    /// A stage outside Luau comes next.
    Later(StageName),
    /// The members of what was decoded are the fields.
    Default,
    /// By the template's script.
    Script,
}

impl Run {
    /// The run that begins at `from`, which is a script.
    pub(crate) fn of(template: &Template, from: StageName) -> Self {
        let decode = from == StageName::Decode && matches!(template.decode, Some(Decode::Script(_)));
        let (validate, native_validate) = match &template.validate {
            _ if from == StageName::Transform => (false, false),
            Some(Validate::Script(_)) => (true, false),
            Some(Validate::Rules(_)) => (false, true),
            None => (false, false),
        };
        let transform = match &template.transform {
            _ if native_validate => Transforming::Later(StageName::Validate),
            Some(Transform::Script(_)) => Transforming::Script,
            None if decode => Transforming::Default,
            _ => Transforming::Later(StageName::Transform),
        };
        Self { decode, validate, transform }
    }

    /// Whether a script looks at the document.
    pub(crate) fn reads_event(self) -> bool {
        self.validate || self.transform == Transforming::Script
    }
}

/// How a run ended, with the values that Luau lends for reading: `L`.
pub(crate) enum Ended<L> {
    /// A stage returned no table.
    Invalid(StageName, L),
    /// The decoder's errors.
    Errors(L),
    /// What the decoder returned: without data, and with something that is not its.
    NoData(L),
    /// The validator's two results.
    Refused(L, L),
    /// Left out on purpose.
    Filtered,
    /// What transform returned: a row, or a list of rows.
    Rows(L),
    /// What was decoded is the row; none where nothing was.
    Decoded(Option<L>),
    /// A stage outside Luau comes next; with what was decoded, where the run decoded.
    Later(Option<L>),
}

/// A member's name, and where Luau's own string of it is kept.
#[derive(Clone, Copy)]
pub(crate) struct Name<'a> {
    pub(crate) text: &'a str,
    /// Place in the table of what is kept for a template version.
    pub(crate) pin: usize,
}

/// Places 1 to 3 hold the stages' functions; the host's own names follow, then those of the declared fields.
pub(crate) mod names {
    use super::Name;

    macro_rules! names {
        ($($name:ident = $text:literal),* $(,)?) => {
            #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
            enum Place { $($name),* }
            $(pub(crate) const $name: Name<'static> = Name { text: $text, pin: 4 + Place::$name as usize };)*
            /// All of them in the order of their places.
            pub(crate) const ALL: &[Name<'static>] = &[$($name),*];
        };
    }
    names! {
        VALUE = "value", DECODED = "decoded", ERRORS = "errors", WARNINGS = "warnings", DATA = "data", CODE = "code", DETAIL = "detail", POINTER = "pointer",
        OCCURRED_AT = "occurred_at", EVENT_TYPE = "event_type",
    }

    /// The name of a declared field.
    pub(crate) fn field(index: usize, text: &str) -> Name<'_> {
        Name { text, pin: 4 + ALL.len() + index }
    }
}
