//! What may be deleted, and how much is there. Brokers delete nothing by themselves.
//!
//! ```text
//! raw      behind what is processed, holds, and the replay horizon
//! clean    behind every sink's cursor, and holds
//! audit    the same, and the receipt horizon
//! commits  the oldest past their share of the budget, behind holds; never the last
//! control  nothing
//! ```
//! A process deletes of partitions that it owns: only their owner knows what recovery needs of them. `meta` is told of
//! each trim before it is done, so what is missing beyond that was deleted by somebody else.
//!
//! Bytes are an estimate: records between start and end, times their mean size as this process saw it, before
//! compression and replication. librdkafka cannot ask brokers for the size of their folders; and what brokers compress
//! and copy is theirs to plan, while this figure is about the same in every process that asks. Markers of transactions
//! count as records, so it is rather too high.

use super::KafkaLog;
use super::errors::{self, io};
use super::metrics;
use super::names::Topic;
use super::topics::{patience, wait};
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_schemas::fault;
use tidegate_schemas::ids::Partition;
use tidegate_schemas::limits;
use tidegate_schemas::log::{LogError, LogName};

/// A sample of a log whose records were not seen yet.
const SAMPLE_BYTES: usize = 64 << 10;
/// What Kafka adds to a record, about.
const FRAME_BYTES: u64 = 32;
/// Older sizes count less from so many records on.
const SIZES_FADE: u64 = 1 << 20;

/// Mean sizes, and the last estimate.
#[derive(Default)]
pub struct Sizes {
    records: [AtomicU64; 6],
    bytes: [AtomicU64; 6],
    estimate: AtomicU64,
}

impl Sizes {
    /// Records that were read or written.
    pub fn see(&self, topic: Topic, records: usize, bytes: usize) {
        let (seen, sum) = (&self.records[topic.index()], &self.bytes[topic.index()]);
        if seen.load(Ordering::Relaxed) > SIZES_FADE {
            // Both halves need not fit together exactly: it is a mean of means.
            seen.store(seen.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
            sum.store(sum.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
        }
        sum.fetch_add(bytes as u64 + records as u64 * FRAME_BYTES, Ordering::Relaxed);
        seen.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Written since the last estimate.
    pub fn grow(&self, bytes: usize) {
        self.estimate.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes in all logs.
    pub fn estimate(&self) -> u64 {
        self.estimate.load(Ordering::Relaxed)
    }

    fn mean(&self, topic: Topic) -> Option<u64> {
        let records = self.records[topic.index()].load(Ordering::Relaxed);
        self.bytes[topic.index()].load(Ordering::Relaxed).checked_div(records)
    }
}

/// Estimates what is there.
pub fn measure(log: &KafkaLog) -> Result<(), LogError> {
    let mut sum = 0u64;
    for topic in Topic::ALL {
        for partition in 0..topic.width(log.partitions) {
            let bounds = log.readers.ends.bounds(topic, partition)?;
            let count = bounds.end.saturating_sub(bounds.start);
            if count == 0 {
                continue;
            }
            if log.sizes.mean(topic).is_none() {
                match log.readers.read(topic, partition, bounds.start + count / 2, SAMPLE_BYTES) {
                    Ok(entries) => log.sizes.see(topic, entries.len(), entries.iter().map(|e| e.record.size()).sum()),
                    // Another process deleted it just now: another partition's records will do.
                    Err(LogError::Gone { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            sum = sum.saturating_add(count.saturating_mul(log.sizes.mean(topic).unwrap_or(FRAME_BYTES)));
        }
    }
    log.sizes.estimate.store(sum, Ordering::Relaxed);
    Ok(())
}

/// Refuses a log of which others deleted, unless that gap is accepted: then it is recorded.
pub fn check_starts(log: &KafkaLog, accept_gap: bool) -> Result<(), LogError> {
    for name in LogName::ALL {
        for partition in 0..Topic::Log(name).width(log.partitions) {
            let start = log.readers.ends.fresh(Topic::Log(name), partition)?.start;
            if start == 0 {
                continue;
            }
            let from = log.meta.trimmed(name, partition)?;
            if start <= from {
                continue;
            }
            if !accept_gap {
                return Err(LogError::Gone { log: name.as_str(), partition, from, start });
            }
            tracing::warn!(log = name.as_str(), partition, from, start, "a gap that Tidegate did not make is accepted");
            log.meta.trim(name, partition, start)?;
        }
    }
    Ok(())
}

/// Deletes what nobody needs. Returns the bytes freed, as estimated.
pub fn trim(log: &KafkaLog) -> Result<u64, LogError> {
    let owned: Vec<_> = (0..log.partitions).filter_map(|p| log.owners.raw_next(p).map(|next| (p, next))).collect();
    let mut to = Vec::new();
    for (partition, raw_next) in owned {
        let (clean, audit) = log.meta.lowest(partition)?.unwrap_or((u64::MAX, u64::MAX));
        let aged = |name, horizon| older_than(log, name, partition, horizon);
        let raw_next = raw_next.min(aged(LogName::Raw, log.options.raw_horizon)?);
        let audit = audit.min(aged(LogName::Audit, log.options.audit_horizon)?);
        let commits = commits_past_share(log, partition)?;
        to.extend(
            [(LogName::Raw, raw_next), (LogName::Clean, clean), (LogName::Audit, audit), (LogName::Commits, commits)]
                .map(|(n, t)| (n, partition, t)),
        );
    }
    let freed = delete(log, to)?;
    measure(log)?;
    metrics::usage(tidegate_schemas::log::EventLog::usage(log));
    Ok(freed)
}

/// First offset that is younger than a horizon.
fn older_than(log: &KafkaLog, name: LogName, partition: Partition, horizon: Duration) -> Result<u64, LogError> {
    if horizon.is_zero() {
        return Ok(u64::MAX);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let moment = i64::try_from(now.saturating_sub(horizon).as_millis()).unwrap_or(i64::MAX);
    let topic = log.names.of(Topic::Log(name));
    let doing = || format!("find what is older than {horizon:?} in topic {topic}");
    let mut list = TopicPartitionList::with_capacity(1);
    let number = i32::try_from(partition).unwrap_or(i32::MAX);
    list.add_partition_offset(topic, number, Offset::Offset(moment)).map_err(|e| io(doing(), e))?;
    let found = log.readers.ends.asker().offsets_for_times(list, Duration::from_secs(limits::KAFKA_REQUEST_SECONDS_MAX as u64));
    let found = found.map_err(|e| io(doing(), log.clients.told.explain(e)))?;
    Ok(match found.elements().first().map(rdkafka::topic_partition_list::TopicPartitionListElem::offset) {
        Some(Offset::Offset(offset)) => offset.unsigned_abs(),
        // Nothing is younger.
        _ => u64::MAX,
    })
}

/// The oldest commit records go where all of them take more than their share; the last one never does.
fn commits_past_share(log: &KafkaLog, partition: Partition) -> Result<u64, LogError> {
    let topic = Topic::Log(LogName::Commits);
    let bounds = log.readers.ends.bounds(topic, partition)?;
    let share = log.options.budget_bytes / 100 * limits::COMMITS_PERCENT as u64 / u64::from(log.partitions.max(1));
    // Behind each record stands a marker.
    let kept = share / log.sizes.mean(topic).unwrap_or(FRAME_BYTES).max(1) * 2 + 2;
    Ok(bounds.end.saturating_sub(kept).max(bounds.start))
}

fn delete(log: &KafkaLog, to: Vec<(LogName, Partition, u64)>) -> Result<u64, LogError> {
    let (mut list, mut freed) = (TopicPartitionList::new(), 0);
    let mut deleted = Vec::new();
    for (name, partition, to) in to {
        let topic = Topic::Log(name);
        let bounds = log.readers.ends.fresh(topic, partition)?;
        let mut held = vec![u64::MAX; log.partitions as usize];
        held[partition as usize] = to.min(bounds.end);
        let to = log.holds.lower(name, held)[partition as usize];
        if to <= bounds.start {
            continue;
        }
        log.meta.trim(name, partition, to)?;
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        let offset = Offset::Offset(i64::try_from(to).unwrap_or(i64::MAX));
        list.add_partition_offset(log.names.of(topic), number, offset).map_err(|e| io("delete records", e))?;
        let bytes = (to - bounds.start) * log.sizes.mean(topic).unwrap_or(FRAME_BYTES);
        freed += bytes;
        deleted.push((topic, partition, bytes));
    }
    if deleted.is_empty() {
        return Ok(0);
    }
    fault::point("trim.before_delete");
    let told = wait(log.clients.admin()?.delete_records(&list, &patience()));
    let told = told.map_err(|e| io("delete records", log.clients.told.explain(e)))?;
    fault::point("trim.after_delete");
    for (topic, partition, bytes) in deleted {
        log.readers.ends.forget(topic, partition);
        metrics::trimmed(topic.as_str(), bytes);
    }
    for element in told.elements() {
        element.error().map_err(|e| errors::of_topic("delete records of", element.topic(), &e))?;
    }
    tracing::info!(bytes = freed, "deleted what nobody needs");
    Ok(freed)
}
