//! `tidegate verify`: do tables hold what commits promise?

use crate::{log, verify};
use std::process::ExitCode;

/// Add up commit records against the rows that the tables hold; exits 1 on any difference.
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
    let report = verify::run(&*log::open_to_read(&config)?, &config.tables())?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(if report.differences_count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &verify::Report) {
    println!("log {}", report.log_id);
    for (partition, (first, last)) in &report.epochs {
        println!("  partition {partition}: epochs {first} to {last}");
    }
    let t = report.totals;
    println!(
        "received {} = transformed {} + duplicate {} + rejected {} + filtered {}",
        t.received, t.transformed, t.duplicate, t.rejected, t.filtered
    );
    println!("rows committed {}, of which pending {}", report.rows_committed, report.rows_pending);
    for table in &report.tables {
        println!("  {}/{}: {} rows in {} files (version {})", table.tenant, table.table, table.rows, table.files, table.version);
    }
    for gap in &report.gaps {
        println!("GAP {gap}");
    }
    for difference in &report.differences {
        println!("DIFFERENCE {difference}");
    }
    println!("{} differences", report.differences_count);
}
