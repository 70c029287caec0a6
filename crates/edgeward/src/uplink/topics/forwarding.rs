//! Forwards what is published on the node, in its order, bundle by bundle: the next one goes when the hub has the last one on its disk.

use std::{sync::Arc, time::Duration};

use edgeward_cluster::{Backbone, Subject, backoff};
use edgeward_model::{EdgeError, TopicFilter, limits::TOPIC_EXCHANGE_TIMEOUT};
use edgeward_topics::{Message, Origin, Start, Subscription, TopicLog};
use jiff::Timestamp;
use tokio::{sync::watch, time::timeout};

use super::TopicExchange;
use crate::{
    node::Node,
    services::TOPICS,
    topics::bundle::{Bundle, Room},
};

/// The durable subscription that says how far it is.
const SUBSCRIPTION: &str = "fleet:forward";

/// How often the log is looked at, whatever comes.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Forwards, for ever.
pub(super) async fn forward(
    node: Arc<Node>,
    backbone: Arc<dyn Backbone>,
    filters: Vec<TopicFilter>,
    mut begun: Begun,
    told: watch::Sender<TopicExchange>,
) {
    let mut connection = backbone.connection();
    let forwarding = Forwarding { node: &node, log: node.topics().log(), filters: &filters, backbone: &*backbone, told: &told };
    told.send_modify(|now| now.forwarded_up_to = begun.kept);
    let mut failures = 0_u32;
    loop {
        if connection.wait_for(|connection| connection.is_up).await.is_err() {
            return;
        }
        match forwarding.go_on(&mut begun).await {
            Ok(()) => failures = 0,
            Err(error) => {
                let why = error.chain();
                tracing::debug!(error = why, "messages could not be forwarded to the fleet yet");
                told.send_if_modified(|now| now.forwarding_failed.replace(why.clone()).as_ref() != Some(&why));
                failures = failures.saturating_add(1);
                tokio::time::sleep(backoff::pause(failures)).await;
            }
        }
    }
}

struct Forwarding<'a> {
    node: &'a Node,
    log: &'a TopicLog,
    filters: &'a [TopicFilter],
    backbone: &'a dyn Backbone,
    told: &'a watch::Sender<TopicExchange>,
}

/// How far it is.
pub(super) struct Begun {
    /// The next position to look at.
    next: u64,
    /// Up to where that is known on the disk.
    kept: u64,
    news: Subscription,
}

impl Begun {
    /// Where it was, or from now on.
    pub(super) async fn new(log: &TopicLog, filters: &[TopicFilter]) -> Result<Self, EdgeError> {
        // It hears of what comes before it looks.
        let news = log.subscribe(filters, Start::Now)?;
        let known = log.put_durable(SUBSCRIPTION, filters.to_vec(), Vec::new(), Timestamp::now()).await?;
        Ok(Self { next: known.acknowledged + 1, kept: known.acknowledged, news })
    }
}

impl Forwarding<'_> {
    /// Forwards a bundle, or waits until there is something to look at.
    async fn go_on(&self, begun: &mut Begun) -> Result<(), EdgeError> {
        // What is gone has no epoch any more.
        let first = begun.next.max(self.log.state().trimmed + 1);
        let batch = self.log.read_any(first, self.filters).await?;
        // Read after the messages: all of them are within an epoch that has begun.
        let Some(span) = self.log.span(first).await? else {
            return wait(&mut begun.news).await;
        };
        let lost = first - begun.next + batch.lost;
        // What was published before the log was opened belongs to another epoch than what came after it.
        let until = span.until.map_or(batch.next, |until| batch.next.min(until));
        let (mut room, mut messages, mut next) = (Room::default(), Vec::new(), until);
        let id = &self.node.runtime().node().id;
        for message in batch.messages.iter().filter(|message| message.origin.is_none() && !message.topic.is_reserved()) {
            let position = message.position.unwrap_or(0);
            let origin = Some(Origin { node: id.clone(), epoch: span.epoch, position });
            let message = Message { origin, ..Message::clone(message) };
            if position >= until || !room.take(&message) {
                next = position.min(until);
                break;
            }
            messages.push(message);
        }
        let count = messages.len() as u64;
        if count > 0 {
            let to = Subject::to_hub(id.clone(), TOPICS);
            self.backbone.request(&to, Bundle { messages, ..Bundle::default() }.write(), TOPIC_EXCHANGE_TIMEOUT).await?;
        }
        begun.next = next;
        if next - 1 > begun.kept {
            self.log.acknowledge(SUBSCRIPTION, next - 1, Timestamp::now()).await?;
            begun.kept = next - 1;
        }
        if lost > 0 {
            tracing::warn!(lost, "messages were gone from the log before they could be forwarded");
        }
        self.told.send_modify(|now| {
            now.forwarded += count;
            now.forwarded_up_to = next - 1;
            now.lost += lost;
            now.forwarding_failed = None;
        });
        Ok(())
    }
}

/// Waits for something new, and forgets what it was: it lies in the log. After a while it returns all the same, so that what is of no filter is
/// passed over before it is gone, and not taken for lost.
async fn wait(news: &mut Subscription) -> Result<(), EdgeError> {
    if let Ok(new) = timeout(LOOK_EVERY, news.next()).await {
        new?;
    }
    while news.try_next().is_some() {}
    Ok(())
}
