//! How a member connects to NATS: which servers, how it knows them, and how they know it.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_nats::{Auth, AuthError, ConnectOptions, Event, ServerAddr, ServerInfo};
use edgeward_model::{
    EdgeError, NodeId,
    limits::{BROKER_CONNECT_TIMEOUT, SEND_TIMEOUT, SENDING_MESSAGES_MAX, WAITING_MESSAGES_MAX},
};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use crate::{backoff::Backoff, nats::fingerprint::Fingerprint, subject::node_token};

/// A broker whose pings stay unanswered for three times this long is gone.
pub const PING_INTERVAL_DEFAULT: Duration = Duration::from_millis(1_500);

/// Messages of one subscription between the socket and its buffer, where they wait for a moment only.
const ARRIVING_MESSAGES_MAX: usize = 16 * WAITING_MESSAGES_MAX;

/// How a member connects to NATS.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// Who connects. Only what is for it reaches it, when its credentials say the same.
    pub member: NodeId,
    /// Addresses such as `nats://10.0.0.5:4222`, and no others: those that servers tell of themselves need not be reachable from here, or not
    /// in their certificates.
    pub servers: Vec<String>,
    /// Whether and how the servers are verified.
    pub tls: Tls,
    /// What it shows the servers; none for servers that ask for none.
    pub credentials: Option<Credentials>,
    /// How often an idle connection is tried, see [`PING_INTERVAL_DEFAULT`].
    pub ping_interval: Duration,
    /// On how many servers of a cluster leases are kept: 1, 3 or 5.
    pub lease_replicas: usize,
}

/// Whether and how the servers are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Not at all, unless the server asks for TLS: for this machine only.
    Off,
    /// By the certificates that this machine trusts.
    SystemRoots,
    /// By this file of certificates (PEM), and no others.
    Ca(PathBuf),
    /// By the authority with this fingerprint, whose certificate the server must show, and no others.
    Authority(Fingerprint),
}

impl Tls {
    pub(super) fn apply(&self, options: ConnectOptions) -> ConnectOptions {
        match self {
            Self::Off => options,
            Self::SystemRoots => options.require_tls(true),
            Self::Ca(file) => options.require_tls(true).add_root_certificates(file.clone()),
            Self::Authority(fingerprint) => options.require_tls(true).tls_client_config(fingerprint.tls()),
        }
    }
}

/// A member's key and what the hub has signed about it. Clones are the same; a renewal counts from the next connection on, and ends a
/// pause before it.
#[derive(Clone)]
pub struct Credentials {
    key: Arc<nkeys::KeyPair>,
    signed: Arc<watch::Sender<Signed>>,
}

/// What the hub has signed.
#[derive(Debug)]
struct Signed {
    jwt: String,
    /// How often it was renewed.
    renewals: u64,
    /// How often it had been when the broker was shown it last.
    shown: u64,
    /// Whether a broker refused it.
    is_refused: bool,
    /// Whether nothing is to connect by it, although it is good.
    is_held: bool,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.key.public_key())
    }
}

impl Credentials {
    /// The key of this seed (`SU…`), and a JWT that names it.
    ///
    /// # Errors
    /// [`edgeward_model::ErrorKind::InvalidInput`] when the seed is none of a user.
    pub fn new(seed: &str, jwt: impl Into<String>) -> Result<Self, EdgeError> {
        let key = nkeys::KeyPair::from_seed(seed)
            .map_err(|error| EdgeError::invalid("the seed of the credentials is not valid").with_source(error))?;
        if key.key_pair_type() != nkeys::KeyPairType::User {
            return Err(EdgeError::invalid("the seed of the credentials is not that of a user"));
        }
        let signed = Signed { jwt: jwt.into(), renewals: 0, shown: 0, is_refused: false, is_held: false };
        Ok(Self { key: Arc::new(key), signed: Arc::new(watch::Sender::new(signed)) })
    }

    /// Takes a new JWT for the same key.
    pub fn renew(&self, jwt: impl Into<String>) {
        let jwt = jwt.into();
        self.signed.send_modify(|signed| *signed = Signed { jwt, renewals: signed.renewals + 1, is_refused: false, ..*signed });
    }

    pub(super) fn jwt(&self) -> String {
        self.signed.borrow().jwt.clone()
    }

    pub(super) fn key(&self) -> &nkeys::KeyPair {
        &self.key
    }

    /// Notes that a broker refused what it was shown last.
    pub(super) fn note_refusal(&self) {
        self.signed.send_if_modified(|signed| {
            let is_news = signed.shown == signed.renewals && !signed.is_refused;
            signed.is_refused |= is_news;
            is_news
        });
    }

    /// Returns when a broker has refused the present ones.
    pub(super) async fn refused(&self) {
        let mut signed = self.signed.subscribe();
        signed.wait_for(|signed| signed.is_refused).await.expect("the sender is here");
    }

    /// Has nothing connect by them, or again.
    pub(super) fn hold(&self, is_held: bool) {
        self.signed.send_modify(|signed| signed.is_held = is_held);
    }

    pub(super) fn is_held(&self) -> bool {
        self.signed.borrow().is_held
    }

    /// Returns when connections by them are (or are not) held back.
    pub(super) async fn held(&self, is_held: bool) {
        self.signed.subscribe().wait_for(|signed| signed.is_held == is_held).await.expect("the sender is here");
    }

    /// Waits so long, or until there is a JWT that no broker was shown; and for as long as they are held back.
    async fn pause(&self, time: Duration) {
        let mut signed = self.signed.subscribe();
        tokio::select! {
            () = sleep(time) => {}
            _ = signed.wait_for(|signed| signed.shown != signed.renewals) => {}
        }
        self.held(false).await;
    }

    /// Options of a connection that shows them.
    pub(super) fn apply(self) -> ConnectOptions {
        ConnectOptions::with_auth_callback(move |nonce| std::future::ready(self.sign(&nonce)))
    }

    fn sign(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let mut auth = Auth::new();
        auth.signature = Some(self.key.sign(nonce).map_err(AuthError::new)?);
        self.signed.send_modify(|signed| {
            signed.shown = signed.renewals;
            auth.jwt = Some(signed.jwt.clone());
        });
        Ok(auth)
    }
}

impl NatsOptions {
    /// Options without TLS and credentials.
    pub fn new(member: NodeId, servers: Vec<String>) -> Self {
        Self { member, servers, tls: Tls::Off, credentials: None, ping_interval: PING_INTERVAL_DEFAULT, lease_replicas: 1 }
    }

    pub(super) fn servers(&self) -> Result<Vec<ServerAddr>, EdgeError> {
        parse(&self.servers)
    }

    pub(super) fn client(self, events: mpsc::Sender<Event>) -> ConnectOptions {
        let options = match self.credentials.clone() {
            Some(credentials) => credentials.apply(),
            None => ConnectOptions::new(),
        };
        let (credentials, pauses) = (self.credentials, Mutex::new(Pauses::default()));
        self.tls
            .apply(options)
            .name(&self.member)
            .custom_inbox_prefix(format!("_INBOX_{}", node_token(&self.member)))
            .retry_on_initial_connect()
            .ignore_discovered_servers()
            .ping_interval(self.ping_interval)
            .connection_timeout(BROKER_CONNECT_TIMEOUT)
            .request_timeout(Some(SEND_TIMEOUT))
            .client_capacity(SENDING_MESSAGES_MAX)
            .subscription_capacity(ARRIVING_MESSAGES_MAX)
            // The pause is here, once for all servers, because here it can be ended.
            .reconnect_delay_callback(|_attempt| Duration::ZERO)
            .reconnect_to_server_callback(move |_servers, last| {
                let time = pauses.lock().before_next(&last, Instant::now());
                let credentials = credentials.clone();
                async move {
                    match credentials {
                        Some(credentials) => credentials.pause(time).await,
                        None => sleep(time).await,
                    }
                    None
                }
            })
            .event_callback(move |event| {
                // Who watches the connection looks at it also when this is lost.
                let _ = events.try_send(event);
                std::future::ready(())
            })
    }
}

/// The addresses of servers.
///
/// # Errors
/// [`edgeward_model::ErrorKind::InvalidInput`] when one is none, or there is none.
pub(super) fn parse(servers: &[String]) -> Result<Vec<ServerAddr>, EdgeError> {
    if servers.is_empty() {
        return Err(EdgeError::invalid("no address of a NATS server is given"));
    }
    let parse = |text: &String| {
        text.parse().map_err(|error| {
            // The address itself may hold a password.
            EdgeError::invalid("an address of a NATS server is not valid; write it as `nats://HOST:PORT`").with_source(error)
        })
    };
    servers.iter().map(parse).collect()
}

/// The pauses before the attempts of one member to connect.
#[derive(Default)]
struct Pauses {
    backoff: Backoff,
    /// Server and number of the last connection that was made, as far as it was seen.
    last: (String, u64),
}

impl Pauses {
    /// `last` is the last connection that was made; a new one since the last pause was a success.
    fn before_next(&mut self, last: &ServerInfo, now: Instant) -> Duration {
        let last = (last.server_id.clone(), last.client_id);
        let was_up = self.last != last;
        self.last = last;
        // Without random numbers every member waits as long as it may.
        self.backoff.pause(was_up, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_when_there_is_something_new_to_show_and_a_refusal_is_of_what_was_shown() {
        let credentials = Credentials::new(&nkeys::KeyPair::new_user().seed().expect("it has one"), "first").expect("valid");
        credentials.sign(b"nonce").expect("signed");
        let (pause, start) = (Duration::from_secs(30), Instant::now());
        credentials.pause(pause).await;
        assert_eq!(start.elapsed(), pause);
        credentials.note_refusal();
        credentials.refused().await;
        credentials.renew("second");
        credentials.pause(pause).await;
        assert_eq!(start.elapsed(), pause, "it has not been shown");
        credentials.note_refusal();
        let refused = tokio::time::timeout(pause, credentials.refused()).await;
        assert!(refused.is_err(), "what was refused is the first");
        assert_eq!(credentials.sign(b"nonce").expect("signed").jwt.as_deref(), Some("second"));
        credentials.note_refusal();
        credentials.refused().await;
    }

    #[test]
    fn an_address_that_is_none_is_refused_without_being_repeated() {
        let member = NodeId::new("edge-1").expect("valid");
        let error = NatsOptions::new(member.clone(), vec!["nats://me:secret@[".to_owned()]).servers().expect_err("no address");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(NatsOptions::new(member, Vec::new()).servers().is_err());
    }

    #[test]
    fn credentials_show_their_public_key_only_and_are_those_of_a_user() {
        let key = nkeys::KeyPair::new_user();
        let credentials = Credentials::new(&key.seed().expect("it has one"), "jwt").expect("valid");
        assert_eq!(format!("{credentials:?}"), format!("Credentials({})", key.public_key()));
        credentials.renew("newer");
        assert_eq!(credentials.clone().sign(b"nonce").expect("signed").jwt.as_deref(), Some("newer"));
        assert!(Credentials::new(&nkeys::KeyPair::new_account().seed().expect("it has one"), "jwt").is_err());
        assert!(Credentials::new("SUAX", "jwt").is_err());
    }
}
