//! A node's connection to its fleet: it is made and kept without anybody's help, and says when the fleet does not want the node.

use std::{path::Path, sync::Arc, time::Duration};

use edgeward_model::{
    EdgeError, ErrorKind, NodeId,
    limits::{PRESENCE_PAUSE, REFUSED_PAUSE_MAX, SEND_TIMEOUT},
};
use tokio::{sync::watch, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    backbone::{Backbone, Connection},
    backoff,
    error::BackboneError,
    message::Message,
    nats::{
        NatsBackbone, NatsOptions,
        enrolment::{Enrolment, certificate_file},
        errand::{Errand, Failed},
        keeper::{CredentialKeeper, CredentialState},
        options::Tls,
        presence::{PRESENCE, Presence, Process},
    },
    service::Subscription,
    subject::{Subject, Subjects},
};

/// The connection of a node that joined. Dropped, it ends.
pub struct NodeLink {
    node: NodeId,
    backbone: Arc<NatsBackbone>,
    keeper: CredentialKeeper,
    _presence: AbortOnDropHandle<()>,
}

impl NodeLink {
    /// Begins to connect, and returns without waiting for it. `folder` is where the enrolment is kept; later credentials go there too.
    /// `ping_interval` is as [`NatsOptions::ping_interval`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when what was kept is not valid.
    pub async fn open(enrolment: Enrolment, folder: &Path, ping_interval: Duration) -> Result<Self, EdgeError> {
        let node = enrolment.node().clone();
        let options = NatsOptions { ping_interval, ..enrolment.options(folder)? };
        let backbone = Arc::new(NatsBackbone::connect(options).await?);
        let keeper = CredentialKeeper::of_node(enrolment.clone(), folder.to_owned(), &backbone)?;
        let announcements = backbone.subscribe(&Subjects::to_node(node.clone(), PRESENCE)).await?;
        let tls = Tls::Ca(certificate_file(folder));
        let watch = Watch { process: Process::new()?, enrolment, tls, backbone: Arc::clone(&backbone), keeper: keeper.clone() };
        let presence = AbortOnDropHandle::new(tokio::spawn(watch.run(announcements)));
        Ok(Self { node, backbone, keeper, _presence: presence })
    }

    /// Whose it is.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// What the node talks over.
    pub fn backbone(&self) -> Arc<dyn Backbone> {
        Arc::clone(&self.backbone) as _
    }

    /// How its credentials are, and whether the fleet refuses it.
    pub fn credentials(&self) -> watch::Receiver<CredentialState> {
        self.keeper.state()
    }
}

/// Sees to it that of two processes with the node's key one stays.
struct Watch {
    process: Process,
    enrolment: Enrolment,
    tls: Tls,
    backbone: Arc<NatsBackbone>,
    keeper: CredentialKeeper,
}

impl Watch {
    async fn run(self, mut announcements: Subscription) {
        let mut connection = self.backbone.connection();
        let mut seen = 0;
        loop {
            let verdict = tokio::select! {
                ups = connected(&mut connection, seen) => {
                    seen = ups;
                    self.present(&mut connection).await
                }
                announced = announcements.next() => match announced {
                    Some(announced) => self.answer(&announced.message).await,
                    None => return,
                },
            };
            if let Err(why) = verdict {
                self.step_back(&why).await;
            }
        }
    }

    /// Says that this process is there, and asks a moment later whether it may stay. When nobody answers it asks again, until the connection
    /// breaks.
    async fn present(&self, connection: &mut watch::Receiver<Connection>) -> Result<(), EdgeError> {
        let asking = async {
            for asks in [true, false] {
                for failed in 1.. {
                    match self.say(asks).await {
                        Err(BackboneError::Answered(error)) if error.kind() == ErrorKind::Forbidden => return Err(error),
                        Ok(()) | Err(BackboneError::Answered(_)) => break,
                        Err(_) => sleep(backoff::pause(failed)).await,
                    }
                }
                if asks {
                    sleep(PRESENCE_PAUSE).await;
                }
            }
            Ok(())
        };
        tokio::select! {
            verdict = asking => verdict,
            () = async { drop(connection.wait_for(|connection| !connection.is_up).await) } => Ok(()),
        }
    }

    /// Answers another process of the node, which asks who is there.
    async fn answer(&self, announced: &Message) -> Result<(), EdgeError> {
        match Presence::read(&announced.payload) {
            Ok(other) if !self.process.is(&other) => match self.say(false).await {
                Err(BackboneError::Answered(error)) if error.kind() == ErrorKind::Forbidden => Err(error),
                // The other one stays then, and this one is refused after its next connection.
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    async fn say(&self, asks: bool) -> Result<(), BackboneError> {
        let hub = Subject::to_hub(self.enrolment.node().clone(), PRESENCE);
        let message = Message::new(self.process.presence(asks).to_payload());
        self.backbone.request(&hub, message, SEND_TIMEOUT).await.map(|_| ())
    }

    /// Leaves the node to its other process, and returns when that is gone.
    async fn step_back(&self, why: &EdgeError) {
        self.keeper.hold(why.to_string()).await;
        loop {
            sleep(REFUSED_PAUSE_MAX / 2 + backoff::some_of(REFUSED_PAUSE_MAX / 2)).await;
            match self.may_return().await {
                Ok(()) => break,
                Err(failed) => tracing::debug!(?failed, "this process still may not work as its node"),
            }
        }
        self.keeper.release();
    }

    /// Asks as after a connection, over connections of their own.
    async fn may_return(&self) -> Result<(), Failed> {
        for asks in [true, false] {
            let credentials = self.enrolment.renewal().map_err(Failed::Unreached)?;
            let errand = Errand { servers: self.enrolment.servers(), tls: &self.tls, credentials };
            let hub = Subject::to_hub(self.enrolment.node().clone(), PRESENCE);
            errand.ask(&hub, self.process.presence(asks).to_payload().into()).await?;
            if asks {
                sleep(PRESENCE_PAUSE).await;
            }
        }
        Ok(())
    }
}

/// Returns when there is a connection after the `seen`th, with its number.
async fn connected(connection: &mut watch::Receiver<Connection>, seen: u64) -> u64 {
    let ups = connection.wait_for(|connection| connection.is_up && connection.ups > seen).await.map(|connection| connection.ups);
    match ups {
        Ok(ups) => ups,
        // The backbone, which is held here, has ended for ever.
        Err(_) => std::future::pending().await,
    }
}
