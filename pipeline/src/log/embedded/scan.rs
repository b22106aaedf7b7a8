//! Walks a segment from group to group: to rebuild its index, and at start to find where the durable part ends.

use super::layout::{Chain, PROGRESS};
use super::wire::{GROUP_HEAD, GroupHead, RECORD_HEAD, RecordHead, SegmentHead};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes fetched at once. Large records are hopped over, small ones share a fetch.
const WINDOW: usize = 16 << 10;

/// Where a record stands in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// First byte of its header.
    pub position: u32,
    /// Bytes of its body.
    pub length: u32,
}

/// Places of a segment's records by slot, in order of offset. Offsets are dense, so a place is found by subtraction.
#[derive(Debug, Default)]
pub struct Index(pub Vec<Vec<Place>>);

/// How a walk ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Tail {
    /// With the file.
    Clean,
    /// With a group header without records: the durable end was recorded.
    Mark,
    /// With bytes that are no group.
    Bad {
        /// The byte.
        at: u64,
        /// What is wrong there.
        detail: &'static str,
    },
}

/// What a walk found.
#[derive(Debug)]
pub struct Walk {
    pub index: Index,
    /// Next offsets by slot.
    pub next: Vec<u64>,
    /// Where the valid groups end.
    pub end: u64,
    /// Where the part ends that a later group header vouches for.
    pub proven: u64,
    /// Link of the last group of that part.
    pub proven_link: u32,
    /// Next offsets by slot where the walk began.
    pub first: Vec<u64>,
    /// Link of the last group.
    pub link: u32,
    /// When it was written, µs.
    pub time: i64,
    pub tail: Tail,
}

/// Walks the first `limit` bytes of a segment; `verify` checks the CRC of every body, else only headers are read.
pub fn walk(file: &File, head: &SegmentHead, limit: u64, verify: bool) -> io::Result<Walk> {
    let start = SegmentHead::length(head.chain, head.partitions) as u64;
    let begin = Walk::at(start, link_of_segment(head), head.previous.time, head.next.clone());
    walk_on(file, head, begin, limit, verify)
}

/// The same from the end of another walk on: what it finds is what came since.
pub fn walk_on(file: &File, head: &SegmentHead, mut walk: Walk, limit: u64, verify: bool) -> io::Result<Walk> {
    let mut walker = Walker { file, head, limit, window: Vec::new(), at: 0, verify, next: walk.next.clone() };
    let mut found = Vec::new();
    loop {
        if walk.end == limit {
            return Ok(walk);
        }
        found.clear();
        match walker.group(&mut walk, &mut found)? {
            Ok(Some(group)) => {
                for (slot, offset, place) in &found {
                    walk.next[*slot] = *offset;
                    walk.index.0[*slot].extend(*place);
                }
                (walk.end, walk.link, walk.time) = (walk.end + (GROUP_HEAD as u64 + u64::from(group.0.body)), group.1, group.0.time);
            }
            Ok(None) => {
                walk.tail = Tail::Mark;
                return Ok(walk);
            }
            Err((at, detail)) => {
                walk.tail = Tail::Bad { at, detail };
                return Ok(walk);
            }
        }
    }
}

/// What the first group of a segment is linked to.
pub fn link_of_segment(head: &SegmentHead) -> u32 {
    crc32fast::hash(&head.encode())
}

/// The first valid group header after byte `from`, if there is one: it vouches for what lies before it.
pub fn later_header(file: &File, head: &SegmentHead, from: u64, limit: u64) -> io::Result<Option<u64>> {
    const STEP: usize = 1 << 20;
    let mut chunk = vec![0; STEP + GROUP_HEAD];
    let mut base = from + 1;
    while base + (GROUP_HEAD as u64) <= limit {
        let length = chunk.len().min((limit - base) as usize);
        file.read_exact_at(&mut chunk[..length], base)?;
        for (i, at) in chunk[..length].windows(8).zip(base..) {
            if i == head.salt && GroupHead::decode(&chunk[(at - base) as usize..length], head.salt, at).is_some() {
                return Ok(Some(at));
            }
        }
        base += STEP as u64;
    }
    Ok(None)
}

impl Walk {
    /// A walk that has found nothing yet, at a place between two groups.
    pub fn at(end: u64, link: u32, time: i64, next: Vec<u64>) -> Self {
        let index = Index(vec![Vec::new(); next.len()]);
        Self { index, first: next.clone(), next, end, proven: end, proven_link: link, link, time, tail: Tail::Clean }
    }

    /// Forgets the last group where nothing vouches for it: beside a live owner it may not be durable yet. Commits that were
    /// moved are in the output still, or synced here.
    pub fn keep_proven(&mut self, chain: Chain) {
        if chain == Chain::Commits {
            return;
        }
        for (slot, places) in self.index.0.iter_mut().enumerate() {
            while places.last().is_some_and(|p| u64::from(p.position) >= self.proven) {
                places.pop();
            }
            self.next[slot] = self.first[slot] + places.len() as u64;
        }
        (self.end, self.link) = (self.proven, self.proven_link);
    }
}

type Bad = (u64, &'static str);
type Found = (usize, u64, Option<Place>);

struct Walker<'a> {
    file: &'a File,
    head: &'a SegmentHead,
    limit: u64,
    window: Vec<u8>,
    at: u64,
    verify: bool,
    /// As in the walk, and further by the records of the group under way.
    next: Vec<u64>,
}

impl Walker<'_> {
    /// The group at the end of `walk` with its link; `None` for a mark.
    fn group(&mut self, walk: &mut Walk, found: &mut Vec<Found>) -> io::Result<Result<Option<(GroupHead, u32)>, Bad>> {
        let position = walk.end;
        let salt = self.head.salt;
        let Some(bytes) = self.get(position, GROUP_HEAD)? else { return Ok(Err((position, "a group header is cut off"))) };
        let Some(group) = GroupHead::decode(bytes, salt, position) else { return Ok(Err((position, "a group header is damaged"))) };
        let mut link = crc32fast::Hasher::new();
        link.update(bytes);
        if group.previous != walk.link {
            return Ok(Err((position, "a group does not follow the one before it")));
        }
        (walk.proven, walk.proven_link) = (position, walk.link);
        if group.records == 0 {
            return Ok(Ok(None));
        }
        let end = position + (GROUP_HEAD as u64) + u64::from(group.body);
        if end > self.limit {
            return Ok(Err((position, "a group is cut off")));
        }
        let mut at = position + GROUP_HEAD as u64;
        for _ in 0..group.records {
            let Some(bytes) = self.get(at, RECORD_HEAD)? else { return Ok(Err((at, "a record header is cut off"))) };
            let Some(record) = RecordHead::decode(bytes) else { return Ok(Err((at, "a record header is damaged"))) };
            link.update(bytes);
            let after = at + (RECORD_HEAD as u64) + u64::from(record.length);
            let (lane, width) = (usize::from(record.lane), self.head.chain.width(self.head.partitions));
            if after > end || lane >= self.head.chain.lanes() || usize::from(record.partition) >= width {
                return Ok(Err((at, "a record header says what cannot be")));
            }
            let slot = lane * width + usize::from(record.partition);
            let expected = self.next[slot];
            let progress = self.head.chain == Chain::Output && lane == PROGRESS;
            if if progress { record.offset < expected } else { record.offset != expected } {
                return Ok(Err((at, "an offset is out of order")));
            }
            if self.verify {
                let body = self.get(at + RECORD_HEAD as u64, record.length as usize)?;
                if body.map(crc32fast::hash) != Some(record.crc) {
                    return Ok(Err((at, "a record is damaged")));
                }
            }
            let (offset, place) = if progress {
                (record.offset, None)
            } else {
                (record.offset + 1, Some(Place { position: at as u32, length: record.length }))
            };
            self.next[slot] = offset;
            found.push((slot, offset, place));
            at = after;
        }
        if at != end {
            return Ok(Err((position, "a group is longer than its records")));
        }
        Ok(Ok(Some((group, link.finalize()))))
    }

    /// Bytes of the file; `None` where it ends before.
    fn get(&mut self, position: u64, length: usize) -> io::Result<Option<&[u8]>> {
        if position + length as u64 > self.limit {
            return Ok(None);
        }
        if position < self.at || position + length as u64 > self.at + self.window.len() as u64 {
            self.window.resize((WINDOW.max(length)).min((self.limit - position) as usize), 0);
            self.at = position;
            if let Err(e) = self.file.read_exact_at(&mut self.window, position) {
                self.window.clear();
                return Err(e);
            }
        }
        let from = (position - self.at) as usize;
        Ok(Some(&self.window[from..from + length]))
    }
}
