//! Settles an epoch: decides duplicates in raw order and turns everything into blocks, outcomes and counts.
//!
//! Whether an event is a duplicate is decided here and nowhere else, by walking the epoch in raw order: an event whose
//! key was transformed or filtered before – in an earlier epoch or earlier in this one – is a duplicate, whatever its own
//! scripts said. Scripts are pure, so this gives the verdicts of running same-key events one after the other, and the
//! result does not depend on where epochs are cut. `open` asks the same state only to save the work.

use crate::duplicates::Duplicates;
use crate::event::{Bundle, Event, Progress};
use hashbrown::HashSet;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use tidegate_schemas::block::{
    self, Attribution, Block, BlockError, Head, OutcomesBlock, RejectionRow, RejectionsBuilder, ReleaseRow, RowsBuilder, ScriptRun,
    script_runs,
};
use tidegate_schemas::catalog::PinnedSource;
use tidegate_schemas::commit::{Counts, Fault, TableRows, TenantCounts};
use tidegate_schemas::ids::{Position, TenantId};
use tidegate_schemas::limits::EPOCH_OUTPUT_BYTES_MAX;
use tidegate_schemas::system::SystemTable;
use tidegate_schemas::table::Table;
use tidegate_schemas::verdict::{Outcome, Rejection, Verdict};

use crate::stages::logs;
use crate::stages::open::NO_KEY;

/// Everything that an epoch writes, and the account of it.
#[derive(Debug, Default)]
pub struct Settled {
    /// Blocks of tenants' tables, by table.
    pub clean: Vec<Block>,
    /// Blocks of system tables, and outcomes.
    pub audit: Vec<Block>,
    /// In raw order.
    pub outcomes: Vec<Outcome>,
    /// Sums.
    pub counts: Counts,
    /// Sums by tenant.
    pub tenants: Vec<TenantCounts>,
    /// Rows by tenant and table.
    pub rows: Vec<TableRows>,
    /// Labels of the template versions that ran.
    pub templates: Vec<String>,
    /// BLAKE3 of the output without durations, in hex.
    pub hash: String,
    /// Faults of the host among its events, as whoever ran the stages adds them.
    pub faults: Vec<Fault>,
    /// Rejections by code, for metrics.
    pub codes: BTreeMap<String, u64>,
    /// Bytes that scripts logged and nobody keeps, for metrics.
    pub log_bytes_cut: u64,
}

/// Why an epoch cannot be settled.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The epoch is abandoned and cut smaller; nothing was committed.
    #[error("output of {bytes} bytes is above the bound of an epoch")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Columns do not fit their schema: a defect.
    #[error("epoch cannot be encoded")]
    Block(#[from] BlockError),
}

/// One event with the bundle that it came in.
struct Entry<'a> {
    bundle: &'a Bundle,
    event: &'a Event,
    at: Position,
    tenant: &'a TenantId,
    verdict: Verdict,
}

impl<'a> Entry<'a> {
    fn new(bundle: &'a Bundle, event: &'a Event) -> Self {
        Self { bundle, event, at: event.origin.at, tenant: &event.envelope.tenant, verdict: Verdict::Rejected }
    }
    /// Whether both are of one tenant, as all of a bundle are.
    fn has_tenant_of(&self, other: &Self) -> bool {
        std::ptr::eq(self.bundle, other.bundle) || self.tenant == other.tenant
    }
    /// Where the asset stands; one that is not published stands where its source does.
    fn organization(&self) -> &str {
        let source = || self.bundle.source.as_ref().map(|s| &s.path);
        self.event.asset.as_ref().map(|a| &a.path).or_else(source).map_or("", |path| path)
    }
    fn template(&self) -> &str {
        self.bundle.plan.as_ref().map_or("", |p| &p.template.label)
    }
}

/// Settles the bundles of one epoch against the keys of all epochs before it.
pub fn apply(bundles: &[Bundle], seen: &Duplicates, of: &Attribution) -> Result<Settled, SettleError> {
    let mut entries: Vec<Entry<'_>> = Vec::with_capacity(bundles.iter().map(|b| b.events.len()).sum());
    bundles.iter().for_each(|bundle| entries.extend(bundle.events.iter().map(|event| Entry::new(bundle, event))));
    entries.sort_unstable_by_key(|e| e.at);
    judge(&mut entries, seen);

    let mut settled = Settled::default();
    count(&entries, &mut settled);
    // From here on rows go by tenant; within a tenant the raw order stays.
    if settled.tenants.len() > 1 {
        entries.sort_by(|a, b| a.tenant.cmp(b.tenant));
    }
    settled.clean = rows(&entries, of, &mut settled.rows)?;
    settled.audit = rejections(&entries, of, &mut settled.rows)?;
    settled.audit.extend(OutcomesBlock::build(of.epoch, &settled.outcomes)?);
    settled.audit.extend(releases(&entries, of, &mut settled.rows)?);
    let (logs, cut) = logs::blocks(bundles, of)?;
    settled.audit.extend(logs);
    settled.log_bytes_cut = cut;
    settled.rows.sort();
    let mut hash = blake3::Hasher::new();
    for block in settled.clean.iter().chain(&settled.audit) {
        hash.update(&block.stream);
    }
    let mut runs = merged_runs(bundles);
    settled.audit.extend(script_runs(of, &runs)?);
    runs.iter_mut().for_each(|r| r.duration = 0);
    for block in script_runs(of, &runs)? {
        hash.update(&block.stream);
    }
    settled.hash = hash.finalize().to_hex().to_string();
    let bytes = settled.clean.iter().chain(&settled.audit).map(|b| b.stream.len()).sum();
    if bytes > EPOCH_OUTPUT_BYTES_MAX { Err(SettleError::TooLarge { bytes }) } else { Ok(settled) }
}

/// Gives every event its verdict; `entries` are in raw order.
fn judge(entries: &mut [Entry<'_>], seen: &Duplicates) {
    let mut here: HashSet<[u8; 16]> = HashSet::with_capacity(entries.len());
    for entry in entries {
        let key = &entry.event.key;
        entry.verdict = if *key != NO_KEY && (here.contains(key) || seen.contains(key)) {
            Verdict::Duplicate
        } else {
            match &entry.event.progress {
                Progress::Transformed(_) => Verdict::Transformed,
                Progress::Filtered => Verdict::Filtered,
                Progress::Duplicate => Verdict::Duplicate,
                Progress::Rejected(_) => Verdict::Rejected,
                // The graph has a stage for each; an event that none of them took is a defect of the graph.
                Progress::At(stage) => panic!("an event left the graph before {}", stage.as_str()),
            }
        };
        if matches!(entry.verdict, Verdict::Transformed | Verdict::Filtered) {
            here.insert(*key);
        }
    }
}

fn count(entries: &[Entry<'_>], settled: &mut Settled) {
    let mut tenants: BTreeMap<&TenantId, TenantCounts> = BTreeMap::new();
    let mut templates: BTreeSet<&str> = BTreeSet::new();
    settled.outcomes.reserve(entries.len());
    // Events of one request come together.
    for run in entries.chunk_by(|a, b| std::ptr::eq(a.bundle, b.bundle)) {
        let tenant = tenants.entry(run[0].tenant).or_insert_with(|| TenantCounts {
            tenant: run[0].tenant.clone(),
            counts: Counts::default(),
            steps: 0,
        });
        for entry in run {
            settled.counts.add(entry.verdict);
            tenant.counts.add(entry.verdict);
            tenant.steps += entry.event.steps;
            if let (Verdict::Rejected, Progress::Rejected(rejection)) = (entry.verdict, &entry.event.progress) {
                *settled.codes.entry(rejection.code.clone()).or_default() += 1;
            }
            let origin = &entry.event.origin;
            settled.outcomes.push(Outcome {
                at: origin.at,
                index: origin.index,
                tenant: entry.tenant.clone(),
                verdict: entry.verdict,
                key: entry.event.key,
            });
        }
        templates.insert(run[0].template());
    }
    templates.remove("");
    settled.tenants = tenants.into_values().collect();
    settled.templates = templates.into_iter().map(str::to_owned).collect();
}

/// An event with rows.
struct Taken<'a> {
    entry: &'a Entry<'a>,
    /// Its rows in its bundle.
    rows: Range<u32>,
    source: &'a PinnedSource,
    table: &'a Arc<Table>,
}

impl Taken<'_> {
    fn heads(&self) -> impl Iterator<Item = Head<'_>> {
        let (entry, source) = (self.entry, self.source.source.id.as_str());
        let (tenant, organization, template) = (entry.tenant.as_str(), entry.organization(), entry.template());
        let origin = &entry.event.origin;
        (0..self.rows.len() as u32).map(move |number| Head { tenant, organization, source, template, origin, number })
    }
}

/// Blocks of tenants' tables, tables in order of their ids.
fn rows(entries: &[Entry<'_>], of: &Attribution, account: &mut Vec<TableRows>) -> Result<Vec<Block>, SettleError> {
    let taken: Vec<Taken<'_>> = entries
        .iter()
        .filter_map(|entry| match (entry.verdict, &entry.event.progress, &entry.bundle.plan, &entry.bundle.source) {
            (Verdict::Transformed, Progress::Transformed(rows), Some(plan), Some(source)) => {
                Some(Taken { entry, rows: rows.clone(), source, table: &plan.table })
            }
            _ => None,
        })
        .collect();
    // What goes to one table together: it is looked up once.
    let runs = || taken.chunk_by(|a, b| Arc::ptr_eq(a.table, b.table) && a.entry.has_tenant_of(b.entry));
    let mut counts: BTreeMap<&str, BTreeMap<&TenantId, usize>> = BTreeMap::new();
    for run in runs() {
        let tenants = counts.entry(run[0].table.id.as_str()).or_default();
        *tenants.entry(run[0].entry.tenant).or_default() += run.iter().map(|t| t.rows.len()).sum::<usize>();
    }
    let mut builders: BTreeMap<&str, RowsBuilder> = BTreeMap::new();
    for run in runs() {
        let table = run[0].table;
        let rows = || counts[table.id.as_str()].values().sum();
        let builder = builders.entry(table.id.as_str()).or_insert_with(|| RowsBuilder::new(of.clone(), table, rows()));
        // What stands together in its bundle is copied together.
        let is_next = |a: &Taken<'_>, b: &Taken<'_>| std::ptr::eq(a.entry.bundle, b.entry.bundle) && a.rows.end == b.rows.start;
        for together in run.chunk_by(is_next) {
            let (rows, first) = (&together[0].entry.bundle.rows, together[0].rows.start);
            builder.extend(together.iter().flat_map(Taken::heads), rows, first as usize)?;
        }
    }
    for (table, tenants) in counts {
        account.extend(tenants.into_iter().map(|(tenant, rows)| TableRows {
            tenant: tenant.clone(),
            table: table.to_owned(),
            rows: rows as u64,
        }));
    }
    let mut blocks = Vec::new();
    for builder in builders.into_values() {
        blocks.extend(builder.finish()?);
    }
    Ok(blocks)
}

fn rejections(entries: &[Entry<'_>], of: &Attribution, account: &mut Vec<TableRows>) -> Result<Vec<Block>, SettleError> {
    let mut builder = RejectionsBuilder::new(of.clone());
    let mut counts: BTreeMap<&TenantId, u64> = BTreeMap::new();
    for entry in entries {
        let (Verdict::Rejected, Progress::Rejected(rejection)) = (entry.verdict, &entry.event.progress) else { continue };
        builder.push(&row_of(entry, rejection))?;
        *counts.entry(entry.tenant).or_default() += 1;
    }
    let table = SystemTable::Rejections.as_str();
    account.extend(counts.into_iter().map(|(tenant, rows)| TableRows { tenant: tenant.clone(), table: table.to_owned(), rows }));
    Ok(builder.finish()?)
}

/// What became of events that somebody let go on; `entries` are sorted by tenant.
fn releases(entries: &[Entry<'_>], of: &Attribution, account: &mut Vec<TableRows>) -> Result<Vec<Block>, SettleError> {
    let mut rows = Vec::new();
    for run in entries.chunk_by(Entry::has_tenant_of) {
        let before = rows.len();
        for entry in run {
            let Some(release) = &entry.event.envelope.release else { continue };
            let Some(released) = release.events.get(entry.event.origin.at.ordinal as usize) else { continue };
            rows.push(ReleaseRow {
                tenant: entry.tenant.as_str(),
                source: entry.event.envelope.source.as_str(),
                origin: &entry.event.origin,
                template: entry.template(),
                verdict: entry.verdict,
                release,
                of: released,
            });
        }
        if rows.len() > before {
            let table = SystemTable::Releases.as_str().to_owned();
            account.push(TableRows { tenant: run[0].tenant.clone(), table, rows: (rows.len() - before) as u64 });
        }
    }
    Ok(block::releases(of, &rows)?)
}

fn row_of<'a>(entry: &'a Entry<'a>, rejection: &'a Rejection) -> RejectionRow<'a> {
    let event = entry.event;
    RejectionRow {
        tenant: entry.tenant.as_str(),
        organization: entry.organization(),
        source: event.envelope.source.as_str(),
        origin: &event.origin,
        template: entry.template(),
        rejection,
        content_type: &event.envelope.content_type,
        original: &event.bytes,
    }
}

/// One line for each tenant, template version and stage, sorted by tenant.
fn merged_runs(bundles: &[Bundle]) -> Vec<ScriptRun> {
    let mut merged: BTreeMap<(Arc<str>, String, String), ScriptRun> = BTreeMap::new();
    for run in bundles.iter().flat_map(|b| &b.runs) {
        let sum = merged.entry((run.tenant.as_str().into(), run.template.clone(), run.stage.clone())).or_insert_with(|| ScriptRun {
            tenant: run.tenant.clone(),
            template: run.template.clone(),
            stage: run.stage.clone(),
            ..ScriptRun::default()
        });
        sum.runs += run.runs;
        sum.failures += run.failures;
        sum.steps += run.steps;
        sum.bytes += run.bytes;
        sum.duration += run.duration;
        let mut codes: BTreeMap<String, u64> = sum.codes.drain(..).map(|(code, n)| (code, n.parse().unwrap_or(0))).collect();
        for (code, n) in &run.codes {
            *codes.entry(code.clone()).or_default() += n.parse::<u64>().unwrap_or(0);
        }
        sum.codes = codes.into_iter().map(|(code, n)| (code, n.to_string())).collect();
    }
    merged.into_values().collect()
}
