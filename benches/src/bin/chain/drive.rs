//! The load generator: drives a server over loopback with prepared bodies.

use anyhow::{bail, ensure};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tidegate_pipeline::demo::fleet::client::{Client, Post};

/// Requests at a fixed pace.
#[derive(Clone, Copy)]
pub struct Pace {
    /// Requests a second.
    pub rate: f64,
    /// One request in so many waits for its receipt; none where this is 0.
    pub waits: usize,
}

/// Connections that each send the next body until there is none; returns every request's latency.
pub fn drive(address: &str, key: &str, bodies: Arc<Vec<Vec<u8>>>) -> anyhow::Result<Vec<Duration>> {
    const CONNECTIONS: usize = 16;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let next = Arc::new(AtomicUsize::new(0));
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (address, key, bodies, next) = (address.to_owned(), key.to_owned(), Arc::clone(&bodies), Arc::clone(&next));
            tasks.spawn(async move {
                let (mut client, mut latencies) = (Client::new(address), Vec::new());
                while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                    loop {
                        let post = Post { path: "/v1/events", key: Some(&key), content_type: "application/json", headers: &[], body };
                        let started = Instant::now();
                        let answer = client.post(&post).await?;
                        match answer.status {
                            202 => break latencies.push(started.elapsed()),
                            503 => tokio::time::sleep(answer.retry_after.unwrap_or(Duration::from_millis(100))).await,
                            other => bail!("the edge answered {other}: {}", String::from_utf8_lossy(&answer.body)),
                        }
                    }
                }
                Ok(latencies)
            });
        }
        let mut all = Vec::new();
        while let Some(done) = tasks.join_next().await {
            all.extend(done??);
        }
        Ok(all)
    })
}

/// One request after the other at a fixed pace, whatever becomes of those before; tells each when it is due, and returns how long
/// those took that waited for their receipt, from that moment on.
pub fn drive_paced(
    address: &str,
    key: &str,
    bodies: &[Vec<u8>],
    pace: Pace,
    mut due_now: impl FnMut(usize, Instant),
) -> anyhow::Result<Vec<Duration>> {
    let Pace { rate, waits } = pace;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (began, mut tasks, mut latencies) = (tokio::time::Instant::now(), tokio::task::JoinSet::new(), Vec::new());
        for (i, body) in bodies.iter().enumerate() {
            let due = began + Duration::from_secs_f64(i as f64 / rate);
            tokio::time::sleep_until(due).await;
            due_now(i, due.into_std());
            let (address, key, body, wait) = (address.to_owned(), key.to_owned(), body.clone(), waits > 0 && i % waits == 0);
            tasks.spawn(async move {
                let headers: &[_] = if wait { &[("prefer", "wait=20")] } else { &[] };
                let post = Post { path: "/v1/events", key: Some(&key), content_type: "application/json", headers, body: &body };
                let answer = Client::new(address).post(&post).await?;
                ensure!(matches!(answer.status, 200 | 202), "the edge answered {}", answer.status);
                Ok(wait.then(|| due.elapsed()))
            });
        }
        while let Some(done) = tasks.join_next().await {
            latencies.extend(done??);
        }
        Ok(latencies)
    })
}

/// Waits until everything that was sent is committed, and delivered by every sink.
pub fn wait_drained(address: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client = Client::new(address);
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(300) {
            let answer = client.get("/ready", None).await?;
            let body: serde_json::Value = serde_json::from_slice(&answer.body)?;
            if body["drained"] == true {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("the tables did not catch up in 5 minutes: {}", String::from_utf8_lossy(&client.get("/ready", None).await?.body))
    })
}
