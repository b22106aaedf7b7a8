//! The accept loop. `axum::serve` held a silent connection, half a head and half a body open past 45 s; this one has a
//! deadline for each, and a cap of connections in all and for each address.
//!
//! ```text
//! place free ─▶ accept ─▶ place of the address ─▶ task: connection ─▶ place given back
//! stop ─▶ listener closed ─▶ connections told ─▶ requests in flight end ─▶ what is left is dropped
//! ```

mod activity;
mod connection;

use crate::edge::{Edge, Shared};
use crate::limits::Connections;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Longest pause after the system refused a connection: files come back when connections end.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Serves until `stop`, then ends gracefully: no connection is accepted any more, requests in flight may finish within
/// the shutdown deadline. Returns when the last task of the edge has ended.
pub async fn serve(edge: Edge, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
    let shared = Arc::new(Shared::new(edge));
    let settings = &shared.edge.settings;
    let connections = Arc::new(Connections::new(settings.connections_max, settings.connections_per_address_max));
    // Ends what is left after the deadline.
    let kill = CancellationToken::new();
    let _kill_on_return = kill.clone().drop_guard();
    tracing::info!(address = %listener.local_addr()?, "edge listens");
    let mut back_off = Duration::ZERO;
    loop {
        let permit = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            permit = connections.free() => permit,
        };
        let Some(permit) = permit else { break };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                back_off = Duration::ZERO;
                match connections.take(permit, address.ip()) {
                    Some(place) => start(&shared, stream, address, place, &stop, &kill),
                    // Closing is cheaper than an answer, and the sender has many other connections to learn from.
                    None => shared.metrics.closed("address_cap"),
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
            Err(error) => {
                back_off = (back_off * 2).clamp(Duration::from_millis(10), BACK_OFF_MAX);
                tracing::warn!(%error, pause_ms = back_off.as_millis() as u64, "no connection can be accepted");
                shared.metrics.closed("accept_failed");
                tokio::select! { () = stop.cancelled() => break, () = tokio::time::sleep(back_off) => {} }
            }
        }
    }
    drop(listener);
    shared.tasks.close();
    if tokio::time::timeout(settings.shutdown_deadline, shared.tasks.wait()).await.is_err() {
        tracing::warn!(tasks = shared.tasks.len(), "shutdown deadline has passed: connections are dropped");
        kill.cancel();
        shared.tasks.wait().await;
    }
    Ok(())
}

fn start(
    shared: &Arc<Shared>,
    stream: TcpStream,
    address: SocketAddr,
    place: crate::limits::Place,
    stop: &CancellationToken,
    kill: &CancellationToken,
) {
    let (shared, stop, kill) = (Arc::clone(shared), stop.clone(), kill.clone());
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        shared.metrics.connections.increment(1);
        let ended = kill.run_until_cancelled(connection::serve(&shared, stream, stop, &kill)).await;
        shared.metrics.connections.decrement(1);
        match ended {
            Some(Some(reason)) => shared.metrics.closed(reason),
            Some(None) => {}
            None => shared.metrics.closed("shutdown"),
        }
        tracing::trace!(%address, ?ended, "connection ended");
        drop(place);
    });
}
