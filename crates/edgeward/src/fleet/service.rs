//! What a hub does for the nodes of its fleet while it is the active one: answers them, hears them, and looks who went silent.

use std::{sync::Arc, time::Duration};

use edgeward_cluster::{
    Backbone, Message, Service, Subscription,
    membership::Transition,
    nats::TopicStream,
    placement::SITE,
    routing::Terms,
    service::{Call, handler},
    subject::{Name, Subjects},
};
use edgeward_model::{
    EdgeError, ErrorKind, NodeId,
    limits::{ARTIFACT_CONCURRENCY, ARTIFACT_RANGE_BYTES_MAX, ROUTED_CALLS_MAX},
};
use edgeward_runtime::blocking;
use edgeward_sync::Hub;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::{EdgeCluster, routing::Caller, topics::exchange::TopicService};
use crate::{
    chaos::left_behind,
    deployments::steering::Steering,
    events::{EventKind, FleetEvent},
    leases::LeaseQuestion,
    replication::HubService,
    services::{
        self, ARTIFACT, ArtifactRange, CALL, HEARTBEAT, LEASES, OUTBOX, OutboxBatch, SIZE,
        invocation::{Invocation, write_output},
        shares::Shares,
    },
};

/// Time between two collections of what nobody needs.
const COLLECT_EVERY: Duration = Duration::from_mins(10);

/// How a hub serves.
#[derive(Clone, Debug, Default)]
pub struct ServiceOptions {
    /// The term of the lease under which it decides; none for a hub that has no other beside it.
    pub term: Option<u64>,
    /// Hubs that may stand by: they get every document and artifact.
    pub standbys: Vec<NodeId>,
    /// The stream in which the topics of the fleet lie; none when they lie on the disk of this hub.
    pub topics: Option<TopicStream>,
}

/// A hub that serves its fleet. Dropped, it stops.
pub struct FleetService {
    cluster: EdgeCluster,
    hub: Arc<Hub>,
    _replication: HubService,
    _services: [Service; 4],
    _topics: Option<TopicService>,
    _steering: Steering,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Drop for FleetService {
    fn drop(&mut self) {
        self.hub.set_term(None);
        *self.cluster.0.backbone.write() = None;
        self.cluster.note_routes_change();
    }
}

impl EdgeCluster {
    /// Begins to serve the far nodes of this cluster over a backbone, for as long as it is kept. A cluster serves one backbone.
    pub async fn serve(&self, backbone: Arc<dyn Backbone>, options: ServiceOptions) -> Result<FleetService, EdgeError> {
        let store = Arc::clone(self.0.documents.store());
        // Another hub may have changed what is assigned.
        self.0.deadlines.lock().clear();
        let cluster = self.clone();
        let hub = blocking(move || {
            cluster.read_registry()?;
            Hub::new(Arc::clone(cluster.0.documents.store()))
        });
        let hub = Arc::new(hub.await?);
        // Alone it decides in a term of its own.
        hub.set_term(Some(options.term.unwrap_or(1)));
        hub.set_standbys(options.standbys.iter().chain([&self.0.id]).cloned());
        let guard = Arc::new(Guard { cluster: self.clone(), standbys: options.standbys.clone() });
        let heartbeats = backbone.subscribe(&Subjects::to_hub(HEARTBEAT)).await?;
        let guarded = Arc::clone(&guard);
        let known = self.node_ids().into_iter().chain(guard.standbys.iter().cloned()).collect();
        let replication = HubService::start(Arc::clone(&hub), store, Arc::clone(&backbone), known, move |node| guarded.check(node)).await?;
        let (of, term) = (self.clone(), options.term);
        blocking(move || of.begin_grants(term)).await?;
        let services = [
            self.serve_artifacts(&backbone, &guard).await?,
            self.serve_outboxes(&backbone, &guard).await?,
            self.serve_leases(&backbone, &guard).await?,
            self.serve_calls(&backbone, &guard).await?,
        ];
        let topics = self.serve_topics(&backbone, &guard, &options).await?;
        *self.0.backbone.write() = Some(Arc::clone(&backbone));
        self.note_routes_change();
        self.begin_routing().await?;
        let tasks = vec![
            tokio::spawn(hear(self.clone(), heartbeats)),
            tokio::spawn(look(self.clone(), backbone)),
            tokio::spawn(collect(self.clone(), Arc::clone(&hub))),
            tokio::spawn(Arc::clone(&self.0.events).keep_written()),
            tokio::spawn(left_behind::end_all(self.clone())),
        ];
        let tasks = tasks.into_iter().map(AbortOnDropHandle::new).collect();
        Ok(FleetService {
            cluster: self.clone(),
            hub,
            _replication: replication,
            _services: services,
            _topics: topics,
            _steering: self.steer(),
            _tasks: tasks,
        })
    }

    async fn serve_artifacts(&self, backbone: &Arc<dyn Backbone>, guard: &Arc<Guard>) -> Result<Service, EdgeError> {
        let (cluster, standbys) = (self.clone(), guard.standbys.clone());
        let answer = move |node: NodeId, range: ArtifactRange| {
            let (cluster, is_standby) = (cluster.clone(), standbys.contains(&node));
            blocking(move || cluster.artifact_range(&node, is_standby, range))
        };
        guard.serve(backbone, (ARTIFACT, "a request for an artifact"), answer).await
    }

    /// A part of an artifact, for a node that is to run it.
    fn artifact_range(&self, node: &NodeId, is_standby: bool, range: ArtifactRange) -> Result<Message, EdgeError> {
        let ArtifactRange { digest, offset, length } = range;
        if !is_standby && !self.0.assignments.need(node, &digest)? {
            return Err(EdgeError::new(ErrorKind::Forbidden, format!("artifact `{digest}` is not assigned to node `{node}`")));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(ARTIFACT_RANGE_BYTES_MAX);
        let (bytes, size) = self.0.artifacts.range(&digest, offset, length)?;
        let mut answer = Message::new(bytes);
        answer.headers.set(SIZE, size.to_string())?;
        Ok(answer)
    }

    async fn serve_leases(&self, backbone: &Arc<dyn Backbone>, guard: &Arc<Guard>) -> Result<Service, EdgeError> {
        let cluster = self.clone();
        let answer = move |node: NodeId, question: LeaseQuestion| {
            let cluster = cluster.clone();
            blocking(move || cluster.grant(&node, &question).map(|answer| services::write(&answer)))
        };
        guard.serve(backbone, (LEASES, "a question for leases"), answer).await
    }

    /// Calls functions for nodes that have them not, or could not run them.
    async fn serve_calls(&self, backbone: &Arc<dyn Backbone>, guard: &Arc<Guard>) -> Result<Service, EdgeError> {
        let (cluster, guard, shares) = (self.clone(), Arc::clone(guard), Shares::new(ROUTED_CALLS_MAX));
        let answer = move |Call { subject, message, deadline }: Call| {
            let (cluster, guard, shares) = (cluster.clone(), Arc::clone(&guard), Arc::clone(&shares));
            async move {
                guard.check(&subject.node)?;
                let invocation = Invocation::read(message)?;
                let span = invocation.span();
                let Invocation { function, payload, options, is_idempotent, was_tried } = invocation;
                let _share = shares.enter(&function)?;
                let terms = Terms { left: Some(deadline.saturating_duration_since(Instant::now())), is_idempotent };
                let site = cluster.get_node(subject.node.as_str()).and_then(|mut node| node.labels.remove(SITE));
                let caller = Caller { site, failed_on: was_tried.then_some(subject.node) };
                cluster.call_for(caller, &function, payload, options, terms).instrument(span).await.map(write_output)
            }
        };
        Ok(backbone.serve(&Subjects::to_hub(CALL), ROUTED_CALLS_MAX, handler(answer)).await?)
    }

    async fn serve_outboxes(&self, backbone: &Arc<dyn Backbone>, guard: &Arc<Guard>) -> Result<Service, EdgeError> {
        let events = Arc::clone(&self.0.events);
        let answer = move |node: NodeId, batch: OutboxBatch| {
            let events = Arc::clone(&events);
            // The node forgets them when it has the answer.
            blocking(move || {
                events.take(&node, batch.events, Timestamp::now())?;
                events.write().map(|()| Message::default())
            })
        };
        guard.serve(backbone, (OUTBOX, "a batch of events"), answer).await
    }
}

/// Refuses who does not belong to the fleet, and tells of it.
pub(super) struct Guard {
    cluster: EdgeCluster,
    standbys: Vec<NodeId>,
}

impl Guard {
    /// Answers what members ask of a service; its name goes with what its questions are, for an error.
    async fn serve<Q, A>(
        self: &Arc<Self>,
        backbone: &Arc<dyn Backbone>,
        (service, what): (Name, &'static str),
        answer: impl Fn(NodeId, Q) -> A + Send + Sync + 'static,
    ) -> Result<Service, EdgeError>
    where
        Q: DeserializeOwned,
        A: Future<Output = Result<Message, EdgeError>> + Send + 'static,
    {
        let guard = Arc::clone(self);
        let answer = move |Call { subject, message, .. }: Call| {
            let answering =
                guard.check(&subject.node).and_then(|()| services::read(&message, what)).map(|question| answer(subject.node, question));
            async move { answering?.await }
        };
        Ok(backbone.serve(&Subjects::to_hub(service), ARTIFACT_CONCURRENCY, handler(answer)).await?)
    }

    pub(super) fn check(&self, node: &NodeId) -> Result<(), EdgeError> {
        if self.standbys.contains(node) {
            return Ok(());
        }
        self.cluster.check_member(node).inspect_err(|error| {
            if self.cluster.0.events.tell_refusal(node, FleetEvent::new(EventKind::Refused, error.to_string()).on(node)) {
                tracing::warn!(target: "audit", %node, "a node that does not belong to the fleet was refused");
            }
        })
    }
}

/// Takes heartbeats, for ever.
async fn hear(cluster: EdgeCluster, mut heartbeats: Subscription) {
    while let Some(received) = heartbeats.next().await {
        match services::read(&received.message, "a heartbeat") {
            Ok(report) => cluster.report(&received.subject.node, &report),
            Err(error) => tracing::debug!(node = %received.subject.node, error = error.chain(), "a heartbeat could not be read"),
        }
    }
}

/// Looks who went silent, for ever.
async fn look(cluster: EdgeCluster, backbone: Arc<dyn Backbone>) {
    let connection = backbone.connection();
    let mut looking = interval(cluster.0.timing.look_every());
    looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looking.tick().await;
        let transitions = {
            let now = cluster.now();
            let mut members = cluster.0.members.lock();
            members.membership.hears(connection.borrow().is_up, now);
            members.membership.look(now)
        };
        if !transitions.is_empty() {
            cluster.note_routes_change();
        }
        for transition in &transitions {
            cluster.0.events.tell(status_event(transition));
        }
    }
}

/// Collects what nobody needs any more, for ever.
async fn collect(cluster: EdgeCluster, hub: Arc<Hub>) {
    let mut collecting = interval(COLLECT_EVERY);
    collecting.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        collecting.tick().await;
        let (of, at) = (cluster.clone(), Arc::clone(&hub));
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        let collected = blocking(move || at.collect(now).and_then(|()| of.collect_garbage())).await;
        if let Err(error) = collected {
            tracing::warn!(error = error.chain(), "garbage could not be collected");
        }
    }
}

pub(super) fn status_event(transition: &Transition) -> FleetEvent {
    let Transition { node, from, to, reasons, at } = transition;
    let why: Vec<_> = reasons.iter().map(ToString::to_string).collect();
    let why = if why.is_empty() { String::new() } else { format!(": {}", why.join(", ")) };
    let event = FleetEvent::new(EventKind::NodeStatus, format!("node `{node}` is {to}, after {from}{why}")).on(node);
    FleetEvent { at: *at, status: Some(*to), ..event }
}
