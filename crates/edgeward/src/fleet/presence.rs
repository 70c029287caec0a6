//! Whether far nodes are still there while they run calls: one that vanishes answers nothing, and who called would wait out the deadline.
//!
//! A node is asked once for all of its calls, and only while there are such as take long.

use std::collections::HashMap;

use edgeward_cluster::{BackboneError, Message, Subject};
use edgeward_model::{NodeId, limits::FAR_PRESENCE_EVERY};
use parking_lot::Mutex;
use tokio::{sync::watch, time::sleep};

use super::far::FarNode;
use crate::services::METRICS;

/// The nodes that are asked.
#[derive(Debug, Default)]
pub(super) struct Presence(Mutex<HashMap<NodeId, watch::Receiver<bool>>>);

impl Presence {
    /// Ends when a node is there no more.
    pub(super) async fn gone(&self, node: &FarNode) {
        // Most calls are done by then.
        sleep(FAR_PRESENCE_EVERY).await;
        // Who asked for others may have ended just now, as nobody listened.
        while self.asked(node).wait_for(|gone| *gone).await.is_err() {}
    }

    fn asked(&self, node: &FarNode) -> watch::Receiver<bool> {
        let mut asked = self.0.lock();
        // Who has told, or whom nobody listened to, is done.
        asked.retain(|_, gone| gone.has_changed().is_ok());
        let begin = || {
            let (told, gone) = watch::channel(false);
            tokio::spawn(ask(node.clone(), told));
            gone
        };
        asked.entry(node.id.clone()).or_insert_with(begin).clone()
    }
}

/// Asks a node until it is gone, or nobody wants to know.
async fn ask(node: FarNode, told: watch::Sender<bool>) {
    // One receiver is kept for those who come.
    while told.receiver_count() > 1 {
        let asked = Subject::to_node(node.id.clone(), METRICS);
        // One that is slow, or too busy to answer, is there.
        if let Err(BackboneError::NoResponder(_)) = node.backbone.request(&asked, Message::default(), FAR_PRESENCE_EVERY).await {
            told.send_replace(true);
            return;
        }
        sleep(FAR_PRESENCE_EVERY).await;
    }
}
