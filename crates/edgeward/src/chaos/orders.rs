//! What a hub has its nodes inject, and how it tells them.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_cluster::{BackboneError, Subject};
use edgeward_model::{
    EdgeError, ErrorKind, NodeId,
    chaos::{Fault, FaultKind},
    limits::CHAOS_TIMEOUT,
};
use futures::future::join_all;
use tokio::time::Instant;

use super::question::{Answer, Question};
use crate::{
    fleet::EdgeCluster,
    services::{self, CHAOS},
};

/// A fault on its way to nodes.
struct Ordered {
    fault: Fault,
    until: Instant,
    nodes: BTreeSet<NodeId>,
}

/// What the nodes are to inject for one run, and what they know of it.
pub(super) struct Orders {
    run: String,
    ordered: BTreeMap<usize, Ordered>,
    /// What each node was told last, and has taken.
    told: BTreeMap<NodeId, BTreeSet<usize>>,
    /// Crashes that were sent: whether they came or not, they are not sent again.
    crashed: BTreeSet<(usize, NodeId)>,
}

/// What came of telling the nodes.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Faults that nodes have taken now.
    pub(super) taken: Vec<(usize, NodeId)>,
    /// Why one refused.
    pub(super) refused: Option<EdgeError>,
}

impl Orders {
    pub(super) fn new(run: &str) -> Self {
        Self { run: run.to_owned(), ordered: BTreeMap::new(), told: BTreeMap::new(), crashed: BTreeSet::new() }
    }

    /// The faults that are ordered now.
    pub(super) fn now(&self) -> BTreeSet<usize> {
        self.ordered.keys().copied().collect()
    }

    /// Wants a fault on these nodes, until then.
    pub(super) fn add(&mut self, index: usize, fault: Fault, until: Instant, nodes: BTreeSet<NodeId>) {
        self.ordered.insert(index, Ordered { fault, until, nodes });
    }

    /// Wants only these of those that were wanted.
    pub(super) fn keep_only(&mut self, wanted: &BTreeSet<usize>) {
        self.ordered.retain(|index, _| wanted.contains(index));
    }

    /// Nodes that may still inject something.
    pub(super) fn are_told(&self) -> bool {
        self.told.values().any(|told| !told.is_empty())
    }

    /// Tells each node that does not know it yet what is wanted there.
    pub(super) async fn tell(&mut self, cluster: &EdgeCluster) -> Told {
        let of = |node: &NodeId| -> BTreeSet<usize> {
            self.ordered.iter().filter(|(_, ordered)| ordered.nodes.contains(node)).map(|(index, _)| *index).collect()
        };
        let nodes: BTreeSet<_> = self.ordered.values().flat_map(|ordered| &ordered.nodes).chain(self.told.keys()).cloned().collect();
        let news = nodes
            .into_iter()
            .map(|node| (of(&node), node))
            .filter(|(wanted, node)| self.told.get(node).unwrap_or(&BTreeSet::new()) != wanted);
        let news: Vec<_> = news.collect();
        let asking = news.iter().map(|(wanted, node)| {
            let faults = wanted.iter().filter(|index| !self.crashed.contains(&(**index, node.clone())));
            let faults = faults.map(|index| (index.to_string(), left(&self.ordered[index]))).collect();
            ask(cluster, node, Question::Inject { run: self.run.clone(), faults })
        });
        let answers = join_all(asking).await;
        let mut came = Told::default();
        for ((wanted, node), answer) in news.into_iter().zip(answers) {
            let before = self.told.get(&node).cloned().unwrap_or_default();
            let is_crash = |index: &usize| self.ordered[index].fault.kind == FaultKind::Crash;
            let crashes: Vec<_> = wanted.difference(&before).copied().filter(is_crash).collect();
            let may_have = match &answer {
                Ok(_) => true,
                Err(error) => error.kind() == ErrorKind::Timeout,
            };
            if may_have {
                self.crashed.extend(crashes.iter().map(|index| (*index, node.clone())));
            }
            match answer {
                Ok(_) => {
                    came.taken.extend(wanted.difference(&before).map(|index| (*index, node.clone())));
                    self.told.insert(node, wanted);
                }
                Err(error) if may_have && !crashes.is_empty() => {
                    tracing::debug!(%node, error = error.chain(), "a node that is to crash did not answer; it may have crashed before");
                    came.taken.extend(crashes.iter().map(|index| (*index, node.clone())));
                }
                // It is asked again with the next look.
                Err(error) if is_away(&error) => tracing::debug!(%node, error = error.chain(), "a node could not be told its faults"),
                Err(error) => came.refused = Some(error),
            }
        }
        came
    }
}

/// The fault for the time that is left of it.
fn left(ordered: &Ordered) -> Fault {
    let left = ordered.until.saturating_duration_since(Instant::now());
    let seconds = u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).clamp(1, ordered.fault.duration_seconds.max(1));
    Fault { duration_seconds: seconds, ..ordered.fault.clone() }
}

/// Whether a node could not be asked, or did not answer.
pub(super) fn is_away(error: &EdgeError) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
}

/// Asks a node, here or far away.
pub(super) async fn ask(cluster: &EdgeCluster, node: &NodeId, question: Question) -> Result<Answer, EdgeError> {
    if let Some(here) = cluster.chaos_here(node) {
        return match question {
            Question::Check { faults } => faults.iter().try_for_each(|fault| here.check(fault)).map(|()| Answer::default()),
            Question::Inject { run, faults } => here.inject(&run, faults).await.map(|()| Answer::default()),
            // Its documents are the hub's.
            Question::Compare { .. } => Ok(Answer::default()),
        };
    }
    let Some(backbone) = cluster.backbone() else {
        return Err(EdgeError::new(ErrorKind::Unavailable, format!("node `{node}` is far away, and this cluster is not connected")));
    };
    let asked = backbone.request(&Subject::to_node(node.clone(), CHAOS), services::write(&question), CHAOS_TIMEOUT).await;
    let answer = asked.map_err(|error| match error {
        BackboneError::NoResponder(_) => {
            EdgeError::new(ErrorKind::Unavailable, format!("node `{node}` is not connected, or of a release without experiments"))
        }
        BackboneError::Timeout(_) => EdgeError::new(ErrorKind::Timeout, format!("node `{node}` did not answer within {CHAOS_TIMEOUT:?}")),
        other => other.into(),
    })?;
    services::read(&answer, "an answer for an experiment")
}
