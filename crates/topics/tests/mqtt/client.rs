//! A broker on a log of its own, and a client that says exactly what a test wants.

use std::{collections::VecDeque, num::NonZeroU16, path::Path, sync::Arc, time::Duration};

use bytes::BytesMut;
use edgeward_model::{EdgeError, ErrorKind};
use edgeward_topics::{
    LogOptions, TopicFilter, TopicLog,
    mqtt::{Broker, ClientEvent, ClientEventKind, Identity, Login},
};
use futures::FutureExt;
use parking_lot::Mutex;
use rmqtt_codec::{
    types::{Publish, QoS},
    v3, v5,
    v5::{Connect, ConnectAck, Packet, PublishProperties, SubscriptionOptions},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::timeout,
};
use tokio_util::codec::{Decoder, Encoder};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A broker. Without a name a client may do everything below `a` and `b`; `reader` may subscribe only; `wrong` is not known.
pub(crate) struct Bench {
    place: TempDir,
    /// Who is let in no more.
    pub(crate) banned: Arc<Mutex<Vec<String>>>,
    pub(crate) log: Arc<TopicLog>,
    pub(crate) broker: Broker,
    pub(crate) events: Arc<Mutex<Vec<ClientEvent>>>,
}

fn identify(login: &Login) -> Result<Identity, EdgeError> {
    let filters = |texts: &[&str]| texts.iter().map(|text| TopicFilter::new(text).expect("valid")).collect::<Vec<_>>();
    let user = login.username.clone().unwrap_or_default();
    match user.as_str() {
        "wrong" => Err(EdgeError::new(ErrorKind::Unauthenticated, "not known")),
        "banned" => Err(EdgeError::new(ErrorKind::Forbidden, "not allowed")),
        "reader" => Ok(Identity { user, publish: Vec::new(), subscribe: filters(&["a/#"]) }),
        _ => Ok(Identity { user, publish: filters(&["a/#", "b/#"]), subscribe: filters(&["a/#", "b/#"]) }),
    }
}

fn broker(folder: &Path, events: &Arc<Mutex<Vec<ClientEvent>>>, banned: &Arc<Mutex<Vec<String>>>) -> (Arc<TopicLog>, Broker) {
    let log = Arc::new(TopicLog::open(folder, LogOptions::default()).expect("opens"));
    let told = Arc::clone(events);
    let banned = Arc::clone(banned);
    let authenticate = move |login: Login| -> futures::future::BoxFuture<'static, _> {
        let is_banned = login.username.as_ref().is_some_and(|name| banned.lock().contains(name));
        let banned = || Err(EdgeError::new(ErrorKind::Forbidden, "not allowed any more"));
        Box::pin(async move { if is_banned { banned() } else { identify(&login) } })
    };
    let broker = Broker::new(Arc::clone(&log), Box::new(authenticate), move |event| told.lock().push(event));
    (log, broker)
}

impl Bench {
    pub(crate) fn new() -> Self {
        let place = tempfile::tempdir().expect("temp folder");
        let (events, banned) = (Arc::default(), Arc::default());
        let (log, broker) = broker(place.path(), &events, &banned);
        Self { place, banned, log, broker, events }
    }

    /// Changes the database of the log behind its back.
    pub(crate) fn meddle(&self, statement: &str) {
        let database = rusqlite::Connection::open(self.place.path().join("topics.db")).expect("opens");
        database.execute_batch(statement).expect("changed");
    }

    /// The same after the process was started anew: whoever is connected is cut off without a word.
    pub(crate) fn restart(self) -> Self {
        let Self { place, banned, log, broker, events } = self;
        drop(broker);
        let log = Arc::try_unwrap(log).expect("nobody else has it; drop the clients before");
        drop(log);
        let (log, broker) = self::broker(place.path(), &events, &banned);
        Self { place, banned, log, broker, events }
    }

    /// A stream to the broker.
    pub(crate) fn stream(&self) -> (DuplexStream, tokio::task::JoinHandle<()>) {
        let (ours, theirs) = duplex(64 * 1024);
        (ours, tokio::spawn(self.broker.serve(theirs, "memory".to_owned())))
    }

    /// A client that sent this, and what it was answered.
    pub(crate) async fn connect(&self, is_five: bool, connect: Connect) -> (Client, ConnectAck) {
        let (stream, task) = self.stream();
        let mut client = Client {
            stream,
            is_five,
            three: v3::Codec::default(),
            five: v5::Codec::default(),
            input: BytesMut::new(),
            read: VecDeque::new(),
            task,
        };
        client.send(connect.into()).await;
        match client.next().await {
            Packet::ConnectAck(ack) => (client, *ack),
            other => panic!("{other:?}"),
        }
    }

    /// A client of this id and version that is accepted, of a session that ends with it.
    pub(crate) async fn client(&self, is_five: bool, id: &str) -> Client {
        let (client, ack) = self.connect(is_five, login(id)).await;
        assert_eq!(ack.reason_code, v5::ConnectAckReason::Success);
        client
    }

    /// A client of this id and version whose session stays, and whether there was one.
    pub(crate) async fn staying(&self, is_five: bool, id: &str) -> (Client, bool) {
        let connect = Connect { clean_start: false, session_expiry_interval_secs: 3600, ..login(id) };
        let (client, ack) = self.connect(is_five, connect).await;
        assert_eq!(ack.reason_code, v5::ConnectAckReason::Success);
        (client, ack.session_present)
    }

    /// Whose connections were refused, and why.
    pub(crate) fn refused(&self) -> Vec<(String, String)> {
        let why = |event: &ClientEvent| match &event.kind {
            ClientEventKind::Refused { why } => Some((event.client_id.clone(), why.clone())),
            _ => None,
        };
        self.events.lock().iter().filter_map(why).collect()
    }

    /// Why the last connection ended.
    pub(crate) async fn ended(&self, id: &str) -> (bool, String) {
        let find = || {
            self.events.lock().iter().rev().find_map(|event| match &event.kind {
                ClientEventKind::Disconnected { is_graceful, why } if event.client_id == id => Some((*is_graceful, why.clone())),
                _ => None,
            })
        };
        until("it has ended", async || find().is_some()).await;
        find().expect("it has ended")
    }
}

pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = tokio::time::Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn login(id: &str) -> Connect {
    Connect { client_id: id.into(), clean_start: true, keep_alive: 60, ..Connect::default() }
}

pub(crate) fn message(topic: &str, payload: &str, qos: QoS, packet: u16) -> Publish {
    Publish {
        dup: false,
        retain: false,
        qos,
        topic: topic.into(),
        packet_id: NonZeroU16::new(packet),
        payload: payload.to_owned().into(),
        properties: Some(PublishProperties::default()),
    }
}

pub(crate) struct Client {
    stream: DuplexStream,
    is_five: bool,
    three: v3::Codec,
    five: v5::Codec,
    input: BytesMut,
    read: VecDeque<Packet>,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

impl Client {
    pub(crate) async fn send(&mut self, packet: Packet) {
        let mut output = BytesMut::new();
        if self.is_five {
            self.five.encode(packet, &mut output).expect("valid");
        } else {
            self.three.encode(lower(packet), &mut output).expect("valid");
        }
        self.send_bytes(&output).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        // A connection that ended meanwhile shows when it is read.
        let _ = timeout(DEADLINE, self.stream.write_all(bytes)).await.expect("in time");
    }

    /// The next packet; none at the end.
    pub(crate) async fn try_next(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.read.pop_front() {
                return Some(packet);
            }
            let decoded = if self.is_five {
                self.five.decode(&mut self.input).expect("valid").map(|(packet, _)| packet)
            } else {
                self.three.decode(&mut self.input).expect("valid").map(|(packet, _)| lift(packet))
            };
            if let Some(packet) = decoded {
                return Some(packet);
            }
            let read = timeout(DEADLINE, self.stream.read_buf(&mut self.input)).await.expect("in time");
            if !matches!(read, Ok(1..)) {
                return None;
            }
        }
    }

    /// Reads for as long as something comes at once, and returns how many packets wait then to be given.
    pub(crate) fn read_what_there_is(&mut self) -> usize {
        while let Some(read) = self.stream.read_buf(&mut self.input).now_or_never() {
            if !matches!(read, Ok(1..)) {
                break;
            }
        }
        while let Some((packet, _)) = self.five.decode(&mut self.input).expect("valid") {
            self.read.push_back(packet);
        }
        self.read.len()
    }

    pub(crate) async fn next(&mut self) -> Packet {
        self.try_next().await.expect("the connection is open")
    }

    /// The next message, which it acknowledges when that is to be.
    pub(crate) async fn message(&mut self) -> Publish {
        let publish = self.unacknowledged().await;
        if let Some(packet_id) = publish.packet_id {
            self.send(Packet::PublishAck(v5::PublishAck { packet_id, ..Default::default() })).await;
        }
        publish
    }

    pub(crate) async fn unacknowledged(&mut self) -> Publish {
        match self.next().await {
            Packet::Publish(publish) => *publish,
            other => panic!("{other:?}"),
        }
    }

    /// The payloads of the next messages.
    pub(crate) async fn messages(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..count {
            texts.push(String::from_utf8(self.message().await.payload.to_vec()).expect("text"));
        }
        texts
    }

    /// Says that it is there and hears what came before the answer: nothing.
    pub(crate) async fn nothing_more(&mut self) {
        self.send(Packet::PingRequest).await;
        assert_eq!(self.next().await, Packet::PingResponse);
    }

    pub(crate) async fn subscribe(&mut self, filters: &[(&str, QoS)]) -> Vec<v5::SubscribeAckReason> {
        let options = |qos| SubscriptionOptions { qos, ..Default::default() };
        let filters = filters.iter().map(|(filter, qos)| (*filter, options(*qos))).collect::<Vec<_>>();
        self.subscribe_with(&filters, None).await
    }

    pub(crate) async fn subscribe_with(&mut self, filters: &[(&str, SubscriptionOptions)], id: Option<u32>) -> Vec<v5::SubscribeAckReason> {
        self.send(Packet::Subscribe(v5::Subscribe {
            packet_id: NonZeroU16::MAX,
            id: id.and_then(std::num::NonZeroU32::new),
            user_properties: Vec::new(),
            topic_filters: filters.iter().map(|(filter, options)| ((*filter).into(), *options)).collect(),
        }))
        .await;
        match self.next().await {
            Packet::SubscribeAck(ack) => ack.status,
            other => panic!("{other:?}"),
        }
    }

    /// Publishes with QoS 1 and waits for the answer.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &str) -> v5::PublishAckReason {
        self.publish_with(message(topic, payload, QoS::AtLeastOnce, 7)).await
    }

    pub(crate) async fn publish_with(&mut self, publish: Publish) -> v5::PublishAckReason {
        self.send(publish.into()).await;
        match self.next().await {
            Packet::PublishAck(ack) => ack.reason_code,
            other => panic!("{other:?}"),
        }
    }

    /// Says goodbye, and returns when the broker has heard it.
    pub(crate) async fn leave(mut self) {
        self.send(Packet::Disconnect(v5::Disconnect::new(v5::DisconnectReasonCode::NormalDisconnection))).await;
        self.ended().await;
    }

    /// Breaks off without a word, and returns when the broker has noticed.
    pub(crate) async fn vanish(self) {
        let Self { stream, task, .. } = self;
        drop(stream);
        timeout(DEADLINE, task).await.expect("in time").expect("no panic");
    }

    /// The end of the connection by the broker, and its last word.
    pub(crate) async fn ended(mut self) -> Option<v5::DisconnectReasonCode> {
        let mut last = None;
        while let Some(packet) = self.try_next().await {
            if let Packet::Disconnect(disconnect) = packet {
                last = Some(disconnect.reason_code);
            }
        }
        drop(self.stream);
        timeout(DEADLINE, self.task).await.expect("in time").expect("no panic");
        last
    }
}

/// A packet of a client in version 3.
pub(crate) fn lower(packet: Packet) -> v3::Packet {
    match packet {
        Packet::Connect(connect) => v3::Connect {
            protocol: rmqtt_codec::types::Protocol(4),
            clean_session: connect.clean_start,
            keep_alive: connect.keep_alive,
            last_will: connect.last_will.map(|will| v3::LastWill {
                qos: will.qos,
                retain: will.retain,
                topic: will.topic,
                message: will.message,
            }),
            client_id: connect.client_id,
            username: connect.username,
            password: connect.password,
            cert: None,
        }
        .into(),
        Packet::Publish(publish) => v3::Packet::Publish(publish),
        Packet::PublishAck(ack) => v3::Packet::PublishAck { packet_id: ack.packet_id },
        Packet::PublishRelease(release) => v3::Packet::PublishRelease { packet_id: release.packet_id },
        Packet::Subscribe(subscribe) => v3::Packet::Subscribe {
            packet_id: subscribe.packet_id,
            topic_filters: subscribe.topic_filters.into_iter().map(|(filter, options)| (filter, options.qos)).collect(),
        },
        Packet::Unsubscribe(unsubscribe) => {
            v3::Packet::Unsubscribe { packet_id: unsubscribe.packet_id, topic_filters: unsubscribe.topic_filters }
        }
        Packet::PingRequest => v3::Packet::PingRequest,
        Packet::Disconnect(_) => v3::Packet::Disconnect,
        other => panic!("no packet of a client: {other:?}"),
    }
}

/// A packet of a broker of version 3 in version 5.
fn lift(packet: v3::Packet) -> Packet {
    match packet {
        v3::Packet::ConnectAck(ack) => {
            let reason_code = match ack.return_code {
                v3::ConnectAckReason::ConnectionAccepted => v5::ConnectAckReason::Success,
                v3::ConnectAckReason::BadUserNameOrPassword => v5::ConnectAckReason::BadUserNameOrPassword,
                v3::ConnectAckReason::NotAuthorized => v5::ConnectAckReason::NotAuthorized,
                v3::ConnectAckReason::IdentifierRejected => v5::ConnectAckReason::ClientIdentifierNotValid,
                v3::ConnectAckReason::UnacceptableProtocolVersion => v5::ConnectAckReason::UnsupportedProtocolVersion,
                _ => v5::ConnectAckReason::ServerUnavailable,
            };
            Packet::ConnectAck(Box::new(ConnectAck { reason_code, session_present: ack.session_present, ..Default::default() }))
        }
        v3::Packet::Publish(publish) => Packet::Publish(publish),
        v3::Packet::PublishAck { packet_id } => Packet::PublishAck(v5::PublishAck { packet_id, ..Default::default() }),
        v3::Packet::PublishReceived { packet_id } => Packet::PublishReceived(v5::PublishAck { packet_id, ..Default::default() }),
        v3::Packet::PublishComplete { packet_id } => Packet::PublishComplete(v5::PublishAck2 { packet_id, ..Default::default() }),
        v3::Packet::SubscribeAck { packet_id, status } => {
            let status = status.into_iter().map(|status| match status {
                v3::SubscribeReturnCode::Success(QoS::AtMostOnce) => v5::SubscribeAckReason::GrantedQos0,
                v3::SubscribeReturnCode::Success(QoS::AtLeastOnce) => v5::SubscribeAckReason::GrantedQos1,
                v3::SubscribeReturnCode::Success(QoS::ExactlyOnce) => v5::SubscribeAckReason::GrantedQos2,
                v3::SubscribeReturnCode::Failure => v5::SubscribeAckReason::UnspecifiedError,
            });
            Packet::SubscribeAck(v5::SubscribeAck { packet_id, properties: Vec::new(), reason_string: None, status: status.collect() })
        }
        v3::Packet::UnsubscribeAck { packet_id } => {
            Packet::UnsubscribeAck(v5::UnsubscribeAck { packet_id, properties: Vec::new(), reason_string: None, status: Vec::new() })
        }
        v3::Packet::PingResponse => Packet::PingResponse,
        other => panic!("no packet of a broker: {other:?}"),
    }
}
