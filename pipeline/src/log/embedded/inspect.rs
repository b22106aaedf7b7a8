//! Reads every segment of a chain against its checksums. A start does not: it reads headers, sizes and the last segment, in
//! milliseconds; this takes as long as the disk does.

use super::layout::{Chain, PROGRESS};
use super::opening::{Mode, open_file, path};
use super::scan::{self, Tail};
use super::segments::{Look, Segments};
use super::wire::{Previous, SegmentHead};
use super::{corrupt, failed};
use std::os::unix::fs::FileExt;
use tidegate_schemas::log::{Inspection, LogError};

impl Segments {
    /// Reads all that is durable now; what is deleted meanwhile is left out.
    pub fn inspect(&self, found: &mut Inspection) {
        let looks = self.looks();
        let mut before: Option<(u64, u64, u32)> = None;
        for look in &looks {
            match self.inspect_one(look, before) {
                Ok((bytes, link)) => {
                    found.bytes += bytes;
                    before = Some((look.id, look.end, link));
                }
                Err(_) if self.is_deleted(look.id) => {
                    before = None;
                    continue;
                }
                // A file that cannot be read is as bad as one that reads wrong.
                Err(damage) => {
                    found.damage.push(damage);
                    before = None;
                }
            }
            found.files += 1;
        }
    }

    /// Bytes read, and the link of the last group. `before` is the segment before it: id, end, link.
    fn inspect_one(&self, look: &Look, before: Option<(u64, u64, u32)>) -> Result<(u64, u32), LogError> {
        let path = path(&self.dir, look.id);
        let reading = |e| failed(format!("read {}", path.display()), &e);
        let file = match &look.pinned {
            Some(file) => file.clone(),
            None => open_file(&path, Mode::Beside)?,
        };
        let length = file.metadata().map_err(reading)?.len();
        let mut bytes = vec![0; SegmentHead::length(self.chain, self.partitions)];
        if length < look.end.max(bytes.len() as u64) {
            return Err(corrupt(&path, length, &format!("it is cut off: {} bytes of it are durable", look.end)));
        }
        file.read_exact_at(&mut bytes, 0).map_err(reading)?;
        let head = SegmentHead::decode(&bytes).map_err(|detail| corrupt(&path, 0, &detail))?;
        if (head.chain, head.id) != (self.chain, look.id) {
            return Err(corrupt(&path, 0, &format!("it is segment {} of {}", head.id, head.chain.as_str())));
        }
        if let Some((id, end, link)) = before {
            let Previous { end: said_end, link: said_link, .. } = head.previous;
            if (said_end, said_link) != (end, link) {
                return Err(corrupt(&path, 0, &format!("it does not continue segment {id} as that stands there")));
            }
        }
        let walk = scan::walk(&file, &head, look.end, true).map_err(reading)?;
        match walk.tail {
            Tail::Bad { at, detail } => Err(corrupt(&path, at, detail)),
            Tail::Mark => Err(corrupt(&path, walk.end, "it ends before its durable end")),
            Tail::Clean if !self.agree(&walk.next, look) => Err(corrupt(&path, walk.end, "its offsets are not those of what follows")),
            Tail::Clean => Ok((look.end, walk.link)),
        }
    }

    /// Whether a segment ends with the offsets that follow. Beside an owner it is not known up to where `raw` is processed.
    fn agree(&self, next: &[u64], look: &Look) -> bool {
        let records = if look.active && self.chain == Chain::Output { PROGRESS * self.chain.width(self.partitions) } else { next.len() };
        next[..records] == look.next[..records]
    }
}

/// Every chain.
pub fn all<'a>(chains: impl IntoIterator<Item = &'a Segments>) -> Inspection {
    let mut found = Inspection::default();
    chains.into_iter().for_each(|segments| segments.inspect(&mut found));
    found
}
