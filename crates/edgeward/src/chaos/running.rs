//! One run of an experiment: looks once a second, has the trial say what is to be injected, tells the nodes, and ends every fault whatever happens.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

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
}

impl Run {
    pub(super) fn report(&self) -> Report {
        self.trial.lock().report()
    }
}

/// Runs it to its end.
pub(super) async fn run(weak: WeakCluster, run: Arc<Run>, reports: Reports) {
    // Whatever happens to this task, who waits for it is told.
    let _told = run.ended.clone().drop_guard();
    let experiment = run.trial.lock().experiment().clone();
    let documents = compared(&experiment);
    let loads = Loads::begin(&weak, &experiment.loads);
    let mut orders = Orders::new(&run.id);
    let mut hit_before = BTreeSet::new();
    let had_backbone = weak.upgrade().is_some_and(|cluster| cluster.backbone().is_some());
    let mut looking = interval(LOOK_EVERY);
    looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looking.tick() => {}
            () = run.stop.cancelled() => {
                let why = run.why_stopped.lock().clone();
                run.trial.lock().abort(why.unwrap_or_else(|| "it was ended".to_owned()));
            }
        }
        let Some(cluster) = weak.upgrade() else { return };
        if had_backbone && cluster.backbone().is_none() {
            run.trial.lock().abort("this hub is no longer the active one");
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
                hit_before.extend(chosen.iter().cloned());
                orders.add(index, resolve(&planned.fault, &nodes), run.begun + experiment.before() + planned.span().1, chosen);
            }
        }
        note(&run, orders.tell(&cluster).await);
        *run.injected.lock() = orders.now();
    }
    drop(loads);
    if let Some(cluster) = weak.upgrade() {
        end_faults(&cluster, &mut orders).await;
        run.injected.lock().clear();
        finish(&cluster, &run, reports).await;
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
    let id = run.id.clone();
    if let Err(error) = blocking(move || reports.put(&id, report)).await {
        tracing::warn!(experiment = run.id, error = error.chain(), "the report of an experiment could not be kept");
    }
}

/// An event of an experiment.
pub(super) fn event(message: String) -> FleetEvent {
    FleetEvent::new(EventKind::ExperimentChanged, message)
}
