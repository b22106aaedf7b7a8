//! Reads a body within its cap, its deadline and the edge's memory.

use crate::limits::{BodyBudget, Held};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use std::sync::Arc;
use std::time::Duration;
use tidegate_schemas::limits::BODY_BYTES_PER_SECOND_MIN;
use tokio::time::Instant;

/// What every body gets, however short: a round trip over a bad link.
const GRACE: Duration = Duration::from_secs(5);
/// Up to here a body gets its room when it is announced; beyond, when it comes.
const TRUSTED_BYTES: usize = 256 << 10;
/// A body this short is copied out of the connection's buffer, which would else live as long as the record.
const COPIED_BYTES: usize = 4 << 10;

/// Why a body was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// Above the cap.
    TooLarge,
    /// The edge's memory for bodies is in use.
    Full,
    /// It did not come in time.
    Late,
    /// The client went away, or broke the framing.
    Broken(hyper::Error),
}

/// The body, and its share of the edge's memory.
pub(super) async fn read(budget: &Arc<BodyBudget>, body: &mut Incoming, max: usize, deadline: Duration) -> Result<(Bytes, Held), Unread> {
    let announced = body.size_hint().exact().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    if announced.is_some_and(|n| n > max) {
        return Err(Unread::TooLarge);
    }
    let end = Instant::now() + time_for(announced, deadline);
    let mut held = budget.hold();
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let frame = match tokio::time::timeout_at(end, body.frame()).await {
            Err(_) => return Err(Unread::Late),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(Unread::Broken(error)),
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers carry nothing that counts here.
        let Ok(data) = frame.into_data() else { continue };
        let so_far = first.len() + rest.len();
        if so_far + data.len() > max {
            return Err(Unread::TooLarge);
        }
        held.grow(data.len()).map_err(|_| Unread::Full)?;
        if so_far == 0 {
            first = if data.len() <= COPIED_BYTES { Bytes::copy_from_slice(&data) } else { data };
            continue;
        }
        if rest.is_empty() {
            let room = announced.unwrap_or_default().min(TRUSTED_BYTES).max(so_far + data.len());
            rest.reserve(room);
            rest.extend_from_slice(&first);
            first = Bytes::new();
        }
        let needed = rest.len() + data.len();
        if needed > rest.capacity() {
            rest.reserve(announced.unwrap_or(needed).max(needed) - rest.len());
        }
        rest.extend_from_slice(&data);
    }
    Ok((if rest.is_empty() { first } else { rest.freeze() }, held))
}

/// A short body has less time than the largest one: half a body holds its connection for seconds, not for all of it.
fn time_for(announced: Option<usize>, deadline: Duration) -> Duration {
    announced.map_or(deadline, |n| (GRACE + Duration::from_secs_f64(n as f64 / BODY_BYTES_PER_SECOND_MIN as f64)).min(deadline))
}
