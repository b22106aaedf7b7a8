//! The side of a chain that reads: which segments there are, where the durable part ends, and records by offset.
//!
//! The index of the active segment is kept by its writer. That of an older one is built when somebody reads there, and
//! kept while it is in use: memory does not grow with the log.

use super::layout::{self, Chain};
use super::scan::{self, Index, Place, Tail, Walk};
use super::wire::{self, RECORD_HEAD, RecordHead, SegmentHead};
use super::{corrupt, failed};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_schemas::limits;
use tidegate_schemas::log::Entry;
use tidegate_schemas::log::LogError;

/// Records of one read that stand this close together are fetched in one piece.
const GAP: u64 = 4 << 10;
/// Bytes of such a piece: who keeps one of its records keeps all of it.
const PIECE: u64 = 1 << 20;

/// Whether this process may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The lock is held: a torn tail is cut.
    Own,
    /// Beside a live owner: only what a group header vouches for is seen, and nothing is written.
    Beside,
}

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
    /// Indexes of older segments, the least recently used first.
    loaded: VecDeque<Arc<Loaded>>,
}

struct Segment {
    id: u64,
    /// First offset by slot.
    first: Vec<u64>,
    end: u64,
    /// Last write, µs.
    time: i64,
    /// Open for as long as the log, beside an owner that may delete the file.
    pinned: Option<Arc<File>>,
}

struct Loaded {
    id: u64,
    file: Arc<File>,
    index: Index,
}

/// What a writer needs to go on after the last group.
pub struct Resume {
    pub file: Arc<File>,
    pub head: SegmentHead,
    pub next: Vec<u64>,
    pub end: u64,
    pub link: u32,
    pub time: i64,
    /// Bytes that were cut as torn.
    pub torn: u64,
}

/// What lies from `from` on is deleted; the lane starts here.
#[derive(Debug)]
pub enum ReadError {
    Gone(u64),
    Failed(LogError),
}

impl Segments {
    /// Opens a chain, and finds where its durable part ends.
    pub fn open(folder: &Path, chain: Chain, manifest: &layout::Manifest, mode: Mode) -> Result<(Arc<Self>, Resume), LogError> {
        let dir = folder.join(chain.as_str());
        let mut tries = 0;
        loop {
            match Self::open_once(&dir, chain, manifest, mode) {
                // The owner was in the middle of a write, or deleted a segment since the folder was listed.
                Err(LogError::Corrupt { .. } | LogError::Io { .. }) if mode == Mode::Beside && tries < 5 => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
                other => return other,
            }
        }
    }

    fn open_once(dir: &Path, chain: Chain, manifest: &layout::Manifest, mode: Mode) -> Result<(Arc<Self>, Resume), LogError> {
        let ids = list(dir, mode)?;
        let mut list: VecDeque<Segment> = VecDeque::with_capacity(ids.len());
        let mut last = None;
        for id in &ids {
            let path = path(dir, *id);
            let file = open_file(&path, mode)?;
            let head = read_head(&path, &file, chain, manifest, *id)?;
            if let Some(before) = list.back_mut() {
                let sound = before.id + 1 == *id && before.first.iter().zip(&head.next).all(|(a, b)| a <= b);
                if !sound {
                    return Err(corrupt(&path, 0, &format!("it does not follow segment {}; a file is missing", before.id)));
                }
                (before.end, before.time) = (head.previous.end, head.previous.time);
            }
            let pinned = (mode == Mode::Beside).then(|| file.clone());
            list.push_back(Segment { id: *id, first: head.next.clone(), end: 0, time: 0, pinned });
            last = Some((path, file, head));
        }
        let Some((last_path, file, head)) = last else { return Err(corrupt(dir, 0, "the chain has no segment")) };
        for (segment, id) in list.iter().zip(&ids).take(ids.len() - 1) {
            let path = path(dir, *id);
            let length = fs::metadata(&path).map_err(|e| failed(format!("look at {}", path.display()), &e))?.len();
            if length < segment.end {
                return Err(corrupt(&path, length, "it is shorter than the next one says"));
            }
        }
        let (walk, torn) = find_end(&last_path, &file, &head, mode)?;
        if let Some(active) = list.back_mut() {
            (active.end, active.time) = (walk.end, walk.time);
        }
        let bytes = list.iter().map(|s| s.end).sum();
        let resume = Resume { file: file.clone(), head, next: walk.next.clone(), end: walk.end, link: walk.link, time: walk.time, torn };
        let state = State { list, next: walk.next, active: file, index: walk.index, loaded: VecDeque::new() };
        let segments = Self {
            chain,
            partitions: manifest.partitions,
            dir: dir.to_owned(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            bytes: AtomicU64::new(bytes),
        };
        Ok((Arc::new(segments), resume))
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
        state.list.front().map_or(0, |s| s.first[slot])..state.next[slot]
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
    #[allow(clippy::type_complexity)]
    fn places(&self, slot: usize, from: u64, left: usize, one: bool) -> Result<Option<(Arc<File>, u64, Vec<Place>)>, ReadError> {
        loop {
            let (id, end, pinned, next) = {
                let mut state = self.lock();
                let start = state.list.front().map_or(0, |s| s.first[slot]);
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
                Err(_) if self.lock().list.front().is_none_or(|s| s.id > id) => {}
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
        let mut bytes = vec![0; (after(last) - base) as usize];
        let path = || path(&self.dir, id);
        file.read_exact_at(&mut bytes, base).map_err(|e| failed(format!("read {}", path().display()), &e))?;
        let bytes = Bytes::from(bytes);
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
    pub fn grown(&self, found: &[(usize, u64, Option<Place>)], end: u64, time: i64) {
        let mut state = self.lock();
        for (slot, next, place) in found {
            state.next[*slot] = *next;
            state.index.0[*slot].extend(*place);
        }
        if let Some(active) = state.list.back_mut() {
            self.bytes.fetch_add(end - active.end, Ordering::Relaxed);
            (active.end, active.time) = (end, time);
        }
        drop(state);
        self.changed.notify_all();
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

/// Creates a segment with nothing but its header. It gets its name once the header is durable, so a segment without a
/// sound header is damage and never a crash.
pub fn create(dir: &Path, head: &SegmentHead) -> Result<File, LogError> {
    let path = path(dir, head.id);
    let file = layout::write_new(&path, &head.encode())?;
    layout::rename_new(dir, &path)?;
    Ok(file)
}

/// The header of a chain's first segment.
pub fn first(chain: Chain, manifest: &layout::Manifest) -> Result<SegmentHead, LogError> {
    let (log_id, partitions) = (manifest.log_id, manifest.partitions);
    let next = vec![0; chain.slots(partitions)];
    Ok(SegmentHead { log_id, chain, partitions, id: 0, salt: super::append::salt()?, previous: wire::Previous::default(), next })
}

/// The file of a segment.
pub fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:012}.seg"))
}

/// Ids of the segments in the folder, ascending.
pub fn list(dir: &Path, mode: Mode) -> Result<Vec<u64>, LogError> {
    let doing = || format!("list {}", dir.display());
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| failed(doing(), &e))? {
        let name = entry.map_err(|e| failed(doing(), &e))?.file_name();
        let name = name.to_str().unwrap_or_default();
        if name.ends_with(".new") && mode == Mode::Own {
            // Left by a crash before it became a segment.
            fs::remove_file(dir.join(name)).map_err(|e| failed(format!("delete {name}"), &e))?;
        }
        ids.extend(name.strip_suffix(".seg").and_then(|id| id.parse::<u64>().ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}

fn open_file(path: &Path, mode: Mode) -> Result<Arc<File>, LogError> {
    let file = OpenOptions::new().read(true).write(mode == Mode::Own).open(path);
    file.map(Arc::new).map_err(|e| failed(format!("open {}", path.display()), &e))
}

fn read_head(path: &Path, file: &File, chain: Chain, manifest: &layout::Manifest, id: u64) -> Result<SegmentHead, LogError> {
    // A foreign segment may have more partitions, so as much is read as the largest header takes.
    let mut bytes = Vec::with_capacity(SegmentHead::length(chain, manifest.partitions));
    let most = SegmentHead::length(chain, limits::PARTITIONS_MAX as u32) as u64;
    io::Read::read_to_end(&mut io::Read::take(file, most), &mut bytes).map_err(|e| failed(format!("read {}", path.display()), &e))?;
    let head = SegmentHead::decode(&bytes).map_err(|detail| corrupt(path, 0, &detail))?;
    if (head.log_id, head.partitions) != (manifest.log_id, manifest.partitions) {
        let detail = format!("{} says log {} with {} partitions", super::MANIFEST_NAME, manifest.log_id, manifest.partitions);
        return Err(LogError::Foreign { found: head.log_id, found_partitions: head.partitions, detail });
    }
    if (head.chain, head.id) != (chain, id) {
        return Err(corrupt(path, 0, &format!("it is segment {} of {}", head.id, head.chain.as_str())));
    }
    Ok(head)
}

/// Finds the durable end of the last segment, and cuts what is torn behind it.
fn find_end(path: &Path, file: &File, head: &SegmentHead, mode: Mode) -> Result<(Walk, u64), LogError> {
    let reading = |e| failed(format!("read {}", path.display()), &e);
    let length = file.metadata().map_err(reading)?.len();
    let mut walk = scan::walk(file, head, length, true).map_err(reading)?;
    for _ in 0..5 {
        // Beside an owner, the header that vouches for the last group may have been overwritten while it was read.
        if mode == Mode::Own || walk.proven == walk.end || walk.tail == Tail::Clean {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
        walk = scan::walk(file, head, length, true).map_err(reading)?;
    }
    if let Tail::Bad { at, detail } = walk.tail
        && let Some(later) = scan::later_header(file, head, walk.end, length).map_err(reading)?
    {
        return Err(corrupt(path, at, &format!("{detail}, and the group at byte {later} says that it was durable")));
    }
    if mode == Mode::Beside {
        // Commits that were moved are in the output still, or synced here.
        if head.chain != Chain::Commits {
            walk.keep_proven(head);
        }
        return Ok((walk, 0));
    }
    let sound = walk.end + if walk.tail == Tail::Mark { wire::GROUP_HEAD as u64 } else { 0 };
    let torn = length.saturating_sub(sound);
    let cut = if torn > 0 { file.set_len(walk.end) } else { Ok(()) };
    // Synced also where nothing was cut: the last group may have been written and not synced when its process died, and
    // whoever reads it from now on must be able to rely on it. A mark is only written after the sync.
    let sync = || if walk.tail == Tail::Mark && torn == 0 { Ok(()) } else { file.sync_all() };
    cut.and_then(|()| sync()).map_err(|e| failed(format!("cut {}", path.display()), &e))?;
    Ok((walk, torn))
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
        let near = u64::from(b.position) <= after(a) + GAP && after(b) - start <= PIECE;
        if !near {
            start = u64::from(b.position);
        }
        near
    })
}

fn after(place: &Place) -> u64 {
    u64::from(place.position) + (RECORD_HEAD as u64) + u64::from(place.length)
}
