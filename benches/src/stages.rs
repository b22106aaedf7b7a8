//! The dataflow's stages in this process and on this thread, without log and edge: what scripts and columns cost alone.

use crate::envelope::envelope;
use crate::workload::Workload;
use anyhow::{Context, anyhow};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use tidegate_operators::duplicates::Duplicates;
use tidegate_operators::event::EpochContext;
use tidegate_operators::script::{Host, HostOptions, Watch};
use tidegate_operators::stages::open::{self, Slice};
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

/// Runs `events` events of a workload through all stages, in epochs of `epoch` events; requests of `burst` events go to
/// the tenants in turn. A first epoch, which compiles the scripts, is not counted.
pub fn run(catalog: &Catalog, workload: Workload, events: u64, epoch: u64, tenants: usize, burst: u64) -> anyhow::Result<Cost> {
    let mut host = Host::new(HostOptions { states_max: SCRIPT_STATES_MAX.max(tenants), native: true }, Arc::new(Watch::default()));
    let seen = Duplicates::new(i64::MAX / 2, usize::MAX);
    let mut cost = Cost { events: 0, rows: 0, cpu_seconds: 0.0 };
    let (mut next, mut number) = (0, 0);
    while cost.events < events {
        let slices: Vec<Slice> =
            (0..epoch / burst).map(|i| slice(workload, next + i * burst, burst, (i as usize) % tenants)).collect::<Result<_, _>>()?;
        next += epoch / burst * burst;
        number += 1;
        let of = Attribution { log: LogId([1; 16]), partition: 0, epoch: number, recorded_at: 1_800_000_000_000_000 + number as i64 };
        let context = EpochContext { recorded_at: of.recorded_at };
        let started = thread_cpu_seconds();
        let mut bundles = open::apply(&slices, catalog, of.log, &|k| seen.contains(k));
        for bundle in &mut bundles {
            stages::apply(bundle, &mut host, &context);
        }
        let settled = settle::apply(&bundles, &seen, &of).context("settle")?;
        drop(bundles);
        if number > 1 {
            cost.cpu_seconds += thread_cpu_seconds() - started;
            cost.events += settled.counts.received;
            cost.rows += settled.rows.iter().filter(|r| r.table != "rejections").map(|r| r.rows).sum::<u64>();
        }
    }
    Ok(cost)
}

fn slice(workload: Workload, from: u64, count: u64, tenant: usize) -> anyhow::Result<Slice> {
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
