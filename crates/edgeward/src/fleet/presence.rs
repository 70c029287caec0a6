//! Whether far nodes are still there while they run calls: one that vanishes answers nothing, and who called would wait out the deadline.
//!
//! A node is asked once for all of its calls, and only while there are such as take long. The more nodes are asked, the less often each.

use std::{collections::HashMap, sync::Arc};

use edgeward_cluster::{BackboneError, Message, Subject};
use edgeward_model::{
    NodeId,
    limits::{FAR_PRESENCE_AFTER, FAR_PRESENCE_EVERY, FAR_PRESENCE_PATIENCE, FAR_PRESENCE_SPACING, FAR_SILENCE_MAX},
};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::far::FarNode;
use crate::services::METRICS;

/// The nodes that are asked.
#[derive(Debug, Default)]
pub(super) struct Presence {
    nodes: Mutex<HashMap<NodeId, watch::Receiver<Seen>>>,
    /// Each who asks has one.
    asking: Arc<()>,
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    There,
    /// It has answered nothing for a while, or nobody listens where it did just now.
    Silent,
    /// Nobody has listened there for as long as it may take to connect again.
    Gone,
}

impl Presence {
    /// Ends when a node is there no more. Who may leave it does so as soon as it is silent, which it also is when its power or its network failed, and nobody is told
    /// of that; others when it had the time to connect again.
    pub(super) async fn gone(&self, node: &FarNode, may_leave: bool) {
        // Most calls are done by then.
        sleep(FAR_PRESENCE_AFTER).await;
        let enough = if may_leave { Seen::Silent } else { Seen::Gone };
        // Who asked for others may have ended just now, as nobody listened.
        while self.asked(node).wait_for(|seen| *seen >= enough).await.is_err() {}
    }

    fn asked(&self, node: &FarNode) -> watch::Receiver<Seen> {
        let mut nodes = self.nodes.lock();
        // Who has told, or whom nobody listened to, is done.
        nodes.retain(|_, seen| seen.has_changed().is_ok());
        let begin = || {
            let (told, seen) = watch::channel(Seen::There);
            tokio::spawn(ask(node.clone(), told, Arc::clone(&self.asking)));
            seen
        };
        nodes.entry(node.id.clone()).or_insert_with(begin).clone()
    }
}

/// Asks a node until it is gone, or nobody wants to know.
async fn ask(node: FarNode, told: watch::Sender<Seen>, asking: Arc<()>) {
    let (mut missing_since, mut answered_at) = (None, Instant::now());
    // One receiver is kept for those who come.
    while told.receiver_count() > 1 {
        let nodes = u32::try_from(Arc::strong_count(&asking)).unwrap_or(u32::MAX);
        let pause = FAR_PRESENCE_EVERY.max(FAR_PRESENCE_SPACING * nodes);
        let next = Instant::now() + pause;
        let asked = Subject::to_node(node.id.clone(), METRICS);
        // What it was asked just before it vanished it does not answer; it is asked again.
        let answered = node.backbone.request(&asked, Message::default(), pause).await;
        let seen = match answered {
            Err(BackboneError::NoResponder(_)) => {
                let since = *missing_since.get_or_insert_with(Instant::now);
                if since.elapsed() < FAR_PRESENCE_PATIENCE { Seen::Silent } else { Seen::Gone }
            }
            // One that is slow, or too busy to answer, is there, and is not away for as long as it takes to connect again.
            Err(_) => {
                missing_since = None;
                if answered_at.elapsed() < FAR_SILENCE_MAX { Seen::There } else { Seen::Silent }
            }
            Ok(_) => {
                (missing_since, answered_at) = (None, Instant::now());
                Seen::There
            }
        };
        told.send_replace(seen);
        if seen == Seen::Gone {
            return;
        }
        sleep_until(next).await;
    }
}
