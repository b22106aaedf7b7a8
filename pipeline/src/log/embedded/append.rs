//! The side of a chain that writes: one group, one fdatasync. What happens where one fails: [`super::healing`].

use super::ends::{End, Ends};
use super::healing::Retry;
use super::health::Health;
use super::layout::{Chain, PROGRESS};
use super::opening::{self, Resume};
use super::scan::{self, Place};
use super::segments::{Appended, Segments};
use super::wire::{self, GROUP_HEAD, GroupHead, Previous, RECORD_HEAD, RecordHead, SegmentHead};
use super::{failed, metrics, now};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_schemas::fault;
use tidegate_schemas::limits;
use tidegate_schemas::log::{LogError, Record};

/// A record on its way into a chain. Its offset is the next one of its lane and partition.
pub struct Placed {
    pub lane: usize,
    pub partition: u32,
    pub record: Record,
    /// The offset itself, in the lane that holds no records.
    pub progress: u64,
}

impl Placed {
    /// A record.
    pub fn record(lane: usize, partition: u32, record: Record) -> Self {
        Self { lane, partition, record, progress: 0 }
    }

    /// Up to where `raw` is processed.
    pub fn progress(partition: u32, raw_next: u64) -> Self {
        Self { lane: PROGRESS, partition, record: Record::default(), progress: raw_next }
    }

    /// About what it takes in the chain.
    pub fn size(&self) -> usize {
        self.record.size() + RECORD_HEAD
    }
}

/// Writes to the last segment of a chain. Only its owner's thread does.
pub struct Appender {
    pub(super) segments: Arc<Segments>,
    pub(super) file: Arc<File>,
    pub(super) head: SegmentHead,
    pub(super) end: u64,
    pub(super) link: u32,
    pub(super) time: i64,
    pub(super) next: Vec<u64>,
    pub(super) buffer: Vec<u8>,
    pub(super) health: Arc<Health>,
    /// Since a failure, until it is healed.
    pub(super) retry: Option<Retry>,
    /// When it was healed last, and after which pause.
    pub(super) healed: Option<(Instant, Duration)>,
    segment_bytes: u64,
    ends: Arc<Ends>,
    points: Option<[&'static str; 3]>,
}

/// What the appenders of a log share.
#[derive(Clone)]
pub struct Common {
    pub segment_bytes: u64,
    pub ends: Arc<Ends>,
    pub health: Arc<Health>,
}

impl Appender {
    /// Goes on where the chain ends. `points` are passed before the write, after it, and after the sync.
    pub fn new(segments: Arc<Segments>, resume: Resume, common: &Common, points: Option<[&'static str; 3]>) -> Self {
        let Resume { file, head, next, end, link, time, .. } = resume;
        let Common { segment_bytes, ends, health } = common.clone();
        let appender = Self {
            segments,
            file,
            head,
            end,
            link,
            time,
            next,
            buffer: Vec::new(),
            health,
            retry: None,
            healed: None,
            segment_bytes,
            ends,
            points,
        };
        appender.note();
        appender
    }

    /// The chain.
    pub fn chain(&self) -> Chain {
        self.segments.chain
    }

    /// Makes the records durable as one group, and visible. Returns their offsets in order.
    /// After an error the chain takes nothing until it is healed.
    pub fn append<'a>(&mut self, records: impl Iterator<Item = &'a Placed>) -> Result<Vec<u64>, LogError> {
        self.health.check(self.chain())?;
        self.try_append(records).inspect_err(|error| self.fail(error))
    }

    fn try_append<'a>(&mut self, records: impl Iterator<Item = &'a Placed>) -> Result<Vec<u64>, LogError> {
        let (mut offsets, mut appended) = (Vec::new(), Vec::new());
        let width = self.segments.chain.width(self.segments.partitions);
        self.buffer.clear();
        self.buffer.resize(GROUP_HEAD, 0);
        for placed in records {
            let at = self.buffer.len();
            self.buffer.resize(at + RECORD_HEAD, 0);
            wire::encode_body(&mut self.buffer, &placed.record);
            let body = &self.buffer[at + RECORD_HEAD..];
            let slot = placed.lane * width + placed.partition as usize;
            let progress = self.segments.chain == Chain::Output && placed.lane == PROGRESS;
            let offset = if progress { placed.progress } else { self.next[slot] };
            let (length, crc) = (body.len() as u32, crc32fast::hash(body));
            let head = RecordHead { length, crc, lane: placed.lane as u8, partition: placed.partition as u16, offset };
            self.buffer[at..at + RECORD_HEAD].copy_from_slice(&head.encode());
            let place = Place { position: at as u32, length };
            let (next, record) = if progress { (offset, None) } else { (offset + 1, Some((place, placed.record.clone()))) };
            self.next[slot] = next;
            appended.push(Appended { slot, next, record });
            offsets.push(offset);
        }
        if appended.is_empty() {
            return Ok(offsets);
        }
        if self.end + self.buffer.len() as u64 > self.segment_bytes && self.end > self.head_bytes() {
            self.rotate()?;
        }
        self.write(appended)?;
        Ok(offsets)
    }

    fn write(&mut self, mut appended: Vec<Appended>) -> Result<(), LogError> {
        self.time = self.time.max(now());
        let body = (self.buffer.len() - GROUP_HEAD) as u32;
        let head = GroupHead { position: self.end, body, records: appended.len() as u32, time: self.time, previous: self.link };
        let head = head.encode(self.head.salt);
        self.buffer[..GROUP_HEAD].copy_from_slice(&head);
        let mut link = crc32fast::Hasher::new();
        link.update(&head);
        let mut at = GROUP_HEAD;
        while at < self.buffer.len() {
            link.update(&self.buffer[at..at + RECORD_HEAD]);
            let length = u32::from_le_bytes([self.buffer[at], self.buffer[at + 1], self.buffer[at + 2], self.buffer[at + 3]]);
            at += RECORD_HEAD + length as usize;
        }
        for (place, _) in appended.iter_mut().filter_map(|a| a.record.as_mut()) {
            place.position += self.end as u32;
        }
        let doing = |what: &str| format!("{what} {}", opening::path(&self.segments.dir, self.head.id).display());
        self.pass(0);
        self.file.write_all_at(&self.buffer, self.end).map_err(|e| failed(doing("write"), &e))?;
        self.pass(1);
        let sync = Instant::now();
        self.file.sync_data().map_err(|e| failed(doing("sync"), &e))?;
        metrics::group(self.segments.chain, self.buffer.len(), appended.len(), sync.elapsed());
        self.pass(2);
        self.end += self.buffer.len() as u64;
        self.link = link.finalize();
        self.note();
        self.segments.grown(appended, self.end, self.time);
        if self.buffer.capacity() > 2 * limits::GROUP_COMMIT_BYTES_MAX {
            // An epoch far above the usual was written; its memory is not kept.
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Records the durable end where nothing follows at once, so that damage to the last group is told from a torn
    /// write. The next group overwrites it, so nothing depends on it: an error shows itself there.
    pub fn mark(&self) {
        let head = GroupHead { position: self.end, body: 0, records: 0, time: self.time, previous: self.link };
        let _ = self.file.write_all_at(&head.encode(self.head.salt), self.end);
    }

    /// Notes the durable end where it outlives the segment's own.
    fn note(&self) {
        self.ends.note(self.chain(), End { segment: self.head.id, byte: self.end });
    }

    /// Begins a segment, unless the active one holds nothing.
    pub fn roll(&mut self) -> Result<(), LogError> {
        self.health.check(self.chain())?;
        if self.is_empty() { Ok(()) } else { self.rotate().inspect_err(|error| self.fail(error)) }
    }

    fn rotate(&mut self) -> Result<(), LogError> {
        let head = self.following()?;
        let file = opening::create(&self.segments.dir, &head)?;
        self.take_up(head, file);
        Ok(())
    }

    /// The header of the segment to come.
    pub(super) fn following(&self) -> Result<SegmentHead, LogError> {
        let previous = Previous { end: self.end, link: self.link, time: self.time };
        // Records of the group under way are counted in `next` already; readers know where the old segment ended.
        let next = self.segments.all_next();
        Ok(SegmentHead { id: self.head.id + 1, salt: salt()?, previous, next, ..self.head.clone() })
    }

    /// Goes on in a segment that was just created.
    pub(super) fn take_up(&mut self, head: SegmentHead, file: File) {
        let file = Arc::new(file);
        self.end = SegmentHead::length(head.chain, head.partitions) as u64;
        self.link = scan::link_of_segment(&head);
        if head.id == self.head.id {
            self.segments.remade(file.clone());
        } else {
            self.segments.rotated(head.id, file.clone(), self.end);
        }
        (self.file, self.head) = (file, head);
        self.note();
    }

    /// Whether the active segment holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.end == self.head_bytes()
    }

    fn head_bytes(&self) -> u64 {
        SegmentHead::length(self.head.chain, self.head.partitions) as u64
    }

    fn pass(&self, point: usize) {
        if let Some(points) = self.points {
            fault::point(points[point]);
        }
    }
}

/// What makes the group headers of a segment unlike anything that a tenant can send.
pub fn salt() -> Result<[u8; 8], LogError> {
    let mut salt = [0; 8];
    getrandom::fill(&mut salt).map_err(|e| LogError::Io { doing: "draw a salt".into(), detail: e.to_string() })?;
    Ok(salt)
}
