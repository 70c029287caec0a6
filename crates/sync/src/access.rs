//! Access: which documents a node may see and write. Their names say some of it, and a rule of the hub the rest: each must allow it.
//!
//! A standby sees and writes what any node may, as it may become the hub.

use std::collections::BTreeSet;

use edgeward_model::NodeId;
use parking_lot::RwLock;

use crate::{
    planted::{self, Bug},
    policy::{FLEET_PREFIX, LOCAL_PREFIX},
};

/// Documents whose name begins so are between hubs alone.
pub const HUB_PREFIX: &str = "edgeward.hub.";
/// Documents whose name begins so are between hubs and the one node whose id follows.
pub const NODE_PREFIXES: [&str; 4] = ["edgeward.assignments.", "edgeward.reports.", "edgeward.schedules.", "edgeward.triggers."];

/// Says whether a node may see and write the document of a name.
type Rule = dyn Fn(&NodeId, &str) -> bool + Send + Sync;

/// Who may see and write which documents.
pub(crate) struct Access {
    standbys: RwLock<BTreeSet<NodeId>>,
    rule: Box<Rule>,
}

impl Access {
    pub(crate) fn new(rule: impl Fn(&NodeId, &str) -> bool + Send + Sync + 'static) -> Self {
        Self { standbys: RwLock::default(), rule: Box::new(rule) }
    }

    pub(crate) fn set_standbys(&self, standbys: impl IntoIterator<Item = NodeId>) {
        *self.standbys.write() = standbys.into_iter().collect();
    }

    pub(crate) fn is_standby(&self, node: &NodeId) -> bool {
        self.standbys.read().contains(node)
    }

    /// Whether a node may see the document of this name, and write it unless it is the fleet's.
    pub(crate) fn allows(&self, node: &NodeId, document: &str) -> bool {
        !document.starts_with(LOCAL_PREFIX)
            && (self.is_standby(node) || (names_allow(node, document) && (planted::has(Bug::RuleNotAsked) || (self.rule)(node, document))))
    }

    /// Whether a node may write the document of this name. It must be asked of what is compared, too: a node says by itself who wrote its rows.
    pub(crate) fn allows_writing(&self, node: &NodeId, document: &str) -> bool {
        self.allows(node, document) && (self.is_standby(node) || !document.starts_with(FLEET_PREFIX))
    }
}

/// Whether the name of a document lets a node see it that is no hub.
pub fn names_allow(node: &NodeId, document: &str) -> bool {
    let owner = NODE_PREFIXES.iter().find_map(|prefix| document.strip_prefix(prefix));
    !document.starts_with(LOCAL_PREFIX) && !document.starts_with(HUB_PREFIX) && owner.is_none_or(|owner| owner == node.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_name_and_rule_must_allow_but_a_standby_sees_all_that_leaves_a_node() {
        let [edge, other, standby] = ["edge-1", "edge-10", "hub-2"].map(|id| NodeId::new(id).expect("valid"));
        let access = Access::new(|_, document| document != "secret");
        access.set_standbys([standby.clone()]);
        let seen = |node| {
            let names = [
                "cellar",
                "secret",
                "edgeward.assignments.edge-1",
                "edgeward.reports.edge-1",
                "edgeward.schedules.edge-1",
                "edgeward.triggers.edge-1",
                "edgeward.hub.nodes",
                "edgeward.local.tokens",
            ];
            names.map(|document| access.allows(node, document))
        };
        assert_eq!(seen(&edge), [true, false, true, true, true, true, false, false]);
        assert_eq!(seen(&other), [true, false, false, false, false, false, false, false]);
        assert_eq!(seen(&standby), [true, true, true, true, true, true, true, false]);
        let fleet = "edgeward.fleet.trusted-keys";
        assert!(access.allows(&edge, fleet) && !access.allows_writing(&edge, fleet) && access.allows_writing(&edge, "cellar"));
        assert!(access.allows_writing(&standby, fleet) && !access.allows_writing(&standby, "edgeward.local.tokens"));
    }
}
