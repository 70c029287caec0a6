//! The power of a node is cut while it takes a revision: what is there after that serves, without its hub too, nothing half is run, and with its
//! hub it takes the newest.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use edgeward::{
    Amount, ClusterOptions, DeploymentSpec, Digest, EdgeCluster, EdgeFunction, EdgeNode, ErrorKind, FleetService, Handler, Node, NodeId,
    NodeOptions, ServiceOptions, Strategy, Uplink, UplinkOptions,
    cluster::{Backbone, LocalNetwork, membership::Timing, rollout::RolloutState},
    limits::HEARTBEAT_MIN,
};
use tokio::time::sleep;

use crate::mount::{self, Mount};

const DISK_MIB: u64 = 64;
const FUNCTION: &str = "told";
/// So that an artifact comes in parts that take a while.
const ARTIFACT_BYTES: usize = 90_000;
const FETCH_BYTES_PER_SECOND: u64 = 60_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// When the power is cut.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// A part of the artifact has come.
    Fetching,
    /// It is whole, and not compiled.
    Fetched,
    /// Its machine code is there.
    Compiled,
    /// It serves.
    Serving,
    /// The hub knows that, and the rollout has ended.
    Completed,
    /// So long after it was ordered.
    After(Duration),
}

/// A hub in memory with one node, whose data folder lies on a disk of its own.
struct Site {
    disk: Mount,
    network: LocalNetwork,
    cluster: EdgeCluster,
    _service: FleetService,
}

impl Site {
    async fn start() -> Self {
        let network = LocalNetwork::new();
        let cluster = EdgeCluster::with_options(ClusterOptions { timing: timing(), ..ClusterOptions::in_memory() }).expect("opens");
        let service = cluster.serve(member(&network, "hub"), ServiceOptions::default()).await.expect("serves");
        cluster.admit(&NodeId::new("edge-01").expect("valid"), None).expect("joins");
        Self { disk: Mount::image(DISK_MIB), network, cluster, _service: service }
    }

    /// The node as after a start.
    async fn open(&self) -> Arc<Node> {
        let begun = Instant::now();
        loop {
            let node = EdgeNode::new("edge-01", "test").expect("valid");
            match Node::open(NodeOptions::new(node, self.disk.folder().join("data"))) {
                Ok(node) => {
                    node.reconcile().await;
                    return node;
                }
                // What the one before in this process was doing when it was dropped may still have the folder.
                Err(error) if error.kind() == ErrorKind::Conflict && begun.elapsed() < PATIENCE => sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("it does not start: {}", error.chain()),
            }
        }
    }

    async fn connect(&self, node: &Arc<Node>) -> Uplink {
        let options = UplinkOptions { timing: timing(), fetch_limit: Some(FETCH_BYTES_PER_SECOND), ..UplinkOptions::default() };
        Uplink::start(Arc::clone(node), member(&self.network, "edge-01"), options).await.expect("starts")
    }

    /// Deploys what says this, and says its digest.
    async fn deploy(&self, says: &str) -> Digest {
        let digest = self.cluster.add_artifact(command(says)).await.expect("it can run");
        let function = EdgeFunction::new(FUNCTION, FUNCTION, Handler::Artifact(digest)).expect("valid");
        let strategy = Strategy { batch: Some(Amount::ALL), bake_seconds: Some(0.0), ..Strategy::default() };
        let spec = DeploymentSpec { strategy, ..DeploymentSpec::new(function) };
        self.cluster.deployments().apply(spec, None).await.expect("applies");
        digest
    }

    async fn until_completed(&self, node: &Node, says: &str) {
        eventually(&format!("it says {says}"), async || said(node).await.as_deref() == Some(says)).await;
        eventually("the rollout is completed", async || self.state().await == RolloutState::Completed).await;
    }

    async fn state(&self) -> RolloutState {
        self.cluster.deployments().rollout(FUNCTION).await.expect("there is one").rollout.state
    }

    /// Deploys `new` beside `old` and cuts the power of the node at this moment. Says which of them served after the next start, without a hub.
    async fn cut(&mut self, old: &str, new: &str, moment: Moment) -> String {
        let node = self.open().await;
        let uplink = self.connect(&node).await;
        self.until_completed(&node, old).await;
        let digest = self.deploy(new).await;
        self.wait(moment, &node, &digest, new).await;
        self.disk.cut_power();
        drop(uplink);
        eventually("nobody has the node", async || Arc::strong_count(&node) == 1).await;
        drop(node);
        self.disk.mount_again();

        let node = self.open().await;
        let serves = said(&node).await.unwrap_or_else(|| panic!("{moment:?}: nothing serves: {:?}", node.functions()));
        assert!(serves == old || serves == new, "{moment:?}: it says {serves}");
        for digest in whole(&self.disk.folder().join("data")) {
            node.runtime().artifacts().get(&digest).unwrap_or_else(|error| panic!("{moment:?}: half an artifact: {}", error.chain()));
        }
        let uplink = self.connect(&node).await;
        self.until_completed(&node, new).await;
        drop(uplink);
        eventually("nobody has the node", async || Arc::strong_count(&node) == 1).await;
        println!("{moment:?}: after the power cut it served {}", if serves == old { "the former revision" } else { "the newest" });
        serves
    }

    async fn wait(&self, moment: Moment, node: &Node, digest: &Digest, new: &str) {
        let data = self.disk.folder().join("data");
        let reached = async || match moment {
            Moment::Fetching => fs::metadata(data.join("fetching").join(digest.hex())).is_ok_and(|part| part.len() > 0),
            Moment::Fetched => node.runtime().artifacts().contains(digest),
            Moment::Compiled => names(&data.join("compiled")).iter().any(|name| name.starts_with(&digest.hex())),
            Moment::Serving => said(node).await.as_deref() == Some(new),
            Moment::Completed => self.state().await == RolloutState::Completed && said(node).await.as_deref() == Some(new),
            Moment::After(_) => true,
        };
        if let Moment::After(time) = moment {
            sleep(time).await;
        }
        let begun = Instant::now();
        while !reached().await {
            assert!(begun.elapsed() < PATIENCE, "never came: {moment:?}");
            tokio::task::yield_now().await;
        }
    }
}

fn timing() -> Timing {
    Timing::new(HEARTBEAT_MIN).expect("the shortest")
}

fn member(network: &LocalNetwork, id: &str) -> Arc<dyn Backbone> {
    Arc::new(network.member(NodeId::new(id).expect("valid")))
}

async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn said(node: &Node) -> Option<String> {
    let answer = node.runtime().invoke(FUNCTION, "").await.ok()?;
    String::from_utf8(answer.to_vec()).ok()
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// The artifacts that have their names in a data folder.
fn whole(data: &Path) -> Vec<Digest> {
    let names = names(&data.join("artifacts"));
    names.iter().filter_map(|name| format!("sha256:{}", name.strip_suffix(".wasm")?).parse().ok()).collect()
}

/// A command that prints this.
fn command(says: &str) -> Vec<u8> {
    let noise: String = (0..ARTIFACT_BYTES as u64 / 8).map(|n| format!("{:08x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32)).collect();
    let length = says.len();
    wat::parse_str(format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 4)
            (data (i32.const 0) "\10\00\00\00\{length:02x}\00\00\00")
            (data (i32.const 16) "{says}")
            (data (i32.const 1024) "{noise}")
            (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    ))
    .expect("valid")
}

/// Cuts the power at these moments, one rollout after the other on the same disk. Says how often the former and how often the newest revision served
/// after that.
fn cut_at(moments: impl IntoIterator<Item = Moment>) -> (usize, usize) {
    // Its threads see the mounts of this one.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    runtime.block_on(async {
        let mut site = Site::start().await;
        let mut old = "revision 0".to_owned();
        site.deploy(&old).await;
        let (mut former, mut newest) = (0, 0);
        for (number, moment) in moments.into_iter().enumerate() {
            let new = format!("revision {}", number + 1);
            if site.cut(&old, &new, moment).await == old {
                former += 1;
            } else {
                newest += 1;
            }
            old = new;
        }
        (former, newest)
    })
}

#[test]
fn a_node_whose_power_is_cut_in_a_rollout_serves_what_it_has_and_then_the_newest() {
    if !mount::is_allowed() {
        return;
    }
    let (former, newest) = cut_at([Moment::Fetching, Moment::Fetched, Moment::Compiled, Moment::Serving, Moment::Completed]);
    assert!(former >= 1 && newest >= 1, "{former} times the former served, {newest} times the newest");
}

#[test]
fn long_a_node_whose_power_is_cut_at_any_moment_of_a_rollout_serves_what_it_has_and_then_the_newest() {
    if !mount::is_allowed() {
        return;
    }
    // The artifact has come after one to two seconds; what follows takes a fraction of one.
    let moments = (0..40).map(|n| Moment::After(Duration::from_millis(n * 50)));
    let close = (0..10).flat_map(|_| [Moment::Fetched, Moment::Compiled, Moment::Serving]);
    let (former, newest) = cut_at(moments.chain(close));
    println!("{former} times the former revision served after the cut, {newest} times the newest");
    assert!(former >= 10 && newest >= 1, "{former} times the former served, {newest} times the newest");
}
