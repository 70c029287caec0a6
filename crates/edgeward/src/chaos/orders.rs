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
    /// Nodes that may have taken something else than is known: they are told anew, whatever it was.
    unsure: BTreeSet<NodeId>,
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
        Self { run: run.to_owned(), ordered: BTreeMap::new(), told: BTreeMap::new(), unsure: BTreeSet::new(), crashed: BTreeSet::new() }
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
        !self.unsure.is_empty() || self.told.values().any(|told| !told.is_empty())
    }

    /// Tells each node that does not know it yet what is wanted there.
    pub(super) async fn tell(&mut self, cluster: &EdgeCluster) -> Told {
        let of = |node: &NodeId| -> BTreeSet<usize> {
            self.ordered.iter().filter(|(_, ordered)| ordered.nodes.contains(node)).map(|(index, _)| *index).collect()
        };
        let known = self.told.keys().chain(&self.unsure);
        let nodes: BTreeSet<_> = self.ordered.values().flat_map(|ordered| &ordered.nodes).chain(known).cloned().collect();
        let news = nodes
            .into_iter()
            .map(|node| (of(&node), node))
            .filter(|(wanted, node)| self.unsure.contains(node) || self.told.get(node).unwrap_or(&BTreeSet::new()) != wanted);
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
                Ok(_) => {
                    self.unsure.remove(&node);
                    true
                }
                Err(error) => {
                    if !is_refusal(error) && error.kind() != ErrorKind::Unavailable {
                        self.unsure.insert(node.clone());
                    }
                    error.kind() == ErrorKind::Timeout
                }
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
                Err(error) if !is_refusal(&error) => tracing::debug!(%node, error = error.chain(), "a node could not be told its faults"),
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

/// Whether a node said that it does not do it, and would say so again. All else passes: it is asked again.
pub(super) fn is_refusal(error: &EdgeError) -> bool {
    matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::InvalidInput)
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
        // It may have been asked, as with a time that is up.
        BackboneError::Disconnected(why) => EdgeError::new(ErrorKind::Timeout, format!("node `{node}` could not answer: {why}")),
        BackboneError::Timeout(_) => EdgeError::new(ErrorKind::Timeout, format!("node `{node}` did not answer within {CHAOS_TIMEOUT:?}")),
        other => other.into(),
    })?;
    services::read(&answer, "an answer for an experiment")
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use edgeward_cluster::{Backbone as _, Call, LocalNetwork, Message, Subjects, handler};
    use parking_lot::Mutex;

    use super::*;
    use crate::fleet::ServiceOptions;

    /// A node that takes what it is told, and then does this.
    async fn told<F, A>(answer: F) -> (EdgeCluster, Arc<Mutex<Vec<usize>>>, NodeId, Vec<Box<dyn std::any::Any>>)
    where
        F: Fn(usize) -> A + Send + Sync + Copy + 'static,
        A: Future<Output = Result<Message, EdgeError>> + Send + 'static,
    {
        let (network, cluster, node) = (LocalNetwork::new(), EdgeCluster::new().expect("opens"), NodeId::new("edge-01").expect("valid"));
        let options = ServiceOptions::default();
        let serving = cluster.serve(Arc::new(network.member(cluster.id().clone())), options).await.expect("serves");
        let heard = Arc::<Mutex<Vec<usize>>>::default();
        let taken = Arc::clone(&heard);
        let taking = handler(move |call: Call| {
            let Ok(Question::Inject { faults, .. }) = services::read(&call.message, "a question") else { panic!("{call:?}") };
            taken.lock().push(faults.len());
            answer(faults.len())
        });
        let member = network.member(node.clone());
        let service = member.serve(&Subjects::to_node(node.clone(), CHAOS), 1, taking).await.expect("serves");
        (cluster, heard, node, vec![Box::new(serving), Box::new(service), Box::new(member)])
    }

    fn orders(node: &NodeId) -> Orders {
        let mut orders = Orders::new("run");
        let fault = Fault::new(FaultKind::Timeout, 600);
        orders.add(0, fault, Instant::now() + Duration::from_mins(10), [node.clone()].into());
        orders
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_may_have_taken_a_fault_is_told_that_it_is_over() {
        let (cluster, heard, node, _kept) = told(async |faults| {
            if faults > 0 {
                std::future::pending::<()>().await;
            }
            Ok(services::write(&Answer::default()))
        })
        .await;
        let mut orders = orders(&node);
        let came = orders.tell(&cluster).await;
        assert!(came.taken.is_empty() && came.refused.is_none() && orders.are_told());
        orders.keep_only(&BTreeSet::new());
        orders.tell(&cluster).await;
        assert!(!orders.are_told());
        assert_eq!(*heard.lock(), [1, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_asked_again_and_only_a_refusal_is_one() {
        let error = |kind| move |_| std::future::ready(Err(EdgeError::new(kind, "no")));
        let (cluster, heard, node, _kept) = told(error(ErrorKind::Overloaded)).await;
        let mut waiting = orders(&node);
        assert!(waiting.tell(&cluster).await.refused.is_none());
        assert!(waiting.tell(&cluster).await.refused.is_none());
        assert_eq!(*heard.lock(), [1, 1]);
        let (cluster, _, node, _kept) = told(error(ErrorKind::Forbidden)).await;
        let mut refused = orders(&node);
        assert!(refused.tell(&cluster).await.refused.is_some() && !refused.are_told());
    }
}
