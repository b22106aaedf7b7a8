//! What script hosts count.

use crate::script::meter::Spent;

/// An event is tried once more.
pub(crate) fn retried(spent: Spent) {
    metrics::counter!("tidegate_script_retries_total", "code" => spent.code().as_str()).increment(1);
}

/// A state was made.
pub(crate) fn state_made() {
    metrics::counter!("tidegate_script_states_made_total").increment(1);
}
