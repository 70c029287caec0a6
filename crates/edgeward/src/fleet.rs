//! The cluster manager of the specification: which nodes there are, how they are, and what each should run.
//!
//! Nodes and assignments are documents of the hub's store. Here its nodes are in the same process, and each has its runtime.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Instant};

use edgeward_cluster::membership::{Membership, Moment, Report, Standing, Timing};
use edgeward_model::{EdgeError, EdgeFunction, EdgeNode, EdgeNodeStatus, ErrorKind, FunctionId, NodeId};
use edgeward_runtime::{EdgeRuntime, blocking};
use edgeward_sync::{Documents, Epoch, Role, Store};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::assignments::Assignments;

/// The id of a store that belongs to a cluster and to no node.
const HUB: &str = "hub";

/// Nodes and what they should run. Thread-safe.
///
/// ```
/// use edgeward::{EdgeCluster, EdgeFunction, EdgeNode, EdgeNodeStatus, Handler, HandlerName, NativeHandler};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let cluster = EdgeCluster::new()?;
/// let shout = HandlerName::new("shout")?;
/// for id in ["edge-01", "edge-02"] {
///     let runtime = cluster.register_node(EdgeNode::new(id, "warehouse")?)?;
///     runtime.register(shout.clone(), NativeHandler::json(async |text: String| Ok::<_, std::io::Error>(text.to_uppercase())));
/// }
/// let count = cluster.deploy_to_all(EdgeFunction::new("fn-1", "shout", Handler::Native(shout))?).await?;
/// assert_eq!((count, cluster.list_nodes(Some(EdgeNodeStatus::Online)).len()), (2, 2));
/// let runtime = cluster.get_runtime("edge-02").expect("it is registered");
/// assert_eq!(runtime.invoke("fn-1", r#""hello""#).await?, r#""HELLO""#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EdgeCluster {
    assignments: Assignments,
    begun: Instant,
    members: Mutex<Members>,
    /// Held while assignments are changed, so that what runs is what was assigned last.
    deploying: tokio::sync::Mutex<()>,
}

struct Members {
    membership: Membership,
    nodes: BTreeMap<NodeId, Member>,
}

struct Member {
    node: EdgeNode,
    runtime: Arc<EdgeRuntime>,
}

/// How the nodes of a cluster are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterHealth {
    /// Registered nodes.
    pub nodes: usize,
    /// Those that report and serve.
    pub online: usize,
    /// Those that report, and something is wrong with them.
    pub degraded: usize,
    /// Those that catch up.
    pub syncing: usize,
    /// Those that have not reported for too long.
    pub offline: usize,
    /// Functions that are assigned, each counted once a node.
    pub assignments: usize,
}

impl std::fmt::Debug for EdgeCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeCluster").field("health", &self.health()).finish_non_exhaustive()
    }
}

impl EdgeCluster {
    /// A cluster that ends with the process.
    pub fn new() -> Result<Self, EdgeError> {
        Ok(Self::on(Store::in_memory_as(NodeId::new(HUB)?, Epoch::draw()?, Role::Hub)?))
    }

    /// A cluster whose assignments lie in this folder, which is made when it is missing. A node that is registered again gets what it
    /// was assigned.
    pub fn open(folder: &Path) -> Result<Self, EdgeError> {
        Ok(Self::on(Store::open_as(folder, NodeId::new(HUB)?, Epoch::draw()?, Role::Hub)?))
    }

    fn on(store: Store) -> Self {
        let members = Members { membership: Membership::new(Timing::default()), nodes: BTreeMap::new() };
        Self {
            assignments: Assignments::new(Documents::new(store)),
            begun: Instant::now(),
            members: Mutex::new(members),
            deploying: tokio::sync::Mutex::default(),
        }
    }

    /// Adds a node of this process and returns its runtime. Of a node that is registered already what is known of it is replaced, and its
    /// runtime stays. Its silence says nothing, as it cannot be away.
    ///
    /// What it was assigned before runs after [`EdgeCluster::reconcile`].
    pub fn register_node(&self, node: EdgeNode) -> Result<Arc<EdgeRuntime>, EdgeError> {
        node.validate()?;
        let now = self.now();
        let mut members = self.members.lock();
        members.membership.register(node.id.clone(), node.status, false, now)?;
        if let Some(known) = members.nodes.get_mut(&node.id) {
            known.node = node;
            return Ok(Arc::clone(&known.runtime));
        }
        let runtime = Arc::new(EdgeRuntime::new(node.clone()));
        members.nodes.insert(node.id.clone(), Member { node, runtime: Arc::clone(&runtime) });
        Ok(runtime)
    }

    /// Removes a node; false when there is none of this id. What it was assigned is forgotten. Blocks for as long as the disk takes.
    pub fn deregister_node(&self, id: &str) -> Result<bool, EdgeError> {
        let Ok(id) = NodeId::new(id) else { return Ok(false) };
        let removed = {
            let mut members = self.members.lock();
            members.membership.deregister(&id);
            members.nodes.remove(&id).is_some()
        };
        if removed {
            self.assignments.forget(&id)?;
        }
        Ok(removed)
    }

    /// Notes that a node reported now and lacks nothing. Of an unknown id it changes nothing.
    pub fn heartbeat(&self, id: &str) {
        let Ok(id) = NodeId::new(id) else { return };
        let now = self.now();
        let mut members = self.members.lock();
        members.membership.heartbeat(&id, &Report::healthy(now.wall), now);
        if let Some(member) = members.nodes.get_mut(&id) {
            member.node.last_heartbeat = now.wall;
        }
    }

    /// A node as it is now.
    pub fn get_node(&self, id: &str) -> Option<EdgeNode> {
        let members = self.members.lock();
        let (id, member) = members.nodes.get_key_value(id)?;
        Some(member.shown(members.membership.node(id)))
    }

    /// The runtime of a node.
    pub fn get_runtime(&self, id: &str) -> Option<Arc<EdgeRuntime>> {
        self.members.lock().nodes.get(id).map(|member| Arc::clone(&member.runtime))
    }

    /// The nodes with this status, or all, by id.
    pub fn list_nodes(&self, status: Option<EdgeNodeStatus>) -> Vec<EdgeNode> {
        let members = self.members.lock();
        let shown = members.nodes.iter().map(|(id, member)| member.shown(members.membership.node(id)));
        shown.filter(|node| status.is_none_or(|status| node.status == status)).collect()
    }

    /// How the nodes are, in numbers.
    pub fn health(&self) -> ClusterHealth {
        let mut health = ClusterHealth { assignments: self.assignments.len().unwrap_or(0), ..ClusterHealth::default() };
        for node in self.list_nodes(None) {
            health.nodes += 1;
            *match node.status {
                EdgeNodeStatus::Online => &mut health.online,
                EdgeNodeStatus::Degraded => &mut health.degraded,
                EdgeNodeStatus::Syncing => &mut health.syncing,
                EdgeNodeStatus::Offline => &mut health.offline,
            } += 1;
        }
        health
    }

    /// Assigns a function to every node; returns how many have it assigned durably. A node that could not run it refuses it for all.
    pub async fn deploy_to_all(&self, function: EdgeFunction) -> Result<usize, EdgeError> {
        let runtimes = self.members.lock().nodes.values().map(|member| Arc::clone(&member.runtime)).collect();
        self.deploy(runtimes, function).await
    }

    /// Assigns a function to one node.
    pub async fn deploy_to_node(&self, id: &str, function: EdgeFunction) -> Result<(), EdgeError> {
        let runtime = self.get_runtime(id).ok_or_else(|| not_found(id))?;
        self.deploy(vec![runtime], function).await.map(drop)
    }

    async fn deploy(&self, runtimes: Vec<Arc<EdgeRuntime>>, function: EdgeFunction) -> Result<usize, EdgeError> {
        let _deploying = self.deploying.lock().await;
        for runtime in &runtimes {
            runtime.check(&function).await.map_err(|error| {
                EdgeError::new(error.kind(), format!("node `{}` cannot run function `{}`", runtime.node().id, function.id))
                    .with_source(error)
            })?;
        }
        let (assignments, assigned) = (self.assignments.clone(), function.clone());
        let nodes: Vec<_> = runtimes.iter().map(|runtime| runtime.node().id.clone()).collect();
        blocking(move || nodes.iter().try_for_each(|node| assignments.put(node, &assigned))).await?;
        for runtime in &runtimes {
            runtime.deploy(function.clone()).await?;
        }
        Ok(runtimes.len())
    }

    /// Takes a function from every node; returns how many had it assigned.
    pub async fn undeploy_from_all(&self, id: &FunctionId) -> Result<usize, EdgeError> {
        let _deploying = self.deploying.lock().await;
        let runtimes: Vec<_> = self.members.lock().nodes.values().map(|member| Arc::clone(&member.runtime)).collect();
        let mut count = 0;
        for runtime in runtimes {
            let (assignments, node, function) = (self.assignments.clone(), runtime.node().id.clone(), id.clone());
            count += usize::from(blocking(move || assignments.remove(&node, &function)).await?);
            runtime.undeploy(id.as_str());
        }
        Ok(count)
    }

    /// Makes every runtime run what its node is assigned; returns what cannot. For a cluster that was opened from a folder, once its nodes
    /// are registered and their handlers and artifacts are there.
    pub async fn reconcile(&self) -> Result<Vec<(NodeId, FunctionId, EdgeError)>, EdgeError> {
        let _deploying = self.deploying.lock().await;
        let runtimes: Vec<_> = self.members.lock().nodes.values().map(|member| Arc::clone(&member.runtime)).collect();
        let mut failed = Vec::new();
        for runtime in runtimes {
            let node = runtime.node().id.clone();
            let (assignments, of) = (self.assignments.clone(), node.clone());
            for function in blocking(move || assignments.of(&of)).await? {
                let id = function.id.clone();
                if let Err(error) = runtime.deploy(function).await {
                    failed.push((node.clone(), id, error));
                }
            }
        }
        Ok(failed)
    }

    fn now(&self) -> Moment {
        Moment { elapsed: self.begun.elapsed(), wall: Timestamp::now() }
    }
}

impl Member {
    fn shown(&self, standing: Option<&Standing>) -> EdgeNode {
        let status = standing.map_or(self.node.status, Standing::status);
        EdgeNode { status, ..self.node.clone() }
    }
}

fn not_found(id: &str) -> EdgeError {
    let shown: String = id.chars().take(64).collect();
    EdgeError::new(ErrorKind::NotFound, format!("node not found: `{}`", shown.escape_debug()))
}
