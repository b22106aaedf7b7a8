//! Text to bytecode and patterns, once for each tenant and template version. Only what this file compiled is ever loaded.

use crate::script::error::ScriptError;
use crate::script::meter::{Allowance, Meter, STAGES};
use crate::script::state::{LoadError, State};
use crate::script::watch::Watch;
use mlua::Compiler;
use regex::{Regex, RegexBuilder};
use std::rc::Rc;
use std::sync::Arc;
use tidegate_schemas::definition::{Decode, Rule, Template, Transform, Validate};
use tidegate_schemas::limits::{SCRIPT_MEMORY_BYTES_HARD, SCRIPT_SOURCE_BYTES, SCRIPT_STEPS_HARD};
use tidegate_schemas::verdict::StageName;

/// No builtins of the compiler. As such these would call the function itself where a collection is due or the stack is short
/// (which the last collection decides), and the count of steps must not depend on that; or they would work on long data
/// behind the prelude's back.
pub(crate) const CALLED: [&str; 6] = ["tostring", "tonumber", "string.char", "string.sub", "table.unpack", "unpack"];
/// Bytes that a compiled pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A template version, compiled.
pub(crate) struct Compiled {
    /// Bytecode by stage.
    pub(crate) scripts: [Option<Vec<u8>>; 3],
    /// By rule.
    pub(crate) patterns: Vec<Option<Regex>>,
}

/// Compiles every script and pattern of a template.
pub(crate) fn compile(template: &Template) -> Result<Compiled, ScriptError> {
    let mut compiled = Compiled { scripts: [const { None }; 3], patterns: Vec::new() };
    for (index, source) in sources(template).into_iter().enumerate() {
        if let Some(source) = source {
            compiled.scripts[index] = Some(bytecode(STAGES[index], source)?);
        }
    }
    if let Some(Validate::Rules(rules)) = &template.validate {
        compiled.patterns = rules.iter().map(pattern).collect::<Result<_, _>>()?;
    }
    Ok(compiled)
}

fn sources(template: &Template) -> [Option<&str>; 3] {
    let decode = match &template.decode {
        Some(Decode::Script(script)) => Some(script.source.as_str()),
        _ => None,
    };
    let validate = match &template.validate {
        Some(Validate::Script(script)) => Some(script.source.as_str()),
        _ => None,
    };
    let transform = match &template.transform {
        Some(Transform::Script(script)) => Some(script.source.as_str()),
        _ => None,
    };
    [decode, validate, transform]
}

fn bytecode(stage: StageName, source: &str) -> Result<Vec<u8>, ScriptError> {
    let refuse = |line, message| Err(ScriptError { stage, line, message });
    if source.len() > SCRIPT_SOURCE_BYTES {
        return refuse(None, format!("the source has {} bytes, above {SCRIPT_SOURCE_BYTES}", source.len()));
    }
    let compiler = Compiler::new().set_optimization_level(2).set_debug_level(1).set_type_info_level(1).set_disabled_builtins(CALLED);
    match compiler.compile(source) {
        Ok(bytecode) => Ok(bytecode),
        Err(error) => {
            // `:3: Expected …`
            let text = match &error {
                mlua::Error::SyntaxError { message, .. } => message.clone(),
                other => other.to_string(),
            };
            let mut parts = text.trim_start_matches(':').splitn(2, ':');
            match (parts.next().and_then(|n| n.trim().parse().ok()), parts.next()) {
                (Some(line), Some(message)) => refuse(Some(line), message.trim().to_owned()),
                _ => refuse(None, text),
            }
        }
    }
}

fn pattern(rule: &Rule) -> Result<Option<Regex>, ScriptError> {
    let compile = |p: &String| RegexBuilder::new(p).size_limit(PATTERN_BYTES_MAX).build();
    let refuse = |e: regex::Error| {
        let reason = e.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim();
        ScriptError { stage: StageName::Validate, line: None, message: format!("pattern of {}: {reason}", rule.at) }
    };
    rule.pattern.as_ref().map(compile).transpose().map_err(refuse)
}

/// Whether a template may be published: every script compiles, its top level runs within the limits, and it defines its
/// stage's function; every pattern is one.
pub fn check(template: &Template, watch: Arc<Watch>) -> Result<(), ScriptError> {
    let compiled = compile(template)?;
    let Some(first) = compiled.scripts.iter().position(Option::is_some) else { return Ok(()) };
    let failed = |message: String| ScriptError { stage: STAGES[first], line: None, message };
    let meter = Rc::new(Meter::new(watch));
    let state = State::new(false, usize::MAX, false, &meter).map_err(|e| failed(e.to_string()))?;
    let allowance = Allowance {
        steps: template.limits.steps.min(SCRIPT_STEPS_HARD as u64),
        memory: template.limits.memory_bytes.min(SCRIPT_MEMORY_BYTES_HARD as u64) as usize,
        now: 0.0,
        seed: 0,
    };
    match state.load(&compiled, template.fields.iter().map(|f| f.name.as_str()), &meter, allowance) {
        Ok(_) => Ok(()),
        Err(LoadError::Broken(r)) => Err(ScriptError { stage: r.stage, line: r.line, message: r.detail }),
        Err(LoadError::Spent(spent, stage, line)) => {
            Err(ScriptError { stage, line, message: format!("its top level ends with {}", spent.code().as_str()) })
        }
    }
}
