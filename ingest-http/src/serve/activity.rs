//! What a connection is doing, so that each silence has its own deadline. hyper's timer for heads starts with the
//! connection's idleness and does not cover the first bytes, by which HTTP/1 and HTTP/2 are told apart.

use crate::edge::EdgeSettings;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Shared by the connection's stream, its requests and its watchdog. Times are microseconds since the start, never 0.
pub(super) struct Activity {
    start: Instant,
    in_flight: AtomicU32,
    served_any: AtomicBool,
    http2: AtomicBool,
    /// First byte after the last request's end; 0 while there is none.
    head_since: AtomicU64,
    /// Last end of a request, or write.
    quiet_since: AtomicU64,
}

/// A request under way.
pub(super) struct InFlight(Arc<Activity>);

/// What the watchdog does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Watch {
    /// Look again then.
    Until(Instant),
    /// Close, for this reason.
    Close(&'static str),
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            in_flight: AtomicU32::new(0),
            served_any: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            head_since: AtomicU64::new(0),
            quiet_since: AtomicU64::new(1),
        })
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64 + 1
    }

    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        self.head_since.store(0, Relaxed);
        InFlight(Arc::clone(self))
    }

    fn read(&self, bytes: &[u8]) {
        if self.in_flight.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0 {
            if !self.served_any.load(Relaxed) && bytes.starts_with(b"PRI") {
                self.http2.store(true, Relaxed);
            }
            self.head_since.store(self.now(), Relaxed);
        }
    }

    fn wrote(&self) {
        self.quiet_since.store(self.now(), Relaxed);
    }

    /// Judges the connection. Bodies and the log have deadlines of their own, where a request is under way.
    pub(super) fn judge(&self, settings: &EdgeSettings) -> Watch {
        let (head, idle) = (settings.head_deadline, settings.idle_deadline);
        // A head may begin at any moment and has its own deadline, so look often enough to see it.
        let soon = Instant::now() + head.min(idle) / 4;
        if self.in_flight.load(Relaxed) > 0 {
            return Watch::Until(soon);
        }
        let served_any = self.served_any.load(Relaxed);
        // Between requests, frames of HTTP/2 need not belong to a head: there only idleness counts.
        let in_head = self.head_since.load(Relaxed);
        let (since, limit, reason) = match in_head {
            _ if !served_any => (1, head, if in_head == 0 { "first_byte" } else { "head" }),
            at if at > 0 && !self.http2.load(Relaxed) => (at, head, "head"),
            _ => (self.quiet_since.load(Relaxed), idle, "idle"),
        };
        let end = self.start + Duration::from_micros(since - 1) + limit;
        if Instant::now() >= end { Watch::Close(reason) } else { Watch::Until(soon.min(end)) }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.served_any.store(true, Relaxed);
        self.0.wrote();
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// A stream that notes its activity.
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.read(&buf.filled()[before..]);
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        if matches!(poll, Poll::Ready(Ok(n)) if n > 0) {
            self.activity.wrote();
        }
        poll
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if matches!(poll, Poll::Ready(Ok(n)) if n > 0) {
            self.activity.wrote();
        }
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
