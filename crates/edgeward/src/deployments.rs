//! Deployments of a fleet: what should run where, in which revision, and how it gets there.
//!
//! A deployment, its revisions and its rollouts are keys of one document of the hub, so that what belongs together changes together.
//! [`steering`] makes them real.

mod facts;
mod leases;
mod plan;
pub mod steering;
mod stored;

use std::time::Duration;

use edgeward_cluster::{
    placement::Move,
    rollout::{Approval, NodeFacts, Phase, Rollout, RolloutState, Served},
};
use edgeward_model::{
    EdgeError, EdgeFunction, ErrorKind, FunctionId, NodeId, Strategy, Target,
    limits::{DEPLOYED_FUNCTION_BYTES_MAX, DEPLOYMENT_BYTES_MAX, REVISIONS_MAX},
};
use edgeward_runtime::blocking;
use jiff::Timestamp;
use serde::Serialize;

pub use self::{
    plan::{Difference, Plan, PlannedWave},
    stored::{Deployment, Revision},
};
use crate::{
    events::{EventKind, FleetEvent},
    fleet::EdgeCluster,
    stored::bytes_of,
};
pub(crate) use facts::{Cache as KnownFacts, routes};
pub(crate) use stored::Deployments as Store;
use stored::Wish;

/// Time between two looks whether a generation is taken up.
const OBSERVED_EVERY: Duration = Duration::from_millis(20);
/// Forms of one function that a deployment takes over from nodes: as revisions that are kept, beside the new one and one more.
const ADOPTED_MAX: usize = REVISIONS_MAX - 2;
/// Functions that one call moves, at most.
pub const MOVES_MAX: usize = 100;

/// What somebody wants deployed.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentSpec {
    /// The function, which becomes a revision when none that is kept is the same.
    pub function: EdgeFunction,
    /// Where it is to run.
    pub target: Target,
    /// How it gets there.
    pub strategy: Strategy,
}

impl DeploymentSpec {
    /// A function on every node, by a rolling strategy.
    pub fn new(function: EdgeFunction) -> Self {
        Self { function, target: Target::all(), strategy: Strategy::default() }
    }

    /// Checks every part against its bounds.
    pub fn validate(&self) -> Result<(), EdgeError> {
        self.function.validate()?;
        self.target.validate()?;
        self.strategy.validate()?;
        let id = &self.function.id;
        let within = |what: &str, bytes: usize, most: usize, how: &str| {
            if bytes <= most {
                return Ok(());
            }
            let message = format!("{what} of the deployment of function `{id}` takes {bytes} bytes as JSON, the most is {most}; {how}");
            Err(EdgeError::new(ErrorKind::TooLarge, message))
        };
        let how = "make its environment smaller, or keep what is large in a document";
        within("the function", bytes_of(&self.function)?, DEPLOYED_FUNCTION_BYTES_MAX, how)?;
        let how = "choose nodes by a label";
        within("target and strategy", bytes_of(&(&self.target, &self.strategy))?, DEPLOYMENT_BYTES_MAX, how)
    }
}

/// A deployment as a caller may see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeploymentView {
    /// The deployment.
    #[serde(flatten)]
    pub deployment: Deployment,
    /// The function of its revision; values of the environment are redacted.
    pub definition: EdgeFunction,
    /// The revision that its nodes are to serve: another than the deployment's when the rollout of that went back.
    pub serving: u64,
    /// How its nodes are with that.
    pub nodes: NodeCounts,
    /// The node that has its lease now, where one node at a time may run it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<NodeId>,
}

/// Nodes of a deployment, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct NodeCounts {
    /// Nodes that it is for.
    pub wanted: usize,
    /// Those that were ordered to serve the revision.
    pub updated: usize,
    /// Those of them that serve it.
    pub ready: usize,
    /// Those of them that cannot.
    pub failed: usize,
    /// Those that cannot be given it now: silent or held.
    pub pending: usize,
}

/// A rollout as a caller may see it: with its name, and its nodes wave by wave.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RolloutView {
    /// What names it.
    pub id: String,
    /// The rollout.
    #[serde(flatten)]
    pub rollout: Rollout,
    /// Its nodes by wave; empty for one of earlier.
    pub waves: Vec<WaveView>,
}

/// The nodes of one wave.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WaveView {
    /// Its number, from 0 on. Waves without nodes are left out.
    pub number: usize,
    /// What nodes of this wave have in common.
    pub of: String,
    /// How they are.
    pub nodes: NodeCounts,
}

/// The deployments of a cluster. Clones are the same.
#[derive(Clone, Debug)]
pub struct ClusterDeployments {
    cluster: EdgeCluster,
}

impl EdgeCluster {
    /// What is deployed in this cluster by target and strategy. [`EdgeCluster::steer`] makes it real.
    pub fn deployments(&self) -> ClusterDeployments {
        ClusterDeployments { cluster: self.clone() }
    }

    /// Deploys a function to the node with the least to do; see [`ClusterDeployments::apply`].
    pub async fn deploy_least_loaded(&self, function: EdgeFunction) -> Result<DeploymentView, EdgeError> {
        let target = Target::Count { count: 1, among: edgeward_model::Selector::default() };
        self.deployments().apply(DeploymentSpec { function, target, strategy: Strategy::default() }, None).await
    }
}

impl ClusterDeployments {
    fn store(&self) -> &Store {
        self.cluster.deployment_store()
    }

    /// Wants a function deployed, durably, in place of an earlier deployment of it. With a generation, only when that is the present one; 0 only
    /// creates. What is the same as before changes nothing, unless its rollout went back: then it is tried again.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] and [`ErrorKind::RefusedArtifact`] for what no node could run, [`ErrorKind::Conflict`] for another generation,
    /// [`ErrorKind::NotFound`] for a named node that there is none of, [`ErrorKind::TooLarge`] past
    /// [`edgeward_model::limits::DEPLOYMENTS_MAX`].
    pub async fn apply(&self, spec: DeploymentSpec, generation: Option<u64>) -> Result<DeploymentView, EdgeError> {
        self.want(spec, generation, false).await
    }

    async fn want(&self, spec: DeploymentSpec, generation: Option<u64>, at_once: bool) -> Result<DeploymentView, EdgeError> {
        self.check(&spec).await?;
        let id = spec.function.id.clone();
        let (store, cluster) = (self.store().clone(), self.cluster.clone());
        let changed = blocking(move || {
            let adopted = adopted(&cluster, &spec.function.id)?;
            store.apply(Wish { spec, generation, adopted, at_once }, Timestamp::now())
        })
        .await?;
        if let Some(deployment) = changed {
            let what = format!("function `{id}` is to run in revision {} on {}", deployment.revision, deployment.target);
            self.cluster.events().tell(FleetEvent::new(EventKind::DeploymentChanged, what).of(&id));
        }
        self.cluster.wake_steering();
        self.get(&id).await
    }

    /// Refuses what could run nowhere.
    async fn check(&self, spec: &DeploymentSpec) -> Result<(), EdgeError> {
        spec.validate()?;
        if let Target::Nodes(nodes) = &spec.target
            && let Some(unknown) = nodes.iter().find(|node| !self.cluster.node_ids().contains(node))
        {
            return Err(EdgeError::node_not_found(unknown.as_str()));
        }
        self.cluster.check_function(&spec.function).await
    }

    /// Every deployment, by function.
    pub async fn list(&self) -> Result<Vec<DeploymentView>, EdgeError> {
        let this = self.clone();
        blocking(move || {
            let gathering = facts::Facts::read(&this.cluster)?;
            let deployments = this.store().all()?;
            let mut views = Vec::new();
            for deployment in deployments.values().filter(|deployment| !deployment.deleted) {
                match this.view(deployment, &gathering) {
                    Ok(view) => views.push(view),
                    Err(error) => tracing::warn!(function = %deployment.function, error = error.chain(), "a deployment is not listed"),
                }
            }
            Ok(views)
        })
        .await
    }

    /// One deployment.
    pub async fn get(&self, id: &FunctionId) -> Result<DeploymentView, EdgeError> {
        let (this, id) = (self.clone(), id.clone());
        blocking(move || {
            let deployment = this.store().find(&id)?;
            let gathering = facts::Facts::read(&this.cluster)?;
            this.view(&deployment, &gathering)
        })
        .await
    }

    fn view(&self, deployment: &Deployment, gathering: &facts::Facts) -> Result<DeploymentView, EdgeError> {
        let revision = self.store().revision(&deployment.function, deployment.revision)?;
        let facts = gathering.of(&self.cluster, deployment, &revision.function, Timestamp::now());
        let mut definition = revision.function;
        definition.environment = definition.environment.redacted();
        // After a rollout that went back the nodes are to serve what was there before.
        let serving = deployment.rollout.goal().unwrap_or(deployment.revision);
        let of_target = facts.nodes.values().filter(|node| node.in_target);
        let nodes = of_target.fold(NodeCounts::default(), |counts, node| counts.with(node, serving));
        let lease = self.cluster.lease_holder(&deployment.function).filter(|_| deployment.target.is_exclusive());
        Ok(DeploymentView { deployment: deployment.clone(), definition, serving, nodes, lease })
    }

    /// What applying this would do; nothing is changed.
    pub async fn plan(&self, spec: DeploymentSpec) -> Result<Plan, EdgeError> {
        self.check(&spec).await?;
        let this = self.clone();
        blocking(move || plan::plan(&this.cluster, &spec)).await
    }

    /// The revisions of a function that are kept, oldest first; values of the environment are redacted.
    pub async fn revisions(&self, id: &FunctionId) -> Result<Vec<Revision>, EdgeError> {
        let (store, id) = (self.store().clone(), id.clone());
        blocking(move || {
            store.find(&id)?;
            let mut revisions = store.revisions(&id)?;
            for revision in &mut revisions {
                revision.function.environment = revision.function.environment.redacted();
            }
            Ok(revisions)
        })
        .await
    }

    /// In what two revisions of a function differ: by field, what it was and what it is. Values of the environment are not shown.
    pub async fn diff(&self, id: &FunctionId, from: u64, to: u64) -> Result<Vec<plan::Difference>, EdgeError> {
        let (store, id) = (self.store().clone(), id.clone());
        blocking(move || {
            store.find(&id)?;
            plan::differences(&store.revision(&id, from)?.function, &store.revision(&id, to)?.function)
        })
        .await
    }

    /// Removes a deployment, also one that cannot be read: its function is taken from every node. Returns whether there was one.
    pub async fn remove(&self, id: &FunctionId) -> Result<bool, EdgeError> {
        let (store, of) = (self.store().clone(), id.clone());
        let is_unreadable = blocking(move || store.is_unreadable(&of)).await?;
        if is_unreadable {
            self.take_from_all(id).await?;
        }
        let (store, of) = (self.store().clone(), id.clone());
        let existed = blocking(move || if is_unreadable { store.forget(&of).map(|()| true) } else { store.mark_deleted(&of) }).await?;
        if existed {
            let what = format!("the deployment of function `{id}` was removed");
            self.cluster.events().tell(FleetEvent::new(EventKind::DeploymentChanged, what).of(id));
            self.cluster.wake_steering();
        }
        Ok(existed)
    }

    /// Takes a function from every node at once, as nobody knows which have it by the deployment.
    async fn take_from_all(&self, id: &FunctionId) -> Result<(), EdgeError> {
        let _deploying = self.cluster.deploying().await;
        let (cluster, of) = (self.cluster.clone(), id.clone());
        blocking(move || cluster.node_ids().iter().try_for_each(|node| cluster.assignments().remove(node, &of).map(drop))).await?;
        self.cluster.forget_deadlines(id);
        for node in self.cluster.node_ids() {
            self.cluster.remove_here(&node, id);
        }
        Ok(())
    }

    /// Every rollout that is kept, the newest of each function first.
    pub async fn rollouts(&self) -> Result<Vec<RolloutView>, EdgeError> {
        let this = self.clone();
        blocking(move || {
            let rollouts = this.store().rollouts()?;
            Ok(rollouts.into_iter().map(|rollout| RolloutView { id: rollout.id(), rollout, waves: Vec::new() }).collect())
        })
        .await
    }

    /// One rollout, by its id or by its function, of which it is then the present one.
    pub async fn rollout(&self, id: &str) -> Result<RolloutView, EdgeError> {
        let (this, id) = (self.clone(), id.to_owned());
        blocking(move || {
            let Some(deployment) = this.store().by_rollout(&id)? else {
                let earlier = this.store().rollouts()?.into_iter().find(|rollout| rollout.id() == id);
                let rollout = earlier.ok_or_else(|| rollout_not_found(&id))?;
                return Ok(RolloutView { id: rollout.id(), rollout, waves: Vec::new() });
            };
            let gathering = facts::Facts::read(&this.cluster)?;
            let revision = this.store().revision(&deployment.function, deployment.rollout.to)?;
            let facts = gathering.of(&this.cluster, &deployment, &revision.function, Timestamp::now());
            let strategy = deployment.rollout_strategy().into_owned();
            let waves = wave_names(&strategy).enumerate().map(|(wave, of)| {
                let nodes = facts.nodes.values().filter(|node| node.in_target && node.wave == wave);
                WaveView {
                    number: wave,
                    of,
                    nodes: nodes.fold(NodeCounts::default(), |counts, node| counts.with(node, deployment.rollout.to)),
                }
            });
            let waves = waves.filter(|wave| wave.nodes.wanted > 0).collect();
            Ok(RolloutView { id: deployment.rollout.id(), rollout: deployment.rollout, waves })
        })
        .await
    }

    /// Lets no further node get the revision of a rollout.
    pub async fn pause(&self, id: &str) -> Result<(), EdgeError> {
        self.change(id, |rollout, _| rollout.pause("somebody paused it")).await
    }

    /// Lets a paused rollout go on.
    pub async fn resume(&self, id: &str) -> Result<(), EdgeError> {
        self.change(id, Rollout::resume).await
    }

    /// Agrees to what a rollout waits for.
    pub async fn approve(&self, id: &str) -> Result<(), EdgeError> {
        self.change(id, Rollout::approve).await
    }

    /// Ends a rollout, and brings the former revision back.
    pub async fn abort(&self, id: &str) -> Result<(), EdgeError> {
        self.change(id, |rollout, now| rollout.abort("somebody aborted it", now)).await
    }

    async fn change(
        &self,
        id: &str,
        change: impl FnOnce(&mut Rollout, Timestamp) -> Result<(), EdgeError> + Send + 'static,
    ) -> Result<(), EdgeError> {
        let (store, of) = (self.store().clone(), id.to_owned());
        let rollout = blocking(move || {
            let deployment = store.by_rollout(&of)?.ok_or_else(|| rollout_not_found(&of))?;
            store.change_rollout(&deployment.function, move |rollout| change(rollout, Timestamp::now()))
        })
        .await?;
        steering::tell(&self.cluster, &rollout);
        self.cluster.wake_steering();
        Ok(())
    }

    /// Goes back to the revision before, or to one that is kept: a rollout on its way is aborted, and of one that is complete the former revision
    /// is rolled out to all nodes at once. The strategy of the deployment stays what it is.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when there is none to go back to, [`ErrorKind::RefusedArtifact`] when nodes would refuse it as an old image.
    pub async fn rollback(&self, id: &str, revision: Option<u64>) -> Result<DeploymentView, EdgeError> {
        let (store, of) = (self.store().clone(), id.to_owned());
        let deployment = blocking(move || store.by_rollout(&of)?.ok_or_else(|| rollout_not_found(&of))).await?;
        let function = deployment.function.clone();
        if !deployment.rollout.state.is_over() && revision.is_none_or(|revision| Some(revision) == deployment.rollout.from) {
            if deployment.rollout.phase != Phase::Restoring {
                self.abort(id).await?;
            }
            return self.get(&function).await;
        }
        let former = revision.or(deployment.rollout.from).filter(|former| Some(*former) != deployment.rollout.goal());
        let Some(former) = former else {
            let why = match revision.or(deployment.rollout.from) {
                Some(goal) => format!("function `{function}` is kept at revision {goal} already; name another by `--revision`"),
                None => format!("there is no revision of function `{function}` to go back to"),
            };
            let message = format!("{why}: `edgeward deployments show {function}` lists those that are kept");
            return Err(EdgeError::new(ErrorKind::Conflict, message));
        };
        let (store, of, present) = (self.store().clone(), function.clone(), deployment.rollout.goal());
        let (revision, present) = blocking(move || {
            let present = present.map(|present| store.revision(&of, present)).transpose()?;
            Ok((store.revision(&of, former)?, present))
        })
        .await?;
        let Revision { function, .. } = revision;
        if let Some(present) = present.filter(|_| self.cluster.requires_signatures()) {
            check_counter(&function, former, &present)?;
        }
        let spec = DeploymentSpec { function, target: deployment.target, strategy: deployment.strategy };
        self.want(spec, Some(deployment.generation), true).await
    }

    /// Waits until the present generation of a deployment is taken up: its rollout has begun, or nothing had to be rolled out. Not for longer than
    /// this time: the rollout before it may go back first.
    pub async fn until_observed(&self, id: &FunctionId, time: Duration) -> Result<(), EdgeError> {
        let deadline = tokio::time::Instant::now() + time;
        loop {
            let (store, of) = (self.store().clone(), id.clone());
            let deployment = blocking(move || store.find(&of)).await?;
            if deployment.observed_generation >= deployment.generation || tokio::time::Instant::now() >= deadline {
                return Ok(());
            }
            tokio::time::sleep(OBSERVED_EVERY).await;
        }
    }

    /// Waits until the rollout of the present generation of a deployment has ended, or goes no further by itself: it is paused, or somebody must
    /// approve. Returns it.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when that takes longer than this time.
    pub async fn until_settled(&self, id: &FunctionId, time: Duration) -> Result<RolloutView, EdgeError> {
        let deadline = tokio::time::Instant::now() + time;
        loop {
            let (store, of) = (self.store().clone(), id.clone());
            let deployment = blocking(move || store.find(&of)).await?;
            let Rollout { state, phase, approval, .. } = deployment.rollout;
            let needs_somebody = state == RolloutState::Paused || (approval == Approval::Awaited && phase != Phase::Restoring);
            let is_settled = state.is_over() || needs_somebody;
            if deployment.observed_generation >= deployment.generation && is_settled {
                return self.rollout(id.as_str()).await;
            }
            if tokio::time::Instant::now() >= deadline {
                let message = format!("the rollout of function `{id}` is {} after {time:?}", state.as_str().replace('_', " "));
                return Err(EdgeError::new(ErrorKind::Timeout, message));
            }
            tokio::time::sleep(OBSERVED_EVERY).await;
        }
    }

    /// Moves functions of which there are to be so many from nodes with many functions to nodes with few: at most so many, each first there and
    /// then gone here. Returns the moves that were begun.
    pub async fn rebalance(&self, moves_max: usize) -> Result<Vec<Move>, EdgeError> {
        let this = self.clone();
        let moves = blocking(move || {
            let gathering = facts::Facts::read(&this.cluster)?;
            let deployments = this.store().all()?;
            let moves = gathering.rebalance(&this.cluster, this.store(), &deployments, moves_max.min(MOVES_MAX))?;
            for one in &moves {
                let from = one.from.clone();
                this.store().change(&one.function, move |deployment| {
                    deployment.leaving.insert(from);
                    Ok(())
                })?;
            }
            Ok(moves)
        })
        .await?;
        self.cluster.wake_steering();
        Ok(moves)
    }
}

impl NodeCounts {
    fn with(self, node: &NodeFacts, revision: u64) -> Self {
        let is_updated = node.serves() == Some(revision);
        let is = |served: Served| usize::from(is_updated && node.observed.served == served);
        Self {
            wanted: self.wanted + 1,
            updated: self.updated + usize::from(is_updated),
            ready: self.ready + is(Served::Ready),
            failed: self.failed + is(Served::Failed),
            pending: self.pending + usize::from(!is_updated && !node.can_take()),
        }
    }
}

/// What the nodes of each wave have in common; those of none come last.
fn wave_names(strategy: &Strategy) -> impl Iterator<Item = String> {
    let rest = if strategy.waves.is_empty() { "all" } else { "the rest" };
    strategy.waves.iter().map(ToString::to_string).chain([rest.to_owned()])
}

/// What nodes have of a function by themselves, each once, which its first deployment adopts. Blocks for as long as the disk takes.
fn adopted(cluster: &EdgeCluster, id: &FunctionId) -> Result<Vec<EdgeFunction>, EdgeError> {
    // Of what is deployed so already nobody has anything by himself.
    let adopted = if cluster.deployment_store().get(id)?.is_none() { cluster.assigned_alone(id)? } else { Vec::new() };
    if adopted.len() <= ADOPTED_MAX {
        return Ok(adopted);
    }
    let message = format!(
        "nodes have function `{id}` by themselves in {} forms, and a deployment takes over at most {ADOPTED_MAX}; assign one of them to more nodes first",
        adopted.len()
    );
    Err(EdgeError::new(ErrorKind::Conflict, message))
}

/// Refuses to go back to an image that nodes would refuse, as they have confirmed a newer one.
fn check_counter(function: &EdgeFunction, revision: u64, present: &Revision) -> Result<(), EdgeError> {
    let counter = |function: &EdgeFunction| function.signature.map(|signature| signature.counter);
    match (counter(function), counter(&present.function)) {
        (Some(former), Some(confirmed)) if former < confirmed => {
            let id = &function.id;
            let message = format!(
                "revision {revision} of function `{id}` is signed with counter {former}, and nodes that run revision {} refuse less than {confirmed}; \
                 sign its artifact anew with a counter of {confirmed} or more, and deploy that",
                present.revision
            );
            Err(EdgeError::new(ErrorKind::RefusedArtifact, message))
        }
        _ => Ok(()),
    }
}

fn rollout_not_found(id: &str) -> EdgeError {
    let shown: String = id.chars().take(128).collect();
    EdgeError::new(ErrorKind::NotFound, format!("rollout not found: `{}`; `edgeward rollouts list` shows them", shown.escape_debug()))
}
