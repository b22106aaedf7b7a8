//! What a process uses: how it holds memory, and what it took, read from `/proc`.

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// This process, where a process id is asked for.
pub const SELF: &str = "self";

/// Settings of mimalloc for a server, where the environment has no others: no huge pages, and freed ones go back to the system
/// after so many milliseconds. Epochs take and give back tens of megabytes many times a second; huge pages are cleared whole
/// for each, and stay for what is half used. Figures: "Huge pages" in `benches/README.md`.
pub const ALLOCATOR_SETTINGS: [(&str, &str); 2] = [("MIMALLOC_ALLOW_THP", "0"), ("MIMALLOC_PURGE_DELAY", "100")];

/// CPU seconds of a process so far, user and system, in steps of 10 ms; 0 where there is none.
pub fn cpu_seconds(process: impl Display) -> f64 {
    // Fields 14 and 15 of `stat`, counted after the command's closing parenthesis; in hundredths of a second on Linux.
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<u64> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
    (fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0)) as f64 / 100.0
}

/// Bytes that this user may still write to the disk of a path, where the system tells it.
pub fn free_bytes(path: &Path) -> Option<u64> {
    rustix::fs::statvfs(path).ok().map(|s| s.f_bavail.saturating_mul(s.f_frsize))
}

/// Resident bytes of a process: now, and the most there ever were; 0 where there is none.
pub fn rss_bytes(process: impl Display) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = |name: &str| {
        let found = status.lines().find(|l| l.starts_with(name)).and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
        found.unwrap_or(0) * 1024
    };
    (line("VmRSS:"), line("VmHWM:"))
}

/// CPU time of the calling thread. Asking takes a third of a microsecond.
pub fn thread_time() -> Duration {
    // Neither part is ever negative, and nanoseconds are below a second.
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU seconds of the calling thread, to the nanosecond where the system tells it.
pub fn thread_cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}
