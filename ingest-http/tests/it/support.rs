//! A server with a log in memory, a catalog by hand, and a client that says exactly what it is told.

use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_ingest_http::{
    Catalogs, Edge, EdgeSettings, Operations, Readiness, ReceiptFailure, ReceiptStatus, Receipts, hash_secret, issue_key, serve,
};
use tidegate_schemas::BoxFuture;
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::definition::*;
use tidegate_schemas::envelope::Envelope;
use tidegate_schemas::ids::*;
use tidegate_schemas::limits::{RECORD_BYTES_MAX, RECORD_HEADERS_BYTES_MAX};
use tidegate_schemas::log::*;
use tidegate_schemas::receipt::Receipt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub const NOW: i64 = 1_790_000_000_000_000;

/// What the log does with the next requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Takes,
    Full,
    Fails,
    Silent,
    /// Until the gate has a permit.
    Gated,
    Panics,
}

/// `raw` in memory; the other logs do not exist.
pub struct MemoryLog {
    pub records: Mutex<Vec<(Partition, Record)>>,
    pub mode: Mutex<Mode>,
    /// Told when a publish has come in.
    pub entered: Notify,
    pub gate: Semaphore,
}

impl MemoryLog {
    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    pub fn take(&self) -> Vec<(Partition, Record)> {
        std::mem::take(&mut self.records.lock().unwrap())
    }

    /// Envelopes with their values since the last call.
    pub fn envelopes(&self) -> Vec<(Envelope, Bytes)> {
        self.take().into_iter().map(|(_, r)| (Envelope::read(&r).unwrap(), r.value)).collect()
    }
}

impl EventLog for MemoryLog {
    fn log_id(&self) -> LogId {
        LogId([9; 16])
    }
    fn partitions(&self) -> u32 {
        8
    }
    fn publish(&self, log: LogName, records: Vec<(Partition, Record)>) -> BoxFuture<'_, Result<Vec<u64>, LogError>> {
        assert_eq!(log, LogName::Raw);
        let mode = *self.mode.lock().unwrap();
        Box::pin(async move {
            self.entered.notify_one();
            match mode {
                Mode::Takes => {}
                Mode::Full => return Err(LogError::Full { used: 90, budget: 100 }),
                Mode::Fails => return Err(LogError::Io { doing: "append".into(), detail: "disk on fire".into() }),
                Mode::Silent => std::future::pending().await,
                Mode::Gated => self.gate.acquire().await.unwrap().forget(),
                Mode::Panics => panic!("the log has a defect"),
            }
            tokio::task::yield_now().await;
            for (_, record) in &records {
                let (bytes, rest) = (record.value.len(), record.size() - record.value.len());
                if bytes > RECORD_BYTES_MAX || rest > RECORD_HEADERS_BYTES_MAX {
                    return Err(LogError::TooLarge { bytes: bytes + rest, max: RECORD_BYTES_MAX });
                }
            }
            let mut all = self.records.lock().unwrap();
            let first = all.len() as u64;
            let offsets = (first..first + records.len() as u64).collect();
            all.extend(records);
            Ok(offsets)
        })
    }
    fn bounds(&self, _: LogName, _: Partition) -> Result<Range<u64>, LogError> {
        Ok(0..0)
    }
    fn read(&self, _: LogName, _: Partition, _: u64, _: usize) -> Result<Vec<Entry>, LogError> {
        Ok(Vec::new())
    }
    fn poll(&self, _: LogName, _: Partition, _: u64, _: usize, _: Duration) -> Result<Vec<Entry>, LogError> {
        Ok(Vec::new())
    }
    fn fence(&self, _: Partition) -> Result<Owner, LogError> {
        Err(LogError::Closed)
    }
    fn commit(&self, _: &Owner, _: Vec<CommitUnit>) -> Result<Vec<Written>, LogError> {
        Err(LogError::Closed)
    }
    fn cursor(&self, _: &str, _: Partition) -> Result<Option<SinkCursor>, LogError> {
        Ok(None)
    }
    fn store_cursor(&self, _: &str, _: Partition, _: SinkCursor) -> Result<(), LogError> {
        Ok(())
    }
    fn sinks(&self) -> Result<Vec<String>, LogError> {
        Ok(Vec::new())
    }
    fn forget_sink(&self, _: &str) -> Result<(), LogError> {
        Ok(())
    }
    fn hold(&self, _: &str, _: LogName, _: Partition, _: Option<u64>) {}
    fn trim(&self) -> Result<u64, LogError> {
        Ok(0)
    }
    fn usage(&self) -> Usage {
        Usage { bytes: 90, budget: 100 }
    }
}

struct Fixed(Arc<Catalog>);
impl Catalogs for Fixed {
    fn current(&self) -> Arc<Catalog> {
        Arc::clone(&self.0)
    }
}

/// What one look after another finds; the last one stays.
pub type Looks = Vec<Result<ReceiptStatus, ReceiptFailure>>;

/// Answers by receipt id: a tenant, and how often it is still pending.
#[derive(Default)]
pub struct Known {
    pub statuses: Mutex<BTreeMap<ReceiptId, (TenantId, Looks)>>,
    /// For receipts that nobody announced: those of posts in the same test.
    pub others: Mutex<Vec<ReceiptStatus>>,
}

impl Receipts for Known {
    fn look_up<'a>(&'a self, tenant: &'a TenantId, receipt: &'a Receipt) -> BoxFuture<'a, Result<ReceiptStatus, ReceiptFailure>> {
        Box::pin(async move {
            let next = |left: &mut Looks| if left.len() > 1 { Some(left.remove(0)) } else { left.first().cloned() };
            match self.statuses.lock().unwrap().get_mut(&receipt.id) {
                Some((owner, left)) if owner == tenant => next(left).unwrap_or(Err(ReceiptFailure::NotFound)),
                Some(_) => Err(ReceiptFailure::NotFound),
                None => {
                    let mut others = self.others.lock().unwrap();
                    let status = if others.len() > 1 { Some(others.remove(0)) } else { others.first().cloned() };
                    status.ok_or(ReceiptFailure::NotFound)
                }
            }
        })
    }
}

pub struct Process {
    pub ready: bool,
    pub render: Box<dyn Fn() -> String + Send + Sync>,
}
impl Operations for Process {
    fn metrics(&self) -> String {
        (self.render)()
    }
    fn ready(&self) -> BoxFuture<'_, Readiness> {
        Box::pin(std::future::ready(Readiness { ready: self.ready, body: serde_json::json!({ "log": self.ready, "sinks": [] }) }))
    }
}

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    pub log: Arc<MemoryLog>,
    pub receipts: Arc<Known>,
    pub stop: CancellationToken,
    pub ended: tokio::task::JoinHandle<std::io::Result<()>>,
    _tasks: TaskTracker,
}

pub async fn start() -> Server {
    start_with(|_| {}).await
}

pub async fn start_with(change: impl FnOnce(&mut EdgeSettings)) -> Server {
    start_process(change, Process { ready: true, render: Box::new(|| "tidegate_up 1\n".into()) }).await
}

pub async fn start_process(change: impl FnOnce(&mut EdgeSettings), process: Process) -> Server {
    let mut settings = EdgeSettings::default();
    change(&mut settings);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let log =
        Arc::new(MemoryLog { records: Mutex::default(), mode: Mutex::new(Mode::Takes), entered: Notify::new(), gate: Semaphore::new(0) });
    let receipts = Arc::new(Known::default());
    let stop = CancellationToken::new();
    let edge = Edge {
        log: log.clone(),
        catalog: Arc::new(Fixed(Arc::new(catalog()))),
        receipts: receipts.clone(),
        clock: || NOW,
        operations: Arc::new(process),
        settings,
    };
    let tasks = TaskTracker::new();
    let ended = tasks.spawn(serve(edge, listener, stop.clone()));
    Server { address, log, receipts, stop, ended, _tasks: tasks }
}

/// Secret of a key: bytes made of its id.
pub fn secret(id: &str) -> [u8; 32] {
    let mut secret = [0x5a; 32];
    secret[..id.len()].copy_from_slice(id.as_bytes());
    secret
}

/// The printable key of an id.
pub fn key(id: &str) -> String {
    issue_key(&CredentialId::new(id).unwrap(), &secret(id))
}

/// Tenants `acme` and `other`. Keys of acme: `open` (source `plant`), `bound` (assets a1 and a2), `single` (asset a1, the
/// source `own` says "the credential"), `head` (source `gate`, places in header and query, bound to d1), `old` (expired),
/// `young` (not yet). Key of other: `foreign`.
pub fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    let mut revision = 0;
    let mut put = |definition: Definition| {
        revision += 1;
        let (key, actor) = (definition.key(), "test".to_owned());
        let change = Change { revision, definition: key, version: 1, actor, at: NOW, before: None, after: Some(definition) };
        catalog.apply(&change).unwrap();
    };
    let node = |id: &str, kind, parent: Option<&str>| {
        let parent = parent.map(|p| NodeId::new(p).unwrap());
        Definition::Organization(Organization { id: NodeId::new(id).unwrap(), kind, name: id.into(), parent })
    };
    put(node("vendor", NodeKind::Vendor, None));
    for tenant in ["acme", "other"] {
        put(node(tenant, NodeKind::Customer, Some("vendor")));
    }
    let source = |node: &str, id: &str, asset: Place, event_id: Option<Place>, meta: &[&str]| {
        Definition::Source(Box::new(Source {
            id: SourceId::new(id).unwrap(),
            node: NodeId::new(node).unwrap(),
            template: None,
            template_at: None,
            asset,
            event_id,
            occurred_at: None,
            event_type: None,
            meta: meta.iter().map(|m| (*m).to_owned()).collect(),
        }))
    };
    let pointer = || Place::Pointer("/device".into());
    put(source("acme", "plant", pointer(), None, &["x-site"]));
    put(source("acme", "own", Place::Credential, None, &[]));
    put(source("acme", "gate", Place::Header("X-Device".into()), Some(Place::Query("id".into())), &[]));
    put(source("other", "plant", pointer(), None, &[]));
    for (id, tenant, source, expires_at, assets) in [
        ("open", "acme", "plant", None, None),
        ("bound", "acme", "plant", None, Some(vec!["a1", "a2"])),
        ("single", "acme", "own", None, Some(vec!["a1"])),
        ("head", "acme", "gate", None, Some(vec!["d1"])),
        ("old", "acme", "plant", Some(NOW), None),
        ("young", "acme", "plant", Some(NOW + 1), None),
        ("foreign", "other", "plant", None, None),
    ] {
        put(Definition::Key(ApiKey {
            id: CredentialId::new(id).unwrap(),
            tenant: TenantId::new(tenant).unwrap(),
            source: SourceId::new(source).unwrap(),
            sha256: hash_secret(&secret(id)),
            expires_at,
            assets: assets.map(|a| a.into_iter().map(str::to_owned).collect()),
        }));
    }
    catalog
}

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}{}", self.head, String::from_utf8_lossy(&self.body)))
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().filter_map(|l| l.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }
    /// The last part of the problem's type, after what is common to all problems was checked.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], self.status);
        assert!(body["title"].is_string());
        body["type"].as_str().unwrap().strip_prefix("urn:tidegate:problem:").unwrap().to_owned()
    }
}

/// A kept-alive connection that sends bytes as they are.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn connect(server: &Server) -> Self {
        Self { stream: TcpStream::connect(server.address).await.unwrap(), buffer: Vec::new() }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next answer; `None` where the server closes instead.
    pub async fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        let length: usize = answer.header("content-length").map_or(0, |l| l.parse().unwrap());
        while self.buffer.len() < length {
            assert!(self.more().await, "the body breaks off");
        }
        answer.body = self.buffer.drain(..length).collect();
        Some(answer)
    }

    /// Whether more came before the server closed.
    pub async fn more(&mut self) -> bool {
        let mut chunk = [0; 4096];
        match tokio::time::timeout(Duration::from_secs(30), self.stream.read(&mut chunk))
            .await
            .expect("the server neither answers nor closes")
        {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                true
            }
        }
    }

    pub async fn call(&mut self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send(&request(line, headers, body)).await;
        self.answer().await.expect("an answer")
    }
}

/// The bytes of a request; `line` is method and target.
pub fn request(line: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{line} HTTP/1.1\r\nhost: t\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() || line.starts_with("POST") {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// Posts with the key of an id on a connection of its own.
pub async fn post_as(server: &Server, id: &str, content_type: &str, body: &[u8]) -> Answer {
    let key = key(id);
    Client::connect(server).await.call("POST /v1/events", &[("x-api-key", &key), ("content-type", content_type)], body).await
}

pub const JSON: &str = "application/json";
pub const LINES: &str = "application/x-ndjson";
pub const RAW: &str = "application/octet-stream";
