//! Where the tables of a test lie: a folder, memory, or a bucket of a real S3 server. What holds of one holds of all.

use crate::s3::{self, S3, SECRET};
use futures_util::TryStreamExt;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_sinks::objects::Objects;
use tidegate_sinks::parquet::verify::{Held, Verifier};
use tidegate_sinks::parquet::{ParquetOptions, ParquetSink};

pub struct Home {
    kind: Kind,
    below: Arc<dyn ObjectStore>,
}

enum Kind {
    Folder(tempfile::TempDir),
    Memory(Objects),
    Bucket(&'static S3, String),
}

impl Home {
    /// One of each kind that there is.
    pub fn each() -> Vec<Self> {
        [Some(Self::folder()), Some(Self::of(Kind::Memory(Objects::memory().unwrap()))), Self::bucket()].into_iter().flatten().collect()
    }

    /// A folder of this machine.
    pub fn folder() -> Self {
        Self::of(Kind::Folder(tempfile::tempdir().unwrap()))
    }

    /// A bucket, where there is a server.
    pub fn bucket() -> Option<Self> {
        s3::shared().map(|s3| Self::of(Kind::Bucket(s3, s3.bucket("home"))))
    }

    fn of(kind: Kind) -> Self {
        let below = kind.objects().below().unwrap();
        Self { kind, below }
    }

    /// As a process of its own would have it.
    pub fn objects(&self) -> Objects {
        self.kind.objects()
    }

    pub fn sink(&self) -> ParquetSink {
        self.sink_with(ParquetOptions::default())
    }

    pub fn sink_with(&self, options: ParquetOptions) -> ParquetSink {
        ParquetSink::open(self.objects(), options).unwrap()
    }

    pub fn verifier(&self) -> Verifier {
        Verifier::open(self.objects()).unwrap()
    }

    pub fn held(&self, table: &str, tenant: &str) -> Held {
        let verifier = self.verifier();
        let found = verifier.find(&tenant.to_owned().try_into().unwrap(), &table.to_owned().try_into().unwrap()).unwrap();
        verifier.table(&found.expect("the table exists")).unwrap()
    }

    /// Rows of a table, each of which is there once.
    pub fn rows(&self, table: &str, tenant: &str) -> u64 {
        let held = self.held(table, tenant);
        assert_eq!(held.duplicates, 0);
        held.rows.values().sum()
    }

    /// See [`S3::faults`].
    pub fn faults(&self, seed: u64, shares: (u32, u32, u32)) {
        if let Kind::Bucket(s3, bucket) = &self.kind {
            s3.faults(bucket, seed, shares);
        }
    }

    /// See [`S3::loses_one`].
    pub fn loses_one(&self, after: u32) {
        if let Kind::Bucket(s3, bucket) = &self.kind {
            s3.loses_one(bucket, after);
        }
    }

    /// See [`S3::lost`].
    pub fn lost(&self) -> BTreeMap<String, u64> {
        match &self.kind {
            Kind::Bucket(s3, bucket) => s3.lost(bucket),
            _ => BTreeMap::new(),
        }
    }

    /// Puts what nobody else has put; whether nobody had.
    pub async fn create(&self, name: &str, bytes: Vec<u8>) -> bool {
        match self.below.put_opts(&StorePath::from(name), bytes.into(), PutMode::Create.into()).await {
            Ok(_) => true,
            Err(object_store::Error::AlreadyExists { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// What people call a folder of it.
    pub fn place(&self, folder: &str) -> String {
        match &self.kind {
            Kind::Folder(root) => root.path().canonicalize().unwrap().join(folder).display().to_string(),
            Kind::Memory(_) => format!("memory:///{folder}"),
            Kind::Bucket(_, bucket) => format!("s3://{bucket}/deep/tables/{folder}"),
        }
    }

    /// Names below a folder that end so, in order.
    pub async fn list(&self, folder: &str, ending: &str) -> Vec<String> {
        let prefix = StorePath::from(folder);
        let listed: Vec<_> = self.below.list(Some(&prefix)).try_collect().await.unwrap();
        let names = listed.into_iter().map(|m| m.location.to_string());
        let names = names.map(|n| n.strip_prefix(folder).unwrap().trim_start_matches('/').to_owned());
        let mut names: Vec<String> = names.filter(|n| n.ends_with(ending)).collect();
        names.sort();
        names
    }

    pub async fn read(&self, name: &str) -> Vec<u8> {
        self.below.get(&StorePath::from(name)).await.unwrap().bytes().await.unwrap().to_vec()
    }

    pub async fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name).await).unwrap()
    }

    pub async fn write(&self, name: &str, bytes: Vec<u8>) {
        self.below.put(&StorePath::from(name), bytes.into()).await.unwrap();
    }

    pub async fn remove(&self, name: &str) {
        self.below.delete(&StorePath::from(name)).await.unwrap();
    }
}

impl Kind {
    fn objects(&self) -> Objects {
        match self {
            Self::Folder(root) => Objects::folder(root.path()).unwrap(),
            Self::Memory(objects) => objects.clone(),
            Self::Bucket(s3, bucket) => s3.objects(bucket, SECRET),
        }
    }
}
