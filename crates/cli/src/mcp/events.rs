//! The tool that tells what happens in a fleet, and may wait for it.

use std::time::Duration;

use edgeward::{FleetEvent, NodeId, limits::FLEET_EVENTS_PAGE_MAX};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::{
    session::{Place, Session, ToolError},
    tool::{EdgeTool, Effect},
};
use crate::client::events_in;

/// Events that are told when nobody says how many.
const LIMIT_DEFAULT: usize = 100;
/// Longest wait for an event, in seconds: less than clients wait for a tool.
const WAIT_SECONDS_MAX: u64 = 30;
/// Time between two looks while it waits.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Parameters of `edge_watch_events`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WatchEvents {
    /// Only what happened after the event of this id: the `next` of the call before. Left out: the last events.
    #[serde(default)]
    after: Option<String>,
    /// Only on this node.
    #[serde(default)]
    node_id: Option<String>,
    /// How many at most, up to 1000; 100 when it is left out.
    #[serde(default)]
    limit: Option<usize>,
    /// With `after`: how long to wait for the first one, in seconds, up to 30.
    #[serde(default)]
    wait_seconds: u64,
}

/// Events.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Events {
    /// Oldest first.
    events: Vec<Event>,
    /// What to give as `after` to go on; `null` when nothing has ever happened.
    next: Option<String>,
}

/// Something that happened.
#[derive(Debug, Serialize, JsonSchema)]
struct Event {
    id: String,
    /// When it happened, RFC 3339 in UTC, by the clock of where it did.
    at: String,
    /// What happened, as one word.
    kind: String,
    /// On which node.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// To which function.
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    message: String,
}

impl From<FleetEvent> for Event {
    fn from(event: FleetEvent) -> Self {
        let kind = serde_json::to_value(event.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
        Self {
            id: event.id,
            at: event.at.to_string(),
            kind: kind.unwrap_or_default(),
            node: event.node.map(|node| node.to_string()),
            function: event.function.map(|function| function.to_string()),
            message: event.message,
        }
    }
}

impl EdgeTool for WatchEvents {
    const NAME: &'static str = "edge_watch_events";
    const TITLE: &'static str = "Events of the fleet";
    const ABOUT: &'static str = "Tells what happened in the fleet: nodes that joined, went away or came back, functions that became ready or \
        failed. With `after` and `wait_seconds` it waits for the next event. Only a hub has events.";
    const EFFECT: Effect = Effect::Reads;
    type Output = Events;

    async fn run(self, session: &Session<'_>) -> Result<Events, ToolError> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if limit == 0 || limit > FLEET_EVENTS_PAGE_MAX || self.wait_seconds > WAIT_SECONDS_MAX {
            let most = format!("`limit` is from 1 to {FLEET_EVENTS_PAGE_MAX}, and `wait_seconds` {WAIT_SECONDS_MAX} at most");
            return Err(ToolError::invalid(most));
        }
        if let Place::Node(node) = session.place().await? {
            let why = format!("this is node `{}`, which keeps no events: watch those of the hub of its fleet", node.id);
            return Err(ToolError::not_found(why));
        }
        let node = self.node_id.as_deref().map(NodeId::new).transpose()?;
        let wait = Duration::from_secs(if self.after.is_some() { self.wait_seconds } else { 0 });
        let deadline = Instant::now() + wait;
        let mut after = self.after;
        loop {
            let since = after.as_deref().map(since).transpose()?.unwrap_or_default();
            let reply = session.get(format!("/v1/events?limit={limit}{since}")).await?;
            let told: Vec<FleetEvent> = events_in(&reply.bytes).iter().filter_map(|data| serde_json::from_str(data).ok()).collect();
            after = told.last().map(|last| last.id.clone()).or(after);
            let is_wanted = |event: &FleetEvent| node.is_none() || event.node == node;
            let events: Vec<_> = told.into_iter().filter(is_wanted).map(Event::from).collect();
            let now = Instant::now();
            if !events.is_empty() || now >= deadline {
                return Ok(Events { events, next: after });
            }
            sleep(LOOK_EVERY.min(deadline - now)).await;
        }
    }
}

/// What a query says to go on after an event. Ids are made of letters, digits and `/-_.`.
fn since(id: &str) -> Result<String, ToolError> {
    if id.is_empty() || id.len() > ID_BYTES_MAX || !id.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.".contains(c)) {
        let shown: String = id.chars().take(ID_BYTES_MAX).collect();
        return Err(ToolError::invalid(format!("`after` `{}` is no id of an event", shown.escape_debug())));
    }
    Ok(format!("&after={}", id.replace('/', "%2F")))
}

/// Longest id of an event, in bytes.
const ID_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_an_event_is_safe_in_a_query() {
        assert_eq!(since("00000000000000001/hub").expect("valid"), "&after=00000000000000001%2Fhub");
        for bad in ["", "a&limit=0", "a b", "\u{e9}"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }
}
