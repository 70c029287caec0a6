//! What happens in a fleet, for people and programs that follow it. The hub keeps the last of them in a document.
//!
//! An event is told once it happened; nothing rests on it being kept. Those of a node that was away come when it is back, with the
//! time at which they happened.

mod log;

use edgeward_model::{EdgeNodeStatus, FunctionId, NodeId, limits::EVENT_MESSAGE_BYTES_MAX};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use log::EventLog;
pub(crate) use log::next_id;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A node joined the fleet, or came again with another key.
    NodeJoined,
    /// A node was removed.
    NodeRemoved,
    /// The status of a node changed.
    NodeStatus,
    /// The labels of a node were changed.
    NodeLabelled,
    /// A node's process started.
    NodeStarted,
    /// Something was refused that no member of the fleet should ask.
    Refused,
    /// A function was assigned to nodes.
    FunctionAssigned,
    /// A function was taken from nodes.
    FunctionUnassigned,
    /// A function serves on a node.
    FunctionReady,
    /// A function cannot run on a node.
    FunctionFailed,
    /// A node got the lease of a function that one node at a time runs.
    FunctionLeased,
    /// A deployment was made, changed or removed.
    DeploymentChanged,
    /// A rollout came to another state, or does something else.
    RolloutChanged,
    /// A node is drained, held, or taken back to work.
    NodeDuties,
    /// Events of a node were dropped, as its outbox was full.
    EventsDropped,
    /// A sample of what ran on a node.
    MetricsSampled,
    /// A hub became the active one.
    HubActive,
    /// A trigger was taken from a node before it had handled all messages there.
    TriggerLeft,
    /// Calls of a function pass a node by that fails, try it again, or go there again.
    BreakerChanged,
    /// A key was added to those that the fleet trusts, or removed from them.
    TrustChanged,
    /// A fault was injected on a node, or has ended.
    FaultChanged,
    /// An experiment began, or has ended.
    ExperimentChanged,
    /// An event of a newer release.
    #[serde(other)]
    Other,
}

/// What goes first when there is no room for all. The greater stays longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Samples.
    Low,
    /// What can be read from the state as well.
    Normal,
    /// What is told only here.
    High,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FleetEvent {
    /// Names it among the events of its fleet, in the order of their times; empty until it is kept.
    #[serde(default)]
    pub id: String,
    /// When it happened, by the clock of where it did.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// On which node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// To which function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionId>,
    /// The status that a node came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<EdgeNodeStatus>,
    /// For people.
    pub message: String,
    /// For programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

impl FleetEvent {
    /// An event of now. A message that is too long is cut.
    pub fn new(kind: EventKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(EVENT_MESSAGE_BYTES_MAX));
        Self { id: String::new(), at: Timestamp::now(), kind, node: None, function: None, status: None, message, data: None }
    }

    /// On this node.
    #[must_use]
    pub fn on(mut self, node: &NodeId) -> Self {
        self.node = Some(node.clone());
        self
    }

    /// To this function.
    #[must_use]
    pub fn of(mut self, function: &FunctionId) -> Self {
        self.function = Some(function.clone());
        self
    }

    /// How long it stays when there is no room for all.
    pub fn priority(&self) -> Priority {
        match self.kind {
            EventKind::MetricsSampled => Priority::Low,
            EventKind::FunctionFailed
            | EventKind::Refused
            | EventKind::EventsDropped
            | EventKind::FaultChanged
            | EventKind::TriggerLeft => Priority::High,
            _ => Priority::Normal,
        }
    }
}
