//! Which line of a script is to blame.

use tidegate_schemas::definition::{Decode, Script, Template, Transform, Validate};
use tidegate_schemas::verdict::{Rejection, StageName};

/// A line of a template's script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptLine {
    /// `decode.luau`, …
    pub file: &'static str,
    /// From 1.
    pub line: usize,
}

impl std::fmt::Display for ScriptLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The script of a stage, with its file's name.
pub(super) fn script_of(template: &Template, stage: StageName) -> Option<(&'static str, &Script)> {
    match (stage, &template.decode, &template.validate, &template.transform) {
        (StageName::Decode, Some(Decode::Script(script)), ..) => Some(("decode.luau", script)),
        (StageName::Validate, _, Some(Validate::Script(script)), _) => Some(("validate.luau", script)),
        (StageName::Transform, .., Some(Transform::Script(script))) => Some(("transform.luau", script)),
        _ => None,
    }
}

/// The line to blame for a rejection: that which raised, else that which sets what was refused.
pub(super) fn of(template: &Template, rejection: &Rejection) -> Option<ScriptLine> {
    match rejection.line {
        Some(line) => Some(ScriptLine { file: script_of(template, rejection.stage)?.0, line: usize::try_from(line).ok()? }),
        None => that_sets(
            template,
            rejection.stage,
            rejection.pointer.rsplit('/').find(|step| step.parse::<usize>().is_err()).filter(|name| !name.is_empty())?,
        ),
    }
}

/// The first line of a stage's script that sets a member of this name. Where rows are made by name, that is the decoder's.
pub(super) fn that_sets(template: &Template, stage: StageName, name: &str) -> Option<ScriptLine> {
    let stage = if stage == StageName::Transform && template.transform.is_none() { StageName::Decode } else { stage };
    let (file, script) = script_of(template, stage)?;
    let line = script.source.lines().position(|line| sets(line.split("--").next().unwrap_or_default(), name))?;
    Some(ScriptLine { file, line: line + 1 })
}

/// Whether a line has `name =`, `.name =` or `["name"] =`.
fn sets(line: &str, name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| {
        let (before, after) = (&line[..at], line[at + name.len()..].trim_start_matches(['"', '\'']));
        let after = after.trim_start_matches(']').trim_start();
        !before.ends_with(word) && after.starts_with('=') && !after.starts_with("==")
    })
}
