//! Decode: from what a device sent to named values. A script, or nothing where the document says it already.

use crate::event::{Bundle, EpochContext, Progress};
use crate::script::{self, Host};
use tidegate_schemas::definition::Decode;
use tidegate_schemas::verdict::StageName;

/// Decodes the events that are at this stage. Where script stages follow without a gap, they run as well.
pub fn apply(bundle: &mut Bundle, host: &mut Host, context: &EpochContext) {
    let Some(plan) = &bundle.plan else { return };
    match plan.template.template.decode {
        Some(Decode::Script(_)) => script::fused(bundle, host, context, StageName::Decode),
        // The document is what is judged and mapped.
        Some(Decode::Json) | None => {
            for event in bundle.events.iter_mut().filter(|e| e.is_at(StageName::Decode)) {
                event.progress = Progress::At(StageName::Validate);
            }
        }
    }
}
