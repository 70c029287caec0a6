//! What a node and its hub ask each other over the backbone: the names of the services and the messages, which are JSON.
//!
//! Fields that a reader does not know are passed over, and what a writer does not know is missing: members of neighbouring releases
//! understand each other.

pub(crate) mod invocation;
pub(crate) mod shares;
pub(crate) mod triggers;

use std::time::Duration;

use bytes::Bytes;
use edgeward_cluster::{Message, subject::Name};
use edgeward_model::{Digest, EdgeError, FunctionId, ScheduleId, TopicFilter};
use edgeward_runtime::LogLine;
use edgeward_topics::Mark;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::events::FleetEvent;

/// Node to hub: a frame of the sync protocol.
pub(crate) const SYNC: Name = Name::new("sync");
/// Node to hub, published: a [`Report`](edgeward_cluster::membership::Report).
pub(crate) const HEARTBEAT: Name = Name::new("heartbeat");
/// Node to hub: a part of an artifact.
pub(crate) const ARTIFACT: Name = Name::new("artifact");
/// Node to hub: events and samples that happened on the node.
pub(crate) const OUTBOX: Name = Name::new("outbox");
/// Node to hub: a [`LeaseQuestion`](crate::leases::LeaseQuestion) about functions that one node at a time may run.
pub(crate) const LEASES: Name = Name::new("leases");
/// Node to hub: calls a function on a node that has it.
pub(crate) const CALL: Name = Name::new("call");
/// Node to hub: a [`Bundle`](crate::topics::bundle::Bundle) of messages of its topics. Hub to node, published: there are messages for it.
pub(crate) const TOPICS: Name = Name::new("topics");
/// Node to hub: asks for messages of the fleet's topics, an [`ImportQuestion`].
pub(crate) const TOPICS_IMPORT: Name = Name::new("topics-import");
/// Hub to node, published: there is something to pull; with [`ANEW`] or [`AGAIN`], nobody answers any more what was asked before.
pub(crate) const POKE: Name = Name::new("poke");
/// The payload of a poke by which a hub says that it has just begun.
pub(crate) const ANEW: &[u8] = b"anew";
/// The payload of a poke by which a hub says so once more: what has waited for an answer for long went to a hub that is gone.
pub(crate) const AGAIN: &[u8] = b"again";
/// Hub to node: runs a function.
pub(crate) const INVOKE: Name = Name::new("invoke");
/// Hub to node: lines of a function's log.
pub(crate) const LOGS: Name = Name::new("logs");
/// Hub to node: what ran there so far.
pub(crate) const METRICS: Name = Name::new("metrics");
/// Hub to node, and served by none: that the broker says so shows that it is reached itself.
pub(crate) const NOBODY: Name = Name::new("nobody");

/// Hub to node: a [`Question`](crate::chaos::question::Question) of an experiment.
pub(crate) const CHAOS: Name = Name::new("chaos");
/// Hub to node: what ran of a schedule, or a run of it now.
pub(crate) const SCHEDULES: Name = Name::new("schedules");
/// Hub to node: a [`TriggerQuestion`](triggers::TriggerQuestion) about its triggers and its dead letters.
pub(crate) const TRIGGERS: Name = Name::new("triggers");

/// The header field of the type of a payload.
pub(crate) const CONTENT_TYPE: &str = "content-type";
/// The header field of the size of an artifact, in bytes.
pub(crate) const SIZE: &str = "size";

/// Asks for a part of an artifact: `length` bytes from `offset` on, or what there is of them. The answer is those bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ArtifactRange {
    pub(crate) digest: Digest,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Asks for the lines of a function's log after one, and waits so long when there is none yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogsQuestion {
    pub(crate) function: FunctionId,
    #[serde(default)]
    pub(crate) after: u64,
    #[serde(default)]
    pub(crate) wait_ms: u64,
}

impl LogsQuestion {
    pub(crate) fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms).min(edgeward_model::limits::FAR_LOG_WAIT_MAX)
    }
}

/// Asks about a schedule of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ScheduleQuestion {
    /// What ran of it: a [`ScheduleHistory`](crate::ScheduleHistory).
    History(ScheduleId),
    /// To start a run now, which is the answer.
    Run(ScheduleId),
}

/// Lines of a log, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LogsAnswer {
    pub(crate) lines: Vec<LogLine>,
}

/// Asks for messages of the fleet's topics. The answer is a [`Bundle`](crate::topics::bundle::Bundle).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImportQuestion {
    pub(crate) filters: Vec<TopicFilter>,
    /// How far the node has read the fleet's topics; none to begin now.
    #[serde(default)]
    pub(crate) after: Option<Mark>,
}

/// What happened on a node, oldest first within a priority.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OutboxBatch {
    pub(crate) events: Vec<FleetEvent>,
}

/// A message of this value.
pub(crate) fn write<T: Serialize>(value: &T) -> Message {
    Message::new(Bytes::from(serde_json::to_vec(value).expect("messages have only text and numbers")))
}

/// The value of a message.
pub(crate) fn read<T: DeserializeOwned>(message: &Message, what: &str) -> Result<T, EdgeError> {
    serde_json::from_slice(&message.payload).map_err(|error| {
        EdgeError::invalid(format!("{what} of another member is not valid; is it of a much older or newer release?")).with_source(error)
    })
}
