//! `/v1/functions`: desired state, invocation and logs.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{
        Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use edgeward::{
    CallOptions, EdgeError, ErrorKind, FunctionId, FunctionState, FunctionView, LogLine, LogStream, Node, Output, Precondition,
    limits::{ENVIRONMENT_BYTES_MAX, REQUEST_BYTES_MAX},
};
use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::broadcast::{self, error::RecvError};
use utoipa::IntoParams;

use super::{
    Api, Refusal, first_of, read_body, terms,
    wire::{FunctionAnswer, FunctionBody, FunctionsAnswer},
};

/// Largest description of a function, in bytes: its environment as JSON, which writes some bytes as six, and the rest.
pub(super) const FUNCTION_BODY_BYTES_MAX: usize = 8 * ENVIRONMENT_BYTES_MAX;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct IdPath {
    /// The function.
    pub(super) id: String,
}

/// Of whom a call of a hub is: of a node by itself it makes no sense.
#[derive(Debug, Deserialize)]
pub(super) struct Whom {
    node: Option<String>,
    #[serde(default)]
    all: bool,
}

/// Refuses what is for another node, so that nothing happens on the wrong one, and nothing is told of it.
pub(super) async fn only_of_this_node(State(node): State<Arc<Node>>, request: Request, next: Next) -> Result<Response, Refusal> {
    let path = request.uri().path();
    let of_nodes = ["functions", "schedules", "triggers", "dead-letters", "metrics"];
    if !first_of(path).is_some_and(|first| of_nodes.contains(&first)) {
        return Ok(next.run(request).await);
    }
    let own = &node.runtime().node().id;
    let whom = Query::try_from_uri(request.uri()).map_err(|error| EdgeError::invalid("the query is not valid").with_source(error))?;
    match whom.0 {
        Whom { all: true, .. } => Err(EdgeError::invalid(format!("`all` is for the hub of a fleet, and this is node `{own}`")).into()),
        Whom { node: Some(other), .. } if other != own.as_str() => {
            let message =
                format!("node not found: `{}`; this is node `{own}`, and the hub of its fleet knows others", other.escape_debug());
            Err(EdgeError::new(ErrorKind::NotFound, message).into())
        }
        Whom { .. } => Ok(next.run(request).await),
    }
}

/// Every function, by id.
#[utoipa::path(get, path = "/v1/functions", tag = "functions", responses((status = 200, body = FunctionsAnswer)))]
pub(crate) async fn list(State(node): State<Arc<Node>>) -> Json<FunctionsAnswer> {
    Json(FunctionsAnswer { functions: node.functions().into_iter().map(FunctionAnswer::from).collect() })
}

/// One function.
#[utoipa::path(
    get, path = "/v1/functions/{id}", tag = "functions", params(IdPath),
    responses((status = 200, body = FunctionAnswer), (status = 404, body = super::wire::Problem))
)]
pub(crate) async fn show(State(node): State<Arc<Node>>, Path(IdPath { id }): Path<IdPath>) -> Result<Response, Refusal> {
    Ok(tagged(StatusCode::OK, node.function(&id)?.into()))
}

/// Deploys a function: writes it as desired, durably, and answers when it serves.
#[utoipa::path(
    put, path = "/v1/functions/{id}", tag = "functions", request_body = FunctionBody,
    params(
        IdPath,
        ("If-Match" = Option<String>, Header, description = "The generation that is to be replaced, in quotes; `*`: any."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only when the function is new."),
    ),
    responses(
        (status = 200, description = "Replaced.", body = FunctionAnswer),
        (status = 201, description = "New.", body = FunctionAnswer),
        (status = 400, body = super::wire::Problem),
        (status = 404, description = "Its artifact or handler is not here.", body = super::wire::Problem),
        (status = 412, description = "It is at another generation.", body = super::wire::Problem),
        (status = 422, body = super::wire::Problem),
    )
)]
pub(crate) async fn put(State(node): State<Arc<Node>>, Path(IdPath { id }): Path<IdPath>, request: Request) -> Result<Response, Refusal> {
    let id = FunctionId::new(id)?;
    let precondition = precondition(request.headers())?;
    let body = read_body(request, FUNCTION_BODY_BYTES_MAX).await?;
    let deployment = node.put_function(FunctionBody::read(&body.bytes, id)?, precondition).await?;
    Ok(tagged(if deployment.created { StatusCode::CREATED } else { StatusCode::OK }, deployment.view.into()))
}

/// Undeploys a function.
#[utoipa::path(
    delete, path = "/v1/functions/{id}", tag = "functions",
    params(IdPath, ("If-Match" = Option<String>, Header, description = "The generation that is to go, in quotes; `*`: any.")),
    responses((status = 204), (status = 404, body = super::wire::Problem), (status = 412, body = super::wire::Problem))
)]
pub(crate) async fn delete(
    State(node): State<Arc<Node>>,
    Path(IdPath { id }): Path<IdPath>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let existed = node.delete_function(&FunctionId::new(&id)?, precondition(&headers)?).await?;
    if existed { Ok(StatusCode::NO_CONTENT) } else { Err(EdgeError::function_not_found(&id).into()) }
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct HereQuery {
    /// This node, so that the call goes nowhere else.
    node: Option<String>,
}

/// Invokes a function with the body as its payload, and answers with its result. One that is not on this node is called wherever the hub of its fleet
/// finds it, unless `node` says this one. The headers `content-type`, `traceparent` and `tracestate` go with it.
#[utoipa::path(
    post, path = "/v1/functions/{id}/invoke", tag = "functions",
    params(
        IdPath, HereQuery,
        ("edgeward-timeout-ms" = Option<u64>, Header, description = "How many milliseconds the call has; the function's own deadline holds as well."),
        ("edgeward-idempotent" = Option<bool>, Header, description = "Whether this call may run twice, so that it may be retried."),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "The result, as the function gave it.", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, body = super::wire::Problem),
        (status = 500, description = "The function failed.", body = super::wire::Problem),
        (status = 503, description = "It is overloaded, or no node can be reached that has it; see Retry-After.", body = super::wire::Problem),
        (status = 504, description = "It ran past its deadline.", body = super::wire::Problem),
    )
)]
pub(crate) async fn invoke(
    State(node): State<Arc<Node>>,
    Path(IdPath { id }): Path<IdPath>,
    Query(query): Query<HereQuery>,
    request: Request,
) -> Result<Response, Refusal> {
    let function = FunctionId::new(&id).map_err(|_| EdgeError::function_not_found(&id))?;
    let (options, terms) = (CallOptions::of(request.headers()), terms::read(request.headers())?);
    let payload = read_body(request, REQUEST_BYTES_MAX).await?;
    let payload = payload.bytes.clone();
    let output = match query.node {
        // It is this one: others were refused.
        Some(_) => terms::within(terms, &id, node.runtime().invoke_with(&id, payload, options)).await?,
        None => node.call(&function, payload, options, terms).await?,
    };
    Ok(self::output(output))
}

/// What a function gave.
pub(super) fn output(output: Output) -> Response {
    let mut response = Response::new(Body::from(output.body));
    let content_type = output.content_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct LogsQuery {
    /// Go on with the lines that come.
    #[serde(default)]
    follow: bool,
}

/// What a function printed: one server-sent event a line, its sequence number as the id. Of a function that could
/// not be deployed there is one line, numbered 0, that says why. With `follow` it ends when the function is undeployed.
#[utoipa::path(
    get, path = "/v1/functions/{id}/logs", tag = "functions", params(IdPath, LogsQuery),
    responses((status = 200, body = String, content_type = "text/event-stream"), (status = 404, body = super::wire::Problem))
)]
pub(crate) async fn logs(
    State(node): State<Arc<Node>>,
    State(api): State<Api>,
    Path(IdPath { id }): Path<IdPath>,
    Query(query): Query<LogsQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let view = node.function(&id)?;
    let (kept, coming) = match node.runtime().log(&id) {
        Some(log) => log.follow(),
        None => (not_running(&view).into_iter().collect(), broadcast::channel(1).1),
    };
    let stop = api.stop.clone();
    let lines = stream::iter(kept).chain(follow(query.follow.then_some(coming))).take_until(async move { stop.cancelled().await });
    Ok(Sse::new(lines.map(|line| Ok(event(&line)))).keep_alive(KeepAlive::default()))
}

/// All there is to tell of a function that never came to run.
fn not_running(view: &FunctionView) -> Option<LogLine> {
    let text = format!("the function could not be deployed: {}", view.message);
    (view.state == FunctionState::Failed).then(|| LogLine { seq: 0, timestamp: Timestamp::now(), stream: LogStream::Runtime, text })
}

/// The lines that come, until the function is undeployed and its last invocation has ended.
fn follow(coming: Option<broadcast::Receiver<LogLine>>) -> impl Stream<Item = LogLine> {
    stream::unfold(coming, async |coming| {
        let mut receiver = coming?;
        loop {
            match receiver.recv().await {
                Ok(line) => return Some((line, Some(receiver))),
                // The gap shows in the sequence numbers.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

pub(super) fn event(line: &LogLine) -> Event {
    let json = serde_json::to_string(line).expect("a line has only text and numbers");
    Event::default().id(line.seq.to_string()).data(json)
}

fn tagged(status: StatusCode, answer: FunctionAnswer) -> Response {
    super::tagged(status, answer.generation, answer)
}

pub(super) fn precondition(headers: &HeaderMap) -> Result<Precondition, EdgeError> {
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Precondition::None),
        (None, Some("*")) => Ok(Precondition::Absent),
        (Some("*"), None) => Ok(Precondition::Present),
        (Some(tag), None) => {
            let generation = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
            generation.map(Precondition::Generation).ok_or_else(|| {
                EdgeError::new(
                    ErrorKind::InvalidInput,
                    format!("If-Match `{}` is neither a generation in quotes, such as \"3\", nor `*`", tag.escape_debug()),
                )
            })
        }
        (_, Some(_)) => Err(EdgeError::invalid("If-None-Match takes only `*`, and not together with If-Match")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preconditions_are_read_from_their_headers() {
        let read = |pairs: &[(header::HeaderName, &'static str)]| {
            precondition(&pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect())
        };
        assert_eq!(read(&[]).expect("none"), Precondition::None);
        assert_eq!(read(&[(header::IF_MATCH, "\"7\"")]).expect("valid"), Precondition::Generation(7));
        assert_eq!(read(&[(header::IF_MATCH, "*")]).expect("valid"), Precondition::Present);
        assert_eq!(read(&[(header::IF_NONE_MATCH, "*")]).expect("valid"), Precondition::Absent);
        for bad in [
            vec![(header::IF_MATCH, "7")],
            vec![(header::IF_NONE_MATCH, "\"7\"")],
            vec![(header::IF_MATCH, "\"1\""), (header::IF_NONE_MATCH, "*")],
        ] {
            assert_eq!(read(&bad).expect_err("bad").kind(), ErrorKind::InvalidInput);
        }
    }
}
