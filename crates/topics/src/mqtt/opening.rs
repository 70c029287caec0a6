//! The beginning of a connection: who the client is, and which session is its.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use bytes::Bytes;
use edgeward_model::{
    EdgeError, ErrorKind,
    limits::{
        MQTT_CLIENT_ID_BYTES_MAX, MQTT_CONNECT_TIMEOUT, MQTT_KEEP_ALIVE_MAX, MQTT_PACKET_BYTES_MAX, MQTT_RECEIVE_MAX,
        MQTT_SESSION_EXPIRY_MAX,
    },
};
use jiff::Timestamp;
use rmqtt_codec::v5::{Connect, ConnectAck, ConnectAckReason, Packet};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{
    broker::{Client, Login, Place, Shared, has_expired, publisher, session_name},
    codec::Fault,
    session::{Data, Session},
    will::Will,
    wire::Wire,
};
use crate::{
    log::durable,
    subscriber::{Start, Subscription},
};

/// A connection that is accepted.
pub(super) struct Opened {
    pub(super) place: Place,
    pub(super) session: Session,
    /// The durable subscription that the session is on disk, unless it ends with the connection.
    pub(super) durable: Option<String>,
    /// Up to where the client of it has everything.
    pub(super) acknowledged: u64,
    pub(super) subscription: Subscription,
    pub(super) will: Option<Will>,
    /// Messages that the client takes before it acknowledges.
    pub(super) receive_max: u16,
    pub(super) silence_max: Duration,
}

/// Why a client is refused: what it is told, and what the log says.
struct Refused(ConnectAckReason, String);

impl From<EdgeError> for Refused {
    fn from(error: EdgeError) -> Self {
        let reason = match error.kind() {
            ErrorKind::Unauthenticated => ConnectAckReason::BadUserNameOrPassword,
            ErrorKind::Forbidden => ConnectAckReason::NotAuthorized,
            ErrorKind::Overloaded => ConnectAckReason::ServerBusy,
            ErrorKind::TooLarge => ConnectAckReason::QuotaExceeded,
            _ => ConnectAckReason::ServerUnavailable,
        };
        Self(reason, error.chain())
    }
}

/// Reads the first packet, and accepts the client or refuses it: then this is its id, if it had said one, and why.
pub(super) async fn open<S: AsyncRead + AsyncWrite>(
    shared: &Arc<Shared>,
    wire: &mut Wire<S>,
    peer: &str,
) -> Result<Opened, (String, String)> {
    let nameless = |why: String| (String::new(), why);
    let connect = match timeout(MQTT_CONNECT_TIMEOUT, wire.first_packet()).await {
        Ok(Ok(Some(Packet::Connect(connect)))) => *connect,
        Ok(Ok(_)) => return Err(nameless("it closed the connection before it said who it is".to_owned())),
        Ok(Err(fault)) => {
            let reason = match fault {
                Fault::Version => Some(ConnectAckReason::UnsupportedProtocolVersion),
                Fault::NoId => Some(ConnectAckReason::ClientIdentifierNotValid),
                Fault::Reason(_) => None,
            };
            if let Some(reason) = reason {
                refuse(wire, reason);
            }
            return Err(nameless(fault.to_string()));
        }
        Err(_) => return Err(nameless("it did not say who it is in time".to_owned())),
    };
    let client_id = connect.client_id.to_string();
    if let Some(bytes) = connect.max_packet_size {
        wire.codec.limit(usize::try_from(bytes.get()).unwrap_or(usize::MAX));
    }
    let is_five = wire.codec.is_five();
    match accept(shared, connect, is_five, peer).await {
        Ok((opened, ack)) => {
            wire.send(Packet::ConnectAck(Box::new(ack)));
            Ok(opened)
        }
        Err(Refused(reason, why)) => {
            refuse(wire, reason);
            Err((client_id, why))
        }
    }
}

fn refuse<S: AsyncRead + AsyncWrite>(wire: &mut Wire<S>, reason_code: ConnectAckReason) {
    wire.send(Packet::ConnectAck(Box::new(ConnectAck { reason_code, ..Default::default() })));
}

async fn accept(shared: &Arc<Shared>, connect: Connect, is_five: bool, peer: &str) -> Result<(Opened, ConnectAck), Refused> {
    if connect.auth_method.is_some() {
        return Err(Refused(ConnectAckReason::BadAuthenticationMethod, "it asks for an authentication method".to_owned()));
    }
    if *shared.is_stopping.borrow() {
        return Err(Refused(ConnectAckReason::ServerUnavailable, "the broker stops".to_owned()));
    }
    let is_assigned = connect.client_id.is_empty();
    let client_id = if is_assigned { drawn_id()? } else { connect.client_id.to_string() };
    if client_id.len() > MQTT_CLIENT_ID_BYTES_MAX || client_id.chars().any(char::is_control) {
        let why = format!("its id is longer than {MQTT_CLIENT_ID_BYTES_MAX} bytes or has a control character");
        return Err(Refused(ConnectAckReason::ClientIdentifierNotValid, why));
    }
    let login = Login {
        client_id: client_id.clone(),
        username: connect.username.map(|name| name.to_string()),
        // A copy, as it lies in the packet, and stays.
        password: connect.password.map(|password| Bytes::copy_from_slice(&password)),
        peer: peer.to_owned(),
    };
    let identity = timeout(MQTT_CONNECT_TIMEOUT, (shared.authenticate)(login.clone())).await;
    let identity = identity.map_err(|_| Refused(ConnectAckReason::ServerBusy, "who it is was not known in time".to_owned()))??;
    let publisher = publisher(&identity.user, &client_id);
    let will = connect.last_will.map(|will| Will::new(will, &publisher, Timestamp::now())).transpose();
    let will = will.map_err(|error: EdgeError| {
        let reason = if error.kind() == ErrorKind::TooLarge { ConnectAckReason::QuotaExceeded } else { ConnectAckReason::TopicNameInvalid };
        Refused(reason, error.chain())
    })?;
    if will.as_ref().is_some_and(|will| !will.is_allowed(&identity)) {
        return Err(Refused(ConnectAckReason::NotAuthorized, "its will is for a topic where it may not publish".to_owned()));
    }
    let name = session_name(&identity.user, &client_id);
    durable::check(&name, &[], &[]).map_err(|error| Refused(ConnectAckReason::ClientIdentifierNotValid, error.chain()))?;

    let place = shared.enter(identity, login, connect.clean_start).await?;
    let asked = Duration::from_secs(connect.session_expiry_interval_secs.into());
    let expiry = asked.min(MQTT_SESSION_EXPIRY_MAX);
    let (session, durable, acknowledged, is_present) =
        find_session(shared, &place.client, &name, publisher, expiry, connect.clean_start).await?;
    let start = if is_present { Start::At(acknowledged + 1) } else { Start::Now };
    let subscription = shared.log.subscribe(&session.filters(), start)?;

    let keep_alive = Duration::from_secs(connect.keep_alive.into());
    // A client of version 3 cannot be told that it gets less than it asks for.
    let most = if is_five { MQTT_KEEP_ALIVE_MAX } else { Duration::from_secs(u16::MAX.into()) };
    let granted = if keep_alive.is_zero() { most } else { keep_alive.min(most) };
    let seconds = |duration: Duration| u16::try_from(duration.as_secs()).unwrap_or(u16::MAX);
    let ack = ConnectAck {
        session_present: is_present,
        session_expiry_interval_secs: (is_five && asked > expiry).then(|| u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX)),
        receive_max: NonZeroU16::new(MQTT_RECEIVE_MAX).expect("the bound is not 0"),
        max_packet_size: u32::try_from(MQTT_PACKET_BYTES_MAX).ok(),
        assigned_client_id: is_assigned.then(|| client_id.into()),
        shared_subscription_available: false,
        server_keepalive_sec: (granted != keep_alive).then(|| seconds(granted)),
        ..Default::default()
    };
    let opened = Opened {
        place,
        session,
        durable,
        acknowledged,
        subscription,
        will,
        receive_max: connect.receive_max.map_or(u16::MAX, NonZeroU16::get),
        silence_max: granted.mul_f64(1.5),
    };
    Ok((opened, ack))
}

/// The session of the client: the one that there is, unless it begins anew, or a new one.
async fn find_session(
    shared: &Arc<Shared>,
    client: &Client,
    name: &str,
    publisher: String,
    expiry: Duration,
    is_clean: bool,
) -> Result<(Session, Option<String>, u64, bool), EdgeError> {
    let (log, now) = (&shared.log, Timestamp::now());
    let mut kept = None;
    if let Some(stored) = log.durable(name).await? {
        match Data::read(name, &stored.data) {
            Ok(data) if !is_clean && !has_expired(stored.used_clock, Duration::from_secs(data.expiry_s), log.clock()) => {
                kept = Some((data, stored));
            }
            read => {
                if let Err(error) = read {
                    tracing::warn!(client = client.login.client_id, error = error.chain(), "a session of MQTT begins anew");
                }
                log.remove_durable(name).await?;
            }
        }
    }
    let is_present = kept.is_some();
    let mut session = Session::new(client.login.client_id.clone(), publisher, expiry, log.state().head);
    let mut acknowledged = session.away_until;
    if let Some((data, stored)) = kept {
        acknowledged = stored.acknowledged;
        // What it may do can have changed meanwhile.
        session.subscriptions = data.subscriptions.into_iter().filter(|own| client.identity.may_subscribe(&own.filter)).collect();
        session.received = log.received(name).await?.into_iter().map(|packet| (packet, true)).collect();
    }
    if expiry.is_zero() && !is_present {
        return Ok((session, None, acknowledged, false));
    }
    log.put_durable(name, session.filters(), session.data(), now).await?;
    Ok((session, Some(name.to_owned()), acknowledged, is_present))
}

/// An id for a client that has none.
fn drawn_id() -> Result<String, EdgeError> {
    let mut bytes = [0; 12];
    let drawn = getrandom::fill(&mut bytes);
    drawn.map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to draw an id for a client").with_source(error))?;
    Ok(format!("auto-{}", data_encoding::HEXLOWER.encode(&bytes)))
}
