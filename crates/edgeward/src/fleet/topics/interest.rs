//! Which nodes want to hear of which topics: those that asked of late. They are poked when there is something, and ask anew.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use edgeward_cluster::{Backbone, Message as Carrier, Subject};
use edgeward_model::{EdgeError, NodeId, TopicFilter, TopicName, limits::PULL_EVERY};
use edgeward_topics::{FilterTree, Message, Received, Start, TopicLog};
use parking_lot::Mutex;

use crate::services::TOPICS;

/// Shortest time between two pokes of a node.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Who asked of late, and by which filters.
#[derive(Default)]
pub(super) struct Interest(Mutex<Known>);

#[derive(Default)]
struct Known {
    nodes: HashMap<NodeId, (Instant, Vec<TopicFilter>)>,
    tree: FilterTree<NodeId, ()>,
}

impl std::fmt::Debug for Interest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interest").field("nodes", &self.0.lock().nodes.len()).finish()
    }
}

impl Interest {
    /// Notes that a node asked.
    pub(super) fn note(&self, node: &NodeId, filters: &[TopicFilter]) {
        let mut known = self.0.lock();
        let Known { nodes, tree } = &mut *known;
        match nodes.get_mut(node) {
            Some((at, old)) if old == filters => *at = Instant::now(),
            _ => {
                if let Some((_, old)) = nodes.insert(node.clone(), (Instant::now(), filters.to_vec())) {
                    for filter in old {
                        tree.remove(&filter, node);
                    }
                }
                for filter in filters {
                    tree.insert(filter, node.clone(), ());
                }
            }
        }
    }

    /// How many want to hear of this topic.
    pub(super) fn count(&self, topic: &TopicName) -> usize {
        let known = self.0.lock();
        let mut nodes = BTreeSet::new();
        known.tree.matches(topic, &mut |node: &NodeId, &()| {
            nodes.insert(node.clone());
        });
        nodes.iter().filter(|node| known.nodes.get(*node).is_some_and(|(at, _)| is_there(*at))).count()
    }

    /// Adds who wants to hear of a message.
    fn find(&self, message: &Message, found: &mut BTreeSet<NodeId>) {
        let from = message.origin.as_ref().map(|origin| &origin.node);
        self.0.lock().tree.matches(&message.topic, &mut |node: &NodeId, &()| {
            if Some(node) != from && !found.contains(node) {
                found.insert(node.clone());
            }
        });
    }

    /// Forgets who has not asked for so long that it is not there.
    fn forget_old(&self) {
        let mut known = self.0.lock();
        let Known { nodes, tree } = &mut *known;
        nodes.retain(|node, (at, filters)| {
            let is_there = is_there(*at);
            if !is_there {
                for filter in filters.iter() {
                    tree.remove(filter, node);
                }
            }
            is_there
        });
    }

    /// Pokes nodes when there is something for them, for ever. `nodes` hear first that they may ask, as nobody is known yet.
    pub(super) async fn keep_told(&self, log: &TopicLog, backbone: &dyn Backbone, mut nodes: Vec<NodeId>) {
        loop {
            let first = std::mem::take(&mut nodes);
            if let Err(error) = self.follow(log, backbone, first).await {
                tracing::debug!(error = error.chain(), "nodes are not told of new messages for a moment; they ask by themselves");
                tokio::time::sleep(PULL_EVERY / 60).await;
            }
        }
    }

    async fn follow(&self, log: &TopicLog, backbone: &dyn Backbone, nodes: Vec<NodeId>) -> Result<(), EdgeError> {
        let all = TopicFilter::new("#").expect("it is a valid filter");
        let mut news = log.subscribe(&[all], Start::Now)?;
        // What came before it follows, nobody was told of.
        let known: Vec<_> = self.0.lock().nodes.keys().cloned().collect();
        poke(backbone, nodes.into_iter().chain(known)).await;
        loop {
            let mut found = BTreeSet::new();
            let mut next = Some(news.next().await?);
            while let Some(received) = next {
                if let Received::Message(message) = received {
                    self.find(&message, &mut found);
                }
                next = news.try_next();
            }
            self.forget_old();
            poke(backbone, found).await;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Whether a node is there that asked at this time.
fn is_there(at: Instant) -> bool {
    at.elapsed() < 2 * PULL_EVERY
}

async fn poke(backbone: &dyn Backbone, nodes: impl IntoIterator<Item = NodeId>) {
    for node in nodes {
        if let Err(error) = backbone.publish(&Subject::to_node(node, TOPICS), Carrier::default()).await {
            tracing::debug!(%error, "failed to tell a node of new messages; it asks by itself before long");
        }
    }
}

#[cfg(test)]
mod tests {
    use edgeward_topics::Origin;
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn those_hear_of_a_message_who_asked_for_it_and_did_not_send_it() {
        let (node, filter) = (|id: &str| NodeId::new(id).expect("valid"), |text: &str| TopicFilter::new(text).expect("valid"));
        let interest = Interest::default();
        interest.note(&node("a"), &[filter("x/#"), filter("x/+")]);
        interest.note(&node("b"), &[filter("y")]);
        interest.note(&node("b"), &[filter("x/1")]);
        interest.note(&node("c"), &[filter("#")]);
        let heard = |topic: &str, from: &str| {
            let mut found = BTreeSet::new();
            let message = Message::new(TopicName::new(topic).expect("valid"), "", Timestamp::now());
            interest.find(&Message { origin: Some(Origin { node: node(from), epoch: 1, position: 1 }), ..message }, &mut found);
            found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            (heard("x/1", "z"), heard("x/1", "a"), heard("y", "z"), heard("$x", "z")),
            ("a b c".into(), "b c".into(), "c".into(), String::new())
        );
        interest.forget_old();
        assert_eq!(heard("x/1", "z"), "a b c");
        let count = |topic: &str| interest.count(&TopicName::new(topic).expect("valid"));
        assert_eq!([count("x/1"), count("x/1/2"), count("y"), count("$x")], [3, 2, 1, 0]);
        // One that has been away for long is known as long as nothing was published.
        let long_ago = Instant::now().checked_sub(3 * PULL_EVERY).expect("the machine was started before");
        interest.0.lock().nodes.get_mut(&node("c")).expect("it asked").0 = long_ago;
        assert_eq!([count("x/1"), count("y")], [2, 0]);
    }
}
