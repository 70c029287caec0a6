//! Costs of a fleet: `far_call` prints the nanoseconds of a call of a far function over a NATS server; `nodes` is so many nodes of a hub's fleet.
//!
//! The nodes are the product's own code without the WebAssembly engine, each with a store, a TLS connection, a key and a session of its own. They
//! fetch, verify and keep artifacts, and run native code in their place. `cargo xtask bench fleet rollout` runs all of it.

use std::{
    env,
    io::{BufRead as _, stdin},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use edgeward::{
    ClusterOptions, EdgeCluster, EdgeFunction, EdgeNode, FleetHub, Handler, HandlerName, NativeHandler, Node, NodeId, NodeOptions,
    ServiceOptions, SessionState, Uplink, UplinkOptions,
    cluster::{
        Backbone, NatsBackbone, NatsOptions,
        nats::{Enrolment, NodeLink, PING_INTERVAL_DEFAULT},
    },
};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio_util::task::AbortOnDropHandle;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const WARM_UP_CALLS: usize = 500;
const CALLS: usize = 4000;
const PAYLOAD_BYTES: usize = 64;
/// Nodes that join at once.
const JOINING: usize = 32;
/// The function of the rollouts.
const FUNCTION: &str = "f";
/// Pause between two calls of it on a node.
const CALL_EVERY: Duration = Duration::from_millis(200);
/// Longest wait until every node is confirmed in what it runs.
const CONFIRMED_WITHIN: Duration = Duration::from_mins(2);

fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["far_call", url] => runtime.block_on(far_call(url)),
        ["nodes", hub, count, folder] => runtime.block_on(nodes(Path::new(hub), count.parse()?, Path::new(folder))),
        // As `cargo test --benches` calls it.
        _ => Ok(()),
    }
}

/// Both ends in this process, one after the other, over the server at this address.
async fn far_call(url: &str) -> Result<(), Failure> {
    let member = async |id: &str| {
        let member = NatsBackbone::connect(NatsOptions::new(NodeId::new(id)?, vec![url.to_owned()])).await?;
        member.connection().wait_for(|connection| connection.is_up).await?;
        let member: Arc<dyn Backbone> = Arc::new(member);
        Ok::<_, Failure>(member)
    };
    let cluster = EdgeCluster::with_options(ClusterOptions::in_memory())?;
    let _service = cluster.serve(member("hub").await?, ServiceOptions::default()).await?;
    cluster.admit(&NodeId::new("edge-01")?, None)?;
    let folder = tempfile::tempdir()?;
    let node = Node::open(NodeOptions::new(EdgeNode::new("edge-01", "bench")?, folder.path()))?;
    let name = HandlerName::new("echo")?;
    node.runtime().register(name.clone(), NativeHandler::new(async |payload| Ok::<_, std::io::Error>(payload)));
    let _uplink = Uplink::start(Arc::clone(&node), member("edge-01").await?, UplinkOptions::default()).await?;
    let runtime = cluster.runtime("edge-01")?;
    runtime.deploy(EdgeFunction::new("echo", "echo", Handler::Native(name))?).await?;
    while node.function("echo").is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let payload = bytes::Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let mut times = Vec::with_capacity(CALLS);
    for call in 0..WARM_UP_CALLS + CALLS {
        let begun = Instant::now();
        let answer = runtime.invoke("echo", payload.clone()).await?;
        if call >= WARM_UP_CALLS {
            times.push(begun.elapsed().as_nanos());
        }
        assert_eq!(answer.len(), PAYLOAD_BYTES);
    }
    times.sort_unstable();
    println!("far_call {}", times[times.len() / 2]);
    Ok(())
}

/// Nodes of the fleet of the hub in this folder, until the input ends. Each line that comes in is answered by one: `synced`, how many are in step;
/// `note`, how many of them have [`FUNCTION`], of which it is noted which order each has; `ordered`, to how many another was given since; `call`
/// and `rest`, whether all call it over and over.
async fn nodes(hub: &Path, count: usize, folder: &Path) -> Result<(), Failure> {
    let files = rustix::process::Resource::Nofile;
    let limit = rustix::process::getrlimit(files);
    rustix::process::setrlimit(files, rustix::process::Rlimit { current: limit.maximum, ..limit })?;
    let begun = Instant::now();
    let starting = stream::iter(0..count).map(|n| {
        let (hub, folder) = (hub.to_owned(), folder.to_owned());
        async move { tokio::spawn(start(hub, folder, n)).await? }
    });
    let started: Vec<_> = starting.buffer_unordered(JOINING).collect().await;
    let nodes = started.into_iter().collect::<Result<Vec<_>, _>>()?;
    println!("joined {} {:.3}", nodes.len(), begun.elapsed().as_secs_f64());
    let calling = Arc::new(AtomicBool::new(false));
    let called: Vec<_> = nodes.iter().map(|member| Arc::clone(&member.node)).collect();
    let _calls = AbortOnDropHandle::new(tokio::spawn(call(called, Arc::clone(&calling))));
    tokio::task::spawn_blocking(move || {
        let mut noted = Vec::new();
        for line in stdin().lock().lines().map_while(Result::ok) {
            let count = match line.as_str() {
                "note" => {
                    // What is not confirmed yet gets another order of the same revision.
                    let asked = Instant::now();
                    while !nodes.iter().all(Member::is_confirmed) && asked.elapsed() < CONFIRMED_WITHIN {
                        std::thread::sleep(Duration::from_millis(100));
                    }
                    noted = nodes.iter().map(Member::order).collect();
                    noted.iter().flatten().count()
                }
                "ordered" => nodes.iter().zip(&noted).filter(|(node, noted)| node.order() != **noted).count(),
                "call" | "rest" => {
                    calling.store(line == "call", Ordering::Relaxed);
                    nodes.len()
                }
                _ => nodes.iter().filter(|node| node.is_synced()).count(),
            };
            println!("{line} {count}");
        }
    })
    .await?;
    Ok(())
}

/// Calls the function on each node over and over, while it is wanted.
async fn call(nodes: Vec<Arc<Node>>, is_wanted: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(CALL_EVERY).await;
        for node in nodes.iter().filter(|_| is_wanted.load(Ordering::Relaxed)) {
            // That it fails may be what is tried.
            let _ = node.runtime().invoke(FUNCTION, "").await;
        }
    }
}

struct Member {
    node: Arc<Node>,
    link: NodeLink,
    uplink: Uplink,
}

impl Member {
    fn is_synced(&self) -> bool {
        let is_up = self.link.backbone().connection().borrow().is_up;
        is_up && self.uplink.replication().borrow().state == SessionState::Synced
    }

    /// Whether it is to stay at what it was ordered to run.
    fn is_confirmed(&self) -> bool {
        let view = self.node.function(FUNCTION);
        view.is_ok_and(|view| view.record.deployed.is_some_and(|deployed| deployed.confirmed))
    }

    /// The generation of what it was ordered to run, if it was.
    fn order(&self) -> Option<u64> {
        Some(self.node.function(FUNCTION).ok()?.record.generation)
    }
}

async fn start(hub: PathBuf, folder: PathBuf, n: usize) -> Result<Member, Failure> {
    let id = NodeId::new(format!("node-{n:05}"))?;
    let data_dir = folder.join(id.as_str());
    let node = Node::open(NodeOptions::new(EdgeNode::new(id.as_str(), "simulated")?, data_dir))?;
    let failing = NativeHandler::new(async |_| Err::<bytes::Bytes, _>(std::io::Error::other("it crashed")));
    node.runtime().register(HandlerName::new("failing")?, failing);
    #[cfg(not(feature = "wasm"))]
    node.runtime().stand_in_for_artifacts(NativeHandler::new(async |payload| Ok::<_, std::io::Error>(payload)));
    let now = Timestamp::now();
    let token = FleetHub::fleet_in(&hub)?.join_token(Vec::new(), Some(id.clone()), Duration::from_mins(15), now)?;
    let kept = node.fleet_folder()?;
    let enrolment = Enrolment::open_or_join(&kept, &id, Some(&token), serde_json::Value::Null, now).await?;
    let link = NodeLink::open(enrolment, &kept, PING_INTERVAL_DEFAULT).await?;
    let uplink = Uplink::start(Arc::clone(&node), link.backbone(), UplinkOptions::default()).await?;
    Ok(Member { node, link, uplink })
}
