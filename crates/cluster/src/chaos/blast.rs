//! Which nodes a fault is injected on.

use std::collections::BTreeSet;

use edgeward_model::{
    EdgeNode, NodeId, Target,
    chaos::{Fault, FaultKind, Side},
};
use sha2::{Digest as _, Sha256};

/// The nodes that a fault hits: as many of those that it is for as its blast radius allows, one at least. Which ones follows from the seed, and
/// those that were hit before come last, so that faults after each other hit different nodes.
pub fn choose(fault: &Fault, nodes: &[EdgeNode], hit_before: &BTreeSet<NodeId>, seed: &str) -> BTreeSet<NodeId> {
    let mut candidates: Vec<_> = nodes.iter().filter(|node| is_for(&fault.nodes, node)).map(|node| &node.id).collect();
    candidates.sort_by_key(|id| (hit_before.contains(*id), Sha256::digest(format!("{seed}/{id}")), (*id).clone()));
    // Rounded down: a blast radius is the most there may be.
    let most = fault.blast_radius.at_most_of(candidates.len()).max(1);
    candidates.into_iter().take(most).cloned().collect()
}

/// The fault as a node can take it: of a partition, which nodes the other side is. Its own side it knows, which may be more nodes than a message names.
#[must_use]
pub fn resolve(fault: &Fault, nodes: &[EdgeNode]) -> Fault {
    let mut fault = fault.clone();
    if let FaultKind::Partition { between } = &mut fault.kind
        && let Side::Nodes(other) = &mut between[1]
    {
        *other = Target::Nodes(nodes.iter().filter(|node| is_for(other, node)).map(|node| node.id.clone()).collect());
    }
    fault
}

fn is_for(target: &Target, node: &EdgeNode) -> bool {
    match target {
        Target::Nodes(named) => named.contains(&node.id),
        Target::Matching(selector) | Target::Count { among: selector, .. } | Target::One { among: selector } => selector.matches(node),
    }
}
