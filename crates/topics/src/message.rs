//! A message of a topic, and its form on disk.

use bytes::Bytes;
use edgeward_model::{
    EdgeError, ErrorKind, NodeId,
    limits::{TOPIC_ATTRIBUTES_BYTES_MAX, TOPIC_ATTRIBUTES_MAX, TOPIC_FIELD_BYTES_MAX, TOPIC_PAYLOAD_BYTES_MAX},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{error::damaged, topic::TopicName};

/// Version of the form on disk.
const FORM: u8 = 1;
/// What a message costs beside its texts and payload, in bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// Where a message was published first, when that was on another member of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// On which member.
    pub node: NodeId,
    /// The epoch of that member's log, see [`TopicLog::span`](crate::TopicLog::span).
    pub epoch: u64,
    /// Its position there.
    pub position: u64,
}

/// A message of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its place in the log, from 1; none of a message that is not durable, or not yet.
    pub position: Option<u64>,
    /// Where it was published.
    pub topic: TopicName,
    /// Messages of one key are delivered in their order; without one, those of one topic are.
    pub key: Option<String>,
    /// At most [`TOPIC_PAYLOAD_BYTES_MAX`] bytes.
    pub payload: Bytes,
    /// Media type of the payload.
    pub content_type: Option<String>,
    /// What else its publisher says of it, by name; a name may come twice.
    pub attributes: Vec<(String, String)>,
    /// Who published it, as far as it is known: the user, and of a client of MQTT `/` and its id.
    pub publisher: Option<String>,
    /// When it was published, to the millisecond.
    pub published_at: Timestamp,
    /// When it is of no use any more: clients of MQTT and deliveries do not get it then, nor is it among the retained ones. A
    /// [`Subscription`](crate::Subscription) and the log itself still give it, and whoever reads asks [`has_expired`](Self::has_expired).
    pub expires_at: Option<Timestamp>,
    /// Whether it becomes the retained message of its topic, which new subscribers get; an empty payload removes that.
    pub retain: bool,
    /// Where it came from; none of what was published here.
    pub origin: Option<Origin>,
}

impl Message {
    /// A message without key, content type and attributes.
    pub fn new(topic: TopicName, payload: impl Into<Bytes>, published_at: Timestamp) -> Self {
        Self {
            position: None,
            topic,
            key: None,
            payload: payload.into(),
            content_type: None,
            attributes: Vec::new(),
            publisher: None,
            published_at,
            expires_at: None,
            retain: false,
            origin: None,
        }
    }

    /// What has an order among others: the key, or else the topic.
    pub fn order_key(&self) -> &str {
        self.key.as_deref().unwrap_or(self.topic.as_str())
    }

    /// What it counts as towards a bound, in bytes.
    pub fn cost_bytes(&self) -> usize {
        let attributes: usize = self.attributes.iter().map(|(name, value)| name.len() + value.len() + 16).sum();
        let fields = [&self.key, &self.content_type, &self.publisher].into_iter().flatten().map(String::len).sum::<usize>();
        let fields = fields + self.origin.as_ref().map_or(0, |origin| origin.node.as_str().len() + 16);
        MESSAGE_OVERHEAD_BYTES + self.topic.as_str().len() + self.payload.len() + fields + attributes
    }

    /// Whether it is of no use any more.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Checks the bounds of its parts.
    pub fn check(&self) -> Result<(), EdgeError> {
        let too_large =
            |why: String| Err(EdgeError::new(ErrorKind::TooLarge, format!("the message for topic `{}` is too large: {why}", self.topic)));
        if self.payload.len() > TOPIC_PAYLOAD_BYTES_MAX {
            return too_large(format!("its payload has {} bytes, the most is {TOPIC_PAYLOAD_BYTES_MAX}", self.payload.len()));
        }
        for (name, field) in [("key", &self.key), ("content type", &self.content_type), ("publisher", &self.publisher)] {
            let bytes = field.as_ref().map_or(0, String::len);
            if bytes > TOPIC_FIELD_BYTES_MAX {
                return too_large(format!("its {name} has {bytes} bytes, the most is {TOPIC_FIELD_BYTES_MAX}"));
            }
        }
        if self.attributes.len() > TOPIC_ATTRIBUTES_MAX {
            return too_large(format!("it has {} attributes, the most is {TOPIC_ATTRIBUTES_MAX}", self.attributes.len()));
        }
        let bytes: usize = self.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > TOPIC_ATTRIBUTES_BYTES_MAX {
            return too_large(format!("its attributes have {bytes} bytes, the most is {TOPIC_ATTRIBUTES_BYTES_MAX}"));
        }
        Ok(())
    }

    /// What of it has no column of its own.
    pub(crate) fn head(&self) -> Vec<u8> {
        let head = Head {
            key: self.key.as_deref(),
            content_type: self.content_type.as_deref(),
            attributes: self.attributes.iter().map(|(name, value)| (&**name, &**value)).collect(),
            publisher: self.publisher.as_deref(),
            expires_at_ms: self.expires_at.map(Timestamp::as_millisecond),
            retain: self.retain,
            origin: self.origin.clone(),
        };
        postcard::to_extend(&head, vec![FORM]).expect("memory takes it")
    }

    /// The message of these columns; position 0 is that of one which is not durable.
    pub(crate) fn from_columns(position: u64, topic: &str, published_at_ms: i64, head: &[u8], payload: &[u8]) -> Result<Self, EdgeError> {
        let read = || {
            let head: Head<'_> = postcard::from_bytes(head.strip_prefix(&[FORM])?).ok()?;
            let owned = |text: Option<&str>| text.map(str::to_owned);
            Some(Self {
                position: (position > 0).then_some(position),
                topic: TopicName::new(topic).ok()?,
                key: owned(head.key),
                payload: Bytes::copy_from_slice(payload),
                content_type: owned(head.content_type),
                attributes: head.attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
                publisher: owned(head.publisher),
                published_at: Timestamp::from_millisecond(published_at_ms).ok()?,
                expires_at: head.expires_at_ms.map(Timestamp::from_millisecond).transpose().ok()?,
                retain: head.retain,
                origin: head.origin,
            })
        };
        read().ok_or_else(|| damaged(&format!("message at position {position} of the log of topics")))
    }
}

#[derive(Serialize, Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    key: Option<&'a str>,
    content_type: Option<&'a str>,
    attributes: Vec<(&'a str, &'a str)>,
    publisher: Option<&'a str>,
    expires_at_ms: Option<i64>,
    retain: bool,
    origin: Option<Origin>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_what_it_writes() {
        let at = Timestamp::from_millisecond(1_700_000_000_123).expect("valid");
        let mut message = Message::new(TopicName::new("a/b").expect("valid"), "payload", at);
        let read = |message: &Message| {
            Message::from_columns(7, message.topic.as_str(), message.published_at.as_millisecond(), &message.head(), &message.payload)
                .expect("reads")
        };
        assert_eq!(read(&message), Message { position: Some(7), ..message.clone() });
        message.key = Some("k".to_owned());
        message.content_type = Some("application/json".to_owned());
        message.attributes = vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), String::new())];
        message.publisher = Some("sensor-1".to_owned());
        message.expires_at = Some(at);
        message.retain = true;
        message.origin = Some(Origin { node: NodeId::new("edge-01").expect("valid"), epoch: u64::MAX, position: 3 });
        assert_eq!(read(&message), Message { position: Some(7), ..message.clone() });
        assert!(message.has_expired(at) && message.order_key() == "k");
        for head in [&[][..], &[2], &[FORM], &message.head()[..5]] {
            assert!(Message::from_columns(7, "a", 0, head, b"").expect_err("damaged").to_string().contains("position 7"));
        }
    }

    #[test]
    fn a_message_past_a_bound_is_refused_with_the_bound() {
        let message = Message::new(TopicName::new("a").expect("valid"), "", Timestamp::UNIX_EPOCH);
        assert!(message.check().is_ok());
        let text = |bytes: usize| "x".repeat(bytes);
        for (message, why) in [
            (Message { payload: vec![0; TOPIC_PAYLOAD_BYTES_MAX + 1].into(), ..message.clone() }, "payload"),
            (Message { key: Some(text(TOPIC_FIELD_BYTES_MAX + 1)), ..message.clone() }, "key"),
            (Message { attributes: vec![(String::new(), String::new()); TOPIC_ATTRIBUTES_MAX + 1], ..message.clone() }, "33 attributes"),
            (Message { attributes: vec![(text(TOPIC_ATTRIBUTES_BYTES_MAX), text(1))], ..message.clone() }, "attributes have"),
        ] {
            let error = message.check().expect_err(why);
            assert!(error.kind() == ErrorKind::TooLarge && error.to_string().contains(why), "{error}");
        }
    }
}
