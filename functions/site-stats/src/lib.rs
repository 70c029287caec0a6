//! What the sensors of a site measured, day by day, in the document `site.SITE`.
//!
//! A trigger calls it with a message of `sites/SITE/SENSOR/temperature`, as a CloudEvent whose body is `{"date": "2010/01/01 13:00", "temp": 39.4}`.
//! A message may come twice, but those of one topic come in their order: what is not later than the last one was counted already.

use serde::{Deserialize, Serialize};
use wasi::exports::http::incoming_handler::Guest;
use wasi::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasi::io::streams::StreamError;

use self::bindings::wasi::keyvalue::store;

mod bindings {
    wit_bindgen::generate!({ path: "../wit", world: "documents", generate_all });
}

/// Far above any honest reading.
const BODY_BYTES_MAX: usize = 4096;

#[derive(Debug, Deserialize)]
struct Reading {
    /// `2010/01/01 13:00`; as text, the later is the greater.
    date: String,
    temp: f64,
}

/// One day of a sensor, in its document.
#[derive(Debug, Deserialize, Serialize)]
struct Day {
    day: String,
    n: u32,
    min: f64,
    mean: f64,
    max: f64,
    /// The date of the last reading that is counted.
    last: String,
}

struct Refusal {
    status: u16,
    reason: String,
}

struct SiteStats;

wasi::http::proxy::export!(SiteStats);

impl Guest for SiteStats {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        match count(&request) {
            Ok(counted) => answer(response_out, 200, counted),
            Err(Refusal { status, reason }) => answer(response_out, status, &format!("{reason}\n")),
        }
    }
}

fn count(request: &IncomingRequest) -> Result<&'static str, Refusal> {
    let subject = request.headers().get("ce-subject").pop().unwrap_or_default();
    let subject = String::from_utf8(subject).map_err(|_| refuse("the subject of the event is no text"))?;
    let levels: Vec<&str> = subject.split('/').collect();
    let ["sites", site, sensor, "temperature"] = levels[..] else {
        return Err(refuse(format!("`{subject}` is not `sites/SITE/SENSOR/temperature`")));
    };
    let reading: Reading = serde_json::from_slice(&body(request)?).map_err(|error| refuse(format!("the body is no reading: {error}")))?;
    let day = day_of(&reading.date).ok_or_else(|| refuse(format!("`{}` is no date such as `2010/01/01 13:00`", reading.date)))?;

    let document = format!("site.{site}");
    let failed = |error| why(&document, error);
    let days = store::open(&document).map_err(failed)?;
    let key = format!("{sensor}/{day}");
    let known = days.get(&key).map_err(failed)?;
    let known: Option<Day> = known
        .as_deref()
        .map(serde_json::from_slice)
        .transpose()
        .map_err(|_| Refusal { status: 500, reason: format!("`{key}` of document `{document}` holds something else") })?;
    let Some(next) = next(known, day, reading) else { return Ok("counted before\n") };
    let value = serde_json::to_vec(&next).map_err(|error| Refusal { status: 500, reason: error.to_string() })?;
    days.set(&key, &value).map_err(failed)?;
    Ok("counted\n")
}

/// The day with this reading; none when it has it.
fn next(known: Option<Day>, day: String, Reading { date, temp }: Reading) -> Option<Day> {
    let Some(known) = known else { return Some(Day { day, n: 1, min: temp, mean: temp, max: temp, last: date }) };
    if date <= known.last {
        return None;
    }
    let n = known.n + 1;
    let mean = known.mean + (temp - known.mean) / f64::from(n);
    Some(Day { n, min: known.min.min(temp), mean, max: known.max.max(temp), last: date, ..known })
}

/// `2010-01-31` of `2010/01/31 13:00`.
fn day_of(date: &str) -> Option<String> {
    let shape = |text: &str, like: &str| {
        text.len() == like.len()
            && text.bytes().zip(like.bytes()).all(|(byte, like)| if like == b'0' { byte.is_ascii_digit() } else { byte == like })
    };
    shape(date, "0000/00/00 00:00").then(|| date[..10].replace('/', "-"))
}

fn body(request: &IncomingRequest) -> Result<Vec<u8>, Refusal> {
    let broken = || refuse("the body cannot be read");
    let body = request.consume().map_err(|()| broken())?;
    let stream = body.stream().map_err(|()| broken())?;
    let mut read = Vec::new();
    loop {
        match stream.blocking_read(BODY_BYTES_MAX as u64) {
            Ok(chunk) => read.extend(chunk),
            Err(StreamError::Closed) => return Ok(read),
            Err(StreamError::LastOperationFailed(_)) => return Err(broken()),
        }
        if read.len() > BODY_BYTES_MAX {
            return Err(Refusal { status: 413, reason: format!("a reading is shorter than {BODY_BYTES_MAX} bytes") });
        }
    }
}

fn refuse(reason: impl Into<String>) -> Refusal {
    Refusal { status: 400, reason: reason.into() }
}

fn why(document: &str, error: store::Error) -> Refusal {
    let reason = match error {
        store::Error::AccessDenied => format!("deploy this function with `--document {document}`"),
        store::Error::NoSuchStore => "this node keeps no documents".to_owned(),
        store::Error::Other(message) => format!("the reading was not counted: {message}"),
    };
    Refusal { status: 500, reason }
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
    // A subject may be longer than what the stream takes at once. A caller who left makes the write fail.
    let _ = text.as_bytes().chunks(4096).try_for_each(|chunk| stream.blocking_write_and_flush(chunk));
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(date: &str, temp: f64) -> Reading {
        Reading { date: date.to_owned(), temp }
    }

    #[test]
    fn a_reading_that_comes_again_is_not_counted_again() {
        let day = || "2010-01-01".to_owned();
        let first = next(None, day(), reading("2010/01/01 00:00", 2.0)).expect("it is new");
        let second = next(Some(first), day(), reading("2010/01/01 01:00", 4.0)).expect("it is later");
        assert_eq!((second.n, second.min, second.mean, second.max), (2, 2.0, 3.0, 4.0));
        assert!(next(Some(second), day(), reading("2010/01/01 01:00", 4.0)).is_none());
    }

    #[test]
    fn a_date_has_one_shape() {
        assert_eq!(day_of("2010/01/31 13:00").as_deref(), Some("2010-01-31"));
        for date in ["", "2010-01-31 13:00", "2010/01/31", "2010/01/31 13:00:00", "2010/0a/31 13:00"] {
            assert_eq!(day_of(date), None, "{date}");
        }
    }
}
