//! The topics of a fleet, at its hub: one log, to which members publish and which they read.
//!
//! Where the members are in this process, or the hub has no servers, the log on the hub's disk is all. On NATS the messages lie in a
//! stream of JetStream, and the log is a copy of it, with the same positions: whatever reads reads the copy.

pub(crate) mod exchange;
mod interest;
pub(crate) mod stream_log;

use std::{path::Path, sync::Arc};

use edgeward_cluster::nats::TopicStream;
use edgeward_model::{EdgeError, ErrorKind, NodeId, TopicFilter, TopicName};
use edgeward_telemetry::span;
use edgeward_topics::{Batch, CloudEvent, Latest, LogOptions, LogState, Message, Origin, Start, Subscription, TopicInfo, TopicLog};
use jiff::Timestamp;
use parking_lot::RwLock;
use tokio_util::task::AbortOnDropHandle;

use self::{interest::Interest, stream_log::StreamLog};
use super::EdgeCluster;
use crate::topics::{FOLDER, check_topic, source_of, spans};

/// What a cluster has of its topics.
#[derive(Debug)]
pub(crate) struct FleetTopics {
    hub: NodeId,
    log: Arc<TopicLog>,
    way: RwLock<Way>,
    interest: Interest,
}

/// Where a message goes that is published.
#[derive(Clone, Debug)]
enum Way {
    /// Into the log.
    Here,
    /// Nowhere now: another hub may be the active one.
    Nowhere,
    /// Into the stream.
    Stream(Arc<StreamLog>),
}

impl FleetTopics {
    pub(super) fn open(hub: NodeId, folder: &Path, kept: LogOptions) -> Result<Self, EdgeError> {
        let log = Arc::new(TopicLog::open(&folder.join(FOLDER), kept)?);
        Ok(Self { hub, log, way: RwLock::new(Way::Here), interest: Interest::default() })
    }

    /// From now on its messages lie in a stream, to which it has no way yet.
    pub(crate) fn belong_to_stream(&self) {
        *self.way.write() = Way::Nowhere;
    }

    /// Publishes to this stream, and copies it, for as long as what is returned is kept.
    fn use_stream(self: &Arc<Self>, stream: TopicStream) -> StreamUse {
        let log = Arc::new(StreamLog::new(Arc::clone(&self.log), stream));
        *self.way.write() = Way::Stream(Arc::clone(&log));
        StreamUse { topics: Arc::clone(self), _copying: AbortOnDropHandle::new(tokio::spawn(async move { log.keep_copied().await })) }
    }

    async fn publish(&self, message: Message) -> Result<u64, EdgeError> {
        match self.way()? {
            Way::Stream(log) => log.publish(&self.hub, message).await,
            _ => self.log.publish(message).await,
        }
    }

    /// Takes messages of a node, each once, and returns when they are durable.
    async fn take(&self, node: &NodeId, messages: Vec<Message>) -> Result<(), EdgeError> {
        match self.way()? {
            Way::Stream(log) => log.take(node, messages).await,
            _ => self.log.take(messages, None).await.map(drop),
        }
    }

    fn way(&self) -> Result<Way, EdgeError> {
        match &*self.way.read() {
            Way::Nowhere => Err(EdgeError::new(
                ErrorKind::Unavailable,
                "this hub is not the active one now, which alone publishes to the fleet's topics",
            )),
            way => Ok(way.clone()),
        }
    }

    /// Says of a message where it came from, also when it was published here.
    async fn with_origin(&self, message: &Message) -> Result<Message, EdgeError> {
        let mut message = message.clone();
        if message.origin.is_none() {
            let position = message.position.unwrap_or(0);
            let epoch = self.log.span(position).await?.map_or(0, |span| span.epoch);
            message.origin = Some(Origin { node: self.hub.clone(), epoch, position });
        }
        Ok(message)
    }
}

/// While it is kept, the topics lie in a stream.
pub(super) struct StreamUse {
    topics: Arc<FleetTopics>,
    _copying: AbortOnDropHandle<()>,
}

impl Drop for StreamUse {
    fn drop(&mut self) {
        self.topics.belong_to_stream();
    }
}

/// The topics of a fleet. Thread-safe; clones are the same.
#[derive(Clone, Debug)]
pub struct ClusterTopics(Arc<FleetTopics>);

impl EdgeCluster {
    /// The topics of the fleet: what its nodes forward, what is published here, and what they import.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the cluster has no folder to keep them in.
    pub fn topics(&self) -> Result<ClusterTopics, EdgeError> {
        let topics = self.0.topics.clone().map(ClusterTopics);
        topics.ok_or_else(|| {
            EdgeError::new(ErrorKind::Unavailable, "this cluster keeps no topics, as it ends with the process; open it in a folder")
        })
    }
}

impl EdgeCluster {
    /// Says that its topics lie in a stream, whether it reaches that or not.
    pub(crate) fn keep_topics_in_stream(&self) {
        self.0.topics.iter().for_each(|topics| topics.belong_to_stream());
    }
}

impl ClusterTopics {
    /// Publishes a message to the fleet, and returns its position when it is durable. Subscribers see it soon after.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] where a topic begins with `$`, [`ErrorKind::TooLarge`] past a bound of a message; [`ErrorKind::Unavailable`] while
    /// the hub is not the active one or does not reach its servers, and [`ErrorKind::Timeout`] when it is not known whether the message is there.
    pub async fn publish(&self, message: Message) -> Result<u64, EdgeError> {
        check_topic(&message.topic)?;
        message.check()?;
        let mut message = Message { origin: None, ..message };
        let mut span = spans::publish(&mut message);
        self.0.publish(message).await.inspect_err(|error| span::fail(&mut span, error))
    }

    /// Publishes an event, which those who are given messages as events get as it is. Its `partitionkey` is the key of the message.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is no event, and those of [`ClusterTopics::publish`].
    pub async fn publish_event(&self, topic: TopicName, event: CloudEvent) -> Result<u64, EdgeError> {
        event.check()?;
        self.publish(event.into_message(Message::new(topic, Vec::new(), Timestamp::now()))).await
    }

    /// A message as the event that functions get.
    pub fn event_of(&self, message: &Message) -> CloudEvent {
        CloudEvent::of(message, &source_of(&self.0.hub))
    }

    /// Follows the messages of these filters, from now on or from a position.
    pub fn subscribe(&self, filters: &[TopicFilter], start: Start) -> Result<Subscription, EdgeError> {
        self.0.log.subscribe(filters, start)
    }

    /// The messages of this filter from this position on, a page of them.
    pub async fn read(&self, from: u64, filter: &TopicFilter) -> Result<Batch, EdgeError> {
        self.0.log.read(from, filter).await
    }

    /// The newest messages of this filter before a position, and whether there may be older ones: see [`Latest`].
    pub async fn latest(&self, filter: &TopicFilter, before: Option<u64>, count: usize) -> Result<Latest, EdgeError> {
        self.0.log.latest(filter, before, count).await
    }

    /// The topics of this filter whose names come after `after`, a page of them. It looks at the whole log: see [`TopicLog::topics`].
    pub async fn list(&self, filter: &TopicFilter, after: &str) -> Result<Vec<TopicInfo>, EdgeError> {
        self.0.log.topics(filter, after).await
    }

    /// The retained messages of this filter whose topics come after `after`, a page of them.
    pub async fn retained(&self, filter: &TopicFilter, after: &str) -> Result<Vec<Arc<Message>>, EdgeError> {
        self.0.log.retained(filter, after).await
    }

    /// How many nodes import messages of this topic: those that asked of late, so not those that are away, and after the start of the hub not
    /// yet all.
    pub fn importers(&self, topic: &TopicName) -> usize {
        self.0.interest.count(topic)
    }

    /// What there is.
    pub fn state(&self) -> LogState {
        self.0.log.state()
    }
}
