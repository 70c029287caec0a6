//! What the function can see: its environment, the request, and how often this instance was used.

use std::sync::atomic::{AtomicU64, Ordering};

use wasi::cli::environment::get_environment;
use wasi::http::types::{IncomingBody, IncomingRequest, Method, ResponseOutparam, Scheme};
use wasi::io::streams::StreamError;

use crate::{config, reply};

/// `{"environment":{…},"config":{…}}`; a config error is told instead of the values.
pub(crate) fn environment(out: ResponseOutparam) {
    let config = match config::get_all() {
        Ok(values) => json_object(&values),
        Err(error) => json_string(&format!("{error:?}")),
    };
    let environment = json_object(&get_environment());
    reply::json(out, &format!("{{\"environment\":{environment},\"config\":{config}}}\n"));
}

/// Headers are a list of pairs: a name may come twice, and order is part of what was sent.
pub(crate) fn request(request: &IncomingRequest, out: ResponseOutparam) {
    let headers: Vec<String> = request
        .headers()
        .entries()
        .iter()
        .map(|(name, value)| format!("[{},{}]", json_string(name), json_string(&String::from_utf8_lossy(value))))
        .collect();
    let body = format!(
        "{{\"method\":{},\"scheme\":{},\"authority\":{},\"path_with_query\":{},\"headers\":[{}]}}\n",
        json_string(&method_name(request.method())),
        json_option(request.scheme().map(scheme_name)),
        json_option(request.authority()),
        json_option(request.path_with_query()),
        headers.join(","),
    );
    reply::json(out, &body);
}

/// Counts requests of this instance: a number above 1 proves that the host used it again.
pub(crate) fn count(out: ResponseOutparam) {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    reply::text(out, 200, &format!("{calls}\n"));
}

/// The length of each read of the request body: an empty read is an empty frame that the host let through.
pub(crate) fn reads(request: &IncomingRequest, out: ResponseOutparam) {
    let body = request.consume().expect("the body of a request is taken once");
    let stream = body.stream().expect("the stream of a body is taken once");
    let mut lengths = Vec::new();
    let end = loop {
        match stream.blocking_read(64 * 1024) {
            Ok(bytes) => lengths.push(bytes.len()),
            Err(StreamError::Closed) => break "closed".to_owned(),
            Err(StreamError::LastOperationFailed(error)) => break error.to_debug_string(),
        }
    };
    reply::text(out, 200, &format!("{lengths:?} {end}\n"));
}

/// The trailers of the request, after its whole body.
pub(crate) fn request_trailers(request: &IncomingRequest, out: ResponseOutparam) {
    let body = request.consume().expect("the body of a request is taken once");
    let stream = body.stream().expect("the stream of a body is taken once");
    while stream.blocking_read(64 * 1024).is_ok() {}
    drop(stream);
    let trailers = IncomingBody::finish(body);
    trailers.subscribe().block();
    let trailers = trailers.get().expect("they are there after their pollable").expect("they are taken once");
    let text = match trailers {
        Ok(Some(fields)) => {
            let pairs = fields.entries();
            pairs.iter().map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value))).collect()
        }
        Ok(None) => "none\n".to_owned(),
        Err(error) => format!("{error:?}\n"),
    };
    reply::text(out, 200, &text);
}

fn method_name(method: Method) -> String {
    let name = match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(name) => return name,
    };
    name.to_owned()
}

fn scheme_name(scheme: Scheme) -> String {
    match scheme {
        Scheme::Http => "http".to_owned(),
        Scheme::Https => "https".to_owned(),
        Scheme::Other(name) => name,
    }
}

fn json_object(pairs: &[(String, String)]) -> String {
    let members: Vec<String> = pairs.iter().map(|(name, value)| format!("{}:{}", json_string(name), json_string(value))).collect();
    format!("{{{}}}", members.join(","))
}

fn json_option(text: Option<String>) -> String {
    text.map_or_else(|| "null".to_owned(), |text| json_string(&text))
}

fn json_string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            '\0'..'\x20' => json.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => json.push(character),
        }
    }
    json.push('"');
    json
}
