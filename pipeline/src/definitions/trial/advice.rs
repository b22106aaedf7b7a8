//! What is no fault, and yet hardly meant: names beside those that are declared, pointers that no test's event has, a template
//! without tests. Advice fails nothing; what is told follows from the tests alone.

use super::stages::{self, Ended, Input};
use super::{Templates, form, lines};
use crate::definitions::folder::{Folder, TestFile};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::Path;
use tidegate_schemas::definition::{Definition, Template, Transform, Validate};
use tidegate_schemas::row::{Cell, Row};
use tidegate_schemas::table::Table;
use tidegate_schemas::verdict::StageName;

/// One piece of advice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Advice {
    /// The file that it is about, as in a folder of definitions; `:LINE` behind it where one is to blame.
    pub file: String,
    /// What stands there, and what may be meant.
    pub text: String,
}

impl Advice {
    /// For people, with the file as it lies: below `dir`, which stands for `prefix` of a folder of definitions.
    pub fn told(&self, dir: &Path, prefix: &str) -> String {
        format!("{}: {}", dir.join(self.file.strip_prefix(prefix).unwrap_or(&self.file)).display(), self.text)
    }
}

/// What the tests of a folder's templates let one see.
pub fn advice(folder: &Folder) -> Vec<Advice> {
    let templates = Templates::of(folder);
    let mut all = BTreeSet::new();
    for definition in &folder.definitions {
        let Definition::Template(template) = definition else { continue };
        let key = definition.key();
        let Some((_, table)) = templates.find(&key) else { continue };
        let tests: Vec<&TestFile> = folder.tests.iter().filter(|test| test.template == key).collect();
        let seen: Vec<Seen> = tests.iter().filter_map(|test| Seen::of(template, table, test)).collect();
        let prefix = format!("templates/{}/{}/", template.owner, template.id);
        if tests.is_empty() {
            let text = "the template has no tests: write one into tests, or let `tidegate template record` do so from recorded traffic";
            all.insert(Advice { file: format!("{prefix}template.toml"), text: text.to_owned() });
        }
        seen.iter().for_each(|seen| names(template, table, seen, &prefix, &mut all));
        if !seen.is_empty() {
            pointers(template, &seen, &prefix, &mut all);
            values(template, table, &seen, &prefix, &mut all);
        }
    }
    all.into_iter().collect()
}

/// What a test's event is, and becomes.
struct Seen {
    event: Value,
    decoded: Option<Value>,
    rows: Vec<Row>,
}

impl Seen {
    fn of(template: &Template, table: &Table, test: &TestFile) -> Option<Self> {
        let input: Input = form(test).ok()?.input(template).ok()?;
        let rows = if let Ended::Rows(rows) = stages::run(template, table, &input) { rows } else { Vec::new() };
        let event = if input.raw { Value::Null } else { serde_json::from_slice(&input.bytes).unwrap_or_default() };
        Some(Self { event, decoded: stages::decoded(template, table, &input), rows })
    }

    /// The value at a pointer of a rule or a mapping.
    fn find(&self, pointer: &str) -> Option<&Value> {
        match (pointer.strip_prefix("/decoded"), &self.decoded) {
            (Some(below), Some(decoded)) if below.is_empty() || below.starts_with('/') => decoded.pointer(below),
            _ => self.event.pointer(pointer),
        }
    }
}

/// Names that a script gives and the template does not declare, where one that it declares is close and has no value.
fn names(template: &Template, table: &Table, seen: &Seen, prefix: &str, all: &mut BTreeSet<Advice>) {
    for row in &seen.rows {
        let has_value = |name: &str| table.fields.iter().zip(&row.cells).any(|(field, cell)| field.name == name && *cell != Cell::Null);
        let free: Vec<&str> = template.fields.iter().map(|f| f.name.as_str()).filter(|name| !has_value(name)).collect();
        let mut told = |name: &str, becomes: &str| {
            let Some(meant) = closest(name, free.iter().copied()) else { return };
            let at = lines::that_sets(template, StageName::Transform, name);
            let file = at.map_or_else(|| "template.toml".to_owned(), |at| at.to_string());
            let text = format!("field `{name}` is not declared and {becomes}; did you mean `{meant}`?");
            all.insert(Advice { file: format!("{prefix}{file}"), text });
        };
        row.attributes.iter().for_each(|(name, _)| told(name, "goes to attributes"));
        if template.transform.is_none() {
            let members = seen.decoded.as_ref().unwrap_or(&seen.event).as_object().into_iter().flat_map(Map::keys);
            members.filter(|name| !template.fields.iter().any(|f| f.name == **name)).for_each(|name| told(name, "is left out"));
        }
    }
}

/// Declared fields that are empty in every row.
fn values(template: &Template, table: &Table, seen: &[Seen], prefix: &str, all: &mut BTreeSet<Advice>) {
    let mut rows = seen.iter().flat_map(|seen| &seen.rows).peekable();
    if rows.peek().is_none() {
        return;
    }
    let mut empty: BTreeSet<&str> = template.fields.iter().map(|f| f.name.as_str()).collect();
    for row in rows {
        for (field, _) in table.fields.iter().zip(&row.cells).filter(|(_, cell)| **cell != Cell::Null) {
            empty.remove(field.name.as_str());
        }
    }
    all.extend(empty.into_iter().map(|name| {
        let text = format!("field `{name}` has a value in no test's row: is it misspelt in a script, or is a test missing?");
        Advice { file: format!("{prefix}template.toml"), text }
    }));
}

/// Pointers of rules and entries that lead to nothing in every event.
fn pointers(template: &Template, seen: &[Seen], prefix: &str, all: &mut BTreeSet<Advice>) {
    let rules = match &template.validate {
        Some(Validate::Rules(rules)) => rules.iter().map(|rule| ("[[validate]]: at", rule.at.as_str())).collect(),
        _ => Vec::new(),
    };
    let entries = match &template.transform {
        Some(Transform::Mapping(entries)) => {
            entries.iter().filter_map(|entry| Some(("[[transform]]: from", entry.from.as_deref()?))).collect()
        }
        _ => Vec::new(),
    };
    for (what, pointer) in rules.into_iter().chain(entries) {
        if seen.iter().any(|seen| seen.find(pointer).is_some()) {
            continue;
        }
        let (parent, name) = pointer.rsplit_once('/').unwrap_or_default();
        let beside = seen.iter().filter_map(|seen| if parent.is_empty() { Some(&seen.event) } else { seen.find(parent) });
        let beside: BTreeSet<&str> = beside.filter_map(Value::as_object).flat_map(Map::keys).map(String::as_str).collect();
        let meant = closest(name, beside.into_iter()).map(|name| format!("; did you mean {parent}/{name}?")).unwrap_or_default();
        let text = format!("{what} = {pointer:?} is in no test's event{meant}");
        all.insert(Advice { file: format!("{prefix}template.toml"), text });
    }
}

/// The name that was most likely meant, where one is close: apart from case and `_`, one letter in short names and two in others
/// are wrong. Digits tell names apart on purpose.
fn closest<'n>(name: &str, among: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let plain = |text: &str| text.to_lowercase().replace(['_', '-', '.', ' '], "");
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let wanted = plain(name);
    let most = match wanted.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    };
    let near = among.filter(|other| *other != name && digits(other) == digits(name));
    near.map(|other| (distance(&wanted, &plain(other)), other)).filter(|(steps, _)| *steps <= most).min().map(|(_, other)| other)
}

/// Letters to put in, take out, replace or swap with their neighbour: Damerau and Levenshtein's distance, each place changed once.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let (mut before, mut last): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=b.len()).collect());
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let mut least = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_close_is_meant() {
        for (name, among, meant) in [
            ("temprature", &["temperature", "humidity"][..], Some("temperature")),
            ("tempreature", &["temperature"], Some("temperature")),
            ("Temperature", &["temperature"], Some("temperature")),
            ("batteryVoltage", &["battery_voltage"], Some("battery_voltage")),
            ("co", &["co2"], None),
            ("pm25", &["pm10"], None),
            ("temperature2", &["temperature1"], None),
            ("hum", &["sum", "num"], Some("num")),
            ("note", &["temperature"], None),
            ("id", &["ip"], None),
        ] {
            assert_eq!(closest(name, among.iter().copied()), meant, "{name}");
        }
    }
}
