//! Where objects lie: a store and a folder in it. What a local disk, S3 and memory differ in ends here.
//!
//! ```text
//! settings ─▶ Objects { store, root } ─▶ Parquet files and Delta commits, snapshots
//!                └─ race: conditional puts are tried before anything relies on them
//! ```
//! Nothing is ever put where another tenant's rows lie: a place is the root and ids that hold no separator.

use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as StorePath;
use object_store::prefix::PrefixStore;
use object_store::{Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use tidegate_schemas::causes::chain;
use tokio::task::JoinSet;
use url::Url;

/// Writers of one name at once.
pub const RACERS: usize = 8;
/// Races of a store over a network: one that is not atomic shows it in about half of them.
const RACES: usize = 16;
/// Races that end without a result, beyond as many that end with one: then the store cannot be used as it is.
const FAILURES_MAX: usize = 1;
/// How names begin that writers race for.
const RACE: &str = ".race-";
/// What is older was left by a process that died.
const RACE_SECONDS_MAX: i64 = 3_600;

/// A store, and the folder of it that everything here goes below.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    /// `file:///srv/tables/`, `s3://bucket/tables/`: the path is that of the store, and ends with a slash.
    root: Url,
}

/// Why a store cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectsError {
    /// Not now, or not under these settings.
    #[error("{doing}: {detail}")]
    Failed {
        /// What was under way.
        doing: String,
        /// What went wrong.
        detail: String,
    },
    /// Never: it breaks what everything here relies on.
    #[error(
        "{place} cannot hold tables: {detail}; use a store with conditional writes (If-None-Match), and nothing in between that drops them"
    )]
    Unfit {
        /// The store.
        place: String,
        /// What it did.
        detail: String,
    },
}

impl Objects {
    /// A folder of the local file system, made where it is missing. What is put there is synced.
    pub fn folder(folder: &Path) -> Result<Self, ObjectsError> {
        let fail = |e: &dyn Display| ObjectsError::Failed { doing: format!("opening {}", folder.display()), detail: e.to_string() };
        std::fs::create_dir_all(folder).map_err(|e| fail(&e))?;
        let absolute = folder.canonicalize().map_err(|e| fail(&e))?;
        let root = Url::from_directory_path(&absolute).map_err(|()| fail(&"it has no absolute path"))?;
        Ok(Self { store: Arc::new(LocalFileSystem::new().with_fsync(true)), root })
    }

    /// Nothing outlives it.
    pub fn memory() -> Result<Self, ObjectsError> {
        Self::new(Arc::new(InMemory::new()), "memory:///")
    }

    /// A folder of any other store, by its URL.
    pub fn new(store: Arc<dyn ObjectStore>, root: &str) -> Result<Self, ObjectsError> {
        let root = if root.ends_with('/') { root.to_owned() } else { format!("{root}/") };
        match Url::parse(&root) {
            Ok(url) if StorePath::from_url_path(url.path()).is_ok() => Ok(Self { store, root: url }),
            Ok(_) => Err(ObjectsError::Failed { doing: format!("opening {root}"), detail: "its path is none of a store".into() }),
            Err(error) => Err(ObjectsError::Failed { doing: format!("opening {root}"), detail: error.to_string() }),
        }
    }

    /// The store; paths in it are those of URLs.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The store, with paths that begin at the root.
    pub fn below(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        Ok(Arc::new(PrefixStore::new(Arc::clone(&self.store), path(&self.root)?)))
    }

    /// The root; it ends with a slash.
    pub fn root(&self) -> &Url {
        &self.root
    }

    /// Whether it is a folder of this machine.
    pub fn is_local(&self) -> bool {
        self.root.scheme() == "file"
    }

    /// A folder below the root, by names that hold no separator.
    pub fn place_of(&self, names: &[&str]) -> Url {
        let mut url = self.root.clone();
        // Roots are never without a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(names).push("");
        }
        url
    }

    /// Whether anything lies right below a folder whose name ends so.
    pub async fn any(&self, folder: &Url, ending: &str) -> Result<bool, StoreError> {
        let mut listed = self.store.list(Some(&path(folder)?));
        while let Some(found) = listed.next().await {
            if found?.location.as_ref().ends_with(ending) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Names of the folders right below one, in order.
    pub async fn folders(&self, folder: &Url) -> Result<Vec<String>, StoreError> {
        let listed = self.store.list_with_delimiter(Some(&path(folder)?)).await?;
        let mut names: Vec<String> = listed.common_prefixes.iter().filter_map(|p| Some(p.filename()?.to_owned())).collect();
        names.sort();
        Ok(names)
    }

    /// Lets several writers create one name at once, several times: one must win, the others be told, and what is read be the
    /// winner's. Tries on the way whether one may write, read, list and delete there. Nothing of it stays: what could not be
    /// deleted is deleted in the end, and what a process left that died in its race, by a later one.
    pub async fn race(&self) -> Result<(), ObjectsError> {
        // Who links a file on this machine is told the truth by the system: once shows that it can be done at all.
        let races = if self.is_local() { 1 } else { RACES };
        let (mut passed, mut failed, mut left) = (0, 0, Vec::new());
        let raced = loop {
            match self.race_once(&mut left).await {
                Ok(_) if passed + 1 < races => passed += 1,
                // An answer may have got lost, which proves nothing.
                Err(ObjectsError::Failed { .. }) if failed < passed + FAILURES_MAX => failed += 1,
                ended => break ended,
            }
        };
        for at in &left {
            if let Err(error) = self.store.delete(at).await {
                tracing::warn!(%at, %error, "what the store was tried with stays there");
            }
        }
        if let Err(error) = self.sweep(raced?).await {
            tracing::warn!(place = place(&self.root), %error, "what the store was once tried with stays there");
        }
        Ok(())
    }

    /// When it was, by the store's clock, in seconds.
    async fn race_once(&self, left: &mut Vec<StorePath>) -> Result<i64, ObjectsError> {
        let fail = |what: &str, e: &dyn Display| self.failed(what, e);
        // Others may try the same store at the same time.
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|e| fail("naming a file in", &e))?;
        let name = format!("{RACE}{}", hex::encode(random));
        // A folder would stay behind on a disk; elsewhere there are none, and its list is short.
        let folder = if self.is_local() { self.root.clone() } else { self.place_of(&[&name]) };
        let at = path(&folder).map_err(|e| fail("naming a file in", &e))?.join(name.as_str());
        let judged = self.try_name(&folder, &at, &name).await;
        if let Err(error) = self.store.delete(&at).await {
            left.push(at);
            return judged.and(Err(fail("deleting from", &chain(&error))));
        }
        judged
    }

    async fn try_name(&self, folder: &Url, at: &StorePath, name: &str) -> Result<i64, ObjectsError> {
        let fail = |what: &str, e: &dyn Display| self.failed(what, e);
        let unfit = |detail: String| ObjectsError::Unfit { place: place(&self.root), detail };
        let mut racers = JoinSet::new();
        for racer in 0..RACERS as u8 {
            let (store, at) = (Arc::clone(&self.store), at.clone());
            racers.spawn(async move { (racer, store.put_opts(&at, vec![racer; 64].into(), PutMode::Create.into()).await) });
        }
        let (mut winners, mut unable, mut failure) = (Vec::new(), None, None);
        // All of them end before anything is deleted.
        while let Some(ended) = racers.join_next().await {
            match ended {
                Ok((racer, Ok(_))) => winners.push(racer),
                Ok((_, Err(StoreError::AlreadyExists { .. }))) => {}
                Ok((_, Err(error @ (StoreError::NotImplemented { .. } | StoreError::NotSupported { .. })))) => {
                    unable = Some(chain(&error));
                }
                Ok((_, Err(error))) => failure = Some(chain(&error)),
                Err(error) => failure = Some(error.to_string()),
            }
        }
        if let Some(error) = unable {
            return Err(unfit(error));
        }
        if let Some(error) = failure.filter(|_| winners.len() < 2) {
            return Err(fail("writing to", &error));
        }
        let winner = match winners[..] {
            [winner] => winner,
            // Made, answered as if it had failed, and repeated by the client.
            [] => return Err(fail("writing to", &"of several writers of one name none was told that it made it")),
            _ => return Err(unfit(format!("{} of {RACERS} writers of one name were told that they made it", winners.len()))),
        };
        let stored = self.store.get(at).await.map_err(|e| fail("reading from", &chain(&e)))?;
        let made = stored.meta.last_modified.timestamp();
        if stored.bytes().await.map_err(|e| fail("reading from", &chain(&e)))?[..] != [winner; 64] {
            return Err(unfit("who was told that it made a file did not".into()));
        }
        match self.store.put_opts(at, vec![RACERS as u8; 64].into(), PutMode::Create.into()).await {
            Err(StoreError::AlreadyExists { .. }) => {}
            Ok(_) => return Err(unfit("a file that was there was overwritten".into())),
            Err(error) => return Err(fail("writing to", &chain(&error))),
        }
        if !self.is_local() && !self.any(folder, name).await.map_err(|e| fail("listing", &chain(&e)))? {
            return Err(unfit("a file that was there was not listed".into()));
        }
        Ok(made)
    }

    /// Deletes what processes left that died in their races: those last seconds.
    async fn sweep(&self, now: i64) -> Result<(), StoreError> {
        let of_race = |path: &StorePath| path.filename().is_some_and(|name| name.starts_with(RACE));
        let listed = self.store.list_with_delimiter(Some(&path(&self.root)?)).await?;
        let mut found = listed.objects;
        for folder in listed.common_prefixes.iter().filter(|p| of_race(p)) {
            found.extend(self.store.list(Some(folder)).try_collect::<Vec<_>>().await?);
        }
        let old = |o: &&ObjectMeta| now - o.last_modified.timestamp() > RACE_SECONDS_MAX;
        for left in found.iter().filter(|o| of_race(&o.location)).filter(old) {
            // Another may be faster.
            match self.store.delete(&left.location).await {
                Err(error) if !matches!(error, StoreError::NotFound { .. }) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn failed(&self, what: &str, error: &dyn Display) -> ObjectsError {
        ObjectsError::Failed { doing: format!("{what} {}", place(&self.root)), detail: error.to_string() }
    }
}

/// The path of a URL in its store.
pub fn path(url: &Url) -> Result<StorePath, StoreError> {
    Ok(StorePath::from_url_path(url.path())?)
}

/// As people write it: a path of this machine, or a URL.
pub fn place(url: &Url) -> String {
    let local = if url.scheme() == "file" { url.to_file_path().ok() } else { None };
    let text = local.map_or_else(|| url.to_string(), |path| path.display().to_string());
    text.strip_suffix('/').filter(|t| !t.is_empty()).unwrap_or(&text).to_owned()
}
