//! Runs a bundle's events through adjacent script stages.

use crate::event::{Bundle, EpochContext, Event, Progress};
use crate::script::compile::Compiled;
use crate::script::driver::{Run, Transforming, tag};
use crate::script::enter::{self, Argument, Form, Scratch};
use crate::script::error::describe;
use crate::script::leave::{self, Budget};
use crate::script::meter::{Allowance, STAGES, Spent};
use crate::script::state::{Environment, Slot, State};
use crate::script::tide::{is_memory, seed};
use crate::script::{Host, metrics};
use crate::stages::transform::fields::{Fields, Problem};
use mlua::{Either, MultiValue, Value, Variadic};
use std::collections::BTreeMap;
use tidegate_schemas::block::ScriptRun;
use tidegate_schemas::catalog::{PinnedSource, PinnedTemplate};
use tidegate_schemas::commit::Fault;
use tidegate_schemas::document::Document;
use tidegate_schemas::ids::TenantId;
use tidegate_schemas::limits::{RESULT_BYTES_MAX_HARD, SCRIPT_MEMORY_BYTES_HARD, SCRIPT_STEPS_HARD};
use tidegate_schemas::row::Row;
use tidegate_schemas::verdict::{Code, Rejection, StageName};

/// What came of one event.
enum Outcome {
    Rows(Vec<Row>),
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
    names: Vec<&'a str>,
    run: Run,
    from: StageName,
    allowance: Allowance,
    result_bytes: usize,
}

/// Runs all events that are at `from`, a script stage, through it and the script stages that follow without a gap.
pub(crate) fn fused(bundle: &mut Bundle, host: &mut Host, context: &EpochContext, from: StageName) {
    let Bundle { source: Some(source), plan: Some(plan), events, runs } = bundle else { return };
    let (template, limits) = (&plan.template, plan.template.template.limits);
    let fields = Fields::new(&template.template.fields, &plan.table, template.template.id.as_str());
    let work = Work {
        tenant: &source.tenant,
        source,
        template,
        names: fields.declared.iter().map(|d| d.field.name.as_str()).collect(),
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
            let mut session = Session { state: host.take_state(work.tenant), slot: None, scratch: Scratch::default() };
            for event in events.iter_mut().filter(|e| e.is_at(from)) {
                let outcome = session.event(host, &work, compiled, event);
                account.add(host, from, event, &outcome);
                conclude(event, outcome);
            }
            if let Some(slot) = session.slot.take() {
                session.state.put(&template.version, slot);
            }
            host.put_state(work.tenant, session.state);
        }
    }
    account.write(&work, runs);
}

fn conclude(event: &mut Event, outcome: Outcome) {
    event.progress = match outcome {
        Outcome::Rows(rows) => Progress::Transformed(rows),
        Outcome::Filtered => Progress::Filtered,
        Outcome::Rejected(rejection) => Progress::Rejected(rejection),
        Outcome::Later(stage, decoded) => {
            if decoded.is_some() {
                event.decoded = decoded;
            }
            Progress::At(stage)
        }
    };
}

/// A tenant's state while a bundle passes.
struct Session {
    state: State,
    slot: Option<Slot>,
    scratch: Scratch,
}

impl Session {
    /// One event; what failed for want of memory or time is tried once more, memory in a fresh state.
    fn event(&mut self, host: &mut Host, work: &Work<'_>, compiled: &Compiled, event: &mut Event) -> Outcome {
        let before = event.steps;
        let mut retried = false;
        loop {
            event.steps = before;
            host.meter.reset();
            let spent = match self.attempt(host, work, compiled, event) {
                Ok(outcome) => return outcome,
                Err((Spent::Steps, stage)) => return Outcome::Rejected(ran_out(Spent::Steps, stage, work)),
                Err((spent, stage)) if retried => {
                    let rejection = ran_out(spent, stage, work);
                    host.faults.push(Fault { at: event.origin.at, code: rejection.code.clone() });
                    let loaded = self.slot.is_some();
                    self.relieve(host, work, spent);
                    if !loaded && spent == Spent::Memory {
                        // A top level that never fits is not run again for every event.
                        self.slot = Some(Slot::Broken(rejection.clone()));
                    }
                    return Outcome::Rejected(rejection);
                }
                Err((spent, _)) => spent,
            };
            retried = true;
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

    fn replace(&mut self, host: &mut Host, work: &Work<'_>) {
        self.slot = None;
        self.state = host.new_state(work.tenant);
    }

    fn attempt(&mut self, host: &Host, work: &Work<'_>, compiled: &Compiled, event: &mut Event) -> Result<Outcome, (Spent, StageName)> {
        let slot = match self.slot.take() {
            Some(slot) => slot,
            None => self.state.take(&work.template.version, compiled, &host.meter, work.allowance).map_err(|s| (s, work.from))?,
        };
        match self.slot.insert(slot) {
            Slot::Broken(rejection) => Ok(Outcome::Rejected(rejection.clone())),
            Slot::Ready(environment) => {
                let called = call(&mut self.state, environment, host, work, event, &mut self.scratch);
                let called = match called {
                    Ok(Called::Refused(rejection)) => return Ok(Outcome::Rejected(rejection)),
                    Ok(Called::Results(results)) => Ok(results),
                    Err(error) => Err(error),
                };
                // The stage has to be asked before the meter forgets it.
                let stage = host.meter.stage().unwrap_or(work.from);
                let spent = host.meter.end(&self.state.lua);
                event.steps = host.meter.steps();
                match (spent, called) {
                    (Some(spent), _) => Err((spent, stage)),
                    (None, Err(error)) if is_memory(&error) => Err((Spent::Memory, stage)),
                    (None, Err(error)) => Ok(Outcome::Rejected(describe(stage, &error).into_rejection())),
                    (None, Ok(results)) => Ok(outcome(work, event, results)),
                }
            }
        }
    }
}

enum Called {
    Results(MultiValue),
    /// It did not get as far as a script.
    Refused(Rejection),
}

/// Brings the event in and calls the driver.
fn call(
    state: &mut State,
    environment: &mut Environment,
    host: &Host,
    work: &Work<'_>,
    event: &Event,
    scratch: &mut Scratch,
) -> mlua::Result<Called> {
    let template = &work.template.template;
    let mut arguments: Vec<Argument<'_>> = Vec::with_capacity(32);
    let value = |v: Value| Either::Right(Either::Right(v));
    if work.run.decode {
        match enter::payload(&state.lua, event, template.payload.as_ref(), &mut scratch.payload)? {
            Ok(payload) => arguments.push(value(payload)),
            Err(rejection) => return Ok(Called::Refused(rejection)),
        }
        let port = template.payload.as_ref().and_then(|p| p.f_port.as_ref()).and_then(|at| event.document.pointer(at)?.as_f64());
        arguments.push(port.map_or_else(|| value(Value::Nil), |p| Either::Right(Either::Left(p))));
        arguments.push(Either::Right(Either::Left(event.origin.received_at as f64 / 1_000.0)));
        arguments.push(Either::Left(&event.origin.asset));
        let (attributes, meta) = (state.attributes(event)?, state.meta(&event.envelope, work.source)?);
        arguments.extend([value(Value::Table(attributes)), value(Value::Table(meta))]);
    }
    let driver = state.driver(environment, work.run, &work.names)?;
    let function = if !work.run.validate && work.run.transform != Transforming::Script {
        // Nobody looks at the document.
        arguments.push(value(Value::Nil));
        driver.general.clone()
    } else {
        let before = arguments.len();
        scratch.form.clear();
        let mut form = Form { bytes: &mut scratch.form, scalars: &mut arguments };
        let is_whole = enter::form(&state.lua, event, &template.inputs, &mut form)?;
        match if is_whole { state.for_form(driver, &work.names, &scratch.form) } else { None } {
            Some(function) => function,
            None => {
                arguments.truncate(before);
                arguments.push(value(Value::Table(enter::table(&state.lua, event, &template.inputs)?)));
                driver.general.clone()
            }
        }
    };
    host.meter.begin(Allowance { seed: seed(event, work.from), ..work.allowance }, event.steps);
    function.call::<MultiValue>(Variadic::from(arguments)).map(Called::Results)
}

/// Reads what the driver returned.
fn outcome(work: &Work<'_>, event: &Event, mut results: MultiValue) -> Outcome {
    let mut next = || results.pop_front().unwrap_or(Value::Nil);
    let tag = next().as_integer().unwrap_or_default();
    let mut budget = Budget::new(work.result_bytes);
    let rejected = |problem: Problem, stage| Outcome::Rejected(problem.into_rejection(stage));
    match tag {
        tag::INVALID => {
            let stage = next().as_integer().and_then(|n| STAGES.get(n as usize - 1)).copied().unwrap_or(work.from);
            let what = next().to_string().unwrap_or_default();
            Outcome::Rejected(Rejection::new(stage, Code::ResultInvalid, format!("{} returned {what}, not a table", stage.as_str())))
        }
        tag::ERRORS => Outcome::Rejected(leave::errors(&next())),
        tag::REFUSED => Outcome::Rejected(leave::reasons(&next(), &next())),
        tag::FILTERED => Outcome::Filtered,
        tag::ROWS => {
            let Value::Table(table) = next() else { return Outcome::Filtered };
            match leave::rows(&work.fields, event, &table, &mut budget) {
                Ok(rows) => Outcome::Rows(rows),
                Err(problem) => rejected(problem, StageName::Transform),
            }
        }
        tag::CELLS => match leave::cells(&work.fields, event, results, &mut budget) {
            Ok(row) => Outcome::Rows(vec![row]),
            Err(problem) => rejected(problem, StageName::Transform),
        },
        tag::LATER => {
            let next_stage = match work.run.transform {
                Transforming::Later(stage) => stage,
                _ => StageName::Transform,
            };
            if !work.run.decode {
                return Outcome::Later(next_stage, None);
            }
            match leave::document(&next(), &mut budget) {
                Ok(decoded) => Outcome::Later(next_stage, Some(decoded)),
                Err(problem) => rejected(problem.below("data"), StageName::Decode),
            }
        }
        // The driver is this crate's own text.
        other => panic!("the driver returned tag {other}"),
    }
}

fn ran_out(spent: Spent, stage: StageName, work: &Work<'_>) -> Rejection {
    let detail = match spent {
        Spent::Steps => format!("more than {} steps over the event's stages", work.allowance.steps),
        Spent::Memory => format!("more than {} bytes of memory, twice", work.allowance.memory),
        Spent::Time => "more CPU time than an event may use, twice".to_owned(),
    };
    Rejection::new(stage, spent.code(), detail)
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
