//! Messages as CloudEvents 1.0, as functions get them over HTTP: in binary mode as header fields and a body, in structured mode as one JSON
//! object. What an event has as its data goes through both as it was written: no number of it is read.
//!
//! A message whose attributes are those of an event (`specversion`, `id`, `source`, `type`) is that event. Any other becomes one, named by
//! its position.

use std::collections::BTreeMap;

use bytes::Bytes;
use data_encoding::BASE64;
use edgeward_model::{EdgeError, limits::TOPIC_ATTRIBUTES_MAX};
use jiff::Timestamp;
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use crate::message::Message;

/// What a message is that says nothing of itself.
pub const MESSAGE_TYPE: &str = "edgeward.topics.message";
/// Media type of an event in structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";
const VERSION: &str = "1.0";
/// Longest name of an attribute that every receiver must take, in bytes.
const NAME_BYTES_MAX: usize = 20;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudEvent {
    /// Its attributes but `datacontenttype`, by name: `specversion`, `id`, `source` and `type` at least.
    pub attributes: Vec<(String, String)>,
    /// `datacontenttype`.
    pub content_type: Option<String>,
    /// Its data.
    pub data: Bytes,
}

impl CloudEvent {
    /// The event of a message. `source` says whose topics these are, such as `/nodes/berlin/topics`.
    pub fn of(message: &Message, source: &str) -> Self {
        let has = |name: &str| message.attributes.iter().any(|(own, value)| own == name && !value.is_empty());
        let is_event = message.attributes.iter().any(|own| *own == ("specversion".to_owned(), VERSION.to_owned()));
        let is_event = is_event && has("id") && has("source") && has("type");
        let mut attributes: Vec<(String, String)> = Vec::new();
        let mut add = |name: &str, value: &str| {
            // Of one name there is one value.
            if is_name(name) && attributes.iter().all(|(own, _)| own != name) {
                attributes.push((name.to_owned(), value.to_owned()));
            }
        };
        if !is_event {
            add("specversion", VERSION);
            // What came from another member is the same event as there.
            let (position, source) = match &message.origin {
                Some(origin) => (Some(origin.position), &*format!("/nodes/{}/topics", origin.node)),
                None => (message.position, source),
            };
            add("id", &position.map_or_else(|| without_position(message), |position| position.to_string()));
            add("source", source);
            add("type", MESSAGE_TYPE);
            add("subject", message.topic.as_str());
            add("time", &message.published_at.to_string());
        }
        for (name, value) in &message.attributes {
            add(name, value);
        }
        if let Some(key) = &message.key {
            add("partitionkey", key);
        }
        Self { attributes, content_type: message.content_type.clone(), data: message.payload.clone() }
    }

    /// Header fields of the event in binary mode, `content-type` included; its data is the body.
    pub fn headers(&self) -> Vec<(String, String)> {
        let attributes = self.attributes.iter().map(|(name, value)| (format!("ce-{name}"), escape(value)));
        attributes.chain(self.content_type.iter().map(|value| ("content-type".to_owned(), escape(value)))).collect()
    }

    /// The event in structured mode, of the media type [`STRUCTURED`]. Data that is JSON is in it as such, text as text, and other bytes in
    /// base 64.
    pub fn to_json(&self) -> Vec<u8> {
        let text = |text: &str| to_raw_value(text).expect("text is JSON");
        let mut object: BTreeMap<&str, Box<RawValue>> = self.attributes.iter().map(|(name, value)| (&**name, text(value))).collect();
        if let Some(content_type) = &self.content_type {
            object.insert("datacontenttype", text(content_type));
        }
        let data = match self.content_type.as_deref() {
            Some(content_type) if is_json(content_type) => serde_json::from_slice::<Box<RawValue>>(&self.data).ok(),
            Some(_) => std::str::from_utf8(&self.data).ok().map(text),
            None => None,
        };
        if let Some(data) = data {
            object.insert("data", data);
        } else if !self.data.is_empty() {
            object.insert("data_base64", text(&BASE64.encode(&self.data)));
        }
        serde_json::to_vec(&object).expect("strings and values are JSON")
    }

    /// The event that these header fields and this body are in binary mode; none when it has no `ce-specversion`.
    pub fn from_headers<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>, body: Bytes) -> Option<Self> {
        let mut event = Self { attributes: Vec::new(), content_type: None, data: body };
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            match name.strip_prefix("ce-") {
                Some(attribute) => event.attributes.push((attribute.to_owned(), unescape(value))),
                None if name == "content-type" => event.content_type = Some(value.to_owned()),
                None => {}
            }
        }
        event.attributes.iter().any(|(name, _)| name == "specversion").then_some(event)
    }

    /// Reads an event in structured mode.
    pub fn from_json(json: &[u8]) -> Result<Self, EdgeError> {
        let refused = |why: &str| EdgeError::invalid(format!("the event is not valid: {why}"));
        let mut object: BTreeMap<String, &RawValue> =
            serde_json::from_slice(json).map_err(|error| refused("it is no JSON object").with_source(error))?;
        let text = |name: &str, value: &RawValue| {
            serde_json::from_str::<Option<String>>(value.get()).map_err(|error| refused(&format!("`{name}` is no text")).with_source(error))
        };
        // What is null is not there.
        object.retain(|name, value| name != "data_base64" || value.get() != "null");
        if object.contains_key("data") && object.contains_key("data_base64") {
            return Err(refused("it has both `data` and `data_base64`; write one of them"));
        }
        let content_type = match object.remove("datacontenttype") {
            None => None,
            Some(value) => text("datacontenttype", value)?,
        };
        let is_text = content_type.as_deref().is_some_and(|content_type| !is_json(content_type));
        let mut event = Self { attributes: Vec::new(), content_type, data: Bytes::new() };
        for (name, value) in object {
            let written = || value.get().to_owned();
            match name.as_str() {
                "data" => {
                    let said = is_text.then(|| serde_json::from_str(value.get()).ok()).flatten();
                    event.data = said.unwrap_or_else(written).into();
                }
                "data_base64" => {
                    let encoded = text(&name, value)?.unwrap_or_default();
                    let decoded = BASE64.decode(encoded.as_bytes());
                    event.data = decoded.map_err(|error| refused("`data_base64` is not base 64").with_source(error))?.into();
                }
                _ => match serde_json::from_str(value.get()) {
                    Ok(Value::Null) => {}
                    Ok(Value::String(text)) if is_name(&name) => event.attributes.push((name, text)),
                    Ok(Value::Bool(_) | Value::Number(_)) if is_name(&name) => event.attributes.push((name, written())),
                    _ => return Err(refused(&format!("`{}` is no attribute", name.chars().take(64).collect::<String>().escape_debug()))),
                },
            }
        }
        event.content_type.get_or_insert_with(|| "application/json".to_owned());
        event.check().map(|()| event)
    }

    /// Checks that it is an event of this version.
    pub fn check(&self) -> Result<(), EdgeError> {
        let get = |name: &str| self.attributes.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        let why = if get("specversion") != Some(VERSION) {
            format!("its `specversion` is not `{VERSION}`")
        } else if let Some(missing) = ["id", "source", "type"].into_iter().find(|name| get(name).is_none_or(str::is_empty)) {
            format!("it has no `{missing}`")
        } else if let Some((name, _)) = self.attributes.iter().find(|(name, _)| !is_name(name)) {
            format!(
                "the name of its attribute `{}` is not lower-case letters and digits",
                name.chars().take(64).collect::<String>().escape_debug()
            )
        } else if self.attributes.len() > TOPIC_ATTRIBUTES_MAX {
            format!("it has {} attributes, the most is {TOPIC_ATTRIBUTES_MAX}", self.attributes.len())
        } else {
            return Ok(());
        };
        Err(EdgeError::invalid(format!("the event is not valid: {why}")))
    }

    /// When it happened, where it says so.
    pub fn time(&self) -> Option<Timestamp> {
        self.attributes.iter().find(|(name, _)| name == "time")?.1.parse().ok()
    }

    /// Makes it the payload and the attributes of a message.
    #[must_use]
    pub fn into_message(self, mut message: Message) -> Message {
        message.key = self.attributes.iter().find(|(name, _)| name == "partitionkey").map(|(_, value)| value.clone()).or(message.key);
        message.attributes = self.attributes.into_iter().filter(|(name, _)| name != "partitionkey").collect();
        message.content_type = self.content_type;
        message.payload = self.data;
        message
    }
}

/// Names a message that has no position, which is delivered once at most.
fn without_position(message: &Message) -> String {
    let publisher = message.publisher.as_deref().unwrap_or_default();
    format!("{publisher}/{}/{}", message.published_at.as_nanosecond(), message.topic)
}

/// Whether an attribute may have this name.
fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name != "data"
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Whether what is of this media type is JSON.
pub fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.ends_with("/json") || media_type.ends_with("+json")
}

/// A value as a header field: what is not printable ASCII, a space, `"` and `%` are percent-encoded in UTF-8.
fn escape(value: &str) -> String {
    let byte = |byte: u8| match byte {
        b' ' | b'"' | b'%' | 0..=0x1f | 0x7f.. => format!("%{byte:02X}"),
        _ => char::from(byte).to_string(),
    };
    value.bytes().map(byte).collect()
}

/// The value of a header field.
fn unescape(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        let decoded = hex.filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit())).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = &rest[if decoded.is_some() { 3 } else { 1 }..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic::TopicName;

    fn message() -> Message {
        let at = Timestamp::from_second(1_700_000_000).expect("valid");
        let message = Message::new(TopicName::new("site/a b").expect("valid"), r#"{"t":1.5}"#, at);
        Message {
            position: Some(7),
            key: Some("kä".to_owned()),
            content_type: Some("application/json".to_owned()),
            attributes: vec![("unit".to_owned(), "°C".to_owned()), ("Not-A-Name".to_owned(), "x".to_owned())],
            ..message
        }
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_message_becomes_an_event_in_both_modes() {
        let event = CloudEvent::of(&message(), "/nodes/n/topics");
        event.check().expect("valid");
        let expected = pairs(&[
            ("ce-specversion", "1.0"),
            ("ce-id", "7"),
            ("ce-source", "/nodes/n/topics"),
            ("ce-type", MESSAGE_TYPE),
            ("ce-subject", "site/a%20b"),
            ("ce-time", "2023-11-14T22:13:20Z"),
            ("ce-unit", "%C2%B0C"),
            ("ce-partitionkey", "k%C3%A4"),
            ("content-type", "application/json"),
        ]);
        assert_eq!(event.headers(), expected);
        let json: Value = serde_json::from_slice(&event.to_json()).expect("JSON");
        let expected = serde_json::json!({
            "specversion": "1.0", "id": "7", "source": "/nodes/n/topics", "type": MESSAGE_TYPE, "subject": "site/a b",
            "time": "2023-11-14T22:13:20Z", "unit": "°C", "partitionkey": "kä", "datacontenttype": "application/json", "data": {"t": 1.5},
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn an_event_that_was_published_as_one_comes_as_it_was() {
        let attributes = pairs(&[("specversion", "1.0"), ("id", "x"), ("source", "/s"), ("type", "t"), ("id", "twice")]);
        let event = CloudEvent::of(&Message { key: None, attributes: attributes.clone(), ..message() }, "/nodes/n/topics");
        assert_eq!(event.attributes, attributes[..4]);
        let incomplete = CloudEvent::of(&Message { attributes: attributes[..3].to_vec(), ..message() }, "/nodes/n/topics");
        assert_eq!(incomplete.attributes[1], ("id".to_owned(), "7".to_owned()));
    }

    #[test]
    fn data_that_is_no_json_is_text_or_base_64() {
        for (content_type, data, member, value) in [
            (Some("text/plain"), &b"hello"[..], "data", Value::from("hello")),
            (Some("application/json"), b"{broken", "data_base64", BASE64.encode(b"{broken").into()),
            (None, b"hello", "data_base64", BASE64.encode(b"hello").into()),
            (Some("image/png"), &[0, 255], "data_base64", BASE64.encode(&[0, 255]).into()),
        ] {
            let content_type = content_type.map(str::to_owned);
            let event = CloudEvent::of(&Message { content_type, payload: Bytes::copy_from_slice(data), ..message() }, "/s");
            let json: Value = serde_json::from_slice(&event.to_json()).expect("JSON");
            assert_eq!(json[member], value);
            assert_eq!(CloudEvent::from_json(&event.to_json()).expect("reads").data, data, "{member} {value}");
        }
    }

    #[test]
    fn the_data_of_an_event_goes_through_as_it_was_written() {
        let data = r#"{"b": [18446744073709551617, 1.50, 1e400], "a": 1, "a": 2, "deep": [[[[[]]]]]}"#;
        let json = format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t","sequence":7,"data":{data}}}"#);
        let event = CloudEvent::from_json(json.as_bytes()).expect("an event");
        assert_eq!((&*event.data, event.content_type.as_deref()), (data.as_bytes(), Some("application/json")));
        let told = String::from_utf8(event.to_json()).expect("text");
        assert!(told.contains(&format!(r#""data":{data}"#)) && told.contains(r#""sequence":"7""#), "{told}");
        assert_eq!(CloudEvent::from_json(told.as_bytes()).expect("an event").data, data);
    }

    #[test]
    fn what_is_no_event_is_refused_with_the_reason() {
        for (json, why) in [
            ("[]", "no JSON object"),
            (r#"{"specversion":"0.3","id":"1","source":"s","type":"t"}"#, "`specversion`"),
            (r#"{"specversion":"1.0","id":"","source":"s","type":"t"}"#, "no `id`"),
            (r#"{"specversion":"1.0","id":"1","source":"s","type":"t","Bad":"x"}"#, "`Bad`"),
            (r#"{"specversion":"1.0","id":"1","source":"s","type":"t","ext":{}}"#, "`ext`"),
            (r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"!"}"#, "base 64"),
            (r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":7}"#, "`data_base64` is no text"),
            (r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"eA==","data":"x"}"#, "both `data` and `data_base64`"),
            (r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":null,"data_base64":"eA=="}"#, "both `data` and `data_base64`"),
            (r#"{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":7}"#, "`datacontenttype` is no text"),
        ] {
            let error = CloudEvent::from_json(json.as_bytes()).expect_err(json);
            assert!(error.to_string().contains(why), "{error}");
        }
        let null = r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":"x","data_base64":null}"#;
        assert_eq!(CloudEvent::from_json(null.as_bytes()).expect("what is null is not there").data, r#""x""#);
        assert_eq!(CloudEvent::from_headers([("content-type", "text/plain")], Bytes::new()), None);
    }

    proptest! {
        #[test]
        fn an_event_reads_back_what_it_writes(unit in any::<String>(), key in any::<Option<String>>(), payload in any::<String>()) {
            let attributes = vec![("unit".to_owned(), unit)];
            let text = Message { attributes, key, payload: payload.into(), content_type: Some("text/plain".to_owned()), ..message() };
            let event = CloudEvent::of(&text, "/s");
            let headers = event.headers();
            let read = CloudEvent::from_headers(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())), event.data.clone());
            prop_assert_eq!(read.as_ref(), Some(&event));
            let mut structured = CloudEvent::from_json(&event.to_json()).expect("reads");
            structured.attributes.sort();
            let mut sorted = event.clone();
            sorted.attributes.sort();
            prop_assert_eq!(&structured, &sorted);
            prop_assert!(headers.iter().all(|(_, value)| value.bytes().all(|byte| (0x21..0x7f).contains(&byte))));
            let message = event.into_message(message());
            prop_assert_eq!(&message.payload, &text.payload);
            prop_assert_eq!(&message.key, &text.key.or(Some("kä".to_owned())));
        }
    }
}
