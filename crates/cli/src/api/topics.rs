//! `/v1/topics`: publishing, and what the log holds. A topic has `/` in its path, as it is or as `%2F`, so one route takes all of them.
//!
//! Who calls may do on a topic what its token's [`TopicRights`] say; the role of a route lets clients in that have nothing else.

pub(crate) mod dead_letters;
mod follow;
pub(crate) mod kept;
pub(crate) mod wire;

use axum::{
    Extension, Json,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use edgeward::{
    CallOptions, CloudEvent, EdgeError, ErrorKind, Message, TopicFilter, TopicName,
    access::{Caller, Role, TopicRights},
    cloud_event::STRUCTURED,
    limits::{TOPIC_PAGE_MAX, TOPIC_PAYLOAD_BYTES_MAX},
    topics::expiry,
};
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use self::{
    kept::KeptTopics,
    wire::{MessagesAnswer, PublishedAnswer, RetainedAnswer, TopicsAnswer},
};
use super::{Api, Refusal, read_body};

/// The route of every topic and filter.
pub(super) const TOPIC_ROUTE: &str = "/v1/topics/{*topic}";
/// Largest event in structured mode, in bytes: a payload in base 64, and the rest.
const EVENT_BYTES_MAX: usize = TOPIC_PAYLOAD_BYTES_MAX / 3 * 4 + 64 * 1024;
/// How the header fields of an event in binary mode begin.
const EVENT_FIELD: &str = "ce-";
/// Messages that are told when nobody says how many.
const LATEST_DEFAULT: usize = 100;
const ALL: &str = "#";
/// The attributes of a message that is part of a trace, as `CloudEvents` has them.
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// What is served at [`TOPIC_ROUTE`], as it is described.
#[derive(OpenApi)]
#[openapi(paths(publish, follow::events, messages, retained))]
pub(super) struct Described;

/// What a caller may do on topics.
pub(super) fn rights(caller: Option<&Caller>) -> TopicRights {
    caller.map_or_else(|| Role::Admin.topic_rights(), |caller| caller.token.topic_rights())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct PublishQuery {
    /// Messages of one key come in their order; without one, those of one topic do. An event has it as `partitionkey`.
    key: Option<String>,
    /// Keep it as the message that who follows the topic later gets first. One without a payload removes what is kept.
    #[serde(default)]
    retain: bool,
    /// After how many seconds it is of no use any more, so that nobody gets it.
    expires_in_seconds: Option<u64>,
}

/// Publishes the body to a topic, and answers when the message is on the disk. A body that is a cloud event, by its header fields `ce-…` or
/// its type `application/cloudevents+json`, is published as one. The headers `traceparent` and `tracestate` become its attributes, unless it is part of a trace by itself.
///
/// It takes the role deployer, or a token that names the topic.
#[utoipa::path(
    post, path = "/v1/topics/{topic}", operation_id = "publish", tag = "topics",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(("topic" = String, Path, description = "The topic, such as `site/berlin/temp`; `/` need not be escaped."), PublishQuery),
    responses(
        (status = 201, body = PublishedAnswer),
        (status = 400, description = "It is no topic, or an event that is not valid.", body = super::wire::Problem),
        (status = 403, description = "The topic is the node's own, or the token may not publish there.", body = super::wire::Problem),
        (status = 413, description = "The message is too large.", body = super::wire::Problem),
    )
)]
pub(super) async fn publish(
    State(kept): State<KeptTopics>,
    Path(topic): Path<String>,
    caller: Option<Extension<Caller>>,
    Query(PublishQuery { key, retain, expires_in_seconds }): Query<PublishQuery>,
    request: Request,
) -> Result<Response, Refusal> {
    let topic = TopicName::new(topic)?;
    let caller = caller.as_deref();
    rights(caller).check_publish(&topic)?;
    let form = Form::of(request.headers())?;
    let headers = request.headers().clone();
    let body = read_body(request, if form == Form::Structured { EVENT_BYTES_MAX } else { TOPIC_PAYLOAD_BYTES_MAX }).await?;
    let now = Timestamp::now();
    let mut message = Message::new(topic.clone(), body.bytes.clone(), now);
    message.key = key;
    message.retain = retain;
    message.publisher = caller.map(|caller| format!("token:{}", caller.token.name));
    message.expires_at = expires_in_seconds.map(|seconds| expiry(now, seconds)).transpose()?;
    let event = match form {
        Form::Plain => {
            message.content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
            None
        }
        Form::Binary => CloudEvent::from_headers(texts(&headers)?, body.bytes.clone()),
        Form::Structured => Some(CloudEvent::from_json(&body.bytes)?),
    };
    if let Some(event) = event {
        event.check()?;
        message = event.into_message(message);
    }
    join_trace(&mut message, &headers);
    let position = kept.publish(message).await?;
    let importers = kept.importers(&topic);
    Ok((StatusCode::CREATED, Json(PublishedAnswer { topic: topic.to_string(), position, importers })).into_response())
}

/// Makes a message a part of the trace of its request, unless it is part of one. Where it has no room for that it goes without.
fn join_trace(message: &mut Message, headers: &HeaderMap) {
    let options = CallOptions::of(headers);
    let Some(trace) = options.trace().filter(|_| message.attributes.iter().all(|(name, _)| name != TRACEPARENT)) else { return };
    // By itself it says nothing, and that of the request is of its trace.
    message.attributes.retain(|(name, _)| name != TRACESTATE);
    let state = options.tracestate.as_ref().and_then(|state| state.to_str().ok()).map(str::to_owned);
    for (name, value) in [(TRACEPARENT, Some(trace.to_string())), (TRACESTATE, state)] {
        message.attributes.extend(value.map(|value| (name.to_owned(), value)));
        if message.check().is_err() {
            message.attributes.pop();
            return;
        }
    }
}

/// How a body says what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Binary,
    Structured,
}

impl Form {
    fn of(headers: &HeaderMap) -> Result<Self, EdgeError> {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if media_type == STRUCTURED {
            return Ok(Self::Structured);
        }
        if media_type.starts_with("application/cloudevents") {
            let why = format!("`{}` is not taken: publish each event by itself, as `{STRUCTURED}`", media_type.escape_debug());
            return Err(EdgeError::invalid(why));
        }
        let mut fields = headers.keys().filter(|name| name.as_str().starts_with(EVENT_FIELD));
        match fields.next() {
            None => Ok(Self::Plain),
            Some(_) if headers.contains_key("ce-specversion") => Ok(Self::Binary),
            Some(field) => {
                let why = format!(
                    "the event is not valid: it has the header field `{field}` and no `ce-specversion`; give `ce-specversion: 1.0`"
                );
                Err(EdgeError::invalid(why))
            }
        }
    }
}

/// The header fields that make an event.
fn texts(headers: &HeaderMap) -> Result<Vec<(&str, &str)>, EdgeError> {
    let made = headers.iter().filter(|(name, _)| name.as_str().starts_with(EVENT_FIELD) || **name == header::CONTENT_TYPE);
    made.map(|(name, value)| match value.to_str() {
        Ok(text) => Ok((name.as_str(), text)),
        Err(_) => Err(EdgeError::invalid(format!("the header field `{name}` is not text; what is not ASCII is percent-encoded"))),
    })
    .collect()
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Topics of this filter only.
    filter: Option<String>,
    /// Topics whose names come after this one: the `next` of the page before.
    #[serde(default)]
    after: String,
}

/// The topics that have messages in the log, by name, and what the log holds. It looks at the whole log.
#[utoipa::path(
    get, path = "/v1/topics", operation_id = "list_topics", tag = "topics", params(ListQuery),
    responses((status = 200, body = TopicsAnswer), (status = 400, body = super::wire::Problem), (status = 403, body = super::wire::Problem))
)]
pub(super) async fn list(
    State(kept): State<KeptTopics>,
    caller: Option<Extension<Caller>>,
    Query(ListQuery { filter, after }): Query<ListQuery>,
) -> Result<Json<TopicsAnswer>, Refusal> {
    let rights = rights(caller.as_deref());
    let filter = TopicFilter::new(filter.as_deref().unwrap_or(ALL))?;
    if filter.as_str().starts_with('$') {
        rights.check_subscribe(&filter)?;
    }
    let (topics, state) = kept.list(&filter, &after).await?;
    let next = topics.last().filter(|_| topics.len() == TOPIC_PAGE_MAX).map(|last| last.topic.to_string());
    let seen = topics.into_iter().filter(|info| rights.may_see(&info.topic));
    Ok(Json(TopicsAnswer::new(seen, next, state)))
}

/// Answers what is asked of a filter, which the end of the path says.
pub(super) async fn read(
    State(kept): State<KeptTopics>,
    State(api): State<Api>,
    Path(path): Path<String>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Result<Response, Refusal> {
    let (filter, what) = path.rsplit_once('/').unwrap_or(("", &path));
    if !["events", "messages", "retained"].contains(&what) {
        let why = format!(
            "nothing is served at `{}`: a topic is followed at `/v1/topics/FILTER/events`, and read at `…/messages` and `…/retained`",
            request.uri().path()
        );
        return Err(EdgeError::new(ErrorKind::NotFound, why).into());
    }
    let filter = TopicFilter::new(filter)?;
    rights(caller.as_deref()).check_subscribe(&filter)?;
    match what {
        "events" => follow::events(&kept, &api, filter, request.headers(), query(&request)?),
        "messages" => messages(&kept, &filter, query(&request)?).await,
        _ => retained(&kept, &filter, query(&request)?).await,
    }
}

fn query<T: serde::de::DeserializeOwned>(request: &Request) -> Result<T, EdgeError> {
    let read = Query::try_from_uri(request.uri());
    read.map(|Query(query)| query).map_err(|error| EdgeError::invalid(format!("the query is not valid: {}", error.body_text())))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct MessagesQuery {
    /// Messages before this position: the `before` of the page before.
    before: Option<u64>,
    /// Messages from this position on, 1 for the oldest that there is: the `next` of the page before. Not with `before`.
    from: Option<u64>,
    /// How many at most, up to 1000; 100 when it is left out.
    limit: Option<usize>,
}

/// The newest messages of a filter, or those from a position on; the oldest of them first. A page may have less than there are, or none: as
/// long as `before` is given, older ones may be found with it, and as long as `next` grows, newer ones.
#[utoipa::path(
    get, path = "/v1/topics/{filter}/messages", operation_id = "latest_messages", tag = "topics",
    params(("filter" = String, Path, description = "Such as `site/+/temp`; `#` is escaped as `%23`."), MessagesQuery),
    responses((status = 200, body = MessagesAnswer), (status = 400, body = super::wire::Problem), (status = 403, body = super::wire::Problem))
)]
async fn messages(
    kept: &KeptTopics,
    filter: &TopicFilter,
    MessagesQuery { before, from, limit }: MessagesQuery,
) -> Result<Response, Refusal> {
    let limit = limit.unwrap_or(LATEST_DEFAULT);
    if !(1..=TOPIC_PAGE_MAX).contains(&limit) {
        return Err(EdgeError::invalid(format!("`limit` is {limit}; it must be from 1 to {TOPIC_PAGE_MAX}")).into());
    }
    let answer = match (from, before) {
        (None, before) => kept.latest(filter, before, limit).await?.into(),
        (Some(from), None) => MessagesAnswer::of(kept.read(from, filter).await?, limit),
        (Some(_), Some(_)) => {
            return Err(EdgeError::invalid("messages are read from a position on, or before one: give `from` or `before`").into());
        }
    };
    Ok(Json(answer).into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct RetainedQuery {
    /// Messages of topics whose names come after this one: the `next` of the page before.
    #[serde(default)]
    after: String,
}

/// The messages that are kept for those who follow topics of a filter later, by topic.
#[utoipa::path(
    get, path = "/v1/topics/{filter}/retained", operation_id = "retained_messages", tag = "topics",
    params(("filter" = String, Path, description = "Such as `site/+/temp`; `#` is escaped as `%23`."), RetainedQuery),
    responses((status = 200, body = RetainedAnswer), (status = 400, body = super::wire::Problem), (status = 403, body = super::wire::Problem))
)]
async fn retained(kept: &KeptTopics, filter: &TopicFilter, RetainedQuery { after }: RetainedQuery) -> Result<Response, Refusal> {
    Ok(Json(RetainedAnswer::from(kept.retained(filter, &after).await?)).into_response())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use edgeward::limits::TOPIC_ATTRIBUTES_MAX;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_body_is_an_event_by_its_header_fields_or_its_type() {
        let form = |fields: &[_]| Form::of(&headers(fields)).map_err(|error| error.to_string());
        assert_eq!(form(&[]), Ok(Form::Plain));
        assert_eq!(form(&[("content-type", "application/json"), ("certain", "x")]), Ok(Form::Plain));
        assert_eq!(form(&[("ce-specversion", "1.0"), ("ce-id", "1")]), Ok(Form::Binary));
        assert_eq!(form(&[("content-type", "Application/CloudEvents+JSON; charset=UTF-8")]), Ok(Form::Structured));
        assert!(form(&[("ce-id", "1")]).expect_err("no version").contains("`ce-id` and no `ce-specversion`"));
        assert!(form(&[("content-type", "application/cloudevents-batch+json")]).expect_err("a batch").contains("each event by itself"));
    }

    #[test]
    fn a_message_is_part_of_the_trace_of_its_request_unless_it_has_one_or_no_room() {
        const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let joined = |own: &[(&str, &str)], fields: &[(&'static str, &'static str)]| {
            let mut message = Message::new(TopicName::new("a").expect("valid"), "", Timestamp::UNIX_EPOCH);
            message.attributes = own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            join_trace(&mut message, &headers(fields));
            message.attributes
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let both = [("traceparent", TRACE), ("tracestate", "a=1")];
        assert_eq!(joined(&[], &both), [pair("traceparent", TRACE), pair("tracestate", "a=1")]);
        assert_eq!(joined(&[], &both[..1]), [pair("traceparent", TRACE)]);
        assert!(joined(&[], &both[1..]).is_empty() && joined(&[], &[("traceparent", "x"), both[1]]).is_empty());
        assert_eq!(joined(&[("traceparent", "own")], &both), [pair("traceparent", "own")]);
        assert_eq!(joined(&[("tracestate", "old=1")], &both), [pair("traceparent", TRACE), pair("tracestate", "a=1")]);
        let full = vec![("x", "y"); TOPIC_ATTRIBUTES_MAX];
        assert_eq!((joined(&full, &both).len(), joined(&full[1..], &both).len()), (TOPIC_ATTRIBUTES_MAX, TOPIC_ATTRIBUTES_MAX));
    }
}
