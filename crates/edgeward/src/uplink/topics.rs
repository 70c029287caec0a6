//! Messages between a node and its fleet: what it publishes is forwarded, and what others publish is imported, by filters.
//!
//! The node's log is the queue: what could not be forwarded yet lies there, as long as the log keeps it. Either side may ask twice: who takes
//! messages knows which it has. What came from the fleet is not forwarded.

mod forwarding;
mod importing;

use std::sync::Arc;

use edgeward_cluster::Backbone;
use edgeward_model::{EdgeError, ErrorKind, TopicFilter, limits::TOPIC_SHARE_FILTERS_MAX};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        watch,
    },
    task::JoinHandle,
};

use self::forwarding::Begun;
use super::outbox::Outbox;
use crate::{
    events::{EventKind, FleetEvent},
    node::Node,
    topics::Left,
};

/// Which messages a node shares with its fleet. What begins with `$` never is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicSharing {
    /// What is published on it goes to the hub.
    pub forward: Vec<TopicFilter>,
    /// What others published comes to it.
    pub import: Vec<TopicFilter>,
}

impl TopicSharing {
    pub(super) fn check(&self) -> Result<(), EdgeError> {
        for (what, filters) in [("forwards", &self.forward), ("imports", &self.import)] {
            if filters.len() > TOPIC_SHARE_FILTERS_MAX {
                let message = format!("a node {what} messages by {TOPIC_SHARE_FILTERS_MAX} filters at most, not {}", filters.len());
                return Err(EdgeError::new(ErrorKind::TooLarge, message));
            }
            if let Some(filter) = filters.iter().find(|filter| filter.as_str().starts_with('$')) {
                return Err(EdgeError::invalid(format!(
                    "a node {what} nothing by filter `{filter}`: what begins with `$` stays on its node"
                )));
            }
        }
        Ok(())
    }
}

/// How the messages go to and fro.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicExchange {
    /// Messages that the hub has taken since the node started.
    pub forwarded: u64,
    /// Up to which position of the node's log all that is to be forwarded was.
    pub forwarded_up_to: u64,
    /// Messages of others that came since the node started.
    pub imported: u64,
    /// Messages, of whatever topic, that were gone from the node's log before they could be forwarded, or from the fleet's before they could be
    /// imported.
    pub lost: u64,
    /// Why nothing could be forwarded the last time; none when it could.
    pub forwarding_failed: Option<String>,
    /// Why nothing could be imported the last time; none when it could.
    pub importing_failed: Option<String>,
}

/// Begins to share, as far as there is something to share. What is published after it returned is forwarded.
pub(super) async fn share(
    node: &Arc<Node>,
    backbone: &Arc<dyn Backbone>,
    sharing: TopicSharing,
    told: &watch::Sender<TopicExchange>,
) -> Result<Vec<JoinHandle<()>>, EdgeError> {
    let TopicSharing { forward, import } = sharing;
    let mut tasks = Vec::new();
    if !forward.is_empty() {
        let begun = Begun::new(node.topics().log(), &forward).await?;
        tasks.push(tokio::spawn(forwarding::forward(Arc::clone(node), Arc::clone(backbone), forward, begun, told.clone())));
    }
    if !import.is_empty() {
        tasks.push(tokio::spawn(importing::import(Arc::clone(node), Arc::clone(backbone), import, told.clone())));
    }
    Ok(tasks)
}

/// Tells of the messages that triggers had not handled when the hub took them, for ever.
pub(super) async fn tell_left(mut left: broadcast::Receiver<Left>, outbox: Arc<Outbox>) {
    loop {
        match left.recv().await {
            Ok(Left { trigger, messages }) => {
                let message = format!(
                    "trigger `{trigger}` left the node, and up to {messages} messages that it had not handled are not handled there"
                );
                let data = serde_json::json!({ "trigger": trigger, "messages": messages });
                outbox.tell(FleetEvent { data: Some(data), ..FleetEvent::new(EventKind::TriggerLeft, message) }).await;
            }
            // The log of the node has told of those.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
