//! One payload, stage by stage: what `tidegate template run` shows.

use super::compare::{members, value_rows};
use super::form::{TestForm, around};
use super::lines::{self, script_of};
use super::stages::{self, Ended, Input};
use serde::Serialize;
use serde_json::{Map, Value};
use tidegate_schemas::definition::{Template, Transform, Validate};
use tidegate_schemas::limits::EVENT_BYTES_MAX;
use tidegate_schemas::table::Table;
use tidegate_schemas::time::Micros;
use tidegate_schemas::verdict::StageName;

/// What came of a payload.
#[derive(Debug, Serialize)]
pub struct Trace {
    /// Id and version, as rows carry them.
    pub template: String,
    /// The event as a source would have it: text, or the hex digits of what is none.
    pub event: String,
    /// The asset that sent it.
    pub asset: String,
    /// What each stage did.
    pub stages: Vec<StageTrace>,
    /// What decode returned as `data`, where it is a script and got so far.
    pub decoded: Option<Value>,
    /// What decode returned as `warnings`: they change nothing.
    pub warnings: Vec<Value>,
    /// Steps of all stages, and how many there may be.
    pub steps: u64,
    /// As `limits.steps`.
    pub steps_max: u64,
    /// Bytes of the script state after the event, libraries and scripts included.
    pub memory_bytes: usize,
    /// As `limits.memory_bytes`.
    pub memory_bytes_max: u64,
    /// What scripts logged.
    pub log: Vec<Logged>,
    /// `rows`, `filtered` or `rejected`.
    pub end: &'static str,
    /// The rows, each as a test states it.
    pub rows: Vec<Map<String, Value>>,
    /// Why there are none.
    pub rejected: Option<Refused>,
}

/// One stage of a trace.
#[derive(Debug, Serialize)]
pub struct StageTrace {
    /// Its name.
    pub stage: &'static str,
    /// What decides: a script, rules, a mapping.
    pub by: String,
    /// Whether the event came so far.
    pub reached: bool,
    /// Steps of its script.
    pub steps: Option<u64>,
}

/// A line that a script logged.
#[derive(Debug, Serialize)]
pub struct Logged {
    /// The stage.
    pub stage: &'static str,
    /// The line.
    pub text: String,
}

/// A rejection, as the table `rejections` has it.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// Where.
    pub stage: &'static str,
    /// Why.
    pub code: String,
    /// For people.
    pub detail: String,
    /// The place in the document.
    pub pointer: String,
    /// The script's line.
    pub at: Option<String>,
}

/// How a payload is to be taken, where it does not say so itself.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// The LoRaWAN port.
    pub f_port: Option<u32>,
    /// The asset's id.
    pub asset: Option<String>,
    /// The event around the device's bytes alone.
    pub event: Option<String>,
    /// When the request came.
    pub received_at: Option<Micros>,
}

/// Runs a payload: the file of a test; an event as its source would send it; or, where the template says where in an event
/// the payload lies, the device's bytes alone, as they are or as hex digits.
///
/// # Errors
/// Why it is none of these.
pub fn trace(template: &Template, table: &Table, payload: &[u8], taken: &Taken) -> Result<Trace, String> {
    let mut input = input(template, payload, taken)?;
    input.received_at = taken.received_at.unwrap_or(input.received_at);
    if input.bytes.len() > EVENT_BYTES_MAX {
        return Err(format!("an event of {} bytes, above {EVENT_BYTES_MAX}", input.bytes.len()));
    }
    let seen = stages::through(template, table, &input).map_err(|r| r.detail)?;
    let decoded = script_of(template, StageName::Decode).and_then(|_| stages::decoded(template, table, &input));
    let mut event = seen.event;
    let (runs, notes) = (seen.runs, std::mem::take(&mut event.notes));
    let ended = stages::ended(event.progress, seen.rows);
    let refused_at = if let Ended::Rejected(r) = &ended { Some(r.stage) } else { None };
    let steps_of = |stage: StageName| runs.iter().find(|r| r.stage == stage.as_str()).map(|r| r.steps);
    let order = [StageName::Decode, StageName::Validate, StageName::Transform];
    let last = refused_at.and_then(|at| order.iter().position(|s| *s == at)).unwrap_or(order.len());
    let stages = order.into_iter().enumerate().map(|(i, stage)| StageTrace {
        stage: stage.as_str(),
        by: by(template, stage),
        reached: i <= last,
        steps: steps_of(stage),
    });
    Ok(Trace {
        template: seen.label,
        event: shown(&input),
        asset: input.asset.clone(),
        stages: stages.collect(),
        decoded,
        warnings: stages::warnings(template, table, &input),
        steps: runs.iter().map(|r| r.steps).sum(),
        steps_max: template.limits.steps,
        memory_bytes: seen.memory_bytes,
        memory_bytes_max: template.limits.memory_bytes,
        log: notes.into_iter().map(|n| Logged { stage: n.stage.as_str(), text: n.text }).collect(),
        end: ended.word(),
        rows: if let Ended::Rows(rows) = &ended { value_rows(rows, table, &members(true)) } else { Vec::new() },
        rejected: if let Ended::Rejected(r) = &ended {
            let at = lines::of(template, r).map(|l| l.to_string());
            Some(Refused { stage: r.stage.as_str(), code: r.code.clone(), detail: r.detail.clone(), pointer: r.pointer.clone(), at })
        } else {
            None
        },
    })
}

/// What is wrong with an `--event` that has nothing to go around.
const NOT_AROUND: &str = "--event is what goes around the device's bytes alone";
/// And with a port.
const NOT_BESIDE: &str = "--f-port stands beside the device's bytes alone";

/// What is given that only belongs to a device's bytes.
fn misplaced(taken: &Taken) -> Option<&'static str> {
    taken.event.as_ref().map(|_| NOT_AROUND).or(taken.f_port.map(|_| NOT_BESIDE))
}

fn by(template: &Template, stage: StageName) -> String {
    if let Some((file, _)) = script_of(template, stage) {
        return file.to_owned();
    }
    match (stage, &template.validate, &template.transform) {
        (StageName::Validate, Some(Validate::Rules(rules)), _) => format!("{} rules", rules.len()),
        (StageName::Transform, _, Some(Transform::Mapping(entries))) => format!("a mapping of {} fields", entries.len()),
        (StageName::Transform, ..) => "fields by their names".into(),
        _ => "nothing".into(),
    }
}

fn input(template: &Template, payload: &[u8], taken: &Taken) -> Result<Input, String> {
    let text = std::str::from_utf8(payload).ok();
    if let Some(form) =
        text.and_then(|t| serde_json::from_str::<TestForm<'_>>(t).ok()).filter(|f| f.event.is_some() || f.bytes_hex.is_some())
    {
        if let Some(what) = misplaced(taken) {
            return Err(format!("{what}, and this is a test, which has its own"));
        }
        let mut input = form.input(template)?;
        if let Some(asset) = &taken.asset {
            input.asset.clone_from(asset);
        }
        return Ok(input);
    }
    let in_event = template.payload.as_ref().map(|p| p.at.is_some());
    let is_event = text.is_some_and(|t| serde_json::from_str::<Map<String, Value>>(t).is_ok());
    let is_bytes = in_event == Some(true) && !is_event;
    if let Some(what) = misplaced(taken).filter(|_| !is_bytes) {
        let why = if is_event { "this is an event already" } else { "the template has no place for them in an event (payload.at)" };
        return Err(format!("{what}, and {why}"));
    }
    if taken.f_port.is_some() && template.payload.as_ref().is_some_and(|p| p.f_port.is_none()) {
        return Err(format!("{NOT_BESIDE}, and the template has no place for it in an event (payload.f_port)"));
    }
    let (bytes, raw) = match in_event {
        // Bytes of the device: as digits where people wrote them, else as they are.
        Some(true) if is_bytes => around(template, &of_device(text, payload)?, taken.f_port, taken.event.as_deref())?,
        // An object is what a source of JSON would send: the stages after decode see it, as in production.
        Some(false) => (payload.to_vec(), !is_event),
        _ => (payload.to_vec(), false),
    };
    let asset = taken.asset.clone().unwrap_or_else(|| "test-asset".into());
    let (attributes, meta) = Default::default();
    Ok(Input { bytes: bytes.into(), raw, asset, attributes, meta, received_at: 0, occurred_at: None, event_type: None })
}

/// What people wrote: hex digits, or the bytes as they are. What looks like a slip of either is told.
fn of_device(text: Option<&str>, payload: &[u8]) -> Result<Vec<u8>, String> {
    let Some(text) = text else { return Ok(payload.to_vec()) };
    if text.trim_start().starts_with('{')
        && let Err(error) = serde_json::from_str::<Value>(text)
    {
        return Err(format!("it begins like a JSON object and is none: {error}"));
    }
    if text.trim_start().starts_with('[') && serde_json::from_str::<Vec<f64>>(text).is_ok() {
        return Err("it is a list of numbers: write the device's bytes as hex digits".into());
    }
    let digits: String = text.split_whitespace().collect();
    let digits = digits.strip_prefix("0x").or(digits.strip_prefix("0X")).unwrap_or(&digits);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(payload.to_vec());
    }
    hex::decode(digits).map_err(|_| format!("it has {} hex digits, and two make a byte", digits.len()))
}

fn shown(input: &Input) -> String {
    match std::str::from_utf8(&input.bytes) {
        Ok(text) if !input.raw => text.trim_end().to_owned(),
        _ => hex::encode(&input.bytes),
    }
}
