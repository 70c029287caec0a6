//! Smallest, mean and largest temperature of each day of an hourly CSV.
//!
//! The body is read as it arrives and forgotten at once; what stays is one small record per day.
//! The answer starts only after the last line, because a bad line must still be able to make it a 400.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use readings::{BadLine, Parser, Reading};
use wasi::exports::http::incoming_handler::Guest;
use wasi::http::types::{ErrorCode, Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasi::io::streams::{InputStream, StreamError};

const CHUNK_BYTES: u64 = 16 * 1024;

/// A century of days: the bound on memory for a body that never repeats one.
const DAYS_MAX: usize = 36_525;

struct DailyStats;

wasi::http::proxy::export!(DailyStats);

impl Guest for DailyStats {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let body = request.consume().expect("the body of a request is taken once");
        let stream = body.stream().expect("the stream of a body is taken once");
        match summarize(&stream) {
            Ok(days) => answer(response_out, 200, b"application/json", &to_json(&days)),
            Err(Refusal::Csv(error)) => {
                answer(response_out, 400, b"text/plain", &format!("{error}\n"));
            }
            Err(Refusal::TooManyDays { line }) => {
                let message = format!("line {line}: more than {DAYS_MAX} different days\n");
                answer(response_out, 400, b"text/plain", &message);
            }
            // The caller broke off: there is no one to answer, but the host wants to know why.
            Err(Refusal::Body(reason)) => {
                ResponseOutparam::set(response_out, Err(ErrorCode::InternalError(Some(reason))));
            }
        }
    }
}

enum Refusal {
    Csv(BadLine),
    TooManyDays { line: u64 },
    Body(String),
}

struct Day {
    n: u32,
    min: f64,
    sum: f64,
    max: f64,
}

impl Day {
    const EMPTY: Day = Day { n: 0, min: f64::INFINITY, sum: 0.0, max: f64::NEG_INFINITY };

    fn add(&mut self, temp: f64) {
        self.n += 1;
        self.min = self.min.min(temp);
        self.sum += temp;
        self.max = self.max.max(temp);
    }
}

/// By day, `2010/01/01`. Sorted, because two sensors' lines may come mixed.
type Days = BTreeMap<String, Day>;

fn summarize(stream: &InputStream) -> Result<Days, Refusal> {
    let mut days = Days::new();
    let mut parser = Parser::default();
    loop {
        let chunk = match stream.blocking_read(CHUNK_BYTES) {
            Ok(chunk) => chunk,
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(Refusal::Body(error.to_debug_string()));
            }
        };
        parser.push(&chunk, |_, reading| add(&mut days, reading)).map_err(Refusal::Csv)?;
        if days.len() > DAYS_MAX {
            return Err(Refusal::TooManyDays { line: parser.line() });
        }
    }
    parser.finish(|_, reading| add(&mut days, reading)).map_err(Refusal::Csv)?;
    Ok(days)
}

fn add(days: &mut Days, reading: Reading<'_>) {
    let day = &reading.date[..10];
    // `entry` wants an owned key for every line; 23 of 24 find theirs.
    match days.get_mut(day) {
        Some(stats) => stats.add(reading.temp),
        None => days.entry(day.to_owned()).or_insert(Day::EMPTY).add(reading.temp),
    }
}

fn to_json(days: &Days) -> String {
    let mut json = String::from("[");
    for (index, (day, Day { n, min, sum, max })) in days.iter().enumerate() {
        let separator = if index == 0 { "" } else { ",\n" };
        let mean = sum / f64::from(*n);
        // The parser let only digits and slashes through, so nothing needs escaping.
        let day = day.replace('/', "-");
        let _ = write!(json, r#"{separator}{{"day":"{day}","n":{n},"min":{min:.1},"mean":{mean:.2},"max":{max:.1}}}"#);
    }
    json.push_str("]\n");
    json
}

fn answer(response_out: ResponseOutparam, status: u16, content_type: &[u8], text: &str) {
    let headers = Fields::new();
    let _ = headers.append("content-type", content_type);
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let body = response.body().expect("the body of a new response is taken once");
    ResponseOutparam::set(response_out, Ok(response));

    let mut stream = body.write().expect("the stream of a new body is taken once");
    let written = std::io::Write::write_all(&mut stream, text.as_bytes());
    drop(stream);
    // A body that is dropped unfinished tells the caller that part of it is missing.
    if written.is_ok() {
        let _ = OutgoingBody::finish(body, None);
    }
}
