//! One file a stage. Between `open` and `settle` a stage is a function over a [`crate::event::Bundle`]; a new one is a
//! file here and a line in [`ALL`], which the dataflow, tests of templates and benches all go by.

pub mod decode;
mod logs;
pub mod open;
pub mod quarantine;
pub mod settle;
pub mod transform;
pub mod validate;

use crate::event::{Bundle, EpochContext};
use crate::script::Host;
use tidegate_schemas::verdict::StageName;

/// What happens to a bundle between `open` and `settle`.
pub type Stage = fn(&mut Bundle, &mut Host, &EpochContext);

/// The stages between `open` and `settle`, in the order in which events pass them.
pub const ALL: [(StageName, Stage); 3] =
    [(StageName::Decode, decode::apply), (StageName::Validate, validate::apply), (StageName::Transform, transform::apply)];

/// Takes a bundle through all of [`ALL`].
pub fn apply(bundle: &mut Bundle, host: &mut Host, context: &EpochContext) {
    for (_, stage) in ALL {
        stage(bundle, host, context);
    }
}
