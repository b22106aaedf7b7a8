//! `tidegate init`: a place to begin with, and what to do in it.

use crate::definitions::scaffold;
use std::path::PathBuf;
use std::process::ExitCode;

/// Write a place to begin with: a configuration, definitions with a template and its tests, and a key.
#[derive(clap::Args)]
pub struct Args {
    /// Its folder, which is not there yet.
    dir: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let (issued, files) = scaffold::place(&args.dir)?;
    let key = String::from_utf8_lossy(issued.key.expose());
    if args.json {
        println!("{}", serde_json::json!({ "files": files, "key": key }));
        return Ok(ExitCode::SUCCESS);
    }
    for file in &files {
        println!("{}", file.display());
    }
    let dir = args.dir.display();
    println!(
        "
The key of its source, shown this once and kept nowhere: {key}

tidegate check --config {dir}/tidegate.toml
tidegate run   --config {dir}/tidegate.toml
curl -s localhost:8080/v1/events -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
  -d '{{\"device\":\"sensor-1\",\"id\":\"sensor-1-1\",\"payload\":\"0929500c1c\",\"port\":2}}'
tidegate tap   --config {dir}/tidegate.toml --tenant my-tenant --from beginning

Rows are in {dir}/data/tables half a minute later at the latest ([cut] in tidegate.toml).
Then write what is yours into {dir}/definitions, and publish it: tidegate apply {dir}/definitions --config {dir}/tidegate.toml"
    );
    Ok(ExitCode::SUCCESS)
}
