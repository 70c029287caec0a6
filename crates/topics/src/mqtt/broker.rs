//! The broker: who is connected, who may connect, and what the sessions of all share.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use edgeward_model::{
    EdgeError, ErrorKind,
    limits::{MQTT_CONNECTIONS_MAX, MQTT_LARGE_PACKETS_BYTES_MAX, MQTT_TAKEOVER_TIMEOUT},
};
use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, Semaphore, watch},
    time::timeout,
};

use super::{connection, session::Data};
use crate::{
    log::TopicLog,
    topic::{TopicFilter, TopicName},
};

/// How the names of durable subscriptions of sessions begin.
pub(super) const SESSION_PREFIX: &str = "mqtt:";

/// What a client says of itself when it connects.
#[derive(Clone)]
pub struct Login {
    /// The id that it gave itself, or was given.
    pub client_id: String,
    /// Its name, when it said one.
    pub username: Option<String>,
    /// Its password, when it said one; a secret.
    pub password: Option<Bytes>,
    /// Where it is connected from, as the caller of [`Broker::serve`] said.
    pub peer: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client_id, username, peer, password: _ } = self;
        f.debug_struct("Login").field("client_id", client_id).field("username", username).field("peer", peer).finish_non_exhaustive()
    }
}

/// Who a client is, and what it may do. Nothing is allowed that is not said here, and nobody publishes where a name begins with `$`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whose sessions its sessions are: two users with one client id have nothing in common.
    pub user: String,
    /// Where it may publish.
    pub publish: Vec<TopicFilter>,
    /// What it may subscribe to: each of its filters must be covered by one of these.
    pub subscribe: Vec<TopicFilter>,
}

impl Identity {
    pub(super) fn may_publish(&self, topic: &TopicName) -> bool {
        !topic.is_reserved() && self.publish.iter().any(|filter| filter.matches(topic))
    }

    pub(super) fn may_subscribe(&self, filter: &TopicFilter) -> bool {
        self.subscribe.iter().any(|own| own.covers(filter))
    }
}

/// Decides who a client is. An error of the kind [`ErrorKind::Unauthenticated`] tells it that its name or password is wrong, one of
/// [`ErrorKind::Forbidden`] that it may not connect, [`ErrorKind::Overloaded`] that it may try again, any other that the broker cannot tell
/// now.
pub type Authenticate = Box<dyn Fn(Login) -> BoxFuture<'static, Result<Identity, EdgeError>> + Send + Sync>;

/// What happened to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientEvent {
    /// Its id.
    pub client_id: String,
    /// Who it is.
    pub user: String,
    /// Where it is or was connected from.
    pub peer: String,
    /// What happened.
    pub kind: ClientEventKind,
}

/// What may happen to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEventKind {
    /// It is connected.
    Connected,
    /// It is not connected any more.
    Disconnected {
        /// Whether it said so itself. Otherwise its will is published.
        is_graceful: bool,
        /// Why.
        why: String,
    },
}

/// What a broker has done since it began, and who is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerState {
    /// Clients that are connected.
    pub clients: usize,
    /// Connections that were refused: too many, or not allowed.
    pub refused: u64,
    /// Messages that were taken from clients.
    pub received: u64,
    /// Messages that were refused: not allowed, or not valid.
    pub received_refused: u64,
    /// Messages that were sent to clients, the same to several counted as often.
    pub sent: u64,
    /// Messages that were not sent, as the client was too slow for what is not durable, or does not take packets of their size.
    pub dropped: u64,
}

/// Numbers of [`BrokerState`].
#[derive(Default)]
pub(super) struct Counts {
    pub(super) refused: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) received_refused: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) dropped: AtomicU64,
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// A broker of MQTT on a log of topics.
pub struct Broker {
    shared: Arc<Shared>,
}

/// What the connections of one broker share.
pub(super) struct Shared {
    pub(super) log: Arc<TopicLog>,
    pub(super) authenticate: Authenticate,
    on_event: Box<dyn Fn(ClientEvent) + Send + Sync>,
    clients: Mutex<HashMap<(String, String), Arc<Client>>>,
    /// Places for connections, and for wills that wait.
    pub(super) connections: Semaphore,
    pub(super) wills: Semaphore,
    pub(super) large: Arc<Semaphore>,
    pub(super) is_stopping: watch::Sender<bool>,
    pub(super) counts: Counts,
}

/// The connection of a client, for those who come after it.
pub(super) struct Client {
    /// Told when another connection takes its place.
    pub(super) is_replaced: Notify,
    /// Told when it may not be connected any more.
    pub(super) is_unwelcome: Notify,
    /// Whether its session is left in order.
    has_ended: watch::Sender<bool>,
}

impl Broker {
    /// A broker that writes to this log. `on_event` is called in the tasks of the connections and must not block.
    pub fn new(log: Arc<TopicLog>, authenticate: Authenticate, on_event: impl Fn(ClientEvent) + Send + Sync + 'static) -> Self {
        let shared = Shared {
            log,
            authenticate,
            on_event: Box::new(on_event),
            clients: Mutex::default(),
            connections: Semaphore::new(MQTT_CONNECTIONS_MAX),
            wills: Semaphore::new(MQTT_CONNECTIONS_MAX),
            large: Arc::new(Semaphore::new(MQTT_LARGE_PACKETS_BYTES_MAX)),
            is_stopping: watch::Sender::new(false),
            counts: Counts::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Serves one connection to its end, and until its will is published. `peer` says where it is from.
    pub fn serve<S>(&self, stream: S, peer: String) -> impl Future<Output = ()> + Send + 'static
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        connection::serve(Arc::clone(&self.shared), stream, peer)
    }

    /// Has all connections end, those included that are still to come. Their sessions stay.
    pub fn stop(&self) {
        self.shared.is_stopping.send_replace(true);
    }

    /// Has the connections of users end that are not welcome any more. Their sessions stay.
    pub fn end_unwelcome(&self, is_welcome: impl Fn(&str) -> bool) {
        for ((user, _), client) in self.shared.clients.lock().iter() {
            if !is_welcome(user) {
                client.is_unwelcome.notify_one();
            }
        }
    }

    /// Removes the sessions whose clients have been away for too long; to be called now and then.
    pub async fn remove_expired(&self, now: Timestamp) -> Result<(), EdgeError> {
        let log = &self.shared.log;
        let mut after = String::new();
        loop {
            let sessions = log.durables(SESSION_PREFIX, &after).await?;
            let Some(last) = sessions.last() else { return Ok(()) };
            after.clone_from(&last.name);
            for session in sessions {
                let expiry = Data::read(&session.name, &session.data).map(|data| Duration::from_secs(data.expiry_s));
                if expiry.is_ok_and(|expiry| has_expired(session.used_at, expiry, now)) && !self.is_connected(&session.name) {
                    log.remove_durable(&session.name).await?;
                    log.forget_received(&session.name).await?;
                }
            }
        }
    }

    /// Who is connected, and what was done.
    pub fn state(&self) -> BrokerState {
        let counts = &self.shared.counts;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BrokerState {
            clients: self.shared.clients.lock().len(),
            refused: get(&counts.refused),
            received: get(&counts.received),
            received_refused: get(&counts.received_refused),
            sent: get(&counts.sent),
            dropped: get(&counts.dropped),
        }
    }

    fn is_connected(&self, name: &str) -> bool {
        self.shared.clients.lock().keys().any(|(user, client_id)| session_name(user, client_id) == name)
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn tell(&self, event: ClientEvent) {
        (self.on_event)(event);
    }

    /// Gives a connection the place of its client, and returns when the one before it has left its session in order.
    pub(super) async fn enter(self: &Arc<Self>, user: &str, client_id: &str) -> Result<Place, EdgeError> {
        let client = Arc::new(Client { is_replaced: Notify::new(), is_unwelcome: Notify::new(), has_ended: watch::Sender::new(false) });
        let key = (user.to_owned(), client_id.to_owned());
        let former = self.clients.lock().insert(key.clone(), Arc::clone(&client));
        let place = Place { shared: Arc::clone(self), key, client };
        if let Some(former) = former {
            former.is_replaced.notify_one();
            let mut has_ended = former.has_ended.subscribe();
            // It stays until its owner is dropped, so that nobody hears of an end too early.
            let ended = timeout(MQTT_TAKEOVER_TIMEOUT, has_ended.wait_for(|has_ended| *has_ended)).await;
            if ended.is_err() {
                let message = format!("the former connection of client `{}` does not end; try again later", client_id.escape_debug());
                return Err(EdgeError::new(ErrorKind::Overloaded, message));
            }
        }
        Ok(place)
    }
}

/// The place of a client, left when it is dropped.
pub(super) struct Place {
    shared: Arc<Shared>,
    key: (String, String),
    pub(super) client: Arc<Client>,
}

impl Place {
    /// The session is left in order. A connection that comes now takes over what is left to do.
    pub(super) fn end(&self) {
        self.client.has_ended.send_replace(true);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut clients = self.shared.clients.lock();
        if clients.get(&self.key).is_some_and(|client| Arc::ptr_eq(client, &self.client)) {
            clients.remove(&self.key);
        }
        drop(clients);
        self.end();
    }
}

/// The durable subscription of a session. A user's name has no `/` in it as it is written there.
pub(super) fn session_name(user: &str, client_id: &str) -> String {
    format!("{SESSION_PREFIX}{}/{client_id}", user.replace('%', "%25").replace('/', "%2F"))
}

pub(super) fn has_expired(used_at: Timestamp, expiry: Duration, now: Timestamp) -> bool {
    used_at.checked_add(expiry).is_ok_and(|at| at < now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_two_users_never_have_one_name() {
        let names = [("a", "b"), ("a/b", ""), ("a%2Fb", ""), ("", "a/b"), ("a", "b/")].map(|(user, client)| session_name(user, client));
        assert_eq!(names, ["mqtt:a/b", "mqtt:a%2Fb/", "mqtt:a%252Fb/", "mqtt:/a/b", "mqtt:a/b/"]);
    }

    #[test]
    fn the_log_of_a_login_has_no_password() {
        let login = Login { client_id: "a".to_owned(), username: None, password: Some(Bytes::from_static(b"secret")), peer: String::new() };
        assert!(!format!("{login:?}").contains("secret"));
    }
}
