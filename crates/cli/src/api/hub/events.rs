//! `/v1/events`: what happens in the fleet.

use std::{collections::HashSet, convert::Infallible, sync::Arc};

use axum::{
    extract::{Query, State},
    http::HeaderMap,
    response::sse::{Event, KeepAlive, Sse},
};
use edgeward::{EdgeError, FleetEvent, FleetHub, blocking, limits::FLEET_EVENTS_PAGE_MAX};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use utoipa::IntoParams;

use crate::api::{Api, Refusal, wire};

/// How many of the last events are told when nobody says how many.
const LIMIT_DEFAULT: usize = 100;

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct EventsQuery {
    /// Go on with the events that come.
    #[serde(default)]
    follow: bool,
    /// How many of those before, at most 1000 [default: 100].
    limit: Option<usize>,
    /// Begin after the event of this id, with the oldest first. The header `Last-Event-ID` does the same.
    after: Option<String>,
    /// Only those of this node.
    node: Option<String>,
}

/// The events of the fleet: one server-sent event each, its id as the id. A follower that is too slow gets an event `missed` with their number.
/// Events of a node that was away come late, with the time at which they happened.
#[utoipa::path(
    get, path = "/v1/events", operation_id = "list_events", tag = "events", params(EventsQuery),
    responses((status = 200, body = String, content_type = "text/event-stream"), (status = 400, body = wire::Problem))
)]
pub(crate) async fn list(
    State(hub): State<Arc<FleetHub>>,
    State(api): State<Api>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if limit > FLEET_EVENTS_PAGE_MAX {
        return Err(EdgeError::invalid(format!("`limit` is {FLEET_EVENTS_PAGE_MAX} at most, not {limit}")).into());
    }
    let after = query.after.or_else(|| headers.get("last-event-id")?.to_str().ok().map(str::to_owned));
    // Before the look at those that are kept, so that none is between.
    let coming = hub.cluster().events().follow();
    let cluster = hub.cluster().clone();
    let kept = blocking(move || cluster.events().list(after.as_deref(), limit)).await?;
    let told = kept.iter().map(|event| event.id.clone()).collect();
    let coming = query.follow.then_some(Following { coming, told });
    let (node, stop) = (query.node, api.stop.clone());
    let is_wanted = move |event: &FleetEvent| node.as_ref().is_none_or(|node| event.node.as_ref().is_some_and(|of| of.as_str() == node));
    let events = stream::iter(kept.into_iter().map(Told::Event)).chain(follow(coming)).filter_map(move |told| {
        std::future::ready(match told {
            Told::Event(event) => is_wanted(&event).then(|| sse(&event)),
            Told::Missed(count) => Some(Event::default().event("missed").data(format!("{{\"missed\":{count}}}"))),
        })
    });
    let events = events.take_until(async move { stop.cancelled().await });
    Ok(Sse::new(events.map(Ok)).keep_alive(KeepAlive::default()))
}

enum Told {
    Event(FleetEvent),
    Missed(u64),
}

struct Following {
    coming: Receiver<FleetEvent>,
    /// Those that were told already.
    told: HashSet<String>,
}

fn follow(following: Option<Following>) -> impl Stream<Item = Told> {
    stream::unfold(following, async |following| {
        let mut following = following?;
        loop {
            match following.coming.recv().await {
                Ok(event) if following.told.contains(&event.id) => {}
                Ok(event) => return Some((Told::Event(event), Some(following))),
                Err(RecvError::Lagged(count)) => return Some((Told::Missed(count), Some(following))),
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

fn sse(event: &FleetEvent) -> Event {
    let json = serde_json::to_string(event).expect("an event has only text and numbers");
    Event::default().id(&event.id).data(json)
}
