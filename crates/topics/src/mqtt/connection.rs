//! One connection from its first packet to its will.

use std::{
    collections::VecDeque,
    future::pending,
    io,
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::Duration,
};

use bytestring::ByteString;
use edgeward_model::{
    EdgeError, ErrorKind,
    limits::{MQTT_ACKNOWLEDGE_EVERY, MQTT_IN_FLIGHT_MAX, MQTT_RECEIVE_MAX, MQTT_SESSION_EXPIRY_MAX},
};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use rmqtt_codec::{
    types::{Publish, QoS},
    v5::{
        Disconnect, Packet, PublishAck, PublishAck2, PublishAck2Reason, PublishAckReason, Subscribe, SubscribeAck, SubscribeAckReason,
        SubscriptionOptions, Unsubscribe, UnsubscribeAck, UnsubscribeAckReason,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    broker::{ClientEvent, ClientEventKind, Counts, Place, Shared, Told},
    codec::{Fault, Reason},
    message,
    opening::{Opened, open},
    retained::{Page, Retained},
    room::Room,
    session::{Granted, Outgoing, Session, Subscribed, sends_retained},
    will::Will,
    wire::Wire,
};
use crate::{
    log::Pending,
    message::Message,
    subscriber::{Received, Subscription},
    topic::TopicFilter,
};

/// How a connection ends.
struct End {
    /// Whether the client said so itself, so that its will is not published.
    is_graceful: bool,
    /// What it is told, where its version has a word for it.
    reason: Option<Reason>,
    why: String,
}

impl End {
    fn new(reason: Reason, why: impl Into<String>) -> Self {
        Self { is_graceful: false, reason: Some(reason), why: why.into() }
    }

    fn silent(why: impl Into<String>) -> Self {
        Self { is_graceful: false, reason: None, why: why.into() }
    }
}

impl From<EdgeError> for End {
    fn from(error: EdgeError) -> Self {
        Self::new(Reason::UnspecifiedError, error.chain())
    }
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        let why = fault.to_string();
        match fault {
            Fault::Version | Fault::NoId => Self::silent(why),
            Fault::Reason(reason) => Self::new(reason, why),
        }
    }
}

impl From<Told> for End {
    fn from(told: Told) -> Self {
        match told {
            Told::Replaced { .. } => Self::new(Reason::SessionTakenOver, "another connection took its place"),
            Told::Refused(why) => Self::new(Reason::NotAuthorized, why),
        }
    }
}

/// What is answered when its turn comes.
enum Answer {
    /// After a commit.
    Published(NonZeroU16),
    Received(NonZeroU16),
    Complete(NonZeroU16),
    /// This, which waits for no commit of its own.
    Said(Packet),
}

struct Connection<S> {
    shared: Arc<Shared>,
    wire: Wire<S>,
    place: Place,
    told: watch::Receiver<Option<Told>>,
    session: Session,
    /// The durable subscription that the session is on disk, unless it ends with the connection.
    durable: Option<String>,
    subscription: Subscription,
    /// What is to be answered, in the order in which it came, and the commits that it waits for.
    committing: VecDeque<(Answer, Option<Pending<u64>>)>,
    retained: Retained,
    /// A message for which there was no room.
    held_up: Option<Outgoing>,
    in_flight_max: usize,
    silence_max: Duration,
    heard_at: Instant,
    /// Messages that were dropped as the client was too slow, as far as they were counted.
    dropped: u64,
    is_stopping: watch::Receiver<bool>,
    /// Up to where the session on disk is.
    saved: u64,
    save_at: Instant,
    saving: Option<BoxFuture<'static, Result<u64, EdgeError>>>,
}

/// What a connection waited for.
enum Woke {
    Ends(End),
    Moved(io::Result<bool>),
    Committed(Answer, Result<u64, EdgeError>),
    Received(Result<Received, EdgeError>),
    Read(Page),
    Saved(Result<u64, EdgeError>),
    ToSave,
}

/// Serves one connection to its end, and until its will is published.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Send>(shared: Arc<Shared>, stream: S, peer: String) {
    let refused = |client_id, why| {
        Counts::add(&shared.counts.refused, 1);
        shared.tell(ClientEvent { client_id, user: String::new(), peer: peer.clone(), kind: ClientEventKind::Refused { why } });
    };
    let Ok(permit) = shared.connections.try_acquire() else {
        return refused(String::new(), "as many clients as may be are connected".to_owned());
    };
    let mut wire = Wire::new(stream, Arc::clone(&shared.large), Room::new(Arc::clone(&shared.sending)));
    let opened = match open(&shared, &mut wire, &peer).await {
        Ok(opened) => opened,
        Err((client_id, why)) => {
            refused(client_id, why);
            wire.close().await;
            return;
        }
    };
    let (client_id, user) = (opened.session.client_id.clone(), opened.place.client.identity.user.clone());
    let tell = |kind| shared.tell(ClientEvent { client_id: client_id.clone(), user: user.clone(), peer: peer.clone(), kind });
    tell(ClientEventKind::Connected);
    let (mut connection, will) = Connection::new(&shared, wire, opened);
    let end = loop {
        if let Err(end) = connection.turn().await {
            break end;
        }
    };
    if let Err(error) = connection.leave().await {
        tracing::warn!(client = client_id, error = %error.chain(), "a session of MQTT could not be kept");
    }
    tracing::debug!(client = client_id, why = end.why, "a client of MQTT has gone");
    tell(ClientEventKind::Disconnected { is_graceful: end.is_graceful, why: end.why });
    let Connection { mut wire, mut place, session, .. } = connection;
    place.end();
    if let Some(reason) = end.reason {
        wire.send(Packet::Disconnect(Disconnect::new(reason)));
    }
    let closing = async {
        wire.close().await;
        drop(permit);
    };
    let leaving = async {
        if let Some(will) = will.filter(|_| !end.is_graceful) {
            leave_will(&shared, will, &place, session.expiry).await;
        }
    };
    tokio::join!(closing, leaving);
}

/// Publishes a will when its time has come, or the session ends; not when its client is back before and goes on with the session.
async fn leave_will(shared: &Shared, will: Will, place: &Place, expiry: Duration) {
    let delay = will.delay.min(expiry);
    if !delay.is_zero() {
        let (mut told, mut is_stopping) = (place.client.told.subscribe(), shared.is_stopping.subscribe());
        let waiting = async {
            // Where too many wait, it does not.
            if let Ok(_waits) = shared.wills.try_acquire() {
                sleep(delay).await;
            }
        };
        tokio::select! {
            biased;
            is_anew = replaced(&mut told) => if !is_anew { return },
            _ = is_stopping.wait_for(|is_stopping| *is_stopping) => {}
            () = waiting => {}
        }
    }
    if let Err(error) = will.publish(&shared.log, Timestamp::now()).await {
        tracing::warn!(error = %error.chain(), "the will of a client of MQTT could not be published");
    }
}

impl<S: AsyncRead + AsyncWrite + Send> Connection<S> {
    fn new(shared: &Arc<Shared>, wire: Wire<S>, opened: Opened) -> (Self, Option<Will>) {
        let Opened { place, session, durable, acknowledged, subscription, will, receive_max, silence_max } = opened;
        let connection = Self {
            shared: Arc::clone(shared),
            wire,
            told: place.client.told.subscribe(),
            place,
            session,
            durable,
            subscription,
            committing: VecDeque::new(),
            retained: Retained::default(),
            held_up: None,
            in_flight_max: receive_max.min(MQTT_IN_FLIGHT_MAX).into(),
            silence_max,
            heard_at: Instant::now(),
            dropped: 0,
            is_stopping: shared.is_stopping.subscribe(),
            saved: acknowledged,
            save_at: Instant::now() + MQTT_ACKNOWLEDGE_EVERY,
            saving: None,
        };
        (connection, will)
    }

    /// Does all that can be done now, and waits for more.
    async fn turn(&mut self) -> Result<(), End> {
        while self.may_read() {
            let Some(packet) = self.wire.next_packet()? else { break };
            self.heard_at = Instant::now();
            self.receive(packet).await?;
            // What it sent may be for itself, and it does not wait for itself.
            self.give();
        }
        self.give();
        let dropped = self.subscription.dropped();
        Counts::add(&self.shared.counts.dropped, dropped - std::mem::replace(&mut self.dropped, dropped));
        self.retained.begin_to_read(&self.shared.log);
        match self.wait().await {
            Woke::Ends(end) => return Err(end),
            Woke::Moved(Ok(true)) | Woke::Saved(Err(_)) => {}
            Woke::Moved(Ok(false)) => return Err(End::silent("it closed the connection without a word")),
            Woke::Moved(Err(error)) => return Err(End::silent(format!("the connection broke: {error}"))),
            Woke::Committed(answer, result) => {
                self.answer(answer, result)?;
                // One commit is that of many.
                while let Some((answer, result)) = first(&mut self.committing).now_or_never() {
                    self.answer(answer, result)?;
                }
            }
            Woke::Received(received) => self.take(received?),
            Woke::Read(read) => self.retained.turn(read?),
            Woke::Saved(Ok(position)) => self.saved = self.saved.max(position),
            Woke::ToSave => self.save(),
        }
        Ok(())
    }

    async fn wait(&mut self) -> Woke {
        let (may_read, may_follow, is_to_save) = (self.may_read(), self.may_give() && self.retained.is_empty(), self.is_to_save());
        if !may_read {
            // Whatever it says, we do not listen.
            self.heard_at = Instant::now();
        }
        let silence = self.heard_at + self.silence_max;
        let deadline = self.wire.deadline().map_or(silence, |deadline| deadline.min(silence));
        tokio::select! {
            biased;
            told = told(&mut self.told) => Woke::Ends(told.into()),
            _ = self.is_stopping.wait_for(|is_stopping| *is_stopping) => Woke::Ends(End::new(Reason::ServerShuttingDown, "the broker stops")),
            () = sleep_until(deadline) => Woke::Ends(End::new(Reason::KeepAliveTimeout, "nothing came from it, or it took nothing, for too long")),
            (answer, result) = first(&mut self.committing) => Woke::Committed(answer, result),
            read = self.retained.read() => Woke::Read(read),
            saved = ready(&mut self.saving) => Woke::Saved(saved),
            () = sleep_until(self.save_at), if is_to_save => Woke::ToSave,
            // Of these two each could keep the other from its turn for ever, but what is received takes room, which ends.
            received = self.subscription.next(), if may_follow => Woke::Received(received),
            moved = self.wire.advance(may_read) => Woke::Moved(moved),
        }
    }

    fn may_read(&self) -> bool {
        self.wire.has_room() && self.committing.len() < MQTT_RECEIVE_MAX.into()
    }

    fn may_give(&self) -> bool {
        self.held_up.is_none() && self.wire.has_room() && self.session.in_flight() < self.in_flight_max
    }

    async fn receive(&mut self, packet: Packet) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => self.publish(&publish).await,
            Packet::PublishAck(ack) => {
                self.session.finish(ack.packet_id.get());
                Ok(())
            }
            Packet::PublishRelease(release) => self.release(release.packet_id).await,
            Packet::Subscribe(subscribe) => self.subscribe(subscribe).await,
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe).await,
            Packet::PingRequest => {
                self.wire.send(Packet::PingResponse);
                Ok(())
            }
            Packet::Disconnect(disconnect) => Err(self.disconnect(&disconnect)),
            _ => Err(End::new(Reason::ProtocolError, "it sent a packet that is not a client's, or not its turn")),
        }
    }

    async fn publish(&mut self, publish: &Publish) -> Result<(), End> {
        if let Some(properties) = &publish.properties {
            if properties.topic_alias.is_some() {
                return Err(End::new(Reason::TopicAliasInvalid, "it used a topic alias, and none is allowed"));
            }
            if !properties.subscription_ids.is_empty() {
                return Err(End::new(Reason::ProtocolError, "it published with the identifier of a subscription"));
            }
        }
        let message = message::received(publish, &self.session.publisher, Timestamp::now());
        let message = message.map_err(|error| End::new(Reason::TopicNameInvalid, error.chain()))?;
        if !self.place.client.identity.may_publish(&message.topic) {
            let why = format!("it may not publish to topic `{}`", message.topic);
            return self.refuse(publish, PublishAckReason::NotAuthorized, Reason::NotAuthorized, why);
        }
        if let Err(error) = message.check() {
            return self.refuse(publish, PublishAckReason::QuotaExceeded, Reason::QuotaExceeded, error.chain());
        }
        Counts::add(&self.shared.counts.received, 1);
        let log = &self.shared.log;
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(packet)) => {
                let pending = log.enqueue(message).await?;
                self.committing.push_back((Answer::Published(packet), Some(pending)));
            }
            (QoS::ExactlyOnce, Some(packet)) => match self.session.received.get(&packet.get()) {
                Some(true) => self.say_in_turn(received(packet, PublishAckReason::Success)),
                // It is answered when it is committed.
                Some(false) => {}
                None if self.session.received.len() >= MQTT_RECEIVE_MAX.into() => {
                    return Err(End::new(Reason::ReceiveMaximumExceeded, "it releases none of its packets"));
                }
                None => {
                    let pending = match &self.durable {
                        Some(name) => log.receive_once(name, packet.get(), message).await?,
                        None => log.enqueue(message).await?,
                    };
                    self.session.received.insert(packet.get(), false);
                    self.committing.push_back((Answer::Received(packet), Some(pending)));
                }
            },
            _ => {
                if message.retain {
                    // Nobody is told whether that succeeds.
                    drop(log.enqueue_retained(message.clone()).await?);
                }
                log.publish_live(message).await?;
            }
        }
        Ok(())
    }

    /// Refuses one message, where the version has a word for it; else the connection.
    fn refuse(&mut self, publish: &Publish, reason: PublishAckReason, end: Reason, why: String) -> Result<(), End> {
        Counts::add(&self.shared.counts.received_refused, 1);
        if !self.wire.codec.is_five() {
            return Err(End::new(end, why));
        }
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(packet)) => self.say_in_turn(published(packet, reason)),
            (QoS::ExactlyOnce, Some(packet)) => self.say_in_turn(received(packet, reason)),
            _ => {}
        }
        Ok(())
    }

    /// Answers after those messages are answered that came before.
    fn say_in_turn(&mut self, packet: Packet) {
        if self.committing.is_empty() {
            self.wire.send(packet);
        } else {
            self.committing.push_back((Answer::Said(packet), None));
        }
    }

    async fn release(&mut self, packet: NonZeroU16) -> Result<(), End> {
        let was_received = self.session.received.remove(&packet.get()).is_some();
        match &self.durable {
            Some(name) if was_received => {
                let pending = self.shared.log.release(name, packet.get()).await?;
                self.committing.push_back((Answer::Complete(packet), Some(pending)));
            }
            _ => {
                let reason = if was_received { PublishAck2Reason::Success } else { PublishAck2Reason::PacketIdNotFound };
                self.wire.send(complete(packet, reason));
            }
        }
        Ok(())
    }

    /// Answers after a commit, or after one that failed.
    fn answer(&mut self, answer: Answer, result: Result<u64, EdgeError>) -> Result<(), End> {
        let reason = match result {
            Ok(_) => PublishAckReason::Success,
            Err(error) => {
                tracing::warn!(client = self.session.client_id, error = %error.chain(), "a message from a client of MQTT could not be kept");
                // A refusal is for good: the client does not send again what was refused, but what was not answered, when it is back.
                if !self.wire.codec.is_five() || error.kind() != ErrorKind::TooLarge {
                    return Err(error.into());
                }
                PublishAckReason::QuotaExceeded
            }
        };
        let is_done = reason == PublishAckReason::Success;
        let packet = match answer {
            Answer::Published(packet) => published(packet, reason),
            Answer::Received(packet) => {
                if !is_done {
                    self.session.received.remove(&packet.get());
                } else if let Some(is_durable) = self.session.received.get_mut(&packet.get()) {
                    *is_durable = true;
                }
                received(packet, reason)
            }
            Answer::Said(packet) => packet,
            Answer::Complete(packet) if is_done => complete(packet, PublishAck2Reason::Success),
            Answer::Complete(_) => return Err(End::new(Reason::UnspecifiedError, "a release could not be kept")),
        };
        self.wire.send(packet);
        Ok(())
    }

    async fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), End> {
        let mut begun = Vec::new();
        let mut status = Vec::with_capacity(subscribe.topic_filters.len());
        for (filter, options) in subscribe.topic_filters {
            match self.subscribe_one(&filter, options, subscribe.id) {
                Ok((subscribed, is_new)) => {
                    status.push(if subscribed.qos() == QoS::AtMostOnce {
                        SubscribeAckReason::GrantedQos0
                    } else {
                        SubscribeAckReason::GrantedQos1
                    });
                    if sends_retained(options.retain_handling, is_new) {
                        begun.push(subscribed);
                    }
                }
                Err(reason) => status.push(reason),
            }
        }
        self.store().await?;
        for subscribed in begun {
            self.retained.add(subscribed);
        }
        self.wire.send(Packet::SubscribeAck(SubscribeAck {
            packet_id: subscribe.packet_id,
            properties: Vec::new(),
            reason_string: None,
            status,
        }));
        Ok(())
    }

    fn subscribe_one(
        &mut self,
        filter: &ByteString,
        options: SubscriptionOptions,
        id: Option<NonZeroU32>,
    ) -> Result<(Subscribed, bool), SubscribeAckReason> {
        if filter.starts_with("$share/") {
            return Err(SubscribeAckReason::SharedSubscriptionNotSupported);
        }
        let filter = TopicFilter::new(filter).map_err(|_| SubscribeAckReason::TopicFilterInvalid)?;
        if !self.place.client.identity.may_subscribe(&filter) {
            return Err(SubscribeAckReason::NotAuthorized);
        }
        self.subscription.add(&filter).map_err(|_| SubscribeAckReason::QuotaExceeded)?;
        let subscribed = Subscribed::new(filter, options, id);
        let is_new = self.session.subscribe(subscribed.clone());
        Ok((subscribed, is_new))
    }

    async fn unsubscribe(&mut self, unsubscribe: Unsubscribe) -> Result<(), End> {
        let mut end = |text: &ByteString| {
            let Ok(filter) = TopicFilter::new(text) else { return UnsubscribeAckReason::TopicFilterInvalid };
            self.subscription.remove(&filter);
            self.retained.forget(|own| *own == filter);
            if self.session.unsubscribe(&filter) { UnsubscribeAckReason::Success } else { UnsubscribeAckReason::NoSubscriptionExisted }
        };
        let status = unsubscribe.topic_filters.iter().map(&mut end).collect();
        self.store().await?;
        self.wire.send(Packet::UnsubscribeAck(UnsubscribeAck {
            packet_id: unsubscribe.packet_id,
            properties: Vec::new(),
            reason_string: None,
            status,
        }));
        Ok(())
    }

    fn disconnect(&mut self, disconnect: &Disconnect) -> End {
        if let Some(seconds) = disconnect.session_expiry_interval_secs {
            if self.session.expiry.is_zero() && seconds > 0 {
                return End::new(Reason::ProtocolError, "it asked for its session to be kept only at its end");
            }
            self.session.expiry = Duration::from_secs(seconds.into()).min(MQTT_SESSION_EXPIRY_MAX);
        }
        let is_graceful = disconnect.reason_code == Reason::NormalDisconnection;
        End { is_graceful, reason: None, why: "it said goodbye".to_owned() }
    }

    /// Sends what there is, as far as there is room.
    fn give(&mut self) {
        match self.held_up.take() {
            Some(outgoing) if outgoing.message.has_expired(Timestamp::now()) => {
                self.wire.give_up_room();
                if let Some(packet) = outgoing.packet {
                    self.session.finish(packet.get());
                }
            }
            Some(outgoing) => self.send(outgoing),
            None => {}
        }
        while self.may_give() {
            // What is retained comes before what is new, so that the newest value of a topic comes last.
            if let Some((message, subscribed)) = self.retained.pop() {
                let granted = self.session.grant_retained(&message, subscribed).filter(|_| !message.has_expired(Timestamp::now()));
                if let Some(granted) = granted {
                    self.begin(message, granted, None);
                }
                continue;
            }
            if !self.retained.is_empty() {
                return;
            }
            let Some(received) = self.subscription.try_next() else { return };
            self.take(received);
        }
    }

    fn take(&mut self, received: Received) {
        match received {
            Received::Message(message) if message.has_expired(Timestamp::now()) => {}
            Received::Message(message) => {
                if let Some(granted) = self.session.grant(&message) {
                    let position = message.position;
                    self.begin(message, granted, position);
                }
            }
            Received::Lost(lost) => {
                tracing::warn!(client = self.session.client_id, lost, "messages were gone before a client of MQTT could get them");
            }
        }
    }

    fn begin(&mut self, message: Arc<Message>, granted: Granted, position: Option<u64>) {
        let packet = (granted.qos != QoS::AtMostOnce).then(|| self.session.begin(position));
        self.send(Outgoing { message, granted, packet });
    }

    /// Sends a message, or holds it until there is room for it.
    fn send(&mut self, outgoing: Outgoing) {
        if !self.wire.make_room(outgoing.bytes()) {
            self.held_up = Some(outgoing);
            return;
        }
        let Outgoing { message, granted, packet } = outgoing;
        let Granted { qos, retain, ids } = granted;
        let mut publish = message::sent(&message, qos, retain, ids, Timestamp::now());
        publish.packet_id = packet;
        if self.wire.send(Packet::Publish(Box::new(publish))) {
            Counts::add(&self.shared.counts.sent, 1);
        } else {
            Counts::add(&self.shared.counts.dropped, 1);
            self.wire.give_up_room();
            if let Some(packet) = packet {
                self.session.finish(packet.get());
            }
        }
    }

    /// Up to where the client has everything.
    fn floor(&self) -> u64 {
        self.session.floor().unwrap_or_else(|| self.subscription.position())
    }

    fn is_to_save(&self) -> bool {
        self.durable.is_some() && self.saving.is_none() && self.floor() > self.saved
    }

    fn save(&mut self) {
        let Some(name) = self.durable.clone() else { return };
        let (log, position) = (Arc::clone(&self.shared.log), self.floor());
        self.save_at = Instant::now() + MQTT_ACKNOWLEDGE_EVERY;
        self.saving = Some(Box::pin(async move {
            let saved = log.acknowledge(&name, position, Timestamp::now()).await;
            saved.inspect_err(|error| tracing::warn!(error = %error.chain(), "a session of MQTT could not be kept")).map(|()| position)
        }));
    }

    /// Makes the subscriptions of the session durable.
    async fn store(&mut self) -> Result<(), EdgeError> {
        if let Some(name) = &self.durable {
            self.shared.log.put_durable(name, self.session.filters(), self.session.data(), Timestamp::now()).await?;
        }
        Ok(())
    }

    /// Leaves the session on disk in order.
    async fn leave(&mut self) -> Result<(), EdgeError> {
        let Some(name) = self.durable.clone() else { return Ok(()) };
        let log = Arc::clone(&self.shared.log);
        if self.session.expiry.is_zero() {
            return log.remove_durable(&name).await.map(drop);
        }
        self.store().await?;
        log.acknowledge(&name, self.floor(), Timestamp::now()).await
    }
}

fn published(packet_id: NonZeroU16, reason_code: PublishAckReason) -> Packet {
    Packet::PublishAck(PublishAck { packet_id, reason_code, ..Default::default() })
}

fn received(packet_id: NonZeroU16, reason_code: PublishAckReason) -> Packet {
    Packet::PublishReceived(PublishAck { packet_id, reason_code, ..Default::default() })
}

fn complete(packet_id: NonZeroU16, reason_code: PublishAck2Reason) -> Packet {
    Packet::PublishComplete(PublishAck2 { packet_id, reason_code, ..Default::default() })
}

/// The first of those that wait, when it is done. May be dropped and called again.
async fn first(committing: &mut VecDeque<(Answer, Option<Pending<u64>>)>) -> (Answer, Result<u64, EdgeError>) {
    let result = match committing.front_mut() {
        Some((_, Some(commit))) => commit.await,
        Some((_, None)) => Ok(0),
        None => pending().await,
    };
    let (answer, _) = committing.pop_front().expect("it was there");
    (answer, result)
}

/// Why the connection is to end, as soon as it is.
async fn told(told: &mut watch::Receiver<Option<Told>>) -> Told {
    let found = told.wait_for(Option::is_some).await.ok().and_then(|told| told.clone());
    match found {
        Some(told) => told,
        None => pending().await,
    }
}

/// Whether the connection that takes the place of this one begins anew, as soon as there is one.
async fn replaced(told: &mut watch::Receiver<Option<Told>>) -> bool {
    let found = told.wait_for(|told| matches!(told, Some(Told::Replaced { .. }))).await.ok().and_then(|told| told.clone());
    match found {
        Some(Told::Replaced { is_anew }) => is_anew,
        _ => pending().await,
    }
}

/// What this gives, once. May be dropped and called again.
async fn ready<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    let Some(future) = slot else { return pending().await };
    let value = future.await;
    *slot = None;
    value
}
