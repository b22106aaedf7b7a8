//! `TIDEGATE_FAULT=point[:n]` ends the process at the n-th passage of a named point, as a power cut would: nothing is
//! flushed and no destructor runs. `point:n:stop` suspends it there instead (SIGSTOP), until it is told to go on: for its
//! successor it is dead, and then it comes back. For tests; the points are in `tidegate_schemas::fault`.
//!
//! `TIDEGATE_FAULT=script.event=TEXT[:abort|kill|memory]` ends it whenever the scripts of an event run whose bytes contain
//! the text: by `abort`, by SIGKILL (as the kernel's out-of-memory killer does), or as an allocation that fails does.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_schemas::fault::{POINTS, install};

/// A point, the passages until then, and what happens there.
static CHOSEN: OnceLock<(String, AtomicU64, fn())> = OnceLock::new();

/// Reads the variable; a name that does not exist is an error, or a test would pass for the wrong reason.
pub fn arm() -> Result<(), String> {
    let Ok(text) = std::env::var("TIDEGATE_FAULT") else { return Ok(()) };
    if let Some(rest) = text.strip_prefix("script.event=") {
        let (canary, end) = rest.rsplit_once(':').unwrap_or((rest, "abort"));
        let end: fn() -> ! = match end {
            "abort" => || std::process::abort(),
            "kill" => kill,
            "memory" => || std::alloc::handle_alloc_error(std::alloc::Layout::new::<[u8; 4096]>()),
            other => return Err(format!("TIDEGATE_FAULT: an event cannot end the process by {other:?}, but by abort, kill or memory")),
        };
        let _ = AT_EVENT.set((canary.as_bytes().to_vec(), end));
        return Ok(());
    }
    let (text, happens): (_, fn()) = match text.strip_suffix(":stop") {
        Some(text) => (text, || signal("-STOP")),
        None => (&*text, || std::process::abort()),
    };
    let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
    let nth: u64 = nth.parse().map_err(|_| format!("TIDEGATE_FAULT: {nth:?} is no number of passages"))?;
    if !POINTS.contains(&name) {
        return Err(format!("TIDEGATE_FAULT: there is no fault point {name:?}; there are {}", POINTS.join(", ")));
    }
    let _ = CHOSEN.set((name.to_owned(), AtomicU64::new(nth.max(1)), happens));
    install(pass);
    Ok(())
}

fn pass(name: &'static str) {
    let Some((chosen, left, happens)) = CHOSEN.get() else { return };
    if chosen == name && left.fetch_sub(1, Ordering::SeqCst) == 1 {
        happens();
    }
}

/// The bytes of an event, and how it ends the process.
static AT_EVENT: OnceLock<(Vec<u8>, fn() -> !)> = OnceLock::new();

/// The scripts of an event are about to run.
#[inline]
pub fn event(bytes: &[u8]) {
    if let Some((canary, end)) = AT_EVENT.get()
        && bytes.windows(canary.len().max(1)).any(|w| w == canary)
    {
        end();
    }
}

fn kill() -> ! {
    signal("-KILL");
    std::process::abort()
}

fn signal(name: &str) {
    let _ = std::process::Command::new("kill").args([name, &std::process::id().to_string()]).status();
}
