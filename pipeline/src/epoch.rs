//! Cutting a partition of `raw` into epochs: by events, bytes, estimated script steps, and time.

use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_operators::stages::open::Slice;
use tidegate_schemas::block::Attribution;
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::envelope::{Envelope, EnvelopeError};
use tidegate_schemas::ids::{Position, Revision};
use tidegate_schemas::limits;
use tidegate_schemas::log::Entry;

/// One epoch on its way into the graph.
#[derive(Debug)]
pub struct EpochInput {
    /// Log, partition, epoch and recorded time.
    pub of: Attribution,
    /// Its events.
    pub slices: Vec<Slice>,
    /// Where it begins in `raw`.
    pub from: Position,
    /// Where the next one begins.
    pub to: Position,
    /// In effect.
    pub catalog: Arc<Catalog>,
}

/// When an epoch is full.
#[derive(Debug, Clone, Copy)]
pub struct EpochBounds {
    /// Events at most.
    pub events: u64,
    /// Bytes of input at most.
    pub bytes: u64,
    /// Estimated script steps at most.
    pub steps: u64,
    /// Age of its oldest event, by the worker's clock, at which it is sealed.
    pub age: Duration,
}

impl Default for EpochBounds {
    fn default() -> Self {
        Self {
            events: limits::EPOCH_EVENTS_MAX as u64,
            bytes: limits::EPOCH_BYTES_MAX as u64,
            steps: limits::EPOCH_STEPS_MAX as u64,
            age: Duration::from_millis(100),
        }
    }
}

/// The epoch that is being gathered, and the records read ahead of it.
#[derive(Debug)]
pub struct Gathering {
    bounds: EpochBounds,
    /// Where the epoch begins.
    from: Position,
    /// Where the next event is.
    to: Position,
    slices: Vec<Slice>,
    events: u64,
    bytes: u64,
    since: Option<Instant>,
    /// The record that the epoch's end cut in two, or whose revision is not here yet.
    rest: Option<Opened>,
    /// Script steps of an average event.
    steps_each: f64,
}

#[derive(Debug, Clone)]
struct Opened {
    offset: u64,
    envelope: Arc<Envelope>,
    value: Bytes,
}

impl Gathering {
    /// Starts at a position.
    pub fn new(bounds: EpochBounds, from: Position) -> Self {
        Self { bounds, from, to: from, slices: Vec::new(), events: 0, bytes: 0, since: None, rest: None, steps_each: 0.0 }
    }

    /// The offset from which records are wanted.
    pub fn wants(&self) -> u64 {
        self.rest.as_ref().map_or(self.to.offset, |r| r.offset + 1)
    }

    /// Whether another record may be offered: the epoch is not full, and none is left over.
    pub fn has_room(&self) -> bool {
        self.rest.is_none() && !self.is_full()
    }

    /// Nothing more fits.
    pub fn is_full(&self) -> bool {
        self.events >= self.bounds.events
            || self.bytes >= self.bounds.bytes
            || self.events as f64 * self.steps_each >= self.bounds.steps as f64
    }

    /// Whether it is time to seal it.
    pub fn is_due(&self, now: Instant) -> bool {
        self.is_full() || self.since.is_some_and(|t| now.duration_since(t) >= self.bounds.age)
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// Takes a record.
    pub fn offer(&mut self, entry: &Entry, known: Revision, now: Instant) -> Result<(), EnvelopeError> {
        let envelope = Arc::new(Envelope::read(&entry.record)?);
        if entry.offset > self.to.offset {
            self.to = Position { offset: entry.offset, ordinal: 0 };
        }
        self.rest = Some(Opened { offset: entry.offset, envelope, value: entry.record.value.clone() });
        self.take_rest(known, now);
        Ok(())
    }

    /// Takes a slice of an epoch that was abandoned.
    pub fn offer_slice(&mut self, slice: &Slice) {
        self.to = Position { offset: slice.offset, ordinal: slice.from };
        self.rest = Some(Opened { offset: slice.offset, envelope: Arc::clone(&slice.envelope), value: slice.value.clone() });
        self.take_rest(Revision::MAX, Instant::now());
        // The slice may itself have been the first part of a record.
        if let Some(last) = self.slices.last_mut().filter(|s| s.offset == slice.offset && s.to > slice.to) {
            last.to = slice.to;
            self.to = Position { offset: slice.offset, ordinal: slice.to };
            self.rest = None;
        }
    }

    /// Takes of the record left over what fits, if the catalog is new enough for it.
    pub fn take_rest(&mut self, known: Revision, now: Instant) {
        let Some(open) = self.rest.take_if(|r| r.envelope.revision <= known) else { return };
        let len = open.envelope.len() as u32;
        let from = self.to.ordinal.min(len);
        // At least one event, or an epoch of one could never be cut.
        let room = self.bounds.events.saturating_sub(self.events).clamp(1, u64::from(u32::MAX)) as u32;
        let to = len.min(from.saturating_add(room));
        if to > from {
            let share = open.value.len() as u64 * u64::from(to - from) / u64::from(len);
            self.slices.push(Slice { offset: open.offset, envelope: Arc::clone(&open.envelope), value: open.value.clone(), from, to });
            self.events += u64::from(to - from);
            self.bytes += share;
            self.since.get_or_insert(now);
        }
        if to == len {
            self.to = Position { offset: open.offset + 1, ordinal: 0 };
        } else {
            self.to = Position { offset: open.offset, ordinal: to };
            self.rest = Some(open);
        }
    }

    /// Ends the epoch and begins the next one where it ends.
    pub fn seal(&mut self, of: Attribution, catalog: Arc<Catalog>) -> EpochInput {
        let input = EpochInput { of, slices: std::mem::take(&mut self.slices), from: self.from, to: self.to, catalog };
        (self.from, self.events, self.bytes, self.since) = (self.to, 0, 0, None);
        input
    }

    /// Learns what events cost: a moving average, so that expensive scripts make smaller epochs.
    pub fn learn(&mut self, events: u64, steps: u64) {
        if events > 0 {
            self.steps_each += (steps as f64 / events as f64 - self.steps_each) * 0.2;
        }
    }
}
