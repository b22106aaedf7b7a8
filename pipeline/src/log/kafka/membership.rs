//! Which partitions are this process's: a consumer group over a topic, whose members read nothing by it. Records are read by
//! place; the group gives partitions to processes, and its metadata goes into each commit, so that a member that was left
//! behind by a rebalance cannot commit.
//!
//! ```text
//! poll thread ─▶ Assigned            the caller fences and recovers, at its leisure
//!             ─▶ Revoked, and waits  the caller ends or abandons open epochs, then acknowledges
//!             ─▶ Lost                somebody else may have them already: drop everything
//! ```

use super::client::Context;
use super::clients::Clients;
use super::errors::{self, io};
use crossbeam_channel::{Receiver, Sender, bounded};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tidegate_schemas::ids::Partition;
use tidegate_schemas::limits;
use tidegate_schemas::log::LogError;

const POLL: Duration = Duration::from_millis(500);
const TELL_EVERY: Duration = Duration::from_secs(30);

/// A change of the assignment.
#[derive(Debug)]
pub enum MembershipEvent {
    /// These are ours from now on, besides those that we have.
    Assigned(Vec<Partition>),
    /// These go to others once it is acknowledged, or the time for it is over.
    Revoked(Vec<Partition>, Ack),
    /// These may be others' already: the session ended without us.
    Lost(Vec<Partition>),
}

/// Lets revoked partitions go: by [`Ack::done`], or by being dropped.
#[derive(Debug)]
pub struct Ack(Sender<()>);

impl Ack {
    /// Nothing of these partitions is under way any more.
    pub fn done(self) {
        drop(self.0);
    }
}

/// A member of the group, until it is dropped. Nothing may be under way then.
pub struct Membership {
    consumer: Arc<BaseConsumer<MemberContext>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    assigned: Mutex<BTreeSet<Partition>>,
    stop: AtomicBool,
}

/// Takes the group's word on partitions.
pub struct MemberContext {
    context: Context,
    shared: Arc<Shared>,
    events: Sender<MembershipEvent>,
    revoke: Duration,
}

impl Membership {
    /// Joins the group. Events must be taken: past [`limits::KAFKA_MEMBERSHIP_EVENTS_MAX`] the group waits for us.
    pub(super) fn join(
        clients: &Clients,
        group: &str,
        topic: &str,
        revoke: Duration,
    ) -> Result<(Self, Receiver<MembershipEvent>), LogError> {
        let (events, told) = bounded(limits::KAFKA_MEMBERSHIP_EVENTS_MAX);
        let shared = Arc::new(Shared { assigned: Mutex::default(), stop: AtomicBool::new(false) });
        let context = |context| MemberContext { context, shared: Arc::clone(&shared), events, revoke };
        let consumer = Arc::new(clients.member(group, context)?);
        consumer.subscribe(&[topic]).map_err(|e| io(format!("join the group over topic {topic}"), e))?;
        let (polled, stop) = (Arc::clone(&consumer), Arc::clone(&shared));
        let poll = move || {
            let mut told: Option<Instant> = None;
            while !stop.stop.load(Ordering::Relaxed) {
                // It comes with every poll while brokers are away.
                if let Some(Err(error)) = polled.poll(POLL)
                    && told.is_none_or(|at| at.elapsed() > TELL_EVERY)
                {
                    tracing::warn!(%error, "the group is disturbed");
                    told = Some(Instant::now());
                }
            }
        };
        let thread = std::thread::Builder::new().name("kafka-member".into()).spawn(poll);
        let thread = thread.map_err(|e| io("start the thread of the group's member", e))?;
        Ok((Self { consumer, shared, thread: Some(thread) }, told))
    }

    /// Whether the partition is ours, as far as this process knows.
    pub fn has(&self, partition: Partition) -> bool {
        self.shared.assigned.lock().unwrap_or_else(PoisonError::into_inner).contains(&partition)
    }

    /// What proves to the broker that offsets come from a member of this generation of the group.
    pub fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        self.consumer.group_metadata()
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the group's member panicked");
        }
        // The consumer leaves the group when it is dropped, after this.
    }
}

impl MemberContext {
    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> Result<(), KafkaError> {
        // Where to read is never asked of the group, so it need not be fetched; and nothing is read.
        list.set_all_offsets(Offset::End)?;
        consumer.incremental_assign(list)?;
        consumer.pause(list)
    }

    fn tell(&self, event: MembershipEvent) {
        // Who joined may have gone; the group is left in order all the same.
        if self.events.send_timeout(event, self.revoke).is_err() {
            tracing::warn!("nobody took note of a change of the assignment");
        }
    }
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ConsumerContext for MemberContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<Partition> = list.elements().iter().map(|e| e.partition().unsigned_abs()).collect();
        let assigned = || self.shared.assigned.lock().unwrap_or_else(PoisonError::into_inner);
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            if let Err(error) = self.assign(consumer, list) {
                tracing::error!(%error, ?partitions, "the group's assignment cannot be taken");
            }
            assigned().extend(&partitions);
            tracing::info!(?partitions, "partitions assigned");
            if !partitions.is_empty() {
                self.tell(MembershipEvent::Assigned(partitions));
            }
            return;
        }
        let lost = consumer.assignment_lost();
        if lost {
            // Before anybody hears of it: a commit under way must not take a fence for something that heals.
            assigned().retain(|p| !partitions.contains(p));
        }
        tracing::info!(?partitions, lost, "partitions revoked");
        if self.shared.stop.load(Ordering::Relaxed) {
            // Whoever leaves has ended before what was under way, and hears nothing any more.
            assigned().clear();
        } else if lost && !partitions.is_empty() {
            self.tell(MembershipEvent::Lost(partitions.clone()));
        } else if !partitions.is_empty() {
            let (ack, acknowledged) = bounded::<()>(0);
            self.tell(MembershipEvent::Revoked(partitions.clone(), Ack(ack)));
            // It disconnects when it is acknowledged.
            if acknowledged.recv_timeout(self.revoke) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                tracing::warn!(?partitions, "partitions move before their epochs ended");
            }
            assigned().retain(|p| !partitions.contains(p));
        }
        if let Err(error) = consumer.incremental_unassign(list)
            && errors::code(&error).is_some()
        {
            tracing::error!(%error, ?partitions, "partitions cannot be let go");
        }
    }
}
