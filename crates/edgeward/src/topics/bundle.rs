//! Messages on their way between members: what is known of each as JSON, and the payloads as they are.
//!
//! A bundle is four bytes with the length of the JSON (big-endian), the JSON, and the payloads one after the other. It fits into one message of
//! the backbone.

use bytes::{Buf, Bytes};
use edgeward_cluster::Message as Carrier;
use edgeward_model::{
    EdgeError, TopicName,
    limits::{MESSAGE_BYTES_MAX, TOPIC_EXCHANGE_BYTES_MAX, TOPIC_EXCHANGE_MESSAGES_MAX},
};
use edgeward_topics::{Mark, Message, Origin};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Room for what is beside the heads of the messages, in bytes.
const FRAME_BYTES: usize = 1024;

/// What is known of a message beside its topic and its payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    publisher: Option<String>,
    published_at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    retain: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
}

impl Head {
    pub(crate) fn of(message: &Message) -> Self {
        Self {
            key: message.key.clone(),
            content_type: message.content_type.clone(),
            attributes: message.attributes.clone(),
            publisher: message.publisher.clone(),
            published_at_ms: message.published_at.as_millisecond(),
            expires_at_ms: message.expires_at.map(Timestamp::as_millisecond),
            retain: message.retain,
            origin: message.origin.clone(),
        }
    }

    /// One line of text.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a head has only text and numbers")
    }

    pub(crate) fn from_json(json: &str) -> Result<Self, EdgeError> {
        serde_json::from_str(json).map_err(|error| damaged("what is known of a message is no JSON of ours").with_source(error))
    }

    pub(crate) fn into_message(self, topic: TopicName, payload: Bytes) -> Result<Message, EdgeError> {
        let time = |ms| Timestamp::from_millisecond(ms).map_err(|error| damaged("a time is none").with_source(error));
        let message = Message::new(topic, payload, time(self.published_at_ms)?);
        Ok(Message {
            key: self.key,
            content_type: self.content_type,
            attributes: self.attributes,
            publisher: self.publisher,
            expires_at: self.expires_at_ms.map(time).transpose()?,
            retain: self.retain,
            origin: self.origin,
            ..message
        })
    }
}

/// Messages, and how far whoever sends them has read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bundle {
    /// How far the fleet's topics were read, of an answer.
    pub(crate) mark: Option<Mark>,
    /// Messages, of whatever topic, that were gone before.
    pub(crate) lost: u64,
    /// Whether there are more.
    pub(crate) has_more: bool,
    pub(crate) messages: Vec<Message>,
}

#[derive(Serialize, Deserialize)]
struct Frame {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<Mark>,
    #[serde(default)]
    lost: u64,
    #[serde(default)]
    has_more: bool,
    messages: Vec<Item>,
}

#[derive(Serialize, Deserialize)]
struct Item {
    topic: TopicName,
    bytes: usize,
    #[serde(flatten)]
    head: Head,
}

impl Item {
    fn of(message: &Message) -> Self {
        Self { topic: message.topic.clone(), bytes: message.payload.len(), head: Head::of(message) }
    }
}

/// Counts what fits into one bundle. The first message always does.
#[derive(Debug, Default)]
pub(crate) struct Room {
    messages: usize,
    /// As it is sent.
    bytes: usize,
}

impl Room {
    /// Takes the room for a message, when there is some.
    pub(crate) fn take(&mut self, message: &Message) -> bool {
        let item = serde_json::to_vec(&Item::of(message)).expect("an item has only text and numbers");
        let bytes = self.bytes + item.len() + 1 + message.payload.len();
        let fits =
            self.messages < TOPIC_EXCHANGE_MESSAGES_MAX && self.bytes < TOPIC_EXCHANGE_BYTES_MAX && bytes + FRAME_BYTES < MESSAGE_BYTES_MAX;
        if self.messages > 0 && !fits {
            return false;
        }
        (self.messages, self.bytes) = (self.messages + 1, bytes);
        true
    }
}

impl Bundle {
    pub(crate) fn write(&self) -> Carrier {
        let frame =
            Frame { mark: self.mark, lost: self.lost, has_more: self.has_more, messages: self.messages.iter().map(Item::of).collect() };
        let json = serde_json::to_vec(&frame).expect("a frame has only text and numbers");
        let length = u32::try_from(json.len()).expect("a bundle fits into one message");
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&json);
        self.messages.iter().for_each(|message| bytes.extend_from_slice(&message.payload));
        Carrier::new(bytes)
    }

    pub(crate) fn read(carrier: &Carrier) -> Result<Self, EdgeError> {
        let mut bytes = carrier.payload.clone();
        let length = bytes.try_get_u32().ok().and_then(|length| usize::try_from(length).ok()).filter(|length| *length <= bytes.len());
        let json = bytes.split_to(length.ok_or_else(|| damaged("it is too short"))?);
        let frame: Frame = serde_json::from_slice(&json).map_err(|error| damaged("its frame is no JSON of ours").with_source(error))?;
        if frame.messages.len() > TOPIC_EXCHANGE_MESSAGES_MAX {
            return Err(damaged("it has too many messages"));
        }
        let mut messages = Vec::with_capacity(frame.messages.len());
        for Item { topic, bytes: length, head } in frame.messages {
            if length > bytes.len() {
                return Err(damaged("a payload is too short"));
            }
            messages.push(head.into_message(topic, bytes.split_to(length))?);
        }
        if !bytes.is_empty() {
            return Err(damaged("it has more than its payloads"));
        }
        Ok(Self { mark: frame.mark, lost: frame.lost, has_more: frame.has_more, messages })
    }
}

fn damaged(why: &str) -> EdgeError {
    EdgeError::invalid(format!("messages of another member cannot be read: {why}; is it of a much older or newer release?"))
}

#[cfg(test)]
pub(crate) mod tests {
    use edgeward_model::{
        NodeId,
        limits::{TOPIC_ATTRIBUTES_BYTES_MAX, TOPIC_BYTES_MAX, TOPIC_FIELD_BYTES_MAX, TOPIC_PAYLOAD_BYTES_MAX},
    };
    use proptest::prelude::*;

    use super::*;

    fn message(topic: &str, payload: impl Into<Bytes>) -> Message {
        Message::new(TopicName::new(topic).expect("valid"), payload, Timestamp::from_millisecond(1_700_000_000_123).expect("valid"))
    }

    /// Every part as large as may be, of what takes most room as JSON.
    pub(crate) fn largest() -> Message {
        let worst = |bytes: usize| "\u{1}".repeat(bytes);
        Message {
            key: Some(worst(TOPIC_FIELD_BYTES_MAX)),
            content_type: Some(worst(TOPIC_FIELD_BYTES_MAX)),
            publisher: Some(worst(TOPIC_FIELD_BYTES_MAX)),
            attributes: vec![(worst(TOPIC_ATTRIBUTES_BYTES_MAX), String::new())],
            expires_at: Some(Timestamp::UNIX_EPOCH),
            retain: true,
            origin: Some(Origin { node: NodeId::new("n".repeat(64)).expect("valid"), epoch: u64::MAX, position: u64::MAX }),
            ..message(&"\"".repeat(TOPIC_BYTES_MAX), vec![7; TOPIC_PAYLOAD_BYTES_MAX])
        }
    }

    #[test]
    fn the_largest_message_fits_into_one_of_the_backbone() {
        let bundle = Bundle { messages: vec![largest()], mark: Some(Mark { epoch: u64::MAX, position: u64::MAX }), ..Bundle::default() };
        let carrier = bundle.write();
        assert!(carrier.payload.len() <= MESSAGE_BYTES_MAX, "{}", carrier.payload.len());
        assert_eq!(Bundle::read(&carrier).expect("reads"), bundle);
    }

    #[test]
    fn a_bundle_takes_messages_until_it_is_full() {
        let (mut room, mut messages) = (Room::default(), Vec::new());
        let small = Message { payload: Bytes::new(), ..largest() };
        while room.take(&small) {
            messages.push(small.clone());
        }
        assert!(room.messages > 1 && !room.take(&largest()));
        let carrier = Bundle { messages, ..Bundle::default() }.write();
        assert!(carrier.payload.len() <= MESSAGE_BYTES_MAX, "{}", carrier.payload.len());
        let mut room = Room::default();
        assert!(room.take(&largest()) && !room.take(&small));
        let mut room = Room::default();
        assert_eq!((0..1000).filter(|_| room.take(&message("a", "x"))).count(), TOPIC_EXCHANGE_MESSAGES_MAX);
    }

    #[test]
    fn what_is_no_bundle_is_refused() {
        let good = Bundle { messages: vec![message("a", "xyz"), message("b", "")], ..Bundle::default() }.write().payload;
        let mut long = good.to_vec();
        long.push(0);
        for bytes in [&good[..0], &good[..3], &good[..10], &good[..good.len() - 1], &long, b"\xff\xff\xff\xff{}", b"\0\0\0\x02[]"] {
            assert!(Bundle::read(&Carrier::new(bytes.to_vec())).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
            let _ = Bundle::read(&Carrier::new(bytes));
            let good = Bundle { messages: vec![message("a/b", "payload")], lost: 3, has_more: true, ..Bundle::default() }.write().payload;
            let _ = Bundle::read(&Carrier::new(good[..cut.min(good.len())].to_vec()));
        }
    }
}
