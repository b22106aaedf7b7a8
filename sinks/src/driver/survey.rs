//! What is parked, for people and for `verify`: read from its folder, by whichever process; changes nothing.

use super::park::{self, NOTE, Note, walk};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::{fs, io};
use tidegate_schemas::ids::{Epoch, LogId, Partition, TenantId};
use tidegate_schemas::sink::Target;

/// What is kept of a parked table of one partition.
#[derive(Clone, Debug, Serialize)]
pub struct Survey {
    /// The table.
    pub table: String,
    /// The tenant, where the sink takes tenants.
    pub tenant: Option<TenantId>,
    /// The partition.
    pub partition: Partition,
    /// The first epoch that was not delivered.
    pub first: Epoch,
    /// Cuts that wait.
    pub cuts: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows that were dropped, since the budget was used up.
    pub rows_dropped: u64,
    /// Why it was parked.
    pub reason: String,
}

impl std::fmt::Display for Survey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tenant = self.tenant.as_ref().map(|t| format!("{t}/")).unwrap_or_default();
        let Self { table, partition, first, cuts, bytes, rows_dropped, reason, .. } = self;
        write!(
            f,
            "{tenant}{table} partition {partition} since epoch {first}: {cuts} cuts of {bytes} bytes wait, {rows_dropped} rows dropped: {reason}"
        )
    }
}

/// What is parked of a sink and log, by whichever process; changes nothing.
pub fn survey(root: &Path, sink: &str, log: LogId) -> io::Result<Vec<Survey>> {
    let (folder, mut notes) = (root.join(sink).join(log.to_string()), Vec::new());
    if !folder.exists() {
        return Ok(notes);
    }
    walk(&folder, &mut |path| {
        if path.file_name().is_some_and(|name| name == NOTE) {
            let Note { table, tenant, partition, first, reason } = serde_json::from_slice(&fs::read(path)?)?;
            let mut found = Survey { table, tenant, partition, first, cuts: 0, bytes: 0, rows_dropped: 0, reason };
            walk(path.parent().unwrap_or(path), &mut |kept| {
                match kept.extension().and_then(|e| e.to_str()) {
                    Some("arrow") => (found.cuts, found.bytes) = (found.cuts + 1, found.bytes + fs::metadata(kept)?.len()),
                    Some("gap") => found.rows_dropped += serde_json::from_slice::<Dropped>(&fs::read(kept)?)?.rows,
                    _ => {}
                }
                Ok(())
            })?;
            notes.push(found);
        }
        Ok(())
    })?;
    notes.sort_by(|a, b| (a.partition, &a.table, &a.tenant).cmp(&(b.partition, &b.table, &b.tenant)));
    Ok(notes)
}

/// What a gap tells of itself.
#[derive(Deserialize)]
struct Dropped {
    rows: u64,
}

/// A cut that did not go into its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apart {
    /// The partition.
    pub partition: Partition,
    /// The table, and the tenant where the sink takes tenants.
    pub target: Target,
    /// Its first epoch.
    pub first: Epoch,
    /// Its last epoch.
    pub last: Epoch,
    /// Whether its rows are gone, by hand or since the budget was used up; else they wait.
    pub dropped: bool,
}

/// Every cut of a sink and log that is kept apart or was dropped, also of tables that are parked no longer.
pub fn apart(root: &Path, sink: &str, log: LogId) -> io::Result<Vec<Apart>> {
    let (folder, mut found) = (root.join(sink).join(log.to_string()), Vec::new());
    if !folder.exists() {
        return Ok(found);
    }
    walk(&folder, &mut |path| {
        let dropped = match path.extension().and_then(|e| e.to_str()) {
            Some("arrow") => false,
            Some("gap") => true,
            _ => return Ok(()),
        };
        let (first, last) = park::epochs(path)?;
        let (partition, target) = owner(path.strip_prefix(&folder).unwrap_or(path)).ok_or_else(|| misplaced(path))?;
        found.push(Apart { partition, target, first, last, dropped });
        Ok(())
    })?;
    Ok(found)
}

/// Of `<partition>/<table>/<tenant or _>/…`.
fn owner(path: &Path) -> Option<(Partition, Target)> {
    let mut parts = path.iter().map(|part| part.to_str());
    let (partition, table, tenant) = (parts.next()??, parts.next()??, parts.next()??);
    let tenant = if tenant == "_" { None } else { Some(TenantId::new(tenant).ok()?) };
    Some((partition.parse().ok()?, Target { table: table.to_owned(), tenant }))
}

fn misplaced(path: &Path) -> io::Error {
    io::Error::other(format!("{} does not lie where parked cuts do", path.display()))
}
