//! What the API answers of topics and triggers, as far as the command line shows it.

use edgeward::{NodeId, Source, Target};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Answer of `POST /v1/topics/{topic}`.
#[derive(Debug, Deserialize)]
pub(crate) struct Published {
    pub(crate) topic: String,
    pub(crate) position: u64,
    /// At a hub, how many nodes import it.
    #[serde(default)]
    pub(crate) importers: Option<usize>,
}

/// A message.
#[derive(Debug, Deserialize)]
pub(crate) struct TopicMessage {
    #[serde(default)]
    pub(crate) position: Option<u64>,
    pub(crate) topic: String,
    pub(crate) published_at: Timestamp,
    #[serde(default)]
    pub(crate) publisher: Option<String>,
    #[serde(default)]
    pub(crate) key: Option<String>,
    #[serde(default)]
    pub(crate) content_type: Option<String>,
    /// A JSON value, or a text that is a payload.
    #[serde(default)]
    pub(crate) data: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) data_base64: Option<String>,
}

impl TopicMessage {
    /// The payload, for people.
    pub(crate) fn payload(&self) -> String {
        match (&self.data, &self.data_base64) {
            // A text is shown without its quotes.
            (Some(data), _) => serde_json::from_str(data.get()).unwrap_or_else(|_| data.get().to_owned()),
            (None, Some(bytes)) => format!("base64:{bytes}"),
            (None, None) => String::new(),
        }
    }
}

/// Answer of `GET /v1/topics/{filter}/messages`.
#[derive(Debug, Deserialize)]
pub(crate) struct Messages {
    #[serde(rename = "messages")]
    pub(crate) page: Vec<TopicMessage>,
    #[serde(default)]
    pub(crate) before: Option<u64>,
    #[serde(default)]
    pub(crate) next: Option<u64>,
    #[serde(default)]
    pub(crate) lost: Option<u64>,
}

/// Answer of `GET /v1/topics/{filter}/retained`, whose pages go on by topic.
#[derive(Debug, Deserialize)]
pub(crate) struct RetainedMessages {
    #[serde(rename = "messages")]
    page: Vec<TopicMessage>,
}

impl From<RetainedMessages> for Messages {
    fn from(RetainedMessages { page }: RetainedMessages) -> Self {
        Self { page, before: None, next: None, lost: None }
    }
}

/// Answer of `GET /v1/topics`.
#[derive(Debug, Deserialize)]
pub(crate) struct Topics {
    #[serde(rename = "topics")]
    pub(crate) page: Vec<TopicRecord>,
    #[serde(default)]
    pub(crate) next: Option<String>,
    pub(crate) head: u64,
    pub(crate) trimmed: u64,
    pub(crate) bytes: u64,
}

/// A topic with messages in the log.
#[derive(Debug, Deserialize)]
pub(crate) struct TopicRecord {
    pub(crate) topic: String,
    pub(crate) messages: u64,
    pub(crate) last_position: u64,
    pub(crate) last_published_at: Timestamp,
}

/// Answer of `GET /v1/dead-letters`.
#[derive(Debug, Deserialize)]
pub(crate) struct DeadLetters {
    pub(crate) dead_letters: Vec<LetterRecord>,
}

/// A message that could not be handled.
#[derive(Debug, Deserialize)]
pub(crate) struct LetterRecord {
    pub(crate) id: u64,
    pub(crate) trigger: String,
    pub(crate) why: String,
    pub(crate) attempts: u32,
    pub(crate) at: Timestamp,
    #[serde(default)]
    pub(crate) is_to_retry: bool,
    pub(crate) message: TopicMessage,
}

/// Answer of `GET /v1/triggers`.
#[derive(Debug, Deserialize)]
pub(crate) struct Triggers {
    pub(crate) triggers: Vec<TriggerRecord>,
}

/// A trigger, as the API answers: on a hub with its nodes, on a node with how it does.
#[derive(Debug, Deserialize)]
pub(crate) struct TriggerRecord {
    pub(crate) id: String,
    pub(crate) function: String,
    pub(crate) filters: Vec<String>,
    pub(crate) retry: RetryRecord,
    pub(crate) concurrency: u32,
    pub(crate) mode: String,
    #[serde(default = "Target::all")]
    pub(crate) target: Target,
    /// Of a hub.
    #[serde(default)]
    pub(crate) nodes: Option<Vec<NodeId>>,
    /// Of a node, and what follows too.
    #[serde(default)]
    pub(crate) source: Option<Source>,
    #[serde(default)]
    pub(crate) acknowledged: u64,
    #[serde(default)]
    pub(crate) behind: u64,
    #[serde(default)]
    pub(crate) delivered: u64,
    #[serde(default)]
    pub(crate) retried: u64,
    #[serde(default)]
    pub(crate) dead: u64,
    #[serde(default)]
    pub(crate) lost: u64,
    #[serde(default)]
    pub(crate) waiting: u64,
    #[serde(default)]
    pub(crate) failure: Option<String>,
}

/// How a message that failed is tried again.
#[derive(Debug, Deserialize)]
pub(crate) struct RetryRecord {
    pub(crate) attempts: u32,
    pub(crate) pause_min_ms: u64,
    pub(crate) pause_max_ms: u64,
}
