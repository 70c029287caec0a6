//! One run of an experiment: looks once a second, has the trial say what is to be injected, tells the nodes, and ends every fault whatever happens.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
    time::Duration,
};

use edgeward_cluster::chaos::{Next, Observation, Report, Trial, choose, resolve};
use edgeward_runtime::blocking;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    kept::Reports,
    load::Loads,
    observe::{compared, converged},
    orders::{Orders, Told},
};
use crate::{
    events::{EventKind, FleetEvent},
    fleet::{EdgeCluster, WeakCluster},
};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the nodes are told that it is over; those that do not hear it end their faults by themselves.
const ENDING_TRIES: u32 = 3;
/// Pause between two of these.
const ENDING_PAUSE: Duration = Duration::from_millis(500);

/// Time that a call may take beyond what it may take on a node.
const CALL_SLACK: Duration = Duration::from_secs(1);
/// Why it ends when another hub takes over.
const NOT_ACTIVE: &str = "this hub is no longer the active one";

/// What others see of a run.
pub(super) struct Run {
    pub(super) id: String,
    pub(super) trial: Mutex<Trial>,
    pub(super) begun: Instant,
    /// Which faults are injected now.
    pub(super) injected: Mutex<BTreeSet<usize>>,
    /// Ends it before its time, for the reason below.
    pub(super) stop: CancellationToken,
    pub(super) why_stopped: Mutex<Option<String>>,
    /// Cancelled once its faults have ended and its report is kept.
    pub(super) ended: CancellationToken,
    pub(super) ended_with: OnceLock<Report>,
}

impl Run {
    /// Its report; up to now while it runs.
    pub(super) fn report(&self) -> Report {
        let trial = self.trial.lock();
        self.ended_with.get().cloned().unwrap_or_else(|| trial.report())
    }

    /// Ends it before its time, for the reason that whoever stopped it gave.
    fn abort_as_told(&self) {
        let why = self.why_stopped.lock().clone();
        self.trial.lock().abort(why.unwrap_or_else(|| "it was ended".to_owned()));
    }
}

/// Runs it to its end.
pub(super) async fn run(weak: WeakCluster, run: Arc<Run>, reports: Reports) {
    // Whatever happens to this task, who waits for it is told.
    let _told = run.ended.clone().drop_guard();
    let experiment = run.trial.lock().experiment().clone();
    let documents = compared(&experiment);
    let mut loads = Loads::begin(&weak, &experiment, run.begun);
    let mut orders = Orders::new(&run.id);
    let mut hit_before = BTreeSet::new();
    let had_backbone = weak.upgrade().is_some_and(|cluster| cluster.backbone().is_some());
    let mut looking = interval(LOOK_EVERY);
    // At whole seconds, by which faults begin and end.
    looking.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = looking.tick() => {}
            () = run.stop.cancelled() => run.abort_as_told(),
        }
        let Some(cluster) = weak.upgrade() else { return };
        if had_backbone && cluster.backbone().is_none() {
            run.trial.lock().abort(NOT_ACTIVE);
        }
        let converged = converged(&cluster, &documents).await;
        let health = cluster.health();
        let nodes_online = u32::try_from(health.nodes - health.offline).unwrap_or(u32::MAX);
        let observation = Observation { at: run.begun.elapsed(), calls: loads.take(), nodes_online, converged };
        let next = run.trial.lock().observe(observation);
        let Next::Inject(wanted) = next else { break };
        orders.keep_only(&wanted);
        let news: Vec<_> = wanted.difference(&orders.now()).copied().collect();
        if !news.is_empty() {
            let of = cluster.clone();
            let Ok(nodes) = blocking(move || Ok(of.list_nodes(None))).await else { continue };
            let present = cluster.present();
            let candidates: Vec<_> = nodes.iter().filter(|node| present.contains(&node.id)).cloned().collect();
            for index in news {
                let planned = &experiment.faults[index];
                let chosen = choose(&planned.fault, &candidates, &hit_before, &format!("{}/{index}", run.id));
                // Where none is there now, it is looked for anew.
                if chosen.is_empty() {
                    continue;
                }
                hit_before.extend(chosen.iter().cloned());
                orders.add(index, resolve(&planned.fault, &nodes), run.begun + experiment.before() + planned.span().1, chosen);
            }
        }
        note(&run, orders.tell(&cluster).await);
        *run.injected.lock() = orders.now();
    }
    if let Some(cluster) = weak.upgrade() {
        end_faults(&cluster, &mut orders).await;
        run.injected.lock().clear();
    }
    wait_for_calls(&run, &mut loads).await;
    let Some(cluster) = weak.upgrade() else { return };
    if had_backbone && cluster.backbone().is_none() {
        run.trial.lock().abort(NOT_ACTIVE);
    }
    run.trial.lock().settle(loads.take(), run.begun.elapsed());
    finish(&cluster, &run, reports).await;
}

/// Waits until the calls that are under way have ended, as long as they may take.
async fn wait_for_calls(run: &Run, loads: &mut Loads) {
    let (is_cut_short, call_max) = {
        let trial = run.trial.lock();
        (trial.is_cut_short(), trial.call_max())
    };
    if is_cut_short {
        return;
    }
    tokio::select! {
        () = loads.settle(call_max + CALL_SLACK) => {}
        () = run.stop.cancelled() => run.abort_as_told(),
    }
}

/// Notes what came of telling the nodes: who refuses ends it.
fn note(run: &Run, Told { taken, refused }: Told) {
    let mut trial = run.trial.lock();
    for (index, node) in taken {
        trial.hit(index, BTreeSet::from([node]));
    }
    if let Some(error) = refused {
        trial.abort(error.to_string());
    }
}

async fn end_faults(cluster: &EdgeCluster, orders: &mut Orders) {
    orders.keep_only(&BTreeSet::new());
    for attempt in 0..ENDING_TRIES {
        if attempt > 0 {
            sleep(ENDING_PAUSE).await;
        }
        orders.tell(cluster).await;
        if !orders.are_told() {
            return;
        }
    }
    tracing::warn!("not every node could be told that the experiment is over; its faults end by themselves");
}

async fn finish(cluster: &EdgeCluster, run: &Run, reports: Reports) {
    let report = run.report();
    let message = format!("experiment `{}`: {}: {}", run.id, report.verdict, report.reason);
    tracing::info!(target: "audit", experiment = run.id, verdict = %report.verdict, "an experiment has ended: {}", report.reason);
    cluster.events().tell(event(message));
    let (id, kept) = (run.id.clone(), report.clone());
    if let Err(error) = blocking(move || reports.put(&id, kept)).await {
        tracing::warn!(experiment = run.id, error = error.chain(), "the report of an experiment could not be kept");
    }
    let mut trial = run.trial.lock();
    // All that is left of it is its report, which only this task says, once.
    *trial = Trial::new(report.experiment.clone(), report.started_at, Duration::ZERO);
    let _ = run.ended_with.set(report);
}

/// An event of an experiment.
pub(super) fn event(message: String) -> FleetEvent {
    FleetEvent::new(EventKind::ExperimentChanged, message)
}
