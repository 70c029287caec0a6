//! The smallest useful function: the same 200 for any method and any path.
//!
//! The benchmarks call this one, so it stays ordinary: the standard allocator and bindings, nothing
//! tuned that a user's first function would not have.

use wasi::exports::http::incoming_handler::Guest;
use wasi::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

struct Hello;

wasi::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(_request: IncomingRequest, response_out: ResponseOutparam) {
        let headers = Fields::new();
        // The host may refuse any header; an answer without its type is still the right answer.
        let _ = headers.append("content-type", b"text/plain");
        let response = OutgoingResponse::new(headers);
        let body = response.body().expect("the body of a new response is taken once");

        // The response goes out before the body is written: the host reads from the other end, and a
        // body longer than its buffer would otherwise wait for a reader that never comes.
        ResponseOutparam::set(response_out, Ok(response));

        let stream = body.write().expect("the stream of a new body is taken once");
        // A caller who left makes the write fail; there is nobody to tell.
        let _ = stream.blocking_write_and_flush(b"hello from the edge\n");
        // A stream is a child of its body: finishing the body while it lives is a trap.
        drop(stream);
        let _ = OutgoingBody::finish(body, None);
    }
}
