//! One call of a size that the request chooses, so that a test finds where a limit of the host lies.

use wasi::http::types::{Fields, OutgoingRequest, ResponseOutparam};
use wasi::random::random::get_random_bytes;

use crate::{query, reply};

pub(crate) fn random(query: &str, out: ResponseOutparam) {
    let bytes = get_random_bytes(query::number(query, "bytes", 16));
    reply::text(out, 200, &format!("{} random bytes\n", bytes.len()));
}

/// Handles of the host that all live at once.
pub(crate) fn hold_handles(query: &str, out: ResponseOutparam) {
    let held: Vec<Fields> = (0..query::number(query, "handles", 1)).map(|_| Fields::new()).collect();
    reply::text(out, 200, &format!("held {}\n", held.len()));
}

/// One header field; a host may refuse it politely.
pub(crate) fn append_field(query: &str, out: ResponseOutparam) {
    match Fields::new().append("x-large", &bytes(query)) {
        Ok(()) => reply::text(out, 200, "taken\n"),
        Err(error) => reply::text(out, 500, &format!("refused: {error:?}\n")),
    }
}

/// Hands the host a long text, which it has to copy before it can tell that this is no path.
pub(crate) fn set_path(query: &str, out: ResponseOutparam) {
    let path = String::from_utf8(bytes(query)).expect("it is made of one letter");
    let set = OutgoingRequest::new(Fields::new()).set_path_with_query(Some(&path));
    reply::text(out, 200, &format!("copied, and the answer was {set:?}\n"));
}

fn bytes(query: &str) -> Vec<u8> {
    vec![b'x'; usize::try_from(query::number(query, "bytes", 16)).unwrap_or(usize::MAX)]
}
