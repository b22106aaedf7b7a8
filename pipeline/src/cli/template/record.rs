//! `tidegate template record`: tests of a template from recorded traffic.

use super::Of;
use crate::choice::Choice;
use crate::cli::{self, Which};
use crate::definitions::folder::TestFile;
use crate::definitions::single::Single;
use crate::definitions::trial::{self, Mask, NewTest, Templates};
use crate::log;
use crate::recorded::{Wish, recorded};
use anyhow::{Context, bail};
use serde_json::json;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Tests at most that one call writes.
const TESTS_MAX: u32 = 1_000;

/// Which events become tests, and how.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) of: Of,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    events: Choice,
    /// Events that go to this template, in the place of the folder's own.
    #[arg(long, value_name = "ID")]
    template: Option<String>,
    /// Only events that were refused.
    #[arg(long)]
    rejected: bool,
    /// Only events that were refused for this reason; may be given several times.
    #[arg(long = "code", value_name = "CODE")]
    codes: Vec<String>,
    /// How many events: the newest, equal ones once.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(TESTS_MAX)))]
    count: u32,
    /// Mask the values of these members: names, wherever they stand, /pointers, and asset for the asset's id.
    #[arg(long, value_delimiter = ',', value_name = "FIELD")]
    mask: Vec<String>,
    /// Write over tests of the same events.
    #[arg(long)]
    overwrite: bool,
}

pub(super) fn main(args: &Args, single: &Single) -> anyhow::Result<ExitCode> {
    let (template, _) = single.template().context("the template's table is missing")?;
    let mut mask = Mask::new(&args.mask).map_err(anyhow::Error::msg)?;
    let wish = Wish {
        of: &args.events,
        template: args.template.as_deref().unwrap_or(template.id.as_str()),
        refused: (args.rejected || !args.codes.is_empty()).then_some(&args.codes[..]),
        count: args.count as usize,
    };
    let events = recorded(&log::open_to_read(&args.which.load()?)?, &wish)?;
    if events.is_empty() {
        let without = if args.events.source.is_some() || !args.events.assets.is_empty() { " or to none" } else { "" };
        eprintln!(
            "the log holds no such event that goes to template {}{without}; --source NAME takes those without a template as well",
            wish.template
        );
        return Ok(ExitCode::FAILURE);
    }
    let (mut tests, mut left) = (Vec::new(), Vec::new());
    for event in &events {
        match trial::input(template, event, &mut mask) {
            Ok(test) => tests.push(test),
            Err(why) => left.push(why),
        }
    }
    let unmet = mask.unmet();
    if !unmet.is_empty() {
        bail!("nothing is written: none of {} events has {} to be masked", events.len(), unmet.join(", "));
    }
    write(args, single, &tests, &left)
}

fn write(args: &Args, single: &Single, tests: &[NewTest], left: &[String]) -> anyhow::Result<ExitCode> {
    let templates = Templates::of(&single.folder);
    let (mut told, mut written) = (Vec::new(), 0);
    for test in tests {
        let file = single.new_test(&test.name, &test.text).context("the template's table is missing")?;
        let text = match trial::updated(&templates, &file) {
            Ok(text) => text.unwrap_or_else(|| test.text.clone()),
            Err(fault) => return Ok(cli::faults(&single.placed(vec![*fault]), args.of.json)),
        };
        let is_new = put(single, &file, &text, args.overwrite)?;
        written += usize::from(is_new);
        let name = single.file(&file);
        if !args.of.json {
            println!("{:<8} {name}  {}", if is_new { "written" } else { "kept" }, test.description);
        }
        told.push(json!({ "file": name, "description": test.description, "written": is_new }));
    }
    if args.of.json {
        println!("{}", json!({ "tests": told, "written": written, "left_out": left }));
        return Ok(ExitCode::SUCCESS);
    }
    left.iter().for_each(|why| println!("left out {why}"));
    let kept = tests.len() - written;
    let kept = if kept > 0 { format!(", {kept} were there already") } else { String::new() };
    println!("{written} tests written{kept}; what they expect is what the template makes of them now: read it");
    Ok(ExitCode::SUCCESS)
}

/// Writes a test; tells whether it did.
fn put(single: &Single, file: &TestFile, text: &str, overwrite: bool) -> anyhow::Result<bool> {
    let path = single.path(file);
    let failed = || format!("file {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(failed)?;
    }
    let opened = OpenOptions::new().write(true).create(overwrite).truncate(overwrite).create_new(!overwrite).open(&path);
    match opened {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        opened => opened.and_then(|mut file| file.write_all(text.as_bytes())).map(|()| true).with_context(failed),
    }
}
