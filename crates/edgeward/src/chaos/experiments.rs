//! Experiments of a fleet: at most one runs at a time, on the active hub, whether who began it is still there or not.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use edgeward_cluster::chaos::{Point, Report, Trial, Verdict};
use edgeward_model::{DocumentName, EdgeError, ErrorKind, Experiment, FunctionId, NodeId, chaos::Scenario, limits::TIMEOUT_SECONDS_MAX};
use edgeward_runtime::{EdgeRuntime, blocking};
use futures::{
    FutureExt as _,
    future::{self, join_all},
};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    kept::Reports,
    left_behind,
    node::NodeChaos,
    observe::{call_max, hittable, known},
    orders::{ask, is_away},
    question::Question,
    running::{Run, event, run},
};
use crate::{events::EventLog, fleet::EdgeCluster};

/// Longest wait for the faults of an experiment to end when its hub stops.
const ENDING_TIMEOUT: Duration = Duration::from_secs(5);

/// What a cluster has for experiments.
#[derive(Default)]
pub(crate) struct ClusterSeams {
    is_allowed: AtomicBool,
    /// The faults of the nodes of this process.
    here: Mutex<BTreeMap<NodeId, NodeChaos>>,
    running: Mutex<Option<Running>>,
    /// Held from the look whether one runs until it does.
    beginning: tokio::sync::Mutex<()>,
}

struct Running {
    run: Arc<Run>,
    _task: AbortOnDropHandle<()>,
}

impl ClusterSeams {
    pub(crate) fn allow(&self) {
        self.is_allowed.store(true, Ordering::Release);
        self.here.lock().values().for_each(|chaos| chaos.allow(None));
    }

    fn is_allowed(&self) -> bool {
        self.is_allowed.load(Ordering::Acquire)
    }

    /// The faults of a node of this process with this runtime, which are told there.
    pub(crate) fn of(&self, runtime: &Arc<EdgeRuntime>, events: &Arc<EventLog>) -> NodeChaos {
        let mut here = self.here.lock();
        let new = || {
            let chaos = NodeChaos::new(Arc::clone(runtime), None);
            let events = Arc::clone(events);
            chaos.tell_by(Some(Arc::new(move |event| {
                events.tell(event);
                future::ready(()).boxed()
            })));
            if self.is_allowed() {
                chaos.allow(None);
            }
            chaos
        };
        here.entry(runtime.node().id.clone()).or_insert_with(new).clone()
    }

    pub(crate) fn forget(&self, node: &NodeId) {
        self.here.lock().remove(node);
    }

    /// The one that began last in this process.
    fn last(&self) -> Option<Arc<Run>> {
        self.running.lock().as_ref().map(|running| Arc::clone(&running.run))
    }

    pub(super) fn running(&self) -> Option<Arc<Run>> {
        self.last().filter(|run| !run.ended.is_cancelled())
    }
}

/// How far an experiment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The steady state is looked at; nothing is injected.
    Before,
    /// From the first fault to the end of the last.
    Faults,
    /// The fleet recovers.
    After,
    /// It is over.
    Ended,
}

/// An experiment that runs or ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExperimentView {
    /// Names this run: the name of the experiment, `:` and a number.
    pub id: String,
    /// The name of the experiment.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// How far it is.
    pub phase: Phase,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it has taken, in seconds.
    pub took_seconds: f64,
    /// How long it takes when nothing ends it before, in seconds.
    pub total_seconds: u64,
    /// What it came to; none while it runs.
    pub verdict: Option<Verdict>,
    /// Why, in a sentence; empty while it runs.
    pub reason: String,
    /// Its faults that are injected now, for people, each with its nodes.
    pub injected: Vec<String>,
    /// What was seen last.
    pub last: Option<Point>,
}

/// The experiments of a fleet.
#[derive(Clone, Debug)]
pub struct ClusterChaos {
    cluster: EdgeCluster,
}

impl EdgeCluster {
    /// The experiments of this fleet.
    pub fn chaos(&self) -> ClusterChaos {
        ClusterChaos { cluster: self.clone() }
    }

    /// Lets experiments run in this fleet, and faults be injected on the nodes of this process. Far nodes must each allow it too.
    pub fn allow_chaos(&self) {
        self.chaos_seams().allow();
    }
}

impl ClusterChaos {
    /// Whether experiments may run.
    pub fn is_allowed(&self) -> bool {
        self.cluster.chaos_seams().is_allowed()
    }

    /// A ready-made experiment, with calls of this function and this document, for the nodes that there are.
    pub fn scenario(&self, scenario: Scenario, function: &FunctionId, document: Option<&DocumentName>) -> Result<Experiment, EdgeError> {
        let document = match document {
            Some(document) => document.clone(),
            None if scenario.compares_a_document() => {
                return Err(EdgeError::invalid(format!("the scenario `{scenario}` compares a document; say which")));
            }
            None => DocumentName::new("d")?,
        };
        Ok(scenario.experiment(function, &document, self.cluster.node_ids().len()))
    }

    /// Begins an experiment, which then runs to its end by itself.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] when experiments are not allowed here or on a node that it could hit; [`ErrorKind::InvalidInput`] when it is not valid, names
    /// what there is not, or cannot be done there; [`ErrorKind::Conflict`] when another one runs; [`ErrorKind::Unavailable`] when a node is not there.
    pub async fn start(&self, experiment: Experiment) -> Result<ExperimentView, EdgeError> {
        if !self.is_allowed() {
            let message = "this hub runs no experiments; start it with `--allow-chaos`, and each node that may be hit too";
            return Err(EdgeError::new(ErrorKind::Forbidden, message));
        }
        experiment.validate()?;
        let seams = self.cluster.chaos_seams();
        let _beginning = seams.beginning.lock().await;
        if let Some(running) = seams.running() {
            let message = format!("experiment `{}` runs, and one runs at a time; wait until it has ended, or stop it", running.id);
            return Err(EdgeError::new(ErrorKind::Conflict, message));
        }
        known(&self.cluster).await?.check(&experiment)?;
        self.check_nodes(&experiment).await?;
        let reports = Reports::new(self.cluster.documents())?;
        let call_max = call_max(&self.cluster, &experiment).await?;
        let trial = Trial::new(experiment.clone(), Timestamp::now(), call_max);
        let (of, name, report) = (reports.clone(), experiment.name.clone(), trial.report());
        let id = blocking(move || {
            let id = of.next_id(&name)?;
            // Should this hub end with it, it is known that it began.
            of.put(&id, report)?;
            Ok(id)
        })
        .await?;
        tracing::warn!(target: "audit", experiment = id, "an experiment begins");
        self.cluster.events().tell(event(format!("experiment `{id}` begins")));
        let begun = Arc::new(Run {
            id,
            trial: Mutex::new(trial),
            begun: Instant::now(),
            injected: Mutex::default(),
            stop: CancellationToken::new(),
            why_stopped: Mutex::default(),
            ended: CancellationToken::new(),
            ended_with: OnceLock::new(),
        });
        let task = AbortOnDropHandle::new(tokio::spawn(run(self.cluster.downgrade(), Arc::clone(&begun), reports)));
        let view = view_of_run(&begun);
        *seams.running.lock() = Some(Running { run: begun, _task: task });
        Ok(view)
    }

    /// Runs an experiment, and returns its report once it is over. Dropped, it runs on; [`ClusterChaos::stop`] ends it.
    ///
    /// # Errors
    /// Those of [`ClusterChaos::start`].
    pub async fn run(&self, experiment: Experiment) -> Result<Report, EdgeError> {
        let id = self.start(experiment).await?.id;
        self.until_ended(&id).await?;
        self.report(&id).await
    }

    /// Waits until an experiment is over.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none of this id.
    pub async fn until_ended(&self, id: &str) -> Result<(), EdgeError> {
        if let Some(running) = self.cluster.chaos_seams().running().filter(|running| running.id == id) {
            running.ended.cancelled().await;
        }
        self.get(id).await.map(drop)
    }

    /// Every experiment that is known, the newest first.
    pub async fn list(&self) -> Result<Vec<ExperimentView>, EdgeError> {
        let last = self.cluster.chaos_seams().last();
        let reports = Reports::new(self.cluster.documents())?;
        let kept = blocking(move || reports.all()).await?;
        let mut views: Vec<_> = kept.iter().map(|(id, report)| view_of_kept(id, report)).collect();
        if let Some(last) = last {
            views.retain(|view| view.id != last.id);
            views.push(view_of_run(&last));
        }
        views.sort_by_key(|view| std::cmp::Reverse(view.started_at));
        Ok(views)
    }

    /// One experiment, as it is now.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none of this id.
    pub async fn get(&self, id: &str) -> Result<ExperimentView, EdgeError> {
        match self.cluster.chaos_seams().last().filter(|run| run.id == id) {
            Some(run) => Ok(view_of_run(&run)),
            None => Ok(view_of_kept(id, &self.kept(id).await?)),
        }
    }

    /// The report of an experiment, which says that it is not over while it runs.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none of this id.
    pub async fn report(&self, id: &str) -> Result<Report, EdgeError> {
        // The points of the last one are all there yet.
        match self.cluster.chaos_seams().last().filter(|run| run.id == id) {
            Some(run) => Ok(run.report()),
            None => self.kept(id).await,
        }
    }

    /// Ends an experiment before its time, and returns once its faults have ended. One that is over stays as it is.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none of this id.
    pub async fn stop(&self, id: &str, why: &str) -> Result<ExperimentView, EdgeError> {
        if let Some(running) = self.cluster.chaos_seams().running().filter(|running| running.id == id) {
            tracing::info!(target: "audit", experiment = id, why, "an experiment is ended before its time");
            running.why_stopped.lock().get_or_insert_with(|| why.to_owned());
            running.stop.cancel();
            running.ended.cancelled().await;
            return self.get(id).await;
        }
        let view = self.get(id).await?;
        // Its hub may have ended with it, and some node still injects what it was told.
        if since(view.started_at) < Duration::from_secs(view.total_seconds) {
            left_behind::tell(&self.cluster, id, self.cluster.present()).await;
        }
        Ok(view)
    }

    /// Ends the one that runs, if one does, as this hub stops.
    pub(crate) async fn end(&self) {
        if let Some(running) = self.cluster.chaos_seams().running() {
            // Its faults end by themselves.
            let _ = timeout(ENDING_TIMEOUT, self.stop(&running.id, "its hub was stopped")).await;
        }
    }

    async fn kept(&self, id: &str) -> Result<Report, EdgeError> {
        let (reports, id) = (Reports::new(self.cluster.documents())?, id.to_owned());
        blocking(move || reports.get(&id)).await
    }

    /// Asks every node that could be hit whether it would inject it.
    async fn check_nodes(&self, experiment: &Experiment) -> Result<(), EdgeError> {
        let (cluster, of) = (self.cluster.clone(), experiment.clone());
        let nodes = blocking(move || hittable(&of, &cluster)).await?;
        let asking = nodes.into_iter().map(|(node, faults)| async move { ask(&self.cluster, &node, Question::Check { faults }).await });
        for answer in join_all(asking).await {
            answer.map_err(|error| {
                let why = format!("experiment `{}` cannot begin: {error}", experiment.name);
                let kind = if is_away(&error) { ErrorKind::Unavailable } else { error.kind() };
                EdgeError::new(kind, why)
            })?;
        }
        Ok(())
    }
}

fn view_of_run(run: &Run) -> ExperimentView {
    let trial = run.trial.lock();
    let Some(report) = run.ended_with.get() else {
        let injected = run.injected.lock().clone();
        let injected = injected.into_iter().map(|index| {
            let line = trial.fault_line(index);
            let nodes = if line.nodes.is_empty() { "no node yet".to_owned() } else { line.shown_nodes() };
            format!("{} on {nodes}", line.fault)
        });
        let view = view_of_running(&run.id, trial.experiment(), trial.started_at(), run.begun.elapsed());
        return ExperimentView { injected: injected.collect(), last: trial.last_point(), ..view };
    };
    view_of_kept(&run.id, report)
}

fn view_of_kept(id: &str, report: &Report) -> ExperimentView {
    let (experiment, took) = (&report.experiment, since(report.started_at));
    let view = view_of_running(id, experiment, report.started_at, took);
    // Another hub runs it, and has not told more; or it was in a process that has ended. Calls are waited for as long as they may take.
    if !report.is_over() && took < experiment.total() + Duration::from_secs_f64(TIMEOUT_SECONDS_MAX) {
        return view;
    }
    let mut report = report.clone();
    if !report.is_over() {
        report.cut_short(left_behind::WHY);
    }
    ExperimentView {
        phase: Phase::Ended,
        took_seconds: report.took_seconds,
        verdict: Some(report.verdict),
        reason: report.reason,
        last: report.points.pop(),
        ..view
    }
}

/// An experiment that began so long ago and is not over.
fn view_of_running(id: &str, experiment: &Experiment, started_at: Timestamp, took: Duration) -> ExperimentView {
    let (begin, end) = experiment.faulty_span();
    let phase = match took.checked_sub(experiment.before()) {
        None => Phase::Before,
        Some(since) if since < begin => Phase::Before,
        Some(since) if since < end => Phase::Faults,
        Some(_) => Phase::After,
    };
    ExperimentView {
        id: id.to_owned(),
        name: experiment.name.to_string(),
        description: experiment.description.clone(),
        phase,
        started_at,
        took_seconds: took.as_secs_f64(),
        total_seconds: experiment.total().as_secs(),
        verdict: None,
        reason: String::new(),
        injected: Vec::new(),
        last: None,
    }
}

/// How long ago that was.
fn since(then: Timestamp) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(then)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::EventKind;

    #[test]
    fn what_another_hub_runs_is_shown_as_far_as_it_should_be_and_not_as_over() {
        let experiment = Scenario::NodeFailure.experiment(&"f".parse().expect("valid"), &"d".parse().expect("valid"), 3);
        let view = |seconds_ago: i64| {
            let started_at = Timestamp::now() - jiff::SignedDuration::from_secs(seconds_ago);
            view_of_kept("node-failure:1", &Trial::new(experiment.clone(), started_at, Duration::ZERO).report())
        };
        for (seconds_ago, phase) in [(1, Phase::Before), (20, Phase::Faults), (60, Phase::After), (100, Phase::After)] {
            assert_eq!((view(seconds_ago).phase, view(seconds_ago).verdict), (phase, None), "{seconds_ago}");
        }
        assert_eq!((view(10_000).phase, view(10_000).verdict), (Phase::Ended, Some(Verdict::Aborted)));
        let mut report = Trial::new(experiment.clone(), Timestamp::now(), Duration::ZERO).report();
        report.cut_short("its hub ended with it");
        let ended = view_of_kept("node-failure:1", &report);
        assert_eq!((ended.phase, ended.verdict, ended.reason.as_str()), (Phase::Ended, Some(Verdict::Aborted), "its hub ended with it"));
    }

    #[tokio::test]
    async fn faults_on_a_node_of_this_process_are_told_too() {
        let cluster = EdgeCluster::new().expect("opens");
        cluster.register_node(edgeward_model::EdgeNode::new("edge-01", "a").expect("valid")).expect("registers");
        cluster.allow_chaos();
        let here = cluster.chaos_here(&NodeId::new("edge-01").expect("valid")).expect("it is here");
        let fault = edgeward_model::Fault::new(edgeward_model::FaultKind::Timeout, 60);
        here.inject("run", BTreeMap::from([("1".to_owned(), fault)])).await.expect("injects");
        let told = cluster.events().list(None, 100).expect("reads");
        assert!(told.iter().any(|event| event.kind == EventKind::FaultChanged), "{told:?}");
    }
}
