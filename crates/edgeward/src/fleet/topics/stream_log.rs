//! Topics in a stream of JetStream: what is appended follows what is known to be the last message, and the stream is copied into the hub's log.
//!
//! What was taken of a node is known from the copy. So before the first append, and after one whose fate is not known, the copy is brought up
//! to the end of the stream; from there on each append says which message it follows, and nothing comes in between unseen.

use std::{collections::HashMap, sync::Arc};

use edgeward_cluster::{
    backoff,
    nats::{Appending, StreamContent, StreamMessage, TopicStream},
};
use edgeward_model::{
    EdgeError, ErrorKind, NodeId,
    limits::{NODES_MAX, TOPIC_READ_BYTES_MAX, TOPIC_READ_MESSAGES_MAX, TOPIC_STREAM_TIMEOUT},
};
use edgeward_topics::{Message, Origin, TopicLog};
use futures::FutureExt;
use tokio::{
    sync::{Mutex, Notify, watch},
    time::timeout,
};

use crate::topics::bundle::Head;

/// The hub's side of a stream.
pub(super) struct StreamLog {
    log: Arc<TopicLog>,
    stream: TopicStream,
    chain: Mutex<Chained>,
    /// Up to where the copy has the stream.
    copied: watch::Sender<Copied>,
    /// Has the copying look anew.
    look: Notify,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Copied {
    epoch: u64,
    position: u64,
    /// What was to be copied when the copying began.
    end: u64,
}

/// What is known of the end of the stream.
#[derive(Default)]
struct Chained {
    /// None when it is to be read first.
    chain: Option<Chain>,
    /// How often it was lost, so that an append that fails late does not take a later one with it.
    losses: u64,
}

struct Chain {
    /// Position of the last message, those included that are on their way.
    last: u64,
    /// Up to where everything of an epoch of a node was taken, what is on its way included; of others the copy knows it.
    taken: HashMap<(NodeId, u64), u64>,
}

/// What became of a bundle.
enum Sent {
    /// It is on its way.
    Appending(Appending),
    /// All of it was taken before.
    Known,
    /// Some of it was sent before and is not in the copy yet, up to these positions of epochs of nodes. Would it be refused, what is sent after it
    /// would be taken for all; so that is not sent before it is known. Also the last position of the stream, with all that is on its way.
    Waits(HashMap<(NodeId, u64), u64>, u64),
}

impl std::fmt::Debug for StreamLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamLog").field("copied", &*self.copied.borrow()).finish_non_exhaustive()
    }
}

impl StreamLog {
    pub(super) fn new(log: Arc<TopicLog>, stream: TopicStream) -> Self {
        Self { log, stream, chain: Mutex::default(), copied: watch::Sender::new(Copied::default()), look: Notify::new() }
    }

    /// Appends a message that was published at the hub.
    pub(super) async fn publish(&self, hub: &NodeId, message: Message) -> Result<u64, EdgeError> {
        let last = self.append(hub, vec![message]).await?;
        last.ok_or_else(|| EdgeError::new(ErrorKind::Internal, "a message without an origin was passed over"))
    }

    /// Refuses while the copy has less than there was when this hub began: who reads it would take that for all there is.
    pub(super) fn check_read(&self) -> Result<(), EdgeError> {
        let Copied { epoch, position, end } = *self.copied.borrow();
        if epoch == 0 || position < end {
            let why = format!("the hub still reads the fleet's topics, {position} of {end} messages; try again later");
            return Err(EdgeError::new(ErrorKind::Unavailable, why));
        }
        Ok(())
    }

    /// Appends those messages of a node that were not taken before.
    pub(super) async fn take(&self, node: &NodeId, messages: Vec<Message>) -> Result<(), EdgeError> {
        messages.iter().try_for_each(Message::check)?;
        self.append(node, messages).await.map(drop)
    }

    /// Returns the position of the last message, none when all were there, when they are durable.
    async fn append(&self, node: &NodeId, messages: Vec<Message>) -> Result<Option<u64>, EdgeError> {
        loop {
            let (sent, losses) = {
                let mut chained = self.chain.lock().await;
                // Should this be dropped half-way, the next one reads anew.
                let mut chain = match chained.chain.take() {
                    // Members come and go, and what is remembered of them has a bound.
                    Some(chain) if chain.taken.len() < 2 * NODES_MAX => chain,
                    _ => self.read_end().await?,
                };
                let sent = self.send(&mut chain, node, &messages).await;
                if sent.is_ok() {
                    chained.chain = Some(chain);
                } else {
                    chained.losses += 1;
                }
                (sent?, chained.losses)
            };
            let done = match sent {
                Sent::Known => return Ok(None),
                Sent::Appending(appending) => appending.done().await.map(Some).map_err(EdgeError::from),
                Sent::Waits(on_their_way, last) => self.until_taken(on_their_way, last).await.map(|()| None),
            };
            match done {
                Ok(None) => {}
                Ok(last) => return Ok(last),
                Err(error) => {
                    let mut chained = self.chain.lock().await;
                    if chained.losses == losses {
                        (chained.chain, chained.losses) = (None, losses + 1);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Waits until what an attempt sent, for whose end nobody may have waited, is in the copy.
    async fn until_taken(&self, on_their_way: HashMap<(NodeId, u64), u64>, last: u64) -> Result<(), EdgeError> {
        for ((node, epoch), position) in on_their_way {
            let mut copied = self.copied.subscribe();
            // In vain is as good as not there.
            let _ = timeout(TOPIC_STREAM_TIMEOUT, copied.wait_for(|copied| copied.position >= last)).await;
            if self.log.taken(&node, epoch).await? < position {
                let why = format!("messages of node `{node}` that were sent before are not there; send them again");
                return Err(EdgeError::new(ErrorKind::Unavailable, why));
            }
        }
        Ok(())
    }

    async fn send(&self, chain: &mut Chain, node: &NodeId, messages: &[Message]) -> Result<Sent, EdgeError> {
        let (mut taken, mut in_copy, mut on_their_way) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut bundle = Vec::with_capacity(messages.len());
        for message in messages {
            if let Some(Origin { node, epoch, position }) = &message.origin {
                let key = (node.clone(), *epoch);
                let sent = match taken.get(&key).or_else(|| chain.taken.get(&key)) {
                    Some(sent) => *sent,
                    None => self.log.taken(node, *epoch).await?,
                };
                taken.insert(key.clone(), sent.max(*position));
                if *position <= sent {
                    let copied = match in_copy.get(&key) {
                        Some(copied) => *copied,
                        None => self.log.taken(node, *epoch).await?,
                    };
                    in_copy.insert(key.clone(), copied);
                    if *position > copied {
                        on_their_way.insert(key, *position);
                    }
                    continue;
                }
            }
            let head = Head::of(message).to_json();
            bundle.push(StreamContent { node: node.clone(), topic: message.topic.clone(), head, payload: message.payload.clone() });
        }
        if !on_their_way.is_empty() {
            return Ok(Sent::Waits(on_their_way, chain.last));
        }
        chain.taken.extend(taken);
        if bundle.is_empty() {
            return Ok(Sent::Known);
        }
        let count = bundle.len() as u64;
        let appending = self.stream.append(bundle, chain.last).await?;
        chain.last += count;
        Ok(Sent::Appending(appending))
    }

    /// Waits until the copy has all that is in the stream.
    async fn read_end(&self) -> Result<Chain, EdgeError> {
        let state = self.stream.open().await?;
        let mut copied = self.copied.subscribe();
        let is_there = |copied: &Copied| copied.epoch == state.epoch && copied.position >= state.last;
        if !is_there(&copied.borrow()) {
            self.look.notify_one();
        }
        let waiting = timeout(TOPIC_STREAM_TIMEOUT, copied.wait_for(is_there)).await;
        // It is the sender's own.
        if waiting.is_err() {
            let why = format!(
                "the hub still reads the {} messages of the fleet's topics, and takes none until then; try again later",
                state.last
            );
            return Err(EdgeError::new(ErrorKind::Unavailable, why));
        }
        Ok(Chain { last: state.last, taken: HashMap::new() })
    }

    /// Copies the stream into the log, for ever.
    pub(super) async fn keep_copied(&self) {
        let mut failures = 0_u32;
        loop {
            self.stream.until_up().await;
            let before = *self.copied.borrow();
            match self.copy().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures = if *self.copied.borrow() == before { failures.saturating_add(1) } else { 1 };
                    tracing::warn!(error = error.chain(), "the hub does not read the fleet's topics from its servers; it tries again");
                    tokio::time::sleep(backoff::pause(failures)).await;
                }
            }
        }
    }

    /// Returns when it is to look anew.
    async fn copy(&self) -> Result<(), EdgeError> {
        let state = self.stream.open().await?;
        self.log.begin_copy(state.epoch, state.last).await?;
        let head = self.log.state().head;
        let mut following = self.stream.follow(head).await?;
        let mut position = if following.waiting() == 0 { head.max(state.last) } else { head };
        loop {
            self.copied.send_replace(Copied { epoch: state.epoch, position, end: state.last });
            let mut next = Some(tokio::select! {
                next = following.next() => next?,
                () = self.look.notified() => return Ok(()),
            });
            let (mut messages, mut bytes) = (Vec::new(), 0);
            while let Some(message) = next {
                position = message.position;
                if let Some(message) = read(message, state.epoch) {
                    bytes += message.cost_bytes();
                    messages.push(message);
                }
                let is_full = messages.len() >= TOPIC_READ_MESSAGES_MAX || bytes >= TOPIC_READ_BYTES_MAX;
                next = if is_full { None } else { following.next().now_or_never().transpose()? };
            }
            self.log.copy(messages).await?;
        }
    }
}

/// A message of the stream as one of the log; none when no hub of ours wrote it.
fn read(StreamMessage { position, content }: StreamMessage, epoch: u64) -> Option<Message> {
    let read = || {
        let StreamContent { node, topic, head, payload } = content?;
        let mut message = Head::from_json(&head).and_then(|head| head.into_message(topic, payload)).ok()?;
        message.check().ok()?;
        message.position = Some(position);
        // What a hub published itself has its origin in the stream.
        message.origin.get_or_insert(Origin { node, epoch, position });
        Some(message)
    };
    let message = read();
    if message.is_none() {
        tracing::warn!(position, "a message of the stream of topics is not one of ours, and is passed over");
    }
    message
}
