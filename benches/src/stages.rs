//! The dataflow's stages in this process and on this thread, without log and edge: what scripts and columns cost alone, beside
//! the same work written in Rust.

use crate::by_hand;
use crate::envelope::envelope;
use crate::workload::Workload;
use anyhow::{Context, anyhow, ensure};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use tidegate_operators::duplicates::Duplicates;
use tidegate_operators::event::{Bundle, EpochContext};
use tidegate_operators::script::{Host, HostOptions, Watch};
use tidegate_operators::stages::open::{self, Slice};
use tidegate_operators::stages::settle::Settled;
use tidegate_operators::stages::{self, settle};
use tidegate_pipeline::definitions::{Extent, Folder, Known, diff};
use tidegate_pipeline::usage::thread_cpu_seconds;
use tidegate_schemas::block::Attribution;
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::definition::{Definition, NodeKind, Organization};
use tidegate_schemas::envelope::{Envelope, Span};
use tidegate_schemas::ids::{LogId, NodeId, ReceiptId};
use tidegate_schemas::limits::SCRIPT_STATES_MAX;

/// What one run cost.
pub struct Cost {
    /// Events that went in.
    pub events: u64,
    /// Rows that came out.
    pub rows: u64,
    /// CPU seconds of this thread.
    pub cpu_seconds: f64,
    /// CPU seconds of the same events by [`by_hand`], epochs of both in turn.
    pub by_hand_cpu_seconds: f64,
}

/// How a workload is run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What is sent.
    pub workload: Workload,
    /// Events that count.
    pub events: u64,
    /// Events of an epoch.
    pub epoch: u64,
    /// Tenants, with the same sources.
    pub tenants: usize,
    /// Events of a request; requests go to the tenants in turn.
    pub burst: u64,
}

/// The bench's definitions, for so many tenants with the same sources.
pub fn catalog(folder: &Path, tenants: usize) -> anyhow::Result<Catalog> {
    let mut definitions = Folder::read(folder)?.definitions;
    for n in 1..tenants {
        let id = NodeId::new(&tenant_name(n))?;
        definitions.push(Definition::Organization(Organization {
            id: id.clone(),
            kind: NodeKind::Customer,
            name: id.to_string(),
            parent: Some(NodeId::new("bench")?),
        }));
        let sources: Vec<Definition> = definitions
            .iter()
            .filter_map(|d| match d {
                Definition::Source(s) if s.node.as_str() == "acme" => {
                    let mut source = s.clone();
                    source.node = id.clone();
                    Some(Definition::Source(source))
                }
                _ => None,
            })
            .collect();
        definitions.extend(sources);
    }
    let mut catalog = Catalog::default();
    for change in diff(&catalog, &Known::default(), &definitions, Extent::Whole, "bench", 0).map_err(|e| anyhow!("{e:?}"))? {
        catalog.apply(&change)?;
    }
    Ok(catalog)
}

fn tenant_name(n: usize) -> String {
    if n == 0 { "acme".into() } else { format!("acme{n}") }
}

/// Runs a workload through all stages, by the catalog and by hand, with every limit on. A first epoch, which compiles the
/// scripts, is not counted.
///
/// # Errors
/// The two ways do not give the same rows, or an epoch cannot be settled.
pub fn run(catalog: &Catalog, plan: &Plan) -> anyhow::Result<Cost> {
    let mut host = Host::new(HostOptions { states_max: SCRIPT_STATES_MAX, native: true }, Arc::new(Watch::default()));
    let mut cost = Cost { events: 0, rows: 0, cpu_seconds: 0.0, by_hand_cpu_seconds: 0.0 };
    let (mut next, mut number) = (0, 0);
    while cost.events < plan.events {
        let requests = plan.epoch / plan.burst;
        // The tenants go on where the last epoch ended: more of them than an epoch has requests come round as well.
        let tenant = |i: u64| ((next / plan.burst + i) % plan.tenants as u64) as usize;
        let slices = (0..requests).map(|i| slice(plan.workload, next + i * plan.burst, plan.burst, tenant(i)));
        let slices: Vec<Slice> = slices.collect::<Result<_, _>>()?;
        next += requests * plan.burst;
        number += 1;
        let of = Attribution { log: LogId([1; 16]), partition: 0, epoch: number, recorded_at: 1_800_000_000_000_000 + number as i64 };
        let (by_catalog, seconds) = epoch(catalog, &slices, &of, |bundle, context| stages::apply(bundle, &mut host, context))?;
        let (by_hand, by_hand_seconds) = epoch(catalog, &slices, &of, |bundle, _| by_hand::apply(bundle, plan.workload))?;
        let rows = |settled: &Settled| settled.clean.iter().map(|block| block.stream.clone()).collect::<Vec<_>>();
        ensure!(rows(&by_catalog) == rows(&by_hand), "epoch {number}: not the same rows by hand");
        if number > 1 {
            cost.cpu_seconds += seconds;
            cost.by_hand_cpu_seconds += by_hand_seconds;
            cost.events += by_catalog.counts.received;
            cost.rows += by_catalog.clean.iter().map(|block| u64::from(block.rows)).sum::<u64>();
        }
    }
    Ok(cost)
}

/// One epoch from its records to its blocks, and the CPU seconds that it took.
pub(crate) fn epoch(
    catalog: &Catalog,
    slices: &[Slice],
    of: &Attribution,
    mut stages: impl FnMut(&mut Bundle, &EpochContext),
) -> anyhow::Result<(Settled, f64)> {
    let seen = Duplicates::new(i64::MAX / 2, usize::MAX);
    let context = EpochContext { recorded_at: of.recorded_at };
    let started = thread_cpu_seconds();
    let mut bundles = open::apply(slices, catalog, of.log, &|k| seen.contains(k));
    bundles.iter_mut().for_each(|bundle| stages(bundle, &context));
    let settled = settle::apply(&bundles, &seen, of).context("settle")?;
    drop(bundles);
    Ok((settled, thread_cpu_seconds() - started))
}

/// Events of one request of a tenant, by their JSON.
pub(crate) fn slice(workload: Workload, from: u64, count: u64, tenant: usize) -> anyhow::Result<Slice> {
    let (mut value, mut spans) = (String::new(), Vec::new());
    for n in from..from + count {
        let start = value.len() as u32;
        workload.event(n, &mut value);
        spans.push(Span { index: (n - from) as u32, start, len: value.len() as u32 - start });
    }
    let receipt = ReceiptId(((from + 1) as u128).to_be_bytes());
    let envelope = Envelope { receipt, ..envelope(&tenant_name(tenant), &workload.name().to_lowercase(), spans)? };
    Ok(Slice { offset: from, envelope: Arc::new(envelope), value: Bytes::from(value), from: 0, to: count as u32 })
}
