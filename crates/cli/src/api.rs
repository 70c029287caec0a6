//! The HTTP API under `/v1`: parses, calls the node, maps the answer. It decides nothing.
//!
//! It has no authentication, so it listens on loopback only, and refuses what a browser was tricked into
//! sending: a `Host` or `Origin` that is not this machine.

mod artifacts;
mod functions;
mod observe;
mod wire;

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderMap, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use edgeward::{EdgeError, ErrorKind, Node, limits::ARTIFACT_BYTES_MAX, problem::Problem};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) node: Arc<Node>,
    pub(crate) listen: String,
    pub(crate) functions_listen: String,
    pub(crate) started: Instant,
    pub(crate) started_at: Timestamp,
    /// Ends streams that would go on for ever.
    pub(crate) stop: CancellationToken,
}

impl std::ops::Deref for Api {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The description of the API, served at `/openapi.json`.
#[derive(OpenApi)]
#[openapi(
    info(title = "Edgeward", description = "Deploys and invokes functions on one edge node."),
    paths(
        artifacts::upload,
        functions::list,
        functions::show,
        functions::put,
        functions::delete,
        functions::invoke,
        functions::logs,
        observe::summary,
        observe::status,
        observe::prometheus,
        observe::livez,
        observe::readyz,
    ),
    components(schemas(wire::Problem))
)]
pub(crate) struct Description;

/// The routes.
pub(crate) fn router(shared: Shared) -> Router {
    let api = Api(Arc::new(shared));
    Router::new()
        .route("/v1/artifacts", post(artifacts::upload))
        .route("/v1/functions", get(functions::list))
        .route("/v1/functions/{id}", get(functions::show).put(functions::put).delete(functions::delete))
        .route("/v1/functions/{id}/invoke", post(functions::invoke))
        .route("/v1/functions/{id}/logs", get(functions::logs))
        .route("/v1/metrics/summary", get(observe::summary))
        .route("/v1/status", get(observe::status))
        .route("/metrics", get(observe::prometheus))
        .route("/livez", get(observe::livez))
        .route("/readyz", get(observe::readyz))
        .route("/openapi.json", get(async || axum::Json(Description::openapi())))
        .fallback(async |uri: Uri| {
            Refusal(EdgeError::new(ErrorKind::NotFound, format!("nothing is served at `{}`; see /openapi.json", uri.path())))
        })
        .layer(DefaultBodyLimit::max(ARTIFACT_BYTES_MAX))
        .layer(middleware::from_fn(only_this_machine))
        .with_state(api)
}

/// A page in a browser can send requests to this machine; its `Origin`, or the `Host` that it was rebound
/// from, gives it away.
async fn only_this_machine(request: Request, next: Next) -> Response {
    match judge_origin(request.headers(), request.uri()) {
        Ok(()) => next.run(request).await,
        Err(error) => Refusal(error).into_response(),
    }
}

fn judge_origin(headers: &HeaderMap, uri: &Uri) -> Result<(), EdgeError> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("not text"));
    let host = text(header::HOST).or_else(|| uri.authority().map(axum::http::uri::Authority::as_str));
    let origin = text(header::ORIGIN).map(|origin| origin.split_once("://").map_or(origin, |(_, host)| host));
    for (what, value) in [("Host", host), ("Origin", origin)] {
        if let Some(value) = value.filter(|value| !is_this_machine(value)) {
            return Err(EdgeError::invalid(format!(
                "the {what} `{}` is not this machine, so the request is refused",
                value.escape_debug()
            )));
        }
    }
    Ok(())
}

fn is_this_machine(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<axum::http::uri::Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
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

/// Reads a body to its end within the bound, with our own words when it is larger.
async fn read_body(request: Request, bytes_max: usize) -> Result<bytes::Bytes, EdgeError> {
    axum::body::to_bytes(request.into_body(), bytes_max).await.map_err(|error| {
        let source = std::error::Error::source(&error);
        if source.is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>) {
            EdgeError::new(ErrorKind::TooLarge, format!("the request body is larger than {bytes_max} bytes, which is the most"))
        } else {
            EdgeError::invalid("the request body broke off").with_source(error)
        }
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_requests_from_this_machine_are_answered() {
        let judge = |host: &'static str, origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            }
            judge_origin(&headers, &Uri::from_static("/")).is_ok()
        };
        assert!(judge("127.0.0.1:7700", None) && judge("localhost", None) && judge("[::1]:1", Some("http://localhost:3000")));
        assert!(!judge("evil.example:7700", None) && !judge("127.0.0.1.evil.example", None));
        assert!(!judge("127.0.0.1:7700", Some("https://evil.example")) && !judge("127.0.0.1:7700", Some("null")));
    }

    #[test]
    fn every_route_is_described() {
        let description = serde_json::to_value(Description::openapi()).expect("json");
        let paths: Vec<_> = description["paths"].as_object().expect("paths").keys().cloned().collect();
        assert_eq!(description["openapi"].as_str().map(|version| &version[..3]), Some("3.1"));
        assert_eq!(
            paths,
            [
                "/livez",
                "/metrics",
                "/readyz",
                "/v1/artifacts",
                "/v1/functions",
                "/v1/functions/{id}",
                "/v1/functions/{id}/invoke",
                "/v1/functions/{id}/logs",
                "/v1/metrics/summary",
                "/v1/status"
            ]
        );
    }
}
