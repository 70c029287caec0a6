//! What makes a node a member of a fleet: its documents go to and fro, it reports, takes what the hub assigns, and answers the hub's calls.
//!
//! The node needs none of it to serve: whatever fails here is tried again, for as long as it takes.

pub(crate) mod artifacts;
mod assigned;
mod calls;
mod contact;
mod heartbeats;
mod leases;
mod load;
mod outbox;
mod topics;

use std::{future::pending, sync::Arc};

use edgeward_cluster::{Backbone, Service, membership::Timing, nats::CredentialState};
use edgeward_model::EdgeError;
use edgeward_runtime::blocking;
use edgeward_sync::Pattern;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

pub use self::{
    outbox::Outbox,
    topics::{TopicExchange, TopicSharing},
};
use crate::{
    chaos::{self, tie::ChaosTie},
    events::{EventKind, FleetEvent},
    node::{Node, calls::KeptWay},
    replication::{Replication, Replicator},
};

/// The release of this program.
pub(crate) const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// How a node belongs to its fleet.
#[derive(Clone, Debug)]
pub struct UplinkOptions {
    /// How often it reports.
    pub timing: Timing,
    /// Which documents it wants, beside those that it holds and its own.
    pub documents: Vec<Pattern>,
    /// Bytes a second at most with which artifacts are fetched; none for as many as can be.
    pub fetch_limit: Option<u64>,
    /// Which messages it forwards to its fleet, and which of others it gets.
    pub topics: TopicSharing,
    /// How its credentials are, where it has some: a fleet that refuses them refuses the node.
    pub credentials: Option<watch::Receiver<CredentialState>>,
}

impl Default for UplinkOptions {
    /// Every document, at the default heartbeat.
    fn default() -> Self {
        Self {
            timing: Timing::default(),
            documents: vec![Pattern::all()],
            fetch_limit: None,
            topics: TopicSharing::default(),
            credentials: None,
        }
    }
}

/// What ties a node to its fleet. Dropped, it ends, and the node goes on alone.
pub struct Uplink {
    replicator: Replicator,
    outbox: Arc<Outbox>,
    topics: watch::Receiver<TopicExchange>,
    _way: KeptWay,
    _services: [Service; 5],
    _chaos: ChaosTie,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Uplink {
    /// Begins, and returns without waiting for the hub.
    ///
    /// # Errors
    /// Those of the backbone's `serve` and `subscribe`, and of the disk.
    pub async fn start(node: Arc<Node>, backbone: Arc<dyn Backbone>, options: UplinkOptions) -> Result<Self, EdgeError> {
        let UplinkOptions { timing, documents, fetch_limit, topics: sharing, credentials } = options;
        sharing.check()?;
        let (documents_here, id) = (node.documents().clone(), node.runtime().node().id.clone());
        let outbox = Arc::new(blocking(move || Outbox::open(&documents_here, id)).await?);
        let chaos = ChaosTie::begin(&node, backbone.as_ref(), chaos::tie::tell_by(&outbox)).await?;
        // All else goes by the way into which faults are injected.
        let backbone = node.chaos().link(backbone);
        outbox.tell(FleetEvent::new(EventKind::NodeStarted, format!("the node started, release {RELEASE}"))).await;
        // Before the hub can take any.
        let left = node.topics().left();
        let replicator = Replicator::start(Arc::clone(node.documents().store()), Arc::clone(&backbone), documents).await?;
        let services = calls::serve(&node, &backbone).await?;
        let way = KeptWay::new(&node, &backbone);
        let replication = replicator.replication();
        let (sick, failing) = watch::channel(0);
        let sources = heartbeats::Sources { replication, failing, outbox: Arc::clone(&outbox) };
        let (exchanged, topics) = watch::channel(TopicExchange::default());
        let mut tasks = vec![
            tokio::spawn(heartbeats::send(Arc::clone(&node), Arc::clone(&backbone), timing, sources)),
            tokio::spawn(heartbeats::sample(Arc::clone(&node), Arc::clone(&outbox), sick)),
            tokio::spawn(assigned::follow(Arc::clone(&node), Arc::clone(&backbone), fetch_limit)),
            tokio::spawn(assigned::report(Arc::clone(&node), Arc::clone(&outbox))),
            tokio::spawn(topics::tell_left(left, Arc::clone(&outbox))),
            tokio::spawn(leases::ask(Arc::clone(&node), Arc::clone(&backbone))),
            tokio::spawn(heed_refusal(Arc::clone(&node), replicator.replication(), credentials)),
            tokio::spawn(contact::tell(backbone.connection(), replicator.replication())),
            tokio::spawn(outbox::send(Arc::clone(&outbox), Arc::clone(&backbone))),
        ];
        tasks.extend(topics::share(&node, &backbone, sharing, &exchanged).await?);
        Ok(Self {
            replicator,
            outbox,
            topics,
            _way: way,
            _services: services,
            _chaos: chaos,
            _tasks: tasks.into_iter().map(AbortOnDropHandle::new).collect(),
        })
    }

    /// How the node stands to its hub, as it changes.
    pub fn replication(&self) -> watch::Receiver<Replication> {
        self.replicator.replication()
    }

    /// How the messages go to and fro that it shares.
    pub fn topics(&self) -> watch::Receiver<TopicExchange> {
        self.topics.clone()
    }

    /// What waits to be told to the hub.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }
}

/// Has the node leave to others what its fleet schedules while it is refused, for ever: by the hub, or by brokers that do not take its credentials.
async fn heed_refusal(
    node: Arc<Node>,
    mut replication: watch::Receiver<Replication>,
    mut credentials: Option<watch::Receiver<CredentialState>>,
) {
    loop {
        let are_refused = |credentials: &mut watch::Receiver<CredentialState>| {
            matches!(*credentials.borrow_and_update(), CredentialState::Refused { .. })
        };
        let is_refused = replication.borrow_and_update().is_refused | credentials.as_mut().is_some_and(are_refused);
        node.schedules().set_refused(is_refused);
        let credentials_changed = async {
            let is_changed = match &mut credentials {
                Some(credentials) => credentials.changed().await.is_ok(),
                None => false,
            };
            if !is_changed {
                pending::<()>().await;
            }
        };
        tokio::select! {
            changed = replication.changed() => if changed.is_err() { return },
            () = credentials_changed => {}
        }
    }
}
