//! What is true of the nodes of a fleet with regard to its deployments, gathered from the hub's documents and from who is heard.
//!
//! Documents are read again only when their version is another: a fleet of thousands is looked at often.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use edgeward_cluster::{
    placement::{self, Candidate, Counted, Move, Needs},
    rollout::{NodeFacts, Observed, Order, Served},
    routing::{self, RouteSpec},
};
use edgeward_model::{EdgeError, EdgeFunction, EdgeNodeStatus, FunctionId, NodeId, Selector, Target, limits::NODE_MESSAGE_BYTES_MAX};
use jiff::Timestamp;
use tokio::time::Instant;

use super::stored::{Deployment, Deployments, Revision};
use crate::{
    allotments::Allotted,
    assignments,
    desired::record::FunctionRecord,
    fleet::{EdgeCluster, NodeView},
    installer::Installer,
    node::FunctionState,
    reports::{self, Description, FunctionReport},
};

/// What is known of the nodes.
#[derive(Default)]
pub(super) struct Facts {
    nodes: BTreeMap<NodeId, Known>,
}

struct Known {
    view: NodeView,
    here: Option<Arc<Installer>>,
    assigned: Arc<Assigned>,
    reported: Arc<Reported>,
}

type Assigned = BTreeMap<FunctionId, FunctionRecord>;
type Reported = BTreeMap<FunctionId, FunctionReport>;

/// The nodes of one deployment.
pub(super) struct DeploymentFacts {
    pub(super) nodes: BTreeMap<NodeId, NodeFacts>,
    /// How many nodes there are to be; none for all.
    pub(super) wanted: Option<usize>,
    /// Why there are fewer.
    pub(super) missing: String,
    /// Those that run it under a lease and should not, or the other way round.
    pub(super) misled: Vec<NodeId>,
}

/// What was read of documents, by their versions.
#[derive(Default)]
pub(crate) struct Cache {
    assigned: HashMap<NodeId, (u64, Arc<Assigned>)>,
    reported: HashMap<NodeId, (u64, Arc<Reported>)>,
    described: HashMap<NodeId, (u64, Option<Description>)>,
}

impl Facts {
    /// Reads what there is, of documents that are another than before. Blocks for as long as the disk takes.
    pub(super) fn read(cluster: &EdgeCluster) -> Result<Self, EdgeError> {
        let mut cache = cluster.known_facts().lock();
        let documents = cluster.documents();
        let versions: HashMap<_, _> = documents.list()?.into_iter().map(|info| (info.name, info.version)).collect();
        let version = |prefix: &str, id: &NodeId| {
            let name = edgeward_model::DocumentName::new(format!("{prefix}{id}"));
            name.ok().and_then(|name| versions.get(&name).copied()).unwrap_or(0)
        };
        let members = cluster.members_here_and_far(|id| {
            let reported_at = version(reports::PREFIX, id);
            let known = cache.described.get(id).filter(|(at, _)| *at == reported_at);
            let described = known.map_or_else(|| cluster.described(id), |(_, described)| described.clone());
            cache.described.insert(id.clone(), (reported_at, described.clone()));
            described
        });
        let mut nodes = BTreeMap::new();
        for (id, view, here) in members {
            let (assigned_at, reported_at) = (version(assignments::PREFIX, &id), version(reports::PREFIX, &id));
            let assigned = match cache.assigned.get(&id).filter(|(at, _)| *at == assigned_at) {
                Some((_, assigned)) => Arc::clone(assigned),
                None => Arc::new(read_assigned(cluster, &id, assigned_at)?),
            };
            let reported = match cache.reported.get(&id).filter(|(at, _)| *at == reported_at) {
                Some((_, reported)) => Arc::clone(reported),
                None if here.is_some() || reported_at == 0 => Arc::default(),
                None => Arc::new(cluster.node_functions(id.as_str()).unwrap_or_default()),
            };
            cache.assigned.insert(id.clone(), (assigned_at, Arc::clone(&assigned)));
            cache.reported.insert(id.clone(), (reported_at, Arc::clone(&reported)));
            nodes.insert(id, Known { view, here, assigned, reported });
        }
        cache.assigned.retain(|id, _| nodes.contains_key(id));
        cache.reported.retain(|id, _| nodes.contains_key(id));
        cache.described.retain(|id, _| nodes.contains_key(id));
        Ok(Self { nodes })
    }

    /// The nodes of a deployment: those that it is for, and those that have its function.
    pub(super) fn of(&self, cluster: &EdgeCluster, deployment: &Deployment, function: &EdgeFunction, now: Timestamp) -> DeploymentFacts {
        let id = &deployment.function;
        let holders: BTreeSet<_> =
            self.nodes.iter().filter(|(_, known)| known.assigned.contains_key(id)).map(|(node, _)| node.clone()).collect();
        let (targets, wanted, missing) = self.targets(cluster, deployment, function, &holders, now);
        let is_exclusive = deployment.target.is_exclusive();
        let is_misled = |node: &&NodeId| self.nodes[*node].assigned.get(id).is_some_and(|record| record.is_exclusive() != is_exclusive);
        let misled = targets.iter().filter(is_misled).cloned().collect();
        // What a node was assigned by itself is one of the revisions.
        let is_alone = |node: &NodeId| self.nodes[node].assigned[id].deployed.is_none();
        let revisions =
            if holders.iter().any(is_alone) { cluster.deployment_store().revisions(id).unwrap_or_default() } else { Vec::new() };
        let strategy = deployment.rollout_strategy();
        let nodes = self.nodes.iter().filter(|(node, _)| targets.contains(*node) || holders.contains(*node));
        let nodes = nodes.map(|(node, known)| {
            let mut facts = known.facts(id, deployment.rollout.from, &revisions);
            facts.in_target = targets.contains(node) && !deployment.deleted;
            facts.wave = strategy.waves.iter().position(|wave| wave.matches(&known.view.node)).unwrap_or(strategy.waves.len());
            (node.clone(), facts)
        });
        DeploymentFacts { nodes: nodes.collect(), wanted, missing, misled }
    }

    fn targets(
        &self,
        cluster: &EdgeCluster,
        deployment: &Deployment,
        function: &EdgeFunction,
        holders: &BTreeSet<NodeId>,
        now: Timestamp,
    ) -> (BTreeSet<NodeId>, Option<usize>, String) {
        let all = self.nodes.iter();
        match &deployment.target {
            Target::Nodes(nodes) => (nodes.iter().filter(|node| self.nodes.contains_key(*node)).cloned().collect(), None, String::new()),
            Target::Matching(selector) => {
                let matching = all.filter(|(_, known)| selector.matches(&known.view.node));
                (matching.map(|(node, _)| node.clone()).collect(), None, String::new())
            }
            target @ (Target::Count { .. } | Target::One { .. }) => {
                let (wanted, among) = target.chosen().expect("the hub chooses here");
                let mut candidates = self.candidates(cluster, now);
                for candidate in &mut candidates {
                    candidate.is_draining |= deployment.leaving.contains(&candidate.node.id);
                }
                let placement = placement::place(wanted, needs(function, among), &candidates, holders);
                let missing = placement.why_missing().unwrap_or_default();
                (placement.nodes, Some(wanted), missing)
            }
        }
    }

    /// The far nodes, as what is allotted is placed on them.
    pub(super) fn candidates_far(&self, cluster: &EdgeCluster, now: Timestamp) -> Vec<Candidate<'_>> {
        let mut candidates = self.candidates(cluster, now);
        candidates.retain(|candidate| self.nodes[&candidate.node.id].here.is_none());
        candidates
    }

    /// The far nodes that are to have this, of all that there are. Who was chosen stays chosen while it is away, as it goes on: only of nodes that have the function, and
    /// until it is drained, relabelled or removed.
    pub(super) fn of_allotted<T: Allotted>(
        &self,
        candidates: &[Candidate<'_>],
        wanted: &T,
        holders: &BTreeSet<NodeId>,
    ) -> BTreeSet<NodeId> {
        let has_function = |known: &Known| known.assigned.contains_key(wanted.function());
        let Some((count, selector)) = wanted.target().chosen() else {
            let is_for = |view: &NodeView| match wanted.target() {
                Target::Nodes(nodes) => nodes.contains(&view.node.id),
                Target::Matching(selector) => selector.matches(&view.node),
                Target::Count { .. } | Target::One { .. } => false,
            };
            let is_for = |known: &Known| known.here.is_none() && is_for(&known.view) && (!T::FOLLOWS_FUNCTION || has_function(known));
            return self.nodes.iter().filter(|(_, known)| is_for(known)).map(|(node, _)| node.clone()).collect();
        };
        let has_it = candidates.iter().filter(|candidate| has_function(&self.nodes[&candidate.node.id]));
        let candidates: Vec<_> = has_it
            .map(|candidate| Candidate { is_there: candidate.is_there || holders.contains(&candidate.node.id), ..candidate.clone() })
            .collect();
        placement::place(count, Needs { selector, memory_bytes: 0 }, &candidates, holders).nodes
    }

    fn candidates(&self, cluster: &EdgeCluster, now: Timestamp) -> Vec<Candidate<'_>> {
        let patience = cluster.heal_after();
        let candidate = |known: &'_ Known| {
            let view = &known.view;
            let silent = std::time::Duration::try_from(now.duration_since(view.since)).unwrap_or_default();
            let is_there = view.node.status != EdgeNodeStatus::Offline || silent < patience;
            (view.load, known.assigned.len(), is_there, view.draining)
        };
        let candidates = self.nodes.values().map(|known| {
            let (load, functions, is_there, is_draining) = candidate(known);
            Candidate { node: &known.view.node, load, functions, is_there, is_draining }
        });
        candidates.collect()
    }

    /// Moves that even out the functions of which there are to be so many.
    pub(super) fn rebalance(
        &self,
        cluster: &EdgeCluster,
        store: &Deployments,
        deployments: &BTreeMap<FunctionId, Deployment>,
        moves_max: usize,
    ) -> Result<Vec<Move>, EdgeError> {
        let candidates = self.candidates(cluster, Timestamp::now());
        let mut functions = BTreeMap::new();
        for (id, deployment) in deployments.iter().filter(|(_, deployment)| !deployment.deleted && deployment.rollout.state.is_over()) {
            functions.insert(id, store.revision(id, deployment.revision)?.function);
        }
        let counted: Vec<_> = functions
            .iter()
            .filter_map(|(id, function)| {
                let (_, among) = deployments[*id].target.chosen()?;
                let holders = self.nodes.iter().filter(|(_, known)| known.assigned.contains_key(*id));
                Some(Counted { function: id, needs: needs(function, among), holders: holders.map(|(node, _)| node.clone()).collect() })
            })
            .collect();
        Ok(placement::rebalance(&counted, &candidates, moves_max))
    }

    /// Which nodes have each function that is assigned to any, and how its calls are routed: as its newest revision says.
    fn routes(&self, cluster: &EdgeCluster) -> BTreeMap<FunctionId, RouteSpec> {
        let mut routes: BTreeMap<FunctionId, (u64, RouteSpec)> = BTreeMap::new();
        for (node, known) in &self.nodes {
            for (id, record) in &*known.assigned {
                let EdgeFunction { resilience, .. } = &record.function;
                let (revision, timeout) = (record.deployed.as_ref().map_or(0, |deployed| deployed.revision), record.function.timeout());
                let new = || (revision, RouteSpec { resilience: resilience.clone(), timeout, candidates: Vec::new() });
                let (newest, route) = routes.entry(id.clone()).or_insert_with(new);
                if revision > *newest {
                    (*newest, route.resilience) = (revision, resilience.clone());
                }
                route.timeout = route.timeout.max(timeout);
                let may = !record.is_exclusive() || cluster.lease_holder(id).as_ref() == Some(node);
                route.candidates.extend(known.candidate(id).filter(|_| may));
            }
        }
        routes.into_iter().map(|(id, (_, route))| (id, route)).collect()
    }

    /// The nodes, with what is known of each.
    pub(super) fn views(&self) -> impl Iterator<Item = (&NodeId, &NodeView)> {
        self.nodes.iter().map(|(id, known)| (id, &known.view))
    }
}

/// Which nodes have each function that is assigned to any. Reads the disk.
pub(crate) fn routes(cluster: &EdgeCluster) -> Result<BTreeMap<FunctionId, RouteSpec>, EdgeError> {
    Ok(Facts::read(cluster)?.routes(cluster))
}

impl Known {
    /// This node, when it answers calls of a function that it is assigned, be it in an earlier form.
    fn candidate(&self, function: &FunctionId) -> Option<routing::Candidate> {
        let NodeView { node, draining, .. } = &self.view;
        if let Some(installer) = &self.here {
            return installer.runtime().find(function.as_str()).is_ok().then(|| routing::Candidate::local(node, *draining));
        }
        let serves = |report: &&FunctionReport| report.state == FunctionState::Ready || report.former_serves;
        self.reported.get(function).filter(serves).map(|_| routing::Candidate::far(node, *draining))
    }

    /// What is true of this node with regard to a function. What it was assigned by itself counts as the revision that is the same, else as the former
    /// one.
    fn facts(&self, function: &FunctionId, former: Option<u64>, revisions: &[Revision]) -> NodeFacts {
        let record = self.assigned.get(function);
        let alone = |record: &FunctionRecord| {
            let same = revisions.iter().find(|revision| revision.function == record.function).map(|same| same.revision);
            same.or(former).map_or(Order::default(), Order::confirmed)
        };
        let observed = record.map(|record| match &self.here {
            Some(installer) => observed_here(installer, function, record),
            None => self.reported.get(function).map_or_else(Observed::default, |report| observed(report, record)),
        });
        NodeFacts {
            in_target: false,
            wave: 0,
            is_reachable: self.view.node.status != EdgeNodeStatus::Offline,
            holds: self.view.held.is_some(),
            ordered: record.map(|record| record.order().unwrap_or_else(|| alone(record))),
            order_failure: None,
            observed: observed.unwrap_or_default(),
        }
    }
}

fn served(state: FunctionState) -> Served {
    match state {
        FunctionState::Pending => Served::Pending,
        FunctionState::Ready => Served::Ready,
        FunctionState::Failed => Served::Failed,
    }
}

/// What a report says about this record.
fn observed(report: &FunctionReport, record: &FunctionRecord) -> Observed {
    if report.generation != record.generation {
        return Observed::default();
    }
    Observed {
        served: served(report.state),
        message: beginning(&report.message),
        warm: report.warm.map(served).unwrap_or_default(),
        sample: report.sample.unwrap_or_default(),
        before: report.before.unwrap_or_default(),
        has_baked: report.baked,
    }
}

/// The same of a node of this process.
fn observed_here(installer: &Installer, function: &FunctionId, record: &FunctionRecord) -> Observed {
    let Some(status) = installer.status(function).filter(|status| status.generation == record.generation) else {
        return Observed::default();
    };
    let doing = installer.doing(record, Instant::now());
    let is_serving = status.failure.is_none();
    Observed {
        served: if is_serving { Served::Ready } else { Served::Failed },
        message: beginning(&status.failure.or(status.warm_failure).unwrap_or_default()),
        warm: status.warm.map(served).unwrap_or_default(),
        sample: doing.map(|doing| doing.sample).unwrap_or_default(),
        before: doing.map(|doing| doing.before).unwrap_or_default(),
        // One that is not judged any more has served for longer than that.
        has_baked: is_serving && doing.is_none_or(|doing| doing.time >= record.bake()),
    }
}

/// The beginning of a message, on one line: the messages of many nodes are kept together, and a node may say anything.
pub(super) fn beginning(message: &str) -> String {
    let mut beginning = String::new();
    for character in message.chars().map(|character| if character.is_control() { ' ' } else { character }) {
        if beginning.len() + character.len_utf8() > NODE_MESSAGE_BYTES_MAX {
            break;
        }
        beginning.push(character);
    }
    beginning
}

fn read_assigned(cluster: &EdgeCluster, node: &NodeId, version: u64) -> Result<Assigned, EdgeError> {
    if version == 0 {
        return Ok(Assigned::new());
    }
    let records = cluster.assignment_records(node)?;
    // What cannot be read is of a newer release, which takes care of it.
    Ok(records.into_iter().filter_map(|(_, record)| record.ok()).map(|record| (record.function.id.clone(), record)).collect())
}

fn needs<'a>(function: &EdgeFunction, selector: &'a Selector) -> Needs<'a> {
    Needs { selector, memory_bytes: function.memory_bytes() as u64 }
}

#[cfg(test)]
mod tests {
    use edgeward_model::{Handler, HandlerName};

    use super::*;

    #[test]
    fn of_what_a_node_says_the_beginning_counts() {
        let function = EdgeFunction::new("f", "f", Handler::Native(HandlerName::new("h").expect("valid"))).expect("valid");
        let record = FunctionRecord::new(7, function);
        let told = |message: &str| {
            let report = FunctionReport { generation: 7, message: message.to_owned(), ..FunctionReport::ready() };
            observed(&report, &record).message
        };
        assert_eq!(told("no memory\nat line 1"), "no memory at line 1");
        assert_eq!(told(&"x".repeat(1_000_000)), "x".repeat(NODE_MESSAGE_BYTES_MAX));
        assert_eq!(told(&"€".repeat(1_000)), "€".repeat(NODE_MESSAGE_BYTES_MAX / 3));
    }
}
