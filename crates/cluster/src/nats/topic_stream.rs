//! The fleet's topics on NATS: one stream of JetStream, to which hubs append and which they follow. Nodes have no right to it.
//!
//! Each append says which message is the last one. So of two hubs that both take themselves for the active one, or after an append whose fate
//! is not known, nothing is written twice or out of order: who was overtaken learns it.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        self, Context,
        consumer::{DeliverPolicy, pull},
        context::{ContextBuilder, GetStreamErrorKind, PublishAckFuture, PublishErrorKind},
        message::PublishMessage,
        stream::{Config, DiscardPolicy, StorageType},
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

use self::subject::{subject_of, topic_of};
use crate::{backbone::Connection, error::BackboneError};

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
    /// What it is; none of one that no hub wrote.
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

/// An append on its way.
#[must_use = "the message is in the stream only when this says so"]
pub struct Appending {
    acknowledgement: PublishAckFuture,
    position: u64,
}

/// Messages of the stream as they come.
pub struct Following {
    messages: pull::Ordered,
    waiting: u64,
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

    /// Hands a message over that is to follow the one at this position. Many may be on their way: when one is not appended, none of those after
    /// it is.
    pub async fn append(&self, content: StreamContent, follows: u64) -> Result<Appending, BackboneError> {
        self.check_up()?;
        let StreamContent { node, topic, head, payload } = content;
        let message = PublishMessage::build().payload(payload).header(HEAD, head.as_str()).expected_last_sequence(follows);
        let sending = timeout(SEND_TIMEOUT, self.context.send_publish(subject_of(&node, &topic), message));
        let acknowledgement = sending
            .await
            .map_err(|_elapsed| BackboneError::Timeout(format!("stream {STREAM}")))?
            .map_err(|error| failed("append to the stream of topics", error))?;
        Ok(Appending { acknowledgement, position: follows + 1 })
    }

    /// Follows what comes after this position.
    pub async fn follow(&self, after: u64) -> Result<Following, BackboneError> {
        self.check_up()?;
        let config = pull::OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after + 1 },
            ..pull::OrderedConfig::default()
        };
        let consumer = self.context.create_consumer_on_stream(config, STREAM).await;
        let consumer = consumer.map_err(|error| failed("read the stream of topics", error))?;
        let waiting = consumer.cached_info().num_pending;
        let messages = consumer.messages().await.map_err(|error| failed("read the stream of topics", error))?;
        Ok(Following { messages, waiting })
    }
}

impl Appending {
    /// Returns its position when it is in the stream, on the disks of those that keep it.
    ///
    /// # Errors
    /// [`BackboneError::Answered`] when it would not have followed the message that it was to follow: then it is not there. After any other error
    /// it may be.
    pub async fn done(self) -> Result<u64, BackboneError> {
        match self.acknowledgement.await {
            Ok(acknowledged) if acknowledged.sequence == self.position => Ok(self.position),
            Ok(_) => Err(overtaken()),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Err(overtaken()),
            Err(error) if error.kind() == PublishErrorKind::TimedOut => Err(BackboneError::Timeout(format!("stream {STREAM}"))),
            Err(error) => Err(failed("append to the stream of topics", error)),
        }
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
        let head = message.headers.as_ref().and_then(|headers| headers.get(HEAD)).map(ToString::to_string);
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
