//! The will of a client: what is published when it goes without a word.

use std::time::Duration;

use edgeward_model::{EdgeError, limits::MQTT_WILL_DELAY_MAX};
use jiff::Timestamp;
use rmqtt_codec::{
    types::{Publish, QoS},
    v5::{LastWill, PublishProperties},
};

use super::{broker::Identity, message};
use crate::{log::TopicLog, message::Message};

/// A will that was checked.
pub(super) struct Will {
    message: Message,
    is_at_least_once: bool,
    pub(super) delay: Duration,
    expires_after: Option<Duration>,
}

impl Will {
    /// The will that a client came with, or why it is none.
    pub(super) fn new(will: LastWill, publisher: &str, now: Timestamp) -> Result<Self, EdgeError> {
        let properties = PublishProperties {
            content_type: will.content_type,
            correlation_data: will.correlation_data,
            user_properties: will.user_properties,
            is_utf8_payload: will.is_utf8_payload.unwrap_or(false),
            response_topic: will.response_topic,
            ..Default::default()
        };
        let publish = Publish {
            dup: false,
            retain: will.retain,
            qos: will.qos,
            topic: will.topic,
            packet_id: None,
            payload: will.message,
            properties: Some(properties),
        };
        let message = message::received(&publish, publisher, now)?;
        message.check()?;
        let delay = Duration::from_secs(will.will_delay_interval_sec.unwrap_or(0).into()).min(MQTT_WILL_DELAY_MAX);
        let expires_after = will.message_expiry_interval.map(|seconds| Duration::from_secs(seconds.get().into()));
        Ok(Self { message, is_at_least_once: will.qos != QoS::AtMostOnce, delay, expires_after })
    }

    pub(super) fn is_allowed(&self, identity: &Identity) -> bool {
        identity.may_publish(&self.message.topic)
    }

    /// Publishes it.
    pub(super) async fn publish(self, log: &TopicLog, now: Timestamp) -> Result<(), EdgeError> {
        let mut message = self.message;
        message.published_at = now;
        message.expires_at = self.expires_after.and_then(|after| now.checked_add(after).ok());
        if self.is_at_least_once {
            return log.publish(message).await.map(drop);
        }
        if message.retain {
            log.enqueue_retained(message.clone()).await?.await?;
        }
        log.publish_live(message).await
    }
}
