//! Fault points: named places at which a test may stop the process. Nothing happens unless a hook is installed, which
//! only the binary does, and only where `TIDEGATE_FAULT` names a point.

use std::sync::OnceLock;

static HOOK: OnceLock<fn(&'static str)> = OnceLock::new();

/// Every point, in the order of an event's way. A test walks this list, so a point that is not here does not exist.
pub const POINTS: &[&str] = &[
    "publish.before_write",
    "publish.after_write",
    "publish.after_sync",
    "commit.before_write",
    "commit.after_write",
    "commit.after_sync",
    "quarantine.before_publish",
    "release.after_publish",
    "snapshot.before_put",
    "snapshot.after_put",
    "snapshot.before_delete",
    "cut.closed",
    "put.before",
    "put.after",
    "delta.before_commit",
    "delta.after_commit",
    "table.before_change",
    "table.after_change",
    "insert.before_send",
    "insert.after_send",
    "cursor.before_store",
    "cursor.after_store",
    "trim.before_delete",
    "trim.after_delete",
];

/// Installs the hook; the first one stays.
pub fn install(hook: fn(&'static str)) {
    let _ = HOOK.set(hook);
}

/// Passes a point.
#[inline]
pub fn point(name: &'static str) {
    debug_assert!(POINTS.contains(&name), "fault point {name} is not listed");
    if let Some(hook) = HOOK.get() {
        hook(name);
    }
}
