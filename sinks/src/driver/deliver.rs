//! Brings closed cuts to the sink: those of one target in order, several targets at once.

use super::park::{Kept, Wish};
use super::{Park, RETRY_FIRST, Shared, blocking, metrics, retry_after};
use hashbrown::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;
use tidegate_schemas::ids::{Epoch, Partition};
use tidegate_schemas::limits::SINK_TARGETS_MAX;
use tidegate_schemas::sink::{Cut, Sink, SinkError, Target};
use tidegate_schemas::{BoxFuture, fault};
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
    /// What the sink holds of a target, once it was asked.
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
            let one = self.of(target, stop);
            // As many tasks as cuts were open; how many deliver at once is bounded below.
            tasks.spawn(one.run(cuts));
        }
        while let Some(done) = tasks.join_next().await {
            self.note(done)?;
        }
        Ok(())
    }

    /// Does what somebody asks of parked tables; returns those that are parked no longer.
    pub(super) async fn heed(&mut self, stop: &CancellationToken) -> Result<Vec<Target>, Ended> {
        let mut free = Vec::new();
        for target in self.parked.iter().cloned().collect::<Vec<_>>() {
            let (park, partition, of) = (Arc::clone(&self.park), self.partition, target.clone());
            let Some(wish) = blocking(move || park.wished(partition, &of)).await else { continue };
            let mut one = self.of(target.clone(), stop);
            let done = one.heed(wish).await?;
            self.held.remove(&target);
            let (sink, table, reason) = (self.shared.sink.name(), &target.table, done.err());
            match &reason {
                None => tracing::info!(sink, partition, table, ?wish, "parked table is free"),
                Some(reason) => tracing::error!(sink, partition, table, ?wish, reason, "table stays parked"),
            }
            metrics::parked_bytes(sink, self.park.bytes());
            let (park, of) = (Arc::clone(&self.park), target.clone());
            match blocking(move || park.done(partition, &of, reason.as_deref())).await {
                Err(error) => tracing::error!(table, %error, "what was asked of a parked table cannot be noted as done"),
                Ok(Some(parked)) => self.shared.progress.park(parked),
                Ok(None) => {
                    self.parked.remove(&target);
                    free.push(target);
                }
            }
        }
        Ok(free)
    }

    fn of(&self, target: Target, stop: &CancellationToken) -> OneTarget {
        OneTarget {
            shared: Arc::clone(&self.shared),
            park: Arc::clone(&self.park),
            stop: stop.clone(),
            known: self.held.get(&target).copied(),
            parked: self.parked.contains(&target),
            target,
            partition: self.partition,
        }
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

    /// Delivers the cuts that wait, or gives them up; the inner error is why the table stays parked.
    async fn heed(&mut self, wish: Wish) -> Result<Result<(), String>, Ended> {
        let (partition, log) = (self.partition, self.shared.log.log_id());
        let (park, target) = (Arc::clone(&self.park), self.target.clone());
        let waiting = match blocking(move || park.waiting(partition, &target)).await {
            Ok(waiting) => waiting,
            Err(error) => return Ok(Err(error.to_string())),
        };
        for waiting in waiting {
            let (park, target) = (Arc::clone(&self.park), self.target.clone());
            let loaded = blocking(move || park.load(log, partition, &target, &waiting).map(|cut| (cut, waiting))).await;
            let (cut, waiting) = match loaded {
                Ok(loaded) => loaded,
                Err(error) => return Ok(Err(error.to_string())),
            };
            if wish == Wish::Resume
                && let Err(reason) = self.one(&cut).await?
            {
                return Ok(Err(reason));
            }
            let (park, rows) = (Arc::clone(&self.park), cut.rows_count);
            let gone = blocking(move || if wish == Wish::Resume { park.forget(&waiting) } else { park.give_up(&waiting, rows) }).await;
            if let Err(error) = gone {
                return Ok(Err(error.to_string()));
            }
        }
        Ok(Ok(()))
    }

    /// Delivers one cut, or skips it where the sink holds it; the inner error is the reason to park.
    async fn one(&mut self, cut: &Cut) -> Result<Result<(), String>, Ended> {
        let sink = self.shared.sink.name();
        let mut pause = RETRY_FIRST;
        loop {
            match self.is_due(cut).await? {
                Ok(true) => {}
                Ok(false) => break,
                Err(reason) => return Ok(Err(reason)),
            }
            let timed = async {
                let began = Instant::now();
                self.shared.sink.deliver(cut.clone()).await.map(|()| began.elapsed())
            };
            match self.attempt(timed).await? {
                Ok(took) => {
                    metrics::delivered(sink, cut, took);
                    break;
                }
                Err(SinkError::Permanent { doing, detail }) => return Ok(Err(format!("{doing}: {detail}"))),
                Err(SinkError::Retryable { doing, detail }) => {
                    // Nobody knows what became of it, and a long pause may lie behind the next attempt: asked again.
                    self.known = None;
                    retry_after(&self.shared, &self.stop, &mut pause, &doing, &detail).await?;
                }
            }
        }
        self.known = Some(self.known.flatten().max(Some(cut.last)));
        self.shared.progress.failing(None);
        Ok(Ok(()))
    }

    /// Whether the sink still lacks the cut, or wants its last one once more; the inner error is the reason to park.
    async fn is_due(&mut self, cut: &Cut) -> Result<Result<bool, String>, Ended> {
        let held = match self.known {
            Some(held) => held,
            None => match self.until_answered(|sink| sink.held(self.shared.log.log_id(), self.partition, &self.target)).await? {
                Ok(held) => held,
                Err(reason) => return Ok(Err(reason)),
            },
        };
        self.known = Some(held);
        Ok(match held {
            Some(held) if cut.last == held => return self.until_answered(|sink| sink.repeats(cut)).await,
            Some(held) if cut.last < held => Ok(false),
            Some(held) if cut.first <= held => Err(format!(
                "{} holds epochs up to {held} of partition {}, inside the cut {}: it was filled with other cuts; \
                 compare its epochs with the log before resuming",
                self.shared.sink.location(&self.target),
                self.partition,
                cut.name()
            )),
            _ => Ok(true),
        })
    }

    /// A question to the sink, until it answers.
    async fn until_answered<'a, T>(
        &'a self,
        question: impl Fn(&'a dyn Sink) -> BoxFuture<'a, Result<T, SinkError>>,
    ) -> Result<Result<T, String>, Ended> {
        let mut pause = RETRY_FIRST;
        loop {
            match self.attempt(question(&*self.shared.sink)).await? {
                Ok(answer) => return Ok(Ok(answer)),
                Err(SinkError::Permanent { doing, detail }) => return Ok(Err(format!("{doing}: {detail}"))),
                Err(SinkError::Retryable { doing, detail }) => {
                    retry_after(&self.shared, &self.stop, &mut pause, &doing, &detail).await?;
                }
            }
        }
    }

    /// One call of the sink. Pauses between attempts take no permit, so that one failing table does not hold up others.
    async fn attempt<T>(&self, call: impl Future<Output = Result<T, SinkError>>) -> Result<Result<T, SinkError>, Ended> {
        let work = async {
            let _turn = self.shared.breaker.pass().await;
            let _permit = self.shared.deliveries.acquire().await;
            let result = self.answer(call).await;
            self.shared.breaker.ended(!matches!(result, Err(SinkError::Retryable { .. })));
            result
        };
        tokio::select! {
            result = work => Ok(result),
            () = self.stop.cancelled() => Err(Ended::Stopped),
        }
    }

    /// Waits for a call, and says so while it takes long: a sink that hangs would look like an idle one until its time-out.
    async fn answer<T>(&self, call: impl Future<Output = T>) -> T {
        let (began, mut call) = (Instant::now(), pin!(call));
        loop {
            match tokio::time::timeout(self.shared.options.slow, &mut call).await {
                Ok(answer) => return answer,
                Err(_) => {
                    let (place, seconds) = (self.shared.sink.location(&self.target), began.elapsed().as_secs_f64());
                    self.shared.progress.failing(Some(format!("{place}: no answer for {seconds:.0} s")));
                }
            }
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
