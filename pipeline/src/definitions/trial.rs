//! Tests of templates: an event goes through the very stages that production runs, and its outcome is compared.
//!
//! A test is a JSON object in `templates/<owner>/<template>/tests/*.json`:
//! ```json
//! { "description": "below zero",
//!   "bytes_hex": "0175640367f6ff046865", "fPort": 85,
//!   "decoded": { "battery": 100, "temperature": -1, "humidity": 50.5 },
//!   "rows": [ { "temperature": -1, "humidity": 50.5, "battery": 100 } ] }
//! ```
//! - Input: `event` is the event as sent; `bytes_hex` puts a payload where the template looks for it, in its encoding, and
//!   `fPort` its port; without a place for the payload the bytes are the event. `asset` (id), `attributes` (the asset's),
//!   `meta` (headers that the source lets through) and `received_at` (RFC 3339) are what scripts may ask for besides;
//!   `occurred_at` (RFC 3339) and `event_type` are what the source finds where it looks for them.
//! - Expected, each optional but one of the last three: `decoded` (what `decode` returns as `data`), `valid` (what
//!   `validate` says), and `rows`, `rejected` (`{"stage", "code"}`) or `filtered` (`true`).
//! - A row lists every declared field that is not null; `event_type`, `occurred_at` (RFC 3339) and `attributes` are
//!   compared where they are given. Numbers may differ in the last digits of a float.

mod advice;
mod compare;
mod cost;
mod form;
mod lines;
mod mask;
mod record;
mod stages;
mod trace;
mod update;

pub use advice::{Advice, advice};
pub use compare::{short, short_text};
pub use cost::Cost;
pub use lines::ScriptLine;
pub use mask::Mask;
pub use record::{NewTest, input};
pub use stages::check_scripts;
pub use trace::{Logged, Refused, StageTrace, Taken, Trace, trace};
pub use update::line;

use super::folder::{Folder, TestFile};
use crate::config::place::{Fault, FilePlace};
use form::TestForm;
use stages::{Ended, Input};
use std::collections::BTreeMap;
use tidegate_schemas::definition::{Definition, DefinitionKey, Template};
use tidegate_schemas::ids::TableId;
use tidegate_schemas::table::Table;
use tidegate_schemas::verdict::StageName;

/// What mends a test that cannot be read.
const FORM: &str = "see the form of tests: tidegate manual definitions";
/// What mends a test that fails.
const OUTCOME: &str = "correct the template, or what the test expects";

/// A folder's templates and tables, to be found by its tests.
pub struct Templates<'a> {
    templates: BTreeMap<DefinitionKey, &'a Template>,
    tables: BTreeMap<&'a TableId, &'a Table>,
}

impl<'a> Templates<'a> {
    /// Those of a folder.
    pub fn of(folder: &'a Folder) -> Self {
        let mut found = Self { templates: BTreeMap::new(), tables: BTreeMap::new() };
        for definition in &folder.definitions {
            match definition {
                Definition::Template(template) => drop(found.templates.insert(definition.key(), template)),
                Definition::Table(table) => drop(found.tables.insert(&table.id, table)),
                _ => {}
            }
        }
        found
    }

    /// A template with its table. A folder is whole before its tests run.
    pub fn find(&self, key: &DefinitionKey) -> Option<(&'a Template, &'a Table)> {
        let template = *self.templates.get(key)?;
        Some((template, self.tables.get(&template.table)?))
    }
}

/// What differs from what a test expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What was found, and what was expected.
    pub text: String,
    /// The script's line that made it, or sets the member that differs.
    pub at: Option<ScriptLine>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.at {
            Some(at) => write!(f, "{} ({at})", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// A test that was run.
#[derive(Clone, Debug)]
pub struct Tested {
    /// The test's own words.
    pub description: String,
    /// None where it passed.
    pub differences: Vec<Difference>,
}

/// Runs one test for `check`.
pub fn run(templates: &Templates<'_>, test: &TestFile, faults: &mut Vec<Fault>) {
    match tested(templates, test) {
        Ok(tested) => faults.extend(
            tested
                .differences
                .iter()
                .map(|difference| Fault::new(FilePlace::file(&test.file), format!("test {:?}: {difference}", tested.description), OUTCOME)),
        ),
        Err(fault) => faults.push(*fault),
    }
}

/// Runs one test.
///
/// # Errors
/// A test that is none.
pub fn tested(templates: &Templates<'_>, test: &TestFile) -> Result<Tested, Box<Fault>> {
    let form = form(test)?;
    let mut tested = Tested { description: form.description.clone(), differences: Vec::new() };
    let Some((template, table)) = templates.find(&test.template) else { return Ok(tested) };
    if form.ends() != 1 {
        let detail = match form.ends() {
            0 => "it expects nothing yet: write rows, rejected or filtered, or let `tidegate template test DIR --update` do so",
            _ => "exactly one of rows, rejected and filtered is expected",
        };
        return Err(of_form(test, &form, detail));
    }
    let input = form.input(template).map_err(|detail| of_form(test, &form, &detail))?;
    tested.differences = differences(template, table, &form, &input, &stages::run(template, table, &input));
    Ok(tested)
}

/// The text of a test that expects what is found now; nothing where it does so already.
///
/// # Errors
/// As [`tested`]; only that an end is expected is not asked for.
pub fn updated(templates: &Templates<'_>, test: &TestFile) -> Result<Option<String>, Box<Fault>> {
    let form = form(test)?;
    let Some((template, table)) = templates.find(&test.template) else { return Ok(None) };
    let input = form.input(template).map_err(|detail| of_form(test, &form, &detail))?;
    let ended = stages::run(template, table, &input);
    if form.ends() == 1 && differences(template, table, &form, &input, &ended).is_empty() {
        return Ok(None);
    }
    Ok(Some(update::text(template, table, &form, &input, &ended)))
}

/// What the event of a test costs.
///
/// # Errors
/// A test that is none.
pub fn cost(templates: &Templates<'_>, test: &TestFile, events: usize) -> Result<Option<(String, Cost)>, Box<Fault>> {
    let form = form(test)?;
    let Some((template, table)) = templates.find(&test.template) else { return Ok(None) };
    let measured = form.input(template).and_then(|input| cost::cost(template, table, &input, events));
    let cost = measured.map_err(|detail| of_form(test, &form, &detail))?;
    Ok(Some((form.description, cost)))
}

fn form(test: &TestFile) -> Result<TestForm<'_>, Box<Fault>> {
    serde_json::from_str(&test.text).map_err(|e| {
        let place = FilePlace { at: Some((e.line(), e.column())), ..FilePlace::file(&test.file) };
        let message = e.to_string();
        Box::new(Fault::new(place, message.split(" at line ").next().unwrap_or_default(), FORM))
    })
}

fn of_form(test: &TestFile, form: &TestForm<'_>, detail: &str) -> Box<Fault> {
    Box::new(Fault::new(FilePlace::file(&test.file), format!("test {:?}: {detail}", form.description), FORM))
}

fn differences(template: &Template, table: &Table, form: &TestForm<'_>, input: &Input, ended: &Ended) -> Vec<Difference> {
    let mut found = Vec::new();
    let by_name = |stage: StageName| {
        move |(name, text): compare::Found| Difference { text, at: name.and_then(|name| lines::that_sets(template, stage, &name)) }
    };
    if let Some(expected) = &form.decoded {
        let mut members = Vec::new();
        match stages::decoded(template, table, input) {
            Some(decoded) => compare::values("decoded", expected, &decoded, &mut members),
            None => members.push((None, format!("decode returned nothing, expected {}", short(expected)))),
        }
        found.extend(members.into_iter().map(by_name(StageName::Decode)));
    }
    let refused = matches!(ended, Ended::Rejected(r) if r.stage == StageName::Validate);
    if let Some(valid) = form.valid.filter(|valid| *valid == refused) {
        found.push(Difference { text: format!("validate says {}, expected {valid}", !refused), at: None });
    }
    match (&form.rows, &form.rejected, ended) {
        (Some(expected), _, Ended::Rows(rows)) => {
            found.extend(compare::rows(expected, rows, table).into_iter().map(by_name(StageName::Transform)));
        }
        (_, Some(expected), Ended::Rejected(found)) if expected.stage == found.stage && expected.code == found.code => {}
        (None, None, Ended::Filtered) => {}
        (rows, rejected, _) => {
            let wanted = match (rows, rejected) {
                (Some(rows), _) => compare::counted(rows.len()),
                (_, Some(r)) => format!("rejection {} at {}", r.code, r.stage.as_str()),
                _ => "no output".into(),
            };
            let at = if let Ended::Rejected(r) = ended { lines::of(template, r) } else { None };
            found.push(Difference { text: format!("{}, expected {wanted}", compare::ended(ended, table)), at });
        }
    }
    found
}
