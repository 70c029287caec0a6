//! How a member connects to NATS: which servers, how it knows them, and how they know it.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_nats::{Auth, AuthError, ConnectOptions, Event, ServerAddr};
use edgeward_model::{
    EdgeError, NodeId,
    limits::{BROKER_CONNECT_TIMEOUT, SEND_TIMEOUT, SENDING_MESSAGES_MAX, WAITING_MESSAGES_MAX},
};
use parking_lot::{Mutex, RwLock};
use tokio::{sync::mpsc, time::Instant};

use crate::{backoff::Backoff, subject::node_token};

/// A broker whose pings stay unanswered for three times this long is gone.
pub const PING_INTERVAL_DEFAULT: Duration = Duration::from_millis(1_500);

/// Messages of one subscription between the socket and its buffer, where they wait for a moment only.
const ARRIVING_MESSAGES_MAX: usize = 16 * WAITING_MESSAGES_MAX;

/// How a member connects to NATS.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// Who connects. Only what is for it reaches it, when its credentials say the same.
    pub member: NodeId,
    /// Addresses such as `nats://10.0.0.5:4222`; those that the servers tell are added.
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
}

impl Tls {
    pub(super) fn apply(&self, options: ConnectOptions) -> ConnectOptions {
        match self {
            Self::Off => options,
            Self::SystemRoots => options.require_tls(true),
            Self::Ca(file) => options.require_tls(true).add_root_certificates(file.clone()),
        }
    }
}

/// A member's key and what the hub has signed about it. Clones are the same; a renewal counts from the next connection on.
#[derive(Clone)]
pub struct Credentials {
    key: Arc<nkeys::KeyPair>,
    jwt: Arc<RwLock<String>>,
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
        Ok(Self { key: Arc::new(key), jwt: Arc::new(RwLock::new(jwt.into())) })
    }

    /// Takes a new JWT for the same key.
    pub fn renew(&self, jwt: impl Into<String>) {
        *self.jwt.write() = jwt.into();
    }

    /// Options of a connection that shows them.
    pub(super) fn apply(self) -> ConnectOptions {
        ConnectOptions::with_auth_callback(move |nonce| std::future::ready(self.sign(&nonce)))
    }

    fn sign(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let mut auth = Auth::new();
        auth.signature = Some(self.key.sign(nonce).map_err(AuthError::new)?);
        auth.jwt = Some(self.jwt.read().clone());
        Ok(auth)
    }
}

impl NatsOptions {
    /// Options without TLS and credentials.
    pub fn new(member: NodeId, servers: Vec<String>) -> Self {
        Self { member, servers, tls: Tls::Off, credentials: None, ping_interval: PING_INTERVAL_DEFAULT, lease_replicas: 1 }
    }

    pub(super) fn servers(&self) -> Result<Vec<ServerAddr>, EdgeError> {
        if self.servers.is_empty() {
            return Err(EdgeError::invalid("no address of a NATS server is given"));
        }
        let parse = |text: &String| {
            text.parse().map_err(|error| {
                // The address itself may hold a password.
                EdgeError::invalid("an address of a NATS server is not valid; write it as `nats://HOST:PORT`").with_source(error)
            })
        };
        self.servers.iter().map(parse).collect()
    }

    pub(super) fn client(self, events: mpsc::Sender<Event>) -> ConnectOptions {
        let options = match self.credentials {
            Some(credentials) => credentials.apply(),
            None => ConnectOptions::new(),
        };
        let backoff = Mutex::new(Backoff::default());
        self.tls
            .apply(options)
            .name(&self.member)
            .custom_inbox_prefix(format!("_INBOX_{}", node_token(&self.member)))
            .retry_on_initial_connect()
            .ping_interval(self.ping_interval)
            .connection_timeout(BROKER_CONNECT_TIMEOUT)
            .request_timeout(Some(SEND_TIMEOUT))
            .client_capacity(SENDING_MESSAGES_MAX)
            .subscription_capacity(ARRIVING_MESSAGES_MAX)
            .reconnect_delay_callback(move |attempt| {
                // Without random numbers every member waits as long as it may.
                backoff.lock().pause(attempt <= 1, Instant::now())
            })
            .event_callback(move |event| {
                // Who watches the connection looks at it also when this is lost.
                let _ = events.try_send(event);
                std::future::ready(())
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
