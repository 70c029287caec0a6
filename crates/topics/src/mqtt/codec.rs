//! Packets of both versions of MQTT as one: they are those of version 5, of which 3.1.1 can say a part.

use std::fmt;

use bytes::BytesMut;
use edgeward_model::limits::{MQTT_CONTROL_BYTES_MAX, MQTT_PACKET_BYTES_MAX, MQTT_SUBSCRIBE_BYTES_MAX};
use rmqtt_codec::{
    error::DecodeError,
    types::QoS,
    v3, v5,
    v5::{Packet, ToReasonCode},
    version::{ProtocolVersion, VersionCodec},
};
use tokio_util::codec::{Decoder, Encoder};

/// Why a connection ends, in the words of version 5.
pub(super) type Reason = v5::DisconnectReasonCode;

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const SUBSCRIBE: u8 = 8;
const UNSUBSCRIBE: u8 = 10;

/// Reads and writes the packets of one connection.
pub(super) struct Codec {
    /// Known by the first packet.
    version: Option<ProtocolVersion>,
    three: v3::Codec,
    five: v5::Codec,
    /// Largest packet that the client takes.
    packet_bytes_max: usize,
}

/// What is wrong with bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The first packet asks for a version that there is not.
    Version,
    /// The first packet is of version 3, and asks for a session that stays for a client without an id.
    NoId,
    /// Anything else.
    Reason(Reason),
}

impl fmt::Display for Fault {
    /// Says of a client what it did.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Version => "it speaks something else than MQTT 3.1.1 or 5",
            Self::NoId => "it asks for a session that stays, and has no id",
            Self::Reason(Reason::MalformedPacket) => "it sent a packet that is malformed",
            Self::Reason(Reason::ProtocolError) => "it sent a packet that is none of MQTT, or out of turn",
            Self::Reason(Reason::ImplementationSpecificError) => "it sent a packet of a kind that there is not",
            Self::Reason(Reason::PacketTooLarge) => "it sent a packet that is larger than allowed",
            Self::Reason(Reason::TopicNameInvalid) => "it sent a packet with a topic that is not valid",
            Self::Reason(Reason::TopicFilterInvalid) => "it sent a packet with a filter of topics that is not valid",
            Self::Reason(Reason::PayloadFormatInvalid) => "it sent a packet with text that is not UTF-8",
            Self::Reason(_) => "it sent a packet that is not valid",
        };
        f.write_str(what)
    }
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::InvalidClientId => Self::NoId,
            error => Self::Reason(error.to_reason_code()),
        }
    }
}

impl Codec {
    pub(super) fn new() -> Self {
        Self { version: None, three: v3::Codec::default(), five: v5::Codec::default(), packet_bytes_max: usize::MAX }
    }

    pub(super) fn is_five(&self) -> bool {
        self.version == Some(ProtocolVersion::MQTT5)
    }

    /// Nothing larger is sent from now on.
    pub(super) fn limit(&mut self, packet_bytes_max: usize) {
        self.packet_bytes_max = packet_bytes_max;
    }

    /// How long the packet is that begins here, as soon as that can be known.
    pub(super) fn packet_bytes(&self, input: &[u8]) -> Result<Option<usize>, Fault> {
        let Some((first, rest)) = input.split_first() else { return Ok(None) };
        let kind = first >> 4;
        if (kind == CONNECT) != self.version.is_none() {
            return Err(Fault::Reason(Reason::ProtocolError));
        }
        let mut length = 0;
        for (index, byte) in rest.iter().take(4).enumerate() {
            length |= usize::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                let bytes = 2 + index + length;
                let bytes_max = match kind {
                    PUBLISH => MQTT_PACKET_BYTES_MAX,
                    SUBSCRIBE | UNSUBSCRIBE => MQTT_SUBSCRIBE_BYTES_MAX,
                    _ => MQTT_CONTROL_BYTES_MAX,
                };
                return if bytes > bytes_max { Err(Fault::Reason(Reason::PacketTooLarge)) } else { Ok(Some(bytes)) };
            }
        }
        if rest.len() < 4 { Ok(None) } else { Err(Fault::Reason(Reason::MalformedPacket)) }
    }

    /// Reads a whole packet.
    pub(super) fn decode(&mut self, mut packet: BytesMut) -> Result<Packet, Fault> {
        let version = match self.version {
            Some(version) => version,
            None => match VersionCodec.decode(&mut packet) {
                Ok(Some(version)) => *self.version.insert(version),
                Ok(None) => return Err(Fault::Reason(Reason::MalformedPacket)),
                Err(DecodeError::InvalidProtocol) => return Err(Fault::Version),
                Err(error) => return Err(error.into()),
            },
        };
        let decoded = match version {
            ProtocolVersion::MQTT3 => self.three.decode(&mut packet)?.map(|(packet, _)| lift(packet)),
            ProtocolVersion::MQTT5 => self.five.decode(&mut packet)?.map(|(packet, _)| Ok(packet)),
        };
        decoded.ok_or(Fault::Reason(Reason::MalformedPacket))?
    }

    /// Writes a packet, when it can be said in this version and is not too large for the client; returns whether it was.
    pub(super) fn encode(&mut self, packet: Packet, output: &mut BytesMut) -> bool {
        let before = output.len();
        let encoded = if self.is_five() {
            self.five.encode(packet, output).is_ok()
        } else {
            lower(packet).is_some_and(|packet| self.three.encode(packet, output).is_ok())
        };
        let fits = encoded && output.len() - before <= self.packet_bytes_max;
        if !fits {
            output.truncate(before);
        }
        fits
    }
}

/// A packet of a client of version 3, in version 5.
fn lift(packet: v3::Packet) -> Result<Packet, Fault> {
    Ok(match packet {
        v3::Packet::Connect(connect) => lift_connect(*connect).into(),
        v3::Packet::Publish(publish) => Packet::Publish(publish),
        v3::Packet::PublishAck { packet_id } => Packet::PublishAck(v5::PublishAck { packet_id, ..Default::default() }),
        v3::Packet::PublishReceived { packet_id } => Packet::PublishReceived(v5::PublishAck { packet_id, ..Default::default() }),
        v3::Packet::PublishRelease { packet_id } => Packet::PublishRelease(v5::PublishAck2 { packet_id, ..Default::default() }),
        v3::Packet::PublishComplete { packet_id } => Packet::PublishComplete(v5::PublishAck2 { packet_id, ..Default::default() }),
        v3::Packet::Subscribe { packet_id, topic_filters } => {
            let options = |qos| v5::SubscriptionOptions { qos, ..Default::default() };
            let topic_filters = topic_filters.into_iter().map(|(filter, qos)| (filter, options(qos))).collect();
            Packet::Subscribe(v5::Subscribe { packet_id, id: None, user_properties: Vec::new(), topic_filters })
        }
        v3::Packet::Unsubscribe { packet_id, topic_filters } => {
            Packet::Unsubscribe(v5::Unsubscribe { packet_id, user_properties: Vec::new(), topic_filters })
        }
        v3::Packet::PingRequest => Packet::PingRequest,
        v3::Packet::Disconnect => Packet::Disconnect(v5::Disconnect::new(Reason::NormalDisconnection)),
        v3::Packet::ConnectAck(_) | v3::Packet::SubscribeAck { .. } | v3::Packet::UnsubscribeAck { .. } | v3::Packet::PingResponse => {
            return Err(Fault::Reason(Reason::ProtocolError));
        }
    })
}

fn lift_connect(connect: v3::Connect) -> v5::Connect {
    v5::Connect {
        clean_start: connect.clean_session,
        keep_alive: connect.keep_alive,
        session_expiry_interval_secs: if connect.clean_session { 0 } else { u32::MAX },
        last_will: connect.last_will.map(|will| v5::LastWill {
            qos: will.qos,
            retain: will.retain,
            topic: will.topic,
            message: will.message,
            will_delay_interval_sec: None,
            correlation_data: None,
            message_expiry_interval: None,
            content_type: None,
            user_properties: Vec::new(),
            is_utf8_payload: None,
            response_topic: None,
        }),
        client_id: connect.client_id,
        username: connect.username,
        password: connect.password,
        ..v5::Connect::default()
    }
}

/// A packet of ours in version 3, where that has one for it.
fn lower(packet: Packet) -> Option<v3::Packet> {
    Some(match packet {
        Packet::ConnectAck(ack) => {
            v3::Packet::ConnectAck(v3::ConnectAck { session_present: ack.session_present, return_code: return_code(ack.reason_code) })
        }
        Packet::Publish(publish) => v3::Packet::Publish(publish),
        Packet::PublishAck(ack) => v3::Packet::PublishAck { packet_id: ack.packet_id },
        Packet::PublishReceived(ack) => v3::Packet::PublishReceived { packet_id: ack.packet_id },
        Packet::PublishComplete(ack) => v3::Packet::PublishComplete { packet_id: ack.packet_id },
        Packet::SubscribeAck(ack) => {
            let status = |reason| match reason {
                v5::SubscribeAckReason::GrantedQos0 => v3::SubscribeReturnCode::Success(QoS::AtMostOnce),
                v5::SubscribeAckReason::GrantedQos1 => v3::SubscribeReturnCode::Success(QoS::AtLeastOnce),
                _ => v3::SubscribeReturnCode::Failure,
            };
            v3::Packet::SubscribeAck { packet_id: ack.packet_id, status: ack.status.into_iter().map(status).collect() }
        }
        Packet::UnsubscribeAck(ack) => v3::Packet::UnsubscribeAck { packet_id: ack.packet_id },
        Packet::PingResponse => v3::Packet::PingResponse,
        _ => return None,
    })
}

fn return_code(reason: v5::ConnectAckReason) -> v3::ConnectAckReason {
    use v5::ConnectAckReason as Reason;
    match reason {
        Reason::Success => v3::ConnectAckReason::ConnectionAccepted,
        Reason::UnsupportedProtocolVersion => v3::ConnectAckReason::UnacceptableProtocolVersion,
        Reason::ClientIdentifierNotValid => v3::ConnectAckReason::IdentifierRejected,
        Reason::BadUserNameOrPassword => v3::ConnectAckReason::BadUserNameOrPassword,
        Reason::NotAuthorized => v3::ConnectAckReason::NotAuthorized,
        _ => v3::ConnectAckReason::ServiceUnavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_packet_is_known_by_its_first_bytes_and_has_a_bound_by_its_kind() {
        let mut codec = Codec::new();
        assert_eq!(codec.packet_bytes(&[]), Ok(None));
        assert_eq!(codec.packet_bytes(&[0x10]), Ok(None));
        assert_eq!(codec.packet_bytes(&[0x10, 12]), Ok(Some(14)));
        assert_eq!(
            codec.packet_bytes(&[0x10, 0xff, 0xff, 0x01]),
            Err(Fault::Reason(Reason::PacketTooLarge)),
            "it is not known who sends it"
        );
        assert_eq!(codec.packet_bytes(&[0x30, 2]), Err(Fault::Reason(Reason::ProtocolError)), "the first packet is a CONNECT");
        codec.version = Some(ProtocolVersion::MQTT5);
        assert_eq!(codec.packet_bytes(&[0x10, 12]), Err(Fault::Reason(Reason::ProtocolError)), "and no other is");
        assert_eq!(codec.packet_bytes(&[0x30, 0x80]), Ok(None));
        assert_eq!(codec.packet_bytes(&[0x30, 0x80, 0x01, 7]), Ok(Some(131)));
        assert_eq!(codec.packet_bytes(&[0x30, 0xff, 0xff, 0xff]), Ok(None));
        assert_eq!(codec.packet_bytes(&[0x30, 0xff, 0xff, 0xff, 0xff]), Err(Fault::Reason(Reason::MalformedPacket)));
        assert_eq!(codec.packet_bytes(&[0x30, 0xff, 0xff, 0xff, 0x7f]), Err(Fault::Reason(Reason::PacketTooLarge)));
        assert_eq!(codec.packet_bytes(&[0x82, 0xff, 0xff, 0x02]), Ok(Some(49_155)), "many filters");
        assert_eq!(codec.packet_bytes(&[0x82, 0xff, 0xff, 0x0f]), Err(Fault::Reason(Reason::PacketTooLarge)));
        assert_eq!(codec.packet_bytes(&[0x40, 0xff, 0xff, 0x02]), Err(Fault::Reason(Reason::PacketTooLarge)));
    }
}
