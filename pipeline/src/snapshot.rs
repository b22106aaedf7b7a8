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
    /// The snapshots of `log` in `store`, which `runtime` drives.
    pub fn new(store: Arc<dyn ObjectStore>, runtime: tokio::runtime::Handle, log: LogId) -> Self {
        Self { store, runtime, log }
    }

    /// The runtime that drives the store.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    /// What the state after an epoch is called.
    pub fn name(&self, partition: Partition, epoch: Epoch, state: &[u8]) -> String {
        format!("{}/{partition}/{epoch:020}-{}.state", self.log, hex::encode(Sha256::digest(state)))
    }

    /// Writes a state under its name; a repeat of the same state finds it there.
    pub async fn store(&self, name: &str, state: Vec<u8>) -> Result<(), SnapshotError> {
        fault::point("snapshot.before_put");
        let path = Path::from(name);
        let stored = match self.store.put_opts(&path, state.into(), PutMode::Create.into()).await {
            // S3 says so, too, where another put of the name was under way, which may have failed.
            Err(object_store::Error::AlreadyExists { .. }) => self.store.head(&path).await.map(|_| ()),
            put => put.map(|_| ()),
        };
        stored.map_err(|cause| SnapshotError::Store { name: name.to_owned(), cause })?;
        fault::point("snapshot.after_put");
        Ok(())
    }

    /// Writes the state after `epoch`, and waits for it.
    pub fn put(&self, partition: Partition, epoch: Epoch, state: &[u8]) -> Result<String, SnapshotError> {
        let name = self.name(partition, epoch, state);
        self.runtime.block_on(self.store(&name, state.to_vec())).map(|()| name)
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
    pub async fn prune(&self, partition: Partition, keep: &str) -> Result<(), SnapshotError> {
        use futures_util::TryStreamExt;
        let prefix = format!("{}/{partition}", self.log);
        let fail = |cause| SnapshotError::Store { name: prefix.clone(), cause };
        let path = Path::from(prefix.as_str());
        let mut names: Vec<Path> = self.store.list(Some(&path)).map_ok(|m| m.location).try_collect().await.map_err(fail)?;
        names.retain(|n| n.as_ref() < keep);
        names.sort();
        names.pop();
        for name in names {
            fault::point("snapshot.before_delete");
            self.store.delete(&name).await.map_err(fail)?;
        }
        Ok(())
    }
}
