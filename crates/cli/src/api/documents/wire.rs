//! The JSON of documents. Values go through `python_json`, so that every number stays what it is.
//!
//! JSON knows no infinity and no NaN, so none is taken. A document may still hold one, from a program that embeds the
//! library; it is shown as Python writes it.

use std::fmt::Write as _;

use edgeward::{DocumentInfo, EdgeError, Object, PendingChange, SyncState, Value, limits::WATCH_STATE_BYTES_MAX, python_json};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Every document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DocumentsAnswer {
    documents: Vec<DocumentSummary>,
}

/// A document without its keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DocumentSummary {
    name: String,
    /// Grows with each change.
    version: u64,
    /// How many there are.
    keys: u64,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl FromIterator<DocumentInfo> for DocumentsAnswer {
    fn from_iter<I: IntoIterator<Item = DocumentInfo>>(infos: I) -> Self {
        let summary =
            |DocumentInfo { name, version, keys, updated_at }| DocumentSummary { name: name.to_string(), version, keys, updated_at };
        Self { documents: infos.into_iter().map(summary).collect() }
    }
}

/// A document, whole.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what `write_state` writes")]
pub(crate) struct DocumentAnswer {
    /// Grows with each change.
    version: u64,
    /// Values by key.
    #[schema(value_type = Object)]
    data: Object,
    /// MD5 of Python's `json.dumps(data, sort_keys=True)`.
    checksum: String,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

/// The changes of a document that are not confirmed, oldest first.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what `write_pending` writes")]
pub(crate) struct PendingAnswer {
    pending: Vec<PendingBody>,
}

/// A change that is not confirmed.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what `write_pending` writes")]
pub(crate) struct PendingBody {
    /// `update`: the data is the whole document. `patch`: it is a merge patch.
    r#type: String,
    /// The version that the change led to.
    version: u64,
    #[schema(value_type = Object)]
    data: Object,
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// Earlier changes that this one stands for as well.
    coalesced: u64,
}

/// Which changes have arrived where they had to go.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confirmation {
    /// The last version that has.
    pub(crate) up_to_version: u64,
}

/// Reads a body that is any JSON value.
pub(super) fn read_value(bytes: &[u8]) -> Result<Value, EdgeError> {
    let text = std::str::from_utf8(bytes).map_err(|error| EdgeError::invalid("the request body is not UTF-8").with_source(error))?;
    let value = python_json::read(text)?;
    if value.is_finite() {
        Ok(value)
    } else {
        Err(EdgeError::invalid("the value is not valid: it holds a number that is infinite or NaN, which JSON cannot say"))
    }
}

/// Reads a body that is a JSON object.
pub(super) fn read_object(bytes: &[u8]) -> Result<Object, EdgeError> {
    match read_value(bytes)? {
        Value::Object(object) => Ok(object),
        _ => Err(EdgeError::invalid("the request body is not valid: it must be a JSON object")),
    }
}

/// Writes a state as a [`DocumentAnswer`].
pub(super) fn write_state(state: &SyncState) -> Result<String, EdgeError> {
    let mut text = format!("{{\"version\":{},\"data\":", state.version);
    python_json::write_object(&mut text, &state.data)?;
    write!(text, ",{}}}", checked(state)).expect("writing to a String cannot fail");
    Ok(text)
}

/// Writes a state as [`write_state`] does, or without its data when that is large.
pub(super) fn write_event(state: &SyncState) -> Result<String, EdgeError> {
    let text = write_state(state)?;
    if text.len() <= WATCH_STATE_BYTES_MAX {
        return Ok(text);
    }
    Ok(format!("{{\"version\":{},\"data_omitted\":true,{}}}", state.version, checked(state)))
}

/// A checksum and a time are text that JSON need not escape.
fn checked(state: &SyncState) -> String {
    format!("\"checksum\":\"{}\",\"updated_at\":\"{}\"", state.checksum, state.updated_at)
}

/// Writes changes as a [`PendingAnswer`].
pub(super) fn write_pending(changes: &[PendingChange]) -> Result<String, EdgeError> {
    let mut text = "{\"pending\":[".to_owned();
    for (index, PendingChange { r#type, version, data, timestamp, coalesced }) in changes.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        text.push_str(&format!("{comma}{{\"type\":\"{type}\",\"version\":{version},\"data\":"));
        python_json::write_object(&mut text, data)?;
        text.push_str(&format!(",\"timestamp\":\"{timestamp}\",\"coalesced\":{coalesced}}}"));
    }
    text.push_str("]}");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use edgeward::ErrorKind;

    use super::*;

    const AT: &str = "2026-01-02T03:04:05.678Z";

    fn state(data: &str) -> SyncState {
        let data = read_object(data.as_bytes()).expect("an object");
        SyncState::from_data_at(data, 7, AT.parse().expect("a time")).expect("shallow")
    }

    #[test]
    fn a_state_is_written_with_every_number_as_it_is() {
        let text = write_state(&state(r#"{"b": 18446744073709551617, "a": 1.0}"#)).expect("shallow");
        let checksum = state(r#"{"a": 1.0, "b": 18446744073709551617}"#).checksum;
        let whole =
            format!(r#"{{"version":7,"data":{{"a": 1.0, "b": 18446744073709551617}},"checksum":"{checksum}","updated_at":"{AT}"}}"#);
        assert_eq!(text, whole);
        assert_eq!(serde_json::from_str::<SyncState>(&text).expect("a state"), state(r#"{"a": 1.0, "b": 18446744073709551617}"#));
    }

    #[test]
    fn what_the_library_may_hold_and_json_may_not_is_shown_as_python_writes_it() {
        let state = SyncState::from_data(Object::from_iter([("a", f64::NAN)]), 1).expect("shallow");
        assert!(write_state(&state).expect("shallow").contains(r#""data":{"a": NaN}"#));
    }

    #[test]
    fn a_large_state_is_told_without_its_data() {
        let small = state(r#"{"a": 1}"#);
        assert_eq!(write_event(&small).expect("shallow"), write_state(&small).expect("shallow"));
        let large = state(&format!(r#"{{"a": "{}"}}"#, "x".repeat(WATCH_STATE_BYTES_MAX)));
        let checksum = &large.checksum;
        let told = format!(r#"{{"version":7,"data_omitted":true,"checksum":"{checksum}","updated_at":"{AT}"}}"#);
        assert_eq!(write_event(&large).expect("shallow"), told);
    }

    #[test]
    fn pending_changes_are_written_with_every_number_as_it_is() {
        let change = |version| PendingChange {
            r#type: "patch".to_owned(),
            version,
            data: read_object(br#"{"a": 1E2}"#).expect("an object"),
            timestamp: AT.parse().expect("a time"),
            coalesced: 2,
        };
        let one = |version| format!(r#"{{"type":"patch","version":{version},"data":{{"a": 100.0}},"timestamp":"{AT}","coalesced":2}}"#);
        assert_eq!(write_pending(&[change(3), change(4)]).expect("shallow"), format!(r#"{{"pending":[{},{}]}}"#, one(3), one(4)));
        assert_eq!(write_pending(&[]).expect("empty"), r#"{"pending":[]}"#);
    }

    #[test]
    fn a_body_that_json_could_not_say_back_is_refused_with_the_reason() {
        for (body, why) in [
            (&b"{\"a\": NaN}"[..], "infinite or NaN"),
            (b"{\"a\": [1E400]}", "infinite or NaN"),
            (b"[1]", "must be a JSON object"),
            (b"{\"a\": }", "byte"),
            (b"\xff", "UTF-8"),
            (b"", ""),
        ] {
            let error = read_object(body).expect_err(why);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
