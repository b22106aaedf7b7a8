//! `tidegate apply`: publish a folder of definitions to a running server.

use crate::definitions::socket;
use std::path::PathBuf;
use std::process::ExitCode;

/// Publish a folder of definitions to a running server.
#[derive(clap::Args)]
pub struct Args {
    /// The folder: organizations.toml, sources.toml, assets.toml, keys.toml, templates/.
    folder: PathBuf,
    /// The server's configuration, which names its data folder.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The server's data folder, where no configuration is named.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let mut config = super::run::load(args.config.as_deref())?;
    if let Some(folder) = &args.data_dir {
        config.server.data_dir.clone_from(folder);
    }
    let published = socket::apply(&args.folder, &config.control_socket())?;
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
