//! Tools about topics: publishing and reading messages, triggers, and what functions could not handle.
//!
//! A payload is told as text, or in base 64, so that no number in it is changed.

use edgeward::{
    ContentMode, FunctionId, Redelivery, Source, Target, TopicFilter, TopicName, Trigger, TriggerId,
    limits::{TOPIC_PAGE_MAX, TRIGGER_CONCURRENCY_DEFAULT},
};
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    functions::{of_node, one_node},
    session::{Session, ToolError},
    tool::{EdgeTool, Effect},
};
use crate::{
    api::triggers::TriggerBody,
    client::{DeadLetters, Messages, Published, Request, RetainedMessages, TopicMessage, Topics, TriggerRecord, Triggers, escaped},
};

/// Messages that are told when nobody says how many.
const LIMIT_DEFAULT: usize = 20;

/// Parameters of `edge_publish_message`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishMessage {
    /// The topic, such as `site/berlin/temp`.
    topic: String,
    /// The payload, as text.
    #[serde(default)]
    payload: String,
    /// Its media type, such as `application/json`; `application/cloudevents+json` publishes the event that it is.
    #[serde(default)]
    content_type: Option<String>,
    /// Messages of one key come in their order; without one, those of one topic do.
    #[serde(default)]
    key: Option<String>,
    /// Whether who follows the topic later gets it first.
    #[serde(default)]
    retain: bool,
    /// After how many seconds it is of no use any more, so that nobody gets it; 1 or more.
    #[serde(default)]
    expires_in_seconds: Option<u64>,
}

/// A message that was published.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PublishedMessage {
    topic: String,
    /// Its place in the log of all topics.
    position: u64,
    /// At a hub, how many nodes import what is published there, of those that it heard of lately: without any no function is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    importers: Option<usize>,
}

impl EdgeTool for PublishMessage {
    const NAME: &'static str = "edge_publish_message";
    const TITLE: &'static str = "Publish a message";
    const ABOUT: &'static str = "Publishes a message to a topic of this node or fleet, durably. Functions that are triggered by the topic are called, and \
        who follows it gets it, clients of MQTT included.";
    const EFFECT: Effect = Effect::Runs;
    type Output = PublishedMessage;

    async fn run(self, session: &Session<'_>) -> Result<PublishedMessage, ToolError> {
        let topic = TopicName::new(&self.topic)?;
        let key = self.key.as_ref().map_or_else(String::new, |key| format!("&key={}", escaped(key)));
        let expires = self.expires_in_seconds.map_or_else(String::new, |seconds| format!("&expires_in_seconds={seconds}"));
        let path = format!("/v1/topics/{}?retain={}{key}{expires}", escaped(topic.as_str()), self.retain);
        let mut request = Request::new(Method::POST, path).payload(self.payload);
        if let Some(content_type) = self.content_type {
            let value = HeaderValue::try_from(content_type).map_err(|_| ToolError::invalid("`content_type` is no media type"))?;
            request = request.header(CONTENT_TYPE, value);
        }
        let Published { topic, position, importers } = session.change(request).await?.json()?;
        Ok(PublishedMessage { topic, position, importers })
    }
}

/// Parameters of `edge_list_topics`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListTopics {
    /// Topics of this filter only, in which `+` stands for one level and a last `#` for the rest.
    #[serde(default)]
    filter: Option<String>,
    /// Topics whose names come after this one: the `next` of the call before.
    #[serde(default)]
    after: Option<String>,
}

/// Topics that have messages.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct TopicList {
    topics: Vec<TopicEntry>,
    /// What to give as `after` to go on; `null` at the end.
    next: Option<String>,
    /// Position of the last message of all topics; 0 when there never was one.
    head: u64,
}

/// A topic that has messages.
#[derive(Debug, Serialize, JsonSchema)]
struct TopicEntry {
    topic: String,
    messages: u64,
    last_position: u64,
    /// RFC 3339 in UTC.
    last_published_at: String,
}

impl EdgeTool for ListTopics {
    const NAME: &'static str = "edge_list_topics";
    const TITLE: &'static str = "Topics";
    const ABOUT: &'static str =
        "Lists the topics of this node or fleet that have messages, with how many and the position of the last one.";
    const EFFECT: Effect = Effect::Reads;
    type Output = TopicList;

    async fn run(self, session: &Session<'_>) -> Result<TopicList, ToolError> {
        let filter = TopicFilter::new(self.filter.as_deref().unwrap_or("#"))?;
        let after = escaped(self.after.as_deref().unwrap_or_default());
        let path = format!("/v1/topics?filter={}&after={after}", escaped(filter.as_str()));
        let Topics { page, next, head, .. } = session.read(path).await?;
        let topics = page.into_iter().map(|topic| TopicEntry {
            topic: topic.topic,
            messages: topic.messages,
            last_position: topic.last_position,
            last_published_at: topic.last_published_at.to_string(),
        });
        Ok(TopicList { topics: topics.collect(), next, head })
    }
}

/// Parameters of `edge_read_messages`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadMessages {
    /// Topics of this filter, in which `+` stands for one level and a last `#` for the rest.
    filter: String,
    /// How many at most, up to 1000; 20 when it is left out.
    #[serde(default)]
    limit: Option<usize>,
    /// Messages before this position: the `before` of the call before.
    #[serde(default)]
    before: Option<u64>,
    /// Messages from this position on in place of the newest, 1 for the oldest that there is: the `next` of the call before.
    #[serde(default)]
    from: Option<u64>,
    /// Read the retained messages in place of the newest ones: the last of each topic that was published to be kept.
    #[serde(default)]
    retained: bool,
}

/// Messages.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct MessageList {
    /// The oldest first; of retained ones by topic.
    messages: Vec<MessageEntry>,
    /// Before which position older ones may be; `null` when there are no more.
    before: Option<u64>,
    /// Of messages from a position on: what to give as `from` to go on. There may be more as long as it grows.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
    /// Of messages from a position on: how many, of whatever topic, are gone from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
}

/// A message.
#[derive(Debug, Serialize, JsonSchema)]
struct MessageEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    topic: String,
    /// RFC 3339 in UTC.
    published_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    publisher: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    /// The payload as text; JSON is told as it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    /// The payload in base 64, when it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl From<TopicMessage> for MessageEntry {
    fn from(message: TopicMessage) -> Self {
        Self {
            payload: message.data.is_some().then(|| message.payload()),
            position: message.position,
            topic: message.topic,
            published_at: message.published_at.to_string(),
            publisher: message.publisher,
            key: message.key,
            content_type: message.content_type,
            payload_base64: message.data_base64,
        }
    }
}

impl EdgeTool for ReadMessages {
    const NAME: &'static str = "edge_read_messages";
    const TITLE: &'static str = "Read messages";
    const ABOUT: &'static str = "Reads messages of the topics of this node or fleet that a filter matches, a page at a time: the newest, those from a position on, or \
        the retained ones.";
    const EFFECT: Effect = Effect::Reads;
    type Output = MessageList;

    async fn run(self, session: &Session<'_>) -> Result<MessageList, ToolError> {
        let filter = TopicFilter::new(&self.filter)?;
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=TOPIC_PAGE_MAX).contains(&limit) {
            return Err(ToolError::invalid(format!("`limit` is from 1 to {TOPIC_PAGE_MAX}")));
        }
        let filter = escaped(filter.as_str());
        let Messages { page, before, next, lost } = if self.retained {
            session.read::<RetainedMessages>(format!("/v1/topics/{filter}/retained")).await?.into()
        } else {
            let part = |name: &str, position: Option<u64>| position.map_or_else(String::new, |position| format!("&{name}={position}"));
            let path = format!("/v1/topics/{filter}/messages?limit={limit}{}{}", part("before", self.before), part("from", self.from));
            session.read(path).await?
        };
        Ok(MessageList { messages: page.into_iter().take(limit).map(MessageEntry::from).collect(), before, next, lost })
    }
}

/// Parameters of `edge_list_triggers`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListTriggers {
    /// On a hub: those of this node, with how each does there; left out, those of the fleet.
    #[serde(default)]
    node_id: Option<String>,
}

/// Triggers.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct TriggerList {
    triggers: Vec<TriggerEntry>,
}

/// A trigger; of a node with what it has done since the node started, of a hub with the nodes that have it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct TriggerEntry {
    trigger_id: String,
    function_id: String,
    filters: Vec<String>,
    /// `binary` or `structured`.
    mode: String,
    /// Messages that are handled at once.
    concurrency: u32,
    /// Of a hub: which nodes have it, of those that are to have the function.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// Of a hub: the nodes that have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<String>>,
    /// Of a node, and what follows too: `node`, or `fleet` for what its hub wants there.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// Messages that were handled.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered: Option<u64>,
    /// Attempts that failed and were followed by another.
    #[serde(skip_serializing_if = "Option::is_none")]
    retried: Option<u64>,
    /// Messages that became dead letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    dead: Option<u64>,
    /// Positions of the log that it has not come to.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<u64>,
    /// Messages that wait for the function to be deployed.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u64>,
    /// Why it does not run, if it should and cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

impl From<TriggerRecord> for TriggerEntry {
    fn from(record: TriggerRecord) -> Self {
        let is_of_node = record.nodes.is_none();
        let count = |count: u64| is_of_node.then_some(count);
        Self {
            trigger_id: record.id,
            function_id: record.function,
            filters: record.filters,
            mode: record.mode,
            concurrency: record.concurrency,
            target: (!is_of_node).then(|| record.target.to_string()),
            nodes: record.nodes.map(|nodes| nodes.iter().map(ToString::to_string).collect()),
            source: record.source.map(|source| if source == Source::Fleet { "fleet" } else { "node" }.to_owned()),
            delivered: count(record.delivered),
            retried: count(record.retried),
            dead: count(record.dead),
            behind: count(record.behind),
            waiting: count(record.waiting),
            failure: record.failure,
        }
    }
}

impl EdgeTool for ListTriggers {
    const NAME: &'static str = "edge_list_triggers";
    const TITLE: &'static str = "Triggers";
    const ABOUT: &'static str = "Lists the triggers, which call functions for messages: of a node with how each does (a hub asks it), of a hub with the nodes that have it.";
    const EFFECT: Effect = Effect::Reads;
    type Output = TriggerList;

    async fn run(self, session: &Session<'_>) -> Result<TriggerList, ToolError> {
        let Triggers { triggers } = session.read(format!("/v1/triggers{}", of_node(self.node_id.as_deref())?)).await?;
        Ok(TriggerList { triggers: triggers.into_iter().map(TriggerEntry::from).collect() })
    }
}

/// Parameters of `edge_put_trigger`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutTrigger {
    /// The trigger; one of this id that is there is changed.
    trigger_id: String,
    /// The function that is called; it need not be deployed yet.
    function_id: String,
    /// Filters of topics, 1 to 32.
    filters: Vec<String>,
    /// Whether the function gets one JSON object (`application/cloudevents+json`) in place of the payload.
    #[serde(default)]
    structured: bool,
    /// Messages that are handled at once, of different keys, 1 to 256; 8 when it is left out.
    #[serde(default)]
    concurrency: Option<u32>,
    /// How often a message is tried, 1 to 100; 5 when it is left out.
    #[serde(default)]
    attempts: Option<u32>,
    /// On a hub: which nodes have it, of those that are to have the function, as `all`, `node=ID` or `site=berlin`; `all` when it is left out.
    #[serde(default)]
    target: Option<String>,
}

impl EdgeTool for PutTrigger {
    const NAME: &'static str = "edge_put_trigger";
    const TITLE: &'static str = "Make or change a trigger";
    const ABOUT: &'static str = "Has a function called for each message of some topics, at least once and in order, as a CloudEvent: on a node, or by a \
        hub on nodes of its fleet, also while they are offline. A new trigger gets what is published from now on, a changed one goes on where it was.";
    const EFFECT: Effect = Effect::Replaces;
    type Output = TriggerEntry;

    async fn run(self, session: &Session<'_>) -> Result<TriggerEntry, ToolError> {
        let filters = self.filters.iter().map(TopicFilter::new).collect::<Result<_, _>>()?;
        let mut trigger = Trigger::new(TriggerId::new(&self.trigger_id)?, FunctionId::new(&self.function_id)?, filters);
        trigger.mode = if self.structured { ContentMode::Structured } else { ContentMode::Binary };
        trigger.concurrency = self.concurrency.unwrap_or(TRIGGER_CONCURRENCY_DEFAULT);
        trigger.retry.attempts = self.attempts.unwrap_or(Redelivery::default().attempts);
        trigger.target = self.target.map_or_else(|| Ok(Target::all()), |target| target.parse())?;
        let path = format!("/v1/triggers/{}", trigger.id);
        let body = serde_json::to_vec(&TriggerBody::from(trigger)).expect("a trigger has only texts and numbers");
        let request = Request::new(Method::PUT, path).header(CONTENT_TYPE, HeaderValue::from_static("application/json")).payload(body);
        Ok(session.change(request).await?.json::<TriggerRecord>()?.into())
    }
}

/// Parameters of `edge_remove_trigger`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveTrigger {
    /// The trigger.
    trigger_id: String,
}

/// A trigger that is gone.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RemovedTrigger {
    trigger_id: String,
    removed: bool,
}

impl EdgeTool for RemoveTrigger {
    const NAME: &'static str = "edge_remove_trigger";
    const TITLE: &'static str = "Remove a trigger";
    const ABOUT: &'static str = "Removes a trigger, and how far it got. Its function and its dead letters stay.";
    const EFFECT: Effect = Effect::Replaces;
    type Output = RemovedTrigger;

    async fn run(self, session: &Session<'_>) -> Result<RemovedTrigger, ToolError> {
        let id = TriggerId::new(&self.trigger_id)?;
        session.change(Request::new(Method::DELETE, format!("/v1/triggers/{id}"))).await?;
        Ok(RemovedTrigger { trigger_id: id.to_string(), removed: true })
    }
}

/// Parameters of `edge_list_dead_letters`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListDeadLetters {
    /// Those of this trigger only.
    #[serde(default)]
    trigger_id: Option<String>,
    /// Those after this id.
    #[serde(default)]
    after: u64,
    /// Those of this node, which a hub asks and needs.
    #[serde(default)]
    node_id: Option<String>,
}

/// Messages that functions could not handle.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DeadLetterList {
    dead_letters: Vec<DeadLetterEntry>,
}

/// A message that could not be handled.
#[derive(Debug, Serialize, JsonSchema)]
struct DeadLetterEntry {
    id: u64,
    trigger_id: String,
    /// What the last attempt failed of.
    why: String,
    attempts: u32,
    /// When it was given up, RFC 3339 in UTC.
    at: String,
    /// Whether it is to be tried again.
    is_to_retry: bool,
    message: MessageEntry,
}

impl EdgeTool for ListDeadLetters {
    const NAME: &'static str = "edge_list_dead_letters";
    const TITLE: &'static str = "Dead letters";
    const ABOUT: &'static str = "Lists the messages that functions of a node could not handle, with the reason, a page after an id.";
    const EFFECT: Effect = Effect::Reads;
    type Output = DeadLetterList;

    async fn run(self, session: &Session<'_>) -> Result<DeadLetterList, ToolError> {
        let trigger = self.trigger_id.map(TriggerId::new).transpose()?;
        let trigger = trigger.map_or_else(String::new, |trigger| format!("&trigger={trigger}"));
        let node = one_node(self.node_id.as_deref())?.query('&');
        let DeadLetters { dead_letters } = session.read(format!("/v1/dead-letters?after={}{trigger}{node}", self.after)).await?;
        let entry = |letter: crate::client::LetterRecord| DeadLetterEntry {
            id: letter.id,
            trigger_id: letter.trigger,
            why: letter.why,
            attempts: letter.attempts,
            at: letter.at.to_string(),
            is_to_retry: letter.is_to_retry,
            message: letter.message.into(),
        };
        Ok(DeadLetterList { dead_letters: dead_letters.into_iter().map(entry).collect() })
    }
}

/// What becomes of a dead letter.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum LetterAction {
    /// Its trigger tries it again, from the first attempt on.
    Retry,
    /// It is removed for good.
    Discard,
}

/// Parameters of `edge_act_on_dead_letter`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ActOnDeadLetter {
    /// The dead letter.
    id: u64,
    /// `retry` or `discard`.
    action: LetterAction,
    /// Of this node, which a hub asks and needs.
    #[serde(default)]
    node_id: Option<String>,
}

/// What was done.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ActedOnDeadLetter {
    id: u64,
    action: LetterAction,
}

impl EdgeTool for ActOnDeadLetter {
    const NAME: &'static str = "edge_act_on_dead_letter";
    const TITLE: &'static str = "Retry or discard a dead letter";
    const ABOUT: &'static str = "Has a message that a function could not handle tried again by its trigger, or removes it for good.";
    const EFFECT: Effect = Effect::Changes;
    type Output = ActedOnDeadLetter;

    async fn run(self, session: &Session<'_>) -> Result<ActedOnDeadLetter, ToolError> {
        let Self { id, action, node_id } = self;
        let node = of_node(node_id.as_deref())?;
        let request = match action {
            LetterAction::Retry => Request::new(Method::POST, format!("/v1/dead-letters/{id}/retry{node}")),
            LetterAction::Discard => Request::new(Method::DELETE, format!("/v1/dead-letters/{id}{node}")),
        };
        session.change(request).await?;
        Ok(ActedOnDeadLetter { id, action })
    }
}
