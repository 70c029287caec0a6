//! One function that does what no function should; the path of the request says which.
//!
//! The platform's tests call it to prove every limit with a real guest. A path here is part of those
//! tests: add paths, do not change what one does. Unknown paths answer 404 with the list.

mod config;
mod fetch;
mod greed;
mod measure;
mod query;
mod reach;
mod reply;
mod report;

use wasi::exports::http::incoming_handler::Guest;
use wasi::http::types::{IncomingRequest, ResponseOutparam};

const PATHS: &str = "\
/loop /memory /stdout /handles /trap /recurse /headers /sleep?ms= /fetch?url= /echo /slow-body
/env /exit500 /big?bytes= /trailers /request / /count /stderr
/lines?count= /random?bytes= /hold?handles= /field?bytes= /path?bytes= /reads /request-trailers /reach?port=
";

struct Hostile;

wasi::http::proxy::export!(Hostile);

impl Guest for Hostile {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/loop" => greed::spin(),
            "/memory" => greed::take_all_memory(),
            "/stdout" => greed::flood_stdout(),
            "/lines" => greed::log_lines(query, out),
            "/handles" => greed::leak_handles(),
            "/trap" => core::arch::wasm32::unreachable(),
            "/recurse" => greed::recurse(out),
            "/headers" => greed::send_huge_headers(out),
            "/sleep" => greed::sleep(query, out),
            "/slow-body" => greed::drip(out),
            "/big" => greed::send_bytes(query, out),
            "/stderr" => greed::complain_and_trap(),
            "/fetch" => fetch::fetch(query, out),
            "/echo" => reply::echo(&request, out),
            "/trailers" => reply::with_trailers(out),
            "/exit500" => reply::text(out, 500, "broken"),
            "/env" => report::environment(out),
            "/" | "/request" => report::request(&request, out),
            "/count" => report::count(out),
            "/random" => measure::random(query, out),
            "/hold" => measure::hold_handles(query, out),
            "/field" => measure::append_field(query, out),
            "/path" => measure::set_path(query, out),
            "/reads" => report::reads(&request, out),
            "/request-trailers" => report::request_trailers(&request, out),
            "/reach" => reach::reach(query, out),
            _ => reply::text(out, 404, PATHS),
        }
    }
}
