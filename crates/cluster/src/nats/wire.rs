//! Messages as NATS carries them. A request says in `edgeward-timeout-ms` how long its caller waits; an answer with the header
//! `edgeward-error` holds an error as JSON: `{"kind", "message", "failure"}`.

use std::{str::FromStr, time::Duration};

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use edgeward_model::{EdgeError, ErrorKind, Failure, limits::ANSWERED_ERROR_BYTES_MAX};
use serde::{Deserialize, Serialize};

use crate::{
    deadline::{self, TIMEOUT_MS},
    message::{Headers, Message},
};

const ERROR: &str = "edgeward-error";
/// How long the caller waits who does not say it, such as a person at NATS's own command line.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

#[derive(Serialize, Deserialize)]
struct WireError {
    kind: ErrorKind,
    message: String,
    #[serde(default)]
    failure: Failure,
}

pub(super) fn headers(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers.iter() {
        insert(&mut map, name, value);
    }
    map
}

pub(super) fn request_headers(own: &Headers, timeout: Duration) -> HeaderMap {
    let mut map = headers(own);
    insert(&mut map, TIMEOUT_MS, &deadline::write(timeout));
    map
}

fn insert(map: &mut HeaderMap, name: &str, value: &str) {
    let name = HeaderName::from_str(name).expect("names are checked when they are set");
    map.insert(name, HeaderValue::from_str(value).expect("values are checked when they are set"));
}

/// How long the caller waits.
pub(super) fn timeout(map: Option<&HeaderMap>) -> Duration {
    map.and_then(|map| map.get(TIMEOUT_MS)).and_then(|value| deadline::read(value.as_str()).ok()).unwrap_or(TIMEOUT_DEFAULT)
}

/// A message that arrived. Fields that are none of ours, or past our bounds, are left out.
pub(super) fn read(map: Option<&HeaderMap>, payload: Bytes) -> Message {
    let mut headers = Headers::default();
    for (name, values) in map.into_iter().flat_map(HeaderMap::iter) {
        if let Some(value) = values.last() {
            let name: &str = name.as_ref();
            let _ = headers.set(name, value.as_str());
        }
    }
    Message { headers, payload }
}

pub(super) fn answer(result: Result<Message, EdgeError>) -> (HeaderMap, Bytes) {
    match result {
        Ok(message) => (headers(&message.headers), message.payload),
        Err(error) => {
            let mut map = HeaderMap::new();
            insert(&mut map, ERROR, error.kind().as_str());
            let message = cut(error.to_string());
            let json = serde_json::to_vec(&WireError { kind: error.kind(), message, failure: error.failure().clone() });
            (map, json.expect("an error is JSON").into())
        }
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(ANSWERED_ERROR_BYTES_MAX));
    text
}

pub(super) fn read_answer(map: Option<&HeaderMap>, payload: Bytes) -> Result<Message, EdgeError> {
    if map.is_none_or(|map| map.get(ERROR).is_none()) {
        return Ok(read(map, payload));
    }
    let WireError { kind, message, failure } = serde_json::from_slice(&payload).map_err(|error| {
        // A kind that a later release has.
        EdgeError::new(ErrorKind::Internal, "the other side failed with an error that this release does not know").with_source(error)
    })?;
    Err(EdgeError::new(kind, message).with_failure(failure))
}

#[cfg(test)]
mod tests {
    use edgeward_model::limits::REQUEST_TIMEOUT_MAX;

    use super::*;

    #[test]
    fn an_error_arrives_with_its_kind_text_and_failure_and_its_text_is_bounded() {
        let failure = Failure { status: Some(500), exit_code: None, stderr_tail: "oh".to_owned() };
        let (map, payload) = answer(Err(EdgeError::new(ErrorKind::MemoryLimit, "é".repeat(4_000)).with_failure(failure.clone())));
        let error = read_answer(Some(&map), payload).expect_err("an error");
        assert_eq!((error.kind(), error.failure()), (ErrorKind::MemoryLimit, &failure));
        assert_eq!(error.to_string().len(), ANSWERED_ERROR_BYTES_MAX);
    }

    #[test]
    fn an_error_that_cannot_be_read_is_an_error_still() {
        let (map, _) = answer(Err(EdgeError::invalid("x")));
        for payload in ["", "{}", r#"{"kind":"unheard_of","message":"x"}"#] {
            assert_eq!(read_answer(Some(&map), payload.into()).expect_err(payload).kind(), ErrorKind::Internal);
        }
    }

    #[test]
    fn what_others_put_into_a_header_is_read_within_bounds() {
        let mut map = HeaderMap::new();
        insert(&mut map, "traceparent", "no trace");
        insert(&mut map, "Nats-Expected-Stream", "x");
        insert(&mut map, "edgeward-error2", "x");
        insert(&mut map, "a", "kept");
        let message = read(Some(&map), Bytes::new());
        assert_eq!(message.headers.iter().collect::<Vec<_>>(), [("a", "kept")]);
        for (said, means) in
            [("5", Duration::from_millis(5)), ("99999999999", REQUEST_TIMEOUT_MAX), ("-1", TIMEOUT_DEFAULT), ("x", TIMEOUT_DEFAULT)]
        {
            insert(&mut map, TIMEOUT_MS, said);
            assert_eq!(timeout(Some(&map)), means);
        }
        assert_eq!(timeout(None), TIMEOUT_DEFAULT);
    }
}
