//! Makes the deployments of a fleet real: reads what is true, decides, keeps the decision, and gives the orders that follow.
//!
//! It looks at everything anew each time, so it goes on after any crash from what is kept. A decision is on the disk before its first order.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use edgeward_cluster::rollout::{self, Approval, Decision, Order, Phase, Rollout, RolloutState, Scope};
use edgeward_model::{EdgeError, EdgeFunction, ErrorKind, FunctionId, NodeId, Schedule, Trigger, limits::FUNCTION_LEASE_ASKED_EVERY};
use edgeward_runtime::{blocking, uptime};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::{
    facts::{Cache, Facts, beginning},
    stored::{Deployment, Deployments},
};
use crate::{
    allotments::{
        Allotted,
        assigner::{All, Assigner, WantedOf},
        record::Record,
    },
    desired::record::{RevisionRecord, WarmRecord},
    events::{EventKind, FleetEvent},
    fleet::EdgeCluster,
    node::Source,
};

/// Time between two looks while a rollout is on its way, at least.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Time between two looks when nothing is.
const IDLE_EVERY: Duration = Duration::from_secs(2);
/// Orders that are written at once, each to its node's document.
const ORDERING_CONCURRENCY: usize = 32;

/// Steers the deployments of a cluster. Dropped, it stops; what runs goes on.
pub struct Steering {
    _task: AbortOnDropHandle<()>,
}

impl EdgeCluster {
    /// Begins to make the deployments of this cluster real, for as long as it is kept. A hub that serves its fleet does it already.
    pub fn steer(&self) -> Steering {
        Steering { _task: AbortOnDropHandle::new(tokio::spawn(steer(self.clone()))) }
    }
}

async fn steer(cluster: EdgeCluster) {
    // What was read as a standby may be something else now under the same version.
    *cluster.known_facts().lock() = Cache::default();
    let steering = Steersman { cluster: cluster.clone(), wanted: Arc::default(), allotments: Arc::default(), failures: Mutex::default() };
    loop {
        let begun = Instant::now();
        let is_busy = match steering.look(Timestamp::now()).await {
            Ok(is_busy) => is_busy,
            Err(error) => {
                tracing::warn!(error = error.chain(), "the deployments could not be looked after; it is tried again");
                false
            }
        };
        // A look at a large fleet takes time, and others want the processor too.
        let pause = if is_busy { LOOK_EVERY.max(begun.elapsed()) } else { IDLE_EVERY };
        tokio::select! {
            () = sleep(pause) => {}
            () = cluster.steering_woken() => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Has each node have what is for it of a kind. What fails is tried again with the next look.
fn allot<T: Allotted>(cluster: &EdgeCluster, assigner: &mut Assigner<T>, all: &[Arc<Record<T>>], facts: &Facts, now: Timestamp) {
    let (mut wanted, holders, none) = (WantedOf::<T>::new(), assigner.holders(), BTreeSet::new());
    let candidates = facts.candidates_far(cluster, now);
    for record in all {
        let id = record.wanted.id();
        for node in facts.of_allotted(&candidates, &record.wanted, holders.get(id.borrow()).unwrap_or(&none)) {
            wanted.entry(node).or_default().insert(id.clone(), Arc::clone(record));
        }
    }
    if let Err(error) = assigner.assign(cluster, &wanted) {
        tracing::warn!(error = error.chain(), "{}s could not be assigned; it is tried again", T::KIND);
        *assigner = Assigner::default();
    }
}

/// What there is to be of a kind; none where nothing is to be done.
fn wanted_of<T: Allotted>(cluster: &EdgeCluster, assigner: &mut Assigner<T>) -> Option<All<T>> {
    assigner.wanted(cluster).unwrap_or_else(|error| {
        tracing::warn!(error = error.chain(), "the {}s of the fleet could not be read", T::KIND);
        None
    })
}

/// Which nodes have what of each kind.
#[derive(Default)]
struct Allotments {
    schedules: Assigner<Schedule>,
    triggers: Assigner<Trigger>,
}

struct Steersman {
    cluster: EdgeCluster,
    /// The deployments as they were read last: most looks find them unchanged.
    wanted: Arc<Mutex<Wanted>>,
    allotments: Arc<Mutex<Allotments>>,
    /// Why orders could not be given that were given last.
    failures: Mutex<BTreeMap<(FunctionId, NodeId), String>>,
}

/// The deployments of one version of their document, each with the function of its revision.
#[derive(Clone, Default)]
struct Wanted {
    version: u64,
    deployments: Arc<Vec<(Deployment, EdgeFunction)>>,
}

impl Wanted {
    /// Reads them again when they changed.
    fn refresh(&mut self, store: &Deployments) -> Result<(), EdgeError> {
        let version = store.version()?;
        if version == self.version {
            return Ok(());
        }
        let mut deployments = Vec::new();
        for (id, deployment) in store.all()? {
            match store.revision(&id, deployment.revision) {
                Ok(revision) => deployments.push((deployment, revision.function)),
                Err(error) => tracing::warn!(function = %id, error = error.chain(), "a deployment could not be looked after"),
            }
        }
        *self = Self { version, deployments: Arc::new(deployments) };
        Ok(())
    }
}

impl Steersman {
    /// Looks after every deployment once. Says whether something is on its way.
    async fn look(&self, now: Timestamp) -> Result<bool, EdgeError> {
        let (cluster, wanted, allotments) = (self.cluster.clone(), Arc::clone(&self.wanted), Arc::clone(&self.allotments));
        let (deployments, facts) = blocking(move || {
            let mut wanted = wanted.lock();
            wanted.refresh(cluster.deployment_store())?;
            let Allotments { schedules, triggers } = &mut *allotments.lock();
            let (all_schedules, all_triggers) = (wanted_of(&cluster, schedules), wanted_of(&cluster, triggers));
            let is_idle = wanted.deployments.is_empty() && all_schedules.is_none() && all_triggers.is_none();
            let facts = if is_idle { Facts::default() } else { Facts::read(&cluster)? };
            if let Some(all) = all_schedules {
                allot(&cluster, schedules, &all, &facts, now);
            }
            if let Some(all) = all_triggers {
                allot(&cluster, triggers, &all, &facts, now);
            }
            Ok((Arc::clone(&wanted.deployments), facts))
        })
        .await?;
        let mut is_busy = false;
        for (deployment, function) in &*deployments {
            let id = &deployment.function;
            match self.steer(deployment, function, &facts, now).await {
                Ok(busy) => is_busy |= busy,
                Err(error) => tracing::warn!(function = %id, error = error.chain(), "a deployment could not be looked after"),
            }
        }
        let cluster = self.cluster.clone();
        let leased = blocking(move || {
            // Of a cluster that serves nobody far no other hub leads.
            if cluster.grants().lock().is_none() {
                cluster.begin_grants(None)?;
            }
            cluster.forget_grants(|id| {
                deployments.iter().any(|(deployment, _)| deployment.function == *id && deployment.target.is_exclusive())
            })?;
            cluster.tend_trust_here()?;
            lease_here(&cluster)
        });
        Ok(is_busy | leased.await?)
    }

    /// Looks after one deployment. Says whether something is on its way.
    async fn steer(&self, deployment: &Deployment, function: &EdgeFunction, facts: &Facts, now: Timestamp) -> Result<bool, EdgeError> {
        let mut found = facts.of(&self.cluster, deployment, function, now);
        for (node, facts) in &mut found.nodes {
            let failures = self.failures.lock();
            if !failures.is_empty() {
                facts.order_failure = failures.get(&(deployment.function.clone(), node.clone())).cloned();
            }
        }
        if deployment.deleted {
            let holders = found.nodes.into_iter().filter(|(_, node)| node.ordered.is_some()).map(|(node, _)| node);
            return self.remove(deployment, holders.collect()).await;
        }
        let is_superseded = deployment.generation != deployment.observed_generation;
        if is_superseded && deployment.rollout.state.is_over() {
            return self.begin(deployment, now).await.map(|()| true);
        }
        let strategy = deployment.rollout_strategy();
        let scope = Scope { strategy: &strategy, wanted: found.wanted, is_superseded };
        let Decision { rollout, mut orders } = rollout::decide(&deployment.rollout, scope, &found.nodes, now);
        let left: Vec<_> = deployment.leaving.iter().filter(|node| !found.nodes.contains_key(*node)).cloned().collect();
        for node in found.misled {
            if let Some(ordered) = found.nodes.get(&node).and_then(|facts| facts.ordered) {
                orders.entry(node).or_insert(ordered);
            }
        }
        let is_news = rollout != deployment.rollout || found.missing != deployment.missing || !left.is_empty();
        if is_news && !self.keep(deployment, rollout.clone(), found.missing, left).await? {
            return Ok(true);
        }
        // What waits for people, or for nodes that are away, is looked at now and then.
        let is_busy =
            is_superseded || !orders.is_empty() || (rollout.state == RolloutState::InProgress && rollout.approval != Approval::Awaited);
        self.order(deployment, orders).await?;
        Ok(is_busy)
    }

    /// Takes up a new generation.
    async fn begin(&self, deployment: &Deployment, now: Timestamp) -> Result<(), EdgeError> {
        let (goal, wanted) = (deployment.rollout.goal(), deployment.revision);
        let (cluster, seen) = (self.cluster.clone(), deployment.clone());
        if deployment.rollout.keeps(wanted) && deployment.rollout.state == RolloutState::Completed {
            // Only where it runs, or how it would get there, is another. Of one that went back it is told anew that its former revision is wanted.
            let generation = seen.generation;
            let change = move |deployment: &mut Deployment| {
                if deployment.generation == generation {
                    deployment.observed_generation = generation;
                    deployment.rollout.refused.clear();
                }
                Ok(())
            };
            return blocking(move || cluster.deployment_store().change(&seen.function, change)).await.map(drop);
        }
        let rollout = Rollout { at_once: seen.at_once, ..Rollout::new(seen.function.clone(), seen.generation, goal, wanted, now) };
        blocking(move || cluster.deployment_store().begin(&seen, rollout)).await
    }

    /// Keeps what was decided, when what it was decided on is still so; says whether it is.
    async fn keep(&self, deployment: &Deployment, rollout: Rollout, missing: String, left: Vec<NodeId>) -> Result<bool, EdgeError> {
        let (store, seen, next) = (self.cluster.deployment_store().clone(), deployment.clone(), rollout.clone());
        let id = seen.function.clone();
        let is_kept = blocking(move || {
            let kept = store.change(&id, move |deployment| {
                let is_seen = deployment.rollout == seen.rollout && deployment.generation == seen.generation && !deployment.deleted;
                if is_seen {
                    deployment.rollout = next;
                    deployment.missing = missing;
                    deployment.leaving.retain(|node| !left.contains(node));
                }
                Ok(is_seen)
            })?;
            Ok(kept.is_some_and(|(_, is_seen)| is_seen))
        })
        .await?;
        if !is_kept {
            return Ok(false);
        }
        let before = &deployment.rollout;
        if (before.state, before.phase, before.wave, before.approval) != (rollout.state, rollout.phase, rollout.wave, rollout.approval) {
            tell(&self.cluster, &rollout);
        }
        Ok(true)
    }

    /// Gives orders: writes them to the documents of their nodes, and has nodes of this process take them. One that cannot be written is told by the
    /// rollout, which gives it again.
    async fn order(&self, deployment: &Deployment, orders: BTreeMap<NodeId, Order>) -> Result<(), EdgeError> {
        if orders.is_empty() {
            return self.retry_here(deployment).await;
        }
        let id = &deployment.function;
        let exclusive = deployment.target.is_exclusive();
        let strategy = Arc::new(deployment.rollout_strategy().into_owned());
        let functions = match self.functions(id, &orders).await {
            Ok(functions) => Arc::new(functions),
            Err(error) => {
                for node in orders.keys() {
                    self.note_failure(id, node, &error);
                }
                return Ok(());
            }
        };
        let _deploying = self.cluster.deploying().await;
        let ordering: Vec<_> = orders
            .into_iter()
            .map(|(node, order)| {
                let (cluster, id, functions, strategy) = (self.cluster.clone(), id.clone(), Arc::clone(&functions), Arc::clone(&strategy));
                let of = node.clone();
                let writing = blocking(move || {
                    let Some(revision) = order.serve else {
                        return cluster.assignments().remove(&node, &id).map(|_| Some(None));
                    };
                    let Some(function) = functions.get(&revision) else {
                        tracing::warn!(%node, function = %id, revision, "a revision that a node is to go back to is not kept any more");
                        return Ok(None);
                    };
                    let warm = order.warm.and_then(|revision| Some(WarmRecord { revision, function: functions.get(&revision)?.clone() }));
                    let judged_seconds = strategy.bake().saturating_add(strategy.progress()).as_secs();
                    let bake_seconds = strategy.bake().as_secs_f64();
                    let (probe, confirmed) = (strategy.gate.probe.clone(), order.is_confirmed);
                    let deployed = RevisionRecord { revision, probe, bake_seconds, judged_seconds, exclusive, confirmed, warm };
                    cluster.assignments().put(&node, function, Some(deployed)).map(|record| Some(Some(record)))
                });
                async move { (of, writing.await) }
            })
            .collect();
        let written: Vec<_> = stream::iter(ordering).buffer_unordered(ORDERING_CONCURRENCY).collect().await;
        self.cluster.forget_deadlines(id);
        for (node, written) in written {
            match written {
                Ok(order) => {
                    self.failures.lock().remove(&(id.clone(), node.clone()));
                    match order {
                        Some(Some(record)) => self.cluster.install_here(&node, &record).await,
                        Some(None) => self.cluster.remove_here(&node, id),
                        None => {}
                    }
                }
                Err(error) => self.note_failure(id, &node, &error),
            }
        }
        Ok(())
    }

    /// Notes that an order could not be given.
    fn note_failure(&self, function: &FunctionId, node: &NodeId, error: &EdgeError) {
        tracing::warn!(%function, %node, error = error.chain(), "a node could not be ordered what it is to have; it is tried again");
        self.failures.lock().insert((function.clone(), node.clone()), beginning(&error.chain()));
    }

    /// Has nodes of this process try again what failed.
    async fn retry_here(&self, deployment: &Deployment) -> Result<(), EdgeError> {
        for (node, installer) in self.cluster.installers_here() {
            let (cluster, id) = (self.cluster.clone(), deployment.function.clone());
            let record = blocking(move || cluster.assignment_record(&node, &id)).await?;
            if let Some(record) = record {
                installer.install(&record, Source::Fleet, None, tokio::time::Instant::now()).await;
                self.cluster.note_routes_change();
            }
        }
        Ok(())
    }

    /// The functions of the revisions that these orders name.
    async fn functions(&self, id: &FunctionId, orders: &BTreeMap<NodeId, Order>) -> Result<BTreeMap<u64, EdgeFunction>, EdgeError> {
        let named: BTreeSet<_> = orders.values().flat_map(|order| [order.serve, order.warm]).flatten().collect();
        let (cluster, id, nodes) = (self.cluster.clone(), id.clone(), orders.keys().cloned().collect::<Vec<_>>());
        blocking(move || {
            let (mut functions, mut lost) = (BTreeMap::new(), Vec::new());
            for revision in named {
                match cluster.deployment_store().revision(&id, revision) {
                    Ok(known) => drop(functions.insert(revision, known.function)),
                    Err(error) if error.kind() == ErrorKind::NotFound => lost.push(revision),
                    Err(error) => return Err(error),
                }
            }
            // A node that was away for long may have one that is not kept any more; then its own assignment has it.
            for node in nodes.iter().filter(|_| !lost.is_empty()) {
                let records = cluster.assignment_records(node)?.into_iter().filter_map(|(_, record)| record.ok());
                let deployed =
                    records.filter(|record| record.function.id == id).filter_map(|record| Some((record.function, *record.deployed?)));
                for (function, deployed) in deployed {
                    let warm = deployed.warm.map(|warm| (warm.revision, warm.function));
                    let own = [(deployed.revision, function)].into_iter().chain(warm);
                    functions.extend(own.filter(|(revision, _)| lost.contains(revision)));
                }
            }
            Ok(functions)
        })
        .await
    }

    /// Takes the function of a deployment that is being removed from these nodes, and forgets it when none has it.
    async fn remove(&self, deployment: &Deployment, holders: Vec<NodeId>) -> Result<bool, EdgeError> {
        let id = deployment.function.clone();
        if holders.is_empty() {
            let store = self.cluster.deployment_store().clone();
            self.failures.lock().retain(|(function, _), _| *function != id);
            blocking(move || store.forget(&id)).await?;
            return Ok(false);
        }
        self.order(deployment, holders.into_iter().map(|node| (node, Order::only(None))).collect()).await?;
        Ok(true)
    }
}

/// Has the nodes of this process ask for leases, as others do over the backbone. Says whether one waits for some.
fn lease_here(cluster: &EdgeCluster) -> Result<bool, EdgeError> {
    let mut is_waiting = false;
    for (node, installer) in cluster.installers_here() {
        let Some(question) = installer.lease_question() else { continue };
        let asked_at = uptime();
        let answer = cluster.grant(&node, &question)?;
        installer.take_leases(asked_at, &question, &answer);
        is_waiting |= installer.leases().pause() < FUNCTION_LEASE_ASKED_EVERY;
    }
    Ok(is_waiting)
}

/// Tells what became of a rollout.
pub(super) fn tell(cluster: &EdgeCluster, rollout: &Rollout) {
    let Rollout { function, to, state, phase, reason, .. } = rollout;
    let does = match (state, phase) {
        (RolloutState::InProgress, Phase::Restoring) => "goes back".to_owned(),
        (RolloutState::InProgress, Phase::Preparing) => format!("is prepared in wave {}", rollout.wave + 1),
        (RolloutState::InProgress, Phase::Updating) => format!("is in progress in wave {}", rollout.wave + 1),
        (state, _) => format!("is {}", state.as_str().replace('_', " ")),
    };
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let message = format!("rollout `{}` of function `{function}` to revision {to} {does}{why}", rollout.id());
    cluster.events().tell(FleetEvent::new(EventKind::RolloutChanged, message).of(function));
}

#[cfg(test)]
mod tests;
