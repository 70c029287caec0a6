//! Messages and topics as JSON. A payload that is JSON or text is told as such, any other in base 64.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use edgeward::{Batch, Latest, LogState, Message, TopicInfo, cloud_event};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

/// A message that was published.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PublishedAnswer {
    pub(super) topic: String,
    /// Its place in the log of all topics.
    pub(super) position: u64,
    /// At a hub, how many nodes import what is published there: those that asked of late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) importers: Option<usize>,
}

/// A message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageAnswer {
    /// Its place in the log of all topics; none of one that is not durable.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    topic: String,
    #[schema(value_type = String, format = DateTime)]
    published_at: Timestamp,
    /// Who published it, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    publisher: Option<String>,
    /// The member of the fleet on which it was published; none of this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    /// What else its publisher says of it, such as the attributes of an event: pairs of name and value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<(String, String)>,
    /// The payload: as JSON when its type is JSON, else as text.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    /// The payload in base 64, when it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

impl MessageAnswer {
    pub(super) fn of(message: &Message) -> Self {
        let data = data(message);
        Self {
            position: message.position,
            topic: message.topic.to_string(),
            published_at: message.published_at,
            publisher: message.publisher.clone(),
            node: message.origin.as_ref().map(|origin| origin.node.to_string()),
            key: message.key.clone(),
            content_type: message.content_type.clone(),
            expires_at: message.expires_at,
            attributes: message.attributes.clone(),
            data_base64: data.is_none().then(|| BASE64_STANDARD.encode(&message.payload)),
            data,
        }
    }

    /// It on one line.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a message has only texts, numbers and JSON")
    }
}

/// A payload that is JSON or text, as JSON on one line.
fn data(message: &Message) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(&message.payload).ok()?;
    if message.content_type.as_deref().is_some_and(cloud_event::is_json) {
        // Line breaks are between the tokens only. Numbers stay as they are.
        let json = RawValue::from_string(text.trim().replace(['\r', '\n'], " "));
        if let Ok(json) = json {
            return Some(json);
        }
    }
    Some(to_raw_value(text).expect("text is JSON"))
}

/// A topic with messages in the log.
#[derive(Debug, Serialize, ToSchema)]
struct TopicAnswer {
    topic: String,
    /// Messages in the log.
    messages: u64,
    /// Position of the last one.
    last_position: u64,
    #[schema(value_type = String, format = DateTime)]
    last_published_at: Timestamp,
}

/// A page of topics, and what the log of all of them holds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TopicsAnswer {
    topics: Vec<TopicAnswer>,
    /// What to give as `after` for the next page; `null` when there is none.
    next: Option<String>,
    /// Position of the last message; 0 when there never was one.
    head: u64,
    /// Up to where messages are gone.
    trimmed: u64,
    /// Bytes of the messages that are there.
    bytes: u64,
    /// Who follows, triggers and clients of MQTT included.
    followers: usize,
}

impl TopicsAnswer {
    pub(super) fn new(topics: impl Iterator<Item = TopicInfo>, next: Option<String>, state: LogState) -> Self {
        let topics = topics.map(|info| TopicAnswer {
            topic: info.topic.to_string(),
            messages: info.messages,
            last_position: info.last_position,
            last_published_at: info.last_published_at,
        });
        let LogState { head, trimmed, bytes, subscribers, .. } = state;
        Self { topics: topics.collect(), next, head, trimmed, bytes, followers: subscribers }
    }
}

/// Messages of a filter.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessagesAnswer {
    /// The oldest first.
    messages: Vec<MessageAnswer>,
    /// Of the newest messages: before which position older ones may be; `null` when there are no more.
    before: Option<u64>,
    /// Of messages from a position on: what to give as `from` for the next page. There may be more as long as it grows.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
    /// Of messages from a position on: how many, of whatever topic, are gone from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
}

impl From<Latest> for MessagesAnswer {
    fn from(Latest { messages, before }: Latest) -> Self {
        Self { messages: messages.iter().map(|message| MessageAnswer::of(message)).collect(), before, next: None, lost: None }
    }
}

impl MessagesAnswer {
    /// The first messages of a batch, up to so many.
    pub(super) fn of(Batch { mut messages, mut next, lost }: Batch, limit: usize) -> Self {
        if let Some(position) = messages.get(limit).and_then(|message| message.position) {
            next = position;
            messages.truncate(limit);
        }
        let messages = messages.iter().map(|message| MessageAnswer::of(message)).collect();
        Self { messages, before: None, next: Some(next), lost: Some(lost) }
    }
}

/// A page of retained messages.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RetainedAnswer {
    messages: Vec<MessageAnswer>,
    /// What to give as `after` for the next page, which may be empty; `null` when there is none.
    next: Option<String>,
}

impl From<Vec<Arc<Message>>> for RetainedAnswer {
    fn from(messages: Vec<Arc<Message>>) -> Self {
        let next = messages.last().map(|last| last.topic.to_string());
        Self { messages: messages.iter().map(|message| MessageAnswer::of(message)).collect(), next }
    }
}

#[cfg(test)]
mod tests {
    use edgeward::TopicName;

    use super::*;

    fn told(content_type: Option<&str>, payload: &[u8]) -> serde_json::Value {
        let topic = TopicName::new("a/b").expect("valid");
        let message = Message::new(topic, payload.to_vec(), Timestamp::UNIX_EPOCH);
        let json = MessageAnswer::of(&Message { content_type: content_type.map(str::to_owned), ..message }).to_json();
        assert!(!json.contains(['\r', '\n']), "{json}");
        serde_json::from_str(&json).expect("JSON")
    }

    #[test]
    fn a_payload_is_told_as_json_or_text_or_in_base_64() {
        for (content_type, payload, data) in [
            (Some("application/json"), &b"{\"a\":\r\n 1.50}"[..], serde_json::json!({ "a": 1.5 })),
            (Some("application/json"), b"{broken", "{broken".into()),
            (None, b"21.5", "21.5".into()),
            (None, b"", "".into()),
        ] {
            assert_eq!(told(content_type, payload)["data"], data);
        }
        assert_eq!(told(Some("application/json"), b"\xff\x00")["data_base64"], "/wA=");
    }

    #[test]
    fn numbers_stay_as_they_were_published() {
        let topic = TopicName::new("a").expect("valid");
        let message = Message::new(topic, "[18446744073709551617, 1.10]", Timestamp::UNIX_EPOCH);
        let json = MessageAnswer::of(&Message { content_type: Some("application/json".to_owned()), ..message }).to_json();
        assert!(json.contains(r#""data":[18446744073709551617, 1.10]"#), "{json}");
    }
}
