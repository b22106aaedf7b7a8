//! `tidegate key`: a new API key, and the entry of `keys.toml` that lets it in.

use crate::definitions::key::{self, Issued};
use std::path::PathBuf;
use std::process::ExitCode;

/// Stands for a source in an entry that is still to be written.
const SOURCE: &str = "SOURCE";

/// Make a new API key; its secret is shown this once.
#[derive(clap::Args)]
pub struct Args {
    /// The key's public part, by which `keys.toml` knows it: letters and digits.
    id: String,
    /// The customer whose source it opens.
    #[arg(long, default_value = "TENANT")]
    tenant: String,
    /// The source.
    #[arg(long, default_value = SOURCE)]
    source: String,
    /// The only asset that it may speak for; may be given several times.
    #[arg(long = "asset")]
    assets: Vec<String>,
    /// The folder of definitions that the entry is for: nothing is issued that does not fit into it.
    #[arg(long)]
    definitions: Option<PathBuf>,
    /// The configuration that names the folder.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let issued = key::issue(&args.id)?;
    let entry = issued.entry(&args.tenant, &args.source, &args.assets);
    let folder = match &args.definitions {
        Some(folder) => Some(folder.clone()),
        None => super::run::load(args.config.as_deref())?.definitions.folder,
    };
    match &folder {
        Some(folder) => {
            if let Err(faults) = Issued::fits(&entry, folder) {
                return Ok(super::faults(&faults, args.json));
            }
        }
        None if args.source != SOURCE => {
            eprintln!("whether source {} of {} is there was not looked at: name the folder with --definitions", args.source, args.tenant);
        }
        None => {}
    }
    let key = String::from_utf8_lossy(issued.key.expose());
    if args.json {
        println!("{}", serde_json::json!({ "id": issued.id, "key": key, "sha256": issued.sha256, "entry": entry }));
    } else {
        println!("{key}\n\nThat is the key: it is shown this once, and kept nowhere. Whoever sends events sends it as");
        println!(
            "Authorization: Bearer {}…\n\nAdd to keys.toml, and publish with tidegate apply:\n\n{entry}",
            &key[..key.len().min(3 + args.id.len() + 1)]
        );
    }
    Ok(ExitCode::SUCCESS)
}
