//! Transactions: what is not committed is not seen, and a partition has one owner.

use super::{broker, open, options};
use crate::log::{commit, only_texts, poll, publish, texts, unit, wait};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tidegate_pipeline::log::kafka::KafkaLog;
use tidegate_schemas::log::{EventLog, LogError, LogName, Owner};

/// A transaction of somebody else in `clean` of partition 0, with one record, not ended.
fn ghost(address: &str, topic: &str, id: &str) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", address).set("transactional.id", id).create().unwrap();
    producer.init_transactions(Duration::from_secs(20)).unwrap();
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::<str, str>::to(topic).partition(0).payload("ghost")).map_err(|(e, _)| e).unwrap();
    producer.flush(Duration::from_secs(20)).unwrap();
    producer
}

#[test]
fn what_is_not_committed_is_not_seen() {
    let Some(broker) = broker::shared() else { return };
    let options = options(broker);
    let (log, topic) = (open(&options), format!("{}clean", options.kafka.topic_prefix));
    let owner = log.fence(0).unwrap();
    let first = commit(&*log, &owner, unit(1, &["one"], &[], 0));
    let bounds = log.bounds(LogName::Clean, 0).unwrap();
    for (round, aborts) in [(0u64, true), (1, false)] {
        let ghost = ghost(&broker.address(), &topic, &format!("{topic}-ghost"));
        // It is there, and nothing behind it is visible before it ends.
        let end = log.bounds(LogName::Clean, 0).unwrap().end;
        let written = commit(&*log, &owner, unit(2 + round, &["behind"], &[], 0));
        assert!(written.clean.start > end);
        assert_eq!(log.bounds(LogName::Clean, 0).unwrap().end, end);
        assert!(log.read(LogName::Clean, 0, end, 1 << 20).unwrap().is_empty());
        assert!(poll(&*log, LogName::Clean, 0, end, Duration::from_millis(50)).is_empty());
        let waiting = std::thread::spawn({
            let log = Arc::clone(&log);
            move || poll(&*log, LogName::Clean, 0, end, Duration::from_secs(60))
        });
        if aborts {
            ghost.abort_transaction(Duration::from_secs(20)).unwrap();
        } else {
            ghost.commit_transaction(Duration::from_secs(20)).unwrap();
        }
        assert!(!waiting.join().unwrap().is_empty());
        let found: Vec<_> = texts(&*log, LogName::Clean, 0, end, 1).into_iter().map(|(_, text)| text).collect();
        assert_eq!(found, if aborts { vec!["behind"] } else { vec!["ghost", "behind"] });
    }
    // A takeover begins with an aborted transaction, so nothing stands at the start.
    assert!(first.clean.start > bounds.start);
    assert_eq!(only_texts(&*log, LogName::Clean, 0), ["one", "behind", "ghost", "behind"]);
    // A reader at a place that is only markers, another that begins anew, and one of another process agree.
    let end = log.bounds(LogName::Clean, 0).unwrap().end;
    assert!(log.read(LogName::Clean, 0, end - 1, 1 << 20).unwrap().is_empty());
    assert!(poll(&*log, LogName::Clean, 0, end - 1, Duration::ZERO).is_empty());
    let other = open(&options);
    assert!(other.read(LogName::Clean, 0, end - 1, 1 << 20).unwrap().is_empty());
    assert!(other.read(LogName::Clean, 0, end - 1, 1).unwrap().is_empty());
    assert_eq!(only_texts(&*other, LogName::Clean, 0).len(), 4);
}

#[test]
fn what_no_commit_names_is_refused_by_its_place() {
    let Some(broker) = broker::shared() else { return };
    let options = options(broker);
    let (log, topic) = (open(&options), format!("{}clean", options.kafka.topic_prefix));
    let owner = log.fence(0).unwrap();
    let written = commit(&*log, &owner, unit(1, &["one"], &[], 0));
    ghost(&broker.address(), &topic, &format!("{topic}-ghost")).commit_transaction(Duration::from_secs(20)).unwrap();
    let error = log.fence(0).unwrap_err();
    assert!(matches!(&error, LogError::Unfit { place, .. } if place.contains(&topic)), "{error}");
    let offset: u64 = error.to_string().split("offset ").nth(1).unwrap().split([':', ' ', ',']).next().unwrap().parse().unwrap();
    assert!(offset >= written.clean.end, "{error}");
    // The other partitions go on.
    log.fence(1).unwrap();
}

#[test]
fn whoever_fenced_last_commits() {
    let Some(broker) = broker::shared() else { return };
    let options = options(broker);
    let (a, b) = (open(&options), open(&options));
    assert_eq!(a.log_id(), b.log_id());
    publish(&*a, LogName::Raw, 0, &["x", "y", "z"]);
    let refused = |log: &KafkaLog, owner: &Owner, epoch| {
        let result = log.commit(owner, vec![unit(epoch, &["lost"], &["lost"], 2)]);
        assert!(matches!(result, Err(LogError::Fenced { partition: 0, .. })), "{result:?}");
    };
    let first = a.fence(0).unwrap();
    commit(&*a, &first, unit(1, &["a1"], &["a1"], 1));
    let second = b.fence(0).unwrap();
    refused(&a, &first, 2);
    refused(&a, &first, 2);
    commit(&*b, &second, unit(2, &["b2"], &[], 2));
    // The other order: the one who was fenced comes back, and the one who fenced it hears of it by its next commit.
    let third = a.fence(0).unwrap();
    commit(&*a, &third, unit(3, &["a3"], &[], 2));
    refused(&b, &second, 3);
    let fourth = b.fence(0).unwrap();
    commit(&*b, &fourth, unit(4, &["b4"], &[], 3));
    refused(&a, &third, 5);
    // Nobody goes back in raw, whoever says so.
    assert!(b.commit(&fourth, vec![unit(5, &["x"], &[], 2)]).is_err());
    assert!(b.commit(&fourth, vec![unit(5, &["x"], &[], 4)]).is_err());
    for log in [&a, &b] {
        assert_eq!(only_texts(&**log, LogName::Clean, 0), ["a1", "b2", "a3", "b4"]);
        assert_eq!(only_texts(&**log, LogName::Audit, 0), ["a1"]);
        assert_eq!(only_texts(&**log, LogName::Commits, 0).len(), 4);
    }
}

/// Epochs of a partition as committed: each once, in order.
pub fn epochs(log: &KafkaLog, partition: u32) -> u64 {
    let commits = only_texts(log, LogName::Commits, partition);
    for (i, text) in commits.iter().enumerate() {
        assert!(text.starts_with(&format!("epoch {}:", i + 1)), "{text} is commit {i} of partition {partition}");
    }
    let clean = only_texts(log, LogName::Clean, partition);
    let numbers: Vec<u64> = clean.iter().map(|t| t.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (1..=commits.len() as u64).collect::<Vec<_>>(), "partition {partition}");
    numbers.len() as u64
}

/// Takes a partition over, and says which epoch is next.
pub fn take(log: &KafkaLog, partition: u32) -> Result<(Owner, u64), LogError> {
    let owner = log.fence(partition)?;
    let (mut next, mut at, end) = (1, 0, log.bounds(LogName::Commits, partition)?.end);
    while at < end {
        let entries = log.read(LogName::Commits, partition, at, 1 << 20)?;
        let Some(last) = entries.last() else { break };
        at = last.offset + 1;
        next = std::str::from_utf8(&last.record.value).unwrap().split([' ', ':']).nth(1).unwrap().parse::<u64>().unwrap() + 1;
    }
    Ok((owner, next))
}

#[test]
fn broker_killed_during_commits() {
    let Some(mut broker) = broker::own() else { return };
    let options = options(&broker);
    let log = open(&options);
    let (stop, told) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 3]);
    // However busy the machine is: each partition goes on by some commits.
    let goes_on = || {
        let seen = told.each_ref().map(|t| t.load(Ordering::SeqCst));
        crate::support::wait_for("commits to go on", Duration::from_secs(120), || {
            told.iter().zip(seen).all(|(t, seen)| t.load(Ordering::SeqCst) >= seen + 3).then_some(())
        });
    };
    std::thread::scope(|scope| {
        let committing: Vec<_> = (0..3)
            .map(|partition| {
                let (log, stop, told) = (&log, &stop, &told[partition as usize]);
                scope.spawn(move || {
                    let (mut owned, mut sure, mut took) = (None, 0, Vec::new());
                    while !stop.load(Ordering::Relaxed) {
                        let Some((owner, next)) = owned.take().or_else(|| take(log, partition).ok()) else { continue };
                        assert!(next > sure, "epoch {sure} was told to be committed, and {next} comes next");
                        let texts = [format!("{next}"), "x".repeat(2000)];
                        let units = vec![unit(next, &[&texts[0]], &[&texts[1]], 0)];
                        // An error that is not settled means: take it over anew and look.
                        let started = std::time::Instant::now();
                        if log.commit(&owner, units).is_ok() {
                            took.push(started.elapsed());
                            sure = next;
                            told.fetch_add(1, Ordering::SeqCst);
                            owned = Some((owner, next + 1));
                        }
                    }
                    took.sort_unstable();
                    println!(
                        "partition {partition}: {} commits, half of them within {:?}, the longest {:?}",
                        took.len(),
                        took[took.len() / 2],
                        took[took.len() - 1]
                    );
                    sure
                })
            })
            .collect();
        for _ in 0..2 {
            goes_on();
            broker.kill();
            // Requests are refused while nobody is there, and the runtime is not held up by it.
            let refused = crate::support::wait_for("a refusal", Duration::from_secs(30), || {
                wait(log.publish(LogName::Raw, vec![(0, crate::log::record("lost"))])).err()
            });
            assert!(matches!(refused, LogError::Io { .. }), "{refused}");
            broker.resume();
            crate::support::wait_for("publishing to work again", Duration::from_secs(120), || {
                wait(log.publish(LogName::Raw, vec![(0, crate::log::record("kept"))])).ok()
            });
        }
        goes_on();
        stop.store(true, Ordering::Relaxed);
        for (partition, thread) in (0u32..).zip(committing) {
            let sure = thread.join().unwrap();
            let found = epochs(&log, partition);
            assert!(found >= sure && sure > 2, "{found} epochs in partition {partition}, {sure} acknowledged");
        }
    });
}
