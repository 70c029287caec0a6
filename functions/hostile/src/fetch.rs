//! `/fetch?url=`: an outgoing GET, and what came of it.

use std::io;

use wasi::http::outgoing_handler;
use wasi::http::types::{ErrorCode, Fields, IncomingResponse, OutgoingRequest, ResponseOutparam, Scheme};

use crate::{query, reply};

/// Answers the fetched status and body, or 502 with the error code, so that a test can tell a refusal
/// by policy from a failure of the network.
pub(crate) fn fetch(query: &str, out: ResponseOutparam) {
    let url = query::value(query, "url").unwrap_or_default();
    let Some(request) = get(&url) else {
        return reply::text(out, 400, &format!("`{url}` is no URL that can be fetched\n"));
    };
    match send(request) {
        Ok(response) => relay(&response, out),
        Err(code) => reply::text(out, 502, &format!("{code:?}\n")),
    }
}

fn get(url: &str) -> Option<OutgoingRequest> {
    let (scheme, rest) = url.split_once("://")?;
    let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(path_at);
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&scheme)).ok()?;
    request.set_authority(Some(authority)).ok()?;
    request.set_path_with_query(Some(if path.is_empty() { "/" } else { path })).ok()?;
    Some(request)
}

fn send(request: OutgoingRequest) -> Result<IncomingResponse, ErrorCode> {
    let pending = outgoing_handler::handle(request, None)?;
    pending.subscribe().block();
    let answer = pending.get().expect("the response is ready after its pollable");
    answer.expect("the response is taken once")
}

fn relay(response: &IncomingResponse, out: ResponseOutparam) {
    let body = response.consume().expect("the body of a response is taken once");
    let mut input = body.stream().expect("the stream of a body is taken once");
    reply::stream(out, response.status(), Fields::new(), None, |output| io::copy(&mut input, output).map(drop));
}
