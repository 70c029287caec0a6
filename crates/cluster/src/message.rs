//! What members send each other: a payload, and header fields such as W3C's `traceparent`.

use bytes::Bytes;
use edgeward_model::{
    EdgeError,
    limits::{MESSAGE_BYTES_MAX, MESSAGE_HEADERS_BYTES_MAX, MESSAGE_HEADERS_MAX},
};

use crate::{error::BackboneError, subject::Subject};

/// The header field that carries the trace, by W3C's Trace Context.
pub const TRACEPARENT: &str = "traceparent";
/// The header field that goes with it, with what tracing systems add.
pub const TRACESTATE: &str = "tracestate";
/// How the header fields of the backbone itself begin.
pub(crate) const OWN_PREFIX: &str = "edgeward-";
/// Longest name of a header field, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Header fields, in the order in which they were set. Names are lower-case letters, digits and `-`; values printable ASCII.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Sets a field, also when it was set before. A `traceparent` must be one of W3C's Trace Context.
    ///
    /// # Errors
    /// [`edgeward_model::ErrorKind::InvalidInput`] when a name or value is none, or past the bounds of all together.
    pub fn set(&mut self, name: &str, value: impl Into<String>) -> Result<(), EdgeError> {
        let value = value.into();
        check(name, &value)?;
        self.0.retain(|(other, _)| other != name);
        let bytes = self.bytes() + name.len() + value.len();
        if self.0.len() >= MESSAGE_HEADERS_MAX || bytes > MESSAGE_HEADERS_BYTES_MAX {
            return Err(EdgeError::invalid(format!(
                "the header field `{name}` is one too many: a message has at most {MESSAGE_HEADERS_MAX}, of {MESSAGE_HEADERS_BYTES_MAX} bytes"
            )));
        }
        self.0.push((name.to_owned(), value));
        Ok(())
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Names and values together, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

fn check(name: &str, value: &str) -> Result<(), EdgeError> {
    let is_name =
        (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !is_name {
        return Err(EdgeError::invalid(format!(
            "the header field `{}` is not valid: it must be 1 to {NAME_BYTES_MAX} lower-case letters, digits and `-`",
            name.escape_debug()
        )));
    }
    if name.starts_with(OWN_PREFIX) {
        return Err(EdgeError::invalid(format!("the header field `{name}` belongs to the backbone")));
    }
    // A line end would start another field.
    if !value.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) || value.trim() != value {
        return Err(EdgeError::invalid(format!("the value of the header field `{name}` is not printable ASCII without spaces around it")));
    }
    if name == TRACEPARENT && !is_traceparent(value) {
        return Err(EdgeError::invalid(format!("`{value}` is no traceparent")));
    }
    Ok(())
}

/// `version-trace-parent-flags`, in lower-case hexadecimal digits, neither trace nor parent all zero.
fn is_traceparent(value: &str) -> bool {
    let parts: Vec<&str> = value.split('-').collect();
    let is_hex = |part: &str, digits| part.len() == digits && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let is_id = |part: &str, digits| is_hex(part, digits) && part.bytes().any(|byte| byte != b'0');
    matches!(parts[..], [version, trace, parent, flags, ..] if is_hex(version, 2)
        && version != "ff"
        && (parts.len() == 4 || version != "00")
        && is_id(trace, 32)
        && is_id(parent, 16)
        && is_hex(flags, 2))
}

/// A message, or the answer to one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Header fields.
    pub headers: Headers,
    /// At most [`MESSAGE_BYTES_MAX`] bytes.
    pub payload: Bytes,
}

impl Message {
    /// A message without header fields.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { headers: Headers::default(), payload: payload.into() }
    }

    /// What it takes in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.payload.len() + self.headers.bytes()
    }

    pub(crate) fn check(&self, to: &Subject) -> Result<(), BackboneError> {
        let bytes = self.payload.len();
        if bytes > MESSAGE_BYTES_MAX {
            return Err(BackboneError::TooLarge { subject: to.to_string(), bytes, bytes_max: MESSAGE_BYTES_MAX });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_set_once_and_read_back() {
        let mut headers = Headers::default();
        headers.set("a", "1").expect("valid");
        headers.set("a", "2").expect("valid");
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("a", "2")]);
        assert_eq!((headers.get("a"), headers.get("b")), (Some("2"), None));
    }

    #[test]
    fn a_field_that_could_forge_another_is_refused() {
        let mut headers = Headers::default();
        for (name, value) in
            [("", "x"), ("A", "x"), ("a b", "x"), ("a:", "x"), ("a", "x\r\nb: y"), ("a", " x"), ("a", "ü"), ("edgeward-error", "x")]
        {
            assert!(headers.set(name, value).is_err(), "{name:?}: {value:?}");
        }
        assert!(headers.set(&"a".repeat(65), "x").is_err());
        assert_eq!(headers, Headers::default());
    }

    #[test]
    fn the_fields_of_one_message_are_bounded() {
        let mut headers = Headers::default();
        for index in 0..MESSAGE_HEADERS_MAX {
            headers.set(&format!("a{index}"), "x").expect("there is room");
        }
        assert!(headers.set("one-more", "x").is_err());
        headers.set("a0", "y").expect("in place of another");
        let mut headers = Headers::default();
        headers.set("a", "x".repeat(MESSAGE_HEADERS_BYTES_MAX - 1)).expect("there is room");
        assert!(headers.set("b", "").is_err());
    }

    #[test]
    fn only_a_traceparent_is_taken_for_one() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good) && is_traceparent(&good.replacen("00", "01", 1)) && is_traceparent(&format!("01{}-x", &good[2..])));
        for bad in [
            "",
            &good[1..],
            &good.to_uppercase(),
            &good.replacen("00", "ff", 1),
            &format!("{good}-x"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
