//! How partitions come to this process: all of the embedded log at once, of a log on Kafka what the consumer groups give
//! and take away. Each kind of work has a group of its own.

use super::OpenLog;
use super::kafka::{KafkaLog, Membership, MembershipEvent};
use crate::scan::ScanError;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tidegate_schemas::ids::Partition;
use tidegate_schemas::limits;
use tidegate_schemas::log::LogError;

/// How soon a stop is noticed, and a partition that cannot be prepared is tried again.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const REVOKE: Duration = Duration::from_millis(limits::KAFKA_REVOKE_MILLISECONDS_MAX as u64);

/// What partitions are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Processing.
    Process,
    /// Delivery to the sink of this name.
    Sink(&'static str),
}

/// Who works on the partitions of this process.
pub trait Takes: Send + 'static {
    /// What must be right before work begins; it is tried again until it succeeds.
    fn prepare(&self, partitions: &[Partition]) -> Result<(), ScanError>;

    /// These are ours from now on.
    fn add(&self, partitions: &[Partition]);

    /// These are not ours any more; returns once nothing of them is under way, or when the time is over: then false.
    fn remove(&self, partitions: &[Partition], within: Duration) -> bool;
}

/// Keeps this process a member of a group, until it is dropped: by then nothing may be under way.
pub struct Assigner {
    member: Option<Member>,
}

struct Member {
    log: Arc<KafkaLog>,
    work: Work,
    membership: Arc<Membership>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl OpenLog {
    /// Has partitions assigned for a kind of work. Blocks while the first ones are prepared.
    pub fn assign(&self, work: Work, takes: impl Takes) -> anyhow::Result<Assigner> {
        let Some(log) = &self.shared else {
            let all: Vec<Partition> = (0..self.log.partitions()).collect();
            takes.prepare(&all)?;
            takes.add(&all);
            return Ok(Assigner { member: None });
        };
        let (membership, events) = log.join(work, REVOKE)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (log, stopped) = (Arc::clone(log), Arc::clone(&stop));
        let released = (work == Work::Process).then(|| Arc::clone(&log));
        let follow = move || follow(&events, &takes, released.as_deref(), &stopped);
        let thread = std::thread::Builder::new().name("assign".into()).spawn(follow)?;
        Ok(Assigner { member: Some(Member { log, work, membership, stop, thread: Some(thread) }) })
    }
}

fn follow(events: &Receiver<MembershipEvent>, takes: &impl Takes, log: Option<&KafkaLog>, stop: &AtomicBool) {
    // What could not be prepared yet.
    let mut waiting: Vec<Partition> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match events.recv_timeout(LOOK_EVERY) {
            Ok(MembershipEvent::Assigned(partitions)) => waiting.extend(partitions),
            Ok(MembershipEvent::Revoked(partitions, ack)) => {
                waiting.retain(|p| !partitions.contains(p));
                if !takes.remove(&partitions, REVOKE / 2) {
                    tracing::warn!(?partitions, "partitions are given away with work under way, which is abandoned");
                }
                log.inspect(|log| log.release(&partitions));
                ack.done();
            }
            Ok(MembershipEvent::Lost(partitions)) => {
                waiting.retain(|p| !partitions.contains(p));
                // Somebody else may have them: what is under way is fenced.
                log.inspect(|log| log.release(&partitions));
                takes.remove(&partitions, Duration::ZERO);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if waiting.is_empty() {
            continue;
        }
        match takes.prepare(&waiting) {
            Ok(()) => takes.add(&std::mem::take(&mut waiting)),
            Err(ScanError::Log(LogError::Closed)) => return,
            Err(error) => {
                let error = tidegate_schemas::causes::chain(&error);
                tracing::warn!(partitions = ?waiting, error, "partitions cannot be begun yet");
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }
}

impl Drop for Assigner {
    fn drop(&mut self) {
        let Some(mut member) = self.member.take() else { return };
        member.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = member.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a thread that assigns partitions panicked");
        }
        if member.work == Work::Process {
            member.log.leave();
        }
        drop(member.membership);
    }
}
