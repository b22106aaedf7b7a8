//! Cutting a partition of `raw` into epochs: by events, bytes, estimated cost, and age. A tenant whose scripts take more than
//! their share of the partition's time falls *behind*: its events wait at a place of their own in `raw` and come a share at a
//! time, while those of everybody else go on.
//!
//! ```text
//! raw  ─────────[ behind: beta ]────────────────────────[ everybody else ]──▶
//!                ▲ beta's next event                      ▲ where the epoch's range ends
//! ```
//! The order of each tenant's events stays, and with it the order per asset and the verdicts about duplicates, which never
//! cross tenants.

use crate::shares::{Cost, Costs};
use bytes::Bytes;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_operators::stages::open::Slice;
use tidegate_schemas::block::Attribution;
use tidegate_schemas::catalog::Catalog;
use tidegate_schemas::commit::{Behind, CommitRecord};
use tidegate_schemas::envelope::{Envelope, EnvelopeError};
use tidegate_schemas::ids::{Position, Revision, TenantId};
use tidegate_schemas::limits::{self, BEHIND_RECORDS_MAX, BEHIND_TENANTS_MAX};
use tidegate_schemas::log::Entry;

/// One epoch on its way into the graph.
#[derive(Debug)]
pub struct EpochInput {
    /// Log, partition, epoch and recorded time.
    pub of: Attribution,
    /// Its events, each tenant's in raw order.
    pub slices: Vec<Slice>,
    /// Where it begins in `raw`.
    pub from: Position,
    /// Where the next one begins.
    pub to: Position,
    /// Tenants with a part of their own instead.
    pub behind: Vec<Behind>,
    /// Seconds that an event of each of its tenants took of late, where that is known.
    pub costs: HashMap<TenantId, f64>,
    /// The event that the process died at too often: it is refused.
    pub crashed: Option<Position>,
    /// In effect.
    pub catalog: Arc<Catalog>,
}

impl EpochInput {
    /// How many events it has.
    pub fn events(&self) -> u64 {
        self.slices.iter().map(events_of).sum()
    }

    /// Whether an event is one of its own.
    pub fn holds(&self, at: Position) -> bool {
        self.slices.iter().any(|s| s.offset == at.offset && (s.from..s.to).contains(&at.ordinal))
    }

    /// Whether a tenant has a part of its own.
    pub fn is_behind(&self, tenant: &TenantId) -> bool {
        self.behind.iter().any(|b| b.tenant == *tenant)
    }

    /// The tenants whose part of it differs from its range, where those of `held` go on at a place within.
    pub fn behind_after(&self, held: &BTreeMap<TenantId, Position>) -> Vec<Behind> {
        let mut behind = self.behind.clone();
        for (tenant, to) in held {
            match behind.iter_mut().find(|b| b.tenant == *tenant) {
                Some(part) => part.to = *to,
                None => behind.push(Behind { tenant: tenant.clone(), from: self.from, to: *to }),
            }
        }
        behind.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        behind
    }

    /// The same epoch with `events` of its events at most, but one at least: first those of its range alone, and where
    /// there are none those of one tenant that is behind.
    pub fn smaller(&self, events: u64) -> Self {
        let mut kept = Self {
            of: self.of.clone(),
            slices: Vec::new(),
            from: self.from,
            to: self.to,
            behind: self.behind.iter().map(|b| Behind { to: b.from, ..b.clone() }).collect(),
            costs: self.costs.clone(),
            crashed: self.crashed,
            catalog: Arc::clone(&self.catalog),
        };
        let in_range = |s: &&Slice| !self.is_behind(&s.envelope.tenant);
        let (slices, next) = first(self.slices.iter().filter(in_range), events);
        if !slices.is_empty() {
            (kept.slices, kept.to) = (slices, next.unwrap_or(self.to));
        } else if let Some(lane) = self.behind.iter().find(|b| self.slices.iter().any(|s| s.envelope.tenant == b.tenant)) {
            let (slices, next) = first(self.slices.iter().filter(|s| s.envelope.tenant == lane.tenant), events);
            kept.slices = slices;
            kept.behind.iter_mut().filter(|b| b.tenant == lane.tenant).for_each(|b| b.to = next.unwrap_or(lane.to));
        }
        kept
    }
}

fn events_of(slice: &Slice) -> u64 {
    u64::from(slice.to - slice.from)
}

/// The first so many events, one at least, and the place of the next one.
fn first<'s>(slices: impl Iterator<Item = &'s Slice>, events: u64) -> (Vec<Slice>, Option<Position>) {
    let (mut kept, mut room) = (Vec::new(), u32::try_from(events.max(1)).unwrap_or(u32::MAX));
    for slice in slices {
        if room == 0 {
            return (kept, Some(Position { offset: slice.offset, ordinal: slice.from }));
        }
        let to = slice.to.min(slice.from.saturating_add(room));
        room -= to - slice.from;
        kept.push(Slice { to, ..slice.clone() });
        if to < slice.to {
            return (kept, Some(Position { offset: slice.offset, ordinal: to }));
        }
    }
    (kept, None)
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
    /// Time of its scripts, estimated at first and then measured: past it no tenant gets more than an equal share.
    pub time: Duration,
    /// Age of its oldest event, by the worker's clock, at which it is sealed.
    pub age: Duration,
}

impl Default for EpochBounds {
    fn default() -> Self {
        Self {
            events: limits::EPOCH_EVENTS_MAX as u64,
            bytes: limits::EPOCH_BYTES_MAX as u64,
            steps: limits::EPOCH_STEPS_MAX as u64,
            time: Duration::from_millis(limits::EPOCH_SCRIPT_MILLISECONDS as u64),
            age: Duration::from_millis(100),
        }
    }
}

/// The epoch that is being gathered, and the records read ahead of it.
#[derive(Debug)]
pub struct Gathering {
    bounds: EpochBounds,
    range: Part,
    behind: BTreeMap<TenantId, Part>,
    since: Option<Instant>,
    costs: Costs,
    /// What the events of the range are expected to cost, by tenant.
    expected: HashMap<TenantId, Cost>,
    /// The event that has to be in an epoch of its own.
    alone: Option<Position>,
    /// Bytes that the log has for it.
    room: u64,
}

/// A stretch of `raw` that is being read.
#[derive(Debug)]
struct Part {
    /// Where it begins.
    from: Position,
    /// Where the next event is.
    to: Position,
    slices: Vec<Slice>,
    events: u64,
    bytes: u64,
    /// The record that the part's end cut in two, or whose revision is not here yet.
    rest: Option<Opened>,
}

#[derive(Debug, Clone)]
struct Opened {
    offset: u64,
    envelope: Arc<Envelope>,
    value: Bytes,
}

impl Opened {
    fn read(entry: &Entry) -> Result<Self, EnvelopeError> {
        Ok(Self { offset: entry.offset, envelope: Arc::new(Envelope::read(&entry.record)?), value: entry.record.value.clone() })
    }
}

impl Part {
    fn at(from: Position) -> Self {
        Self { from, to: from, slices: Vec::new(), events: 0, bytes: 0, rest: None }
    }

    fn wants(&self) -> u64 {
        self.rest.as_ref().map_or(self.to.offset, |r| r.offset + 1)
    }

    /// A record comes next.
    fn open(&mut self, record: Opened) {
        if record.offset > self.to.offset {
            self.to = Position { offset: record.offset, ordinal: 0 };
        }
        self.rest = Some(record);
    }

    /// Goes on behind the record that is open.
    fn pass(&mut self) {
        if let Some(open) = self.rest.take() {
            self.to = Position { offset: open.offset + 1, ordinal: 0 };
        }
    }

    /// The place of the event that comes next, where its record is open.
    fn next(&self) -> Option<Position> {
        self.rest.is_some().then_some(self.to)
    }

    /// Takes up to `room` events of the record that is open, if the catalog is new enough for it; tells whether it took any.
    fn take(&mut self, known: Revision, room: u64) -> bool {
        if room == 0 {
            return false;
        }
        let Some(open) = self.rest.take_if(|r| r.envelope.revision <= known) else { return false };
        let len = open.envelope.len() as u32;
        let from = self.to.ordinal.min(len);
        let to = len.min(from.saturating_add(u32::try_from(room).unwrap_or(u32::MAX)));
        if to > from {
            self.slices.push(Slice { offset: open.offset, envelope: Arc::clone(&open.envelope), value: open.value.clone(), from, to });
            self.events += u64::from(to - from);
            self.bytes += open.value.len() as u64 * u64::from(to - from) / u64::from(len);
        }
        if to == len {
            self.to = Position { offset: open.offset + 1, ordinal: 0 };
        } else {
            self.to = Position { offset: open.offset, ordinal: to };
            self.rest = Some(open);
        }
        to > from
    }

    fn seal(&mut self) -> Vec<Slice> {
        (self.from, self.events, self.bytes) = (self.to, 0, 0);
        std::mem::take(&mut self.slices)
    }
}

impl Gathering {
    /// Starts at a position.
    pub fn new(bounds: EpochBounds, from: Position) -> Self {
        Self {
            bounds,
            range: Part::at(from),
            behind: BTreeMap::new(),
            since: None,
            costs: Costs::default(),
            expected: HashMap::new(),
            alone: None,
            room: u64::MAX,
        }
    }

    /// Goes on after a commit.
    pub fn after(bounds: EpochBounds, last: &CommitRecord) -> Self {
        let mut gathering = Self::new(bounds, last.raw_to);
        for (tenant, at) in last.still_behind() {
            gathering.behind.insert(tenant.clone(), Part::at(at));
        }
        gathering
    }

    /// Goes on at `start` where it stands before it: what lay there was deleted. Tells the places where something is missing.
    pub fn skip_to(&mut self, start: Position) -> Vec<Position> {
        let parts = self.behind.values_mut().chain([&mut self.range]);
        let mut gaps: Vec<Position> = parts.filter(|p| p.from < start).map(|p| std::mem::replace(p, Part::at(start)).from).collect();
        gaps.sort_unstable();
        gaps.dedup();
        gaps
    }

    /// Goes on after an epoch that may not have ended where it was sealed.
    pub fn resume(&mut self, to: Position, behind: &[Behind]) {
        if self.range.from != to {
            self.range = Part::at(to);
            (self.since, self.expected) = (None, HashMap::new());
        }
        self.behind.retain(|tenant, _| behind.iter().any(|b| b.tenant == *tenant && b.to < to));
        for part in behind.iter().filter(|b| b.to < to) {
            let known = self.behind.entry(part.tenant.clone()).or_insert_with(|| Part::at(part.to));
            if known.from != part.to {
                *known = Part::at(part.to);
            }
        }
    }

    /// The offset from which records of the range are wanted.
    pub fn wants(&self) -> u64 {
        self.range.wants()
    }

    /// The first position that no epoch has.
    pub fn oldest(&self) -> Position {
        self.behind.values().map(|part| part.from).fold(self.range.from, Position::min)
    }

    /// Whether another record may be offered: the epoch is not full, and none is left over. While many tenants are behind,
    /// or one far, the range waits for them.
    pub fn has_room(&self) -> bool {
        let distance = self.range.to.offset.saturating_sub(self.oldest().offset);
        let waits = self.behind.len() >= BEHIND_TENANTS_MAX || (!self.behind.is_empty() && distance >= BEHIND_RECORDS_MAX as u64);
        !waits && self.range.rest.is_none() && !self.is_full()
    }

    fn is_full(&self) -> bool {
        let time = self.bounds.time.as_secs_f64();
        let steps: f64 = self.expected.values().map(|c| c.steps).sum();
        // What a tenant would take beyond its share is held, so it is no reason to let others wait.
        let seconds: f64 = self.expected.values().map(|c| c.seconds.min(time)).sum();
        self.range.events >= self.range_events()
            || self.range.bytes >= self.bounds.bytes.min(self.room)
            || steps >= self.bounds.steps as f64
            || seconds >= time * 2.0
    }

    /// What is behind gets half of an epoch, so that an epoch is no larger for it.
    fn range_events(&self) -> u64 {
        if self.behind.is_empty() { self.bounds.events } else { (self.bounds.events / 2).max(1) }
    }

    /// Whether it is time to seal it.
    pub fn is_due(&self, now: Instant) -> bool {
        (self.is_full() && self.range.events > 0)
            || self.since.is_some_and(|t| now.duration_since(t) >= self.bounds.age)
            || self.behind.values().any(|part| part.events > 0)
    }

    /// Takes a record of the range.
    pub fn offer(&mut self, entry: &Entry, known: Revision, now: Instant) -> Result<(), EnvelopeError> {
        self.range.open(Opened::read(entry)?);
        self.take_rest(known, now);
        Ok(())
    }

    /// Takes of the record left over what fits, if the catalog is new enough for it.
    pub fn take_rest(&mut self, known: Revision, now: Instant) {
        if self.range.rest.as_ref().is_some_and(|r| self.behind.contains_key(&r.envelope.tenant)) {
            self.range.pass();
            return;
        }
        // At least one event, or an epoch of one could never be cut.
        let room = self.apart(&self.range, self.range_events().saturating_sub(self.range.events).max(1));
        if self.range.take(known, room)
            && let Some(slice) = self.range.slices.last()
        {
            self.since.get_or_insert(now);
            let (tenant, events) = (&slice.envelope.tenant, events_of(slice) as f64);
            let (each, expected) = (self.costs.of(tenant), self.expected.entry(tenant.clone()).or_default());
            expected.steps += each.steps * events;
            expected.seconds += each.seconds * events;
        }
    }

    /// Tenants that are behind and may have more events in this epoch, with the offsets from which their records are wanted.
    pub fn wants_behind(&mut self, known: Revision) -> Vec<(TenantId, u64)> {
        let end = self.range.to.offset;
        let tenants: Vec<TenantId> = self.behind.keys().cloned().collect();
        let mut wanted = Vec::new();
        for tenant in tenants {
            let more = self.take_behind(&tenant, known);
            if let Some(part) = self.behind.get(&tenant).filter(|part| more && part.to.offset < end) {
                wanted.push((tenant, part.wants()));
            }
        }
        wanted
    }

    /// Takes a record for a tenant that is behind, whoever it is of; tells whether another one may be offered.
    pub fn offer_behind(&mut self, tenant: &TenantId, entry: &Entry, known: Revision) -> Result<bool, EnvelopeError> {
        let end = self.range.to.offset;
        let Some(part) = self.behind.get_mut(tenant).filter(|_| entry.offset < end) else { return Ok(false) };
        part.open(Opened::read(entry)?);
        if part.rest.as_ref().is_some_and(|r| r.envelope.tenant != *tenant) {
            part.pass();
        }
        Ok(self.take_behind(tenant, known))
    }

    /// Takes of the record that is open for a tenant what is its share; tells whether there is room for more.
    fn take_behind(&mut self, tenant: &TenantId, known: Revision) -> bool {
        let share = share(self.bounds.time, self.costs.of(tenant), self.most_behind());
        let Some(part) = self.behind.get(tenant) else { return false };
        let room = self.apart(part, share.saturating_sub(part.events));
        let Some(part) = self.behind.get_mut(tenant) else { return false };
        part.take(known, room);
        part.rest.is_none() && part.events < share
    }

    /// Of `room` events of a part what the event lets that has to be alone: all before it, itself in an epoch that is empty
    /// yet, and nothing beside it.
    fn apart(&self, part: &Part, room: u64) -> u64 {
        let (Some(alone), Some(next)) = (self.alone, part.next()) else { return room };
        let mut parts = self.behind.values().chain([&self.range]);
        if next == alone {
            return u64::from(parts.all(|p| p.events == 0)).min(room);
        }
        let waits = parts.any(|p| p.next() == Some(alone) || p.slices.iter().any(|s| s.offset == alone.offset && s.from == alone.ordinal));
        match next.offset == alone.offset && next.ordinal < alone.ordinal {
            true => room.min(u64::from(alone.ordinal - next.ordinal)),
            false if waits => 0,
            false => room,
        }
    }

    /// Puts an event into an epoch of its own, once its turn comes.
    pub fn set_alone(&mut self, at: Option<Position>) {
        self.alone = at;
    }

    /// Events of one tenant that is behind, at most: half of an epoch is for all of them.
    fn most_behind(&self) -> u64 {
        (self.bounds.events / 2 / (self.behind.len() as u64).max(1)).max(1)
    }

    /// An epoch shall take no more than so many bytes, whatever the bounds say; none where there are none, else one record at least.
    pub fn narrow(&mut self, room: u64) {
        self.room = room;
    }

    /// Ends the epoch and begins the next one where it ends.
    pub fn seal(&mut self, of: Attribution, catalog: Arc<Catalog>) -> EpochInput {
        let (from, to) = (self.range.from, self.range.to);
        let mut slices = self.range.seal();
        (self.since, self.expected) = (None, HashMap::new());
        let mut behind = Vec::with_capacity(self.behind.len());
        for (tenant, part) in &mut self.behind {
            behind.push(Behind { tenant: tenant.clone(), from: part.from, to: part.to.min(to) });
            slices.append(&mut part.seal());
        }
        self.behind.retain(|_, part| part.to < to);
        let mut costs = HashMap::new();
        for slice in &slices {
            costs.entry(slice.envelope.tenant.clone()).or_insert_with(|| self.costs.of(&slice.envelope.tenant).seconds);
        }
        EpochInput { of, slices, from, to, behind, costs, crashed: None, catalog }
    }

    /// Learns what a tenant's events cost.
    pub fn learn(&mut self, tenant: &TenantId, events: u64, steps: u64, time: Duration) {
        self.costs.learn(tenant, events, steps, time);
    }

    /// How many tenants are behind.
    pub fn tenants_behind(&self) -> usize {
        self.behind.len()
    }
}

/// Events of a tenant that is behind for which there is time in one epoch: one at least.
fn share(time: Duration, cost: Cost, most: u64) -> u64 {
    let fits = time.as_secs_f64() / cost.seconds.max(f64::MIN_POSITIVE);
    (fits as u64).clamp(1, most)
}
