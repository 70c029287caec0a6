//! Who may call which route, and what becomes of a call that may not be made.
//!
//! A listener that only this machine can reach trusts who calls, and refuses what a browser was tricked into sending. Any other demands
//! a token, of which each route says the role in [`ROUTES`]. A route that is not in the table takes an admin.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes},
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use edgeward::{
    EdgeError, ErrorKind,
    access::{Caller, Role, Tokens},
    listener::Peer,
};
use http_body::{Body as _, Frame};
use jiff::Timestamp;
use utoipa::openapi::{
    OpenApi,
    extensions::Extensions,
    security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};

use super::{Api, Refusal, audit, topics::TOPIC_ROUTE};

/// The role that each route needs, by its method and path.
const ROUTES: &[(&str, &str, Role)] = &[
    ("GET", "/livez", Role::Viewer),
    // What its tools ask for is judged again, route by route.
    ("POST", "/mcp", Role::Viewer),
    ("GET", "/mcp", Role::Viewer),
    ("DELETE", "/mcp", Role::Viewer),
    ("GET", "/metrics", Role::Viewer),
    ("GET", "/openapi.json", Role::Viewer),
    ("GET", "/readyz", Role::Viewer),
    ("POST", "/v1/artifacts", Role::Deployer),
    ("GET", "/v1/chaos/experiments", Role::Viewer),
    ("POST", "/v1/chaos/experiments", Role::Admin),
    ("GET", "/v1/chaos/experiments/{id}", Role::Viewer),
    ("GET", "/v1/chaos/experiments/{id}/report", Role::Viewer),
    ("POST", "/v1/chaos/experiments/{id}/stop", Role::Admin),
    ("GET", "/v1/chaos/scenarios", Role::Viewer),
    ("GET", "/v1/dead-letters", Role::Viewer),
    ("DELETE", "/v1/dead-letters/{id}", Role::Deployer),
    ("POST", "/v1/dead-letters/{id}/retry", Role::Deployer),
    ("GET", "/v1/deployments", Role::Viewer),
    ("GET", "/v1/deployments/{id}", Role::Viewer),
    ("PUT", "/v1/deployments/{id}", Role::Deployer),
    ("DELETE", "/v1/deployments/{id}", Role::Deployer),
    ("GET", "/v1/deployments/{id}/diff", Role::Viewer),
    ("GET", "/v1/documents", Role::Viewer),
    ("GET", "/v1/documents/{name}", Role::Viewer),
    ("PUT", "/v1/documents/{name}", Role::Deployer),
    ("PATCH", "/v1/documents/{name}", Role::Deployer),
    ("DELETE", "/v1/documents/{name}", Role::Deployer),
    ("GET", "/v1/documents/{name}/conflicts", Role::Viewer),
    ("POST", "/v1/documents/{name}/conflicts/{id}/resolve", Role::Deployer),
    ("POST", "/v1/documents/{name}/confirm", Role::Deployer),
    ("GET", "/v1/documents/{name}/history", Role::Viewer),
    ("GET", "/v1/documents/{name}/keys/{key}", Role::Viewer),
    ("PUT", "/v1/documents/{name}/keys/{key}", Role::Deployer),
    ("DELETE", "/v1/documents/{name}/keys/{key}", Role::Deployer),
    ("GET", "/v1/documents/{name}/pending", Role::Viewer),
    ("GET", "/v1/documents/{name}/policy", Role::Viewer),
    ("PUT", "/v1/documents/{name}/policy", Role::Admin),
    ("DELETE", "/v1/documents/{name}/policy", Role::Admin),
    ("GET", "/v1/documents/{name}/watch", Role::Viewer),
    ("GET", "/v1/events", Role::Viewer),
    ("GET", "/v1/functions", Role::Viewer),
    ("GET", "/v1/functions/{id}", Role::Viewer),
    ("PUT", "/v1/functions/{id}", Role::Deployer),
    ("DELETE", "/v1/functions/{id}", Role::Deployer),
    ("POST", "/v1/functions/{id}/invoke", Role::Deployer),
    ("GET", "/v1/functions/{id}/logs", Role::Viewer),
    ("POST", "/v1/join-tokens", Role::Admin),
    ("GET", "/v1/metrics/summary", Role::Viewer),
    ("GET", "/v1/nodes", Role::Viewer),
    ("GET", "/v1/nodes/{id}", Role::Viewer),
    ("PATCH", "/v1/nodes/{id}", Role::Deployer),
    ("DELETE", "/v1/nodes/{id}", Role::Admin),
    ("POST", "/v1/rebalance", Role::Deployer),
    ("GET", "/v1/rollouts", Role::Viewer),
    ("GET", "/v1/rollouts/{id}", Role::Viewer),
    ("POST", "/v1/rollouts/{id}/{action}", Role::Deployer),
    ("GET", "/v1/routes", Role::Viewer),
    ("GET", "/v1/schedules", Role::Viewer),
    ("GET", "/v1/schedules/{id}", Role::Viewer),
    ("PUT", "/v1/schedules/{id}", Role::Deployer),
    ("DELETE", "/v1/schedules/{id}", Role::Deployer),
    ("GET", "/v1/schedules/{id}/history", Role::Viewer),
    ("POST", "/v1/schedules/{id}/run", Role::Deployer),
    ("GET", "/v1/status", Role::Viewer),
    ("GET", "/v1/tokens", Role::Admin),
    ("POST", "/v1/tokens", Role::Admin),
    ("DELETE", "/v1/tokens/{name}", Role::Admin),
    ("GET", "/v1/topics", Role::Viewer),
    // What a token may do on which topics is said by its rights.
    ("POST", "/v1/topics/{topic}", Role::Client),
    ("GET", "/v1/topics/{filter}/events", Role::Client),
    ("GET", "/v1/topics/{filter}/messages", Role::Client),
    ("GET", "/v1/topics/{filter}/retained", Role::Client),
    ("GET", "/v1/triggers", Role::Viewer),
    ("GET", "/v1/triggers/{id}", Role::Viewer),
    ("PUT", "/v1/triggers/{id}", Role::Deployer),
    ("DELETE", "/v1/triggers/{id}", Role::Deployer),
    ("GET", "/v1/trusted-keys", Role::Viewer),
    ("POST", "/v1/trusted-keys", Role::Admin),
    ("DELETE", "/v1/trusted-keys/{key}", Role::Admin),
];

/// The role that a route needs.
fn needed(method: &Method, path: &str) -> Role {
    // A HEAD is answered by the route of GET.
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    // All that is asked of a filter goes by one route, and takes one role.
    let path = match (method, path) {
        ("GET", TOPIC_ROUTE) => "/v1/topics/{filter}/events",
        (_, TOPIC_ROUTE) => "/v1/topics/{topic}",
        _ => path,
    };
    ROUTES.iter().find(|route| (route.0, route.1) == (method, path)).map_or(Role::Admin, |route| route.2)
}

/// Whom a listener lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Everybody on this machine: only they can reach it. Who shows a token may do what it says.
    Loopback,
    /// Who shows a token.
    Guarded,
}

/// Adds to the description how a caller shows its token, and which role each operation needs.
pub(super) fn describe(description: &mut OpenApi) {
    const SCHEME: &str = "token";
    let about = "A token made by `edgeward token create`. An address that other machines can reach demands one; on loopback a caller without one may do everything.";
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(about)).build();
    description.components.get_or_insert_default().add_security_scheme(SCHEME, SecurityScheme::Http(scheme));
    description.security = Some(vec![SecurityRequirement::new::<_, _, String>(SCHEME, []), SecurityRequirement::default()]);
    for (path, item) in &mut description.paths.paths {
        let operations = [
            (Method::GET, &mut item.get),
            (Method::PUT, &mut item.put),
            (Method::POST, &mut item.post),
            (Method::PATCH, &mut item.patch),
            (Method::DELETE, &mut item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                let role = needed(&method, path).as_str();
                operation.extensions.get_or_insert_default().merge(Extensions::from_iter([("x-required-role", role)]));
            }
        }
    }
}

/// Lets a call through to its route, or refuses it.
pub(super) async fn admit(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let judged = match api.door {
        Door::Loopback if !request.headers().contains_key(header::AUTHORIZATION) => {
            judge_origin(request.headers(), request.uri(), api.door).map(|()| None)
        }
        // Who shows a token is not more than it says, wherever it is shown.
        Door::Loopback | Door::Guarded => judge_token(&api, &request).map(Some),
    };
    match judged {
        Ok(None) => next.run(request).await,
        Ok(Some(caller)) => {
            request.extensions_mut().insert(caller.clone());
            let response = next.run(request).await;
            if response.body().size_hint().exact().is_some() {
                return response;
            }
            response.map(|body| Body::new(WhileValid { body, tokens: Arc::clone(&api.tokens), caller }))
        }
        Err(error) => {
            let mut response = Refusal(error).into_response();
            let challenge = match response.status().as_u16() {
                401 => "Bearer realm=\"edgeward\"",
                403 if api.door == Door::Guarded => "Bearer realm=\"edgeward\", error=\"insufficient_scope\"",
                _ => return response,
            };
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            response
        }
    }
}

/// Who calls, if they may. What is refused is told to the audit log.
fn judge_token(api: &Api, request: &Request) -> Result<Caller, EdgeError> {
    let caller = shown_token(request.headers()).and_then(|secret| api.tokens.check(secret, Timestamp::now()));
    let role = match request.extensions().get::<MatchedPath>() {
        Some(path) => needed(request.method(), path.as_str()),
        // Nothing is served there, which is told to everybody with a token.
        None => Role::Client,
    };
    let judged = caller.and_then(|caller| {
        let token = &caller.token;
        if token.role < role {
            let why = format!("this needs the role {role}, and token `{}` has the role {}", token.name, token.role);
            return Err(EdgeError::new(ErrorKind::Forbidden, why));
        }
        judge_origin(request.headers(), request.uri(), api.door)?;
        Ok(caller)
    });
    judged.inspect_err(|error| {
        api.audit.refused(audit::Refused { peer: peer(request), method: request.method(), path: request.uri().path(), why: error });
    })
}

fn peer(request: &Request) -> Option<SocketAddr> {
    request.extensions().get::<Peer>().map(|peer| peer.0)
}

/// The secret in the header `Authorization`.
fn shown_token(headers: &HeaderMap) -> Result<&str, EdgeError> {
    let refused = |why: &str| EdgeError::new(ErrorKind::Unauthenticated, why);
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(|| refused("a token is needed here"))?;
    let (scheme, secret) = value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
    if values.next().is_some() || !scheme.eq_ignore_ascii_case("bearer") {
        return Err(refused("a token is needed here, as the one header `Authorization: Bearer TOKEN`"));
    }
    Ok(secret.trim())
}

/// A page in a browser can send requests to this machine; its `Origin`, or the `Host` that it was rebound from, gives it away. Behind a
/// token any name of the host is good, as a page elsewhere has no token.
fn judge_origin(headers: &HeaderMap, uri: &Uri, door: Door) -> Result<(), EdgeError> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("not text"));
    let host = text(header::HOST).or_else(|| uri.authority().map(axum::http::uri::Authority::as_str));
    let refused = |what: &str, value: &str, why: &str| {
        let message = format!("the {what} `{}` is not {why}, so the request is refused", value.escape_debug());
        Err(EdgeError::new(ErrorKind::Forbidden, message))
    };
    if door == Door::Loopback
        && let Some(host) = host.filter(|host| !is_this_machine(host))
    {
        return refused("Host", host, "this machine");
    }
    // A function is served from this machine too, at another port: its pages must not deploy others.
    let scheme = if door == Door::Loopback { "http" } else { "https" };
    let own = host.map(|host| format!("{scheme}://{host}"));
    match text(header::ORIGIN) {
        Some(origin) if !own.is_some_and(|own| own.eq_ignore_ascii_case(origin)) => refused("Origin", origin, "the API itself"),
        _ => Ok(()),
    }
}

fn is_this_machine(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<axum::http::uri::Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// A body without a known end, which breaks off when the token of its caller is no longer good: nothing more is told to them.
struct WhileValid {
    body: Body,
    tokens: Arc<Tokens>,
    caller: Caller,
}

impl http_body::Body for WhileValid {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if self.tokens.is_valid(&self.caller, Timestamp::now()) {
            return Poll::Ready(frame);
        }
        Poll::Ready(Some(Err(axum::Error::new(EdgeError::new(ErrorKind::Unauthenticated, "the token is no longer valid")))))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn only_requests_from_this_machine_are_answered_on_loopback() {
        let judge = |door, host: &'static str, origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            }
            judge_origin(&headers, &Uri::from_static("/"), door).is_ok()
        };
        let loopback = |host, origin| judge(Door::Loopback, host, origin);
        assert!(loopback("127.0.0.1:7700", None) && loopback("localhost", None) && loopback("[::1]:1", None));
        assert!(!loopback("evil.example:7700", None) && !loopback("127.0.0.1.evil.example", None));
        for own in ["127.0.0.1:7700", "localhost:7700", "[::1]:7700"] {
            assert!(loopback(own, Some(format!("http://{own}").leak())), "{own}");
        }
        for other in
            ["https://evil.example", "null", "http://127.0.0.1:8080", "http://localhost:7700", "https://127.0.0.1:7700", "http://127.0.0.1"]
        {
            assert!(!loopback("127.0.0.1:7700", Some(other)), "{other}");
        }
        let guarded = |origin| judge(Door::Guarded, "edge.example:7700", origin);
        assert!(guarded(None) && guarded(Some("https://edge.example:7700")));
        assert!(!guarded(Some("http://edge.example:7700")) && !guarded(Some("https://evil.example")));
    }

    #[test]
    fn every_route_says_its_role_and_what_is_forgotten_takes_an_admin() {
        let described = |mut description| {
            describe(&mut description);
            serde_json::to_value(&description).expect("JSON")
        };
        let json = described(super::super::node_routes().split_for_parts().1);
        let of_hub = described(super::super::hub::hub_routes().split_for_parts().1);
        let apart = [("GET", "/openapi.json"), ("POST", "/mcp"), ("GET", "/mcp"), ("DELETE", "/mcp")];
        let mut served: BTreeSet<_> = apart.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
        let paths = |json: &serde_json::Value| json["paths"].as_object().expect("paths").clone();
        for (path, operations) in paths(&json).into_iter().chain(paths(&of_hub)) {
            for (method, operation) in operations.as_object().expect("operations").iter().filter(|(key, _)| *key != "parameters") {
                assert!(operation["x-required-role"].is_string(), "{method} {path}");
                served.insert((method.to_uppercase(), path.clone()));
            }
        }
        let declared: BTreeSet<_> = ROUTES.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
        assert_eq!(declared, served);
        assert_eq!(declared.len(), ROUTES.len(), "each is declared once");
        assert_eq!(needed(&Method::HEAD, "/v1/status"), Role::Viewer);
        for forgotten in ["/v1/new", "/v1/status/", ""] {
            assert_eq!(needed(&Method::GET, forgotten), Role::Admin);
        }
        assert_eq!(needed(&Method::POST, TOPIC_ROUTE), Role::Client);
        assert_eq!(needed(&Method::HEAD, TOPIC_ROUTE), Role::Client);
        assert_eq!(needed(&Method::DELETE, TOPIC_ROUTE), Role::Admin);
        assert_eq!(needed(&Method::TRACE, "/v1/status"), Role::Admin);
        for of_admins in ["/v1/chaos/experiments", "/v1/chaos/experiments/{id}/stop"] {
            assert_eq!(needed(&Method::POST, of_admins), Role::Admin, "{of_admins}");
        }
        assert_eq!(json["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    }

    #[test]
    fn a_token_is_shown_in_one_header_of_one_form() {
        let shown = |values: &[&'static str]| {
            let headers = values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_static(value))).collect();
            shown_token(&headers).map(str::to_owned).map_err(|error| error.kind())
        };
        for good in ["Bearer t", "bearer t", "BEARER  t "] {
            assert_eq!(shown(&[good]), Ok("t".to_owned()), "{good}");
        }
        for bad in [&[][..], &["t"], &["Basic dDp0"], &["Bearer"], &[""], &["Bearer t", "Bearer t"]] {
            assert_eq!(shown(bad), Err(ErrorKind::Unauthenticated), "{bad:?}");
        }
    }
}
