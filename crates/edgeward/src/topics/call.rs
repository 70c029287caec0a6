//! A message as a call of a function: over the HTTP binding of CloudEvents, or with the body of it alone where a function sees no requests.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use edgeward_model::{ContentMode, EdgeError, ErrorKind, FunctionId, Trigger, limits::TRIGGER_LOOK_EVERY};
use edgeward_runtime::{CallOptions, Deployed, EdgeRuntime, RequestBody, body};
use edgeward_telemetry::{Span, span};
use edgeward_topics::{CloudEvent, Message, cloud_event::STRUCTURED};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use tokio_util::sync::CancellationToken;

use super::{spans, triggers::Standing};

/// What a trigger calls functions with.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) runtime: Arc<EdgeRuntime>,
    pub(super) source: Arc<str>,
}

impl Caller {
    /// Has the function of a trigger handle a message. While there is no such function it waits, until `stop`.
    pub(super) async fn call(
        &self,
        trigger: &Trigger,
        message: &Arc<Message>,
        standing: &Standing,
        stop: &CancellationToken,
    ) -> Result<(), EdgeError> {
        let function = self.find(&trigger.function, standing, stop).await?;
        let mut span = spans::process(trigger, message);
        let began = Instant::now();
        let called = self.hand_over(function, trigger, message, span.as_ref()).await;
        standing.attempted(began.elapsed());
        called.inspect_err(|error| span::fail(&mut span, error))
    }

    async fn hand_over(
        &self,
        function: Arc<Deployed>,
        trigger: &Trigger,
        message: &Arc<Message>,
        span: Option<&Span>,
    ) -> Result<(), EdgeError> {
        let (mut headers, payload) = parts(CloudEvent::of(message, &self.source), trigger.mode)?;
        spans::carry(message, span, &mut headers);
        if function.sees_requests() {
            let mut request = request(headers, payload);
            // An event that was published as one says nothing of its topic: code of this process finds it here.
            request.extensions_mut().insert(Arc::clone(message));
            return function.answer(request).await.map(drop);
        }
        let done = self.runtime.invoke_with(trigger.function.as_str(), payload, CallOptions::of(&headers)).await;
        done.map(drop).map_err(|error| not_counted(&trigger.function, error))
    }

    async fn find(&self, id: &FunctionId, standing: &Standing, stop: &CancellationToken) -> Result<Arc<Deployed>, EdgeError> {
        let mut waiting = None;
        loop {
            match self.runtime.find(id.as_str()) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    waiting.get_or_insert_with(|| standing.wait());
                    tokio::select! {
                        () = stop.cancelled() => return Err(not_counted(id, error)),
                        () = tokio::time::sleep(TRIGGER_LOOK_EVERY) => {}
                    }
                }
                found => return found,
            }
        }
    }
}

/// Nothing is wrong with a message whose function is gone just now.
fn not_counted(id: &FunctionId, error: EdgeError) -> EdgeError {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    EdgeError::new(ErrorKind::Unavailable, format!("function `{id}` is not deployed here")).with_source(error)
}

/// Header fields and body of an event.
fn parts(event: CloudEvent, mode: ContentMode) -> Result<(HeaderMap, Bytes), EdgeError> {
    let mut headers = HeaderMap::new();
    if mode == ContentMode::Structured {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(STRUCTURED));
        return Ok((headers, event.to_json().into()));
    }
    for (name, value) in event.headers() {
        let refused =
            |error: http::Error| EdgeError::invalid(format!("attribute `{name}` of the event is no header field")).with_source(error);
        let field = HeaderName::try_from(&name).map_err(|error| refused(error.into()))?;
        headers.insert(field, HeaderValue::try_from(value).map_err(|error| refused(error.into()))?);
    }
    Ok((headers, event.data))
}

fn request(mut headers: HeaderMap, payload: Bytes) -> Request<RequestBody> {
    headers.insert(header::HOST, HeaderValue::from_static("localhost"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(payload.len()));
    let mut request = Request::new(body::full(payload));
    *request.method_mut() = Method::POST;
    *request.headers_mut() = headers;
    request
}

#[cfg(test)]
mod tests {
    use edgeward_model::TopicName;
    use jiff::Timestamp;

    use super::*;

    fn event() -> CloudEvent {
        let message = Message::new(TopicName::new("site/a b").expect("valid"), "21.5", Timestamp::UNIX_EPOCH);
        let content_type = Some("application/json".to_owned());
        CloudEvent::of(&Message { position: Some(7), content_type, key: Some("k".to_owned()), ..message }, "/nodes/n/topics")
    }

    #[test]
    fn a_message_is_a_request_in_binary_mode() {
        let (headers, payload) = parts(event(), ContentMode::Binary).expect("fits");
        let request = request(headers, payload);
        assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/"));
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", "7"),
            ("ce-source", "/nodes/n/topics"),
            ("ce-subject", "site/a%20b"),
            ("ce-partitionkey", "k"),
            ("content-type", "application/json"),
            ("content-length", "4"),
        ] {
            assert_eq!(request.headers()[name], value, "{name}");
        }
    }

    #[test]
    fn a_message_is_a_json_object_in_structured_mode() {
        let (headers, payload) = parts(event(), ContentMode::Structured).expect("fits");
        assert_eq!((headers.len(), &headers[header::CONTENT_TYPE]), (1, &HeaderValue::from_static(STRUCTURED)));
        let json: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
        assert_eq!((&json["subject"], &json["data"]), (&"site/a b".into(), &21.5.into()));
    }
}
