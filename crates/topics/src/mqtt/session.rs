//! What a session is: its subscriptions, what its client has not acknowledged, and what of it is on disk.

use std::{
    collections::BTreeMap,
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::Duration,
};

use edgeward_model::EdgeError;
use rmqtt_codec::{
    types::QoS,
    v5::{RetainHandling, SubscriptionOptions},
};
use serde::{Deserialize, Serialize};

use crate::{deliver::progress::Progress, error::damaged, message::Message, topic::TopicFilter};

/// Version of the form on disk.
const FORM: u8 = 1;

/// One subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Subscribed {
    pub(super) filter: TopicFilter,
    is_at_least_once: bool,
    /// Not for what the client itself published.
    no_local: bool,
    /// Whether the client hears that a message was to be retained.
    retain_as_published: bool,
    id: Option<NonZeroU32>,
}

impl Subscribed {
    pub(super) fn new(filter: TopicFilter, options: SubscriptionOptions, id: Option<NonZeroU32>) -> Self {
        Self {
            filter,
            is_at_least_once: options.qos != QoS::AtMostOnce,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            id,
        }
    }

    pub(super) fn qos(&self) -> QoS {
        if self.is_at_least_once { QoS::AtLeastOnce } else { QoS::AtMostOnce }
    }
}

/// How a message is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) ids: Vec<NonZeroU32>,
}

/// A message on its way to the client, and the number by which it is to be acknowledged.
pub(super) struct Outgoing {
    pub(super) message: Arc<Message>,
    pub(super) granted: Granted,
    pub(super) packet: Option<NonZeroU16>,
}

impl Outgoing {
    /// Its packet is no longer than this.
    pub(super) fn bytes(&self) -> usize {
        self.message.cost_bytes() + 5 * self.granted.ids.len()
    }
}

/// The state of a session whose client is connected.
pub(super) struct Session {
    pub(super) client_id: String,
    /// Who the client is for those who get its messages.
    pub(super) publisher: String,
    /// How long it is kept after its client has gone.
    pub(super) expiry: Duration,
    pub(super) subscriptions: Vec<Subscribed>,
    /// Packets that the client has not acknowledged, and the positions of those that must come again if it never does.
    in_flight: BTreeMap<u16, Option<u64>>,
    last_packet: u16,
    progress: Progress,
    /// Packets of QoS 2 that the client has not released, and whether they are durable.
    pub(super) received: BTreeMap<u16, bool>,
    /// Up to here, what was published while the client was away.
    pub(super) away_until: u64,
}

impl Session {
    pub(super) fn new(client_id: String, publisher: String, expiry: Duration, away_until: u64) -> Self {
        Self {
            client_id,
            publisher,
            expiry,
            subscriptions: Vec::new(),
            in_flight: BTreeMap::new(),
            last_packet: 0,
            progress: Progress::default(),
            received: BTreeMap::new(),
            away_until,
        }
    }

    /// Makes a subscription, or changes that of the same filter; returns whether it is new.
    pub(super) fn subscribe(&mut self, subscribed: Subscribed) -> bool {
        let own = self.subscriptions.iter_mut().find(|own| own.filter == subscribed.filter);
        let is_new = own.is_none();
        match own {
            Some(own) => *own = subscribed,
            None => self.subscriptions.push(subscribed),
        }
        is_new
    }

    /// Ends a subscription; returns whether it was there.
    pub(super) fn unsubscribe(&mut self, filter: &TopicFilter) -> bool {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|own| own.filter != *filter);
        self.subscriptions.len() < before
    }

    /// Whether and how the client gets this message.
    pub(super) fn grant(&self, message: &Message) -> Option<Granted> {
        let is_own = message.publisher.as_deref() == Some(&self.publisher);
        let was_away = message.position.is_some_and(|position| position <= self.away_until);
        let mut granted: Option<Granted> = None;
        for own in &self.subscriptions {
            if own.no_local && is_own || was_away && !own.is_at_least_once || !own.filter.matches(&message.topic) {
                continue;
            }
            let granted = granted.get_or_insert(Granted { qos: QoS::AtMostOnce, retain: false, ids: Vec::new() });
            if message.position.is_some() && own.is_at_least_once {
                granted.qos = QoS::AtLeastOnce;
            }
            granted.retain |= own.retain_as_published && message.retain;
            granted.ids.extend(own.id);
        }
        granted
    }

    /// Whether and how the client gets a retained message because of this subscription.
    pub(super) fn grant_retained(&self, message: &Message, own: &Subscribed) -> Option<Granted> {
        let is_own = own.no_local && message.publisher.as_deref() == Some(&self.publisher);
        let qos = if message.position.is_some() { own.qos() } else { QoS::AtMostOnce };
        (!is_own).then(|| Granted { qos, retain: true, ids: own.id.into_iter().collect() })
    }

    /// A number for a packet that the client is to acknowledge. There are fewer of them than numbers.
    pub(super) fn begin(&mut self, position: Option<u64>) -> NonZeroU16 {
        loop {
            self.last_packet = self.last_packet.wrapping_add(1);
            if let Some(packet) = NonZeroU16::new(self.last_packet).filter(|packet| !self.in_flight.contains_key(&packet.get())) {
                self.in_flight.insert(packet.get(), position);
                if let Some(position) = position {
                    self.progress.begin(position);
                }
                return packet;
            }
        }
    }

    /// The client has this packet. It may say so of one that it never got.
    pub(super) fn finish(&mut self, packet: u16) {
        if let Some(Some(position)) = self.in_flight.remove(&packet) {
            self.progress.finish(position);
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Up to where the client has everything; none when it has all that it was given.
    pub(super) fn floor(&self) -> Option<u64> {
        self.progress.floor()
    }

    pub(super) fn filters(&self) -> Vec<TopicFilter> {
        self.subscriptions.iter().map(|own| own.filter.clone()).collect()
    }

    /// What of it is on disk.
    pub(super) fn data(&self) -> Vec<u8> {
        let data = Data { expiry_s: self.expiry.as_secs(), subscriptions: self.subscriptions.clone() };
        postcard::to_extend(&data, vec![FORM]).expect("memory takes it")
    }
}

/// What of a session is on disk.
#[derive(Serialize, Deserialize)]
pub(super) struct Data {
    pub(super) expiry_s: u64,
    pub(super) subscriptions: Vec<Subscribed>,
}

impl Data {
    pub(super) fn read(name: &str, data: &[u8]) -> Result<Self, EdgeError> {
        let data = data.strip_prefix(&[FORM]).and_then(|data| postcard::from_bytes(data).ok());
        data.ok_or_else(|| damaged(&format!("session `{}` of the log of topics", name.escape_debug())))
    }
}

/// Whether the retained messages are sent for a subscription that is new or not.
pub(super) fn sends_retained(handling: RetainHandling, is_new: bool) -> bool {
    match handling {
        RetainHandling::AtSubscribe => true,
        RetainHandling::AtSubscribeNew => is_new,
        RetainHandling::NoAtSubscribe => false,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::topic::TopicName;

    fn options(qos: QoS) -> SubscriptionOptions {
        SubscriptionOptions { qos, ..Default::default() }
    }

    fn subscribed(filter: &str, options: SubscriptionOptions, id: u32) -> Subscribed {
        Subscribed::new(TopicFilter::new(filter).expect("valid"), options, NonZeroU32::new(id))
    }

    fn message(topic: &str, position: Option<u64>) -> Message {
        Message { position, ..Message::new(TopicName::new(topic).expect("valid"), "x", Timestamp::UNIX_EPOCH) }
    }

    #[test]
    fn a_message_is_granted_by_the_best_of_the_filters_that_match() {
        let mut session = Session::new("me".to_owned(), "u/me".to_owned(), Duration::ZERO, 5);
        assert!(session.subscribe(subscribed("a/#", options(QoS::AtMostOnce), 1)));
        assert!(session.subscribe(subscribed("a/b", options(QoS::ExactlyOnce), 2)));
        assert!(session.subscribe(subscribed("own", SubscriptionOptions { no_local: true, ..options(QoS::AtLeastOnce) }, 0)));
        let grant = |topic: &str, position| session.grant(&message(topic, position)).map(|granted| (granted.qos, granted.ids.len()));
        assert_eq!(grant("a/b", Some(6)), Some((QoS::AtLeastOnce, 2)));
        assert_eq!(grant("a/b", None), Some((QoS::AtMostOnce, 2)));
        assert_eq!(grant("a/c", Some(6)), Some((QoS::AtMostOnce, 1)));
        assert_eq!(grant("a/c", Some(5)), None, "what is not at least once is not kept for who is away");
        assert_eq!(grant("a/b", Some(5)), Some((QoS::AtLeastOnce, 1)));
        assert_eq!(grant("b", Some(6)), None);
        let of = |publisher: &str| Message { publisher: Some(publisher.to_owned()), ..message("own", Some(6)) };
        assert_eq!(session.grant(&of("u/me")), None);
        assert!(session.grant(&message("own", Some(6))).is_some() && session.grant(&of("other/me")).is_some());
        assert!(!session.subscribe(subscribed("a/b", options(QoS::AtMostOnce), 2)) && session.subscriptions.len() == 3);
    }

    #[test]
    fn packets_have_numbers_that_are_free_and_positions_move_as_they_are_acknowledged() {
        let mut session = Session::new("me".to_owned(), "u/me".to_owned(), Duration::ZERO, 0);
        session.last_packet = u16::MAX - 1;
        assert_eq!([4, 7, 9].map(|position| session.begin(Some(position)).get()), [u16::MAX, 1, 2]);
        session.last_packet = 0;
        assert_eq!(session.begin(None).get(), 3);
        session.finish(1);
        session.finish(77);
        assert_eq!((session.floor(), session.in_flight()), (Some(3), 3));
        session.finish(u16::MAX);
        assert_eq!(session.floor(), Some(8));
        session.finish(2);
        assert_eq!((session.floor(), session.in_flight()), (None, 1));
    }

    #[test]
    fn a_session_reads_back_what_it_writes() {
        let mut session = Session::new("me".to_owned(), "u/me".to_owned(), Duration::from_mins(1), 0);
        session.subscribe(subscribed("a/#", options(QoS::AtLeastOnce), 7));
        let data = Data::read("me", &session.data()).expect("reads");
        assert_eq!((data.expiry_s, &data.subscriptions), (60, &session.subscriptions));
        assert!(Data::read("me", &[]).is_err() && Data::read("me", &[9]).is_err() && Data::read("me", &[FORM, 1]).is_err());
    }
}
