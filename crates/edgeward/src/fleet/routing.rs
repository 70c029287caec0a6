//! Calls by the name of a function: which node takes one is the router's choice, by what this cluster knows of its nodes.
//!
//! No call reads the disk. What the router knows is read anew soon after something changed: what is assigned or reported, who is heard, what is
//! wanted with a node, who holds a lease. Many changes are read at once.

use std::{
    collections::BTreeMap,
    future::pending,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use edgeward_cluster::{
    Connection, Picked, RouteView, Router,
    routing::{BreakerState, CallFailure, Leave, Next, RouteSpec, Terms, too_late},
};
use edgeward_model::{EdgeError, ErrorKind, FunctionId, NodeId, limits::REQUEST_TIMEOUT_MAX};
use edgeward_runtime::{CallOptions, Output, blocking};
use edgeward_telemetry::{Span, SpanKind, TraceContext, begin, span};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{sleep, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::{Core, EdgeCluster, far::Failed, presence::Presence, runtime::Place};
use crate::{
    deployments,
    events::{EventKind, FleetEvent},
};

/// Time between two readings of the routes, at least.
const READ_EVERY: Duration = Duration::from_millis(50);
/// Time between two readings as a multiple of what the last one took: a large fleet is not read all the time.
const REST: u32 = 9;
/// How long a call that finds no node waits before it has the routes read anew: what changed may not be all yet.
const REREAD_AFTER: Duration = Duration::from_millis(20);
/// Longest time between two readings, and after one that failed.
const REST_MAX: Duration = Duration::from_secs(1);

/// One try of a call, on one node.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Where it is to be made.
    pub node: NodeId,
    /// How long it may take.
    pub time: Duration,
    /// Which one of its call it is, from 1 on.
    pub number: u64,
    /// How it leaves its node when that is away: when its call may run twice and another could take it.
    leave: Option<Leave>,
}

/// For whom a call is made; this member unless it says otherwise.
#[derive(Debug, Default)]
pub(super) struct Caller {
    /// Where the caller stands, when that is said: near nodes are those there.
    pub(super) site: Option<String>,
    /// The node on which it failed before: others come first.
    pub(super) failed_on: Option<NodeId>,
}

/// What a cluster routes calls by.
pub(super) struct Routing {
    router: Router,
    /// What the router was told last.
    told: Mutex<Told>,
    /// Counts changes in this process after which routes may be others. Who keeps them fresh listens to it.
    changes: watch::Sender<u64>,
    /// That count, and that of the commits of the documents, as they were when they were read last.
    seen: [AtomicU64; 2],
    /// What keeps them fresh.
    keeping: Mutex<Option<AbortOnDropHandle<()>>>,
    random: AtomicU64,
    /// Whether far nodes are still there while they run calls.
    presence: Presence,
}

/// What a router was told.
#[derive(Default)]
struct Told {
    routes: BTreeMap<FunctionId, RouteSpec>,
    /// What it refused, which it is told anew with each reading: there may be room.
    refused: BTreeMap<FunctionId, RouteSpec>,
}

impl Told {
    /// Tells what is another than before, and anew what was refused.
    fn tell(&mut self, router: &Router, mut specs: BTreeMap<FunctionId, RouteSpec>) {
        // What goes makes room for what comes.
        if self.routes.keys().chain(self.refused.keys()).any(|id| !specs.contains_key(id)) {
            router.retain(|id| specs.contains_key(id));
        }
        let news = specs.iter().filter(|(id, route)| self.routes.get(*id) != Some(*route));
        let mut refused = BTreeMap::new();
        for (function, error) in router.set_all(news.map(|(id, route)| (id.clone(), route.clone()))) {
            let Some((function, route)) = specs.remove_entry(&function) else { continue };
            if self.refused.get(&function) != Some(&route) {
                tracing::warn!(%function, error = error.chain(), "calls of a function are not routed as it says");
            }
            refused.insert(function, route);
        }
        *self = Self { routes: specs, refused };
    }
}

impl Routing {
    /// For callers at this site.
    pub(super) fn new(site: Option<String>) -> Self {
        Self {
            router: Router::new(site, now()),
            told: Mutex::default(),
            changes: watch::Sender::new(1),
            seen: [const { AtomicU64::new(0) }; 2],
            keeping: Mutex::default(),
            random: AtomicU64::new(RandomState::new().hash_one(0)),
            presence: Presence::default(),
        }
    }

    /// Notes that routes may be others now.
    pub(super) fn note_change(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn has_other(&self, counts: [u64; 2]) -> bool {
        self.seen.iter().zip(counts).any(|(seen, count)| seen.load(Ordering::Acquire) != count)
    }

    fn is_kept(&self) -> bool {
        self.changes.receiver_count() > 0
    }

    fn random(&self) -> u64 {
        self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    fn pick(&self, site: Option<&str>, function: &FunctionId, tried: &[NodeId]) -> Result<Picked, EdgeError> {
        match site {
            Some(site) => self.router.pick_for(site, function, tried, now(), self.random()),
            None => self.router.pick(function, tried, now(), self.random()),
        }
    }
}

impl EdgeCluster {
    /// Calls a function on the node that takes the call best: here before elsewhere, and on another one when that fails, within the function's
    /// deadline and what its [`resilience`](edgeward_model::EdgeFunction::resilience) says. Of a function that one node at a time runs that is the node with its lease.
    /// Who wants a certain node asks its [`runtime`](EdgeCluster::runtime), which chooses nothing and retries nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when no node is assigned such a function, [`ErrorKind::Unavailable`] when none of those can be reached,
    /// [`ErrorKind::Overloaded`] when all have as much to do as they may, [`ErrorKind::Timeout`] when its time is up; else those of the function, of the last
    /// attempt.
    pub async fn call(
        &self,
        function: &FunctionId,
        payload: impl Into<Bytes>,
        options: CallOptions,
        terms: Terms,
    ) -> Result<Output, EdgeError> {
        self.call_for(Caller::default(), function, payload.into(), options, terms).await
    }

    /// The same for another member.
    pub(super) async fn call_for(
        &self,
        caller: Caller,
        function: &FunctionId,
        payload: Bytes,
        options: CallOptions,
        terms: Terms,
    ) -> Result<Output, EdgeError> {
        let mut span = call_span(function, options.trace());
        let options = options.below(span.as_ref());
        let attempt = |attempt| self.attempt(function, payload.clone(), options.clone(), attempt);
        let answered = self.call_routed(caller, function, terms, attempt).await;
        answered.inspect_err(|error| span::fail(&mut span, error))
    }

    /// The same of a call that is made in another way than with a payload, as of foreign code: `attempt` makes it on a node.
    ///
    /// # Errors
    /// Those of [`EdgeCluster::call`], and of `attempt`.
    pub async fn call_with<T, A>(&self, function: &FunctionId, terms: Terms, attempt: impl Fn(Attempt) -> A) -> Result<T, EdgeError>
    where
        A: Future<Output = Result<T, EdgeError>>,
    {
        let attempt = |made| {
            let attempted = attempt(made);
            async { attempted.await.map_err(|error| Failed { failure: CallFailure::answered(error.kind()), error }) }
        };
        self.call_routed(Caller::default(), function, terms, attempt).await
    }

    async fn call_routed<T, A>(
        &self,
        Caller { site, failed_on }: Caller,
        function: &FunctionId,
        terms: Terms,
        attempt: impl Fn(Attempt) -> A,
    ) -> Result<T, EdgeError>
    where
        A: Future<Output = Result<T, Failed>>,
    {
        let (routing, begun) = (&self.0.routing, now());
        // What is read on the way is of the call's time.
        let until = terms.left.and_then(|left| begun.checked_add(left));
        if !routing.is_kept() {
            within(until, function, self.begin_routing()).await?;
        }
        let mut plan = match routing.router.plan(function, terms, begun) {
            Err(error) if error.kind() == ErrorKind::NotFound && self.has_stale_routes() => {
                within(until, function, self.reread_routes()).await?;
                routing.router.plan(function, terms, begun)?
            }
            planned => planned?,
        };
        if let Some(node) = failed_on {
            plan.failed_before_on(node);
        }
        let (mut last, mut attempts) = (None, 0);
        loop {
            let picked = match routing.pick(site.as_deref(), function, plan.tried()) {
                // It may have come to its first node just now.
                Err(error) if last.is_none() && error.kind() == ErrorKind::Unavailable && self.has_stale_routes() => {
                    within(Some(plan.deadline()), function, self.reread_routes()).await?;
                    routing.pick(site.as_deref(), function, plan.tried())
                }
                picked => picked,
            };
            // What went wrong before tells more than that nobody is left.
            let picked = match picked {
                Ok(picked) => picked,
                Err(error) => return Err(last.unwrap_or(error)),
            };
            let (node, time) = (picked.node().clone(), plan.attempt_time(now()));
            if time.is_zero() {
                return Err(last.unwrap_or_else(|| too_late(function)));
            }
            attempts += 1;
            // This process does not vanish from itself.
            let leave = if picked.is_local() { None } else { plan.leave(&node, now()) };
            let made = Attempt { leave, node: node.clone(), time, number: attempts };
            let Failed { error, failure } = match attempt(made).await {
                Ok(answer) => {
                    self.tell_breaker(function, &node, picked.succeed(now()));
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            let failure = plan.judge(failure, time);
            self.tell_breaker(function, &node, picked.fail(failure, &error.to_string(), now()));
            match plan.next_attempt(&node, failure, now(), routing.random()) {
                Next::After(pause) => sleep(pause).await,
                Next::GiveUp(why) => {
                    tracing::debug!(%function, %node, %why, error = error.chain(), "a call is not tried again");
                    return Err(error);
                }
            }
            last = Some(error);
        }
    }

    async fn attempt(
        &self,
        function: &FunctionId,
        payload: Bytes,
        options: CallOptions,
        Attempt { node, time, number, leave }: Attempt,
    ) -> Result<Output, Failed> {
        // It ends here: the pause before the next attempt is none of its time.
        let mut span = attempt_span(function, &node, options.trace(), number);
        let options = options.below(span.as_ref());
        let ran = match self.place(node.as_str()) {
            Ok(Place::Here(runtime)) => {
                let running = timeout(time, runtime.invoke_with(function.as_str(), payload, options)).await;
                let answered = running.unwrap_or_else(|_| {
                    let message = format!("function `{function}` did not answer within {time:?} on node `{node}`; the call may have run");
                    Err(EdgeError::new(ErrorKind::Timeout, message))
                });
                // Whatever the causes of a handler's error are, they are of calls that it made.
                answered.map_err(|error| Failed { failure: CallFailure::answered(error.kind()), error })
            }
            Ok(Place::Far(far)) => {
                let (presence, begun) = (&self.0.routing.presence, tokio::time::Instant::now());
                tokio::select! {
                    answered = far.invoke(function.clone(), payload, options, time.min(REQUEST_TIMEOUT_MAX)) => {
                        if answered.is_ok() {
                            presence.note_call(&node, begun);
                        }
                        answered
                    }
                    failure = presence.lost(&far, leave) => Err(lost(function, &node, failure)),
                }
            }
            Err(error) => Err(Failed { failure: CallFailure::no_way(error.kind()), error }),
        };
        ran.inspect_err(|Failed { error, .. }| span::fail(&mut span, error))
    }

    /// The ways of the calls of this cluster, by function: its nodes in the order in which they are asked, and how they do. Reads the disk when something
    /// changed.
    pub fn routes(&self) -> Result<Vec<RouteView>, EdgeError> {
        self.read_routes(true)?;
        Ok(self.0.routing.router.views(now()))
    }

    /// Reads the routes, and keeps them fresh as long as the cluster and this runtime live.
    pub(super) async fn begin_routing(&self) -> Result<(), EdgeError> {
        self.read_routes_now().await?;
        let routing = &self.0.routing;
        let mut keeping = routing.keeping.lock();
        if !routing.is_kept() {
            let changed = (routing.changes.subscribe(), self.0.documents.store().commits());
            let cluster = std::sync::Arc::downgrade(&self.0);
            *keeping = Some(AbortOnDropHandle::new(tokio::spawn(keep(cluster, changed))));
        }
        Ok(())
    }

    /// Whether something changed, here or in the documents, since the routes were read.
    fn has_stale_routes(&self) -> bool {
        self.0.routing.has_other(self.counts_of_changes())
    }

    fn counts_of_changes(&self) -> [u64; 2] {
        [*self.0.routing.changes.borrow(), *self.0.documents.store().commits().borrow()]
    }

    /// For a call that found no node. However many these are, and however much is written meanwhile: the fleet is not read all the time.
    async fn reread_routes(&self) -> Result<(), EdgeError> {
        sleep(REREAD_AFTER).await;
        self.read_routes_now().await
    }

    async fn read_routes_now(&self) -> Result<(), EdgeError> {
        let cluster = self.clone();
        blocking(move || cluster.read_routes(true)).await
    }

    /// Reads what is known of the nodes, and tells the router what is another than before; of stale routes only, nothing when somebody else just did.
    pub(crate) fn read_routes(&self, only_stale: bool) -> Result<(), EdgeError> {
        let routing = &self.0.routing;
        let mut told = routing.told.lock();
        let counts = self.counts_of_changes();
        if only_stale && !routing.has_other(counts) {
            return Ok(());
        }
        routing.router.set_connected(self.connection().is_some_and(|connection| connection.borrow().is_up));
        told.tell(&routing.router, deployments::routes(self)?);
        for (seen, count) in routing.seen.iter().zip(counts) {
            seen.store(count, Ordering::Release);
        }
        Ok(())
    }

    /// Whether the way to far nodes is there, while there is one.
    fn connection(&self) -> Option<watch::Receiver<Connection>> {
        self.0.backbone.read().as_ref().map(|backbone| backbone.connection())
    }

    fn tell_breaker(&self, function: &FunctionId, node: &NodeId, now: Option<BreakerState>) {
        let does = match now {
            // One becomes half open with time, and not by what a call says.
            None | Some(BreakerState::HalfOpen) => return,
            Some(BreakerState::Open) => "pass it by for a while, as it fails",
            Some(BreakerState::Closed) => "go there again",
        };
        let message = format!("node `{node}`: calls of function `{function}` {does}");
        self.0.events.tell(FleetEvent::new(EventKind::BreakerChanged, message).on(node).of(function));
    }
}

/// The span of a call, below that of its caller.
pub(super) fn call_span(function: &FunctionId, parent: Option<TraceContext>) -> Option<Span> {
    let mut span = begin(parent, SpanKind::Server, || format!("call {function}"))?;
    span.set("faas.name", function.as_str());
    Some(span)
}

/// The span of an attempt on a node.
pub(super) fn attempt_span(function: &FunctionId, node: &NodeId, parent: Option<TraceContext>, number: u64) -> Option<Span> {
    let mut span = begin(parent, SpanKind::Client, || format!("attempt {function}"))?;
    span.set("faas.invoked_name", function.as_str());
    span.set("edgeward.node.id", node.as_str());
    span.set("edgeward.attempt", number);
    Some(span)
}

/// What becomes of a call whose node is there no more.
fn lost(function: &FunctionId, node: &NodeId, failure: CallFailure) -> Failed {
    let message = format!("node `{node}` vanished while it ran function `{function}`; the call may have run");
    Failed { error: EdgeError::new(ErrorKind::Unavailable, message), failure }
}

/// Reads the routes for a call of a function that must have ended by then.
async fn within(
    until: Option<Instant>,
    function: &FunctionId,
    reading: impl Future<Output = Result<(), EdgeError>>,
) -> Result<(), EdgeError> {
    match until {
        Some(until) => timeout_at(until.into(), reading).await.unwrap_or_else(|_| Err(too_late(function))),
        None => reading.await,
    }
}

/// Keeps the routes of a cluster fresh, until it is dropped.
async fn keep(cluster: Weak<Core>, (mut changes, mut commits): (watch::Receiver<u64>, watch::Receiver<u64>)) {
    loop {
        let Some(core) = cluster.upgrade() else { return };
        let begun = Instant::now();
        changes.mark_unchanged();
        commits.mark_unchanged();
        let mut connection = EdgeCluster(core.clone()).connection();
        let read = blocking(move || EdgeCluster(core).read_routes(false)).await.inspect_err(|error| {
            tracing::warn!(error = error.chain(), "the routes could not be read; they stay as they were, and are read again");
        });
        let pause = rest_after(begun.elapsed(), read.is_ok());
        let news = async {
            sleep(pause).await;
            if read.is_err() {
                return true;
            }
            tokio::select! {
                ended = changes.changed() => ended.is_ok(),
                ended = commits.changed() => ended.is_ok(),
            }
        };
        tokio::select! {
            is_there = news => if !is_there { return },
            // Whether far nodes can be reached holds at once.
            () = follow(&cluster, &mut connection) => {}
        }
    }
}

/// How long nothing is read after a reading that took so long.
fn rest_after(took: Duration, is_ok: bool) -> Duration {
    if is_ok { READ_EVERY.max(took * REST).min(REST_MAX) } else { REST_MAX }
}

/// Tells the router whether the way to far nodes is there, as long as that changes.
async fn follow(cluster: &Weak<Core>, connection: &mut Option<watch::Receiver<Connection>>) {
    if let Some(connection) = connection {
        while connection.changed().await.is_ok() {
            let Some(core) = cluster.upgrade() else { return };
            core.routing.router.set_connected(connection.borrow_and_update().is_up);
        }
    }
    pending::<()>().await;
}

/// The moment, by the clock that tests may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use edgeward_model::{Resilience, limits::ROUTES_MAX};

    use super::*;

    #[test]
    fn a_route_that_found_no_room_is_told_again() {
        let spec = RouteSpec { resilience: Resilience::default(), timeout: Duration::from_secs(1), candidates: Vec::new() };
        let id = |number: usize| FunctionId::new(format!("f{number:05}")).expect("valid");
        let specs = |numbers: std::ops::Range<usize>| numbers.map(|number| (id(number), spec.clone())).collect::<BTreeMap<_, _>>();
        let (router, mut told, last) = (Router::new(None, now()), Told::default(), id(ROUTES_MAX));
        let is_known = |id: &FunctionId| router.view(id, now()).is_some();
        told.tell(&router, specs(0..ROUTES_MAX + 1));
        assert!(is_known(&id(0)) && !is_known(&last), "it is one too many");
        told.tell(&router, specs(1..ROUTES_MAX + 1));
        assert!(!is_known(&id(0)) && is_known(&last), "there is room");
        told.tell(&router, specs(1..2));
        assert!(is_known(&id(1)) && !is_known(&last));
    }

    #[test]
    fn routes_of_a_large_fleet_are_never_old_for_long() {
        let millis = Duration::from_millis;
        assert_eq!(rest_after(millis(1), true), READ_EVERY);
        assert_eq!(rest_after(millis(20), true), millis(180));
        assert_eq!((rest_after(millis(5000), true), rest_after(millis(1), false)), (REST_MAX, REST_MAX));
    }
}
