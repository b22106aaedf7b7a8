//! Brings closed cuts to the sink: those of one target in order, several targets at once.

use super::park::Kept;
use super::{Park, RETRY_FIRST, Shared, blocking, metrics, retry_after};
use hashbrown::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;
use tidegate_schemas::fault;
use tidegate_schemas::ids::{Epoch, Partition};
use tidegate_schemas::limits::SINK_TARGETS_MAX;
use tidegate_schemas::sink::{Cut, SinkError, Target};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Why a partition is not followed any longer.
pub(super) enum Ended {
    /// It was asked to.
    Stopped,
    /// It cannot go on.
    Failed(SinkError),
}

/// The deliveries of one partition.
pub(super) struct Deliveries {
    shared: Arc<Shared>,
    park: Arc<Park>,
    partition: Partition,
    /// What the sink held of a target when its first cut closed.
    held: HashMap<Target, Option<Epoch>>,
    parked: HashSet<Target>,
}

/// What became of the cuts of one target.
struct Outcome {
    target: Target,
    held: Option<Epoch>,
    parked: bool,
}

impl Deliveries {
    pub(super) fn new(shared: Arc<Shared>, park: Arc<Park>, partition: Partition, parked: HashSet<Target>) -> Self {
        Self { shared, park, partition, held: HashMap::new(), parked }
    }

    /// Returns once all of them are durable, or kept apart.
    pub(super) async fn deliver(&mut self, cuts: Vec<Cut>, stop: &CancellationToken) -> Result<(), Ended> {
        if self.held.len() > SINK_TARGETS_MAX {
            self.held.clear();
        }
        let mut groups: Vec<(Target, Vec<Cut>)> = Vec::new();
        let mut places: HashMap<Target, usize> = HashMap::new();
        for cut in cuts {
            fault::point("cut.closed");
            let place = *places.entry(cut.target.clone()).or_insert_with(|| {
                groups.push((cut.target.clone(), Vec::new()));
                groups.len() - 1
            });
            groups[place].1.push(cut);
        }
        let mut tasks = JoinSet::new();
        for (target, cuts) in groups {
            let one = OneTarget {
                shared: Arc::clone(&self.shared),
                park: Arc::clone(&self.park),
                stop: stop.clone(),
                known: self.held.get(&target).copied(),
                parked: self.parked.contains(&target),
                target,
                partition: self.partition,
            };
            // As many tasks as cuts were open; how many deliver at once is bounded below.
            tasks.spawn(one.run(cuts));
        }
        while let Some(done) = tasks.join_next().await {
            self.note(done)?;
        }
        Ok(())
    }

    fn note(&mut self, done: Result<Result<Outcome, Ended>, tokio::task::JoinError>) -> Result<(), Ended> {
        let outcome = done.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
        if outcome.parked {
            self.parked.insert(outcome.target.clone());
        }
        self.held.insert(outcome.target, outcome.held);
        Ok(())
    }
}

/// The cuts of one target that closed together.
struct OneTarget {
    shared: Arc<Shared>,
    park: Arc<Park>,
    stop: CancellationToken,
    target: Target,
    partition: Partition,
    known: Option<Option<Epoch>>,
    parked: bool,
}

impl OneTarget {
    async fn run(mut self, cuts: Vec<Cut>) -> Result<Outcome, Ended> {
        let mut parked = self.parked;
        for cut in cuts {
            if parked {
                self.keep(&cut, "its table is parked").await?;
                continue;
            }
            if let Err(reason) = self.one(&cut).await? {
                tracing::error!(sink = self.shared.sink.name(), cut = %cut.name(), reason, "table parked");
                self.keep(&cut, &reason).await?;
                parked = true;
            }
        }
        Ok(Outcome { target: self.target, held: self.known.flatten(), parked })
    }

    /// Delivers one cut, or skips it where the sink holds it; the inner error is the reason to park.
    async fn one(&mut self, cut: &Cut) -> Result<Result<(), String>, Ended> {
        let held = match self.known {
            Some(held) => held,
            None => match self.ask().await? {
                Ok(held) => held,
                Err(reason) => return Ok(Err(reason)),
            },
        };
        self.known = Some(held);
        match held {
            Some(held) if cut.last <= held => return Ok(Ok(())),
            Some(held) if cut.first <= held => {
                return Ok(Err(format!(
                    "{} holds epochs up to {held} of partition {}, inside the cut {}: it was filled with other cuts; \
                     compare its epochs with the log before resuming",
                    self.shared.sink.location(&self.target),
                    self.partition,
                    cut.name()
                )));
            }
            _ => {}
        }
        let sink = self.shared.sink.name();
        let mut pause = RETRY_FIRST;
        loop {
            let (result, took) = self
                .attempt(async {
                    let began = Instant::now();
                    (self.shared.sink.deliver(cut.clone()).await, began.elapsed())
                })
                .await?;
            match result {
                Ok(()) => {
                    metrics::delivered(sink, cut, took);
                    self.shared.progress.failing(None);
                    return Ok(Ok(()));
                }
                Err(SinkError::Permanent { doing, detail }) => return Ok(Err(format!("{doing}: {detail}"))),
                Err(SinkError::Retryable { doing, detail }) => {
                    retry_after(&self.shared, &self.stop, &mut pause, &doing, &detail).await?;
                }
            }
        }
    }

    async fn ask(&self) -> Result<Result<Option<Epoch>, String>, Ended> {
        let mut pause = RETRY_FIRST;
        loop {
            match self.attempt(self.shared.sink.held(self.shared.log.log_id(), self.partition, &self.target)).await? {
                Ok(held) => return Ok(Ok(held)),
                Err(SinkError::Permanent { doing, detail }) => return Ok(Err(format!("{doing}: {detail}"))),
                Err(SinkError::Retryable { doing, detail }) => {
                    retry_after(&self.shared, &self.stop, &mut pause, &doing, &detail).await?;
                }
            }
        }
    }

    /// One call of the sink. Pauses between attempts take no permit, so that one failing table does not hold up others.
    async fn attempt<T>(&self, call: impl Future<Output = T>) -> Result<T, Ended> {
        let work = async {
            let _permit = self.shared.deliveries.acquire().await;
            call.await
        };
        tokio::select! {
            result = work => Ok(result),
            () = self.stop.cancelled() => Err(Ended::Stopped),
        }
    }

    /// Keeps a cut apart; only then may the cursor pass it.
    async fn keep(&self, cut: &Cut, reason: &str) -> Result<(), Ended> {
        let mut pause = RETRY_FIRST;
        loop {
            let (park, copy, why) = (Arc::clone(&self.park), cut.clone(), reason.to_owned());
            match blocking(move || park.keep(&copy, &why)).await {
                Ok((parked, kept)) => {
                    if kept == Kept::Gap {
                        tracing::error!(cut = %cut.name(), rows = cut.rows_count, "parked blocks are over their budget: gap recorded");
                    }
                    metrics::parked(self.shared.sink.name(), kept, self.park.bytes(), cut.rows_count);
                    self.shared.progress.park(parked);
                    metrics::tables_parked(self.shared.sink.name(), self.shared.progress.parked().len());
                    return Ok(());
                }
                Err(error) => {
                    retry_after(&self.shared, &self.stop, &mut pause, "keeping a parked cut", &error.to_string()).await?;
                }
            }
        }
    }
}
