//! Claims the lease, serves while it is held, and claims it again, for ever.

use std::{sync::Arc, time::Duration};

use edgeward_cluster::{
    Backbone, Claim, Claimed, Lease, backoff,
    nats::{CredentialsTtl, FleetFolder, HubLink, Reception},
    subject::Name,
};
use edgeward_model::{EdgeError, NodeId};
use edgeward_runtime::blocking;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{HubStanding, registry};
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

pub(super) struct Leading {
    pub(super) id: NodeId,
    pub(super) cluster: EdgeCluster,
    pub(super) fleet: FleetFolder,
    pub(super) link: Arc<HubLink>,
    pub(super) credentials_ttl: CredentialsTtl,
    pub(super) told: watch::Sender<HubStanding>,
    pub(super) stop: CancellationToken,
}

impl Leading {
    pub(super) async fn run(self) {
        let backbone = self.link.backbone();
        let stop = self.stop.clone();
        let mut failures = 0_u32;
        loop {
            let claimed = tokio::select! {
                () = stop.cancelled() => return,
                claimed = self.claim(&backbone) => claimed,
            };
            let pause = match claimed {
                Ok(Claimed::Held(lease)) => {
                    failures = 0;
                    match self.serve(&backbone, lease).await {
                        Ok(()) if stop.is_cancelled() => return,
                        Ok(()) => Duration::ZERO,
                        Err(error) => {
                            tracing::error!(error = error.chain(), "this hub could not serve its fleet");
                            self.wait(error.chain());
                            LOOK_EVERY
                        }
                    }
                }
                Ok(Claimed::Taken { holder, term }) => {
                    failures = 0;
                    let standing = HubStanding::Standby { holder: holder.clone(), term };
                    if self.told.send_replace(standing.clone()) != standing {
                        tracing::info!(%holder, term, "this hub stands by");
                    }
                    LOOK_EVERY
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
        let service = self.cluster.serve(Arc::clone(backbone), ServiceOptions { term: Some(term) }).await?;
        let reception =
            Reception::open(Arc::clone(backbone), &self.fleet, self.credentials_ttl, registry(&self.cluster, &self.link)).await?;
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
