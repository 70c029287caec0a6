//! A run of a schedule as the function gets it: a `CloudEvent` in binary mode over HTTP. Native handlers get its payload alone.
//!
//! Tries of one due time are one event: they have the same `ce-source` and `ce-id`.

use std::time::Duration;

use edgeward_cluster::schedule::Try;
use edgeward_model::{EdgeError, ErrorKind, NodeId, Schedule};
use edgeward_runtime::{EdgeRuntime, RequestBody, body};
use edgeward_telemetry::{SpanKind, begin, span};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

/// What the event is.
const DUE_TYPE: &str = "edgeward.schedules.due";

/// Refuses a content type that could not be a header field.
pub(super) fn check(schedule: &Schedule) -> Result<(), EdgeError> {
    let (id, content_type) = (&schedule.id, &schedule.content_type);
    HeaderValue::from_str(content_type).map(drop).map_err(|error| {
        EdgeError::invalid(format!("content_type of schedule `{id}` is no media type: `{}`", content_type.escape_debug()))
            .with_source(error)
    })
}

/// Runs the function of a schedule once, at most for the deadline of the schedule and that of the function.
pub(super) async fn call(runtime: &EdgeRuntime, schedule: &Schedule, run: &Try) -> Result<(), EdgeError> {
    // A function has its own deadline, which bounds this.
    let longest = schedule.timeout().unwrap_or(Duration::MAX);
    let mut request = request(&runtime.node().id, schedule, run)?;
    let mut span = begin(None, SpanKind::Internal, || format!("schedule {}", schedule.id));
    if let Some(span) = &mut span {
        span.set("edgeward.schedule.id", schedule.id.as_str());
        span.set("faas.trigger", "timer");
        span.set("faas.time", run.due_at.to_string().as_str());
        span.set("edgeward.attempt", u64::from(run.attempt));
        span.carry(request.headers_mut());
    }
    let called =
        tokio::time::timeout(longest, runtime.find(schedule.function.as_str())?.answer(request)).await.unwrap_or_else(|_elapsed| {
            let (id, seconds) = (&schedule.function, longest.as_secs_f64());
            Err(EdgeError::new(ErrorKind::Timeout, format!("function `{id}` took longer than the {seconds} s that the schedule gives it")))
        });
    called.map(drop).inspect_err(|error| span::fail(&mut span, error))
}

fn request(node: &NodeId, schedule: &Schedule, run: &Try) -> Result<Request<RequestBody>, EdgeError> {
    let mut request = Request::new(body::full(schedule.payload.clone()));
    *request.method_mut() = Method::POST;
    *request.headers_mut() = headers(node, schedule, run)?;
    Ok(request)
}

fn headers(node: &NodeId, schedule: &Schedule, run: &Try) -> Result<HeaderMap, EdgeError> {
    let id = &schedule.id;
    let value = |text: String| {
        HeaderValue::try_from(text)
            .map_err(|error| EdgeError::invalid(format!("schedule `{id}` makes no header field of its event")).with_source(error))
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_static("localhost"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(schedule.payload.len()));
    if !schedule.payload.is_empty() {
        headers.insert(header::CONTENT_TYPE, value(schedule.content_type.clone())?);
    }
    for (name, text) in [
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", format!("{id}/{}", run.due_at)),
        ("ce-source", format!("/nodes/{node}/schedules")),
        ("ce-type", DUE_TYPE.to_owned()),
        ("ce-subject", id.to_string()),
        ("ce-time", run.due_at.to_string()),
        ("ce-attempt", run.attempt.to_string()),
    ] {
        headers.insert(HeaderName::from_static(name), value(text)?);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use edgeward_model::{FunctionId, ScheduleId};
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn tries_of_one_due_time_are_one_event() {
        let (id, function) = (ScheduleId::new("night").expect("valid"), FunctionId::new("f").expect("valid"));
        let mut schedule = Schedule::new(id, function, "every 1s".parse().expect("valid"));
        schedule.payload = "{}".to_owned();
        let due_at = Timestamp::from_second(1_700_000_000).expect("in range");
        let run = |attempt| Try { due_at, attempt, started_at: Timestamp::now(), is_late: false, is_asked: false };
        let node = NodeId::new("edge-01").expect("valid");
        let of = |attempt| {
            let headers = headers(&node, &schedule, &run(attempt)).expect("headers");
            let text = |name: &str| headers[name].to_str().expect("text").to_owned();
            ["ce-specversion", "ce-id", "ce-source", "ce-type", "ce-subject", "ce-time", "ce-attempt", "content-type"].map(text)
        };
        let time = "2023-11-14T22:13:20Z";
        let id = format!("night/{time}");
        for attempt in ["1", "2"] {
            let expected = ["1.0", &id, "/nodes/edge-01/schedules", DUE_TYPE, "night", time, attempt, "application/json"];
            assert_eq!(of(attempt.parse().expect("a number")), expected);
        }
    }
}
