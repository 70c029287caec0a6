//! The HTTP API under `/v1`: parses, calls the node, maps the answer. It decides nothing.
//!
//! Every call passes [`access`] first. Every error is a problem.

mod access;
mod artifacts;
mod audit;
mod documents;
mod functions;
pub(crate) mod hub;
mod observe;
mod own_node;
mod schedules;
pub(crate) mod terms;
pub(crate) mod tokens;
mod topics;
pub(crate) mod triggers;
mod wire;

use std::{fmt::Display, net::SocketAddr, sync::Arc, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::{FromRef, Request},
    http::{Method, StatusCode, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::{Bytes, BytesMut};
use edgeward::{
    Documents, EdgeError, ErrorKind, Node, Target,
    access::Tokens,
    limits::{API_BODIES_BYTES_MAX, CLIENT_STALL_TIMEOUT},
    listener::{Listener, accept, is_loopback},
    problem::Problem,
};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{access::Door, audit::Audit, topics::kept::KeptTopics};
pub(crate) use self::{observe::readings, wire::FunctionBody};
use crate::{
    mcp::{self, Access},
    node_process::Membership,
};

/// Where the Model Context Protocol is served.
const MCP_PATH: &str = "/mcp";
/// Longest answer of axum itself that is kept as the detail of a problem.
const REJECTION_BYTES_MAX: usize = 4096;

/// What every server has, whatever it serves.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

pub(crate) struct Shared {
    documents: Documents,
    tokens: Arc<Tokens>,
    door: Door,
    audit: Audit,
    listen: String,
    started: Instant,
    started_at: Timestamp,
    /// What the Model Context Protocol may do.
    mcp: Access,
    /// Ends streams that would go on for ever.
    stop: CancellationToken,
}

impl Shared {
    /// For a server that begins now and listens at `address`.
    pub(crate) fn new(documents: Documents, tokens: Arc<Tokens>, address: SocketAddr, stop: CancellationToken, mcp: Access) -> Self {
        Self {
            documents,
            tokens,
            door: if is_loopback(address) { Door::Loopback } else { Door::Guarded },
            audit: Audit::default(),
            listen: address.to_string(),
            started: Instant::now(),
            started_at: Timestamp::now(),
            mcp,
            stop,
        }
    }
}

impl std::ops::Deref for Api {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Where functions are served.
#[derive(Clone)]
pub(crate) struct FunctionsListen(Arc<str>);

/// What the routes of a node have.
#[derive(Clone, FromRef)]
pub(crate) struct OfNode {
    api: Api,
    node: Arc<Node>,
    functions_listen: FunctionsListen,
    membership: Option<Arc<Membership>>,
}

/// The head of the API's description; each route adds itself.
#[derive(OpenApi)]
#[openapi(info(title = "Edgeward", description = "Deploys and invokes functions on one edge node, and keeps its documents."))]
struct Description;

/// The routes of every server, each with its description.
fn shared_routes<S>() -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
    Api: FromRef<S>,
    KeptTopics: FromRef<S>,
{
    let mut routes = OpenApiRouter::with_openapi(Description::openapi());
    routes.get_openapi_mut().merge(topics::Described::openapi());
    routes
        .route(topics::TOPIC_ROUTE, get(topics::read).post(topics::publish))
        .routes(routes!(topics::list))
        .routes(routes!(topics::dead_letters::list))
        .routes(routes!(topics::dead_letters::discard))
        .routes(routes!(topics::dead_letters::retry))
        .routes(routes!(documents::list))
        .routes(routes!(documents::show, documents::put, documents::patch, documents::delete))
        .routes(routes!(documents::keys::show, documents::keys::put, documents::keys::delete))
        .routes(routes!(documents::pending::list))
        .routes(routes!(documents::pending::confirm))
        .routes(routes!(documents::history::list))
        .routes(routes!(documents::watch::watch))
        .routes(routes!(documents::policy::show, documents::policy::put, documents::policy::delete))
        .routes(routes!(documents::conflicts::list))
        .routes(routes!(documents::conflicts::resolve))
        .routes(routes!(observe::livez))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
}

/// The routes of a node.
fn node_routes() -> OpenApiRouter<OfNode> {
    shared_routes()
        .routes(routes!(artifacts::upload))
        .routes(routes!(functions::list))
        .routes(routes!(functions::show, functions::put, functions::delete))
        .routes(routes!(functions::invoke))
        .routes(routes!(functions::logs))
        .routes(routes!(own_node::change))
        .routes(routes!(triggers::list))
        .routes(routes!(triggers::show, triggers::put, triggers::delete))
        .routes(routes!(schedules::list))
        .routes(routes!(schedules::show, schedules::put, schedules::delete))
        .routes(routes!(schedules::run))
        .routes(routes!(schedules::history))
        .routes(routes!(observe::summary))
        .routes(routes!(observe::status))
        .routes(routes!(observe::prometheus))
        .routes(routes!(observe::readyz))
}

/// Everything that the API of a node answers. The description is served at `/openapi.json`.
pub(crate) fn node_router(shared: Shared, node: Arc<Node>, functions_listen: &str, membership: Option<Arc<Membership>>) -> Router {
    let api = Api(Arc::new(shared));
    let of_this_node = middleware::from_fn_with_state(Arc::clone(&node), functions::only_of_this_node);
    finish(
        node_routes,
        |routes| routes.layer(of_this_node),
        OfNode { api: api.clone(), node, functions_listen: FunctionsListen(functions_listen.into()), membership },
        &api,
        of_hub,
    )
}

/// Who answers a path that only the hub of a fleet answers.
fn of_hub(path: &str) -> Option<&'static str> {
    let is_of_hub = ["deployments", "rollouts", "rebalance", "routes", "nodes", "events", "join-tokens", "trusted-keys", "chaos"]
        .contains(&first_of(path)?);
    is_of_hub.then_some("the hub of a fleet answers that, and this is a node; name the hub by `--server`")
}

/// What a path names below `/v1`.
fn first_of(path: &str) -> Option<&str> {
    path.strip_prefix("/v1/").and_then(|rest| rest.split('/').next())
}

/// Adds to routes what is the same for all of them. Their description is made for who asks: it is large, and few ask.
fn finish<S: Clone + Send + Sync + 'static>(
    routes: fn() -> OpenApiRouter<S>,
    layered: impl FnOnce(Router<S>) -> Router<S>,
    state: S,
    api: &Api,
    elsewhere: fn(&str) -> Option<&'static str>,
) -> Router {
    let description = move || {
        let (_, mut description) = routes().split_for_parts();
        access::describe(&mut description);
        axum::Json(description)
    };
    let admitted = middleware::from_fn_with_state(api.clone(), access::admit);
    let served = layered(routes().into())
        .route("/openapi.json", get(async move || description()))
        .fallback(async move |uri: Uri| {
            let path = uri.path();
            let why = elsewhere(path).unwrap_or("see /openapi.json");
            Refusal(EdgeError::new(ErrorKind::NotFound, format!("nothing is served at `{path}`; {why}")))
        })
        .layer(middleware::map_response(as_problem))
        .layer(admitted.clone())
        .with_state(state);
    if api.mcp == Access::Off {
        return served;
    }
    // Its calls go through the router as calls from outside do.
    let service = mcp::http_service(served.clone(), api.mcp, api.stop.clone());
    served.merge(Router::new().route_service(MCP_PATH, service).layer(admitted))
}

/// Answers at a listener until it is stopped.
pub(crate) async fn serve(router: Router, listener: Listener, stop: CancellationToken) {
    let answer = move |request| {
        let router = router.clone();
        async move { router.oneshot(request).await.unwrap_or_else(|never| match never {}) }
    };
    accept(listener, stop, answer).await;
}

/// axum refuses some requests itself, in plain text: a method, a path or a query that does not fit.
async fn as_problem(method: Method, uri: Uri, response: Response) -> Response {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    if status.as_u16() < 400 || content_type.is_some_and(|kind| kind == "application/problem+json") {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, REJECTION_BYTES_MAX).await.unwrap_or_default();
    let detail = match status {
        StatusCode::METHOD_NOT_ALLOWED => format!("`{}` does not take {method}; see /openapi.json", uri.path()),
        _ => String::from_utf8_lossy(&text).into_owned(),
    };
    let kind = if status.is_server_error() { ErrorKind::Internal } else { ErrorKind::InvalidInput };
    let problem = Problem { status: status.as_u16(), ..Problem::full(&EdgeError::new(kind, detail)) };
    let (problem_parts, body) = problem.response(Body::from).into_parts();
    // What else the answer says, such as which methods are allowed, stays.
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(problem_parts.headers);
    Response::from_parts(parts, body)
}

/// An error on its way out as a problem.
pub(crate) struct Refusal(pub(crate) EdgeError);

impl From<EdgeError> for Refusal {
    fn from(error: EdgeError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        Problem::full(&self.0).response(Body::from)
    }
}

/// Refuses what is for other nodes: a node does itself what its schedules and triggers say, so that what is for others is for their hub.
fn check_target_here(node: &Node, kind: &str, id: &str, target: &Target, unsaid: &Target) -> Result<(), EdgeError> {
    if target == unsaid {
        return Ok(());
    }
    let own = &node.runtime().node().id;
    Err(EdgeError::invalid(format!("the target `{target}` of {kind} `{id}` is for the hub of a fleet, and this is node `{own}`")))
}

/// An answer with what tells its state from others, a generation or such, as its `ETag`.
fn tagged(status: StatusCode, tag: impl Display, answer: impl Serialize) -> Response {
    (status, [(header::ETAG, format!("\"{tag}\""))], axum::Json(answer)).into_response()
}

/// Bodies are counted in pieces of this size.
const PIECE_BYTES: usize = 64 * 1024;

/// A body that was read whole, and its room among the bodies that the API holds.
struct WholeBody {
    bytes: Bytes,
    _room: SemaphorePermit<'static>,
}

/// Reads a body to its end within the bound, as long as its client goes on sending and there is room.
async fn read_body(request: Request, bytes_max: usize) -> Result<WholeBody, EdgeError> {
    static ROOM: Semaphore = Semaphore::const_new(API_BODIES_BYTES_MAX / PIECE_BYTES);
    let (mut body, mut read) = (request.into_body(), BytesMut::new());
    let mut room = ROOM.try_acquire_many(0).map_err(|_| no_room())?;
    loop {
        let frame = tokio::time::timeout(CLIENT_STALL_TIMEOUT, body.frame()).await.map_err(|_elapsed| {
            let seconds = CLIENT_STALL_TIMEOUT.as_secs();
            EdgeError::invalid(format!("the request body stalled: nothing came for {seconds} s"))
        })?;
        let Some(frame) = frame else { return Ok(WholeBody { bytes: read.freeze(), _room: room }) };
        let frame = frame.map_err(|error| EdgeError::invalid("the request body broke off").with_source(error))?;
        let Ok(data) = frame.into_data() else { continue };
        let bytes = read.len() + data.len();
        if bytes > bytes_max {
            return Err(edgeward::body::too_large("request", bytes_max));
        }
        while room.num_permits() * PIECE_BYTES < bytes {
            room.merge(ROOM.try_acquire().map_err(|_| no_room())?);
        }
        read.extend_from_slice(&data);
    }
}

fn no_room() -> EdgeError {
    let mib = API_BODIES_BYTES_MAX >> 20;
    EdgeError::new(
        ErrorKind::Overloaded,
        format!("the node is overloaded: it holds {mib} MiB of request bodies, which is all it may; try again later"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_is_read_while_it_comes_and_within_its_bound() {
        use futures::{StreamExt as _, stream};

        let part = || Ok::<_, std::io::Error>(Bytes::from_static(b"part"));
        let read = async |body| read_body(Request::new(body), 8).await.map(|whole| whole.bytes);
        assert_eq!(read(Body::from_stream(stream::iter([part(), part()]))).await.expect("whole"), "partpart");
        let large = read(Body::from_stream(stream::iter([part(), part(), part()]))).await.expect_err("too large");
        assert_eq!(large.kind(), ErrorKind::TooLarge);
        let stalled = read(Body::from_stream(stream::iter([part()]).chain(stream::pending()))).await.expect_err("it stalls");
        assert!(stalled.to_string().contains("stalled"), "{stalled}");
    }

    #[tokio::test]
    async fn bodies_that_do_not_fit_beside_those_that_are_held_are_refused() {
        const HELD: usize = 4;
        let bytes_max = API_BODIES_BYTES_MAX / HELD;
        let read = async |bytes: usize| read_body(Request::new(Body::from(vec![0; bytes])), bytes_max).await;
        let mut held = Vec::new();
        for _ in 0..HELD {
            held.push(read(bytes_max).await.expect("fits"));
        }
        assert_eq!(read(1).await.err().expect("refused").kind(), ErrorKind::Overloaded);
        held.pop();
        read(bytes_max).await.expect("fits again");
    }
}
