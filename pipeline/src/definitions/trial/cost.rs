//! What a template costs: the same event many times, in bundles and native code as in production.

use super::stages::{self, Input};
use crate::usage::thread_cpu_seconds;
use crate::watchdog::watched;
use serde::Serialize;
use tidegate_operators::event::EpochContext;
use tidegate_operators::script::{Host, HostOptions};
use tidegate_operators::stages as all;
use tidegate_schemas::definition::Template;
use tidegate_schemas::limits::BUNDLE_EVENTS_MAX;
use tidegate_schemas::table::Table;

/// CPU seconds after which as many events as came so far must do.
const SECONDS_MAX: f64 = 3.0;
/// CPU seconds of one bundle, about: a slow event is measured in smaller ones.
const BUNDLE_SECONDS: f64 = 0.5;

/// What one kind of event costs.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// `rows`, `filtered` or `rejected`.
    pub end: &'static str,
    /// Events that were measured.
    pub events: usize,
    /// Steps of one event.
    pub steps: u64,
    /// CPU time of one event in its stages: without parsing, blocks and log.
    pub nanoseconds: u64,
}

/// Measures an event; a bundle of it goes first uncounted, so that its scripts are compiled and warm.
pub(super) fn cost(template: &Template, table: &Table, input: &Input, events: usize) -> Result<Cost, String> {
    watched(|watch| measured(Host::new(HostOptions { states_max: 1, native: true }, watch), template, table, input, events))
}

fn measured(mut host: Host, template: &Template, table: &Table, input: &Input, events: usize) -> Result<Cost, String> {
    let context = EpochContext { recorded_at: input.received_at };
    let make = |count: usize| stages::bundle(template, table, input, count).map_err(|r| r.detail);
    // Compiled for this one.
    let mut first = make(1)?;
    all::apply(&mut first, &mut host, &context);
    let end = first.events.pop().map_or("rejected", |event| stages::ended(event.progress, Vec::new()).word());
    let mut run = |count: usize| -> Result<(f64, u64), String> {
        let mut bundle = make(count)?;
        let started = thread_cpu_seconds();
        all::apply(&mut bundle, &mut host, &context);
        Ok((thread_cpu_seconds() - started, bundle.runs.iter().map(|r| r.steps).sum()))
    };
    // Another one alone tells how many are bearable.
    let size = ((BUNDLE_SECONDS / run(1)?.0.max(1e-9)) as usize).clamp(1, BUNDLE_EVENTS_MAX);
    run(size)?;
    let (mut measured, mut seconds, mut steps) = (0, 0.0, 0);
    while measured < events.max(1) && seconds < SECONDS_MAX {
        let count = size.min(events.max(1) - measured);
        let (took, spent) = run(count)?;
        (measured, seconds, steps) = (measured + count, seconds + took, steps + spent);
    }
    Ok(Cost { end, events: measured, steps: steps / measured as u64, nanoseconds: (seconds * 1e9 / measured as f64).round() as u64 })
}
