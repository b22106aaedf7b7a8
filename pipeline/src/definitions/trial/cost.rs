//! What a template costs: the same event many times, in bundles and native code as in production.

use super::stages::{self, Ended, Input};
use crate::usage::thread_cpu_seconds;
use crate::watchdog::watched;
use serde::Serialize;
use tidegate_operators::event::{Bundle, EpochContext};
use tidegate_operators::script::{Host, HostOptions};
use tidegate_operators::stages as all;
use tidegate_schemas::definition::Template;
use tidegate_schemas::limits::BUNDLE_EVENTS_MAX;
use tidegate_schemas::table::Table;

/// What one kind of event costs.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// `rows`, `filtered` or `rejected`.
    pub end: &'static str,
    /// Events that were measured.
    pub events: usize,
    /// Steps of one event.
    pub steps: u64,
    /// CPU time of one event in its stages: without parsing, columns and log.
    pub nanoseconds: u64,
}

/// Measures an event; a bundle of it goes first uncounted, so that its scripts are compiled and warm.
pub(super) fn cost(template: &Template, table: &Table, input: &Input, events: usize) -> Result<Cost, String> {
    watched(|watch| measured(Host::new(HostOptions { states_max: 1, native: true }, watch), template, table, input, events))
}

fn measured(mut host: Host, template: &Template, table: &Table, input: &Input, events: usize) -> Result<Cost, String> {
    let context = EpochContext { recorded_at: input.received_at };
    let make = |count: usize| stages::bundle(template, table, input, count).map_err(|r| r.detail);
    let mut warm = make(BUNDLE_EVENTS_MAX)?;
    all::apply(&mut warm, &mut host, &context);
    let end = warm.events.pop().map_or("rejected", |event| Ended::word(&stages::ended(event)));
    let mut bundles: Vec<Bundle> = Vec::new();
    let mut left = events.max(1);
    while left > 0 {
        let count = left.min(BUNDLE_EVENTS_MAX);
        bundles.push(make(count)?);
        left -= count;
    }
    let started = thread_cpu_seconds();
    for bundle in &mut bundles {
        all::apply(bundle, &mut host, &context);
    }
    let seconds = thread_cpu_seconds() - started;
    let events = events.max(1);
    let steps: u64 = bundles.iter().flat_map(|b| &b.runs).map(|r| r.steps).sum();
    Ok(Cost { end, events, steps: steps / events as u64, nanoseconds: (seconds * 1e9 / events as f64).round() as u64 })
}
