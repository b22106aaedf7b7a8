//! One table against what commits promise of it, epoch by epoch.

use super::report::{ParkedReport, Report};
use crate::account::Account;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_schemas::ids::{Epoch, LogId, Partition, TenantId};
use tidegate_schemas::sink::Target;
use tidegate_sinks::driver::Apart;
use tidegate_sinks::parquet;

/// A tenant's rows in one table of one sink.
#[derive(Default)]
pub(super) struct Stored {
    pub rows: BTreeMap<(Partition, Epoch), u64>,
    /// Through which epoch the table itself is complete.
    pub cursors: BTreeMap<Partition, Epoch>,
    /// Rows that are there more than once, and the place of the first.
    pub duplicates: u64,
    pub named: Option<String>,
}

/// What a sink is compared with.
pub(super) struct Promised<'a> {
    pub log: LogId,
    pub account: &'a Account,
    pub sink: &'static str,
    /// The sink's place in the log.
    pub delivered: BTreeMap<Partition, Epoch>,
    /// What retention leaves: rows of epochs before are not missed.
    pub kept_from: BTreeMap<Partition, Epoch>,
    /// Cuts of parked tables: their rows are not missing.
    pub apart: Vec<Apart>,
}

impl Promised<'_> {
    /// Tenants' tables that commits name.
    pub(super) fn tables(&self) -> BTreeSet<(TenantId, String)> {
        self.account.rows.keys().map(|(_, tenant, table)| (tenant.clone(), table.clone())).collect()
    }

    pub(super) fn compare(&self, report: &mut Report, tenant: &TenantId, table: &str, stored: &Stored) {
        // Delta tables are the default, and their messages name nothing else.
        let name = if self.sink == parquet::NAME { format!("{tenant}/{table}") } else { format!("{} {tenant}/{table}", self.sink) };
        if stored.duplicates > 0 {
            let first = stored.named.as_ref().map(|place| format!(", first at {place}")).unwrap_or_default();
            report.differ(format!("{name}: {} rows are there more than once{first}", stored.duplicates));
        }
        let (mut waiting, mut dropped) = (0, 0);
        for (partition, (first, last)) in &self.account.epochs {
            let cursor = stored.cursors.get(partition).copied().unwrap_or(0);
            // A table that is gone, or an old copy of one, claims less than the sink's own place in the log does.
            let claimed = cursor.max(self.delivered.get(partition).copied().unwrap_or(0));
            let kept_from = self.kept_from.get(partition).copied().unwrap_or(0).max(*first);
            let empty = BTreeMap::new();
            let promised = self.account.rows.get(&(*partition, tenant.clone(), table.to_owned())).unwrap_or(&empty);
            report.rows_pending += promised.range((claimed + 1).max(kept_from)..).map(|(_, n)| n).sum::<u64>();
            report.rows_expired += promised.range(..kept_from).map(|(_, n)| n).sum::<u64>();
            let of_partition = stored.rows.range((*partition, 0)..=(*partition, Epoch::MAX));
            let there: BTreeMap<Epoch, u64> = of_partition.map(|((_, e), n)| (*e, *n)).collect();
            let (through, parked) = (claimed.min(*last), self.apart(*partition, tenant, table));
            let epochs: BTreeSet<Epoch> =
                promised.keys().chain(there.keys()).copied().filter(|e| (kept_from..=through).contains(e)).collect();
            for epoch in epochs {
                let (committed, found) = (promised.get(&epoch).unwrap_or(&0), there.get(&epoch).unwrap_or(&0));
                let apart = parked.range(..=epoch).next_back().filter(|(_, apart)| epoch <= apart.last && found < committed);
                if let Some((_, apart)) = apart {
                    *(if apart.dropped { &mut dropped } else { &mut waiting }) += committed - found;
                } else if committed != found {
                    report
                        .differ(format!("{name}: partition {partition} epoch {epoch} committed {committed} rows, the table holds {found}"));
                }
            }
            for (epoch, rows) in there.range(cursor + 1..) {
                report
                    .differ(format!("{name}: partition {partition} epoch {epoch} has {rows} rows beyond the table's own cursor {cursor}"));
            }
        }
        if waiting + dropped > 0 {
            (report.rows_parked, report.rows_dropped) = (report.rows_parked + waiting, report.rows_dropped + dropped);
            let (tenant, table) = (tenant.clone(), table.to_owned());
            report.parked.push(ParkedReport { sink: self.sink, tenant, table, rows: waiting, rows_dropped: dropped });
        }
    }

    /// The parked cuts of a table, by their first epochs; cuts of a table share no epoch.
    fn apart(&self, partition: Partition, tenant: &TenantId, table: &str) -> BTreeMap<Epoch, &Apart> {
        let is_of = |target: &Target| target.table == table && target.tenant.as_ref().is_none_or(|of| of == tenant);
        self.apart.iter().filter(|a| a.partition == partition && is_of(&a.target)).map(|a| (a.first, a)).collect()
    }
}
