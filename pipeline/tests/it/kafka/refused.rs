//! What was changed behind Tidegate's back, and settings that do not fit: refused by name, with a remedy.

use super::{broker, open, options};
use crate::log::{commit, only_texts, publish, record, unit, wait};
use crate::support::wait_for;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::time::Duration;
use tidegate_pipeline::log::kafka::{KafkaLog, Options};
use tidegate_schemas::ids::LogId;
use tidegate_schemas::log::{EventLog, LogError, LogName, SinkCursor};

/// Creates and changes topics.
pub fn admin(address: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", address).create().unwrap()
}

/// How long that may take.
pub fn patience() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)))
}

/// Why it cannot be opened. All of `words` are in the message.
fn refused(options: &Options, words: &[&str]) -> LogError {
    let Err(error) = KafkaLog::open(options.clone()) else { panic!("it was opened") };
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    error
}

/// Deletes records as any admin may.
pub fn delete_records(address: &str, list: &TopicPartitionList) {
    wait(admin(address).delete_records(list, &patience())).unwrap();
}

#[test]
fn another_log_is_refused() {
    let Some(broker) = broker::shared() else { return };
    let mut options = options(broker);
    // Several first starts at once make one log.
    let ids: Vec<LogId> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..3).map(|_| scope.spawn(|| open(&options).log_id())).collect();
        starts.into_iter().map(|s| s.join().unwrap()).collect()
    });
    let log = open(&options);
    assert!(ids.iter().all(|id| *id == log.log_id()));
    let other = open(&super::options(broker));
    assert_ne!(log.log_id(), other.log_id());
    options.expected = Some(log.log_id());
    assert_eq!(open(&options).log_id(), log.log_id());
    options.expected = Some(other.log_id());
    let error = refused(&options, &[&other.log_id().to_string(), "topic_prefix"]);
    assert!(matches!(error, LogError::Foreign { found, found_partitions: 3, .. } if found == log.log_id()), "{error}");
    options.expected = None;
    options.partitions = 4;
    assert!(matches!(refused(&options, &["with 4"]), LogError::Foreign { found_partitions: 3, .. }));
    options.kafka.topic_prefix = "no spaces".into();
    refused(&options, &["log.kafka.topic_prefix"]);
}

#[test]
fn topics_changed_behind_our_back() {
    let Some(broker) = broker::shared() else { return };
    let options = options(broker);
    let (log, admin) = (open(&options), admin(&broker.address()));
    let topic = |name: &str| format!("{}{name}", options.kafka.topic_prefix);
    let settings = |name: &str, key: &'static str, value: &'static str| {
        // Replaces all settings of the topic.
        let mut all = [
            ("retention.ms", "-1"),
            ("retention.bytes", "-1"),
            ("cleanup.policy", if name == "meta" { "compact" } else { "delete" }),
            ("max.message.bytes", "1100000"),
            ("min.insync.replicas", "1"),
        ];
        all.iter_mut().filter(|(k, _)| *k == key).for_each(|(_, v)| *v = value);
        let name = topic(name);
        let config = all.iter().fold(AlterConfig::new(ResourceSpecifier::Topic(&name)), |c, (k, v)| c.set(k, v));
        wait(admin.alter_configs(&[config], &patience())).unwrap()[0].as_ref().unwrap();
        // A controller's word reaches its broker a moment later.
        wait_for("the broker to know the setting", Duration::from_secs(30), || {
            let told = wait(admin.describe_configs(&[ResourceSpecifier::Topic(&name)], &patience())).unwrap().remove(0).unwrap();
            (told.get(key)?.value.as_deref() == Some(value)).then_some(())
        });
    };
    for (name, key, wrong, right) in [
        ("raw", "retention.ms", "604800000", "-1"),
        ("audit", "retention.bytes", "1000", "-1"),
        ("meta", "cleanup.policy", "delete", "compact"),
        ("clean", "max.message.bytes", "65536", "1100000"),
    ] {
        settings(name, key, wrong);
        refused(&options, &[&topic(name), key, wrong, "kafka-configs --alter", "--add-config"]);
        settings(name, key, right);
    }
    let mut strict = options.clone();
    strict.kafka.min_insync_replicas = 2;
    refused(&strict, &["min.insync.replicas", "log.kafka.min_insync_replicas"]);
    drop(open(&options));

    // Records deleted by others: of what is not processed, and of what no sink has delivered.
    publish(&*log, LogName::Raw, 1, &["a", "b", "c"]);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic("raw"), 1, Offset::Offset(2)).unwrap();
    wait(admin.delete_records(&list, &patience())).unwrap();
    let error = refused(&options, &["raw 1", "starts at 2"]);
    assert!(matches!(error, LogError::Gone { log: "raw", partition: 1, from: 0, start: 2 }), "{error}");
    assert!(matches!(log.read(LogName::Raw, 1, 0, 100), Err(LogError::Gone { from: 0, start: 2, .. })));
    let accepting = open(&Options { accept_gap: true, ..options.clone() });
    assert_eq!(only_texts(&*accepting, LogName::Raw, 1), ["c"]);
    drop(accepting);
    // It is recorded, so nobody asks again.
    assert_eq!(only_texts(&*open(&options), LogName::Raw, 1), ["c"]);

    wait(admin.create_partitions(&[NewPartitions::new(&topic("audit"), 5)], &patience())).unwrap();
    wait_for("the partitions to be there", Duration::from_secs(30), || log.check().is_err().then_some(()));
    refused(&options, &[&topic("audit"), "5 partitions", "made with 3"]);
    assert!(log.check().unwrap_err().to_string().contains(&topic("audit")));
}

#[test]
fn topics_deleted_behind_our_back() {
    let Some(broker) = broker::shared() else { return };
    let options = options(broker);
    let (log, admin) = (open(&options), admin(&broker.address()));
    let topic = |name: &str| format!("{}{name}", options.kafka.topic_prefix);
    publish(&*log, LogName::Raw, 0, &["a", "b"]);
    let owner = log.fence(0).unwrap();
    commit(&*log, &owner, unit(1, &["x"], &[], 1));
    let delete = |name: &str| {
        wait(admin.delete_topics(&[&topic(name)], &patience())).unwrap()[0].as_ref().unwrap();
        wait_for("the topic to be gone", Duration::from_secs(30), || log.check().is_err().then_some(()));
    };
    delete("raw");
    let told = log.read(LogName::Raw, 0, 0, 100).err().or_else(|| log.bounds(LogName::Raw, 0).err());
    assert!(told.is_some_and(|e| e.to_string().contains(&topic("raw"))));
    assert!(log.check().unwrap_err().to_string().contains(&topic("raw")));
    let error = wait(log.publish(LogName::Raw, vec![(0, record("c"))])).unwrap_err();
    assert!(error.to_string().contains(&topic("raw")), "{error}");
    refused(&options, &[&topic("raw"), "not there"]);
    // Made anew by somebody's hand: it is shorter than what was processed of it.
    let name = topic("raw");
    let made = rdkafka::admin::NewTopic::new(&name, 3, rdkafka::admin::TopicReplication::Fixed(1));
    let made = made.set("retention.ms", "-1").set("retention.bytes", "-1");
    wait(admin.create_topics(&[made], &patience())).unwrap()[0].as_ref().unwrap();
    let again = crate::support::wait_for("the topic", Duration::from_secs(20), || KafkaLog::open(options.clone()).ok());
    let error = again.fence(0).unwrap_err().to_string();
    assert!(error.contains(&topic("raw")) && error.contains("truncated or made anew"), "{error}");
    // The process that knew it longer.
    let error = log.bounds(LogName::Raw, 0).unwrap_err();
    assert!(matches!(&error, LogError::Unfit { place, .. } if place.contains(&topic("raw"))), "{error}");
    delete("meta");
    refused(&options, &[&topic("meta")]);
}

#[test]
fn a_cursor_never_goes_back() {
    let Some(broker) = broker::shared() else { return };
    let options = options(broker);
    let cursor = |epoch| SinkCursor { clean: epoch * 10, audit: epoch, epoch };
    let (a, b) = (open(&options), open(&options));
    a.store_cursor("parquet", 0, cursor(5)).unwrap();
    assert_eq!(b.cursor("parquet", 0).unwrap(), Some(cursor(5)));
    b.store_cursor("parquet", 0, cursor(10)).unwrap();
    // A process that was stopped and resumed.
    a.store_cursor("parquet", 0, cursor(6)).unwrap();
    for log in [&a, &b, &open(&options)] {
        assert_eq!(log.cursor("parquet", 0).unwrap(), Some(cursor(10)));
    }
    a.store_cursor("parquet", 0, cursor(11)).unwrap();
    assert_eq!(b.cursor("parquet", 0).unwrap(), Some(cursor(11)));
}

#[test]
fn a_full_log_takes_no_more() {
    let Some(broker) = broker::shared() else { return };
    let mut options = options(broker);
    options.budget_bytes = 100_000;
    let log = open(&options);
    let text = "x".repeat(1000);
    let mut taken = 0u64;
    let error = loop {
        match wait(log.publish(LogName::Raw, vec![(0, record(text.clone()))])) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::Full { budget: 100_000, .. }), "{error}");
    assert!((50..90).contains(&taken), "{taken}");
    // Definitions still fit, and so do epochs, up to a point of their own.
    publish(&*log, LogName::Control, 0, &[&text]);
    let owner = log.fence(0).unwrap();
    commit(&*log, &owner, unit(1, &["fits"], &[], taken));
    let large = "y".repeat(50_000);
    assert!(matches!(log.commit(&owner, vec![unit(2, &[&large], &[], taken)]), Err(LogError::Full { .. })));
    // Another process finds it as full; what is trimmed makes room.
    let other = open(&options);
    assert!(matches!(wait(other.publish(LogName::Raw, vec![(1, record(text.clone()))])), Err(LogError::Full { .. })));
    assert!(log.trim().unwrap() > 0);
    publish(&*log, LogName::Raw, 0, &[&text]);
    commit(&*log, &owner, unit(2, &["fits again"], &[], taken + 1));
}

#[test]
fn nobody_answers() {
    if broker::shared().is_none() {
        return;
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut options = Options::default();
    options.kafka.brokers = vec![closed.to_string()];
    refused(&options, &["log.kafka.brokers", &closed.to_string(), "refused"]);
}
