//! Claims the lease, serves while it is held, and claims it again, for ever.

use std::{path::PathBuf, sync::Arc, time::Duration};

use edgeward_cluster::{
    Backbone, Claim, Claimed, Lease, backoff,
    nats::{CredentialsTtl, FleetFolder, HubLink, Reception, StreamBounds},
    subject::Name,
};
use edgeward_model::{EdgeError, NodeId};
use edgeward_runtime::blocking;
use edgeward_sync::Role;
use edgeward_topics::LogOptions;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{HubStanding, following::Following, registry, revoke};
use crate::{
    events::{EventKind, FleetEvent},
    fleet::{EdgeCluster, ServiceOptions},
};

/// The lease of the active hub.
const LEASE: Name = Name::new("hub");
/// How long it is held without a renewal.
const TTL: Duration = Duration::from_secs(5);
/// Time between two looks of a hub that stands by.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time that a hub which knows nothing leaves to others, which look more often.
const WAY_GIVEN: Duration = Duration::from_secs(3);

pub(super) struct Leading {
    pub(super) id: NodeId,
    pub(super) peers: Vec<NodeId>,
    pub(super) data_dir: PathBuf,
    /// Whether its store was made at this start: it knows nothing of its fleet.
    pub(super) is_new: bool,
    pub(super) cluster: EdgeCluster,
    pub(super) fleet: FleetFolder,
    pub(super) link: Arc<HubLink>,
    pub(super) credentials_ttl: CredentialsTtl,
    pub(super) topics: Option<LogOptions>,
    pub(super) told: watch::Sender<HubStanding>,
    pub(super) stop: CancellationToken,
}

impl Leading {
    pub(super) async fn run(mut self) {
        let backbone = self.link.backbone();
        let stop = self.stop.clone();
        let mut failures = 0_u32;
        let mut following: Option<Following> = None;
        loop {
            let claimed = tokio::select! {
                () = stop.cancelled() => return,
                claimed = self.claim(&backbone) => claimed,
            };
            let turn = match claimed {
                Ok(Claimed::Held(lease)) if std::mem::take(&mut self.is_new) && lease.term() > 1 => {
                    // The fleet had a hub before this one, which has lost its disk or is new. Who knows more goes first.
                    lease.release().await;
                    self.wait("it lets a hub that knows more of the fleet go first".to_owned());
                    Ok(WAY_GIVEN)
                }
                Ok(Claimed::Held(lease)) => {
                    if let Some(following) = following.take() {
                        following.stop().await;
                    }
                    self.lead(&backbone, lease).await.map(|()| Duration::ZERO)
                }
                Ok(Claimed::Taken { holder, term }) => self.follow(&backbone, &mut following, HubStanding::Standby { holder, term }).await,
                Err(error) => Err(error),
            };
            let pause = match turn {
                Ok(pause) => {
                    failures = 0;
                    pause
                }
                Err(error) => {
                    self.wait(error.chain());
                    failures = failures.saturating_add(1);
                    backoff::pause(failures).min(LOOK_EVERY)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Makes it one that stands by, when it is none yet.
    async fn follow(
        &self,
        backbone: &Arc<dyn Backbone>,
        following: &mut Option<Following>,
        standing: HubStanding,
    ) -> Result<Duration, EdgeError> {
        if following.is_none() {
            let store = Arc::clone(self.cluster.documents().store());
            blocking(move || if store.role() == Role::Hub { store.demote() } else { Ok(()) }).await?;
            *following = Some(Following::start(&self.cluster, backbone, &self.data_dir).await?);
        }
        self.told.send_if_modified(|told| {
            let is_news = *told != standing;
            *told = standing;
            is_news
        });
        Ok(LOOK_EVERY)
    }

    /// Serves under the lease, or gives it back when it cannot.
    async fn lead(&self, backbone: &Arc<dyn Backbone>, lease: Lease) -> Result<(), EdgeError> {
        let store = Arc::clone(self.cluster.documents().store());
        let promoted = blocking(move || if store.role() == Role::Standby { store.promote() } else { Ok(()) }).await;
        if let Err(error) = promoted {
            // Another hub may know enough.
            lease.release().await;
            return Err(error);
        }
        let served = self.serve(backbone, lease).await;
        served.inspect_err(|error| tracing::error!(error = error.chain(), "this hub could not serve its fleet"))
    }

    fn wait(&self, why: String) {
        self.told.send_replace(HubStanding::Waiting { why });
    }

    async fn claim(&self, backbone: &Arc<dyn Backbone>) -> Result<Claimed, EdgeError> {
        let mut connection = backbone.connection();
        if !connection.borrow().is_up {
            let why = connection.borrow().why_down.clone();
            self.wait(why.unwrap_or_else(|| "it connects to its servers".to_owned()));
            // It lives as long as the backbone.
            let _ = connection.wait_for(|connection| connection.is_up).await;
        }
        let cluster = self.cluster.clone();
        let seen_term = blocking(move || cluster.term()).await?;
        Ok(backbone.lease(Claim { name: LEASE, holder: self.id.clone(), ttl: TTL, seen_term }).await?)
    }

    /// Serves until the lease is lost or the hub stops, when the lease is given back.
    async fn serve(&self, backbone: &Arc<dyn Backbone>, lease: Lease) -> Result<(), EdgeError> {
        let term = lease.term();
        let cluster = self.cluster.clone();
        blocking(move || cluster.set_term(term)).await?;
        let mut stream = self.link.topic_stream();
        if let Some(LogOptions { messages_max, bytes_max, age_max }) = self.topics {
            stream = stream.with_bounds(StreamBounds { messages_max, bytes_max, age_max });
        }
        let options = ServiceOptions { term: Some(term), standbys: self.peers.clone(), topics: Some(stream) };
        let service = self.cluster.serve(Arc::clone(backbone), options).await?;
        let registry = registry(&self.cluster, &self.link, &self.peers);
        let reception = Reception::open(Arc::clone(backbone), &self.fleet, self.credentials_ttl, registry).await?;
        // What another hub removed is known now.
        if let Err(error) = revoke(&self.cluster, &self.link).await {
            tracing::warn!(error = error.chain(), "the servers may not know yet which nodes were removed");
        }
        self.told.send_replace(HubStanding::Active { term });
        let event = FleetEvent::new(EventKind::HubActive, format!("hub `{}` is the active one, in term {term}", self.id));
        self.cluster.events().tell(event.on(&self.id));
        tokio::select! {
            () = lease.lost() => {
                tracing::warn!(term, "this hub lost its lease, and stops serving");
                self.wait("it lost its lease".to_owned());
                drop((reception, service));
            }
            () = self.stop.cancelled() => {
                drop((reception, service));
                lease.release().await;
            }
        }
        Ok(())
    }
}
