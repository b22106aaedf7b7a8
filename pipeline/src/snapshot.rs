//! Snapshots of a partition's committed state in the object store. A snapshot counts only once a later commit refers to
//! it; the state is otherwise a fold over committed outcomes, so losing all snapshots loses time, not truth.

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tidegate_schemas::fault;
use tidegate_schemas::ids::{Epoch, LogId, Partition};

/// Where the snapshots of one log lie.
#[derive(Clone)]
pub struct Snapshots {
    store: Arc<dyn ObjectStore>,
    runtime: tokio::runtime::Handle,
    log: LogId,
}

/// Why a snapshot could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The store failed.
    #[error("snapshot {name}")]
    Store {
        /// The snapshot.
        name: String,
        /// The reason.
        #[source]
        cause: object_store::Error,
    },
    /// Its bytes are not those that were written.
    #[error("snapshot {name} does not match the hash in its name")]
    Corrupt {
        /// The snapshot.
        name: String,
    },
}

impl Snapshots {
    /// The snapshots of `log` in `store`. Calls block; `runtime` drives the store.
    pub fn new(store: Arc<dyn ObjectStore>, runtime: tokio::runtime::Handle, log: LogId) -> Self {
        Self { store, runtime, log }
    }

    /// Writes the state after `epoch`; a repeat of the same state finds it there.
    pub fn put(&self, partition: Partition, epoch: Epoch, state: &[u8]) -> Result<String, SnapshotError> {
        let hash = hex::encode(Sha256::digest(state));
        let name = format!("{}/{partition}/{epoch:020}-{hash}.state", self.log);
        fault::point("snapshot.before_put");
        let path = Path::from(name.as_str());
        let put = self.store.put_opts(&path, state.to_vec().into(), PutMode::Create.into());
        match self.runtime.block_on(put) {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(cause) => return Err(SnapshotError::Store { name, cause }),
        }
        fault::point("snapshot.after_put");
        Ok(name)
    }

    /// Reads a snapshot and compares its hash.
    pub fn get(&self, name: &str) -> Result<Vec<u8>, SnapshotError> {
        let fail = |cause| SnapshotError::Store { name: name.to_owned(), cause };
        let path = Path::from(name);
        let bytes = self.runtime.block_on(async { self.store.get(&path).await?.bytes().await }).map_err(fail)?;
        let expected = name.rsplit_once('-').and_then(|(_, rest)| rest.strip_suffix(".state")).unwrap_or_default();
        if hex::encode(Sha256::digest(&bytes)) == expected {
            Ok(bytes.to_vec())
        } else {
            Err(SnapshotError::Corrupt { name: name.to_owned() })
        }
    }

    /// Deletes all but `keep` and the one before it: two newer ones exist for whatever goes.
    pub fn prune(&self, partition: Partition, keep: &str) -> Result<(), SnapshotError> {
        use futures_util::TryStreamExt;
        let prefix = format!("{}/{partition}", self.log);
        let fail = |cause| SnapshotError::Store { name: prefix.clone(), cause };
        let path = Path::from(prefix.as_str());
        let mut names: Vec<Path> =
            self.runtime.block_on(self.store.list(Some(&path)).map_ok(|m| m.location).try_collect()).map_err(fail)?;
        names.retain(|n| n.as_ref() < keep);
        names.sort();
        names.pop();
        for name in names {
            fault::point("snapshot.before_delete");
            self.runtime.block_on(self.store.delete(&name)).map_err(fail)?;
        }
        Ok(())
    }
}
