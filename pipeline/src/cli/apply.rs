//! `tidegate apply`: publish a folder of definitions to a running server.

use crate::definitions::socket::{self, Allowed, ApplyError};
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
    /// Let sources and assets go from one tenant to another; without it they are refused.
    #[arg(long)]
    between_tenants: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.which.load()?;
    let allowed = Allowed { lift_quarantines: args.lift_quarantines, between_tenants: args.between_tenants };
    let published = match socket::apply(&args.folder, &config.control_socket(), allowed) {
        Ok(published) => published,
        Err(ApplyError::Folder(faults)) => return Ok(super::faults(&faults, args.json)),
        Err(error) => return Err(error.into()),
    };
    if args.json {
        println!("{}", serde_json::to_string(&published)?);
    } else {
        for change in &published.changes {
            let (key, from) = (&change.definition, change.moved_from.as_ref());
            let way = from.map(|from| format!(" from {from} to {}", key.owner)).unwrap_or_default();
            println!("{:?} {} {}{way} (version {})", change.action, key.kind, key.id, change.version);
        }
        println!("revision {}: {} changed, {} as they were", published.revision, published.changes.len(), published.unchanged);
    }
    Ok(ExitCode::SUCCESS)
}
