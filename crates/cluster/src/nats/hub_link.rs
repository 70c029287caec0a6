//! A hub's connection to its fleet: a broker of its own or the operator's servers, credentials that it signs for itself, and the
//! revocations, which the servers are told until they know them.

use std::{sync::Arc, time::Duration};

use edgeward_model::{EdgeError, ErrorKind, NodeId, limits::REVOCATION_TIMEOUT};
use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    backbone::{Backbone, Connection},
    backoff,
    nats::{
        NatsBackbone, NatsOptions,
        admission::CredentialsTtl,
        authority::Revoked,
        broker::{Broker, BrokerOptions},
        fleet_keys::FleetKeys,
        keeper::{CredentialKeeper, CredentialState},
        options::Tls,
        topic_stream::TopicStream,
    },
};

/// Where a hub's servers are.
#[derive(Clone, Debug)]
pub enum Servers {
    /// One that it starts and supervises.
    Own(BrokerOptions),
    /// The operator's, at these addresses. They trust the fleet's keys, see [`crate::nats::ServerFiles`].
    At(Vec<String>),
}

/// What a hub's connection needs to know.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Names the hub among members.
    pub hub: NodeId,
    /// Where its servers are.
    pub servers: Servers,
    /// How long its own working tokens live.
    pub credentials_ttl: CredentialsTtl,
    /// As [`NatsOptions::ping_interval`].
    pub ping_interval: Duration,
    /// As [`NatsOptions::lease_replicas`].
    pub lease_replicas: usize,
}

/// The connection of a hub. Dropped, it ends, and so does the broker that it started.
pub struct HubLink {
    backbone: Arc<NatsBackbone>,
    keeper: CredentialKeeper,
    revoked: watch::Sender<Revoked>,
    /// What the servers were told last; none while that is not known.
    told: watch::Receiver<Option<Revoked>>,
    _telling: AbortOnDropHandle<()>,
    broker: Option<Broker>,
}

impl HubLink {
    /// Starts the broker when the hub has one of its own, and returns when that listens; begins to connect, and does not wait for that.
    /// Tokens of the keys in `revoked` are refused from the start.
    ///
    /// # Errors
    /// Those of [`Broker::start`], and [`ErrorKind::InvalidInput`] when an address is none.
    pub async fn open(keys: &Arc<FleetKeys>, options: HubOptions, revoked: Revoked) -> Result<Self, EdgeError> {
        let HubOptions { hub, servers, credentials_ttl, ping_interval, lease_replicas } = options;
        let (broker, servers) = match servers {
            Servers::Own(options) => {
                let broker = Broker::start(options, Arc::clone(keys), revoked.clone()).await?;
                let servers = vec![broker.local_url()];
                (Some(broker), servers)
            }
            Servers::At(servers) => (None, servers),
        };
        let credentials = CredentialKeeper::hub_credentials(keys, &hub, credentials_ttl, Timestamp::now())?;
        let options = NatsOptions {
            tls: Tls::Authority(keys.fingerprint()),
            credentials: Some(credentials),
            ping_interval,
            lease_replicas,
            ..NatsOptions::new(hub, servers)
        };
        let backbone = Arc::new(NatsBackbone::connect(options.clone()).await?);
        let keeper = CredentialKeeper::of_hub(Arc::clone(keys), credentials_ttl, &backbone)?;
        let (revoked, (told, seen)) = (watch::Sender::new(revoked), watch::channel(None));
        let telling = Telling { keys: Arc::clone(keys), options, revoked: revoked.subscribe(), connection: backbone.connection(), told };
        let telling = AbortOnDropHandle::new(tokio::spawn(telling.run()));
        Ok(Self { backbone, keeper, revoked, told: seen, _telling: telling, broker })
    }

    /// What the hub talks over.
    pub fn backbone(&self) -> Arc<dyn Backbone> {
        Arc::clone(&self.backbone) as _
    }

    /// The stream of the fleet's topics.
    pub fn topic_stream(&self) -> TopicStream {
        self.backbone.topic_stream()
    }

    /// The broker that it started, if it did.
    pub fn broker(&self) -> Option<&Broker> {
        self.broker.as_ref()
    }

    /// How its credentials are. They are refused when the servers do not trust this fleet's keys.
    pub fn credentials(&self) -> watch::Receiver<CredentialState> {
        self.keeper.state()
    }

    /// Refuses the tokens of these keys and no others from now on, and returns when the servers know it: connections that show them have ended.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the servers do not know it yet. They are told as soon as they are reached, without another call.
    pub async fn revoke(&self, revoked: Revoked) -> Result<(), EdgeError> {
        if let Some(broker) = &self.broker {
            broker.set_revoked(revoked.clone());
        }
        self.revoked.send_replace(revoked.clone());
        let mut told = self.told.clone();
        let known = told.wait_for(|told| told.as_ref() == Some(&revoked));
        match timeout(REVOCATION_TIMEOUT, known).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(EdgeError::new(
                ErrorKind::Unavailable,
                "the NATS servers do not know yet whose credentials are revoked; they are told as soon as they are reached",
            )),
        }
    }

    /// Ends the connection and the broker, and returns when that has ended.
    pub async fn stop(self) {
        let Self { broker, backbone, keeper, _telling: telling, .. } = self;
        drop((backbone, keeper, telling));
        if let Some(broker) = broker {
            broker.stop().await;
        }
    }
}

/// Tells the servers whose tokens are revoked: after each change, and after each connection, as it may be to one that does not know.
struct Telling {
    keys: Arc<FleetKeys>,
    options: NatsOptions,
    revoked: watch::Receiver<Revoked>,
    connection: watch::Receiver<Connection>,
    told: watch::Sender<Option<Revoked>>,
}

impl Telling {
    async fn run(mut self) {
        let (mut failed, mut told_at) = (0, 0);
        loop {
            let wanted = self.revoked.borrow_and_update().clone();
            let now = self.connection.borrow_and_update().clone();
            let is_known = told_at == now.ups && *self.told.borrow() == Some(wanted.clone());
            let mut pause = None;
            if now.is_up && !is_known {
                match self.keys.authority().revoke(&self.options, &wanted, Timestamp::now()).await {
                    Ok(()) => {
                        (failed, told_at) = (0, now.ups);
                        self.told.send_replace(Some(wanted));
                    }
                    Err(error) => {
                        failed += 1;
                        pause = Some(backoff::pause(failed));
                        tracing::warn!(error = error.chain(), "the NATS servers do not know whose credentials are revoked");
                    }
                }
            }
            let changed = async {
                tokio::select! {
                    revoked = self.revoked.changed() => revoked,
                    connection = self.connection.changed() => connection,
                }
            };
            match pause {
                Some(pause) => sleep(pause).await,
                None => {
                    if changed.await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
