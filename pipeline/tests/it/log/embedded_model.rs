//! Random operations with restarts, against a model that keeps everything in memory.

use super::embedded::open;
use super::{record, unit, wait};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;
use tidegate_pipeline::log::embedded::EmbeddedLog;
use tidegate_schemas::log::{EventLog, LogError, LogName, Owner, SinkCursor};

#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<(u32, usize)>),
    Control(usize),
    Commit { partition: u32, units: Vec<(usize, usize, usize)>, size: usize },
    Fence(u32),
    Cursor { sink: usize, partition: u32, back: u64 },
    Hold { name: usize, log: usize, partition: u32, back: Option<u64> },
    Trim,
    Reopen,
    Read { log: usize, partition: u32, back: u64, bytes: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let partition = || 0..3u32;
    let step = prop_oneof![
        6 => prop::collection::vec((partition(), 0..2500usize), 1..4).prop_map(Step::Publish),
        1 => (0..2500usize).prop_map(Step::Control),
        6 => (partition(), prop::collection::vec((0..3usize, 0..3usize, 0..4usize), 1..3), 0..1500usize)
            .prop_map(|(partition, units, size)| Step::Commit { partition, units, size }),
        1 => partition().prop_map(Step::Fence),
        2 => (0..2usize, partition(), 0..4u64).prop_map(|(sink, partition, back)| Step::Cursor { sink, partition, back }),
        2 => (0..2usize, 0..4usize, partition(), prop::option::of(0..6u64))
            .prop_map(|(name, log, partition, back)| Step::Hold { name, log, partition, back }),
        3 => Just(Step::Trim),
        1 => Just(Step::Reopen),
        4 => (0..5usize, partition(), 0..12u64, 0..6000usize)
            .prop_map(|(log, partition, back, bytes)| Step::Read { log, partition, back, bytes }),
    ];
    prop::collection::vec(step, 1..80)
}

#[derive(Default)]
struct Model {
    /// Texts by offset.
    records: BTreeMap<(LogName, u32), Vec<String>>,
    raw_next: BTreeMap<u32, u64>,
    epochs: BTreeMap<u32, u64>,
    cursors: BTreeMap<(usize, u32), SinkCursor>,
    holds: BTreeMap<(usize, LogName, u32), u64>,
    starts: BTreeMap<(LogName, u32), u64>,
    written: u64,
}

impl Model {
    fn text(&mut self, size: usize) -> String {
        self.written += 1;
        format!("{} {}", self.written, "x".repeat(size))
    }

    fn end(&self, log: LogName, partition: u32) -> u64 {
        self.records.get(&(log, partition)).map_or(0, |r| r.len() as u64)
    }

    fn push(&mut self, log: LogName, partition: u32, text: String) -> u64 {
        let records = self.records.entry((log, partition)).or_default();
        records.push(text);
        records.len() as u64 - 1
    }

    /// What must not be deleted begins here.
    fn needed(&self, log: LogName, partition: u32) -> u64 {
        let holds = self.holds.iter().filter(|((_, l, p), _)| (*l, *p) == (log, partition)).map(|(_, from)| *from);
        let cursors = self.cursors.iter().filter(|((_, p), _)| *p == partition).map(|(_, c)| c);
        let other: Vec<u64> = match log {
            LogName::Raw => vec![self.raw_next.get(&partition).copied().unwrap_or(0)],
            LogName::Clean => cursors.map(|c| c.clean).collect(),
            LogName::Audit => cursors.map(|c| c.audit).collect(),
            LogName::Commits | LogName::Control => vec![0],
        };
        holds.chain(other).chain([self.end(log, partition)]).min().unwrap_or(0)
    }

    /// Bounds only move as they may; every record that is left is the one that was written.
    fn check(&mut self, log: &EmbeddedLog, trimmed: bool) {
        for name in LogName::ALL {
            for partition in 0..if name == LogName::Control { 1 } else { 3 } {
                let bounds = log.bounds(name, partition).unwrap();
                let needed = self.needed(name, partition);
                let start = self.starts.entry((name, partition)).or_default();
                assert!(bounds.start >= *start && (trimmed || bounds.start == *start), "{name:?} {partition}");
                assert!(bounds.start <= needed.max(*start), "{name:?} {partition}: {bounds:?}, needed from {needed}");
                *start = bounds.start;
                assert_eq!(bounds.end, self.end(name, partition));
            }
        }
    }

    fn check_read(&self, log: &EmbeddedLog, name: LogName, partition: u32, from: u64, bytes: usize) {
        let (start, end) = (self.starts.get(&(name, partition)).copied().unwrap_or(0), self.end(name, partition));
        let result = log.read(name, partition, from, bytes);
        if from < start {
            assert!(matches!(result, Err(LogError::Gone { start: s, .. }) if s == start), "{result:?}");
            return;
        }
        let entries = result.unwrap();
        assert_eq!(entries.is_empty(), from >= end);
        let size: usize = entries.iter().skip(1).map(|e| e.record.value.len()).sum();
        assert!(size <= bytes);
        for (entry, offset) in entries.iter().zip(from..) {
            let expected = &self.records[&(name, partition)][offset as usize];
            assert_eq!((entry.offset, &*entry.record.value), (offset, expected.as_bytes()));
        }
    }
}

fn run(steps: Vec<Step>) {
    let dir = TempDir::new().unwrap();
    let mut log = open(dir.path());
    let mut model = Model::default();
    let mut owners: Vec<Owner> = (0..3).map(|p| log.fence(p).unwrap()).collect();
    for step in steps {
        let trimmed = matches!(step, Step::Trim);
        apply(step, &mut log, &mut model, &mut owners, dir.path());
        model.check(&log, trimmed);
    }
    let beside = EmbeddedLog::read_only(dir.path()).unwrap();
    for name in LogName::ALL {
        for partition in 0..if name == LogName::Control { 1 } else { 3 } {
            model.check_read(&beside, name, partition, log.bounds(name, partition).unwrap().start, usize::MAX);
            model.check_read(&log, name, partition, log.bounds(name, partition).unwrap().start, usize::MAX);
            let all = log.read(name, partition, log.bounds(name, partition).unwrap().start, usize::MAX).unwrap().len() as u64;
            assert_eq!(all, model.end(name, partition) - model.starts[&(name, partition)]);
        }
    }
}

fn apply(step: Step, log: &mut Arc<EmbeddedLog>, model: &mut Model, owners: &mut Vec<Owner>, dir: &std::path::Path) {
    match step {
        Step::Publish(sizes) => {
            let texts: Vec<_> = sizes.into_iter().map(|(p, size)| (p, model.text(size))).collect();
            let offsets = wait(log.publish(LogName::Raw, texts.iter().map(|(p, t)| (*p, record(t.clone()))).collect())).unwrap();
            let expected: Vec<_> = texts.into_iter().map(|(p, text)| model.push(LogName::Raw, p, text)).collect();
            assert_eq!(offsets, expected);
        }
        Step::Control(size) => {
            let text = model.text(size);
            wait(log.publish(LogName::Control, vec![(0, record(text.clone()))])).unwrap();
            model.push(LogName::Control, 0, text);
        }
        Step::Commit { partition, units, size } => {
            let mut list = Vec::new();
            for (clean, audit, step) in units {
                let epoch = model.epochs.get(&partition).copied().unwrap_or(0) + 1;
                let raw_next = (model.raw_next.get(&partition).copied().unwrap_or(0) + step as u64).min(model.end(LogName::Raw, partition));
                let clean: Vec<_> = (0..clean).map(|_| model.text(size)).collect();
                let audit: Vec<_> = (0..audit).map(|_| model.text(size / 2)).collect();
                let (c, a) = (model.end(LogName::Clean, partition), model.end(LogName::Audit, partition));
                let commit = format!("epoch {epoch}: {:?} {:?}", c..c + clean.len() as u64, a..a + audit.len() as u64);
                let refs = |texts: &[String]| texts.iter().map(|t| record(t.clone())).collect::<Vec<_>>();
                list.push(tidegate_schemas::log::CommitUnit {
                    clean: refs(&clean),
                    audit: refs(&audit),
                    ..unit(epoch, &[], &[], raw_next)
                });
                for (name, texts) in [(LogName::Clean, clean), (LogName::Audit, audit)] {
                    for text in texts {
                        model.push(name, partition, text);
                    }
                }
                model.push(LogName::Commits, partition, commit);
                model.epochs.insert(partition, epoch);
                model.raw_next.insert(partition, raw_next);
            }
            log.commit(&owners[partition as usize], list).unwrap();
        }
        Step::Fence(partition) => {
            let old = std::mem::replace(&mut owners[partition as usize], log.fence(partition).unwrap());
            assert!(matches!(log.commit(&old, vec![]), Err(LogError::Fenced { .. })));
        }
        Step::Cursor { sink, partition, back } => {
            let clean = model.end(LogName::Clean, partition).saturating_sub(back);
            let audit = model.end(LogName::Audit, partition).saturating_sub(back);
            let cursor = SinkCursor { clean, audit, epoch: model.epochs.get(&partition).copied().unwrap_or(0) };
            log.store_cursor(["a", "b"][sink], partition, cursor).unwrap();
            model.cursors.insert((sink, partition), cursor);
        }
        Step::Hold { name, log: of, partition, back } => {
            let of = [LogName::Raw, LogName::Clean, LogName::Audit, LogName::Commits][of];
            let from = back.map(|back| model.end(of, partition).saturating_sub(back));
            log.hold(["a", "b"][name], of, partition, from);
            match from {
                Some(from) => model.holds.insert((name, of, partition), from),
                None => model.holds.remove(&(name, of, partition)),
            };
        }
        Step::Trim => {
            log.trim().unwrap();
        }
        Step::Reopen => {
            log.close();
            *log = {
                let closed = std::mem::replace(log, EmbeddedLog::read_only(dir).unwrap());
                model.check(log, false);
                drop(closed);
                open(dir)
            };
            model.holds.clear();
            *owners = (0..3).map(|p| log.fence(p).unwrap()).collect();
            for ((sink, partition), cursor) in &model.cursors {
                assert_eq!(log.cursor(["a", "b"][*sink], *partition).unwrap(), Some(*cursor));
            }
        }
        Step::Read { log: of, partition, back, bytes } => {
            let name = LogName::ALL[of];
            let partition = if name == LogName::Control { 0 } else { partition };
            let from = model.end(name, partition).saturating_sub(back);
            model.check_read(log, name, partition, from, bytes);
            // The owner has what it wrote last in memory; whoever reads beside it has the files only.
            let beside = EmbeddedLog::read_only(dir).unwrap();
            model.check_read(&beside, name, partition, from, bytes);
            let offsets = |log: &EmbeddedLog| log.read(name, partition, from, bytes).map(|read| read.iter().map(|e| e.offset).collect());
            assert_eq!(offsets(log).ok(), offsets(&beside).ok().map(|read: Vec<u64>| read));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn does_what_the_model_does(steps in steps()) {
        run(steps);
    }
}
