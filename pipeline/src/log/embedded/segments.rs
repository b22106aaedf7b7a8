//! The side of a chain that reads: which segments there are, where the durable part ends, and records by offset.
//!
//! The index of the active segment is kept by its writer. That of an older one is built when somebody reads there, and
//! kept while it is in use: memory does not grow with the log.

use super::layout::{self, Chain};
use super::newest::Newest;
use super::opening::{Mode, open_file, path};
use super::scan::{self, Index, Place, Tail, Walk};
use super::wire::{self, RECORD_HEAD, RecordHead, SegmentHead};
use super::{corrupt, failed};
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_schemas::limits;
use tidegate_schemas::log::{Entry, LogError, Record};

/// Records of one read that stand this close together are fetched in one piece.
const GAP: u64 = 4 << 10;
/// Bytes of such a piece: who keeps one of its records keeps all of it. Large ones are pieces of their own.
const PIECE: u64 = 1 << 20;

/// The segments of a chain, as readers see them.
pub struct Segments {
    pub chain: Chain,
    pub partitions: u32,
    pub dir: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    bytes: AtomicU64,
}

struct State {
    /// By id, ascending; the last one is active.
    list: VecDeque<Segment>,
    /// Next durable offset by slot.
    next: Vec<u64>,
    active: Arc<File>,
    index: Index,
    /// What this process appended last.
    newest: Newest,
    /// Indexes of older segments, the least recently used first.
    loaded: VecDeque<Arc<Loaded>>,
}

/// What the writer made durable.
pub struct Appended {
    pub slot: usize,
    /// The next durable offset of the slot.
    pub next: u64,
    /// The record before it; none in the lane that holds no records.
    pub record: Option<(Place, Record)>,
}

/// One segment.
pub struct Segment {
    pub id: u64,
    /// First offset by slot.
    pub first: Vec<u64>,
    pub end: u64,
    /// Last write, µs.
    pub time: i64,
    /// Open for as long as the log, beside an owner that may delete the file.
    pub pinned: Option<Arc<File>>,
}

/// A segment's file and id, and places in it.
type Places = (Arc<File>, u64, Vec<Place>);

/// What is looked at where all of a segment is read.
pub struct Look {
    pub id: u64,
    /// Where its durable part ends.
    pub end: u64,
    /// Next offsets after it, by slot.
    pub next: Vec<u64>,
    /// Whether it is the last one.
    pub active: bool,
    pub pinned: Option<Arc<File>>,
}

struct Loaded {
    id: u64,
    file: Arc<File>,
    index: Index,
}

/// What lies from `from` on is deleted; the lane starts here.
#[derive(Debug)]
pub enum ReadError {
    Gone(u64),
    Failed(LogError),
}

impl State {
    /// The first offset of a slot that was not deleted.
    fn start(&self, slot: usize) -> u64 {
        self.list.front().map_or(0, |s| s.first[slot])
    }

    /// Records from an offset on that need no file; none where the first of them does.
    fn newest(&self, slot: usize, from: u64, bytes_max: usize) -> Option<Vec<Entry>> {
        (from >= self.start(slot)).then(|| self.newest.read(slot, from, bytes_max))?
    }
}

impl Segments {
    /// As found at the start: the last of `list` is active.
    pub fn new(chain: Chain, partitions: u32, dir: &Path, list: VecDeque<Segment>, active: Arc<File>, walk: Walk) -> Self {
        let bytes = AtomicU64::new(list.iter().map(|s| s.end).sum());
        let newest = Newest::new(walk.next.len());
        let state = State { list, next: walk.next, active, index: walk.index, newest, loaded: VecDeque::new() };
        Self { chain, partitions, dir: dir.to_owned(), state: Mutex::new(state), changed: Condvar::new(), bytes }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds this lock can leave the state half changed, so a panic elsewhere need not spread.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, lane: usize, partition: u32) -> usize {
        lane * self.chain.width(self.partitions) + partition as usize
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Number of segments.
    pub fn count(&self) -> usize {
        self.lock().list.len()
    }

    /// Durable offsets of a lane.
    pub fn bounds(&self, lane: usize, partition: u32) -> Range<u64> {
        let slot = self.slot(lane, partition);
        let state = self.lock();
        state.start(slot)..state.next[slot]
    }

    /// Next durable offsets of a lane, by partition.
    pub fn next(&self, lane: usize) -> Vec<u64> {
        let width = self.chain.width(self.partitions);
        self.lock().next[lane * width..][..width].to_vec()
    }

    /// Next durable offsets by slot.
    pub fn all_next(&self) -> Vec<u64> {
        self.lock().next.clone()
    }

    /// Blocks until a record at `beyond` or later is durable.
    pub fn wait(&self, lane: usize, partition: u32, beyond: u64, timeout: Duration) -> bool {
        let slot = self.slot(lane, partition);
        let until = Instant::now() + timeout;
        let mut state = self.lock();
        while state.next[slot] <= beyond {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) else { return false };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Durable records of a lane from `from` on: one at least where there is one, then as many as fit into `bytes_max`.
    pub fn read(&self, lane: usize, partition: u32, from: u64, bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        let slot = self.slot(lane, partition);
        if let Some(entries) = self.lock().newest(slot, from, bytes_max) {
            return Ok(entries);
        }
        let (mut entries, mut next, mut left) = (Vec::new(), from, bytes_max);
        loop {
            let (file, id, places) = match self.places(slot, next, left, entries.is_empty()) {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(entries),
                Err(ReadError::Gone(_)) if !entries.is_empty() => return Ok(entries),
                Err(e) => return Err(e),
            };
            if places.is_empty() {
                return Ok(entries);
            }
            for piece in pieces(&places) {
                self.fetch(&file, id, piece, (slot, &mut next), &mut entries).map_err(ReadError::Failed)?;
            }
            left = left.saturating_sub(places.iter().map(|p| p.length as usize).sum());
        }
    }

    /// Places from `from` on in the one segment that holds it; `None` at the durable end.
    fn places(&self, slot: usize, from: u64, left: usize, one: bool) -> Result<Option<Places>, ReadError> {
        loop {
            let (id, end, pinned, next) = {
                let mut state = self.lock();
                let start = state.start(slot);
                if from < start {
                    return Err(ReadError::Gone(start));
                }
                if from >= state.next[slot] {
                    return Ok(None);
                }
                let i = state.list.partition_point(|s| s.first[slot] <= from) - 1;
                let (id, skip) = (state.list[i].id, (from - state.list[i].first[slot]) as usize);
                if i + 1 == state.list.len() {
                    return Ok(Some((state.active.clone(), id, fitting(&state.index.0[slot][skip..], left, one))));
                }
                if let Some(at) = state.loaded.iter().position(|l| l.id == id) {
                    let loaded = state.loaded.remove(at);
                    state.loaded.extend(loaded.clone());
                    if let Some(loaded) = loaded {
                        return Ok(Some((loaded.file.clone(), id, fitting(&loaded.index.0[slot][skip..], left, one))));
                    }
                }
                (id, state.list[i].end, state.list[i].pinned.clone(), state.list[i + 1].first.clone())
            };
            match self.load(id, end, pinned, &next) {
                Ok(loaded) => self.keep(&mut self.lock(), Arc::new(loaded)),
                // Deleted meanwhile: the next round says so.
                Err(_) if self.is_deleted(id) => {}
                Err(e) => return Err(ReadError::Failed(e)),
            }
        }
    }

    fn load(&self, id: u64, end: u64, pinned: Option<Arc<File>>, next: &[u64]) -> Result<Loaded, LogError> {
        let path = path(&self.dir, id);
        let file = match pinned {
            Some(file) => file,
            None => open_file(&path, Mode::Beside)?,
        };
        let mut bytes = vec![0; SegmentHead::length(self.chain, self.partitions)];
        file.read_exact_at(&mut bytes, 0).map_err(|e| failed(format!("read {}", path.display()), &e))?;
        let head = SegmentHead::decode(&bytes).map_err(|detail| corrupt(&path, 0, &detail))?;
        let walk = scan::walk(&file, &head, end, false).map_err(|e| failed(format!("read {}", path.display()), &e))?;
        match walk.tail {
            Tail::Bad { at, detail } => Err(corrupt(&path, at, detail)),
            Tail::Mark => Err(corrupt(&path, walk.end, "the segment ends before the next one says")),
            Tail::Clean if walk.next != next => Err(corrupt(&path, walk.end, "its offsets are not those of the next segment")),
            Tail::Clean => Ok(Loaded { id, file, index: walk.index }),
        }
    }

    fn keep(&self, state: &mut State, loaded: Arc<Loaded>) {
        state.loaded.retain(|l| l.id != loaded.id);
        state.loaded.push_back(loaded);
        while state.loaded.len() > limits::SEGMENTS_INDEXED_MAX {
            state.loaded.pop_front();
        }
    }

    fn fetch(
        &self,
        file: &File,
        id: u64,
        piece: &[Place],
        (slot, next): (usize, &mut u64),
        entries: &mut Vec<Entry>,
    ) -> Result<(), LogError> {
        let (Some(first), Some(last)) = (piece.first(), piece.last()) else { return Ok(()) };
        let base = u64::from(first.position);
        let path = || path(&self.dir, id);
        let bytes = read(file, base, (after(last) - base) as usize).map_err(|e| failed(format!("read {}", path().display()), &e))?;
        for place in piece {
            let at = (u64::from(place.position) - base) as usize;
            let body = bytes.slice(at + RECORD_HEAD..at + RECORD_HEAD + place.length as usize);
            let width = self.chain.width(self.partitions);
            let expected = RecordHead {
                length: place.length,
                crc: crc32fast::hash(&body),
                lane: (slot / width) as u8,
                partition: (slot % width) as u16,
                offset: *next,
            };
            let sound = RecordHead::decode(&bytes[at..]) == Some(expected);
            let record = if sound { wire::decode_body(&body) } else { None };
            let Some(record) = record else { return Err(corrupt(&path(), u64::from(place.position), "a record is damaged")) };
            entries.push(Entry { offset: *next, record });
            *next += 1;
        }
        Ok(())
    }

    /// The writer made a group durable.
    pub fn grown(&self, appended: Vec<Appended>, end: u64, time: i64) {
        let mut state = self.lock();
        for Appended { slot, next, record } in appended {
            state.next[slot] = next;
            if let Some((place, record)) = record {
                state.index.0[slot].push(place);
                state.newest.push(slot, Entry { offset: next - 1, record }, place.length);
            }
        }
        if let Some(active) = state.list.back_mut() {
            self.bytes.fetch_add(end - active.end, Ordering::Relaxed);
            (active.end, active.time) = (end, time);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Beside an owner: what a walk found that began where the last one ended.
    pub fn extend(&self, walk: &Walk) {
        let mut state = self.lock();
        for (slot, places) in walk.index.0.iter().enumerate() {
            state.index.0[slot].extend(places);
        }
        state.next.clone_from(&walk.next);
        if let Some(active) = state.list.back_mut() {
            self.bytes.fetch_add(walk.end - active.end, Ordering::Relaxed);
            (active.end, active.time) = (walk.end, walk.time);
        }
    }

    /// Beside an owner: takes the place of what was known, with indexes of segments that are still there.
    pub fn replace(&self, fresh: &Self) {
        let (mut state, mut old) = (self.lock(), fresh.lock());
        std::mem::swap(&mut *state, &mut *old);
        let first = state.list.front().map_or(0, |s| s.id);
        state.loaded.extend(old.loaded.drain(..).filter(|l| l.id >= first));
        self.bytes.store(fresh.bytes(), Ordering::Relaxed);
    }

    /// Ids of all segments, ascending.
    pub fn ids(&self) -> Vec<u64> {
        self.lock().list.iter().map(|s| s.id).collect()
    }

    /// The writer began a segment.
    pub fn rotated(&self, id: u64, file: Arc<File>, end: u64) {
        let mut state = self.lock();
        let slots = state.next.len();
        let index = std::mem::replace(&mut state.index, Index(vec![Vec::new(); slots]));
        let old = std::mem::replace(&mut state.active, file);
        let (before, time) = state.list.back().map_or((0, 0), |s| (s.id, s.time));
        self.keep(&mut state, Arc::new(Loaded { id: before, file: old, index }));
        let first = state.next.clone();
        state.list.push_back(Segment { id, first, end, time, pinned: None });
        self.bytes.fetch_add(end, Ordering::Relaxed);
    }

    /// The active segment, which holds nothing, was made anew.
    pub fn remade(&self, file: Arc<File>) {
        self.lock().active = file;
    }

    /// All segments as they are now.
    pub fn looks(&self) -> Vec<Look> {
        let state = self.lock();
        let next = state.list.iter().skip(1).map(|s| &s.first).chain([&state.next]);
        let last = state.list.back().map_or(0, |s| s.id);
        let look = |(s, next): (&Segment, &Vec<u64>)| {
            let (active, pinned) = (s.id == last, s.pinned.clone());
            Look { id: s.id, end: s.end, next: next.clone(), active, pinned }
        };
        state.list.iter().zip(next).map(look).collect()
    }

    /// Whether a segment is no longer there.
    pub fn is_deleted(&self, id: u64) -> bool {
        self.lock().list.front().is_none_or(|s| s.id > id)
    }

    /// How many of the oldest segments, the active one left out, may go: `may_go` sees the bytes of a segment, its last
    /// write, and the next offsets after it by slot. Also whether the active one holds records and might go too.
    pub fn prefix(&self, mut may_go: impl FnMut(u64, i64, &[u64]) -> bool) -> (usize, bool) {
        let state = self.lock();
        let older = state.list.len() - 1;
        for (i, segment) in state.list.iter().enumerate() {
            let after = state.list.get(i + 1).map_or(&state.next, |s| &s.first);
            let empty = i == older && *after == segment.first;
            if empty || !may_go(segment.end, segment.time, after) {
                return (i.min(older), false);
            }
        }
        (older, true)
    }

    /// First offsets of a lane after the oldest `count` segments, by partition.
    pub fn first_after(&self, count: usize, lane: usize) -> Vec<u64> {
        let width = self.chain.width(self.partitions);
        let state = self.lock();
        state.list.get(count).map_or_else(Vec::new, |s| s.first[lane * width..][..width].to_vec())
    }

    /// Deletes the oldest segment, durably. Returns its bytes.
    pub fn delete_oldest(&self) -> Result<u64, LogError> {
        let segment = {
            let mut state = self.lock();
            if state.list.len() < 2 {
                return Ok(0);
            }
            let segment = state.list.pop_front();
            if let Some(segment) = &segment {
                state.loaded.retain(|l| l.id != segment.id);
            }
            segment
        };
        let Some(segment) = segment else { return Ok(0) };
        let (path, end) = (path(&self.dir, segment.id), segment.end);
        // One by one and each synced: a folder may lose its oldest segments in a power cut, but never one between others.
        if let Err(e) = fs::remove_file(&path) {
            self.lock().list.push_front(segment);
            return Err(failed(format!("delete {}", path.display()), &e));
        }
        self.bytes.fetch_sub(end, Ordering::Relaxed);
        layout::sync_folder(&self.dir)?;
        Ok(end)
    }
}

/// As many places as fit, or one where `one` says so.
fn fitting(places: &[Place], mut left: usize, one: bool) -> Vec<Place> {
    let mut fits = |p: &Place| {
        let fits = p.length as usize <= left;
        left = left.saturating_sub(p.length as usize);
        fits
    };
    let count = places.iter().take_while(|p| fits(p)).count();
    places[..count.max(usize::from(one)).min(places.len())].to_vec()
}

/// Runs of places that are fetched in one piece.
fn pieces(places: &[Place]) -> impl Iterator<Item = &[Place]> {
    let mut start = places.first().map_or(0, |p| u64::from(p.position));
    places.chunk_by(move |a, b| {
        let small = a.length.max(b.length) < limits::RECORD_ALONE_BYTES as u32;
        let near = small && u64::from(b.position) <= after(a) + GAP && after(b) - start <= PIECE;
        if !near {
            start = u64::from(b.position);
        }
        near
    })
}

/// Reads into memory that nobody cleared before. Its last byte lies before a multiple of eight: there a record's value ends, and
/// the columns of a block, whose stream is one, are used where they lie.
fn read(file: &File, at: u64, length: usize) -> std::io::Result<Bytes> {
    const ALIGNED: usize = 8;
    let mut bytes: Vec<u8> = Vec::with_capacity(length + ALIGNED);
    let end = bytes.as_ptr().addr() + length;
    let skipped = end.next_multiple_of(ALIGNED) - end;
    bytes.resize(skipped, 0);
    while bytes.len() < skipped + length {
        let place = at + (bytes.len() - skipped) as u64;
        match rustix::io::pread(file, spare_capacity(&mut bytes), place) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Bytes::from(bytes).slice(skipped..skipped + length))
}

fn after(place: &Place) -> u64 {
    u64::from(place.position) + (RECORD_HEAD as u64) + u64::from(place.length)
}
