//! Brings functions to a runtime as their records say: compiles, probes, swaps, and keeps ready what is to be warm.
//!
//! What serves goes on until what follows it is ready, and when that fails. A function that failed is tried again after a pause that
//! doubles each time. One caller at a time installs.

use std::{collections::HashMap, sync::Arc, time::Duration};

use edgeward_cluster::rollout::Sample;
use edgeward_model::{EdgeError, EdgeFunction, FunctionId, Probe};
use edgeward_runtime::{Deployed, EdgeRuntime, Filter, Mark, Span};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    desired::record::FunctionRecord,
    leases::{LeaseAnswer, LeaseQuestion, NodeLeases},
    node::{FunctionState, Source},
    trust::{self, Trust},
};

/// First pause before a function that failed is tried again: shorter than the pause between two runs of a reconciler, so that the
/// next run tries.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(20);
/// Longest pause; each is twice the one before.
const RETRY_PAUSE_MAX: Duration = Duration::from_mins(10);

/// Shortest time between two tellings of how a revision does.
const TELL_PAUSE_MIN: Duration = Duration::from_secs(1);

/// The runtime, and what was brought to it.
#[derive(Debug)]
pub(crate) struct Installer {
    runtime: Arc<EdgeRuntime>,
    /// What may run. Nothing is instantiated that it refuses.
    trust: Arc<Trust>,
    installed: Mutex<HashMap<FunctionId, Installed>>,
    /// The right to run what one node at a time may run.
    leases: NodeLeases,
}

/// What became of a record.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) source: Source,
    pub(crate) generation: u64,
    /// Why it does not serve as the record says.
    pub(crate) failure: Option<String>,
    /// How what is to be warm is; none when nothing is.
    pub(crate) warm: Option<FunctionState>,
    /// Why it is not.
    pub(crate) warm_failure: Option<String>,
}

/// How a revision that serves does, beside the one before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doing {
    /// For how long it had served when this was told.
    pub(crate) time: Duration,
    pub(crate) sample: Sample,
    /// What served before it.
    pub(crate) before: Sample,
}

#[derive(Clone, Debug)]
struct Installed {
    source: Source,
    generation: u64,
    failure: Option<Failure>,
    /// The revision that serves, where a deployment says.
    revision: Option<u64>,
    /// When that began, and what had been counted then.
    began_at: Instant,
    since: Mark,
    before: Span,
    /// What was last told of its invocations, and after how long.
    told: Option<(Duration, Sample)>,
    warm: Option<Arc<Deployed>>,
    warm_failure: Option<Failure>,
}

#[derive(Clone, Debug)]
struct Failure {
    message: String,
    pause: Duration,
    retry_at: Instant,
}

impl Failure {
    fn new(message: String, before: Option<&Self>, now: Instant) -> Self {
        let pause = before.map_or(RETRY_PAUSE_MIN, |before| (before.pause * 2).min(RETRY_PAUSE_MAX));
        Self { message, pause, retry_at: now + pause }
    }
}

impl Installed {
    fn new(source: Source) -> Self {
        Self {
            source,
            generation: 0,
            failure: None,
            revision: None,
            began_at: Instant::now(),
            since: Mark::default(),
            before: Span::default(),
            told: None,
            warm: None,
            warm_failure: None,
        }
    }

    /// Whether nothing is to be tried for this record now.
    fn is_settled(&self, generation: u64, now: Instant) -> bool {
        let failures = [&self.failure, &self.warm_failure];
        self.generation == generation && failures.into_iter().flatten().all(|failure| now < failure.retry_at)
    }
}

impl Installer {
    pub(crate) fn new(runtime: Arc<EdgeRuntime>, trust: Arc<Trust>) -> Self {
        Self { runtime, trust, installed: Mutex::default(), leases: NodeLeases::default() }
    }

    pub(crate) fn runtime(&self) -> &Arc<EdgeRuntime> {
        &self.runtime
    }

    /// What to ask the hub about functions that one node at a time may run; none when there is nothing to ask.
    pub(crate) fn lease_question(&self) -> Option<LeaseQuestion> {
        self.leases.question(&self.runtime)
    }

    /// Takes what the hub answered to a question of this moment. Says whether something is another than before.
    pub(crate) fn take_leases(&self, asked_at: Duration, question: &LeaseQuestion, answer: &LeaseAnswer) -> bool {
        self.leases.take(&self.runtime, asked_at, question, answer)
    }

    /// The leases.
    pub(crate) fn leases(&self) -> &NodeLeases {
        &self.leases
    }

    /// Stops serving every function that is not kept.
    pub(crate) fn retain(&self, keep: impl Fn(&FunctionId) -> bool) {
        for function in self.runtime.list_functions() {
            if !keep(&function.id) {
                self.runtime.undeploy(function.id.as_str());
            }
        }
        self.installed.lock().retain(|id, _| keep(id));
    }

    /// Lets what failed be tried at once.
    pub(crate) fn forget_failure(&self, id: &FunctionId) -> bool {
        let mut installed = self.installed.lock();
        let Some(known) = installed.get_mut(id).filter(|known| known.failure.is_some() || known.warm_failure.is_some()) else {
            return false;
        };
        // No record has this generation.
        known.generation = 0;
        (known.failure, known.warm_failure) = (None, None);
        true
    }

    /// Lets everything that failed be tried at once.
    pub(crate) fn forget_failures(&self) {
        let ids: Vec<_> = self.installed.lock().keys().cloned().collect();
        for id in &ids {
            self.forget_failure(id);
        }
    }

    /// Stops what runs, or is ready to, and is trusted no more.
    pub(crate) fn stop_untrusted(&self, now: Instant) {
        for function in self.runtime.list_functions() {
            let Err(why) = self.trust.check(&function) else { continue };
            self.runtime.undeploy(function.id.as_str());
            trust::tell_refused(&function, None, &why);
            if let Some(known) = self.installed.lock().get_mut(&function.id) {
                known.failure.get_or_insert_with(|| Failure::new(why.chain(), None, now));
                known.revision = None;
            }
        }
        for known in self.installed.lock().values_mut() {
            known.warm.take_if(|warm| self.trust.check(warm.function()).is_err());
        }
    }

    /// Makes this record true, when it is not. Where it cannot be and nothing serves, as after a start, what `last_good` says serves.
    pub(crate) async fn install(&self, record: &FunctionRecord, source: Source, last_good: Option<&FunctionRecord>, now: Instant) {
        let FunctionRecord { generation, function, deployed } = record;
        let id = &function.id;
        let known = self.installed.lock().get(id).filter(|known| known.source == source).cloned();
        let mut next = known.clone().unwrap_or_else(|| Installed::new(source));
        if known.is_some() && next.is_settled(*generation, now) {
            return;
        }
        let is_same = next.generation == *generation;
        let revision = deployed.as_ref().map(|deployed| deployed.revision);
        let probe = deployed.as_ref().and_then(|deployed| deployed.probe.as_ref());
        let failed_before = next.failure.take().filter(|_| is_same);
        // The numbers of a deployment that was made anew begin anew.
        let is_function = || self.runtime.find(id.as_str()).is_ok_and(|serving| is_of(&serving, function, record.is_exclusive()));
        let serves = known.is_some() && failed_before.is_none() && revision.is_some() && revision == next.revision && is_function();
        if !serves && let Err(error) = self.admit_and_serve(&mut next, record, revision, probe).await {
            let mut message = error.chain();
            if self.runtime.find(id.as_str()).is_err() && self.serve_former(&mut next, record, last_good).await {
                message.push_str("; what served before serves again");
            }
            let failure = Failure::new(message, failed_before.as_ref(), now);
            tracing::error!(function = %id, generation, why = failure.message, retry_in = ?failure.pause, "a function could not be deployed");
            next.failure = Some(failure);
        }
        self.keep_warm(&mut next, record, is_same, now).await;
        next.generation = *generation;
        self.installed.lock().insert(id.clone(), next);
    }

    /// Serves the function of a record when it may run; that it may not is told once.
    async fn admit_and_serve(
        &self,
        next: &mut Installed,
        record: &FunctionRecord,
        revision: Option<u64>,
        probe: Option<&Probe>,
    ) -> Result<(), EdgeError> {
        self.trust.admit(record)?;
        self.serve(next, &record.function, revision, probe, record.is_exclusive()).await
    }

    /// Serves what served before, where nothing does: what is to be warm beside the record, or what was good last. Says whether something does.
    async fn serve_former(&self, next: &mut Installed, record: &FunctionRecord, last_good: Option<&FunctionRecord>) -> bool {
        let good = last_good.map(|good| (&good.function, good.deployed.as_ref().map(|deployed| deployed.revision)));
        let warm = record.warm().map(|warm| (&warm.function, Some(warm.revision)));
        for (function, revision) in good.into_iter().chain(warm).filter(|(function, _)| **function != record.function) {
            match self.serve(next, function, revision, None, record.is_exclusive()).await {
                Ok(()) => return true,
                Err(error) => tracing::error!(function = %function.id, why = error.chain(), "what served before cannot serve either"),
            }
        }
        false
    }

    /// Serves the function in place of what served, which stays at hand.
    async fn serve(
        &self,
        next: &mut Installed,
        function: &EdgeFunction,
        revision: Option<u64>,
        probe: Option<&Probe>,
        is_exclusive: bool,
    ) -> Result<(), EdgeError> {
        self.trust.check(function)?;
        let id = function.id.as_str();
        let ready = match next.warm.take_if(|warm| revision.is_some() && is_of(warm, function, is_exclusive)) {
            Some(warm) => warm,
            None => self.ready(function, probe, is_exclusive).await?,
        };
        let former = self.runtime.install(ready)?;
        let mark = self.runtime.metrics().mark(Filter::function(id));
        next.before = if former.is_some() { next.since.until(&mark) } else { Span::default() };
        (next.began_at, next.since, next.told) = (Instant::now(), mark, None);
        next.revision = revision;
        if former.is_some() {
            next.warm = former;
        }
        Ok(())
    }

    /// Keeps at hand what the record wants warm, and nothing else.
    async fn keep_warm(&self, next: &mut Installed, record: &FunctionRecord, is_same: bool, now: Instant) {
        let failed_before = next.warm_failure.take().filter(|_| is_same);
        let Some(wanted) = record.warm() else {
            next.warm = None;
            return;
        };
        if next.warm.as_ref().is_some_and(|warm| is_of(warm, &wanted.function, record.is_exclusive())) {
            return;
        }
        let probe = record.deployed.as_ref().and_then(|deployed| deployed.probe.as_ref());
        next.warm = None;
        match self.ready(&wanted.function, probe, record.is_exclusive()).await {
            Ok(ready) => next.warm = Some(ready),
            Err(error) => next.warm_failure = Some(Failure::new(error.chain(), failed_before.as_ref(), now)),
        }
    }

    /// Compiles and probes.
    async fn ready(&self, function: &EdgeFunction, probe: Option<&Probe>, is_exclusive: bool) -> Result<Arc<Deployed>, EdgeError> {
        self.trust.check(function)?;
        let lease = is_exclusive.then(|| self.leases.of(&function.id));
        let ready = self.runtime.prepare_under(function.clone(), lease).await?;
        if let Some(probe) = probe {
            ready.probe(&probe.path).await?;
        }
        Ok(ready)
    }

    /// How long it waits before it tries again what failed.
    #[cfg(test)]
    pub(crate) fn pause(&self, id: &FunctionId) -> Option<Duration> {
        self.installed.lock().get(id)?.failure.as_ref().map(|failure| failure.pause)
    }

    /// What became of the record of a function; none when there was none.
    pub(crate) fn status(&self, id: &FunctionId) -> Option<Status> {
        let known = self.installed.lock().get(id).cloned()?;
        let warm = known.warm.as_ref().map(|_| FunctionState::Ready);
        let warm_failure = known.warm_failure.filter(|_| known.warm.is_none()).map(|failure| failure.message);
        Some(Status {
            source: known.source,
            generation: known.generation,
            warm: warm.or_else(|| warm_failure.as_ref().map(|_| FunctionState::Failed)),
            failure: known.failure.map(|failure| failure.message),
            warm_failure,
        })
    }

    /// Whether a record is true.
    pub(crate) fn serves(&self, record: &FunctionRecord) -> bool {
        let status = self.status(&record.function.id);
        status.is_some_and(|status| status.generation == record.generation && status.failure.is_none())
    }

    /// How the revision of this record does, when it serves; where it could not take the place of the one before, that one's invocations are not its
    /// own. What is told stays the same for a tenth of the time that it has served, so that
    /// telling it over and over costs less and less; but when it has served for as long as it must do well, that is told at once.
    pub(crate) fn doing(&self, record: &FunctionRecord, now: Instant) -> Option<Doing> {
        let id = &record.function.id;
        let mut installed = self.installed.lock();
        let revision = record.deployed.as_ref()?.revision;
        let known = installed
            .get_mut(id)
            .filter(|known| known.generation == record.generation && known.failure.is_none() && known.revision == Some(revision))?;
        let time = now.saturating_duration_since(known.began_at);
        let bake = record.bake();
        let told = known.told.filter(|(at, _)| time.saturating_sub(*at) < time / 10 && (*at >= bake || time < bake));
        let (time, sample) = *known.told.insert(told.unwrap_or_else(|| {
            let now = self.runtime.metrics().mark(Filter::function(id.as_str()));
            (time, sample(known.since.until(&now)))
        }));
        record.is_judged_after(time).then(|| Doing { time, sample, before: self::sample(known.before) })
    }

    /// The time until that is to be told next, if it is to be.
    pub(crate) fn tells_in(&self, record: &FunctionRecord, now: Instant) -> Option<Duration> {
        let doing = self.doing(record, now)?;
        let began_at = self.installed.lock().get(&record.function.id)?.began_at;
        let time = now.saturating_duration_since(began_at);
        let next = (time / 10).max(TELL_PAUSE_MIN);
        Some(if doing.time < record.bake() { next.min(record.bake().saturating_sub(time)).max(Duration::from_millis(10)) } else { next })
    }
}

/// Whether this is the function, under a lease or not.
fn is_of(deployed: &Deployed, function: &EdgeFunction, is_exclusive: bool) -> bool {
    deployed.function() == function && deployed.is_leased() == is_exclusive
}

fn sample(span: Span) -> Sample {
    let Span { calls, errors, p95_ms } = span;
    Sample { calls, errors, p95_ms }
}
