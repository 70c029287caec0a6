//! Greets whom the request's body names.

use std::io::Write as _;

use wasi::exports::http::incoming_handler::Guest;
use wasi::http::types::{ErrorCode, Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasi::io::streams::StreamError;

const BODY_BYTES_MAX: usize = 1024;

struct Function;

wasi::http::proxy::export!(Function);

impl Guest for Function {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        match read(&request) {
            Ok(body) if body.len() > BODY_BYTES_MAX => {
                answer(response_out, 413, &format!("the name is longer than {BODY_BYTES_MAX} bytes\n"));
            }
            Ok(body) => answer(response_out, 200, &greeting(&String::from_utf8_lossy(&body))),
            // The caller broke off: there is no one to answer, but the host wants to know why.
            Err(reason) => ResponseOutparam::set(response_out, Err(ErrorCode::InternalError(Some(reason)))),
        }
    }
}

fn greeting(name: &str) -> String {
    let name = name.trim();
    format!("hello, {}\n", if name.is_empty() { "edge" } else { name })
}

/// The body, or a little more than its bound of a longer one.
fn read(request: &IncomingRequest) -> Result<Vec<u8>, String> {
    let body = request.consume().expect("the body of a request is taken once");
    let stream = body.stream().expect("the stream of a body is taken once");
    let mut bytes = Vec::new();
    while bytes.len() <= BODY_BYTES_MAX {
        match stream.blocking_read(BODY_BYTES_MAX as u64) {
            Ok(chunk) => bytes.extend(chunk),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
    Ok(bytes)
}

fn answer(response_out: ResponseOutparam, status: u16, text: &str) {
    let headers = Fields::new();
    let _ = headers.append("content-type", b"text/plain");
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let body = response.body().expect("the body of a new response is taken once");
    // The response goes out before its body is written: the host reads from the other end.
    ResponseOutparam::set(response_out, Ok(response));

    let mut stream = body.write().expect("the stream of a new body is taken once");
    let written = stream.write_all(text.as_bytes());
    // A stream is a child of its body, and goes first.
    drop(stream);
    // A body that is dropped unfinished tells the caller that part of it is missing.
    if written.is_ok() {
        let _ = OutgoingBody::finish(body, None);
    }
}
