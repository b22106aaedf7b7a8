//! `TIDEGATE_FAULT=point[:n]` ends the process at the n-th passage of a named point, as a power cut would: nothing is
//! flushed and no destructor runs. For tests; the points are in `tidegate_schemas::fault`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_schemas::fault::{POINTS, install};

static CHOSEN: OnceLock<(String, AtomicU64)> = OnceLock::new();

/// Reads the variable; a name that does not exist is an error, or a test would pass for the wrong reason.
pub fn arm() -> Result<(), String> {
    let Ok(text) = std::env::var("TIDEGATE_FAULT") else { return Ok(()) };
    let (name, nth) = text.split_once(':').unwrap_or((&text, "1"));
    let nth: u64 = nth.parse().map_err(|_| format!("TIDEGATE_FAULT: {nth:?} is no number of passages"))?;
    if !POINTS.contains(&name) {
        return Err(format!("TIDEGATE_FAULT: there is no fault point {name:?}; there are {}", POINTS.join(", ")));
    }
    let _ = CHOSEN.set((name.to_owned(), AtomicU64::new(nth.max(1))));
    install(pass);
    Ok(())
}

fn pass(name: &'static str) {
    let Some((chosen, left)) = CHOSEN.get() else { return };
    if chosen == name && left.fetch_sub(1, Ordering::SeqCst) == 1 {
        std::process::abort();
    }
}
