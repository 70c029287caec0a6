//! The cluster manager of the specification: which nodes there are, how they are, and what each should run.
//!
//! Nodes and assignments are documents of the hub's store. A node is in this process with its runtime, or on another machine, where it
//! is reached over a backbone and takes its assignments from its documents.

mod assigning;
mod far;
mod members;
mod presence;
mod registry;
mod routing;
mod runtime;
pub(crate) mod service;
pub(crate) mod topics;
mod trusting;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use edgeward_cluster::{
    Backbone,
    grants::Grants,
    membership::{Membership, Moment, Report, Timing},
};
use edgeward_model::{DocumentName, EdgeError, EdgeNode, EdgeNodeStatus, ErrorKind, FunctionId, HandlerName, NodeId};
use edgeward_runtime::{ArtifactStore, EdgeRuntime, NativeHandler, RuntimeOptions};
use edgeward_sync::{Documents, Epoch, Precondition, Role, Store};
use edgeward_topics::LogOptions;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use self::{
    far::FarNode,
    members::{Member, Members},
    registry::Registry,
    routing::Routing,
    runtime::{Place, no_way},
    topics::FleetTopics,
};
pub use self::{
    members::NodeView,
    registry::{Duties, Registration},
    routing::Attempt,
    runtime::NodeRuntime,
    service::{FleetService, ServiceOptions},
    topics::ClusterTopics,
};
use crate::{
    assignments::Assignments,
    chaos::{NodeChaos, experiments::ClusterSeams},
    deployments,
    events::{EventKind, EventLog, FleetEvent},
    function_documents::FunctionDocuments,
    hold::Veto,
    installer::Installer,
    reports::{Description, FunctionReport, NodeReport},
    stored,
    trust::Trust,
};

/// The id of a store that belongs to a cluster and to no node, unless another is given.
const HUB: &str = "hub";
/// The document of the lease, and its key.
const LEASE: &str = "edgeward.hub.lease";
const TERM: &str = "term";
/// Heartbeats after which what a silent node had is placed elsewhere, where there are to be so many of it.
const HEAL_AFTER_HEARTBEATS: u32 = 200;

/// What a cluster is made with.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Who it is among the members of its fleet.
    pub id: NodeId,
    /// Where everything that must last lies, which is made when it is missing; none for a cluster that ends with the process.
    pub folder: Option<PathBuf>,
    /// How often far nodes report.
    pub timing: Timing,
    /// How long a node may be silent before functions of which there are to be so many are placed elsewhere; none for 200 heartbeats.
    pub heal_after: Option<Duration>,
    /// Where it stands, as nodes say it by their label `site`: calls of functions go to nodes there before others.
    pub site: Option<String>,
    /// How much it keeps of the fleet's topics.
    pub topics: LogOptions,
}

impl ClusterOptions {
    /// A cluster that ends with the process.
    pub fn in_memory() -> Self {
        Self {
            id: NodeId::new(HUB).expect("it is a valid id"),
            folder: None,
            timing: Timing::default(),
            heal_after: None,
            site: None,
            topics: LogOptions::default(),
        }
    }

    /// A cluster in this folder.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()), ..Self::in_memory() }
    }
}

/// Nodes and what they should run. Thread-safe; clones are the same cluster.
///
/// ```
/// use edgeward::{EdgeCluster, EdgeFunction, EdgeNode, EdgeNodeStatus, Handler, HandlerName, NativeHandler};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let cluster = EdgeCluster::new()?;
/// let shout = HandlerName::new("shout")?;
/// for id in ["edge-01", "edge-02"] {
///     let runtime = cluster.register_node(EdgeNode::new(id, "warehouse")?)?;
///     runtime.register(shout.clone(), NativeHandler::json(async |text: String| Ok::<_, std::io::Error>(text.to_uppercase())))?;
/// }
/// let count = cluster.deploy_to_all(EdgeFunction::new("fn-1", "shout", Handler::Native(shout))?).await?;
/// assert_eq!((count, cluster.list_nodes(Some(EdgeNodeStatus::Online)).len()), (2, 2));
/// let runtime = cluster.get_runtime("edge-02").expect("it is registered");
/// assert_eq!(runtime.invoke("fn-1", r#""hello""#).await?, r#""HELLO""#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct EdgeCluster(Arc<Core>);

/// A cluster that others keep.
#[derive(Clone)]
pub(crate) struct WeakCluster(Weak<Core>);

impl WeakCluster {
    /// The cluster, if somebody still has it.
    pub(crate) fn upgrade(&self) -> Option<EdgeCluster> {
        self.0.upgrade().map(EdgeCluster)
    }
}

struct Core {
    id: NodeId,
    documents: Documents,
    assignments: Assignments,
    deployments: deployments::Store,
    /// What was read of the nodes for them: a large fleet is looked at often.
    known_facts: Mutex<deployments::KnownFacts>,
    /// Who may run what one node at a time may run; none before it is steered.
    grants: Mutex<Option<Grants>>,
    /// Wakes who steers them.
    steering: Notify,
    registry: Registry,
    trust: Arc<Trust>,
    events: Arc<EventLog>,
    artifacts: Arc<ArtifactStore>,
    /// Says whether an artifact can run at all. It runs nothing.
    checker: EdgeRuntime,
    timing: Timing,
    heal_after: Duration,
    begun: Instant,
    members: Mutex<Members>,
    /// The way to far nodes, while the cluster serves them.
    backbone: RwLock<Option<Arc<dyn Backbone>>>,
    /// How long functions may run that were called on far nodes of late: a call need not read the disk for it.
    deadlines: Mutex<HashMap<(NodeId, FunctionId), Duration>>,
    routing: Routing,
    chaos: ClusterSeams,
    /// None of a cluster that ends with the process.
    topics: Option<Arc<FleetTopics>>,
    /// Held while assignments are changed, so that what runs is what was assigned last.
    deploying: tokio::sync::Mutex<()>,
}

/// How the nodes of a cluster are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
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
    /// Events that the nodes had dropped when they were last heard, as their outboxes were full.
    pub dropped_events: u64,
}

impl std::fmt::Debug for EdgeCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeCluster").field("id", &self.0.id).finish_non_exhaustive()
    }
}

impl EdgeCluster {
    /// A cluster that ends with the process.
    pub fn new() -> Result<Self, EdgeError> {
        Self::with_options(ClusterOptions::in_memory())
    }

    /// A cluster whose nodes on other machines, assignments and artifacts lie in this folder, which is made when it is missing. A node of
    /// this process that is registered again gets what it was assigned.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, EdgeError> {
        Self::with_options(ClusterOptions::in_folder(folder))
    }

    /// A cluster with these options.
    pub fn with_options(options: ClusterOptions) -> Result<Self, EdgeError> {
        let ClusterOptions { id, folder, timing, heal_after, site, topics } = options;
        let epoch = Epoch::draw()?;
        let topics = folder.as_deref().map(|folder| FleetTopics::open(id.clone(), folder, topics)).transpose()?.map(Arc::new);
        let (store, artifacts) = match folder {
            Some(folder) => {
                let store = Store::open_as_it_is(&folder.join(crate::node::DOCUMENTS), id.clone(), epoch, Role::Hub)?;
                if store.role() == Role::Replica {
                    let message = format!("the folder `{}` belongs to a node, not to a hub", folder.display());
                    return Err(EdgeError::new(ErrorKind::Conflict, message));
                }
                (store, ArtifactStore::open(folder)?)
            }
            None => (Store::in_memory_as(id.clone(), epoch, Role::Hub)?, ArtifactStore::in_memory()),
        };
        let (documents, artifacts) = (Documents::new(store), Arc::new(artifacts));
        let registry = Registry::new(&documents)?;
        let trust = Arc::new(Trust::open(&documents, BTreeSet::new())?);
        let checking = RuntimeOptions { artifacts: Arc::clone(&artifacts), documents: None };
        let core = Core {
            assignments: Assignments::of_hub(documents.clone()),
            events: Arc::new(EventLog::new(&documents, id.clone())?),
            checker: EdgeRuntime::with_options(EdgeNode::new(id.as_str(), id.as_str())?, checking),
            members: Mutex::new(Members {
                membership: Membership::new(timing),
                nodes: BTreeMap::new(),
                duties: BTreeMap::new(),
                handlers: BTreeMap::new(),
            }),
            deployments: deployments::Store::new(&documents)?,
            known_facts: Mutex::default(),
            grants: Mutex::default(),
            steering: Notify::new(),
            begun: Instant::now(),
            backbone: RwLock::default(),
            deadlines: Mutex::default(),
            routing: Routing::new(site),
            chaos: ClusterSeams::default(),
            topics,
            deploying: tokio::sync::Mutex::default(),
            id,
            documents,
            registry,
            trust,
            artifacts,
            timing,
            heal_after: heal_after.unwrap_or(timing.heartbeat() * HEAL_AFTER_HEARTBEATS),
        };
        let cluster = Self(Arc::new(core));
        cluster.read_registry()?;
        Ok(cluster)
    }

    /// Who this cluster is among the members of its fleet.
    pub fn id(&self) -> &NodeId {
        &self.0.id
    }

    /// The documents of this cluster. Their calls wait for the disk: from async code, make them on a blocking thread.
    pub fn documents(&self) -> &Documents {
        &self.0.documents
    }

    /// What happened in this cluster.
    pub fn events(&self) -> &EventLog {
        &self.0.events
    }

    /// The artifacts of this cluster.
    pub fn artifacts(&self) -> &ArtifactStore {
        &self.0.artifacts
    }

    /// How often far nodes report.
    pub fn timing(&self) -> Timing {
        self.0.timing
    }

    /// Adds a node of this process and returns its runtime. Of a node that is registered already what is known of it is replaced, and its
    /// runtime stays. Its silence says nothing, as it cannot be away.
    ///
    /// What it was assigned before runs after [`EdgeCluster::reconcile`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the node is not valid, [`ErrorKind::Conflict`] when a far node has this id.
    pub fn register_node(&self, node: EdgeNode) -> Result<NodeRuntime, EdgeError> {
        node.validate()?;
        let now = self.now();
        let id = node.id.clone();
        let mut members = self.0.members.lock();
        let runtime = match members.nodes.get_mut(&id) {
            Some(Member::Far(_)) => {
                return Err(EdgeError::new(ErrorKind::Conflict, format!("node `{id}` is registered already, on another machine")));
            }
            Some(Member::Here(known, installer)) => {
                **known = node;
                Arc::clone(installer.runtime())
            }
            None => {
                members.membership.register(id.clone(), node.status, false, now)?;
                let documents = Some(Arc::new(FunctionDocuments(self.0.documents.clone())) as _);
                let options = RuntimeOptions { artifacts: Arc::clone(&self.0.artifacts), documents };
                let runtime = Arc::new(EdgeRuntime::with_options(node.clone(), options));
                for (name, handler) in &members.handlers {
                    runtime.register(name.clone(), handler.clone());
                }
                members
                    .nodes
                    .insert(id, Member::Here(Box::new(node), Arc::new(Installer::new(Arc::clone(&runtime), Arc::clone(&self.0.trust)))));
                runtime
            }
        };
        drop(members);
        self.wake_steering();
        Ok(self.runtime_of(Place::Here(runtime)))
    }

    /// Makes native code available under a name on every node of this process, and on those that are registered later before anything is
    /// deployed to them; the same name again replaces it for later deployments.
    pub fn register_handler(&self, name: HandlerName, handler: NativeHandler) {
        let mut members = self.0.members.lock();
        for runtime in members.runtimes_here() {
            runtime.register(name.clone(), handler.clone());
        }
        members.handlers.insert(name, handler);
    }

    /// Takes the name of native code from every node of this process; what is deployed keeps its code.
    pub fn unregister_handler(&self, name: &HandlerName) {
        let mut members = self.0.members.lock();
        members.handlers.remove(name);
        for runtime in members.runtimes_here() {
            runtime.unregister(name);
        }
    }

    /// Lets a node on another machine belong to the fleet, durably; it is OFFLINE until it reports. With a key it was let in before it
    /// comes again, with another key it takes the place of the earlier one. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when a node of this process has this id, [`ErrorKind::TooLarge`] when there are too many.
    pub fn admit(&self, id: &NodeId, public_key: Option<String>) -> Result<Registration, EdgeError> {
        if matches!(self.0.members.lock().nodes.get(id), Some(Member::Here(..))) {
            return Err(EdgeError::new(ErrorKind::Conflict, format!("node `{id}` is registered already, in the process of the hub")));
        }
        let registration = self.0.registry.put(id, public_key)?;
        let now = self.now();
        let mut members = self.0.members.lock();
        members.membership.register(id.clone(), EdgeNodeStatus::Offline, true, now)?;
        members.nodes.insert(id.clone(), Member::Far(registration.clone()));
        drop(members);
        self.0.events.tell(FleetEvent::new(EventKind::NodeJoined, format!("node `{id}` joined the fleet")).on(id));
        Ok(registration)
    }

    /// With which key a far node joined; none when it never did, or was removed. Reads the disk.
    pub fn key_of(&self, id: &NodeId) -> Result<Option<String>, EdgeError> {
        Ok(self.0.registry.get(id)?.filter(|known| known.removed_at.is_none()).and_then(|known| known.public_key))
    }

    /// Keys of nodes that were removed or joined anew, with when they ended. Reads the disk.
    pub fn revoked_keys(&self) -> Result<BTreeMap<String, Timestamp>, EdgeError> {
        Ok(self.0.registry.all()?.into_values().flat_map(|known| known.revoked_keys).collect())
    }

    /// The greatest term in which this cluster has served, 0 for none. Reads the disk.
    pub(crate) fn term(&self) -> Result<u64, EdgeError> {
        let value = self.0.documents.document(DocumentName::new(LEASE)?).get(TERM)?;
        value.map_or(Ok(0), |value| stored::of_value(&value, || format!("`{TERM}` of document `{LEASE}`")))
    }

    /// Notes in which term it serves from now on.
    pub(crate) fn set_term(&self, term: u64) -> Result<(), EdgeError> {
        let value = stored::to_value(&term)?;
        let document = self.0.documents.document(DocumentName::new(LEASE)?);
        document.edit(Precondition::None, move |draft| draft.set(TERM, &value)).map(drop)
    }

    /// Removes a node; false when there is none of this id. What it was assigned is forgotten, and a far one is refused from now on. Blocks for
    /// as long as the disk takes.
    pub fn deregister_node(&self, id: &str) -> Result<bool, EdgeError> {
        let Ok(id) = NodeId::new(id) else { return Ok(false) };
        let Some(member) = self.0.members.lock().nodes.get(&id).cloned() else { return Ok(false) };
        if matches!(member, Member::Far(_)) {
            self.0.registry.remove(&id)?;
        }
        {
            let mut members = self.0.members.lock();
            members.membership.deregister(&id);
            members.nodes.remove(&id);
            members.duties.remove(&id);
        }
        self.0.chaos.forget(&id);
        self.0.assignments.forget(&id)?;
        self.wake_steering();
        self.0.events.tell(FleetEvent::new(EventKind::NodeRemoved, format!("node `{id}` was removed")).on(&id));
        Ok(true)
    }

    /// Sets labels of a far node, or with none removes those that were set so. Blocks for as long as the disk takes.
    pub fn label_node(&self, id: &str, labels: BTreeMap<String, Option<String>>) -> Result<(), EdgeError> {
        let id = NodeId::new(id).map_err(|_| EdgeError::node_not_found(id))?;
        if let Some(Member::Here(..)) = self.0.members.lock().nodes.get(&id) {
            return Err(EdgeError::invalid(format!("node `{id}` is in this process: register it again with other labels")));
        }
        let registration = self.0.registry.label(&id, labels)?;
        if let Some(member) = self.0.members.lock().nodes.get_mut(&id) {
            *member = Member::Far(registration);
        }
        self.note_routes_change();
        self.0.events.tell(FleetEvent::new(EventKind::NodeLabelled, format!("the labels of node `{id}` were changed")).on(&id));
        Ok(())
    }

    /// Notes that a node reported now and lacks nothing. Of an unknown id it changes nothing.
    pub fn heartbeat(&self, id: &str) {
        let Ok(id) = NodeId::new(id) else { return };
        let now = self.now();
        self.report(&id, &Report::healthy(now.wall));
    }

    /// Notes what a node reported. Of an unknown id it changes nothing.
    fn report(&self, id: &NodeId, report: &Report) {
        let now = self.now();
        let transition = {
            let mut members = self.0.members.lock();
            if let Some(Member::Here(node, _)) = members.nodes.get_mut(id) {
                node.last_heartbeat = now.wall;
            }
            members.membership.heartbeat(id, report, now)
        };
        if let Some(transition) = transition {
            self.note_routes_change();
            self.0.events.tell(service::status_event(&transition));
        }
    }

    /// A node as it is now. Reads the disk when it is far.
    pub fn get_node(&self, id: &str) -> Option<EdgeNode> {
        self.view_node(id).map(|view| view.node)
    }

    /// A node with all that is known of it. Reads the disk when it is far.
    pub fn view_node(&self, id: &str) -> Option<NodeView> {
        let id = NodeId::new(id).ok()?;
        let described = self.described(&id);
        self.0.members.lock().view(&id, described)
    }

    /// What a far node says of itself. What cannot be read hides the node no more than what was never said.
    pub(crate) fn described(&self, id: &NodeId) -> Option<Description> {
        if !matches!(self.0.members.lock().nodes.get(id), Some(Member::Far(_))) {
            return None;
        }
        let described = NodeReport::new(&self.0.documents, id).and_then(|report| report.description());
        described.unwrap_or_else(|error| {
            tracing::warn!(node = %id, error = error.chain(), "a node's report could not be read");
            None
        })
    }

    /// The functions of a far node as it reports them, by id. Reads the disk.
    pub fn node_functions(&self, id: &str) -> Result<BTreeMap<FunctionId, FunctionReport>, EdgeError> {
        let id = NodeId::new(id).map_err(|_| EdgeError::node_not_found(id))?;
        NodeReport::new(&self.0.documents, &id)?.functions()
    }

    /// The runtime of a node.
    pub fn get_runtime(&self, id: &str) -> Option<NodeRuntime> {
        self.runtime(id).ok()
    }

    /// The runtime of a node, or why there is none.
    pub fn runtime(&self, id: &str) -> Result<NodeRuntime, EdgeError> {
        Ok(self.runtime_of(self.place(id)?))
    }

    /// Where a node is.
    fn place(&self, id: &str) -> Result<Place, EdgeError> {
        let id = match self.0.members.lock().nodes.get_key_value(id) {
            Some((_, Member::Here(_, installer))) => return Ok(Place::Here(Arc::clone(installer.runtime()))),
            Some((id, Member::Far(_))) => id.clone(),
            None => return Err(EdgeError::node_not_found(id)),
        };
        let backbone = self.0.backbone.read().clone().ok_or_else(|| no_way(&id))?;
        Ok(Place::Far(FarNode { id, backbone }))
    }

    fn runtime_of(&self, place: Place) -> NodeRuntime {
        NodeRuntime { cluster: self.clone(), place }
    }

    /// The nodes with this status, or all, by id. Reads the disk for those that are far.
    pub fn list_nodes(&self, status: Option<EdgeNodeStatus>) -> Vec<EdgeNode> {
        self.view_nodes(status).into_iter().map(|view| view.node).collect()
    }

    /// The nodes with this status, or all, by id, with all that is known of them. Reads the disk for those that are far.
    pub fn view_nodes(&self, status: Option<EdgeNodeStatus>) -> Vec<NodeView> {
        let ids: Vec<_> = self.0.members.lock().nodes.keys().cloned().collect();
        let views = ids.iter().filter_map(|id| {
            let described = self.described(id);
            self.0.members.lock().view(id, described)
        });
        views.filter(|view| status.is_none_or(|status| view.node.status == status)).collect()
    }

    /// The ids of the nodes.
    pub fn node_ids(&self) -> Vec<NodeId> {
        self.0.members.lock().nodes.keys().cloned().collect()
    }

    /// How the nodes are, in numbers.
    pub fn health(&self) -> ClusterHealth {
        let mut health = ClusterHealth { assignments: self.0.assignments.len().unwrap_or(0), ..ClusterHealth::default() };
        for (_, standing) in self.0.members.lock().membership.nodes() {
            health.nodes += 1;
            health.dropped_events += standing.health().map_or(0, |report| report.dropped_events);
            *match standing.status() {
                EdgeNodeStatus::Online => &mut health.online,
                EdgeNodeStatus::Degraded => &mut health.degraded,
                EdgeNodeStatus::Syncing => &mut health.syncing,
                EdgeNodeStatus::Offline => &mut health.offline,
            } += 1;
        }
        health
    }

    /// How each node is, and when it was last heard since this process began.
    pub(crate) fn standings(&self) -> Vec<(NodeId, EdgeNodeStatus, Option<Timestamp>)> {
        let members = self.0.members.lock();
        members.membership.nodes().map(|(id, standing)| (id.clone(), standing.status(), standing.last_heartbeat())).collect()
    }

    /// The nodes that are not OFFLINE.
    pub(crate) fn present(&self) -> BTreeSet<NodeId> {
        let members = self.0.members.lock();
        let present = members.membership.nodes().filter(|(_, standing)| standing.status() != EdgeNodeStatus::Offline);
        present.map(|(id, _)| id.clone()).collect()
    }

    fn member(&self, id: &str) -> Result<(NodeId, Member), EdgeError> {
        let members = self.0.members.lock();
        members.nodes.get_key_value(id).map(|(id, member)| (id.clone(), member.clone())).ok_or_else(|| EdgeError::node_not_found(id))
    }

    /// Takes over from the registry which far nodes there are.
    fn read_registry(&self) -> Result<(), EdgeError> {
        let registered = self.0.registry.all()?;
        let now = self.now();
        let mut members = self.0.members.lock();
        let gone: Vec<_> = members
            .nodes
            .iter()
            .filter(|(id, member)| {
                matches!(member, Member::Far(_)) && registered.get(*id).is_none_or(|registration| registration.removed_at.is_some())
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            members.membership.deregister(&id);
            members.nodes.remove(&id);
        }
        for (id, registration) in registered.into_iter().filter(|(_, registration)| registration.removed_at.is_none()) {
            if matches!(members.nodes.get(&id), Some(Member::Here(..))) {
                continue;
            }
            members.membership.register(id.clone(), EdgeNodeStatus::Offline, true, now)?;
            members.nodes.insert(id, Member::Far(registration));
        }
        Ok(())
    }

    pub(crate) fn downgrade(&self) -> WeakCluster {
        WeakCluster(Arc::downgrade(&self.0))
    }

    pub(crate) fn chaos_seams(&self) -> &ClusterSeams {
        &self.0.chaos
    }

    /// The faults of a node of this process; none of a far one.
    pub(crate) fn chaos_here(&self, node: &NodeId) -> Option<NodeChaos> {
        let installer = self.installer(node)?;
        Some(self.0.chaos.of(installer.runtime(), &self.0.events))
    }

    /// The way to far nodes, while the cluster serves them.
    pub(crate) fn backbone(&self) -> Option<Arc<dyn Backbone>> {
        self.0.backbone.read().clone()
    }

    pub(crate) fn deployment_store(&self) -> &deployments::Store {
        &self.0.deployments
    }

    pub(crate) fn known_facts(&self) -> &Mutex<deployments::KnownFacts> {
        &self.0.known_facts
    }

    pub(crate) fn grants(&self) -> &Mutex<Option<Grants>> {
        &self.0.grants
    }

    /// Has who steers the deployments look at once.
    pub(crate) fn wake_steering(&self) {
        self.0.steering.notify_one();
        self.note_routes_change();
    }

    /// Notes that calls may find their nodes by other ways now.
    pub(crate) fn note_routes_change(&self) {
        self.0.routing.note_change();
    }

    pub(crate) async fn steering_woken(&self) {
        self.0.steering.notified().await;
    }

    /// How long a node may be silent before functions of which there are to be so many are placed elsewhere.
    pub fn heal_after(&self) -> Duration {
        self.0.heal_after
    }

    /// What brings functions to a node of this process.
    fn installer(&self, node: &NodeId) -> Option<Arc<Installer>> {
        match self.0.members.lock().nodes.get(node) {
            Some(Member::Here(_, installer)) => Some(Arc::clone(installer)),
            _ => None,
        }
    }

    /// The nodes of this process, with what brings functions to them.
    pub(crate) fn installers_here(&self) -> Vec<(NodeId, Arc<Installer>)> {
        let members = self.0.members.lock();
        let here = members.nodes.iter().filter_map(|(id, member)| match member {
            Member::Here(_, installer) => Some((id.clone(), Arc::clone(installer))),
            Member::Far(_) => None,
        });
        here.collect()
    }

    /// Every node as it is now and describes itself, with what brings functions to it where that is in this process.
    pub(crate) fn members_here_and_far(
        &self,
        mut described: impl FnMut(&NodeId) -> Option<Description>,
    ) -> Vec<(NodeId, NodeView, Option<Arc<Installer>>)> {
        let members = self.node_ids().into_iter().filter_map(|id| {
            let described = described(&id);
            let view = self.0.members.lock().view(&id, described)?;
            let here = self.installer(&id);
            Some((id, view, here))
        });
        members.collect()
    }

    /// Has functions of which there are to be so many leave a node, or lets them come again. Blocks for as long as the disk takes.
    pub fn drain_node(&self, id: &str, draining: bool) -> Result<(), EdgeError> {
        let what = if draining { "is drained" } else { "is no longer drained" };
        self.change_duties(id, what, |duties| duties.draining = draining)
    }

    /// Has a node get no updates, or get them again; what runs goes on. Blocks for as long as the disk takes.
    pub fn hold_node(&self, id: &str, veto: Option<Veto>) -> Result<(), EdgeError> {
        let what = veto.as_ref().map_or_else(|| "gets updates again".to_owned(), |veto| format!("gets no updates: {veto}"));
        self.change_duties(id, &what, |duties| duties.veto = veto)
    }

    fn change_duties(&self, id: &str, what: &str, change: impl FnOnce(&mut Duties)) -> Result<(), EdgeError> {
        let (id, _) = self.member(id)?;
        let mut duties = self.0.members.lock().duties(&id);
        change(&mut duties);
        if self.installer(&id).is_some() {
            self.0.members.lock().duties.insert(id.clone(), duties);
        } else {
            let registration = self.0.registry.set_duties(&id, duties)?;
            if let Some(member) = self.0.members.lock().nodes.get_mut(&id) {
                *member = Member::Far(registration);
            }
        }
        self.0.events.tell(FleetEvent::new(EventKind::NodeDuties, format!("node `{id}` {what}")).on(&id));
        self.wake_steering();
        Ok(())
    }

    /// Says whether a far node belongs to the fleet.
    fn check_member(&self, id: &NodeId) -> Result<(), EdgeError> {
        if matches!(self.0.members.lock().nodes.get(id), Some(Member::Far(_))) {
            return Ok(());
        }
        let message = format!("node `{id}` does not belong to this fleet: it was removed, or never joined; join it with a new token");
        Err(EdgeError::new(ErrorKind::Forbidden, message))
    }

    fn now(&self) -> Moment {
        Moment { elapsed: self.0.begun.elapsed(), wall: Timestamp::now() }
    }
}
