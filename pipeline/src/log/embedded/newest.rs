//! The newest records of a chain as they were appended: who follows finds them here, and neither reads nor checks a file.
//! What is older is read from its segment.

use std::collections::VecDeque;
use tidegate_schemas::limits::LOG_NEWEST_BYTES_MAX;
use tidegate_schemas::log::Entry;

/// What a record takes beside its bytes: its headers, and its place here.
const ENTRY_BYTES: usize = 1 << 10;

/// Of each lane and partition the records up to the durable end, as many as there is room for.
pub struct Newest {
    /// By slot, without gaps.
    kept: Vec<VecDeque<Kept>>,
    /// Slots of all that is kept, in the order in which it came.
    order: VecDeque<usize>,
    bytes: usize,
}

struct Kept {
    entry: Entry,
    /// Of its body in the segment.
    length: u32,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.length as usize + ENTRY_BYTES
    }
}

impl Newest {
    pub fn new(slots: usize) -> Self {
        Self { kept: (0..slots).map(|_| VecDeque::new()).collect(), order: VecDeque::new(), bytes: 0 }
    }

    /// Takes the record that comes next in its slot, for those that came first.
    pub fn push(&mut self, slot: usize, entry: Entry, length: u32) {
        let kept = Kept { entry, length };
        self.bytes += kept.bytes();
        self.kept[slot].push_back(kept);
        self.order.push_back(slot);
        while self.bytes > LOG_NEWEST_BYTES_MAX
            && let Some(first) = self.order.pop_front().and_then(|slot| self.kept[slot].pop_front())
        {
            self.bytes -= first.bytes();
        }
    }

    /// Records of a slot from an offset on: one at least, then as many as fit into `bytes_max`. None where the first is not here.
    pub fn read(&self, slot: usize, from: u64, bytes_max: usize) -> Option<Vec<Entry>> {
        let kept = &self.kept[slot];
        let skip = from.checked_sub(kept.front()?.entry.offset)? as usize;
        let (mut left, mut entries) = (bytes_max, Vec::new());
        for Kept { entry, length } in kept.range(skip.min(kept.len())..) {
            if *length as usize > left && !entries.is_empty() {
                break;
            }
            left = left.saturating_sub(*length as usize);
            entries.push(entry.clone());
        }
        Some(entries).filter(|e| !e.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, LOG_NEWEST_BYTES_MAX, Newest};
    use tidegate_schemas::log::Record;

    fn entry(offset: u64) -> Entry {
        Entry { offset, record: Record { value: offset.to_string().into(), ..Record::default() } }
    }

    #[test]
    fn the_newest_are_kept_and_the_oldest_go() {
        const LENGTH: u32 = 500_000;
        let room = LOG_NEWEST_BYTES_MAX as u64 / 501_024;
        let (mut newest, mut next) = (Newest::new(2), [70, 0]);
        for number in 0..3 * room {
            // Two of three go to one slot.
            let slot = usize::from(number % 3 == 0);
            newest.push(slot, entry(next[slot]), LENGTH);
            next[slot] += 1;
            let of = |slot: usize| (0..=number).rev().take(room as usize).filter(|n| usize::from(n % 3 == 0) == slot).count() as u64;
            for (slot, end) in next.into_iter().enumerate() {
                let first = end - of(slot);
                for from in first.saturating_sub(3)..end + 3 {
                    let expected = |most| (from..end).map(entry).take(most).collect::<Vec<_>>();
                    let is_here = (first..end).contains(&from);
                    for (bytes, most) in [(0, 1), (999_999, 1), (1_000_000, 2), (usize::MAX, usize::MAX)] {
                        assert_eq!(newest.read(slot, from, bytes), is_here.then(|| expected(most)), "{slot} {from} {bytes}");
                    }
                }
            }
        }
        newest.push(0, entry(next[0]), u32::MAX);
        assert_eq!((newest.read(0, next[0], 1), newest.read(1, next[1] - 1, 1), newest.bytes), (None, None, 0));
    }
}
