//! What a chain does after a failed write, and how it comes to take writes again without a restart.
//!
//! A failed group was told to nobody and is seen by nobody: readers know only what a sync has confirmed, and its offsets
//! are given out again. Its bytes are cut at once, so that not even a restart takes them for a group that stays. From then
//! on the chain refuses, until all of this has succeeded in one go:
//!
//! 1. A new segment is written beside the old one, with as many bytes more as had failed, and synced: there is room, and
//!    the disk takes writes. The bytes are cut again.
//! 2. The old segment is read against its checksums up to its durable end, and must end as the appender remembers it. What
//!    lies before that end was synced before it was acknowledged, so a later failure cannot have touched it, save the
//!    block that holds the end: the failed group shared that one. Where its writing failed the system takes the page for
//!    clean, whatever the disk has. So this block is written once more, the rest of the file is cut, and all of it synced.
//!    A sync that fails here is told to this file, since each is told to whoever has it open.
//! 3. The new segment gets its name, durably. Its header says where the old one ends, so what might have come back behind
//!    that end counts no more; and it is a file that no failure has befallen.
//!
//! Where the active segment holds nothing it is replaced by one of the same number: a disk that fails again and again
//! gathers no segments. Where the old segment cannot be read back as it was acknowledged, no try follows: only a start
//! looks at the whole log and says what is lost.

use super::append::Appender;
use super::opening;
use super::scan::{self, Tail};
use super::wire::SegmentHead;
use super::{failed, layout};
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use tidegate_schemas::limits;
use tidegate_schemas::log::LogError;

/// The pause before the first try.
const FIRST: Duration = Duration::from_millis(100);
/// A failure so soon after a healing is the same one: tries do not begin anew with the shortest pause.
const SAME_WITHIN: Duration = Duration::from_secs(60);
/// No file system writes larger blocks.
const BLOCK: u64 = 64 << 10;

/// When a failed chain is tried again.
pub struct Retry {
    pause: Duration,
    at: Instant,
    /// That must fit.
    probe: usize,
    /// Nothing more is tried.
    given_up: bool,
}

/// Why a chain takes no writes yet.
enum Unhealed {
    NotYet(LogError),
    Never(LogError),
}

impl From<LogError> for Unhealed {
    fn from(error: LogError) -> Self {
        Self::NotYet(error)
    }
}

impl Appender {
    /// A write, a sync or a new segment failed: cuts what may be there of it.
    pub(super) fn fail(&mut self, error: &LogError) {
        self.next = self.segments.all_next();
        // Where this fails too, healing repeats it before anything else is written.
        if self.file.set_len(self.end).is_ok() {
            self.mark();
        }
        let probe = self.buffer.len().min(limits::LOG_PROBE_BYTES_MAX);
        let pause = self.healed.filter(|(at, _)| at.elapsed() < SAME_WITHIN).map_or(FIRST, |(_, pause)| longer(pause));
        self.retry = Some(Retry { pause, at: Instant::now() + pause, probe, given_up: false });
        self.health.failed(self.chain(), error);
    }

    /// When to try again, where that is due some day.
    pub fn due(&self) -> Option<Instant> {
        self.retry.as_ref().filter(|r| !r.given_up).map(|r| r.at)
    }

    /// Tries again where it is time to.
    pub fn heal_if_due(&mut self) {
        if self.due().is_none_or(|at| at > Instant::now()) {
            return;
        }
        let Some(mut retry) = self.retry.take() else { return };
        match self.heal(retry.probe) {
            Ok(()) => {
                self.healed = Some((Instant::now(), retry.pause));
                return self.health.healed(self.chain());
            }
            Err(Unhealed::NotYet(error)) => {
                tracing::debug!(chain = self.chain().as_str(), %error, "the log fails still");
                retry.pause = longer(retry.pause);
                retry.at = Instant::now() + retry.pause;
            }
            Err(Unhealed::Never(error)) => {
                retry.given_up = true;
                self.health.ended(self.chain(), &error);
            }
        }
        self.retry = Some(retry);
    }

    fn heal(&mut self, probe: usize) -> Result<(), Unhealed> {
        let head = if self.is_empty() { SegmentHead { salt: super::append::salt()?, ..self.head.clone() } } else { self.following()? };
        let path = opening::path(&self.segments.dir, head.id);
        let mut bytes = head.encode();
        let length = bytes.len();
        bytes.resize(length + probe, 0);
        let written = layout::write_new(&path, &bytes).and_then(|file| {
            let cut = file.set_len(length as u64).and_then(|()| file.sync_all());
            cut.map(|()| file).map_err(|e| failed(format!("write {}", path.display()), &e))
        });
        let file = written.inspect_err(|_| {
            // Others need the room that half of it takes.
            let _ = fs::remove_file(path.with_added_extension("new"));
        })?;
        if !self.is_empty() {
            self.settle()?;
        }
        layout::rename_new(&self.segments.dir, &path)?;
        self.take_up(head, file);
        Ok(())
    }

    /// Makes sure that the disk has what was acknowledged of the active segment, and cuts the rest.
    fn settle(&self) -> Result<(), Unhealed> {
        let path = opening::path(&self.segments.dir, self.head.id);
        let doing = |what: &str| format!("{what} {}", path.display());
        let walk = scan::walk(&self.file, &self.head, self.end, true).map_err(|e| failed(doing("read back"), &e))?;
        let sound = walk.tail == Tail::Clean && walk.link == self.link && walk.next == self.segments.all_next();
        if !sound {
            let at = if let Tail::Bad { at, .. } = walk.tail { at } else { walk.end };
            let detail = format!("what was acknowledged cannot be read back from byte {at} on");
            return Err(Unhealed::Never(LogError::Io { doing: doing("check"), detail }));
        }
        let rewrite = || -> io::Result<()> {
            self.file.set_len(self.end)?;
            let from = self.end.saturating_sub(1) / BLOCK * BLOCK;
            let mut block = vec![0; (self.end - from) as usize];
            self.file.read_exact_at(&mut block, from)?;
            self.file.write_all_at(&block, from)?;
            self.mark();
            self.file.sync_all()
        };
        rewrite().map_err(|e| failed(doing("settle"), &e).into())
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(Duration::from_millis(limits::LOG_RETRY_MILLISECONDS_MAX as u64))
}
