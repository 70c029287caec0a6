//! Where the hub answers who wants to join, to renew, or to be known as there. What it refuses is in the audit log.
//!
//! The registry of nodes is the hub's own: here is only who proves what, and that a join token serves once.

use std::sync::Arc;

use edgeward_model::{
    EdgeError, ErrorKind, NodeId,
    limits::{RECEPTION_CONCURRENCY, SERVICE_CONCURRENCY_MAX},
};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{task::spawn_blocking, time::Instant};

use crate::{
    backbone::Backbone,
    message::Message,
    nats::{
        admission::{Applicant, CredentialsTtl, JoinRequest},
        audit::{self, Audit},
        fleet_folder::FleetFolder,
        fleet_keys::FleetKeys,
        join_token::JOIN,
        presence::{PRESENCE, Presence, Processes},
        renewal::{RENEW, RenewRequest},
        used_tokens::UsedTokens,
    },
    service::{Call, Service, handler},
    subject::{Name, Subject, Subjects},
};

type Admit = dyn Fn(Applicant) -> BoxFuture<'static, Result<(), EdgeError>> + Send + Sync;
type KeyOf = dyn Fn(NodeId) -> BoxFuture<'static, Result<Option<String>, EdgeError>> + Send + Sync;

/// What the hub's registry of nodes decides.
#[derive(Clone)]
pub struct Registry {
    admit: Arc<Admit>,
    key_of: Arc<KeyOf>,
}

impl Registry {
    /// `admit` makes an applicant a node, durably, with its key in place of an earlier one, or refuses it; it is asked again when its answer was
    /// lost. `key_of` says with which key a node joined: none when it never did, or was removed.
    pub fn new<A, K>(admit: impl Fn(Applicant) -> A + Send + Sync + 'static, key_of: impl Fn(NodeId) -> K + Send + Sync + 'static) -> Self
    where
        A: Future<Output = Result<(), EdgeError>> + Send + 'static,
        K: Future<Output = Result<Option<String>, EdgeError>> + Send + 'static,
    {
        Self { admit: Arc::new(move |applicant| admit(applicant).boxed()), key_of: Arc::new(move |node| key_of(node).boxed()) }
    }
}

/// Answers members-to-be and members until it is dropped.
pub struct Reception {
    _services: [Service; 3],
}

/// What the answers need.
struct Desk {
    backbone: Arc<dyn Backbone>,
    keys: Arc<FleetKeys>,
    ttl: CredentialsTtl,
    registry: Registry,
    used: Mutex<UsedTokens>,
    processes: Mutex<Processes>,
    audit: Audit,
}

impl Reception {
    /// Begins to answer on a hub's backbone. Working tokens live as long as `ttl` says.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the record of used join tokens is damaged, and those of [`Backbone::serve`].
    pub async fn open(
        backbone: Arc<dyn Backbone>,
        folder: &FleetFolder,
        ttl: CredentialsTtl,
        registry: Registry,
    ) -> Result<Self, EdgeError> {
        let desk = Arc::new(Desk {
            backbone: Arc::clone(&backbone),
            keys: Arc::clone(folder.keys()),
            ttl,
            registry,
            used: Mutex::new(UsedTokens::open(folder.used_tokens())?),
            processes: Mutex::default(),
            audit: Audit::default(),
        });
        let serve = async |service: Name, concurrency| {
            let desk = Arc::clone(&desk);
            let answer = handler(move |call| Arc::clone(&desk).answer(service, call));
            backbone.serve(&Subjects::to_hub(service), concurrency, answer).await
        };
        let services = [
            serve(JOIN, RECEPTION_CONCURRENCY).await?,
            serve(RENEW, RECEPTION_CONCURRENCY).await?,
            serve(PRESENCE, SERVICE_CONCURRENCY_MAX).await?,
        ];
        Ok(Self { _services: services })
    }
}

impl Desk {
    async fn answer(self: Arc<Self>, service: Name, call: Call) -> Result<Message, EdgeError> {
        let asked_as = call.subject.node.clone();
        // Not by `match`: constants as patterns make the compiler of optimized code go in a circle here.
        let answered = if service == JOIN {
            Arc::clone(&self).join(call).await
        } else if service == RENEW {
            self.renew(&call).await
        } else {
            self.presence(&call).await
        };
        if let Err(error) = &answered
            && matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::Conflict | ErrorKind::InvalidInput)
        {
            self.audit.refused(&asked_as, service.as_str(), error);
        }
        answered
    }

    async fn join(self: Arc<Self>, call: Call) -> Result<Message, EdgeError> {
        let now = Timestamp::now();
        let applicant = JoinRequest::read(&call.message.payload)?.verify(&call.subject.node, self.keys.authority(), now)?;
        let (desk, taken) = (Arc::clone(&self), applicant.clone());
        spawn_blocking(move || desk.used.lock().take(&taken, now))
            .await
            .map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to note the use of a join token").with_source(error))??;
        (self.registry.admit)(applicant.clone()).await?;
        audit::joined(&applicant.node, &applicant.join_id, &applicant.public_key);
        Ok(Message::new(applicant.admit(&self.keys, self.ttl, now)?.to_payload()))
    }

    async fn renew(&self, call: &Call) -> Result<Message, EdgeError> {
        let (asked, node) = (RenewRequest::read(&call.message.payload)?, &call.subject.node);
        let recorded = (self.registry.key_of)(node.clone()).await?;
        let answer = asked.answer(node, recorded.as_deref(), self.keys.authority(), self.ttl, Timestamp::now())?;
        Ok(Message::new(answer.to_payload()))
    }

    async fn presence(&self, call: &Call) -> Result<Message, EdgeError> {
        let (presence, node) = (Presence::read(&call.message.payload)?, &call.subject.node);
        let may_stay = self.processes.lock().note(node, &presence, Instant::now());
        if !may_stay {
            let message = format!(
                "another process that has been up longer works as the node `{node}`: its data folder was copied; stop one of them, and join the copy anew"
            );
            return Err(EdgeError::new(ErrorKind::Forbidden, message));
        }
        if presence.asks {
            let others = Subject::to_node(node.clone(), PRESENCE);
            // Then nothing is heard of others, and the process asks again after its next connection.
            let _ = self.backbone.publish(&others, Message::new(presence.to_payload())).await;
        }
        Ok(Message::default())
    }
}
