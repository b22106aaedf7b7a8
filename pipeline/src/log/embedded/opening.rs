//! Opens a chain: reads the headers of its segments, walks the last one, finds where the durable part ends, and cuts what
//! is torn behind it. Everything else that does not fit is damage, and refused with its place.

use super::ends::{self, End};
use super::layout::{self, Chain, Manifest};
use super::scan::{self, Tail, Walk};
use super::segments::{Segment, Segments};
use super::wire::{self, SegmentHead};
use super::{Cursors, corrupt, failed};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tidegate_schemas::ids::Partition;
use tidegate_schemas::limits;
use tidegate_schemas::log::{LogError, LogName};

/// Whether this process may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The lock is held: a torn tail is cut.
    Own,
    /// Beside a live owner: only what a group header vouches for is seen, and nothing is written.
    Beside,
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

impl Segments {
    /// Opens a chain, and finds where its durable part ends.
    pub fn open(folder: &Path, chain: Chain, manifest: &Manifest, mode: Mode) -> Result<(Arc<Self>, Resume), LogError> {
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

    fn open_once(dir: &Path, chain: Chain, manifest: &Manifest, mode: Mode) -> Result<(Arc<Self>, Resume), LogError> {
        // First: beside an owner the chain may grow meanwhile.
        let noted = dir.parent().and_then(|folder| ends::noted(folder, manifest.log_id, chain));
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
        let noted = noted.map_or(Ok(None), |end| check_noted(dir, &list, end))?;
        let (walk, torn) = find_end(&last_path, &file, &head, noted, mode)?;
        if let Some(active) = list.back_mut() {
            (active.end, active.time) = (walk.end, walk.time);
        }
        let resume = Resume { file: file.clone(), head, next: walk.next.clone(), end: walk.end, link: walk.link, time: walk.time, torn };
        let segments = Self::new(chain, manifest.partitions, dir, list, file, walk);
        Ok((Arc::new(segments), resume))
    }
}

/// Reads `log.json`, or creates the log. Every chain gets its first segment before the log counts as ready; from then on
/// a chain without one is damage.
pub fn prepare(dir: &Path, partitions: u32) -> Result<(Manifest, bool), LogError> {
    let found = Manifest::load(dir)?;
    let mut manifest = match found {
        Some(manifest) => manifest,
        None => {
            let manifest = Manifest::mint(partitions)?;
            manifest.store(dir)?;
            manifest
        }
    };
    if manifest.partitions != partitions {
        return Err(manifest.foreign(format!("{partitions} partitions are configured")));
    }
    if manifest.ready {
        return Ok((manifest, false));
    }
    for chain in Chain::ALL {
        let folder = dir.join(chain.as_str());
        layout::make_folder(&folder)?;
        if list(&folder, Mode::Own)?.is_empty() {
            create(&folder, &first(chain, &manifest)?)?;
        }
    }
    manifest.ready = true;
    manifest.store(dir)?;
    Ok((manifest, true))
}

/// What one chain says of another: a chain that lost its end would else hand out offsets a second time.
pub fn check_together(raw: &Segments, output: &Segments, archive: &Segments) -> Result<(), LogError> {
    for (partition, (end, needed)) in raw.next(0).into_iter().zip(output.next(layout::PROGRESS)).enumerate() {
        if end < needed {
            let detail = format!("partition {partition} ends at offset {end}, but epochs up to {needed} are committed");
            return Err(corrupt(&raw.dir, 0, &detail));
        }
        let start = raw.bounds(0, partition as Partition).start;
        if start > needed {
            let detail = format!("partition {partition} begins at offset {start}, and only up to {needed} is processed: a file is missing");
            return Err(corrupt(&raw.dir, 0, &detail));
        }
    }
    let lane = Chain::of(LogName::Commits).1;
    for (partition, end) in archive.next(0).into_iter().enumerate() {
        let start = output.bounds(lane, partition as Partition).start;
        if end < start {
            let detail = format!("partition {partition} ends at offset {end}, but the commits of output begin at {start}");
            return Err(corrupt(&archive.dir, 0, &detail));
        }
    }
    Ok(())
}

/// What sinks have delivered was in the output once.
pub fn check_cursors(output: &Segments, cursors: &Cursors) -> Result<(), LogError> {
    for log in [LogName::Clean, LogName::Audit] {
        for (partition, end) in output.next(Chain::of(log).1).into_iter().enumerate() {
            let highest = cursors.highest(partition as Partition);
            let delivered = highest.map_or(0, |c| if log == LogName::Clean { c.clean } else { c.audit });
            if end < delivered {
                let name = log.as_str();
                let detail = format!(
                    "{name} of partition {partition} ends at offset {end}, but a sink has delivered up to {delivered}: the end is lost"
                );
                return Err(corrupt(&output.dir, 0, &detail));
            }
        }
    }
    Ok(())
}

/// The noted end of the last segment; of an earlier one it is checked here.
fn check_noted(dir: &Path, list: &VecDeque<Segment>, noted: End) -> Result<Option<u64>, LogError> {
    let (Some(first), Some(last)) = (list.front(), list.back()) else { return Ok(None) };
    if noted.segment > last.id {
        let detail = format!("the file is missing, and all up to byte {} of it was acknowledged{}", noted.byte, accepting(dir));
        return Err(corrupt(&path(dir, noted.segment), 0, &detail));
    }
    if noted.segment == last.id {
        return Ok(Some(noted.byte));
    }
    if noted.segment >= first.id
        && let Some(segment) = list.get((noted.segment - first.id) as usize)
        && segment.end < noted.byte
    {
        let detail = format!("the next segment says that it ends here, and all up to byte {} was acknowledged", noted.byte);
        return Err(corrupt(&path(dir, segment.id), segment.end, &detail));
    }
    Ok(None)
}

/// How an admin says that what is lost may be lost.
fn accepting(dir: &Path) -> String {
    let file = dir.parent().unwrap_or(dir).join(ends::FILE);
    format!(" (without a copy: to go on and lose it, delete {})", file.display())
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
pub fn first(chain: Chain, manifest: &Manifest) -> Result<SegmentHead, LogError> {
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

/// Opens a segment's file.
pub fn open_file(path: &Path, mode: Mode) -> Result<Arc<File>, LogError> {
    let file = OpenOptions::new().read(true).write(mode == Mode::Own).open(path);
    file.map(Arc::new).map_err(|e| failed(format!("open {}", path.display()), &e))
}

fn read_head(path: &Path, file: &File, chain: Chain, manifest: &Manifest, id: u64) -> Result<SegmentHead, LogError> {
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
/// `noted` is what is known to have been durable.
fn find_end(path: &Path, file: &File, head: &SegmentHead, noted: Option<u64>, mode: Mode) -> Result<(Walk, u64), LogError> {
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
    if let Some(noted) = noted.filter(|noted| *noted > walk.end) {
        let (at, why) = match walk.tail {
            Tail::Bad { at, detail } => (at, detail),
            Tail::Clean | Tail::Mark => (walk.end, "it ends here"),
        };
        let lost = noted - walk.end;
        let accepting = accepting(path.parent().unwrap_or(path));
        let detail = format!("{why}, and all up to byte {noted} was acknowledged: {lost} bytes of it are lost{accepting}");
        return Err(corrupt(path, at, &detail));
    }
    if mode == Mode::Beside {
        walk.keep_proven(head.chain);
        return Ok((walk, 0));
    }
    let sound = walk.end + if walk.tail == Tail::Mark { wire::GROUP_HEAD as u64 } else { 0 };
    let torn = length.saturating_sub(sound);
    let settle = || -> io::Result<()> {
        if torn > 0 {
            file.set_len(walk.end)?;
        }
        // Nothing vouches for the last group: its process may have died before the sync, or the sync failed, after which
        // the system takes the pages for clean and a sync alone would do nothing. Whoever reads it from now on must be
        // able to rely on it, so it is written once more.
        let mut unproven = vec![0; (walk.end - walk.proven) as usize];
        file.read_exact_at(&mut unproven, walk.proven)?;
        file.write_all_at(&unproven, walk.proven)?;
        if torn > 0 || !unproven.is_empty() { file.sync_all() } else { Ok(()) }
    };
    settle().map_err(|e| failed(format!("settle the end of {}", path.display()), &e))?;
    Ok((walk, torn))
}
