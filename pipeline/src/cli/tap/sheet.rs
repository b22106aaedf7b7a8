//! Rows as lines that a person reads: columns aligned by the rows that are on hand, and a header again now and then, where the
//! widths are chosen anew.

use crate::tap::Found;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use tidegate_schemas::block::{CellRef, RowRef, RowsRead};
use tidegate_schemas::time;

/// Lines between two headers: about a screen.
const HEADER_EVERY: usize = 40;
/// Characters of a value that are shown.
const CELL_MAX: usize = 48;
/// What is the same in all lines, or says less than others: `--json` has everything.
const LEFT_OUT: [&str; 6] = ["tenant", "organization", "received_at", "recorded_at", "content_type", "original"];
/// What system tables have nothing without.
const LEFT_OUT_OF_TENANTS: [&str; 2] = ["event_id", "template"];

/// What was written last.
#[derive(Default)]
pub struct Sheet {
    table: String,
    names: Vec<String>,
    lines: usize,
    /// By table and column: as wide as anything that was shown.
    widths: BTreeMap<(String, String), usize>,
}

impl Sheet {
    /// Writes rows of one table.
    pub fn write(&mut self, to: &mut impl Write, found: &Found, rows: &[RowRef<'_>]) -> io::Result<()> {
        let shown = columns(found.block());
        for lines in rows.chunks(HEADER_EVERY) {
            let cells: Vec<Vec<String>> = lines.iter().map(|row| shown.iter().map(|(i, _)| text(&row.cell(*i))).collect()).collect();
            self.header(to, &found.table, &shown, &cells)?;
            for (row, cells) in lines.iter().zip(&cells) {
                let mut line = String::new();
                for ((column, name), cell) in shown.iter().zip(cells) {
                    let is_number = matches!(row.cell(*column), CellRef::I64(_) | CellRef::F64(_));
                    pad(&mut line, cell, self.width(&found.table, name), is_number);
                }
                writeln!(to, "{}", line.trim_end())?;
            }
            self.lines += lines.len();
        }
        Ok(())
    }

    /// A header where one is due.
    fn header(&mut self, to: &mut impl Write, table: &str, shown: &[(usize, &str)], cells: &[Vec<String>]) -> io::Result<()> {
        let same = self.table == table && self.names.iter().map(String::as_str).eq(shown.iter().map(|(_, name)| *name));
        if same && self.lines < HEADER_EVERY {
            return Ok(());
        }
        if !self.table.is_empty() {
            writeln!(to)?;
        }
        let mut line = String::new();
        for (i, (_, name)) in shown.iter().enumerate() {
            let widest = cells.iter().map(|cells| cells[i].chars().count()).max().unwrap_or(0);
            let width = widest.max(name.len()).max(self.width(table, name));
            self.widths.insert((table.to_owned(), (*name).to_owned()), width);
            pad(&mut line, name, width, false);
        }
        writeln!(to, "{table}\n{}", line.trim_end())?;
        self.table = table.to_owned();
        self.names = shown.iter().map(|(_, name)| (*name).to_owned()).collect();
        self.lines = 0;
        Ok(())
    }

    fn width(&self, table: &str, name: &str) -> usize {
        self.widths.get(&(table.to_owned(), name.to_owned())).copied().unwrap_or(0)
    }
}

/// The columns that are shown, with their names: the time comes first.
fn columns(block: &RowsRead) -> Vec<(usize, &str)> {
    let fields = block.schema().fields().iter().map(|f| f.name().as_str()).enumerate();
    // Every row of a tenant's table says when it happened; no system table does.
    let is_system = block.schema().column_with_name("occurred_at").is_none();
    let time = if is_system { "recorded_at" } else { "occurred_at" };
    let is_shown = |name: &str| {
        let left_out = LEFT_OUT.contains(&name) || (!is_system && LEFT_OUT_OF_TENANTS.contains(&name));
        name != time && !left_out && !name.starts_with('_')
    };
    fields.clone().filter(|(_, name)| *name == time).chain(fields.filter(|(_, name)| is_shown(name))).collect()
}

fn pad(line: &mut String, text: &str, width: usize, right: bool) {
    // Into a text nothing fails.
    let _ = if right { write!(line, "{text:>width$}  ") } else { write!(line, "{text:<width$}  ") };
}

/// A value as one short piece of a line. What devices send may move a terminal's cursor: it is shown and not obeyed.
fn text(cell: &CellRef<'_>) -> String {
    match cell {
        CellRef::Null => String::new(),
        CellRef::Bool(v) => v.to_string(),
        CellRef::I64(v) => v.to_string(),
        CellRef::F64(_) => serde_json::to_string(cell).unwrap_or_default(),
        CellRef::Text(v) => shown(v),
        CellRef::Timestamp(v) => time::format(*v),
        CellRef::Bytes(v) => shown(&String::from_utf8_lossy(v)),
        CellRef::Map(pairs) => {
            let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={}", value.unwrap_or_default())).collect();
            shown(&pairs.join(" "))
        }
    }
}

fn shown(text: &str) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == CELL_MAX {
            out.push('…');
            break;
        }
        // Marks of direction would turn the line around.
        match c {
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.extend(c.escape_unicode()),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}
