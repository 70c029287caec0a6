//! Imports what others published to the fleet: how far it is lies in the node's log, written together with what came.

use std::{sync::Arc, time::Duration};

use edgeward_cluster::{Backbone, Subject, Subjects, backoff};
use edgeward_model::{
    EdgeError, TopicFilter,
    limits::{PULL_EVERY, TOPIC_EXCHANGE_TIMEOUT},
};
use tokio::sync::watch;

use super::TopicExchange;
use crate::{
    node::Node,
    services::{self, ImportQuestion, TOPICS, TOPICS_IMPORT},
    topics::bundle::Bundle,
};

/// What the mark is called that says how far the fleet's topics were read.
const FLEET: &str = "fleet";

/// Imports, for ever.
pub(super) async fn import(node: Arc<Node>, backbone: Arc<dyn Backbone>, filters: Vec<TopicFilter>, told: watch::Sender<TopicExchange>) {
    let mut connection = backbone.connection();
    let to = Subject::to_hub(node.runtime().node().id.clone(), TOPICS_IMPORT);
    let mut failures = 0_u32;
    let mut pokes = loop {
        match backbone.subscribe(&Subjects::to_node(node.runtime().node().id.clone(), TOPICS)).await {
            Ok(pokes) => break pokes,
            Err(error) => {
                tracing::warn!(%error, "what others publish cannot be heard of yet");
                failures = failures.saturating_add(1);
                tokio::time::sleep(backoff::pause(failures)).await;
            }
        }
    };
    let mut importing = Importing { node: &node, backbone: &*backbone, to, filters, told: &told };
    loop {
        if connection.wait_for(|connection| connection.is_up).await.is_err() {
            return;
        }
        connection.mark_unchanged();
        let pause = match importing.ask().await {
            Ok(has_more) => {
                failures = 0;
                // Nodes that came at once do not ask at once for ever.
                if has_more { Duration::ZERO } else { PULL_EVERY / 2 + backoff::some_of(PULL_EVERY / 2) }
            }
            Err(error) => {
                let why = error.chain();
                tracing::debug!(error = why, "messages of the fleet could not be imported yet");
                told.send_if_modified(|now| now.importing_failed.replace(why.clone()).as_ref() != Some(&why));
                failures = failures.saturating_add(1);
                backoff::pause(failures)
            }
        };
        if pause.is_zero() {
            continue;
        }
        tokio::select! {
            poke = pokes.next(), if failures == 0 => if poke.is_none() { return },
            changed = connection.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

struct Importing<'a> {
    node: &'a Node,
    backbone: &'a dyn Backbone,
    to: Subject,
    filters: Vec<TopicFilter>,
    told: &'a watch::Sender<TopicExchange>,
}

impl Importing<'_> {
    /// Asks for a bundle and takes it; returns whether there is more.
    async fn ask(&mut self) -> Result<bool, EdgeError> {
        let log = self.node.topics().log();
        let after = log.mark(FLEET).await?;
        let question = ImportQuestion { filters: self.filters.clone(), after };
        let answer = self.backbone.request(&self.to, services::write(&question), TOPIC_EXCHANGE_TIMEOUT).await?;
        let Bundle { mark, lost, has_more, mut messages } = Bundle::read(&answer)?;
        let mark = mark.ok_or_else(|| EdgeError::invalid("the hub did not say how far the fleet's topics were read"))?;
        let own = &self.node.runtime().node().id;
        messages.retain(|message| !message.topic.is_reserved() && message.origin.as_ref().is_some_and(|origin| origin.node != *own));
        let new = if messages.is_empty() && after == Some(mark) { 0 } else { log.take(messages, Some((FLEET, mark))).await? };
        if lost > 0 {
            tracing::warn!(lost, "messages of the fleet were gone before they could be imported");
        }
        self.told.send_modify(|now| {
            now.imported += new;
            now.lost += lost;
            now.importing_failed = None;
        });
        Ok(has_more && after != Some(mark))
    }
}
