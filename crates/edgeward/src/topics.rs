//! Topics on a node: its log of messages in its data folder, and the triggers by which messages call functions.
//!
//! What was published is on the disk. Triggers run while [`Topics::run_triggers`] does; MQTT is served by [`serve_mqtt`].

pub(crate) mod bundle;
mod call;
pub mod fleet;
mod mqtt;
pub mod program;
mod running;
pub(crate) mod spans;
mod triggers;

use std::{
    path::Path,
    sync::{Arc, Weak},
};

use edgeward_model::{EdgeError, ErrorKind, NodeId, TopicFilter, TopicName, Trigger, TriggerId};
use edgeward_runtime::EdgeRuntime;
use edgeward_sync::Documents;
use edgeward_telemetry::{Distribution, span};
use edgeward_topics::{
    Batch, CloudEvent, DeadLetter, Latest, LogState, Message, Start, Subscription, TopicInfo, TopicLog,
    mqtt::{Broker, BrokerState},
};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

pub(crate) use self::triggers::Left;
use self::triggers::Triggers;
use crate::allotments::not_found;

pub use self::{
    mqtt::{CLIENTS, MqttOptions, serve_mqtt},
    triggers::{Expected, TriggerView, trigger_of},
};
pub use edgeward_topics::LogOptions;

/// The folder of the log in a data folder.
pub(crate) const FOLDER: &str = "topics";

/// The source of the events of a member's topics.
pub(crate) fn source_of(member: &NodeId) -> String {
    format!("/nodes/{member}/topics")
}

/// When a message expires that is to do so after so many seconds.
pub fn expiry(now: Timestamp, seconds: u64) -> Result<Timestamp, EdgeError> {
    let duration = i64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(SignedDuration::from_secs);
    duration
        .and_then(|duration| now.checked_add(duration).ok())
        .ok_or_else(|| EdgeError::invalid(format!("a message cannot expire in {seconds} s; it can in 1 s or more, before the year 10000")))
}

/// Refuses topics that belong to members themselves.
pub fn check_topic(topic: &TopicName) -> Result<(), EdgeError> {
    if topic.is_reserved() {
        let why = format!("nobody publishes to topic `{topic}`: what begins with `$` is the node's own");
        return Err(EdgeError::new(ErrorKind::Forbidden, why));
    }
    Ok(())
}

/// The topics of a node.
#[derive(Debug)]
pub struct Topics {
    log: Arc<TopicLog>,
    runtime: Arc<EdgeRuntime>,
    triggers: Triggers,
    /// Whose topics these are, for the functions that get their messages.
    source: Arc<str>,
    /// Who serves MQTT, while somebody does.
    broker: Mutex<Weak<Broker>>,
}

impl Topics {
    pub(crate) fn open(data_dir: &Path, kept: LogOptions, documents: &Documents, runtime: Arc<EdgeRuntime>) -> Result<Self, EdgeError> {
        let log = Arc::new(TopicLog::open(&data_dir.join(FOLDER), kept)?);
        let source = source_of(&runtime.node().id).into();
        let triggers = Triggers::open(documents, &runtime.node().id)?;
        Ok(Self { log, runtime, triggers, source, broker: Mutex::default() })
    }

    /// The log itself.
    pub fn log(&self) -> &Arc<TopicLog> {
        &self.log
    }

    /// Publishes a message, and returns its position when it is on the disk and subscribers can see it.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] where a topic begins with `$`, [`ErrorKind::TooLarge`] past a bound of a message, those of the disk.
    pub async fn publish(&self, message: Message) -> Result<u64, EdgeError> {
        check_topic(&message.topic)?;
        let mut message = Message { origin: None, ..message };
        let mut span = spans::publish(&mut message);
        self.log.publish(message).await.inspect_err(|error| span::fail(&mut span, error))
    }

    /// Publishes an event, which those who are given messages as events get as it is. Its `partitionkey` is the key of the message.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is no event, and those of [`Topics::publish`].
    pub async fn publish_event(&self, topic: TopicName, event: CloudEvent) -> Result<u64, EdgeError> {
        event.check()?;
        self.publish(event.into_message(Message::new(topic, Vec::new(), Timestamp::now()))).await
    }

    /// A message as the event that functions get.
    pub fn event_of(&self, message: &Message) -> CloudEvent {
        CloudEvent::of(message, &self.source)
    }

    /// Follows the messages of these filters, from now on or from a position.
    pub fn subscribe(&self, filters: &[TopicFilter], start: Start) -> Result<Subscription, EdgeError> {
        self.log.subscribe(filters, start)
    }

    /// The messages of this filter from this position on, a page of them: see [`TopicLog::read`].
    pub async fn read(&self, from: u64, filter: &TopicFilter) -> Result<Batch, EdgeError> {
        self.log.read(from, filter).await
    }

    /// The topics of this filter whose names come after `after`, a page of them. It looks at the whole log: see [`TopicLog::topics`].
    pub async fn list(&self, filter: &TopicFilter, after: &str) -> Result<Vec<TopicInfo>, EdgeError> {
        self.log.topics(filter, after).await
    }

    /// The newest messages of this filter before a position, and whether there may be older ones: see [`Latest`].
    pub async fn latest(&self, filter: &TopicFilter, before: Option<u64>, count: usize) -> Result<Latest, EdgeError> {
        self.log.latest(filter, before, count).await
    }

    /// The retained messages of this filter whose topics come after `after`, a page of them.
    pub async fn retained(&self, filter: &TopicFilter, after: &str) -> Result<Vec<Arc<Message>>, EdgeError> {
        self.log.retained(filter, after).await
    }

    /// What the log holds.
    pub fn state(&self) -> LogState {
        self.log.state()
    }

    /// Who is connected by MQTT and what was done; none while nobody serves it.
    pub fn mqtt_state(&self) -> Option<BrokerState> {
        self.broker.lock().upgrade().map(|broker| broker.state())
    }

    /// Messages that triggers had not handled when the hub of the fleet took them from the node, since it started.
    pub fn left_by_triggers(&self) -> u64 {
        self.triggers.left_messages()
    }

    /// What triggers leave that the hub takes from now on.
    pub(crate) fn left(&self) -> broadcast::Receiver<Left> {
        self.triggers.left()
    }

    /// How long the attempts of each trigger's function took to handle messages.
    pub(crate) fn attempts(&self) -> Vec<(TriggerId, Distribution)> {
        self.triggers.attempts()
    }

    /// Messages that the function of a trigger could not handle, of one trigger or of all, by id: a page of those after this id.
    pub async fn dead_letters(&self, trigger: Option<&TriggerId>, after: u64) -> Result<Vec<DeadLetter>, EdgeError> {
        program::dead_letters(&self.log, trigger, after).await
    }

    /// Has a dead letter tried again by its trigger, from the first attempt on.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none of this id, [`ErrorKind::Conflict`] when its trigger was removed.
    pub async fn retry_dead_letter(&self, id: u64) -> Result<(), EdgeError> {
        self.log.retry_dead_letter(id).await
    }

    /// Removes a dead letter for good.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none of this id.
    pub async fn discard_dead_letter(&self, id: u64) -> Result<(), EdgeError> {
        self.log.discard_dead_letter(id).await
    }

    /// Makes a trigger, or changes the one of this id, durably; returns whether there was none. A new one gets what is published from
    /// now on, a changed one goes on where it was.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] past a bound of a trigger, [`ErrorKind::TooLarge`] when there are as many as may be,
    /// [`ErrorKind::Forbidden`] for an id that the hub assigned, those of the disk.
    pub async fn put_trigger(&self, trigger: Trigger) -> Result<bool, EdgeError> {
        self.put_trigger_if(trigger, &Expected::Any).await
    }

    /// The same, when the trigger of this id is what is expected.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when it is not, and those of [`Topics::put_trigger`].
    pub async fn put_trigger_if(&self, trigger: Trigger, expected: &Expected) -> Result<bool, EdgeError> {
        self.triggers.put(&self.log, trigger, expected).await
    }

    /// One trigger, and how it does.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none of this id.
    pub async fn trigger(&self, id: &TriggerId) -> Result<TriggerView, EdgeError> {
        let views = self.triggers().await?;
        let found = views.into_iter().find(|view| view.trigger.id == *id);
        found.ok_or_else(|| not_found::<Trigger>(id.as_str()))
    }

    /// Every trigger by id, and how it does.
    pub async fn triggers(&self) -> Result<Vec<TriggerView>, EdgeError> {
        self.triggers.views(&self.log).await
    }

    /// Removes a trigger, durably; returns whether there was one. Its dead letters stay until they are discarded.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] for an id that the hub assigned, those of the disk.
    pub async fn remove_trigger(&self, id: &TriggerId) -> Result<bool, EdgeError> {
        self.remove_trigger_if(id, &Expected::Any).await
    }

    /// The same, when the trigger of this id is what is expected.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when it is not, and those of [`Topics::remove_trigger`].
    pub async fn remove_trigger_if(&self, id: &TriggerId, expected: &Expected) -> Result<bool, EdgeError> {
        self.triggers.remove(&self.log, id, expected).await
    }

    /// Runs the triggers, those included that are made meanwhile and those that the hub gives to the node, until `stop`; then waits for calls under way, for a while. One of
    /// several such calls runs them.
    pub async fn run_triggers(&self, stop: CancellationToken) {
        running::run(
            &self.triggers,
            &self.log,
            call::Caller { runtime: Arc::clone(&self.runtime), source: Arc::clone(&self.source) },
            stop,
        )
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_expires_after_a_time_that_can_be_counted() {
        assert_eq!(expiry(Timestamp::UNIX_EPOCH, 60).expect("valid"), Timestamp::constant(60, 0));
        for bad in [0, u64::MAX, i64::MAX.cast_unsigned()] {
            assert!(expiry(Timestamp::UNIX_EPOCH, bad).expect_err("refused").to_string().contains(&format!("{bad} s")));
        }
    }
}
