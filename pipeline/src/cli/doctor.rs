//! `tidegate doctor`: does everything work that the configuration names?

use crate::doctor::{self, Finding, State};
use std::process::ExitCode;

/// Try everything that the configuration names, and say what to do; exits 1 where something would not work.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    which: super::Which,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.which.load()?;
    let mut found = Vec::new();
    doctor::examine(&config, &mut |finding| {
        if !args.json {
            print(&finding);
        }
        found.push(finding);
    });
    let failed = found.iter().filter(|f| f.state == State::Failed).count();
    if args.json {
        println!("{}", serde_json::json!({ "ok": failed == 0, "findings": found }));
    } else {
        let warnings = found.iter().filter(|f| f.state == State::Warning).count();
        println!(
            "{}",
            match (failed, warnings) {
                (0, 0) => "everything works".to_owned(),
                (0, _) => format!("it works; {warnings} of {} checks warn", found.len()),
                _ => format!("{failed} of {} checks failed", found.len()),
            }
        );
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// At once: what comes next may take its time.
fn print(finding: &Finding) {
    let mark = match finding.state {
        State::Ok => "ok     ",
        State::Warning => "WARNING",
        State::Failed => "FAILED ",
    };
    println!("{mark}  {:<24} {}", finding.check, finding.detail);
}
