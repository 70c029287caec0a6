//! The fleet's topics on NATS: one stream of JetStream, to which hubs append and which they follow. Nodes have no right to it.
//!
//! Each append says which message is the last one. So of two hubs that both take themselves for the active one, or after an append whose fate
//! is not known, nothing is written twice or out of order: who was overtaken learns it.
//!
//! Of a bundle whose beginning was refused, the servers may take a later message: others may have written just as many as that one expects. So
//! each says which of which bundle it is, and who follows passes over one that does not come right after the one before it.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        self, Context,
        consumer::{DeliverPolicy, pull},
        context::{ContextBuilder, GetStreamErrorKind, PublishAckFuture, PublishErrorKind},
        message::PublishMessage,
        stream::{Config, DiscardPolicy, RawMessageErrorKind, StorageType},
    },
};
use bytes::Bytes;
use edgeward_model::{
    EdgeError, ErrorKind, NodeId, TopicName,
    limits::{
        SEND_TIMEOUT, TOPIC_LOG_AGE_DEFAULT, TOPIC_LOG_BYTES_DEFAULT, TOPIC_LOG_MESSAGES_DEFAULT, TOPIC_STREAM_SENDING_MAX,
        TOPIC_STREAM_TIMEOUT,
    },
};
use futures::StreamExt;
use tokio::time::timeout;

use self::{
    link::{Known, LINK, Link, Links},
    subject::{subject_of, topic_of},
};
use crate::{backbone::Connection, error::BackboneError};

mod link;
mod subject;

pub(super) use self::subject::SUBJECTS;

/// Its name.
const STREAM: &str = "edgeward_topics";
/// The header field that has what is known of a message beside its topic and payload.
const HEAD: &str = "Edgeward-Message";
/// For how long JetStream remembers the ids of messages, which ours have not; the shortest that it takes.
const DUPLICATE_WINDOW: Duration = Duration::from_millis(100);

/// The stream of a fleet's topics. Clones are the same.
#[derive(Clone, Debug)]
pub struct TopicStream {
    context: Context,
    connection: tokio::sync::watch::Receiver<Connection>,
    replicas: usize,
    /// None for what is usual, or what its operator set.
    bounds: Option<StreamBounds>,
}

/// What a stream keeps at most; past a bound the oldest messages give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamBounds {
    /// Messages.
    pub messages_max: u64,
    /// Bytes of messages.
    pub bytes_max: u64,
    /// Age of a message.
    pub age_max: Duration,
}

impl Default for StreamBounds {
    fn default() -> Self {
        Self { messages_max: TOPIC_LOG_MESSAGES_DEFAULT, bytes_max: TOPIC_LOG_BYTES_DEFAULT, age_max: TOPIC_LOG_AGE_DEFAULT }
    }
}

impl StreamBounds {
    /// This configuration within these bounds.
    fn within(self, config: Config) -> Config {
        let signed = |bound: u64| i64::try_from(bound).unwrap_or(i64::MAX);
        Config { max_messages: signed(self.messages_max), max_bytes: signed(self.bytes_max), max_age: self.age_max, ..config }
    }
}

/// What a stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// Which it is: one that was deleted and made again is another.
    pub epoch: u64,
    /// Position of the last message that there ever was; 0 for none.
    pub last: u64,
}

/// A message of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamMessage {
    /// Its position, from 1.
    pub position: u64,
    /// What it is; none of one that no hub wrote, or of a bundle of which one before it is not there.
    pub content: Option<StreamContent>,
}

/// What a message of the stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamContent {
    /// The member that published it.
    pub node: NodeId,
    /// Where.
    pub topic: TopicName,
    /// What is known of it beside, as a line of text.
    pub head: String,
    /// The payload as it is.
    pub payload: Bytes,
}

/// A bundle on its way.
#[must_use = "its messages are in the stream only when this says so"]
pub struct Appending {
    acknowledgements: Vec<PublishAckFuture>,
    /// Of the message that it follows.
    position: u64,
}

/// Messages of the stream as they come.
pub struct Following {
    messages: pull::Ordered,
    waiting: u64,
    links: Links,
}

impl TopicStream {
    pub(super) fn new(client: Client, connection: tokio::sync::watch::Receiver<Connection>, replicas: usize) -> Self {
        let context = ContextBuilder::new().timeout(TOPIC_STREAM_TIMEOUT).max_ack_inflight(TOPIC_STREAM_SENDING_MAX).build(client);
        Self { context, connection, replicas, bounds: None }
    }

    /// The same, which is opened with these bounds whatever was set before.
    #[must_use]
    pub fn with_bounds(self, bounds: StreamBounds) -> Self {
        Self { bounds: Some(bounds), ..self }
    }

    /// Returns when it is connected.
    pub async fn until_up(&self) {
        // Its backbone has ended for ever otherwise.
        let _ = self.connection.clone().wait_for(|connection| connection.is_up).await;
    }

    fn check_up(&self) -> Result<(), BackboneError> {
        let connection = self.connection.borrow();
        if connection.is_up { Ok(()) } else { Err(BackboneError::Disconnected("it has no connection to NATS".to_owned())) }
    }

    /// Says what it holds; makes it when it is missing. Without [bounds](Self::with_bounds) one that is there stays as its operator set it.
    pub async fn open(&self) -> Result<StreamState, BackboneError> {
        self.check_up()?;
        let stream = match self.context.get_stream(STREAM).await {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), GetStreamErrorKind::JetStream(ref error) if error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND) => {
                self.context.create_stream(self.config()).await.map_err(|error| failed("make the stream of topics", error))?
            }
            Err(error) => return Err(failed("open the stream of topics; does the NATS server have JetStream?", error)),
        };
        let info = stream.cached_info();
        if let Some(bounds) = self.bounds {
            let wanted = bounds.within(info.config.clone());
            if wanted != info.config {
                self.context.update_stream(&wanted).await.map_err(|error| failed("set the bounds of the stream of topics", error))?;
            }
        }
        let created = info.created.unix_timestamp_nanos();
        Ok(StreamState { epoch: u64::try_from(created).unwrap_or(0), last: info.state.last_sequence })
    }

    fn config(&self) -> Config {
        self.bounds.unwrap_or_default().within(Config {
            name: STREAM.to_owned(),
            description: Some("topics of an Edgeward fleet".to_owned()),
            subjects: vec![SUBJECTS.to_owned()],
            storage: StorageType::File,
            num_replicas: self.replicas,
            discard: DiscardPolicy::Old,
            duplicate_window: DUPLICATE_WINDOW,
            ..Config::default()
        })
    }

    /// Hands messages over that are to follow the one at this position. Many bundles may be on their way: of one whose beginning is not appended
    /// nobody who [follows](Self::follow) sees the rest.
    pub async fn append(&self, bundle: Vec<StreamContent>, follows: u64) -> Result<Appending, BackboneError> {
        self.check_up()?;
        let mut link = Link::first().map_err(|error| failed("append to the stream of topics", error))?;
        let mut appending = Appending { acknowledgements: Vec::with_capacity(bundle.len()), position: follows };
        for (StreamContent { node, topic, head, payload }, position) in bundle.into_iter().zip(follows..) {
            let message = PublishMessage::build().payload(payload).header(HEAD, head.as_str()).header(LINK, link.to_string().as_str());
            let message = message.expected_last_sequence(position);
            let sending = timeout(SEND_TIMEOUT, self.context.send_publish(subject_of(&node, &topic), message));
            let sent = sending.await.map_err(|_elapsed| BackboneError::Timeout(format!("stream {STREAM}")))?;
            appending.acknowledgements.push(sent.map_err(|error| failed("append to the stream of topics", error))?);
            link = link.next();
        }
        Ok(appending)
    }

    /// Follows what comes after this position.
    pub async fn follow(&self, after: u64) -> Result<Following, BackboneError> {
        self.check_up()?;
        let links = Links { position: after, link: self.link(after).await? };
        let config = pull::OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after + 1 },
            ..pull::OrderedConfig::default()
        };
        let consumer = self.context.create_consumer_on_stream(config, STREAM).await;
        let consumer = consumer.map_err(|error| failed("read the stream of topics", error))?;
        let waiting = consumer.cached_info().num_pending;
        let messages = consumer.messages().await.map_err(|error| failed("read the stream of topics", error))?;
        Ok(Following { messages, waiting, links })
    }

    /// Which message of which bundle is at a position that a hub has seen.
    async fn link(&self, position: u64) -> Result<Known, BackboneError> {
        if position == 0 {
            return Ok(Known::Not);
        }
        let stream = self.context.get_stream_no_info(STREAM).await.map_err(|error| failed("read the stream of topics", error))?;
        match stream.get_raw_message(position).await {
            Ok(message) => Ok(Link::of(&message.headers).map_or(Known::Not, Known::Link)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(Known::Gone),
            Err(error) => Err(failed("read the stream of topics", error)),
        }
    }
}

impl Appending {
    /// Returns the position of its last message when all are in the stream, on the disks of those that keep it.
    ///
    /// # Errors
    /// [`BackboneError::Answered`] when a message would not have followed the one that it was to follow: then none from that one on is there for
    /// who follows. After any other error they may be.
    pub async fn done(self) -> Result<u64, BackboneError> {
        let mut position = self.position;
        for acknowledgement in self.acknowledgements {
            position += 1;
            match acknowledgement.await {
                Ok(acknowledged) if acknowledged.sequence == position => {}
                Ok(_) => return Err(overtaken()),
                Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => return Err(overtaken()),
                Err(error) if error.kind() == PublishErrorKind::TimedOut => return Err(BackboneError::Timeout(format!("stream {STREAM}"))),
                Err(error) => return Err(failed("append to the stream of topics", error)),
            }
        }
        Ok(position)
    }
}

impl Following {
    /// How many messages there were when it began.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// The next message. May be dropped and called again.
    pub async fn next(&mut self) -> Result<StreamMessage, BackboneError> {
        let next = self.messages.next().await;
        let message = next.ok_or_else(|| BackboneError::Disconnected("the stream of topics ended".to_owned()))?;
        let message = message.map_err(|error| failed("read the stream of topics", error))?;
        let position = message.info().map(|info| info.stream_sequence);
        let position = position.map_err(|source| BackboneError::Broker { what: "read the stream of topics".to_owned(), source })?;
        let follows = self.links.take(position, message.headers.as_ref().and_then(Link::of));
        let head = message.headers.as_ref().and_then(|headers| headers.get(HEAD)).map(ToString::to_string).filter(|_| follows);
        let content = head.zip(topic_of(&message.subject)).map(|(head, (node, topic))| StreamContent {
            node,
            topic,
            head,
            payload: message.message.payload.clone(),
        });
        Ok(StreamMessage { position, content })
    }
}

fn failed(what: &str, source: impl std::error::Error + Send + Sync + 'static) -> BackboneError {
    BackboneError::Broker { what: what.to_owned(), source: Box::new(source) }
}

/// Another message came first.
fn overtaken() -> BackboneError {
    let message = "another hub wrote to the fleet's topics first, or a message before this one was not taken; try again";
    BackboneError::Answered(EdgeError::new(ErrorKind::Unavailable, message))
}
