//! Runs a bundle's events through adjacent script stages.

use crate::event::{Bundle, EpochContext, Event, Progress};
use crate::script::compile::Compiled;
use crate::script::driver::{Ended, Run, Transforming};
use crate::script::enter;
use crate::script::error::describe;
use crate::script::leave::{self, Budget, Containers, Lent};
use crate::script::meter::{Allowance, Meter, STAGES, Spent};
#[cfg(feature = "oracle")]
use crate::script::oracle;
use crate::script::raw::{self, Crossed};
use crate::script::state::{Environment, Slot, State};
use crate::script::tide::{is_memory, seed};
use crate::script::{Host, metrics};
use crate::stages::transform::fields::{Fields, Problem};
use mlua::Lua;
use std::collections::BTreeMap;
use std::ops::Range;
use tidegate_schemas::block::ScriptRun;
use tidegate_schemas::catalog::{PinnedSource, PinnedTemplate};
use tidegate_schemas::commit::Fault;
use tidegate_schemas::document::{Document, Lookup};
use tidegate_schemas::ids::TenantId;
use tidegate_schemas::limits::{RESULT_BYTES_MAX_HARD, SCRIPT_MEMORY_BYTES_HARD, SCRIPT_STEPS_HARD};
use tidegate_schemas::rows::Rows;
use tidegate_schemas::verdict::{Code, Rejection, StageName};

/// What came of one event.
enum Outcome {
    Rows(Range<u32>),
    Filtered,
    Rejected(Rejection),
    /// A stage outside Luau comes next.
    Later(StageName, Option<Document>),
}

/// What all events of a bundle have in common.
struct Work<'a> {
    tenant: &'a TenantId,
    source: &'a PinnedSource,
    template: &'a PinnedTemplate,
    fields: Fields<'a>,
    run: Run,
    from: StageName,
    allowance: Allowance,
    result_bytes: usize,
}

/// Runs all events that are at `from`, a script stage, through it and the script stages that follow without a gap.
pub(crate) fn fused(bundle: &mut Bundle, host: &mut Host, context: &EpochContext, from: StageName) {
    let Bundle { source: Some(source), plan: Some(plan), events, rows, runs } = bundle else { return };
    let (template, limits) = (&plan.template, plan.template.template.limits);
    let fields = Fields::new(&template.template.fields, &plan.table, template.template.id.as_str());
    let work = Work {
        tenant: &source.tenant,
        source,
        template,
        fields,
        run: Run::of(&template.template, from),
        from,
        allowance: Allowance {
            steps: limits.steps.min(SCRIPT_STEPS_HARD as u64),
            memory: limits.memory_bytes.min(SCRIPT_MEMORY_BYTES_HARD as u64) as usize,
            now: context.recorded_at as f64 / 1_000.0,
            seed: 0,
        },
        result_bytes: limits.result_bytes.min(RESULT_BYTES_MAX_HARD as u64) as usize,
    };
    let mut account = Account::default();
    let compiled = host.compiled(work.tenant, template);
    match &*compiled {
        Err(error) => {
            let rejection = error.clone().into_rejection();
            host.meter.reset();
            for event in events.iter_mut().filter(|e| e.is_at(from)) {
                account.add(host, from, event, &Outcome::Rejected(rejection.clone()));
                event.reject(rejection.clone());
            }
        }
        Ok(compiled) => {
            let state = host.take_state(work.tenant, work.allowance.memory);
            let mut session = Session { state, slot: None, given: Given::default(), rows };
            for event in events.iter_mut().filter(|e| e.is_at(from)) {
                let outcome = session.event(host, &work, compiled, event);
                account.add(host, from, event, &outcome);
                event.notes.append(&mut host.meter.take_notes());
                conclude(event, outcome);
            }
            if let Some(slot) = session.slot.take() {
                session.state.put(work.tenant, &template.version, slot);
            }
            host.put_state(work.tenant, session.state);
        }
    }
    account.write(&work, runs);
}

fn conclude(event: &mut Event, outcome: Outcome) {
    let progress = match outcome {
        Outcome::Rows(rows) => Progress::Transformed(rows),
        Outcome::Filtered => Progress::Filtered,
        Outcome::Rejected(rejection) => Progress::Rejected(Box::new(rejection)),
        Outcome::Later(stage, decoded) => {
            if decoded.is_some() {
                event.decoded = decoded.map(Box::new);
            }
            Progress::At(stage)
        }
    };
    event.go(progress);
}

/// A tenant's state while a bundle passes.
struct Session<'a> {
    state: State,
    slot: Option<Slot>,
    given: Given,
    /// What the events become.
    rows: &'a mut Rows,
}

/// What the host finds of one event after the other.
#[derive(Default)]
struct Given {
    /// Memory for the payload.
    payload: Vec<u8>,
    payload_at: Lookup,
    f_port_at: Lookup,
    /// What decoders' results have in common.
    known: Containers,
}

impl Session<'_> {
    /// One event; what failed for want of memory or time is tried once more, memory in a fresh state.
    fn event(&mut self, host: &mut Host, work: &Work<'_>, compiled: &Compiled, event: &mut Event) -> Outcome {
        let before = event.steps;
        let mut retried = false;
        loop {
            event.steps = before;
            host.meter.reset();
            let spent = match self.attempt(host, work, compiled, event) {
                Ok(outcome) => return outcome,
                Err(ended @ RanOut { spent: Spent::Steps, .. }) => return Outcome::Rejected(ended.rejection(work)),
                Err(ended @ RanOut { spent, .. }) if retried => {
                    let rejection = ended.rejection(work);
                    host.faults.push(Fault { at: event.origin.at, code: rejection.code.clone() });
                    let loaded = self.slot.is_some();
                    self.relieve(host, work, spent);
                    if !loaded && spent == Spent::Memory {
                        // A top level that never fits is not run again for every event.
                        self.slot = Some(Slot::Broken(rejection.clone()));
                    }
                    return Outcome::Rejected(rejection);
                }
                Err(RanOut { spent, .. }) => spent,
            };
            retried = true;
            // The event logs all of it again.
            drop(host.meter.take_notes());
            metrics::retried(spent);
            if spent == Spent::Memory {
                self.replace(host, work);
            }
        }
    }

    /// After the second memory error: collects all, and starts over where that does not help.
    fn relieve(&mut self, host: &mut Host, work: &Work<'_>, spent: Spent) {
        let collected = spent != Spent::Memory || self.state.lua.gc_collect().is_ok();
        if !collected || self.state.lua.used_memory() > work.allowance.memory / 2 {
            self.replace(host, work);
        }
    }

    /// Goes on in a fresh state, the tenant's own; others keep what they share.
    fn replace(&mut self, host: &mut Host, work: &Work<'_>) {
        self.slot = None;
        let left = std::mem::replace(&mut self.state, host.new_state(false));
        if left.is_shared {
            host.leave_shared(work.tenant, left);
        }
    }

    fn attempt(&mut self, host: &Host, work: &Work<'_>, compiled: &Compiled, event: &mut Event) -> Result<Outcome, RanOut> {
        let slot = match self.slot.take() {
            Some(slot) => slot,
            None => {
                let taken = self.state.take(work.tenant, &work.template.version, compiled, &work.fields, &host.meter, work.allowance);
                taken.map_err(|spent| RanOut { spent, stage: work.from, line: None })?
            }
        };
        match self.slot.insert(slot) {
            Slot::Broken(rejection) => Ok(Outcome::Rejected(rejection.clone())),
            Slot::Ready(environment) => {
                let outcome = call(&mut self.state, environment, host, work, event, &mut self.given, self.rows);
                event.steps = host.meter.steps();
                outcome
            }
        }
    }
}

/// Brings the event in, and reads what its stages returned.
fn call(
    state: &mut State,
    environment: &mut Environment,
    host: &Host,
    work: &Work<'_>,
    event: &Event,
    given: &mut Given,
    rows: &mut Rows,
) -> Result<Outcome, RanOut> {
    let declared = work.template.template.payload.as_ref();
    let (mut payload, mut f_port) = (None, None);
    let Given { payload: scratch, payload_at, f_port_at, known } = given;
    if work.run.decode {
        match enter::payload(event, declared, payload_at, scratch) {
            Ok(bytes) => payload = bytes.zip(declared.map(|d| d.form)),
            Err(rejection) => return Ok(Outcome::Rejected(rejection)),
        }
        match enter::f_port(event, declared, f_port_at) {
            Ok(port) => f_port = port,
            Err(rejection) => return Ok(Outcome::Rejected(rejection)),
        }
    }
    let broken = |error: mlua::Error| Ok(Outcome::Rejected(describe(work.from, &error).into_rejection()));
    let (attributes, meta) = match state.attributes(event).and_then(|a| Ok((a, state.meta(&event.envelope, work.source)?))) {
        Ok(given) => given,
        Err(error) => return broken(error),
    };
    let meter = &*host.meter;
    meter.begin(Allowance { seed: seed(event, work.from), ..work.allowance }, event.steps);
    let crossed = Crossed {
        lua: &state.lua,
        meter,
        run: work.run,
        event,
        inputs: &work.template.template.inputs,
        payload,
        f_port,
        attributes: &attributes,
        meta: &meta,
    };
    #[cfg(feature = "oracle")]
    if host.by_oracle {
        return oracle::cross(&environment.functions, &crossed, |ended| settle(meter, &state.lua, work, event, ended, known, rows));
    }
    raw::cross(&state.crossing, &mut environment.pins, &crossed, |ended| settle(meter, &state.lua, work, event, ended, known, rows))
}

/// The stages have ended: what was spent goes before what was returned.
fn settle<L: Lent>(
    meter: &Meter,
    lua: &Lua,
    work: &Work<'_>,
    event: &Event,
    ended: mlua::Result<Ended<L>>,
    known: &mut Containers,
    rows: &mut Rows,
) -> Result<Outcome, RanOut> {
    // The stage has to be asked before the meter forgets it.
    let stage = meter.stage().unwrap_or(work.from);
    match (meter.end(lua), ended) {
        (Some(spent), ended) => {
            let line = if meter.tells_lines() { spent.line(stage, ended.err().as_ref()) } else { None };
            Err(RanOut { spent, stage, line })
        }
        (None, Err(error)) if is_memory(&error) => Err(RanOut { spent: Spent::Memory, stage, line: None }),
        (None, Err(error)) => Ok(Outcome::Rejected(describe(stage, &error).into_rejection())),
        (None, Ok(ended)) => Ok(outcome(work, event, ended, known, rows)),
    }
}

/// Reads what the stages returned.
fn outcome<L: Lent>(work: &Work<'_>, event: &Event, ended: Ended<L>, known: &mut Containers, rows: &mut Rows) -> Outcome {
    let mut budget = Budget::new(work.result_bytes);
    let rejected = |problem: Problem, stage| Outcome::Rejected(problem.into_rejection(stage));
    match ended {
        Ended::Invalid(stage, value) => {
            let detail = format!("{} returned {}, not a table", stage.as_str(), value.name());
            Outcome::Rejected(Rejection::new(stage, Code::ResultInvalid, detail))
        }
        Ended::Errors(errors) => Outcome::Rejected(leave::errors(&errors)),
        Ended::NoData(result) => Outcome::Rejected(leave::no_data(&result)),
        Ended::Refused(verdict, why) => Outcome::Rejected(leave::reasons(&verdict, &why)),
        Ended::Filtered => Outcome::Filtered,
        Ended::Rows(table) => {
            let first = rows.len();
            let made = leave::rows(&work.fields, event, &table, &mut budget, rows);
            made_rows(made, first, rows)
        }
        Ended::Decoded(table) => {
            let first = rows.len();
            let made = leave::decoded(&work.fields, event, table.as_ref(), &mut budget, rows);
            made_rows(made, first, rows)
        }
        // Fields by their names are members of it.
        Ended::Later(Some(data)) if work.template.template.transform.is_none() && !data.is_table() && !leave::is_null(&data) => {
            let detail = format!("decode returned {} as data, not a table", data.name());
            rejected(Problem::new(Code::ResultInvalid, detail).below("data"), StageName::Decode)
        }
        Ended::Later(data) => {
            let stage = match work.run.transform {
                Transforming::Later(stage) => stage,
                _ => StageName::Transform,
            };
            match data.map(|data| leave::document(&data, &mut budget, known)).transpose() {
                Ok(decoded) => Outcome::Later(stage, decoded),
                Err(problem) => rejected(problem.below("data"), StageName::Decode),
            }
        }
    }
}

/// The rows that were appended, or none where one of them cannot be.
fn made_rows(made: Result<(), Problem>, first: usize, rows: &mut Rows) -> Outcome {
    match made {
        Ok(()) => Outcome::Rows(first as u32..rows.len() as u32),
        Err(problem) => {
            rows.truncate(first);
            Outcome::Rejected(problem.into_rejection(StageName::Transform))
        }
    }
}

/// What ran out, where.
#[derive(Clone, Copy)]
struct RanOut {
    spent: Spent,
    stage: StageName,
    /// In which line, where it is told.
    line: Option<i32>,
}

impl RanOut {
    fn rejection(&self, work: &Work<'_>) -> Rejection {
        let detail = match self.spent {
            Spent::Steps => format!("more than {} steps over the event's stages", work.allowance.steps),
            Spent::Memory => format!("more than {} bytes of memory, twice", work.allowance.memory),
            Spent::Time => "more CPU time than an event may use, twice".to_owned(),
        };
        Rejection { line: self.line, ..Rejection::new(self.stage, self.spent.code(), detail) }
    }
}

/// What the stages of one bundle did.
#[derive(Default)]
struct Account {
    stages: [Stage; 3],
}

#[derive(Default)]
struct Stage {
    run: ScriptRun,
    codes: BTreeMap<String, u64>,
}

impl Account {
    fn add(&mut self, host: &Host, from: StageName, event: &Event, outcome: &Outcome) {
        let failed = match outcome {
            Outcome::Rejected(rejection) => Some(rejection),
            _ => None,
        };
        for (index, stage) in self.stages.iter_mut().enumerate() {
            let failure = failed.filter(|r| r.stage == STAGES[index]);
            let steps = host.meter.steps_of(index);
            // A payload that cannot be read fails in the decoder's name before it runs.
            if steps.is_none() && (failure.is_none() || STAGES[index] != from) {
                continue;
            }
            stage.run.runs += 1;
            stage.run.steps += steps.unwrap_or(0);
            stage.run.bytes += event.bytes.len() as u64;
            if let Some(rejection) = failure {
                stage.run.failures += 1;
                *stage.codes.entry(rejection.code.clone()).or_default() += 1;
            }
        }
    }

    fn write(self, work: &Work<'_>, runs: &mut Vec<ScriptRun>) {
        for (stage, name) in self.stages.into_iter().zip(STAGES).filter(|(s, _)| s.run.runs > 0) {
            runs.push(ScriptRun {
                tenant: work.tenant.to_string(),
                template: work.template.label.to_string(),
                stage: name.as_str().to_owned(),
                codes: stage.codes.into_iter().map(|(code, n)| (code, n.to_string())).collect(),
                ..stage.run
            });
        }
    }
}
