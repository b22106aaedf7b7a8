//! One connection: HTTP/1 or HTTP/2 by its first bytes, under a watchdog. TLS comes to stand before it.

use super::activity::{Activity, Watch, Watched};
use crate::edge::Shared;
use crate::routes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tidegate_schemas::limits::{
    HEAD_BYTES_MAX, HEADERS_MAX, HTTP2_RESETS_MAX, HTTP2_STREAMS_MAX, HTTP2_WINDOW_BYTES, READ_BUFFER_BYTES_MAX,
};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Streams of HTTP/2 are tasks of the edge like all others.
#[derive(Clone)]
struct Owned {
    tasks: TaskTracker,
    kill: CancellationToken,
}

impl<F> Executor<F> for Owned
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let kill = self.kill.clone();
        self.tasks.spawn(async move { kill.run_until_cancelled(future).await });
    }
}

/// Serves it to its end. Tells the reason where the edge closed it.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    stream: TcpStream,
    stop: CancellationToken,
    kill: &CancellationToken,
) -> Option<&'static str> {
    // Answers are small and complete: waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let settings = &shared.edge.settings;
    let activity = Activity::new();
    let io = TokioIo::new(Watched { stream, activity: Arc::clone(&activity) });
    let service = {
        let (shared, activity) = (Arc::clone(shared), Arc::clone(&activity));
        service_fn(move |request: Request<Incoming>| {
            let in_flight = activity.begin();
            let answer = routes::answer(Arc::clone(&shared), request);
            async move {
                let reply = answer.await;
                drop(in_flight);
                Ok::<_, Infallible>(reply)
            }
        })
    };
    let builder = builder(Owned { tasks: shared.tasks.clone(), kill: kill.clone() }, settings.head_deadline);
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut stopping = false;
    loop {
        let until = match activity.judge(settings) {
            Watch::Close(reason) => return Some(reason),
            Watch::Until(at) => at,
        };
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection broke off");
                }
                return None;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep_until(until.into()) => {}
        }
    }
}

fn builder(executor: Owned, ping_deadline: Duration) -> Builder<Owned> {
    let mut builder = Builder::new(executor);
    // The watchdog has the deadlines of heads; hyper's timer would end idle connections with them.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(READ_BUFFER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX as u32)
        .max_pending_accept_reset_streams(HTTP2_RESETS_MAX)
        .max_local_error_reset_streams(HTTP2_RESETS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .initial_stream_window_size(HTTP2_WINDOW_BYTES as u32)
        .initial_connection_window_size(HTTP2_WINDOW_BYTES as u32)
        .keep_alive_interval(ping_deadline * 4)
        .keep_alive_timeout(ping_deadline * 2);
    builder
}
