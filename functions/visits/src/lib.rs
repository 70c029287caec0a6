//! Counts the visits of each path in the document `visits`, and says how many there were.
//!
//! The count is a counter of the document: visits that were counted on several nodes add up when the nodes meet.

use wasi::exports::http::incoming_handler::Guest;
use wasi::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

use self::bindings::wasi::keyvalue::{atomics, store};

mod bindings {
    wit_bindgen::generate!({ path: "../wit", world: "documents", generate_all });
}

const DOCUMENT: &str = "visits";

struct Visits;

wasi::http::proxy::export!(Visits);

impl Guest for Visits {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        match count(path) {
            Ok(visits) => answer(response_out, 200, &format!("visit {visits} of {path}\n")),
            Err(error) => answer(response_out, 500, &why(error)),
        }
    }
}

fn count(path: &str) -> Result<u64, store::Error> {
    let visits = store::open(DOCUMENT)?;
    atomics::increment(&visits, path, 1)
}

fn why(error: store::Error) -> String {
    match error {
        store::Error::AccessDenied => format!("deploy this function with `--document {DOCUMENT}`\n"),
        store::Error::NoSuchStore => "this node keeps no documents\n".to_owned(),
        store::Error::Other(message) => format!("the visit was not counted: {message}\n"),
    }
}

fn answer(response_out: ResponseOutparam, status: u16, text: &str) {
    let headers = Fields::new();
    // The host may refuse any header; an answer without its type is still the right answer.
    let _ = headers.append("content-type", b"text/plain");
    let response = OutgoingResponse::new(headers);
    // Refused only for a status outside 100–999.
    let _ = response.set_status_code(status);
    let body = response.body().expect("the body of a new response is taken once");
    ResponseOutparam::set(response_out, Ok(response));

    let stream = body.write().expect("the stream of a new body is taken once");
    // A path may be longer than what the stream takes at once. A caller who left makes the write fail.
    let _ = text.as_bytes().chunks(4096).try_for_each(|chunk| stream.blocking_write_and_flush(chunk));
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
