//! Whose topics a process answers for: those of its node, or those of its fleet.

use std::sync::Arc;

use axum::extract::FromRef;
use edgeward::{
    Batch, ClusterTopics, DeadLetter, EdgeError, FleetHub, Latest, LogState, Message, Node, NodeRuntime, Start, Subscription, TopicFilter,
    TopicInfo, TopicName, TriggerId,
};

use crate::api::{OfNode, hub::OfHub};

/// Topics that are published to and read.
#[derive(Clone)]
pub(crate) enum KeptTopics {
    OfNode(Arc<Node>),
    OfFleet(Arc<FleetHub>),
}

impl FromRef<OfNode> for KeptTopics {
    fn from_ref(of: &OfNode) -> Self {
        Self::OfNode(Arc::clone(&of.node))
    }
}

impl FromRef<OfHub> for KeptTopics {
    fn from_ref(of: &OfHub) -> Self {
        Self::OfFleet(Arc::clone(&of.hub))
    }
}

impl KeptTopics {
    /// Another hub than the active one knows too little.
    fn of_fleet(hub: &FleetHub) -> Result<ClusterTopics, EdgeError> {
        hub.check_active()?;
        hub.cluster().topics()
    }

    /// The node of a fleet that is asked. A node is asked for itself alone.
    fn far(hub: &FleetHub, node: Option<&str>) -> Result<NodeRuntime, EdgeError> {
        let node = node.ok_or_else(|| EdgeError::invalid("say of which node: `node=ID`"))?;
        hub.check_active()?;
        hub.cluster().runtime(node)
    }

    pub(super) async fn publish(&self, message: Message) -> Result<u64, EdgeError> {
        match self {
            Self::OfNode(node) => node.topics().publish(message).await,
            Self::OfFleet(hub) => Self::of_fleet(hub)?.publish(message).await,
        }
    }

    /// How many nodes of the fleet import messages of this topic; none of a node.
    pub(super) fn importers(&self, topic: &TopicName) -> Option<usize> {
        match self {
            Self::OfNode(_) => None,
            Self::OfFleet(hub) => hub.cluster().topics().ok().map(|topics| topics.importers(topic)),
        }
    }

    pub(super) fn subscribe(&self, filter: TopicFilter, start: Start) -> Result<Subscription, EdgeError> {
        match self {
            Self::OfNode(node) => node.topics().subscribe(&[filter], start),
            Self::OfFleet(hub) => Self::of_fleet(hub)?.subscribe(&[filter], start),
        }
    }

    pub(super) async fn list(&self, filter: &TopicFilter, after: &str) -> Result<(Vec<TopicInfo>, LogState), EdgeError> {
        match self {
            Self::OfNode(node) => Ok((node.topics().list(filter, after).await?, node.topics().state())),
            Self::OfFleet(hub) => {
                let topics = Self::of_fleet(hub)?;
                Ok((topics.list(filter, after).await?, topics.state()))
            }
        }
    }

    pub(super) async fn latest(&self, filter: &TopicFilter, before: Option<u64>, count: usize) -> Result<Latest, EdgeError> {
        match self {
            Self::OfNode(node) => node.topics().latest(filter, before, count).await,
            Self::OfFleet(hub) => Self::of_fleet(hub)?.latest(filter, before, count).await,
        }
    }

    pub(super) async fn read(&self, from: u64, filter: &TopicFilter) -> Result<Batch, EdgeError> {
        match self {
            Self::OfNode(node) => node.topics().read(from, filter).await,
            Self::OfFleet(hub) => Self::of_fleet(hub)?.read(from, filter).await,
        }
    }

    pub(super) async fn retained(&self, filter: &TopicFilter, after: &str) -> Result<Vec<Arc<Message>>, EdgeError> {
        match self {
            Self::OfNode(node) => node.topics().retained(filter, after).await,
            Self::OfFleet(hub) => Self::of_fleet(hub)?.retained(filter, after).await,
        }
    }

    pub(super) async fn dead_letters(
        &self,
        node: Option<&str>,
        trigger: Option<&TriggerId>,
        after: u64,
    ) -> Result<Vec<DeadLetter>, EdgeError> {
        match self {
            Self::OfNode(node) => node.topics().dead_letters(trigger, after).await,
            Self::OfFleet(hub) => Self::far(hub, node)?.dead_letters(trigger, after).await,
        }
    }

    pub(super) async fn retry_dead_letter(&self, node: Option<&str>, id: u64) -> Result<(), EdgeError> {
        match self {
            Self::OfNode(node) => node.topics().retry_dead_letter(id).await,
            Self::OfFleet(hub) => Self::far(hub, node)?.retry_dead_letter(id).await,
        }
    }

    pub(super) async fn discard_dead_letter(&self, node: Option<&str>, id: u64) -> Result<(), EdgeError> {
        match self {
            Self::OfNode(node) => node.topics().discard_dead_letter(id).await,
            Self::OfFleet(hub) => Self::far(hub, node)?.discard_dead_letter(id).await,
        }
    }
}
