//! `tidegate check`: is the configuration sound, and are the definitions, with their scripts and tests?

use crate::definitions::{check, trial};
use std::path::PathBuf;
use std::process::ExitCode;

/// Check a configuration and its definitions; warn of names and places that are hardly meant.
#[derive(clap::Args)]
pub struct Args {
    /// The configuration.
    #[arg(long)]
    config: Option<PathBuf>,
    /// A folder of definitions, instead of the one that the configuration names.
    #[arg(long)]
    definitions: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let config = super::run::load(args.config.as_deref())?;
    let folder = args.definitions.clone().or(config.definitions.folder);
    let Some(folder) = folder else {
        println!("{}", if args.json { "{\"configuration\":\"ok\"}" } else { "configuration ok; it names no folder of definitions" });
        return Ok(ExitCode::SUCCESS);
    };
    match check::check(&folder) {
        Ok(checked) => {
            let (definitions, tests) = (checked.folder.definitions.len(), checked.tests);
            let advice: Vec<String> = trial::advice(&checked.folder).iter().map(|advice| advice.told(&folder, "")).collect();
            if args.json {
                let ok = serde_json::json!({ "configuration": "ok", "definitions": definitions, "tests": tests, "warnings": advice });
                println!("{ok}");
            } else {
                super::warn(&advice);
                println!("configuration ok; {definitions} definitions ok; {tests} tests of templates passed");
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(faults) => Ok(super::faults(&faults, args.json)),
    }
}
