//! `tidegate apply`: publish a folder of definitions to a running server.

use crate::definitions::socket::{self, ApplyError};
use std::path::PathBuf;
use std::process::ExitCode;

/// Publish a folder of definitions to a running server.
#[derive(clap::Args)]
pub struct Args {
    /// The folder: organizations.toml, sources.toml, assets.toml, keys.toml, templates/.
    folder: PathBuf,
    #[command(flatten)]
    which: super::Which,
    /// Lift the quarantine of every template version: their scripts run again.
    #[arg(long)]
    lift_quarantines: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.which.load()?;
    let published = match socket::apply(&args.folder, &config.control_socket(), args.lift_quarantines) {
        Ok(published) => published,
        Err(ApplyError::Folder(faults)) => return Ok(super::faults(&faults, args.json)),
        Err(error) => return Err(error.into()),
    };
    if args.json {
        println!("{}", serde_json::to_string(&published)?);
    } else {
        for change in &published.changes {
            println!("{:?} {} {} (version {})", change.action, change.definition.kind, change.definition.id, change.version);
        }
        println!("revision {}: {} changed, {} as they were", published.revision, published.changes.len(), published.unchanged);
    }
    Ok(ExitCode::SUCCESS)
}
