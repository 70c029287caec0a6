//! `/v1/functions` of a hub: what each node should run and how that is, calls, and logs.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, Query, Request, State},
    response::{
        Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use edgeward::{
    CallOptions, EdgeCluster, EdgeError, ErrorKind, FleetHub, FunctionId, LogLine, NodeId, NodeRuntime, blocking,
    limits::{FAR_LOG_WAIT_MAX, REQUEST_BYTES_MAX},
};
use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use utoipa::{IntoParams, ToSchema};

use crate::api::{
    Api, Refusal,
    functions::{FUNCTION_BODY_BYTES_MAX, IdPath, event, output},
    read_body, terms,
    wire::{self, FunctionAnswer, FunctionBody, FunctionsAnswer},
};

/// Time after which a node that was away is asked again for its log.
const AWAY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct NodeQuery {
    /// Only this node.
    node: Option<String>,
}

/// Whom a change is for: one of the two must be given.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct TargetQuery {
    /// This node.
    node: Option<String>,
    /// Every node that is registered now.
    #[serde(default)]
    all: bool,
}

enum Target {
    All,
    Node(NodeId),
}

impl TargetQuery {
    fn target(self) -> Result<Target, EdgeError> {
        match self {
            Self { node: Some(node), all: false } => Ok(Target::Node(NodeId::new(node)?)),
            Self { node: None, all: true } => Ok(Target::All),
            _ => Err(EdgeError::invalid("say for whom it is: either `node=ID` or `all=true`")),
        }
    }
}

/// How many nodes a change reached.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodesChanged {
    id: String,
    /// Nodes whose assignment is durable; each takes it as soon as it is connected.
    nodes: usize,
}

/// Every function on every node, by node and id.
#[utoipa::path(
    get, path = "/v1/functions", operation_id = "list_functions", tag = "functions", params(NodeQuery),
    responses((status = 200, body = FunctionsAnswer), (status = 404, body = wire::Problem))
)]
pub(crate) async fn list(State(hub): State<Arc<FleetHub>>, Query(query): Query<NodeQuery>) -> Result<Json<FunctionsAnswer>, Refusal> {
    let node = query.node.map(NodeId::new).transpose()?;
    let cluster = hub.cluster().clone();
    let functions = blocking(move || functions(&cluster, node, |_| true)).await?;
    Ok(Json(FunctionsAnswer { functions }))
}

/// One function on every node that has it.
#[utoipa::path(
    get, path = "/v1/functions/{id}", operation_id = "show_function", tag = "functions", params(IdPath, NodeQuery),
    responses((status = 200, body = FunctionsAnswer), (status = 404, body = wire::Problem))
)]
pub(crate) async fn show(
    State(hub): State<Arc<FleetHub>>,
    Path(IdPath { id }): Path<IdPath>,
    Query(query): Query<NodeQuery>,
) -> Result<Json<FunctionsAnswer>, Refusal> {
    let node = query.node.map(NodeId::new).transpose()?;
    let cluster = hub.cluster().clone();
    let wanted = FunctionId::new(&id)?;
    let functions = blocking(move || functions(&cluster, node, |id| *id == wanted)).await?;
    if functions.is_empty() {
        return Err(EdgeError::function_not_found(&id).into());
    }
    Ok(Json(FunctionsAnswer { functions }))
}

fn functions(
    cluster: &EdgeCluster,
    node: Option<NodeId>,
    is_wanted: impl Fn(&FunctionId) -> bool,
) -> Result<Vec<FunctionAnswer>, EdgeError> {
    let nodes = node.map_or_else(|| cluster.node_ids(), |node| vec![node]);
    let mut functions = Vec::new();
    for node in nodes {
        let views = cluster.functions_of(&node)?.into_iter().filter(|view| is_wanted(&view.record.function.id));
        functions.extend(views.map(|view| FunctionAnswer::on(&node, view)));
    }
    Ok(functions)
}

/// Assigns a function to a node or to all, durably. Each node takes the newest as soon as it is connected.
#[utoipa::path(
    put, path = "/v1/functions/{id}", operation_id = "put_function", tag = "functions", params(IdPath, TargetQuery),
    request_body = FunctionBody,
    responses(
        (status = 200, body = NodesChanged),
        (status = 400, body = wire::Problem),
        (status = 404, description = "Its artifact or the node is not known.", body = wire::Problem),
        (status = 422, body = wire::Problem),
        (status = 503, description = "This hub is not the active one.", body = wire::Problem),
    )
)]
pub(crate) async fn put(
    State(hub): State<Arc<FleetHub>>,
    Path(IdPath { id }): Path<IdPath>,
    Query(query): Query<TargetQuery>,
    request: Request,
) -> Result<Json<NodesChanged>, Refusal> {
    let id = FunctionId::new(id)?;
    let body = read_body(request, FUNCTION_BODY_BYTES_MAX).await?;
    let function = FunctionBody::read(&body.bytes, id.clone())?;
    hub.check_active()?;
    let nodes = match query.target()? {
        Target::All => hub.cluster().deploy_to_all(function).await?,
        Target::Node(node) => hub.cluster().deploy_to_node(node.as_str(), function).await.map(|()| 1)?,
    };
    Ok(Json(NodesChanged { id: id.to_string(), nodes }))
}

/// Takes a function from a node or from all.
#[utoipa::path(
    delete, path = "/v1/functions/{id}", operation_id = "delete_function", tag = "functions", params(IdPath, TargetQuery),
    responses((status = 200, body = NodesChanged), (status = 404, body = wire::Problem), (status = 503, body = wire::Problem))
)]
pub(crate) async fn delete(
    State(hub): State<Arc<FleetHub>>,
    Path(IdPath { id }): Path<IdPath>,
    Query(query): Query<TargetQuery>,
) -> Result<Json<NodesChanged>, Refusal> {
    let id = FunctionId::new(&id)?;
    hub.check_active()?;
    let nodes = match query.target()? {
        Target::All => hub.cluster().undeploy_from_all(&id).await?,
        Target::Node(node) => usize::from(hub.cluster().undeploy_from_node(node.as_str(), &id).await?),
    };
    if nodes == 0 {
        return Err(EdgeError::function_not_found(id.as_str()).into());
    }
    Ok(Json(NodesChanged { id: id.to_string(), nodes }))
}

/// The runtime of the node that a call is for.
fn runtime(hub: &FleetHub, node: Option<&str>) -> Result<NodeRuntime, EdgeError> {
    let node = node.ok_or_else(|| EdgeError::invalid("say on which node: `node=ID`"))?;
    hub.check_active()?;
    hub.cluster().runtime(node)
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct InvokeQuery {
    /// On this node and no other; left out: on the node that takes it best.
    node: Option<String>,
}

/// Invokes a function with the body as its payload, and answers with its result. Which node runs it is chosen by health, nearness and load, and what fails is
/// tried on another one where that does no harm; with `node` that one runs it, once. The headers `content-type`, `traceparent` and `tracestate` go with it.
#[utoipa::path(
    post, path = "/v1/functions/{id}/invoke", operation_id = "invoke_function", tag = "functions",
    params(
        IdPath, InvokeQuery,
        ("edgeward-timeout-ms" = Option<u64>, Header, description = "How many milliseconds the call has, with all its attempts; the function's own deadline holds as well."),
        ("edgeward-idempotent" = Option<bool>, Header, description = "Whether this call may run twice, so that it is retried also when it may have run."),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "The result, as the function gave it.", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, body = wire::Problem),
        (status = 413, description = "The payload or the result is too large for the way to a node.", body = wire::Problem),
        (status = 500, description = "The function failed.", body = wire::Problem),
        (status = 503, description = "No node can take it now, or the node is not connected or overloaded; see Retry-After.", body = wire::Problem),
        (status = 504, description = "It ran past its deadline.", body = wire::Problem),
    )
)]
pub(crate) async fn invoke(
    State(hub): State<Arc<FleetHub>>,
    Path(IdPath { id }): Path<IdPath>,
    Query(query): Query<InvokeQuery>,
    request: Request,
) -> Result<Response, Refusal> {
    let runtime = query.node.as_deref().map(|node| runtime(&hub, Some(node))).transpose()?;
    hub.check_active()?;
    let function = FunctionId::new(&id).map_err(|_| EdgeError::function_not_found(&id))?;
    let (options, terms) = (CallOptions::of(request.headers()), terms::read(request.headers())?);
    let payload = read_body(request, REQUEST_BYTES_MAX).await?;
    let payload = payload.bytes.clone();
    Ok(output(match runtime {
        Some(runtime) => terms::within(terms, &id, runtime.invoke_with(&id, payload, options)).await?,
        None => hub.cluster().call(&function, payload, options, terms).await?,
    }))
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct FarLogsQuery {
    /// On this node.
    node: Option<String>,
    /// Go on with the lines that come.
    #[serde(default)]
    follow: bool,
}

/// What a function printed on a node: one server-sent event a line, its sequence number as the id.
#[utoipa::path(
    get, path = "/v1/functions/{id}/logs", operation_id = "function_logs", tag = "functions", params(IdPath, FarLogsQuery),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = 404, body = wire::Problem),
        (status = 503, body = wire::Problem),
    )
)]
pub(crate) async fn logs(
    State(hub): State<Arc<FleetHub>>,
    State(api): State<Api>,
    Path(IdPath { id }): Path<IdPath>,
    Query(query): Query<FarLogsQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let runtime = runtime(&hub, query.node.as_deref())?;
    let id = FunctionId::new(&id)?;
    // What cannot be read at all is told as an error, and not as the end of a log.
    let kept = runtime.logs(&id, 0, Duration::ZERO).await?;
    let last = kept.last().map_or(0, |line| line.seq);
    let stop = api.stop.clone();
    let coming = coming(query.follow.then_some((runtime, id, last)));
    let lines = stream::iter(kept).chain(coming).take_until(async move { stop.cancelled().await });
    Ok(Sse::new(lines.map(|line| Ok(event(&line)))).keep_alive(KeepAlive::default()))
}

/// The lines that come, until the function is gone. While the node is away none come.
fn coming(following: Option<(NodeRuntime, FunctionId, u64)>) -> impl Stream<Item = LogLine> {
    let batches = stream::unfold(following, async |following| {
        let (runtime, id, last) = following?;
        loop {
            match runtime.logs(&id, last, FAR_LOG_WAIT_MAX).await {
                Ok(lines) => {
                    let last = lines.last().map_or(last, |line| line.seq);
                    return Some((stream::iter(lines), Some((runtime, id, last))));
                }
                Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => sleep(AWAY_PAUSE).await,
                Err(error) => {
                    tracing::debug!(error = error.chain(), "a far log is no longer followed");
                    return None;
                }
            }
        }
    });
    batches.flatten()
}
