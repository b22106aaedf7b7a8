//! The one binary of Tidegate.

use std::process::ExitCode;

/// Many small objects of few sizes on many threads: the system's allocator keeps more and takes longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tidegate_pipeline::cli::main()
}
