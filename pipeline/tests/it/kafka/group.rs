//! Partitions move between processes, and a process that was stopped beyond its session commits nothing.

use super::owning::{epochs, take};
use super::{broker, open, options};
use crate::log::unit;
use crate::support::wait_for;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_pipeline::log::Work;
use tidegate_pipeline::log::kafka::{KafkaLog, MembershipEvent, Options};
use tidegate_schemas::log::{EventLog, LogError, LogName};

/// Commits epochs to whatever partitions the group gives, until `stop`.
fn serve(log: &KafkaLog, name: &str, stop: &AtomicBool, mut told: impl FnMut(u32, u64)) {
    let (membership, events) = log.join(Work::Process, Duration::from_secs(2)).unwrap();
    let mut owned = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        while let Ok(event) = events.try_recv() {
            match event {
                MembershipEvent::Assigned(partitions) => owned.extend(partitions.into_iter().map(|p| (p, None))),
                MembershipEvent::Lost(partitions) => owned.retain(|p, _| !partitions.contains(p)),
                MembershipEvent::Revoked(partitions, ack) => {
                    owned.retain(|p, _| !partitions.contains(p));
                    ack.done();
                }
            }
        }
        for (partition, right) in &mut owned {
            let Some((owner, next)) = right.take().or_else(|| take(log, *partition).ok()) else { continue };
            let text = format!("{name} {next}");
            match log.commit(&owner, vec![unit(next, &[&text], &[], 0)]) {
                Ok(_) => {
                    told(*partition, next);
                    *right = Some((owner, next + 1));
                }
                // Still ours, as far as the group says: again, after a while.
                Err(LogError::Fenced { .. } | LogError::Io { .. }) => std::thread::sleep(Duration::from_millis(100)),
                Err(error) => panic!("{error}"),
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(owned);
    log.leave();
    drop(membership);
}

/// What the tests below start in a process of its own.
#[test]
fn child() {
    let Ok(text) = std::env::var("TIDEGATE_TEST_MEMBER") else { return };
    let (address, prefix) = text.split_once(' ').unwrap();
    let kafka = tidegate_pipeline::log::kafka::KafkaSettings {
        brokers: vec![address.into()],
        topic_prefix: prefix.into(),
        replication_factor: 1,
        min_insync_replicas: 1,
        session_milliseconds: 2_000,
        ..Default::default()
    };
    let log = open(&Options { kafka, partitions: 3, ..Options::default() });
    serve(&log, "child", &AtomicBool::new(false), |partition, epoch| println!("told {partition} {epoch}"));
}

struct Member {
    child: Child,
    told: Arc<Mutex<BTreeMap<u32, u64>>>,
}

impl Member {
    fn start(options: &Options) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kafka::group::child", "--nocapture"])
            .env("TIDEGATE_TEST_MEMBER", format!("{} {}", options.kafka.brokers[0], options.kafka.topic_prefix))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = Arc::new(Mutex::new(BTreeMap::new()));
        let (output, heard) = (BufReader::new(child.stdout.take().unwrap()), Arc::clone(&told));
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((partition, epoch)) = line.split_once("told ").and_then(|(_, told)| told.split_once(' ')) {
                    heard.lock().unwrap().insert(partition.parse().unwrap(), epoch.parse().unwrap());
                }
            }
        });
        Self { child, told }
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    fn told(&self) -> BTreeMap<u32, u64> {
        self.told.lock().unwrap().clone()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn stopped_beyond_its_session() {
    let Some(broker) = broker::shared() else { return };
    let options = options(broker);
    let log = open(&options);
    let member = Member::start(&options);
    let patience = Duration::from_secs(60);
    wait_for("the child to commit everywhere", patience, || (member.told().len() == 3).then_some(()));
    member.signal("-STOP");
    let stop = AtomicBool::new(false);
    let own: Mutex<BTreeMap<u32, u64>> = Mutex::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            serve(&log, "parent", &stop, |partition, epoch| {
                own.lock().unwrap().insert(partition, epoch);
            });
        });
        wait_for("all partitions to be taken over", patience, || (own.lock().unwrap().len() == 3).then_some(()));
        let before = member.told();
        member.signal("-CONT");
        // What it had under way counts for nothing; what it commits from now on, it was given by the group anew.
        let again = |p: &u32| member.told()[p] > before[p] + 1;
        wait_for("the child to commit again", patience, || (0..3u32).any(|p| again(&p)).then_some(()));
        let (given, own_before) = ((0..3u32).find(again).unwrap(), own.lock().unwrap().clone());
        wait_for("the parent to go on with the others", patience, || {
            (0..3u32).filter(|p| *p != given).any(|p| own.lock().unwrap()[&p] > own_before[&p]).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
    });
    // The parent left: everything goes back to the child, which goes on where the parent ended.
    let left = own.lock().unwrap().clone();
    wait_for("the child to have all", patience, || (0..3u32).all(|p| member.told()[&p] > left[&p]).then_some(()));
    let told = member.told();
    drop(member);
    for partition in 0..3 {
        assert!(epochs(&log, partition) >= told[&partition]);
    }
}

#[test]
fn partitions_are_handed_over() {
    let Some(broker) = broker::shared() else { return };
    let mut options = options(broker);
    // Nobody dies here, and a slow machine must not look like it.
    options.kafka.session_milliseconds = 30_000;
    let (a, b) = (open(&options), open(&options));
    let patience = Duration::from_secs(60);
    let (first, events) = a.join(Work::Process, patience).unwrap();
    let MembershipEvent::Assigned(mut all) = events.recv_timeout(patience).unwrap() else { panic!("not assigned") };
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2]);
    crate::log::publish(&*a, LogName::Raw, 1, &["one", "two"]);
    let owner = a.fence(1).unwrap();
    crate::log::commit(&*a, &owner, unit(1, &["a 1"], &[], 2));
    let group: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.address())
        .set("group.id", format!("{}process", options.kafka.topic_prefix))
        .create()
        .unwrap();
    let mut asked = TopicPartitionList::new();
    asked.add_partition(&format!("{}raw", options.kafka.topic_prefix), 1);
    let committed = group.committed_offsets(asked, patience).unwrap();
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(2), "the group knows what is processed");

    let (second, other) = b.join(Work::Process, patience).unwrap();
    let (mut moved, mut given) = (Vec::new(), Vec::new());
    wait_for("partitions to move", patience, || {
        match events.recv_timeout(Duration::from_millis(100)) {
            Ok(MembershipEvent::Revoked(partitions, ack)) => {
                assert!(other.try_recv().is_err(), "given away before it was acknowledged");
                // Until then the right to commit is as it was.
                if partitions.contains(&1) {
                    crate::log::commit(&*a, &owner, unit(2, &["a 2"], &[], 2));
                }
                assert!(partitions.iter().all(|p| first.has(*p)));
                moved.extend(partitions);
                ack.done();
            }
            Ok(event) => panic!("{event:?}"),
            Err(_) => {}
        }
        if let Ok(MembershipEvent::Assigned(partitions)) = other.try_recv() {
            given.extend(partitions);
        }
        (!given.is_empty()).then_some(())
    });
    assert_eq!(moved, given);
    assert!(given.iter().all(|p| second.has(*p) && !first.has(*p)));
    assert_eq!((0..3).filter(|p| first.has(*p)).count() + given.len(), 3);
    // Who has lost a partition to the group doesn't take it back by a commit.
    let lost = given[0];
    let theirs = b.fence(lost).unwrap();
    assert!(matches!(a.commit(&owner, vec![unit(9, &["x"], &[], 2)]), Err(LogError::Fenced { .. })) || lost != 1);
    let next = if lost == 1 { take(&b, 1).unwrap() } else { (theirs, 1) };
    crate::log::commit(&*b, &next.0, unit(next.1, &[&format!("b {}", next.1)], &[], if lost == 1 { 2 } else { 0 }));
    b.leave();
    drop((second, other));
    let MembershipEvent::Assigned(back) = events.recv_timeout(patience).unwrap() else { panic!("not given back") };
    assert_eq!(back, given);
    assert!((0..3).all(|p| first.has(p)));
    assert!(epochs(&a, lost) >= 1);
}
