//! A simulated fleet: a few hundred devices of four tenants that send as fast as a handful of connections go, and do
//! wrong whatever devices do wrong. Everything follows from a seed, so the account of what must become of each event is
//! known before the first is sent.
//!
//! ```text
//! schedule (requests) ─▶ connections: body, POST, answer ─▶ report: sent, acknowledged, refused, and what is expected
//! ```

pub mod client;

mod bodies;
mod devices;
mod hand_over;
mod random;
mod schedule;

use super::content::{self, SenderKey};
use crate::config::place::Faults;
use crate::definitions::Folder;
use bodies::Bodies;
use client::{Answer, Client, Post};
use schedule::{Form, Request, schedule};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tidegate_schemas::definition::Definition;
use tidegate_schemas::time::Micros;
use tokio::task::JoinSet;

/// What the fleet shall do.
pub struct FleetPlan {
    /// `host:port` of the edge.
    pub address: String,
    /// Everything follows from it; another seed makes other event ids.
    pub seed: u64,
    /// About how many events, repeats not counted.
    pub events: u64,
    /// Connections at once.
    pub connections: usize,
    /// The devices' time.
    pub now: Micros,
    /// The keys of [`content::write`].
    pub keys: Vec<SenderKey>,
}

/// How far the fleet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Requests that were answered.
    pub requests: u64,
    /// Of so many.
    pub requests_planned: u64,
    /// Events sent.
    pub sent: u64,
    /// Events of which an answer says that they are durable.
    pub acknowledged: u64,
}

/// What must become of the events, as long as no request had to be sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Events that become rows.
    pub transformed: u64,
    /// Events that a script leaves out on purpose.
    pub filtered: u64,
    /// Repeats of those two.
    pub duplicate: u64,
    /// Events that templates refuse, repeats included: a refused event is not known as seen.
    pub rejected: u64,
    /// Lines that the edge refuses, repeats included: with the good ones of their request they are stored, and rejected.
    pub malformed: u64,
    /// Events of requests that the edge refuses whole: they leave nothing.
    pub spoiled: u64,
}

/// What the fleet did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FleetReport {
    /// Requests that were answered.
    pub requests: u64,
    /// Requests answered 400, as was meant.
    pub requests_refused: u64,
    /// Requests sent again after 429, 503 or a lost connection.
    pub retries: u64,
    /// Events sent, repeats included, retries not.
    pub sent: u64,
    /// Events of which an answer says that they are durable.
    pub acknowledged: u64,
    /// Events that the edge refused.
    pub refused: u64,
    /// What must become of them.
    pub expected: Expected,
    /// How long it took.
    pub seconds: f64,
    /// Some receipts, to ask for.
    pub receipts: Vec<String>,
}

/// Why the fleet gave up.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The edge could not be reached for long.
    #[error("the edge at {address} cannot be reached")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// It refuses for too long.
    #[error("the edge answered {status} for {}", humantime(*.seconds))]
    Refused {
        /// With this status.
        status: u16,
        /// For so long.
        seconds: u64,
    },
    /// It answers what it must not.
    #[error("the edge answered {status} to a request of {source_id}: {body}")]
    Answer {
        /// With this status.
        status: u16,
        /// The source.
        source_id: &'static str,
        /// The beginning of the body.
        body: String,
    },
    /// The plan lacks a key.
    #[error("no key for source {source_id} of {tenant} is in the plan")]
    Key {
        /// The tenant.
        tenant: &'static str,
        /// The source.
        source_id: &'static str,
    },
    /// The embedded definitions are wrong: a defect.
    #[error("the embedded definitions are wrong")]
    Content(#[from] Faults),
    /// A defect.
    #[error("a connection's task ended early")]
    Task(#[from] tokio::task::JoinError),
}

fn humantime(seconds: u64) -> String {
    format!("{seconds} s")
}

/// A LoRaWAN device.
pub(crate) struct Device {
    pub(crate) tenant: String,
    pub(crate) id: String,
    pub(crate) template: String,
}

/// The fleet gives up when nothing got through for so long.
const PATIENCE: Duration = Duration::from_secs(120);
/// No single pause is longer, whatever the edge asks for.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Receipts kept for the report.
const RECEIPTS_MAX: usize = 4;

/// What the connections share.
struct Fleet {
    plan: FleetPlan,
    devices: Vec<Device>,
    requests: Vec<Request>,
    next: AtomicUsize,
    answered: AtomicU64,
    sent: AtomicU64,
    acknowledged: AtomicU64,
}

/// Sends everything, and tells how far it is twice a second.
pub async fn run(plan: FleetPlan, mut progress: impl FnMut(Progress) + Send) -> Result<FleetReport, FleetError> {
    let started = Instant::now();
    let fleet = Arc::new(Fleet {
        devices: devices()?,
        requests: schedule(plan.seed, plan.events),
        plan,
        next: AtomicUsize::new(0),
        answered: AtomicU64::new(0),
        sent: AtomicU64::new(0),
        acknowledged: AtomicU64::new(0),
    });
    let mut connections = JoinSet::new();
    for _ in 0..fleet.plan.connections.max(1) {
        connections.spawn(Arc::clone(&fleet).connection());
    }
    let mut report = FleetReport::default();
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            ended = connections.join_next() => match ended {
                Some(part) => report.add(part??),
                None => break,
            },
            _ = tick.tick() => progress(fleet.progress()),
        }
    }
    progress(fleet.progress());
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

impl FleetReport {
    fn add(&mut self, part: Self) {
        self.requests += part.requests;
        self.requests_refused += part.requests_refused;
        self.retries += part.retries;
        self.sent += part.sent;
        self.acknowledged += part.acknowledged;
        self.refused += part.refused;
        self.expected.add(part.expected);
        self.receipts.extend(part.receipts);
        self.receipts.truncate(RECEIPTS_MAX);
    }
}

impl Expected {
    fn add(&mut self, other: Self) {
        self.transformed += other.transformed;
        self.filtered += other.filtered;
        self.duplicate += other.duplicate;
        self.rejected += other.rejected;
        self.malformed += other.malformed;
        self.spoiled += other.spoiled;
    }

    /// The same events once more: those that passed are duplicates now.
    fn repeated(self) -> Self {
        Self { transformed: 0, filtered: 0, duplicate: self.transformed + self.filtered, ..self }
    }
}

/// What matters of an answer's body.
#[derive(Deserialize)]
struct Acknowledged {
    receipt: String,
    accepted: u64,
}

impl Fleet {
    fn progress(&self) -> Progress {
        Progress {
            requests: self.answered.load(Ordering::Relaxed),
            requests_planned: self.requests.len() as u64,
            sent: self.sent.load(Ordering::Relaxed),
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
        }
    }

    /// Takes the next request until there is none.
    async fn connection(self: Arc<Self>) -> Result<FleetReport, FleetError> {
        let mut client = Client::new(self.plan.address.clone());
        let mut report = FleetReport::default();
        let bodies = Bodies { seed: self.plan.seed, now: self.plan.now, devices: &self.devices };
        while let Some(request) = self.requests.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let body = bodies.build(request);
            report.sent += body.events;
            self.sent.fetch_add(body.events, Ordering::Relaxed);
            report.expected.add(if request.repeat { body.expected.repeated() } else { body.expected });
            let answer = self.deliver(&mut client, request, &body.bytes, &mut report.retries).await?;
            let accepted = match (answer.status, serde_json::from_slice::<Acknowledged>(&answer.body)) {
                (200 | 202, Ok(body)) => {
                    if report.receipts.len() < RECEIPTS_MAX {
                        report.receipts.push(body.receipt);
                    }
                    body.accepted
                }
                (400, _) if request.spoiled => {
                    report.requests_refused += 1;
                    0
                }
                _ => return Err(unexpected(request, &answer)),
            };
            report.requests += 1;
            report.acknowledged += accepted;
            report.refused += body.events - accepted.min(body.events);
            self.answered.fetch_add(1, Ordering::Relaxed);
            self.acknowledged.fetch_add(accepted, Ordering::Relaxed);
        }
        Ok(report)
    }

    /// Sends until there is an answer that is about the request.
    async fn deliver(&self, client: &mut Client, request: &Request, body: &[u8], retries: &mut u64) -> Result<Answer, FleetError> {
        let key = self.key(request)?;
        let idempotency = format!("{:x}-{}", self.plan.seed, request.number);
        let headers = [("idempotency-key", idempotency.as_str())];
        let post = Post {
            path: "/v1/events",
            key: Some(key),
            content_type: if request.form == Form::Lines { "application/x-ndjson" } else { "application/json" },
            // Only the turnstile's events have no id of their own.
            headers: if request.stream == schedule::Stream::Turnstile { &headers } else { &[] },
            body,
        };
        let started = Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            let answered = client.post(&post).await;
            let gave_up = started.elapsed() > PATIENCE;
            let wanted = match answered {
                Ok(answer) if !matches!(answer.status, 429 | 503) => return Ok(answer),
                Ok(answer) if gave_up => return Err(FleetError::Refused { status: answer.status, seconds: PATIENCE.as_secs() }),
                Err(cause) if gave_up => return Err(FleetError::Unreachable { address: self.plan.address.clone(), cause }),
                Ok(answer) => answer.retry_after,
                Err(_) => None,
            };
            *retries += 1;
            tokio::time::sleep(wanted.unwrap_or(pause).min(PAUSE_MAX)).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    fn key(&self, request: &Request) -> Result<&str, FleetError> {
        let (tenant, source_id) = (request.tenant, request.stream.source());
        let key = self.plan.keys.iter().find(|k| k.tenant == tenant && k.source == source_id);
        key.and_then(|k| std::str::from_utf8(k.key.expose()).ok()).ok_or(FleetError::Key { tenant, source_id })
    }
}

fn unexpected(request: &Request, answer: &Answer) -> FleetError {
    let body = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
    FleetError::Answer { status: answer.status, source_id: request.stream.source(), body }
}

/// The LoRaWAN devices, from the same folder that Tidegate gets.
fn devices() -> Result<Vec<Device>, Faults> {
    let folder = Folder::parse(&content::files())?;
    let mut parents = std::collections::BTreeMap::new();
    for definition in &folder.definitions {
        if let Definition::Organization(o) = definition {
            parents.insert(o.id.clone(), (o.kind, o.parent.clone()));
        }
    }
    let tenant = |node: &tidegate_schemas::ids::NodeId| {
        let mut at = Some(node.clone());
        while let Some(id) = at {
            match parents.get(&id) {
                Some((tidegate_schemas::definition::NodeKind::Customer, _)) => return Some(id.to_string()),
                Some((_, parent)) => at = parent.clone(),
                None => return None,
            }
        }
        None
    };
    let device = |d: &Definition| match d {
        Definition::Asset(a) => Some(Device { tenant: tenant(&a.node)?, id: a.id.clone(), template: a.template.clone()? }),
        _ => None,
    };
    Ok(folder.definitions.iter().filter_map(device).collect())
}
