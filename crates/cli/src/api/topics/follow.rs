//! `GET /v1/topics/{filter}/events`: messages as they come, as server-sent events.
//!
//! What waits for one follower is bounded by its subscription, and a follower that takes nothing is ended by the listener.

use std::convert::Infallible;

use axum::{
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use edgeward::{EdgeError, ErrorKind, Received, Start, Subscription, TopicFilter, limits::TOPIC_FOLLOWERS_MAX};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use utoipa::IntoParams;

use super::{kept::KeptTopics, wire::MessageAnswer};
use crate::api::{Api, Refusal};

/// Tells where a client that lost its connection was: the HTML standard.
const LAST_EVENT_ID: &str = "last-event-id";

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// The position of the first message; 1 is the oldest that there is. Without it, what is published from now on.
    from: Option<u64>,
}

/// The messages of a filter as they come: server-sent events with the position as their id, and as data what `messages` lists. The first
/// event, `begin`, has the position after which it begins. With `Last-Event-ID` it goes on after that position. Who comes too late for some
/// gets an event `lost` that says how many, of whatever topic. What was published without the disk (MQTT's QoS 0) has no id.
///
/// It takes the role viewer, or a token that names the topics.
#[utoipa::path(
    get, path = "/v1/topics/{filter}/events", operation_id = "follow", tag = "topics",
    params(
        ("filter" = String, Path, description = "Such as `site/+/temp`; `/` need not be escaped, `#` is escaped as `%23`."),
        EventsQuery,
        ("Last-Event-ID" = Option<u64>, Header, description = "The position of the last message that the client has."),
    ),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = 400, body = crate::api::wire::Problem),
        (status = 403, description = "The token may not follow these topics.", body = crate::api::wire::Problem),
        (status = 503, description = "Too many follow; see Retry-After.", body = crate::api::wire::Problem),
    )
)]
pub(super) fn events(
    kept: &KeptTopics,
    api: &Api,
    filter: TopicFilter,
    headers: &HeaderMap,
    EventsQuery { from }: EventsQuery,
) -> Result<Response, Refusal> {
    static ROOM: Semaphore = Semaphore::const_new(TOPIC_FOLLOWERS_MAX);
    let start = start(headers, from)?;
    let room = ROOM.try_acquire().map_err(|_| {
        let why = format!("the node is overloaded: topics are followed {TOPIC_FOLLOWERS_MAX} times, which is the most; try again later");
        EdgeError::new(ErrorKind::Overloaded, why)
    })?;
    let followed = Followed { subscription: kept.subscribe(filter, start)?, _room: room };
    let stop = api.stop.clone();
    // Who loses the connection before the first message goes on from here.
    let after = followed.subscription.position();
    let begin = Event::default().event("begin").id(after.to_string()).data(serde_json::json!({ "after": after }).to_string());
    let events = stream::iter([begin]).chain(stream::unfold(followed, Followed::next)).take_until(async move { stop.cancelled().await });
    Ok(Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::default()).into_response())
}

/// Where a client goes on, or begins.
fn start(headers: &HeaderMap, from: Option<u64>) -> Result<Start, EdgeError> {
    let last = headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or("not text").trim()).filter(|last| !last.is_empty());
    let Some(last) = last else { return Ok(from.map_or(Start::Now, Start::At)) };
    match last.parse::<u64>() {
        Ok(last) => Ok(Start::At(last.saturating_add(1))),
        Err(_) => Err(EdgeError::invalid(format!("Last-Event-ID `{}` is no position of a message, such as `7`", last.escape_debug()))),
    }
}

struct Followed {
    subscription: Subscription,
    _room: SemaphorePermit<'static>,
}

impl Followed {
    /// Waits for the next event.
    async fn next(mut self) -> Option<(Event, Self)> {
        loop {
            match self.subscription.next().await {
                Ok(Received::Message(message)) if message.has_expired(Timestamp::now()) => {}
                Ok(Received::Message(message)) => {
                    let event = Event::default().data(MessageAnswer::of(&message).to_json());
                    let event = match message.position {
                        Some(position) => event.id(position.to_string()),
                        None => event,
                    };
                    return Some((event, self));
                }
                Ok(Received::Lost(lost)) => {
                    let event = Event::default().event("lost").data(serde_json::json!({ "lost": lost }).to_string());
                    return Some((event, self));
                }
                Err(error) => {
                    tracing::debug!(error = error.chain(), "following topics ended");
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_client_goes_on_after_the_last_message_that_it_has() {
        let start = |last: Option<&'static str>, from| {
            let headers = last.map(|last| (LAST_EVENT_ID.parse().expect("valid"), HeaderValue::from_static(last))).into_iter().collect();
            start(&headers, from)
        };
        assert_eq!(start(None, None).expect("valid"), Start::Now);
        assert_eq!(start(Some(""), Some(3)).expect("valid"), Start::At(3));
        assert_eq!(start(Some("7"), Some(3)).expect("valid"), Start::At(8), "as a browser repeats its query");
        assert_eq!(start(Some("18446744073709551615"), None).expect("valid"), Start::At(u64::MAX));
        assert!(start(Some("x"), None).expect_err("no position").to_string().contains("Last-Event-ID `x`"));
    }
}
