//! The broker: who is connected, who may connect, and what the sessions of all share.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
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
    limits::{
        MQTT_CONNECTIONS_MAX, MQTT_LARGE_PACKETS_BYTES_MAX, MQTT_SENDING_ALL_BYTES_MAX, MQTT_SESSION_EXPIRY_MAX, MQTT_TAKEOVER_TIMEOUT,
    },
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedMutexGuard, Semaphore, watch},
    time::timeout,
};

use super::{connection, session::Data};
use crate::{
    log::{TopicLog, session::PREFIX},
    topic::{TopicFilter, TopicName},
};

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
    /// Its id; empty when it was refused before it said one.
    pub client_id: String,
    /// Who it is; empty when it was refused.
    pub user: String,
    /// Where it is or was connected from.
    pub peer: String,
    /// What happened.
    pub kind: ClientEventKind,
}

/// What may happen to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEventKind {
    /// It was not let in.
    Refused {
        /// Why.
        why: String,
    },
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
    /// Bytes that wait to be sent to clients, without the first [`MQTT_SENDING_OWN_BYTES`](edgeward_model::limits::MQTT_SENDING_OWN_BYTES)
    /// of each.
    pub sending_bytes: usize,
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
    clients: Mutex<HashMap<(String, String), Connected>>,
    /// Places for connections, and for wills that wait.
    pub(super) connections: Semaphore,
    pub(super) wills: Semaphore,
    pub(super) large: Arc<Semaphore>,
    /// Room for what waits to be sent.
    pub(super) sending: Arc<Semaphore>,
    pub(super) is_stopping: watch::Sender<bool>,
    pub(super) counts: Counts,
}

/// The connections of one client: there is a moment when one takes the place of another.
struct Connected {
    newest: Arc<Client>,
    /// Held by the connection whose session it is, until that is left in order.
    session: Arc<tokio::sync::Mutex<()>>,
}

impl Connected {
    /// Whether a connection has the session, or is on the way to it.
    fn is_open(&self) -> bool {
        self.session.try_lock().is_err()
    }
}

/// The connection of a client, for others.
pub(super) struct Client {
    pub(super) login: Login,
    pub(super) identity: Identity,
    /// Why it is to end, when it is.
    pub(super) told: watch::Sender<Option<Told>>,
}

/// Why a connection is to end.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// Another connection of its client takes its place, and goes on with the session or begins anew.
    Replaced { is_anew: bool },
    /// Its client would not be let in any more as it was.
    Refused(String),
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
            sending: Arc::new(Semaphore::new(MQTT_SENDING_ALL_BYTES_MAX)),
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

    /// Removes the sessions whose clients have been away for too long at this moment of the log's own clock, which is
    /// [`TopicLog::clock`]; to be called now and then. Those of clients that are connected are noted as in use, so that a crash does not
    /// make them old.
    pub async fn remove_expired(&self, clock: Duration) -> Result<(), EdgeError> {
        let log = &self.shared.log;
        let open: HashSet<String> = {
            let clients = self.shared.clients.lock();
            clients.iter().filter(|(_, connected)| connected.is_open()).map(|((user, id), _)| session_name(user, id)).collect()
        };
        let mut after = String::new();
        loop {
            let sessions = log.durables(PREFIX, &after).await?;
            let Some(last) = sessions.last() else { return Ok(()) };
            after.clone_from(&last.name);
            let (mut unused, mut in_use) = (Vec::new(), Vec::new());
            for session in sessions {
                // Of one that cannot be read it is not known.
                let data = Data::read(&session.name, &session.data);
                let expiry = data.map_or(MQTT_SESSION_EXPIRY_MAX, |data| Duration::from_secs(data.expiry_s));
                if !open.contains(&session.name) {
                    unused.extend(has_expired(session.used_clock, expiry, clock).then_some((session.name, session.used_clock)));
                } else if has_expired(session.used_clock, expiry / 4, clock) {
                    in_use.push(session.name);
                }
            }
            if !unused.is_empty() || !in_use.is_empty() {
                log.sweep_sessions(unused, in_use).await?;
            }
        }
    }

    /// Asks again who the clients are that are connected, by what they showed, and ends the connections of those that would not be let in
    /// any more, or may do something else by now; to be called now and then.
    pub async fn check_again(&self) {
        let clients: Vec<_> = {
            let clients = self.shared.clients.lock();
            let is_checked = |connected: &&Connected| connected.is_open() && connected.newest.told.borrow().is_none();
            clients.values().filter(is_checked).map(|connected| Arc::clone(&connected.newest)).collect()
        };
        for client in clients {
            let why = match (self.shared.authenticate)(client.login.clone()).await {
                Ok(identity) if identity == client.identity => continue,
                Ok(_) => "what it may do has changed".to_owned(),
                Err(error) if matches!(error.kind(), ErrorKind::Unauthenticated | ErrorKind::Forbidden) => error.chain(),
                // It cannot be told now.
                Err(_) => continue,
            };
            client.told.send_if_modified(|told| {
                let is_new = told.is_none();
                told.get_or_insert(Told::Refused(why));
                is_new
            });
        }
    }

    /// Who is connected, and what was done.
    pub fn state(&self) -> BrokerState {
        let counts = &self.shared.counts;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BrokerState {
            clients: self.shared.clients.lock().values().filter(|connected| connected.is_open()).count(),
            refused: get(&counts.refused),
            received: get(&counts.received),
            received_refused: get(&counts.received_refused),
            sent: get(&counts.sent),
            dropped: get(&counts.dropped),
            sending_bytes: MQTT_SENDING_ALL_BYTES_MAX - self.shared.sending.available_permits(),
        }
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
    pub(super) async fn enter(self: &Arc<Self>, identity: Identity, login: Login, is_anew: bool) -> Result<Place, EdgeError> {
        let key = (identity.user.clone(), login.client_id.clone());
        let client = Arc::new(Client { login, identity, told: watch::Sender::new(None) });
        let (session, former) = match self.clients.lock().entry(key.clone()) {
            Entry::Occupied(mut connected) => {
                let former = std::mem::replace(&mut connected.get_mut().newest, Arc::clone(&client));
                (Arc::clone(&connected.get().session), Some(former))
            }
            Entry::Vacant(vacant) => {
                (Arc::clone(&vacant.insert(Connected { newest: Arc::clone(&client), session: Arc::default() }).session), None)
            }
        };
        let mut place = Place { shared: Arc::clone(self), key, client, session, held: None };
        if let Some(former) = former {
            former.told.send_replace(Some(Told::Replaced { is_anew }));
        }
        let held = timeout(MQTT_TAKEOVER_TIMEOUT, Arc::clone(&place.session).lock_owned()).await;
        place.held = Some(held.map_err(|_| {
            let id = place.key.1.escape_debug();
            EdgeError::new(ErrorKind::Overloaded, format!("the former connection of client `{id}` does not end; try again later"))
        })?);
        Ok(place)
    }
}

/// The place of a client, left when it is dropped.
pub(super) struct Place {
    shared: Arc<Shared>,
    key: (String, String),
    pub(super) client: Arc<Client>,
    session: Arc<tokio::sync::Mutex<()>>,
    held: Option<OwnedMutexGuard<()>>,
}

impl Place {
    /// The session is left in order. A connection that comes now takes over what is left to do.
    pub(super) fn end(&mut self) {
        self.held = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.end();
        let mut clients = self.shared.clients.lock();
        // The last one of its client, whichever came last: beside this one only the map has it.
        if Arc::strong_count(&self.session) <= 2 {
            clients.remove(&self.key);
        }
    }
}

/// The durable subscription of a session.
pub(super) fn session_name(user: &str, client_id: &str) -> String {
    format!("{PREFIX}{}", publisher(user, client_id))
}

/// Who a client is for those who get its messages, which no client of another user is. A user's name has no `/` in it as it is written there.
pub(super) fn publisher(user: &str, client_id: &str) -> String {
    format!("{}/{client_id}", user.replace('%', "%25").replace('/', "%2F"))
}

/// Whether a session was not used for longer than it is kept, by the log's own clock.
pub(super) fn has_expired(used_clock: Duration, expiry: Duration, clock: Duration) -> bool {
    clock.saturating_sub(used_clock) > expiry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_two_users_never_have_one_name() {
        let names = [("a", "b"), ("a/b", ""), ("a%2Fb", ""), ("", "a/b"), ("a", "b/")].map(|(user, client)| session_name(user, client));
        assert_eq!(names, ["mqtt:a/b", "mqtt:a%2Fb/", "mqtt:a%252Fb/", "mqtt:/a/b", "mqtt:a/b/"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_of_one_connection_however_many_come_while_that_does_not_end() {
        let folder = tempfile::tempdir().expect("temp folder");
        let log = Arc::new(TopicLog::open(folder.path(), crate::LogOptions::default()).expect("opens"));
        let nobody = |_: Login| -> BoxFuture<'static, Result<Identity, EdgeError>> {
            Box::pin(async { Err(EdgeError::new(ErrorKind::Forbidden, "nobody")) })
        };
        let broker = Broker::new(log, Box::new(nobody), |_| {});
        let enter = || {
            let login = Login { client_id: "c".to_owned(), username: None, password: None, peer: String::new() };
            let identity = Identity { user: "u".to_owned(), publish: Vec::new(), subscribe: Vec::new() };
            broker.shared.enter(identity, login, false)
        };
        let mut first = enter().await.expect("it is the first");
        for _ in 0..3 {
            let (one, other) = tokio::join!(enter(), enter());
            assert!(one.is_err() && other.is_err(), "the first is still there");
        }
        assert!(matches!(*first.client.told.borrow(), Some(Told::Replaced { is_anew: false })));
        assert_eq!(broker.state().clients, 1);
        first.end();
        let next = enter().await.expect("the session is free");
        drop(first);
        assert!(enter().await.is_err());
        drop(next);
        assert!(broker.shared.clients.lock().is_empty());
    }

    #[test]
    fn the_log_of_a_login_has_no_password() {
        let login = Login { client_id: "a".to_owned(), username: None, password: Some(Bytes::from_static(b"secret")), peer: String::new() };
        assert!(!format!("{login:?}").contains("secret"));
    }
}
