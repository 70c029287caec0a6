//! The nodes of a cluster: where each is, and how.

use std::{collections::BTreeMap, sync::Arc};

use edgeward_cluster::membership::{Connectivity, Membership, Standing};
use edgeward_model::{EdgeNode, EdgeNodeStatus, HandlerName, Load, NodeId};
use edgeward_runtime::{EdgeRuntime, NativeHandler};
use jiff::Timestamp;
use serde::Serialize;

use super::registry::{Duties, Registration};
use crate::{installer::Installer, reports::Description};

/// The nodes and their standing.
pub(super) struct Members {
    pub(super) membership: Membership,
    pub(super) nodes: BTreeMap<NodeId, Member>,
    /// What is wanted with nodes of this process, as long as it lives.
    pub(super) duties: BTreeMap<NodeId, Duties>,
    /// Native code that every node of this process has.
    pub(super) handlers: BTreeMap<HandlerName, NativeHandler>,
}

/// A node of the cluster.
#[derive(Clone)]
pub(super) enum Member {
    /// It is in this process.
    Here(Box<EdgeNode>, Arc<Installer>),
    /// It is on another machine.
    Far(Registration),
}

/// A node as it is now, with all that is known of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeView {
    /// The node, with its status.
    #[serde(flatten)]
    pub node: EdgeNode,
    /// Since when it has this status.
    pub since: Timestamp,
    /// Why it has this status, for people; empty for one that is online.
    pub reasons: Vec<String>,
    /// Whether it is heard: `heard`, `late` or `silent`.
    pub connectivity: &'static str,
    /// Assignments and changes of documents that it and its hub had still to exchange when it was last heard.
    pub behind: u64,
    /// What its machine had to do when it was last heard.
    pub load: Option<Load>,
    /// Events that it had dropped when it was last heard, as its outbox was full, since it has its data folder.
    pub dropped_events: u64,
    /// Whether functions of which there are to be so many go elsewhere.
    pub draining: bool,
    /// Why it gets no updates; none when it does.
    pub held: Option<String>,
    /// The release that it runs; empty when it never said.
    pub release: String,
    /// When it joined the fleet; none for a node of this process.
    pub joined_at: Option<Timestamp>,
}

impl Members {
    /// The runtimes of the nodes of this process.
    pub(super) fn runtimes_here(&self) -> impl Iterator<Item = &Arc<EdgeRuntime>> {
        self.nodes.values().filter_map(|member| match member {
            Member::Here(_, installer) => Some(installer.runtime()),
            Member::Far(_) => None,
        })
    }

    /// What is known of a node, described by itself as `described`.
    pub(super) fn view(&self, id: &NodeId, described: Option<Description>) -> Option<NodeView> {
        let member = self.nodes.get(id)?;
        let standing = self.membership.node(id);
        let (mut node, release, held, joined_at) = match member {
            Member::Here(node, _) => (EdgeNode::clone(node), crate::uplink::RELEASE.to_owned(), None, None),
            Member::Far(registration) => {
                let unknown = || Description { node: nameless(id), release: String::new(), held: None };
                let Description { node, release, held } = described.unwrap_or_else(unknown);
                (registration.shown(EdgeNode { id: id.clone(), ..node }), release, held, Some(registration.joined_at))
            }
        };
        let duties = self.duties(id);
        let veto = duties.veto.filter(|veto| veto.holds(Timestamp::now())).map(|veto| veto.to_string());
        if let Some(standing) = standing {
            node.status = standing.status();
            // Of a node that was not heard since this process began, the last word is that it was registered.
            node.last_heartbeat = standing.last_heartbeat().or(joined_at).unwrap_or(node.last_heartbeat);
        }
        Some(NodeView {
            since: standing.map_or(node.last_heartbeat, Standing::since),
            reasons: standing.map(|standing| standing.reasons().iter().map(ToString::to_string).collect()).unwrap_or_default(),
            connectivity: match standing.map_or(Connectivity::Heard, Standing::connectivity) {
                Connectivity::Heard => "heard",
                Connectivity::Late => "late",
                Connectivity::Silent => "silent",
            },
            behind: standing.map_or(0, Standing::behind),
            load: standing.and_then(Standing::health).and_then(|report| report.load),
            dropped_events: standing.and_then(Standing::health).map_or(0, |report| report.dropped_events),
            draining: duties.draining,
            held: veto.or(held),
            release,
            joined_at,
            node,
        })
    }

    /// What its owner wants with a node.
    pub(super) fn duties(&self, id: &NodeId) -> Duties {
        match self.nodes.get(id) {
            Some(Member::Far(registration)) => registration.duties.clone(),
            Some(Member::Here(..)) | None => self.duties.get(id).cloned().unwrap_or_default(),
        }
    }
}

/// A node that has not said what it is.
fn nameless(id: &NodeId) -> EdgeNode {
    let mut node = EdgeNode::new(id.as_str(), id.as_str()).expect("an id is a valid id and name");
    node.status = EdgeNodeStatus::Offline;
    node
}
