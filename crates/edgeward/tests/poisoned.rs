//! Deployments that no node can live with, to many nodes at once: they come to the first batch and not to one node more.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use edgeward::{
    ClusterOptions, DeploymentSpec, EdgeCluster, EdgeError, EdgeFunction, EdgeNode, ErrorKind, FleetService, Handler, HandlerName,
    NativeHandler, Node, NodeId, NodeOptions, ServiceOptions, Strategy, Uplink, UplinkOptions,
    cluster::{Backbone, LocalNetwork, rollout::RolloutState},
};
use futures::{StreamExt as _, stream};
use tokio::time::sleep;

const NODES: usize = 200;
/// A rolling deployment takes a tenth at first.
const FIRST_BATCH: usize = NODES / 10;
const FUNCTION: &str = "f";
const JOINING: usize = 16;
const PATIENCE: Duration = Duration::from_mins(1);

struct Fleet {
    cluster: EdgeCluster,
    nodes: Vec<(Arc<Node>, Uplink)>,
    _service: FleetService,
}

impl Fleet {
    /// Nodes at default heartbeats on which a function serves that does well.
    async fn start(folder: &Path) -> Self {
        let network = LocalNetwork::new();
        let cluster = EdgeCluster::with_options(ClusterOptions::in_folder(folder.join("hub"))).expect("opens");
        let hub: Arc<dyn Backbone> = Arc::new(network.member(id("hub")));
        let service = cluster.serve(hub, ServiceOptions::default()).await.expect("serves");
        let starting = stream::iter(0..NODES).map(|number| start(&cluster, &network, folder, number));
        let nodes = starting.buffer_unordered(JOINING).collect().await;
        let fleet = Self { cluster, nodes, _service: service };
        let generation = fleet.deploy(native("well")).await.expect("applies");
        fleet.until(generation, RolloutState::Completed).await;
        fleet
    }

    /// Deploys a function, and says the generation of that.
    async fn deploy(&self, function: EdgeFunction) -> Result<u64, EdgeError> {
        // Long enough that a function that fails is called meanwhile.
        let strategy = Strategy { bake_seconds: Some(0.5), ..Strategy::default() };
        let spec = DeploymentSpec { strategy, ..DeploymentSpec::new(function) };
        self.cluster.deployments().apply(spec, None).await.map(|view| view.deployment.generation)
    }

    /// Waits until the rollout of this generation has ended so, and says why.
    async fn until(&self, generation: u64, state: RolloutState) -> String {
        let begun = Instant::now();
        loop {
            let rollout = self.cluster.deployments().rollout(FUNCTION).await.expect("there is one").rollout;
            let is_over = rollout.generation == generation && rollout.state.is_over();
            if is_over && rollout.state == state {
                return rollout.reason;
            }
            assert!(begun.elapsed() < PATIENCE && !is_over, "it is not {state}: {rollout:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until every node is confirmed in what it runs, so that no order follows.
    async fn settles(&self) {
        let begun = Instant::now();
        for (node, _) in &self.nodes {
            let id = node.runtime().node().id.clone();
            loop {
                let (cluster, of) = (self.cluster.clone(), id.clone());
                let views = edgeward::blocking(move || cluster.functions_of(&of)).await.expect("reads");
                if views.iter().all(|view| view.record.deployed.as_ref().is_some_and(|deployed| deployed.confirmed)) {
                    break;
                }
                assert!(begun.elapsed() < PATIENCE, "{id} is not confirmed: {views:?}");
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// How often each node was ordered something.
    async fn orders(&self) -> BTreeMap<String, u64> {
        let documents = self.cluster.documents().clone();
        let infos = edgeward::blocking(move || documents.list()).await.expect("reads");
        let named = infos.into_iter().map(|info| (info.name.to_string(), info.version));
        named.filter(|(name, _)| name.starts_with("edgeward.assignments.")).collect()
    }

    /// Calls the function on every node, over and over.
    fn call(&self) -> (Arc<AtomicBool>, tokio::task::JoinHandle<()>) {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, nodes) = (Arc::clone(&stop), self.nodes.iter().map(|(node, _)| Arc::clone(node)).collect::<Vec<_>>());
        let calling = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                for node in &nodes {
                    let _ = node.runtime().invoke(FUNCTION, "").await;
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        (stop, calling)
    }

    /// Deploys what cannot do well, and sees that it halts in the first batch.
    async fn halts(&self, what: &str, function: EdgeFunction) {
        self.settles().await;
        let before = self.orders().await;
        let begun = Instant::now();
        let generation = self.deploy(function).await.expect("applies");
        let why = self.until(generation, RolloutState::RolledBack).await;
        let after = self.orders().await;
        let ordered = after.iter().filter(|(node, times)| before.get(*node) != Some(times)).count();
        println!("{what}: {ordered} of {NODES} nodes were ordered it; rolled back after {:?}: {why}", begun.elapsed());
        assert!((1..=FIRST_BATCH).contains(&ordered), "{what}: {ordered} nodes were ordered it");
        for (node, _) in &self.nodes {
            let said = node.runtime().invoke(FUNCTION, "").await;
            assert!(said.is_ok_and(|said| said == "well"), "{what}: {}", node.runtime().node().id);
        }
    }
}

async fn start(cluster: &EdgeCluster, network: &LocalNetwork, folder: &Path, number: usize) -> (Arc<Node>, Uplink) {
    let name = format!("node-{number:03}");
    cluster.admit(&id(&name), None).expect("joins");
    let node = EdgeNode::new(&name, "one of many").expect("valid");
    let node = Node::open(NodeOptions::new(node, folder.join(&name))).expect("opens");
    let add = |name: &str, handler| node.runtime().register(HandlerName::new(name).expect("valid"), handler);
    add("well", NativeHandler::new(async |_| Ok::<_, std::io::Error>("well".into())));
    add("failing", NativeHandler::new(async |_| Err::<bytes::Bytes, _>(std::io::Error::other("it crashed"))));
    let member: Arc<dyn Backbone> = Arc::new(network.member(id(&name)));
    let uplink = Uplink::start(Arc::clone(&node), member, UplinkOptions::default()).await.expect("starts");
    (node, uplink)
}

fn id(text: &str) -> NodeId {
    NodeId::new(text).expect("valid")
}

fn native(handler: &str) -> EdgeFunction {
    EdgeFunction::new(FUNCTION, FUNCTION, Handler::Native(HandlerName::new(handler).expect("valid"))).expect("valid")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_node_can_live_with_halts_in_the_first_batch_of_two_hundred() {
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(folder.path()).await;
    fleet.halts("no node can load it", native("unknown")).await;
    let (stop, calling) = fleet.call();
    fleet.halts("it crashes in each call", native("failing")).await;
    stop.store(true, Ordering::Relaxed);
    calling.await.expect("it ends");

    let before = fleet.orders().await;
    let greedy = wat::parse_str(r#"(module (memory (export "memory") 40000) (func (export "_start")))"#).expect("valid");
    let digest = fleet.cluster.add_artifact(greedy).await.expect("as such it can run");
    let function = EdgeFunction { memory_mb: 16, ..EdgeFunction::new(FUNCTION, FUNCTION, Handler::Artifact(digest)).expect("valid") };
    let refused = fleet.deploy(function).await.expect_err("it wants more memory than it may have");
    println!("more memory than it may have: {refused}");
    assert_eq!(refused.kind(), ErrorKind::RefusedArtifact, "{}", refused.chain());
    assert_eq!(fleet.orders().await, before, "no node was ordered it");
}
