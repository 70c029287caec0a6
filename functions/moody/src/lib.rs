//! A function that behaves as its environment says: `MOOD` is `well`, `errs`, `slow`, `leaks` or `traps`. Its deployments show how a fleet
//! finds that out.

use std::{cell::RefCell, hint::black_box};

use wasi::cli::environment::get_environment;
use wasi::clocks::monotonic_clock::subscribe_duration;
use wasi::exports::http::incoming_handler::Guest;
use wasi::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

/// How long a slow answer takes.
const SLOW_NANOSECONDS: u64 = 40_000_000;
/// What each answer of an instance that leaks keeps.
const LEAKED_BYTES: usize = 2 * 1024 * 1024;

thread_local! {
    /// An instance that serves again still has it.
    static LEAKED: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

struct Moody;

wasi::http::proxy::export!(Moody);

impl Guest for Moody {
    fn handle(_request: IncomingRequest, response_out: ResponseOutparam) {
        let mood = get_environment().into_iter().find(|(name, _)| name == "MOOD").map_or_else(|| "well".to_owned(), |(_, mood)| mood);
        match mood.as_str() {
            "slow" => subscribe_duration(SLOW_NANOSECONDS).block(),
            "leaks" => LEAKED.with_borrow_mut(|leaked| {
                leaked.push(vec![1; LEAKED_BYTES]);
                black_box(leaked);
            }),
            "traps" => std::process::abort(),
            _ => {}
        }
        let response = OutgoingResponse::new(Fields::new());
        if mood == "errs" {
            response.set_status_code(500).expect("a valid status");
        }
        let body = response.body().expect("the body of a new response is taken once");
        ResponseOutparam::set(response_out, Ok(response));
        let stream = body.write().expect("the stream of a new body is taken once");
        // A caller who left makes the write fail; there is nobody to tell.
        let _ = stream.blocking_write_and_flush(format!("{mood}\n").as_bytes());
        drop(stream);
        let _ = OutgoingBody::finish(body, None);
    }
}
