//! Live rows of a tenant, as epochs commit them: read from `clean`, or from `audit` where a system table is asked for.
//!
//! Nobody waits for a tap. It has no cursor, no hold and no lease, so what retention deletes before it came there is gone for
//! it: it says so, and goes on behind it.

use crate::choice::Choice;
use crate::commits;
use crate::definitions::CatalogFollower;
use crate::definitions::catalogs::CatalogsError;
use crate::scan::ScanError;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_schemas::block::{BlockError, ConditionError, Filter, Output, RowRef, RowsRead};
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::envelope::partition_of;
use tidegate_schemas::ids::{NodeId, Partition, TenantId};
use tidegate_schemas::limits::READ_BYTES_MAX;
use tidegate_schemas::log::{Entry, EventLog, LogError, LogName, Record};
use tidegate_schemas::system::SystemTable;
use tidegate_schemas::table::Table;
use tidegate_schemas::time::Micros;

/// Names that an error lists; all are counted.
const LISTED_MAX: usize = 50;

/// Which rows are wanted.
#[derive(Debug)]
pub struct Wish {
    /// Whose.
    pub tenant: TenantId,
    /// Which of them.
    pub of: Choice,
    /// Those of one table: its name, its id, or a system table. Of all tenants' tables where none is named.
    pub table: Option<String>,
    /// Conditions besides.
    pub filter: Filter,
    /// Where to begin.
    pub from: Start,
    /// Whether what was committed at the beginning is all.
    pub until_end: bool,
}

/// Where a tap begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest rows that the log holds.
    Beginning,
    /// With what is committed from now on.
    Now,
    /// With the first epoch that was recorded then or later.
    At(Micros),
}

/// Why there are no rows.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// Nobody has this id.
    #[error("there is no tenant {tenant}; there are {known}")]
    Tenant {
        /// As it was asked for.
        tenant: TenantId,
        /// Those that there are.
        known: String,
    },
    /// None that the tenant can have rows in.
    #[error("{tenant} has no table {table}; there are {known}")]
    Table {
        /// Whose.
        tenant: TenantId,
        /// As it was asked for.
        table: String,
        /// Those that there are.
        known: String,
    },
    /// A condition that no table has.
    #[error(transparent)]
    Condition(#[from] ConditionError),
    /// There is no catalog to find tables in.
    #[error("definitions")]
    Catalogs(#[from] CatalogsError),
    /// The log cannot be read.
    #[error("rows")]
    Scan(#[from] ScanError),
}

impl From<LogError> for TapError {
    fn from(error: LogError) -> Self {
        Self::Scan(error.into())
    }
}

/// What a look brought.
#[derive(Debug)]
pub enum Step {
    /// Rows that are wanted, at least one.
    Rows(Found),
    /// These offsets were deleted before they were read.
    Gone(Range<u64>),
    /// Nothing yet.
    Nothing,
    /// All that was asked for.
    End,
}

/// Wanted rows of one table of one epoch.
#[derive(Debug)]
pub struct Found {
    /// Id of the table.
    pub table: String,
    rows: RowsRead,
    wanted: Vec<usize>,
}

impl Found {
    /// All rows of the block.
    pub fn block(&self) -> &RowsRead {
        &self.rows
    }

    /// Those that are wanted, in order.
    pub fn rows(&self) -> impl Iterator<Item = RowRef<'_>> {
        self.wanted.iter().map(|row| self.rows.row(*row))
    }
}

/// A reader of live rows.
pub struct Tap {
    log: Arc<dyn EventLog>,
    /// Tables that are meant, by id; none where all are.
    tables: Option<Vec<String>>,
    filter: Filter,
    name: LogName,
    partition: Partition,
    at: u64,
    end: Option<u64>,
    entries: VecDeque<Entry>,
}

impl Tap {
    /// Finds what is meant, and where it begins. Blocks.
    ///
    /// # Errors
    /// There is no such tenant, table or field, or the log cannot be read.
    pub fn open(log: Arc<dyn EventLog>, wish: Wish) -> Result<Self, TapError> {
        let catalog = CatalogFollower::open(Arc::clone(&log))?.current();
        let meant = Meant::find(&catalog, &wish)?;
        // The tenant is a condition as any other, and the first: no row passes without it.
        let of = Choice { tenant: Some(wish.tenant.clone()), ..wish.of };
        let filter = Filter([of.conditions(), wish.filter.0].concat());
        meant.check(&filter)?;
        let (name, partition) = (meant.log, partition_of(&wish.tenant, log.partitions()));
        let bounds = log.bounds(name, partition)?;
        let at = match wish.from {
            Start::Beginning => bounds.start,
            Start::Now => bounds.end,
            Start::At(time) => match commits::first(&*log, partition, |commit| commit.recorded_at >= time)? {
                Some((_, commit)) if name == LogName::Audit => commit.audit.start.max(bounds.start),
                Some((_, commit)) => commit.clean.start.max(bounds.start),
                None => bounds.end,
            },
        };
        let end = wish.until_end.then_some(bounds.end);
        Ok(Self { log, tables: meant.ids, filter, name, partition, at, end, entries: VecDeque::new() })
    }

    /// Name and partition of the log that is read.
    pub fn place(&self) -> (LogName, Partition) {
        (self.name, self.partition)
    }

    /// Reads on to the next rows, at most for so long: records come with every epoch, whether or not they hold any. Blocks.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn advance(&mut self, wait: Duration) -> Result<Step, TapError> {
        let until = Instant::now() + wait;
        loop {
            if self.end.is_some_and(|end| self.at >= end) {
                return Ok(Step::End);
            }
            let Some(entry) = self.entries.pop_front() else {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(Step::Nothing);
                }
                match self.read(left) {
                    Ok(entries) if entries.is_empty() => return Ok(if self.end.is_some() { Step::End } else { Step::Nothing }),
                    Ok(entries) => self.entries = entries.into(),
                    Err(LogError::Gone { start, .. }) if start > self.at => {
                        return Ok(Step::Gone(std::mem::replace(&mut self.at, start)..start));
                    }
                    Err(error) => return Err(error.into()),
                }
                continue;
            };
            if self.end.is_some_and(|end| entry.offset >= end) {
                return Ok(Step::End);
            }
            self.at = entry.offset + 1;
            if let Some(found) = self.look(&entry.record).map_err(|e| ScanError::Block(self.partition, e))? {
                return Ok(Step::Rows(found));
            }
        }
    }

    fn read(&self, wait: Duration) -> Result<Vec<Entry>, LogError> {
        match self.end {
            // What was committed at the beginning is read at once: where nothing is left, there are only offsets without records.
            Some(_) => self.log.read(self.name, self.partition, self.at, READ_BYTES_MAX),
            None => self.log.poll(self.name, self.partition, self.at, READ_BYTES_MAX, wait),
        }
    }

    fn look(&self, record: &Record) -> Result<Option<Found>, BlockError> {
        // Other tables are passed over before their bytes are looked at.
        if !self.is_meant(record.header("tg-table")) {
            return Ok(None);
        }
        let Output::Block(block) = Output::read(record)? else { return Ok(None) };
        let rows = RowsRead::new(&block.batch()?)?;
        let Some(filter) = self.filter.bind(rows.schema()) else { return Ok(None) };
        let wanted: Vec<usize> = rows.rows().enumerate().filter(|(_, row)| filter.takes(row)).map(|(i, _)| i).collect();
        Ok((!wanted.is_empty()).then_some(Found { table: block.table, rows, wanted }))
    }

    fn is_meant(&self, table: Option<&[u8]>) -> bool {
        table.is_some_and(|table| self.tables.as_ref().is_none_or(|ids| ids.iter().any(|id| id.as_bytes() == table)))
    }
}

/// What a wish means by the catalog.
struct Meant {
    log: LogName,
    ids: Option<Vec<String>>,
    tables: Vec<Arc<Table>>,
    system: Option<SystemTable>,
}

impl Meant {
    fn find(catalog: &Catalog, wish: &Wish) -> Result<Self, TapError> {
        let tenant = &wish.tenant;
        let node = NodeId::new(tenant.as_str()).ok().and_then(|id| catalog.node(&id)).filter(|n| n.tenant.as_ref() == Some(tenant));
        let Some(node) = node else {
            let known = catalog.tenants().map(|n| n.organization.id.to_string()).collect();
            return Err(TapError::Tenant { tenant: tenant.clone(), known: listed(known) });
        };
        let is_below = |table: &Table| catalog.node(&table.owner).is_some_and(|owner| owner.tenant.as_ref() == Some(tenant));
        let can_fill = |table: &&Arc<Table>| node.ancestors.contains(&table.owner) || is_below(table);
        let all: Vec<Arc<Table>> = catalog.tables().filter(can_fill).cloned().collect();
        let Some(asked) = &wish.table else {
            return Ok(Self { log: LogName::Clean, ids: None, tables: all, system: None });
        };
        // A table of the tenant's own that is called so has its id besides.
        if let Some(system) = SystemTable::named(asked) {
            let ids = Some(vec![asked.clone()]);
            return Ok(Self { log: LogName::Audit, ids, tables: Vec::new(), system: Some(system) });
        }
        let named: Vec<Arc<Table>> = all.iter().filter(|t| t.name == *asked || t.id.as_str() == asked).cloned().collect();
        if !named.is_empty() {
            let ids = named.iter().map(|t| t.id.to_string()).collect();
            return Ok(Self { log: LogName::Clean, ids: Some(ids), tables: named, system: None });
        }
        let own = all.iter().map(|t| if t.name == t.id.as_str() { t.name.clone() } else { format!("{} ({})", t.name, t.id) });
        let known = own.chain(SystemTable::ALL.map(|t| t.as_str().to_owned())).collect();
        Err(TapError::Table { tenant: tenant.clone(), table: asked.clone(), known: listed(known) })
    }

    fn check(&self, filter: &Filter) -> Result<(), ConditionError> {
        let tables = self.tables.iter().map(|t| t.schema());
        let schemas: Vec<_> = tables.chain(self.system.map(SystemTable::schema)).collect();
        // A tenant without any table has no fields to name yet.
        if schemas.is_empty() { Ok(()) } else { filter.check(&schemas.iter().map(|s| &**s).collect::<Vec<_>>()) }
    }
}

fn listed(mut names: Vec<String>) -> String {
    names.sort();
    let more = names.len().saturating_sub(LISTED_MAX);
    names.truncate(LISTED_MAX);
    match (names.is_empty(), more) {
        (true, _) => "none yet".to_owned(),
        (_, 0) => names.join(", "),
        _ => format!("{} and {more} more", names.join(", ")),
    }
}
