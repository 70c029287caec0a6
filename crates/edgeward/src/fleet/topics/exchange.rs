//! What a hub answers nodes about topics: it takes what they forward, and gives them what they import.

use std::sync::Arc;

use edgeward_cluster::{
    Backbone, Message as Carrier, Service,
    service::{Call, handler},
    subject::Subjects,
};
use edgeward_model::{
    EdgeError, ErrorKind, NodeId,
    limits::{TOPIC_EXCHANGES_MAX, TOPIC_SHARE_FILTERS_MAX},
};
use edgeward_topics::Mark;
use tokio_util::task::AbortOnDropHandle;

use super::{FleetTopics, StreamUse, Way};
use crate::{
    fleet::{EdgeCluster, ServiceOptions, service::Guard},
    services::{self, ImportQuestion, TOPICS, TOPICS_IMPORT},
    topics::{
        bundle::{Bundle, Room},
        check_topic,
    },
};

/// The topics, served. Dropped, they are no more.
pub(in crate::fleet) struct TopicService {
    _services: [Service; 2],
    _telling: AbortOnDropHandle<()>,
    _stream: Option<StreamUse>,
}

impl EdgeCluster {
    /// Serves the topics of a cluster that keeps some.
    pub(in crate::fleet) async fn serve_topics(
        &self,
        backbone: &Arc<dyn Backbone>,
        guard: &Arc<Guard>,
        options: &ServiceOptions,
    ) -> Result<Option<TopicService>, EdgeError> {
        let Some(topics) = self.0.topics.clone() else { return Ok(None) };
        let stream = options.topics.clone().map(|stream| topics.use_stream(stream));
        let (taking, guarded) = (Arc::clone(&topics), Arc::clone(guard));
        let take = move |Call { subject, message, .. }: Call| {
            let (topics, checked) = (Arc::clone(&taking), guarded.check(&subject.node));
            async move {
                checked?;
                topics.take_bundle(&subject.node, Bundle::read(&message)?).await.map(|()| Carrier::default())
            }
        };
        let (giving, guarded) = (Arc::clone(&topics), Arc::clone(guard));
        let give = move |Call { subject, message, .. }: Call| {
            let (topics, checked) = (Arc::clone(&giving), guarded.check(&subject.node));
            async move {
                checked?;
                let question = services::read(&message, "a question for messages")?;
                topics.give(&subject.node, question).await.map(|bundle| bundle.write())
            }
        };
        let services = [
            backbone.serve(&Subjects::to_hub(TOPICS), TOPIC_EXCHANGES_MAX, handler(take)).await?,
            backbone.serve(&Subjects::to_hub(TOPICS_IMPORT), TOPIC_EXCHANGES_MAX, handler(give)).await?,
        ];
        let (nodes, backbone) = (self.node_ids(), Arc::clone(backbone));
        let telling = tokio::spawn(async move { topics.interest.keep_told(&topics.log, backbone.as_ref(), nodes).await });
        Ok(Some(TopicService { _services: services, _telling: AbortOnDropHandle::new(telling), _stream: stream }))
    }
}

impl FleetTopics {
    async fn take_bundle(&self, node: &NodeId, bundle: Bundle) -> Result<(), EdgeError> {
        for message in &bundle.messages {
            check_topic(&message.topic)?;
            if message.origin.as_ref().is_none_or(|origin| origin.node != *node) {
                let why = format!("node `{node}` brought a message for topic `{}` that it did not publish itself", message.topic);
                tracing::warn!(target: "audit", %node, topic = %message.topic, "refused a message of another node");
                return Err(EdgeError::new(ErrorKind::Forbidden, why));
            }
        }
        self.take(node, bundle.messages).await
    }

    async fn give(&self, node: &NodeId, question: ImportQuestion) -> Result<Bundle, EdgeError> {
        let ImportQuestion { filters, after } = question;
        if filters.len() > TOPIC_SHARE_FILTERS_MAX {
            return Err(EdgeError::new(
                ErrorKind::TooLarge,
                format!("node `{node}` imports by {} filters, the most is {TOPIC_SHARE_FILTERS_MAX}", filters.len()),
            ));
        }
        if let Way::Stream(log) = self.way()? {
            log.check_read()?;
        }
        self.interest.note(node, &filters);
        let head = self.log.state().head;
        let Some(after) = after else { return Ok(Bundle { mark: Some(self.mark(head).await?), ..Bundle::default() }) };
        // A log that was restored, or begun anew, has other messages: what a node has of it, it knows by where it came from. Of a position that is
        // gone it is not known any more, and what came after it is lost.
        let trimmed = self.log.state().trimmed;
        let is_known = after.position <= head && (after.position <= trimmed || self.mark(after.position).await? == after);
        let from = if is_known { after.position + 1 } else { trimmed + 1 };
        let batch = self.log.read_any(from, &filters).await?;
        let (mut room, mut messages, mut next) = (Room::default(), Vec::new(), batch.next);
        for message in &batch.messages {
            let message = self.with_origin(message).await?;
            if message.origin.as_ref().is_some_and(|origin| origin.node == *node) {
                continue;
            }
            if !room.take(&message) {
                next = message.position.unwrap_or(next);
                break;
            }
            messages.push(message);
        }
        let mark = self.mark(next - 1).await?;
        Ok(Bundle { mark: Some(mark), lost: batch.lost, has_more: mark.position < head, messages })
    }

    async fn mark(&self, position: u64) -> Result<Mark, EdgeError> {
        let span = self.log.span(position).await?;
        Ok(Mark { epoch: span.map_or(0, |span| span.epoch), position })
    }
}
