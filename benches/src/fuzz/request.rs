//! Heads of requests over a real connection to a real edge with a log in memory, and answers to the demo's client.
//!
//! ```text
//! input    how 1 | target \n | header: value \n … | \n | body        a POST, or a GET where `how` is odd
//!          or, where `how` is above 0xf0, an answer for the client
//! ```
//! The client frames the request, so that headers of framing are left out here: that part is hyper's.

use super::input::Input;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tidegate_ingest_http::{
    Catalogs, Edge, EdgeSettings, Operations, Readiness, ReceiptFailure, ReceiptStatus, Receipts, hash_secret, issue_key, serve,
};
use tidegate_pipeline::demo::fleet::client::{Client, Post};
use tidegate_schemas::BoxFuture;
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::definition::*;
use tidegate_schemas::envelope::Envelope;
use tidegate_schemas::ids::*;
use tidegate_schemas::limits::{META_BYTES_MAX, RECORD_BYTES_MAX, RECORD_HEADERS_BYTES_MAX};
use tidegate_schemas::log::*;
use tidegate_schemas::receipt::Receipt;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const NOW: i64 = 1_790_000_000_000_000;
/// Where an input is an answer.
const ANSWER: u8 = 0xf0;
/// The request's framing is the client's.
const FRAMING: [&str; 6] = ["content-length", "transfer-encoding", "connection", "expect", "upgrade", "host"];

/// Sends a request, or reads an answer.
pub fn request(bytes: &[u8]) {
    let mut input = Input(bytes);
    let how = input.u8();
    if how >= ANSWER { answer(input.0) } else { ask(how, input.0) }
}

/// The printable key of an id, as seeds carry it.
pub(super) fn key(id: &str) -> String {
    issue_key(&CredentialId::new(id).unwrap(), &secret(id))
}

fn secret(id: &str) -> [u8; 32] {
    let mut secret = [0x5a; 32];
    secret[..id.len()].copy_from_slice(id.as_bytes());
    secret
}

fn ask(how: u8, bytes: &[u8]) {
    let mut rest = bytes;
    let mut line = || {
        let (line, after) = rest.split_at(rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()));
        rest = after.get(1..).unwrap_or_default();
        // A second line would be a second request: that is the client's fault, and not what is asked here.
        String::from_utf8_lossy(line).replace('\r', "")
    };
    let path = line();
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut content_type = "application/json".to_owned();
    loop {
        let text = line();
        let Some((name, value)) = text.split_once(':') else { break };
        let plain = name.trim().to_ascii_lowercase();
        match plain.as_str() {
            "content-type" => content_type = value.trim().to_owned(),
            framing if FRAMING.contains(&framing) => {}
            _ => headers.push((name.to_owned(), value.trim().to_owned())),
        }
    }
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (&**n, &**v)).collect();
    let server = server();
    server.log.take();
    let mut client = Client::new(server.address.to_string());
    let post = Post { path: &path, key: None, content_type: &content_type, headers: &headers, body: rest };
    let answered = server.runtime.block_on(async {
        let key = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("x-api-key")).map(|(_, v)| *v);
        if how % 2 == 1 { client.get(&path, key).await } else { client.post(&post).await }
    });
    let records = server.log.take();
    // hyper closes where a head breaks its rules; that is an answer as well.
    let Ok(answer) = answered else { return assert!(records.is_empty(), "stored, and the answer cannot be read") };
    assert!((200..500).contains(&answer.status), "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    assert_eq!(records.is_empty(), !matches!((how % 2, answer.status), (0, 202)), "{}", answer.status);
    if answer.status >= 400 {
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        assert!(answer.body.is_empty() || problem["status"] == answer.status, "{}", String::from_utf8_lossy(&answer.body));
    }
    for (_, record) in records {
        let envelope = Envelope::read(&record).unwrap();
        let presented = BTreeSet::from(["open", "head"]).contains(envelope.credential.as_str());
        assert!(presented && envelope.tenant.as_str() == "acme" && !envelope.events.is_empty());
        let kept: usize = envelope.meta.iter().map(|(n, v)| n.len() + v.len()).sum();
        assert!(kept <= META_BYTES_MAX && envelope.idempotency.is_none_or(|k| k.len() <= 256));
        assert!(envelope.traceparent.is_none_or(|t| t.len() >= 55 && t.is_ascii()));
    }
}

/// The client reads an answer or says that it cannot.
fn answer(bytes: &[u8]) {
    let server = server();
    *server.answer.lock().unwrap_or_else(PoisonError::into_inner) = bytes.to_vec();
    let mut client = Client::new(server.answers.to_string());
    let answer = server.runtime.block_on(client.get("/", None));
    if let Ok(answer) = answer {
        assert!(answer.body.len() <= bytes.len());
    }
}

struct Server {
    runtime: Runtime,
    address: SocketAddr,
    log: Arc<MemoryLog>,
    /// Whoever connects here reads `answer`.
    answers: SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(MemoryLog::default());
        let edge = Edge {
            log: log.clone(),
            catalog: Arc::new(Fixed(Arc::new(catalog()))),
            receipts: Arc::new(Nothing),
            clock: || NOW,
            operations: Arc::new(Process),
            settings: EdgeSettings { wait_max: Duration::from_millis(1), ..EdgeSettings::default() },
        };
        // It ends with the process, as the runtime does.
        std::mem::drop(runtime.spawn(serve(edge, listener, CancellationToken::new())));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let answers = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(Vec::new()));
        let next = answer.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let _ = stream.read(&mut [0; 4096]);
                let bytes = next.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let _ = stream.write_all(&bytes);
            }
        });
        Server { runtime, address, log, answers, answer }
    })
}

/// `raw` in memory; the other logs do not exist.
#[derive(Default)]
struct MemoryLog(Mutex<Vec<(Partition, Record)>>);

impl MemoryLog {
    fn take(&self) -> Vec<(Partition, Record)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
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
        for (_, record) in &records {
            let head = record.size() - record.value.len();
            assert!(record.value.len() <= RECORD_BYTES_MAX && head <= RECORD_HEADERS_BYTES_MAX, "no log takes this record");
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = all.len() as u64;
        let offsets = (first..first + records.len() as u64).collect();
        all.extend(records);
        Box::pin(async move { Ok(offsets) })
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
        Usage { bytes: 1, budget: 100 }
    }
}

struct Fixed(Arc<Catalog>);
impl Catalogs for Fixed {
    fn current(&self) -> Arc<Catalog> {
        Arc::clone(&self.0)
    }
}

struct Nothing;
impl Receipts for Nothing {
    fn look_up<'a>(&'a self, _: &'a TenantId, _: &'a Receipt) -> BoxFuture<'a, Result<ReceiptStatus, ReceiptFailure>> {
        Box::pin(async { Err(ReceiptFailure::NotFound) })
    }
}

struct Process;
impl Operations for Process {
    fn metrics(&self) -> String {
        "tidegate_up 1\n".into()
    }
    fn ready(&self) -> BoxFuture<'_, Readiness> {
        Box::pin(std::future::ready(Readiness { ready: true, body: serde_json::json!({ "log": true }) }))
    }
}

/// Tenant acme with two keys: `open` for a source with the asset in the body, `head` for one that has all in the head.
fn catalog() -> Catalog {
    let node = |id: &str| NodeId::new(id).unwrap();
    let organization = |id: &str, kind, parent: Option<&str>| {
        Definition::Organization(Organization { id: node(id), kind, name: id.into(), parent: parent.map(node) })
    };
    let header = |name: &str| Place::Header(name.into());
    let source = |id: &str, asset: Place, event_id, occurred_at, meta: &[&str]| {
        Definition::Source(Box::new(Source {
            id: SourceId::new(id).unwrap(),
            node: node("acme"),
            template: None,
            template_at: None,
            asset,
            event_id,
            occurred_at,
            event_type: None,
            meta: meta.iter().map(|m| (*m).to_owned()).collect(),
        }))
    };
    let key = |id: &str, source: &str, assets: Option<Vec<String>>| {
        Definition::Key(ApiKey {
            id: CredentialId::new(id).unwrap(),
            tenant: TenantId::new("acme").unwrap(),
            source: SourceId::new(source).unwrap(),
            sha256: hash_secret(&secret(id)),
            expires_at: None,
            assets,
        })
    };
    let definitions = [
        organization("vendor", NodeKind::Vendor, None),
        organization("acme", NodeKind::Customer, Some("vendor")),
        source("plant", Place::Pointer("/device".into()), None, None, &["x-site", "x-gateway"]),
        source("gate", header("X-Device"), Some(Place::Query("id".into())), Some(header("x-time")), &[]),
        key("open", "plant", None),
        key("head", "gate", Some(vec!["d1".into()])),
    ];
    let mut catalog = Catalog::default();
    for (revision, definition) in (1..).zip(definitions) {
        let (key, actor) = (definition.key(), "fuzz".to_owned());
        let change = Change { revision, definition: key, version: 1, actor, at: NOW, before: None, after: Some(definition) };
        catalog.apply(&change).unwrap();
    }
    catalog
}
