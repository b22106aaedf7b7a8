//! Ends of transactions that a broker wrote in part: it gives no marker to a partition that has no leader at that moment.

use super::refused::{admin, patience};
use super::{broker, options};
use crate::log::{commit, only_texts, publish, unit, wait};
use crate::support::wait_for;
use rdkafka::ClientConfig;
use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::sync::Arc;
use std::time::Duration;
use tidegate_pipeline::log::kafka::{KafkaLog, Options};
use tidegate_schemas::log::{EventLog, LogName};

const TOPICS: [&str; 6] = ["raw", "clean", "audit", "commits", "control", "meta"];
/// Where the partitions of a topic are.
const FIRST: [&[i32]; 3] = [&[1]; 3];
const SECOND: [&[i32]; 3] = [&[2]; 3];
const PATIENCE: Duration = Duration::from_secs(30);

/// An owner of partition 0 that committed epoch 1, wrote epoch 2 and has not ended it. One topic is on the second broker.
struct Case {
    options: Options,
    away: String,
    commits: bool,
    log: Arc<KafkaLog>,
    owner: BaseProducer,
}

impl Case {
    fn begin(options: Options, away: &str, commits: bool) -> Self {
        let (address, prefix) = (options.kafka.brokers[0].clone(), options.kafka.topic_prefix.clone());
        let name = |topic: &str| format!("{prefix}{topic}");
        let names = TOPICS.map(name);
        let topics: Vec<_> = TOPICS
            .iter()
            .zip(&names)
            .map(|(topic, name)| {
                let places = if *topic == away { &SECOND } else { &FIRST };
                let partitions = if matches!(*topic, "control" | "meta") { 1 } else { options.partitions as usize };
                let cleanup = if *topic == "meta" { "compact" } else { "delete" };
                NewTopic::new(name, partitions as i32, TopicReplication::Variable(&places[..partitions]))
                    .set("cleanup.policy", cleanup)
                    .set("retention.ms", "-1")
                    .set("max.message.bytes", "1100000")
            })
            .collect();
        for result in wait(admin(&address).create_topics(&topics, &patience())).unwrap() {
            result.unwrap();
        }
        let log = super::open(&options);
        publish(&*log, LogName::Raw, 0, &["x", "y", "z"]);
        let first = log.fence(0).unwrap();
        commit(&*log, &first, unit(1, &["c1"], &["a1"], 1));

        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &address).set("isolation.level", "read_uncommitted").set("group.id", "none");
        config.set("transactional.id", format!("{prefix}{}-0", log.log_id()));
        let owner: BaseProducer = config.create().unwrap();
        config.remove("transactional.id");
        let asker: BaseConsumer = config.create().unwrap();
        owner.init_transactions(PATIENCE).unwrap();
        owner.begin_transaction().unwrap();
        let [clean_next, audit_next] = [("clean", "c2"), ("audit", "a2")].map(|(topic, text)| {
            let topic = name(topic);
            owner.send(BaseRecord::<str, str>::to(&topic).partition(0).payload(text)).map_err(|(e, _)| e).unwrap();
            owner.flush(PATIENCE).unwrap();
            asker.fetch_watermarks(&topic, 0, PATIENCE).unwrap().1.to_string()
        });
        let headers = [("tg-raw-next", "2"), ("tg-clean-next", &clean_next), ("tg-audit-next", &audit_next)];
        let headers = headers.into_iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
        let topic = name("commits");
        let record = BaseRecord::<str, str>::to(&topic).partition(0).payload("epoch 2: …").headers(headers);
        owner.send(record).map_err(|(e, _)| e).unwrap();
        owner.flush(PATIENCE).unwrap();
        Self { away: name(away), options, commits, log, owner }
    }

    fn end(&self) {
        if self.commits { self.owner.commit_transaction(PATIENCE) } else { self.owner.abort_transaction(PATIENCE) }.unwrap();
    }

    /// Whoever comes next finds epoch 2 there or not, in all topics alike, and goes on from there.
    fn check(&self) {
        let kept = if self.commits { 2 } else { 1 };
        let owner = self.log.fence(0).unwrap();
        let check = |log: &KafkaLog, count: usize| {
            let numbered = |letter: &str| (1..=count).map(|i| format!("{letter}{i}")).collect::<Vec<_>>();
            let (away, commits) = (&self.away, self.commits);
            assert_eq!(only_texts(log, LogName::Clean, 0), numbered("c"), "{away} {commits}");
            assert_eq!(only_texts(log, LogName::Audit, 0), numbered("a"), "{away} {commits}");
            let found = only_texts(log, LogName::Commits, 0);
            let found: Vec<_> = found.iter().map(|text| text.split(':').next().unwrap()).collect();
            assert_eq!(found, (1..=count).map(|i| format!("epoch {i}")).collect::<Vec<_>>(), "{away} {commits}");
        };
        check(&self.log, kept);
        for count in kept + 1..=4 {
            let (clean, audit) = (format!("c{count}"), format!("a{count}"));
            commit(&*self.log, &owner, unit(count as u64, &[&clean], &[&audit], 3));
            check(&self.log, count);
        }
        check(&super::open(&self.options), 4);
    }
}

#[test]
fn what_ended_in_part_counts_as_a_whole_or_not_at_all() {
    let Some(first) = broker::own() else { return };
    // Nobody else is there yet, so the first keeps the transactions.
    super::open(&options(&first)).fence(0).unwrap();
    let mut second = first.second();
    let cases: Vec<Case> = ["clean", "audit", "commits"]
        .into_iter()
        .flat_map(|away| [true, false].map(|commits| Case::begin(options(&first), away, commits)))
        .collect();
    second.kill();
    let asker: BaseConsumer = ClientConfig::new().set("bootstrap.servers", first.address()).create().unwrap();
    wait_for("partitions without a leader", PATIENCE, || {
        let metadata = asker.fetch_metadata(None, Duration::from_secs(5)).ok()?;
        let lead = |topic: &str| metadata.topics().iter().find(|t| t.name() == topic).is_some_and(|t| t.partitions()[0].leader() < 0);
        cases.iter().all(|c| lead(&c.away)).then_some(())
    });
    cases.iter().for_each(Case::end);
    second.resume();
    cases.iter().for_each(Case::check);
}
