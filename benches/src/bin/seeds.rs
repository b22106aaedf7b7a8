//! Writes the seeds of the fuzz targets anew: from the project's own writers and the shared real inputs.

use std::path::Path;
use tidegate_benches::fuzz::seeds;

fn main() -> anyhow::Result<()> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    println!("{} seeds in {}", seeds::write(&data)?, seeds::folder().display());
    Ok(())
}
