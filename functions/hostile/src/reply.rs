//! Answers that end: fixed texts, streamed bodies, trailers, the echo.

use std::io::{self, Write};

use wasi::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasi::io::streams::OutputStream;

/// Headers of one name; what the host refuses to carry is left out.
pub(crate) fn fields(name: &str, value: &[u8]) -> Fields {
    let fields = Fields::new();
    let _ = fields.append(name, value);
    fields
}

/// Sends status and headers, lets `write` fill the body, then ends it with `trailers`.
pub(crate) fn stream(
    out: ResponseOutparam,
    status: u16,
    headers: Fields,
    trailers: Option<Fields>,
    write: impl FnOnce(&mut OutputStream) -> io::Result<()>,
) {
    let response = OutgoingResponse::new(headers);
    // Refused only for a status outside 100–999; the answer is then a 200.
    let _ = response.set_status_code(status);
    let body = response.body().expect("the body of a new response is taken once");
    ResponseOutparam::set(out, Ok(response));

    let mut stream = body.write().expect("the stream of a new body is taken once");
    let written = write(&mut stream).and_then(|()| Write::flush(&mut stream));
    drop(stream);
    // Dropping an unfinished body tells the caller that it was cut short.
    if written.is_ok() {
        let _ = OutgoingBody::finish(body, trailers);
    }
}

pub(crate) fn text(out: ResponseOutparam, status: u16, body: &str) {
    let headers = fields("content-type", b"text/plain");
    stream(out, status, headers, None, |stream| stream.write_all(body.as_bytes()));
}

pub(crate) fn json(out: ResponseOutparam, body: &str) {
    let headers = fields("content-type", b"application/json");
    stream(out, 200, headers, None, |stream| stream.write_all(body.as_bytes()));
}

/// Sends the request body back as it arrives, so a body of any size passes through one small buffer.
pub(crate) fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let body = request.consume().expect("the body of a request is taken once");
    let mut input = body.stream().expect("the stream of a body is taken once");
    stream(out, 200, Fields::new(), None, |output| io::copy(&mut input, output).map(drop));
}

/// HTTP/1.1 servers drop a trailer that the `trailer` header did not announce.
pub(crate) fn with_trailers(out: ResponseOutparam) {
    let trailers = fields("x-sum", b"42");
    stream(out, 200, fields("trailer", b"x-sum"), Some(trailers), |stream| stream.write_all(b"the sum follows\n"));
}
