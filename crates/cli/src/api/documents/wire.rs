//! The JSON of documents. Values go through `python_json`, so that every number stays what it is.
//!
//! JSON knows no infinity and no NaN, so none is taken. A document may still hold one, from a program that embeds the
//! library; it is shown as Python writes it.

use std::{collections::BTreeMap, fmt::Write as _};

use edgeward::{
    Change, Conflict, ConflictsPage, DocumentInfo, EdgeError, Object, Policy, Resolution, Side, SyncState, Value,
    limits::WATCH_STATE_BYTES_MAX, python_json,
};
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
#[expect(dead_code, reason = "describes what `write_changes` writes")]
pub(crate) struct PendingAnswer {
    pending: Vec<PendingBody>,
}

/// A change that is not confirmed.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what `write_changes` writes")]
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

/// The changes of a document that are kept, oldest first.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what `write_changes` writes")]
pub(crate) struct HistoryAnswer {
    history: Vec<ChangeBody>,
}

/// A change, made here or come from elsewhere.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what `write_changes` writes")]
pub(crate) struct ChangeBody {
    /// `update`: the data is the whole document. `patch`: it is a merge patch. Both were made here. `remote`: the whole document came
    /// from elsewhere. `merge`: members did, each whole, `null` for one that went.
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

/// The conflicts of a document that nobody has resolved.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what `write_conflicts` writes")]
pub(crate) struct ConflictsAnswer {
    conflicts: Vec<ConflictBody>,
    /// What to ask for as `after` to get those that follow; `null` when there are none.
    next: Option<String>,
    /// Conflicts of this document that were forgotten before anybody resolved them: after 30 days, or because there were more than 1000.
    forgotten: u64,
}

/// Two writes of one key that did not know of each other.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what `write_conflicts` writes")]
pub(crate) struct ConflictBody {
    /// Names it within its document.
    id: String,
    key: String,
    /// `concurrent`, `siblings` (values that are both kept), `not_owner` (the writer does not own the key), or `below_floor` (it was
    /// away for so long that it may have missed a deletion).
    why: String,
    /// The write whose value does not show.
    loser: SideBody,
    /// The write whose value showed when the conflict was listed; `null` where there was none.
    winner: Option<SideBody>,
    /// When the hub listed it; of siblings, when the loser was written.
    #[schema(value_type = String, format = DateTime)]
    listed_at: Timestamp,
}

/// One of the two writes of a conflict.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what `write_conflicts` writes")]
pub(crate) struct SideBody {
    /// Left out where the write deleted the key, or its value is too large to be listed.
    #[schema(required = false, value_type = serde_json::Value)]
    value: Value,
    /// The bytes of a value that is too large to be listed.
    #[schema(required = false)]
    omitted_bytes: u64,
    /// Who wrote.
    node: String,
    /// The opening of its store in which it wrote, in hexadecimal.
    epoch: String,
    /// The write in this epoch.
    counter: u64,
    /// The moment of the hybrid logical clock: milliseconds since 1970, and a count within them.
    stamp: String,
    /// The same by the wall clock of who wrote.
    #[schema(value_type = String, format = DateTime)]
    time: Timestamp,
}

/// What becomes of a conflict: exactly one of these.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what `read_resolution` reads")]
pub(crate) enum ResolutionBody {
    /// `true`: the key stays as it is.
    #[schema(rename = "keep")]
    Keep(bool),
    /// `true`: the key gets the value that lost.
    #[schema(rename = "take")]
    Take(bool),
    /// The key gets this value.
    #[schema(rename = "value")]
    Value(serde_json::Value),
    /// `true`: the key is deleted.
    #[schema(rename = "delete")]
    Delete(bool),
}

/// The policies of a document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PoliciesAnswer {
    /// By key prefix; the empty one is that of the document.
    policies: BTreeMap<String, String>,
}

impl FromIterator<(String, Policy)> for PoliciesAnswer {
    fn from_iter<I: IntoIterator<Item = (String, Policy)>>(policies: I) -> Self {
        Self { policies: policies.into_iter().map(|(prefix, policy)| (prefix, policy.to_string())).collect() }
    }
}

/// A policy of a document.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyBody {
    /// Such as `last_writer_wins`, `max`, `counter` or `hub_owned`.
    pub(crate) policy: String,
    /// Of keys that begin so; without it, of the document.
    #[serde(default)]
    pub(crate) prefix: String,
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

/// Writes changes as the list of this name: a [`PendingAnswer`] or a [`HistoryAnswer`].
pub(super) fn write_changes(list: &str, changes: &[Change]) -> Result<String, EdgeError> {
    let mut text = format!("{{\"{list}\":[");
    for (index, Change { r#type, version, data, timestamp, coalesced }) in changes.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        text.push_str(&format!("{comma}{{\"type\":\"{type}\",\"version\":{version},\"data\":"));
        python_json::write_object(&mut text, data)?;
        text.push_str(&format!(",\"timestamp\":\"{timestamp}\",\"coalesced\":{coalesced}}}"));
    }
    text.push_str("]}");
    Ok(text)
}

/// Writes conflicts as a [`ConflictsAnswer`].
pub(super) fn write_conflicts(ConflictsPage { conflicts, next, forgotten }: &ConflictsPage) -> Result<String, EdgeError> {
    let mut text = "{\"conflicts\":[".to_owned();
    for (index, Conflict { id, key, why, loser, winner, listed_at, .. }) in conflicts.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let (id, key) = (serde_json::Value::from(id.as_str()), serde_json::Value::from(key.as_str()));
        text.push_str(&format!("{comma}{{\"id\":{id},\"key\":{key},\"why\":\"{}\",\"loser\":", why.as_str()));
        write_side(&mut text, loser)?;
        text.push_str(",\"winner\":");
        match winner {
            Some(winner) => write_side(&mut text, winner)?,
            None => text.push_str("null"),
        }
        text.push_str(&format!(",\"listed_at\":\"{listed_at}\"}}"));
    }
    let next = serde_json::Value::from(next.as_deref());
    text.push_str(&format!("],\"next\":{next},\"forgotten\":{forgotten}}}"));
    Ok(text)
}

fn write_side(text: &mut String, Side { value, omitted_bytes, node, epoch, counter, stamp }: &Side) -> Result<(), EdgeError> {
    text.push('{');
    if let Some(value) = value {
        text.push_str(&format!("\"value\":{},", python_json::write(value)?));
    }
    if let Some(bytes) = omitted_bytes {
        text.push_str(&format!("\"omitted_bytes\":{bytes},"));
    }
    // The conflict log is a document, and may hold anything for text.
    let (node, epoch) = (serde_json::Value::from(node.as_str()), serde_json::Value::from(epoch.as_str()));
    let time = i64::try_from(stamp.millis()).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok()).unwrap_or(Timestamp::MAX);
    text.push_str(&format!("\"node\":{node},\"epoch\":{epoch},\"counter\":{counter},\"stamp\":\"{stamp}\",\"time\":\"{time}\"}}"));
    Ok(())
}

/// Reads a body that is a [`ResolutionBody`].
pub(super) fn read_resolution(bytes: &[u8]) -> Result<Resolution, EdgeError> {
    let mut members = read_object(bytes)?.0.into_iter();
    match (members.next().as_ref().map(|(name, value)| (name.as_str(), value)), members.next()) {
        (Some(("keep", Value::Bool(true))), None) => Ok(Resolution::Keep),
        (Some(("take", Value::Bool(true))), None) => Ok(Resolution::Take),
        (Some(("value", value)), None) => Ok(Resolution::Set(Some(value.clone()))),
        (Some(("delete", Value::Bool(true))), None) => Ok(Resolution::Set(None)),
        _ => {
            let one = r#"{"keep": true}, {"take": true}, {"value": …} or {"delete": true}"#;
            Err(EdgeError::invalid(format!("the resolution is not valid, send exactly one of {one}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use edgeward::{ErrorKind, Stamp, Why};

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
    fn changes_are_written_with_every_number_as_it_is() {
        let change = |version| Change {
            r#type: "patch".to_owned(),
            version,
            data: read_object(br#"{"a": 1E2}"#).expect("an object"),
            timestamp: AT.parse().expect("a time"),
            coalesced: 2,
        };
        let one = |version| format!(r#"{{"type":"patch","version":{version},"data":{{"a": 100.0}},"timestamp":"{AT}","coalesced":2}}"#);
        let written = write_changes("pending", &[change(3), change(4)]).expect("shallow");
        assert_eq!(written, format!(r#"{{"pending":[{},{}]}}"#, one(3), one(4)));
        assert_eq!(write_changes("history", &[]).expect("empty"), r#"{"history":[]}"#);
    }

    #[test]
    fn a_conflict_is_written_with_both_of_its_sides_exact() {
        let side = |value: Option<&str>| Side {
            value: value.map(|text| python_json::read(text).expect("JSON")),
            omitted_bytes: None,
            node: "edge-1".to_owned(),
            epoch: "00000000000000ff".to_owned(),
            counter: 3,
            stamp: Stamp::from_bits((1_767_323_045_678 << 16) + 2),
        };
        let conflict = |loser, winner| Conflict {
            id: "0a".to_owned(),
            document: "cellar".to_owned(),
            key: "a\"\u{1b}".to_owned(),
            why: Why::Concurrent,
            loser,
            winner,
            listed_at: AT.parse().expect("a time"),
        };
        let page = |conflicts, next: Option<&str>| ConflictsPage { conflicts, next: next.map(str::to_owned), forgotten: 2 };
        let one = vec![conflict(side(Some("18446744073709551617")), Some(side(None)))];
        let written = write_conflicts(&page(one, Some("0a"))).expect("shallow");
        let rest = format!(r#""node":"edge-1","epoch":"00000000000000ff","counter":3,"stamp":"1767323045678.2","time":"{AT}""#);
        let sides = format!(r#""loser":{{"value":18446744073709551617,{rest}}},"winner":{{{rest}}}"#);
        let expected = format!(
            r#"{{"conflicts":[{{"id":"0a","key":"a\"\u001b","why":"concurrent",{sides},"listed_at":"{AT}"}}],"next":"0a","forgotten":2}}"#
        );
        assert_eq!(written, expected);
        let large = Side { omitted_bytes: Some(200_000), stamp: Stamp::MAX, ..side(None) };
        let written = write_conflicts(&page(vec![conflict(large.clone(), None), conflict(large, None)], None)).expect("shallow");
        let read: serde_json::Value = serde_json::from_str(&written).expect("JSON");
        let second = &read["conflicts"][1];
        assert_eq!((&second["loser"]["omitted_bytes"], &second["winner"]), (&200_000.into(), &serde_json::Value::Null));
    }

    #[test]
    fn a_resolution_is_exactly_one_of_four() {
        let read = |body: &str| read_resolution(body.as_bytes());
        assert_eq!(read(r#"{"keep": true}"#).expect("valid"), Resolution::Keep);
        assert_eq!(read(r#"{"take": true}"#).expect("valid"), Resolution::Take);
        assert_eq!(read(r#"{"delete": true}"#).expect("valid"), Resolution::Set(None));
        assert_eq!(read(r#"{"value": null}"#).expect("valid"), Resolution::Set(Some(Value::Null)));
        for body in ["{}", r#"{"keep": false}"#, r#"{"keep": 1}"#, r#"{"keep": true, "take": true}"#, r#"{"drop": true}"#] {
            let error = read(body).expect_err(body);
            assert!(error.to_string().contains(r#"{"keep": true}, {"take": true}"#), "{error}");
        }
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
