//! The one binary of Tidegate.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use tidegate_pipeline::usage::ALLOCATOR_SETTINGS;

/// Many small objects of few sizes on many threads: the system's allocator keeps more and takes longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator reads its settings before `main` begins, so the process replaces itself once, under the same id.
    let missing: Vec<_> = ALLOCATOR_SETTINGS.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if !missing.is_empty()
        && let Ok(binary) = std::env::current_exe()
    {
        let error = Command::new(binary).args(std::env::args_os().skip(1)).envs(missing).exec();
        eprintln!("tidegate: goes on with the allocator's defaults: {error}");
    }
    tidegate_pipeline::cli::main()
}
