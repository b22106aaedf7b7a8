//! The one binary of Tidegate.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Many small objects of few sizes on many threads: the system's allocator keeps more and takes longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc gives freed pages back to the system after this many milliseconds; its own default, a second, kept 50 MB more
/// resident in the demo at the same CPU time.
const PURGE_DELAY: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "10");

fn main() -> ExitCode {
    // The allocator reads its settings before `main` begins, so the process replaces itself once, under the same id.
    if std::env::var_os(PURGE_DELAY.0).is_none()
        && let Ok(binary) = std::env::current_exe()
    {
        let error = Command::new(binary).args(std::env::args_os().skip(1)).env(PURGE_DELAY.0, PURGE_DELAY.1).exec();
        eprintln!("tidegate: goes on with the allocator's defaults: {error}");
    }
    tidegate_pipeline::cli::main()
}
