//! What happens in the demonstration, and what the hub and its nodes saw.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use edgeward::{
    Amount, ClusterOptions, DeploymentSpec, EdgeCluster, EdgeFunction, EdgeNode, FleetService, Gate, Handler, Node, NodeId, NodeOptions,
    ServiceOptions, Strategy, StrategyKind, Target, Uplink, UplinkOptions, blocking,
    cluster::{LocalNetwork, membership::Timing, rollout::RolloutState},
};
use indicatif::ProgressBar;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::super::waiting::millis;
use crate::terminal;

/// The function that behaves as its environment says.
const MOODY: &[u8] = built!("moody");
const FUNCTION: &str = "moody";
const NODES: usize = 8;
const HEARTBEAT: Duration = Duration::from_millis(200);
/// Pause between two calls of a node.
const CALL_EVERY: Duration = Duration::from_millis(10);
const POLL_EVERY: Duration = Duration::from_millis(20);
/// How long each batch must do well, in seconds.
const BAKE_SECONDS: f64 = 2.0;
/// Longest wait for a rollout.
const PATIENCE: Duration = Duration::from_mins(1);

/// What happened. Times are in milliseconds since the beginning.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) rollouts: Vec<Ended>,
    pub(super) nodes: Vec<Worked>,
    pub(super) length_ms: u64,
}

/// How a rollout ended.
#[derive(Debug, Serialize)]
pub(super) struct Ended {
    pub(super) revision: u64,
    pub(super) mood: &'static str,
    pub(super) state: RolloutState,
    pub(super) reason: String,
    pub(super) took_ms: u64,
    /// Nodes on which it answered a call.
    pub(super) nodes: usize,
}

/// What a node did.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Worked {
    pub(super) id: NodeId,
    /// Calls by the revision that answered.
    pub(super) calls: BTreeMap<u64, u64>,
    pub(super) failed: u64,
    pub(super) timeline: Vec<Served>,
}

/// That from this time on a revision served, and whether calls failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Served {
    pub(super) at_ms: u64,
    pub(super) revision: u64,
    pub(super) failed: bool,
}

struct Station {
    node: Arc<Node>,
    worked: Arc<Mutex<Worked>>,
    _uplink: Uplink,
    _work: AbortOnDropHandle<()>,
}

struct Fleet {
    cluster: EdgeCluster,
    _service: FleetService,
    stations: Vec<Station>,
    begun: Instant,
}

/// Lets it all happen in this folder, and says meanwhile what is under way.
pub(super) async fn happen(folder: &Path, progress: &ProgressBar) -> anyhow::Result<Outcome> {
    let fleet = Fleet::begin(folder).await?;
    let artifact = fleet.cluster.add_artifact(Bytes::from_static(MOODY)).await?;
    let at_once = Strategy { batch: Some(Amount::ALL), bake_seconds: Some(0.0), ..Strategy::new(StrategyKind::Rolling) };
    let canary = Strategy {
        batch: Some(Amount::Count(1)),
        bake_seconds: Some(BAKE_SECONDS),
        gate: Gate { min_samples: Some(20), ..Gate::default() },
        ..Strategy::new(StrategyKind::Canary)
    };
    let mut rollouts = Vec::new();
    for (mood, strategy, what) in [
        ("well", &at_once, "the first revision goes to all nodes"),
        ("errs", &canary, "the second one answers with errors: its canary is judged"),
        ("glad", &canary, "the third one is good: its canary is judged, and the rest follows"),
    ] {
        terminal::spin(progress, what);
        let mut function = EdgeFunction::new(FUNCTION, mood, Handler::Artifact(artifact))?;
        function.environment = [("MOOD", mood)].into_iter().collect();
        rollouts.push(fleet.roll_out(function, mood, strategy).await?);
        // So that the chart shows what it came to.
        sleep(Duration::from_secs(1)).await;
    }
    let nodes: Vec<Worked> = fleet.stations.iter().map(|station| station.worked.lock().clone()).collect();
    for ended in &mut rollouts {
        ended.nodes = nodes.iter().filter(|node| node.calls.contains_key(&ended.revision)).count();
    }
    Ok(Outcome { rollouts, nodes, length_ms: millis(fleet.begun.elapsed()) })
}

impl Fleet {
    async fn begin(folder: &Path) -> anyhow::Result<Self> {
        let (begun, network, timing) = (Instant::now(), LocalNetwork::new(), Timing::new(HEARTBEAT)?);
        let hub_folder = folder.join("hub");
        let cluster =
            blocking(move || EdgeCluster::with_options(ClusterOptions { timing, ..ClusterOptions::in_folder(hub_folder) })).await?;
        let member = Arc::new(network.member(cluster.id().clone()));
        let service = cluster.serve(member, ServiceOptions::default()).await?;
        let mut stations = Vec::new();
        for number in 1..=NODES {
            let id = NodeId::new(format!("edge-{number:02}"))?;
            let node = Node::open(NodeOptions::new(EdgeNode::new(id.as_str(), id.as_str())?, folder.join(id.as_str())))?;
            let (joining, joined) = (cluster.clone(), id.clone());
            blocking(move || joining.admit(&joined, None)).await?;
            let uplink = Uplink::start(
                Arc::clone(&node),
                Arc::new(network.member(id.clone())),
                UplinkOptions { timing, ..UplinkOptions::default() },
            );
            let uplink = uplink.await?;
            let worked = Worked { id, calls: BTreeMap::new(), failed: 0, timeline: Vec::new() };
            let worked = Arc::new(Mutex::new(worked));
            let work = AbortOnDropHandle::new(tokio::spawn(call(Arc::clone(&node), Arc::clone(&worked), begun)));
            stations.push(Station { node, worked, _uplink: uplink, _work: work });
        }
        Ok(Self { cluster, _service: service, stations, begun })
    }

    /// Rolls out a revision, and says how that ended.
    async fn roll_out(&self, function: EdgeFunction, mood: &'static str, strategy: &Strategy) -> anyhow::Result<Ended> {
        let asked = Instant::now();
        let id = function.id.clone();
        let spec = DeploymentSpec { function, target: Target::all(), strategy: strategy.clone() };
        let deployments = self.cluster.deployments();
        let revision = deployments.apply(spec, None).await?.deployment.revision;
        loop {
            let rollout = deployments.rollout(id.as_str()).await?.rollout;
            let runs_everywhere = || self.stations.iter().all(|station| station.node.runtime().find(FUNCTION).is_ok());
            if rollout.to == revision && rollout.state.is_over() && runs_everywhere() {
                let took_ms = millis(asked.elapsed());
                return Ok(Ended { revision, mood, state: rollout.state, reason: rollout.reason, took_ms, nodes: 0 });
            }
            if asked.elapsed() > PATIENCE {
                return Err(anyhow::anyhow!(rollout.reason)).context(format!("the rollout to revision {revision} did not end"));
            }
            sleep(POLL_EVERY).await;
        }
    }
}

/// Calls the function of a node over and over, and notes which revision answered.
async fn call(node: Arc<Node>, worked: Arc<Mutex<Worked>>, begun: Instant) {
    loop {
        sleep(CALL_EVERY).await;
        let Ok(serving) = node.runtime().find(FUNCTION) else { continue };
        let revision = match serving.function().name.as_str() {
            "well" => 1,
            "errs" => 2,
            _ => 3,
        };
        drop(serving);
        let failed = node.runtime().invoke(FUNCTION, Bytes::new()).await.is_err();
        let mut worked = worked.lock();
        *worked.calls.entry(revision).or_default() += 1;
        worked.failed += u64::from(failed);
        let last = worked.timeline.last();
        if last.is_none_or(|last| (last.revision, last.failed) != (revision, failed)) {
            worked.timeline.push(Served { at_ms: millis(begun.elapsed()), revision, failed });
        }
    }
}
