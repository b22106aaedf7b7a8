//! `tidegate verify`: do tables hold what commits promise?

use crate::{log, verify};
use std::process::ExitCode;

/// Add up commit records against the rows that the tables of all sinks hold; exits 1 on any difference.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    which: super::Which,
    /// Read every byte of the files of tables too, against the checksum that each file has.
    #[arg(long)]
    deep: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.which.load()?;
    let report = verify::run(&*log::open_to_read(&config)?, &config, args.deep)?;
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
    if report.rows_expired > 0 {
        println!("rows past a sink's retention {}", report.rows_expired);
    }
    if report.rows_parked + report.rows_dropped > 0 {
        println!("rows of parked tables {} waiting, {} dropped", report.rows_parked, report.rows_dropped);
    }
    for table in &report.tables {
        let how = table.files.zip(table.version).map(|(files, version)| format!(" in {files} files (version {version})"));
        let sink = if how.is_some() { "" } else { table.sink };
        println!("  {}/{}: {} rows{}{sink}", table.tenant, table.table, table.rows, how.unwrap_or_else(|| " in ".into()));
    }
    for parked in &report.parked {
        let verify::ParkedReport { sink, tenant, table, rows, rows_dropped } = parked;
        if *rows > 0 {
            println!("PARKED {sink} {tenant}/{table}: {rows} rows wait; tidegate sink list tells why");
        }
        if *rows_dropped > 0 {
            println!("DROPPED {sink} {tenant}/{table}: {rows_dropped} rows, by tidegate sink drop");
        }
    }
    for gap in &report.gaps {
        println!("GAP {gap}");
    }
    for difference in &report.differences {
        println!("DIFFERENCE {difference}");
    }
    println!("{} differences", report.differences_count);
}
