//! `tidegate tap`: a tenant's rows as they are committed.

mod sheet;

use crate::choice::Choice;
use crate::log;
use crate::tap::{Found, Start, Step, Tap, Wish};
use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::ser::{Serialize, SerializeMap, Serializer};
use sheet::Sheet;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_schemas::block::{Condition, Filter, RowRef};
use tidegate_schemas::ids::Partition;
use tidegate_schemas::log::{EventLog, LogName};
use tidegate_schemas::time::Micros;

/// How long one look waits for rows.
const WAIT: Duration = Duration::from_millis(200);
/// A server commits at every tick, whether or not there are rows: without one nothing comes for so long.
const SILENCE: Duration = Duration::from_secs(10);

/// Show a tenant's rows as they are committed, live or from an earlier time on. No sink, cursor or lease notices it.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    of: Choice,
    /// Only rows of this table, by its name or id; or of a system table: rejections, script_runs, script_logs, releases.
    #[arg(long)]
    table: Option<String>,
    /// Only rows that meet this condition, like 'temperature > 30': a field, one of = != < <= > >=, and a value, compared as the
    /// field's type has it. May be given several times: all must hold.
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<Condition>,
    /// Where to begin: beginning, now, or so long ago, like 90s, 10m, 2h, 1d; now unless --since or --until-end is given.
    #[arg(long, value_name = "WHEN")]
    from: Option<When>,
    /// End after so many rows.
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// End at the end of what was committed when it began, instead of waiting for more.
    #[arg(long)]
    until_end: bool,
    #[command(flatten)]
    which: super::Which,
    /// Print one JSON object a row, with all columns.
    #[arg(long)]
    json: bool,
}

/// `--from` as it is written.
#[derive(Clone, Copy, Debug)]
enum When {
    Beginning,
    Now,
    Ago(Micros),
}

impl FromStr for When {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ago = || {
            let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
            let seconds: Micros = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 3_600,
                "d" => 86_400,
                _ => return None,
            };
            Micros::from(number.parse::<u32>().ok()?).checked_mul(seconds * 1_000_000)
        };
        match text {
            "beginning" => Ok(Self::Beginning),
            "now" => Ok(Self::Now),
            _ => ago().map(Self::Ago).ok_or("it is beginning, now, or a number with s, m, h or d, like 10m"),
        }
    }
}

impl Args {
    fn start(&self) -> Start {
        match (self.from, self.of.since) {
            (Some(When::Beginning), _) => Start::Beginning,
            (Some(When::Now), _) => Start::Now,
            (Some(When::Ago(ago)), _) => Start::At(crate::server::now().saturating_sub(ago)),
            // What was received since then was recorded since then.
            (None, Some(since)) => Start::At(since),
            (None, None) if self.until_end => Start::Beginning,
            (None, None) => Start::Now,
        }
    }
}

pub fn main(args: Args) -> anyhow::Result<ExitCode> {
    let tenant = args.of.tenant.clone().context("whose rows? name a tenant: --tenant ID")?;
    let from = args.start();
    let log = log::open_to_read(&args.which.load()?)?;
    let mut silence = Silence::new(Arc::clone(&log), (!args.until_end).then_some(SILENCE));
    let wish = Wish { tenant, of: args.of, table: args.table, filter: Filter(args.conditions), from, until_end: args.until_end };
    let mut tap = Tap::open(log, wish)?;
    if io::stderr().is_terminal() && !args.json && !args.until_end {
        eprintln!("rows show as they are committed; Ctrl-C ends");
    }
    let mut out = Output { to: BufWriter::new(io::stdout().lock()), sheet: (!args.json).then(Sheet::default), left: args.limit };
    loop {
        match tap.advance(WAIT)? {
            Step::Rows(found) => match out.show(&found) {
                Ok(true) => {}
                Ok(false) => return Ok(ExitCode::SUCCESS),
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::from(super::NOBODY_READS)),
                Err(error) => return Err(error).context("output"),
            },
            Step::Gone(range) => {
                let (log, partition) = tap.place();
                let (from, to, log) = (range.start, range.end, log.as_str());
                eprintln!(
                    "tidegate: offsets {from} to {to} of {log} {partition} were deleted before they were read; it goes on behind them"
                );
            }
            Step::Nothing if !is_read() => return Ok(ExitCode::from(super::NOBODY_READS)),
            Step::Nothing => silence.look(tap.place().1),
            Step::End => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Whether somebody still reads what is printed. A pipe that is closed at its other end would show with the next row only, and that
/// may never come.
fn is_read() -> bool {
    let out = io::stdout();
    let mut looked = [PollFd::new(&out, PollFlags::empty())];
    match poll(&mut looked, Some(&Timespec::default())) {
        Ok(_) => !looked[0].revents().intersects(PollFlags::ERR | PollFlags::HUP),
        Err(_) => true,
    }
}

/// Says once what a live tap waits for, where nobody commits anything.
struct Silence {
    log: Arc<dyn EventLog>,
    /// How long; none where it is of no interest.
    patience: Option<Duration>,
    since: Instant,
    /// Where the commits ended then.
    end: Option<u64>,
}

impl Silence {
    fn new(log: Arc<dyn EventLog>, patience: Option<Duration>) -> Self {
        Self { log, patience, since: Instant::now(), end: None }
    }

    fn look(&mut self, partition: Partition) {
        let Some(patience) = self.patience.filter(|patience| self.end.is_none() || self.since.elapsed() >= *patience) else { return };
        // Where it cannot be asked, the tap itself will say so.
        let Ok(end) = self.log.bounds(LogName::Commits, partition).map(|bounds| Some(bounds.end)) else { return };
        if end == self.end {
            eprintln!(
                "tidegate: nothing was committed for {} s: rows show once a server processes events into this log (tidegate run)",
                patience.as_secs()
            );
            self.patience = None;
        }
        (self.since, self.end) = (Instant::now(), end);
    }
}

/// Where rows go.
struct Output<W: Write> {
    to: W,
    /// Missing where rows are shown as JSON.
    sheet: Option<Sheet>,
    /// Rows to show still.
    left: Option<u64>,
}

impl<W: Write> Output<W> {
    /// Shows rows at once; tells whether more are wanted.
    fn show(&mut self, found: &Found) -> io::Result<bool> {
        let wanted = self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let rows: Vec<RowRef<'_>> = found.rows().take(wanted).collect();
        match &mut self.sheet {
            Some(sheet) => sheet.write(&mut self.to, found, &rows)?,
            None => {
                for row in &rows {
                    serde_json::to_writer(&mut self.to, &Object { table: &found.table, row: *row })?;
                    self.to.write_all(b"\n")?;
                }
            }
        }
        self.to.flush()?;
        self.left = self.left.map(|left| left - rows.len() as u64);
        Ok(self.left != Some(0))
    }
}

/// A row and its table. No column begins with an underscore but those of provenance.
struct Object<'a> {
    table: &'a str,
    row: RowRef<'a>,
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("_table", self.table)?;
        self.row.cells().try_for_each(|(name, cell)| map.serialize_entry(name, &cell))?;
        map.end()
    }
}
