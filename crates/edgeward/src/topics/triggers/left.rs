//! Messages that triggers had not handled when the hub took them from the node: counted, and told to who listens.

use std::sync::atomic::{AtomicU64, Ordering};

use edgeward_model::{EdgeError, TriggerId, limits::TRIGGERS_MAX};
use edgeward_topics::TopicLog;
use tokio::sync::broadcast;

use super::subscription_of;

/// What a trigger left that was taken from the node.
#[derive(Clone, Debug)]
pub(crate) struct Left {
    pub(crate) trigger: TriggerId,
    /// Messages of its filters after the last one up to which it had handled all.
    pub(crate) messages: u64,
}

/// What all of them left since the node started.
#[derive(Debug)]
pub(super) struct LeftBehind {
    messages: AtomicU64,
    news: broadcast::Sender<Left>,
}

impl Default for LeftBehind {
    fn default() -> Self {
        Self { messages: AtomicU64::default(), news: broadcast::Sender::new(TRIGGERS_MAX) }
    }
}

impl LeftBehind {
    pub(super) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    pub(super) fn news(&self) -> broadcast::Receiver<Left> {
        self.news.subscribe()
    }

    /// Takes that a trigger left so many.
    pub(super) fn note(&self, id: &TriggerId, messages: u64) {
        if messages > 0 {
            tracing::warn!(trigger = %id, messages, "a trigger was taken from this node before it had handled so many messages");
            self.messages.fetch_add(messages, Ordering::Relaxed);
            // Whether anybody listens is theirs to know.
            let _ = self.news.send(Left { trigger: id.clone(), messages });
        }
    }
}

/// How many messages a trigger leaves that is about to lose its place in the log. What cannot be counted does not keep it here.
pub(super) async fn count(log: &TopicLog, id: &TriggerId) -> u64 {
    let counted = async {
        match log.durable(&subscription_of(id)).await? {
            Some(durable) => log.count(durable.acknowledged + 1, &durable.filters).await,
            None => Ok(0),
        }
    };
    counted.await.unwrap_or_else(|error: EdgeError| {
        tracing::warn!(trigger = %id, error = error.chain(), "what a trigger that was taken from this node has not handled could not be counted");
        0
    })
}
