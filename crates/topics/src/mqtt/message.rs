//! Messages between MQTT and the log.

use std::{num::NonZeroU32, time::Duration};

use bytes::Bytes;
use bytestring::ByteString;
use data_encoding::BASE64;
use edgeward_model::EdgeError;
use jiff::Timestamp;
use rmqtt_codec::{
    types::{Publish, QoS},
    v5::PublishProperties,
};

use crate::{message::Message, topic::TopicName};

/// What version 5 says of a message beside its user properties, as attributes.
const RESPONSE_TOPIC: &str = "mqtt-response-topic";
const CORRELATION_DATA: &str = "mqtt-correlation-data";
const PAYLOAD_FORMAT: &str = "mqtt-payload-format";

/// What a client publishes, for the log.
pub(super) fn received(publish: &Publish, publisher: &str, now: Timestamp) -> Result<Message, EdgeError> {
    let topic = TopicName::new(&publish.topic)?;
    // A copy, as the packet may lie in a buffer that is much larger.
    let mut message = Message::new(topic, Bytes::copy_from_slice(&publish.payload), now);
    message.publisher = Some(publisher.to_owned());
    message.retain = publish.retain;
    if let Some(properties) = &publish.properties {
        describe(&mut message, properties, now);
    }
    Ok(message)
}

/// Adds what the properties say.
pub(super) fn describe(message: &mut Message, properties: &PublishProperties, now: Timestamp) {
    message.content_type = properties.content_type.as_ref().map(ToString::to_string);
    message.expires_at =
        properties.message_expiry_interval.and_then(|seconds| now.checked_add(Duration::from_secs(seconds.get().into())).ok());
    let user = properties.user_properties.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let response = properties.response_topic.iter().map(|topic| (RESPONSE_TOPIC.to_owned(), topic.to_string()));
    let correlation = properties.correlation_data.iter().map(|data| (CORRELATION_DATA.to_owned(), BASE64.encode(data)));
    let format = properties.is_utf8_payload.then(|| (PAYLOAD_FORMAT.to_owned(), "utf8".to_owned()));
    message.attributes = user.chain(response).chain(correlation).chain(format).collect();
}

/// What a client gets of a message.
pub(super) fn sent(message: &Message, qos: QoS, retain: bool, ids: Vec<NonZeroU32>, now: Timestamp) -> Publish {
    let mut properties = PublishProperties { subscription_ids: ids, ..Default::default() };
    properties.content_type = message.content_type.as_deref().map(ByteString::from);
    properties.message_expiry_interval = message.expires_at.and_then(|at| {
        let left = at.duration_since(now).as_secs().clamp(1, i64::from(u32::MAX));
        NonZeroU32::new(u32::try_from(left).expect("it was clamped"))
    });
    for (name, value) in &message.attributes {
        match name.as_str() {
            RESPONSE_TOPIC => properties.response_topic = Some(value.as_str().into()),
            CORRELATION_DATA => properties.correlation_data = BASE64.decode(value.as_bytes()).ok().map(Bytes::from),
            PAYLOAD_FORMAT => properties.is_utf8_payload = value == "utf8",
            _ => properties.user_properties.push((name.as_str().into(), value.as_str().into())),
        }
    }
    Publish {
        dup: false,
        retain,
        qos,
        topic: message.topic.as_str().into(),
        packet_id: None,
        payload: message.payload.clone(),
        properties: Some(properties),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_goes_through_the_log_as_it_was() {
        let now = Timestamp::from_second(1_700_000_000).expect("valid");
        let properties = PublishProperties {
            content_type: Some("application/json".into()),
            correlation_data: Some(Bytes::from_static(&[0, 255])),
            message_expiry_interval: NonZeroU32::new(60),
            response_topic: Some("answers/1".into()),
            is_utf8_payload: true,
            user_properties: vec![("id".into(), "1".into()), ("id".into(), "2".into())],
            ..Default::default()
        };
        let publish = Publish {
            dup: false,
            retain: true,
            qos: QoS::AtLeastOnce,
            topic: "a/b".into(),
            packet_id: None,
            payload: Bytes::from_static(b"{}"),
            properties: Some(properties),
        };
        let message = received(&publish, "sensor", now).expect("valid");
        assert_eq!((message.publisher.as_deref(), message.content_type.as_deref()), (Some("sensor"), Some("application/json")));
        assert_eq!(sent(&message, QoS::AtLeastOnce, true, Vec::new(), now), publish);
        let later = sent(&message, QoS::AtMostOnce, false, Vec::new(), now + Duration::from_secs(20));
        assert_eq!(later.properties.and_then(|properties| properties.message_expiry_interval), NonZeroU32::new(40));
        assert!(received(&Publish { topic: "a/#".into(), ..publish }, "sensor", now).is_err());
    }
}
