//! A snapshot of synchronised state, and the checksum that tells whether its data arrived as it was sent.
//!
//! The checksum is a compatibility field, the same that Python peers compute. MD5 finds accidents, not forgeries:
//! nothing may trust a state because its checksum is right.

use std::fmt;

use jiff::Timestamp;
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use crate::{
    error::EdgeError,
    python_json::{self, Writer},
    value::Object,
};

/// State synchronization snapshot; the specification's `SyncState`. One that comes from outside is whatever was sent,
/// until [`SyncState::verify`] says that its data and its checksum agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncState {
    /// Grows with each change; of two states the higher version is the newer.
    pub version: u64,
    /// The state itself, whole.
    pub data: Object,
    /// MD5 of Python's `json.dumps(data, sort_keys=True)`, as 32 lower-case hexadecimal digits.
    pub checksum: String,
    /// When the state was made, in UTC.
    pub updated_at: Timestamp,
}

impl SyncState {
    /// A state of now, with the checksum of its data.
    ///
    /// Fails when `data` nests deeper than [`VALUE_DEPTH_MAX`](crate::limits::VALUE_DEPTH_MAX).
    pub fn from_data(data: Object, version: u64) -> Result<Self, EdgeError> {
        Self::from_data_at(data, version, Timestamp::now())
    }

    /// [`SyncState::from_data`] of another time than now.
    pub fn from_data_at(data: Object, version: u64, updated_at: Timestamp) -> Result<Self, EdgeError> {
        let checksum = checksum(&data)?;
        Ok(Self { version, data, checksum, updated_at })
    }

    /// Whether the checksum is that of the data. Data that nests too deep has none.
    pub fn verify(&self) -> bool {
        checksum(&self.data).is_ok_and(|checksum| checksum == self.checksum)
    }
}

fn checksum(data: &Object) -> Result<String, EdgeError> {
    let mut hasher = TextHasher(Md5::new());
    python_json::write_object(&mut hasher, data)?;
    Ok(hasher.digits())
}

/// The checksum of data that is no [`Object`]: that of what `write` writes.
pub fn checksum_of<E: From<EdgeError>>(write: impl FnOnce(&mut Writer<'_>) -> Result<(), E>) -> Result<String, E> {
    let mut hasher = TextHasher(Md5::new());
    let mut writer = Writer::new(&mut hasher);
    write(&mut writer)?;
    writer.finish()?;
    Ok(hasher.digits())
}

/// Hashes what is written to it; data may be large, and its text is several times larger.
struct TextHasher(Md5);

impl TextHasher {
    fn digits(self) -> String {
        format!("{:x}", self.0.finalize())
    }
}

impl fmt::Write for TextHasher {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn data(text: &str) -> Object {
        match python_json::read(text).expect(text) {
            Value::Object(object) => object,
            other => panic!("{other:?} is no object"),
        }
    }

    fn state(text: &str) -> SyncState {
        SyncState::from_data(data(text), 5).expect("shallow")
    }

    #[test]
    fn the_checksum_is_the_one_that_python_computes() {
        for (text, checksum) in [
            ("{}", "99914b932bd37a50b983c5e7c90ae93b"),
            (r#"{"sensor_data": [1, 2, 3]}"#, "a07817689015e9070c687774c0a350ad"),
            (
                r#"{"b":1.0,"a":[1E2,-0,-0.0,1e400,9007199254740993,1e-5,1e16],"\ud83d\ude00":"\u007f/é","～":null}"#,
                "a2b0a49b0b2c9c7db21dd7c8663f62f0",
            ),
        ] {
            let state = state(text);
            assert_eq!((state.version, state.checksum.as_str()), (5, checksum), "{text}");
        }
    }

    #[test]
    fn a_state_whose_data_or_checksum_was_changed_does_not_verify() {
        let good = state(r#"{"sensor_data": [4, 5, 6]}"#);
        assert!(good.verify());
        assert!(!SyncState { data: data(r#"{"sensor_data": [4, 5, 6.0]}"#), ..good.clone() }.verify());
        assert!(!SyncState { checksum: good.checksum.to_uppercase(), ..good.clone() }.verify());
        assert!(!SyncState { checksum: String::new(), ..good.clone() }.verify());
        assert!(SyncState { version: 6, updated_at: Timestamp::UNIX_EPOCH, ..good }.verify());
    }

    #[test]
    fn data_that_nests_too_deep_makes_no_state_and_never_verifies() {
        let deep = (0..64).fold(Value::Null, |inner, _| Value::from(vec![inner]));
        let deep = Object::from_iter([("a", deep)]);
        assert!(SyncState::from_data(deep.clone(), 1).expect_err("deep").to_string().contains("deeper than 64"));
        assert!(!SyncState { data: deep, ..state("{}") }.verify());
    }

    #[test]
    fn a_state_is_json_with_the_names_of_the_specification_and_verifies_when_it_is_read() {
        let at = "2026-01-02T03:04:05.678Z".parse().expect("a time");
        let sent = SyncState::from_data_at(data(r#"{"b": 18446744073709551617, "a": 1.0}"#), 7, at).expect("shallow");
        let json = serde_json::to_string(&sent).expect("finite");
        let checksum = &sent.checksum;
        assert_eq!(
            json,
            format!(
                r#"{{"version":7,"data":{{"a": 1.0, "b": 18446744073709551617}},"checksum":"{checksum}","updated_at":"2026-01-02T03:04:05.678Z"}}"#
            )
        );
        let received: SyncState = serde_json::from_str(&json).expect("its own JSON");
        assert!(received.verify());
        assert_eq!(received, sent);
        let bytes = postcard::to_allocvec(&sent).expect("plain data");
        assert_eq!(postcard::from_bytes::<SyncState>(&bytes).expect("its own bytes"), sent);
    }

    #[test]
    fn a_state_whose_data_is_no_object_is_refused() {
        let json = r#"{"version": 1, "data": [1], "checksum": "", "updated_at": "2026-01-02T03:04:05Z"}"#;
        assert!(serde_json::from_str::<SyncState>(json).expect_err("an array").to_string().contains("must be a JSON object"));
    }
}
