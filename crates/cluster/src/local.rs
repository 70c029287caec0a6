//! The backbone inside one process: for one machine, demonstrations and tests. Members can be cut off and brought back.

mod routes;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use edgeward_model::{EdgeError, NodeId, limits::REQUEST_TIMEOUT_MAX};
use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, timeout_at},
};

use self::routes::{Route, Routes};
use crate::{
    backbone::{Backbone, Connection},
    buffer::Buffer,
    error::BackboneError,
    lease::{Claim, Claimed, Keeper, Lease},
    message::Message,
    service::{Answer, Call, Counter, Handler, Pending, Received, Service, Subscription},
    subject::{Name, Subject, Subjects},
};

/// What members in one process are connected to. Clones are the same network.
#[derive(Clone, Default)]
pub struct LocalNetwork {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    members: HashMap<NodeId, watch::Sender<Connection>>,
    cut: HashSet<NodeId>,
    services: Routes<Counter>,
    subscriptions: Routes<Buffer<(Instant, Received)>>,
    leases: HashMap<Name, Held>,
}

/// A lease as the network knows it; its term outlives it.
#[derive(Clone)]
struct Held {
    holder: NodeId,
    term: u64,
    until: Instant,
}

impl LocalNetwork {
    /// A network without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// The member of this id. Asked twice, it is the same member.
    pub fn member(&self, id: NodeId) -> LocalBackbone {
        let mut state = self.state.lock();
        let is_up = !state.cut.contains(&id);
        let fresh = || watch::Sender::new(Connection { is_up, ups: u64::from(is_up), why_down: (!is_up).then(|| CUT.to_owned()) });
        let connection = state.members.entry(id.clone()).or_insert_with(fresh).subscribe();
        LocalBackbone { network: self.clone(), id, connection }
    }

    /// Cuts a member off: it neither sends nor receives. Of the others' requests it answers none.
    pub fn cut_off(&self, id: &NodeId) {
        let mut state = self.state.lock();
        if state.cut.insert(id.clone())
            && let Some(connection) = state.members.get(id)
        {
            connection.send_modify(|connection| {
                connection.is_up = false;
                connection.why_down = Some(CUT.to_owned());
            });
        }
    }

    /// Brings a member back that was cut off.
    pub fn bring_back(&self, id: &NodeId) {
        let mut state = self.state.lock();
        if state.cut.remove(id)
            && let Some(connection) = state.members.get(id)
        {
            connection.send_modify(|connection| *connection = Connection { is_up: true, ups: connection.ups + 1, why_down: None });
        }
    }
}

const CUT: &str = "the network in this process cut it off";

/// One member of a [`LocalNetwork`].
#[derive(Clone)]
pub struct LocalBackbone {
    network: LocalNetwork,
    id: NodeId,
    connection: watch::Receiver<Connection>,
}

impl LocalBackbone {
    /// How often it came up, or the error of who is cut off.
    fn ups(&self) -> Result<u64, BackboneError> {
        let connection = self.connection.borrow();
        if connection.is_up { Ok(connection.ups) } else { Err(disconnected()) }
    }

    async fn ask(&self, to: &Subject, message: Message, timeout: Duration) -> Result<Message, BackboneError> {
        message.check(to)?;
        let ups = self.ups()?;
        let deadline = Instant::now() + timeout.min(REQUEST_TIMEOUT_MAX);
        let (sender, answer) = oneshot::channel();
        let Route { member, to: counter } = {
            let mut state = self.network.state.lock();
            let State { services, cut, .. } = &mut *state;
            services.one(to, cut).ok_or_else(|| BackboneError::NoResponder(to.to_string()))?
        };
        let call = Call { subject: to.clone(), message, deadline };
        let pending = Pending { call, answer: self.way_back(member, sender) };
        counter.take_in(pending).await;
        // Who waits for an answer does not keep alive whoever stopped serving.
        drop(counter);
        let mut connection = self.connection.clone();
        tokio::select! {
            biased;
            _ = connection.wait_for(|connection| !connection.is_up || connection.ups != ups) => Err(disconnected()),
            answered = timeout_at(deadline, answered(answer)) => match answered {
                Ok(result) => result.map_err(BackboneError::Answered),
                Err(_elapsed) => Err(BackboneError::Timeout(to.to_string())),
            },
        }
    }

    /// Sends the answer of `server`, unless that is cut off by then.
    fn way_back(&self, server: NodeId, sender: oneshot::Sender<Result<Message, EdgeError>>) -> Answer {
        let network = self.network.clone();
        Box::new(move |result| {
            if !network.state.lock().cut.contains(&server) {
                // Its caller may have given up.
                let _ = sender.send(result);
            }
            async {}.boxed()
        })
    }

    fn claim(&self, claim: Claim) -> Result<Claimed, BackboneError> {
        claim.check()?;
        self.ups()?;
        let now = Instant::now();
        let mut state = self.network.state.lock();
        let before = state.leases.get(&claim.name);
        if let Some(Held { holder, term, until }) = before
            && now < *until
            && *holder != claim.holder
        {
            return Ok(Claimed::Taken { holder: holder.clone(), term: *term });
        }
        let term = before.map_or(0, |held| held.term).max(claim.seen_term) + 1;
        state.leases.insert(claim.name, Held { holder: claim.holder, term, until: now + claim.ttl });
        drop(state);
        let keeper = LocalKeeper { member: self.clone(), name: claim.name, term, ttl: claim.ttl };
        Ok(Claimed::Held(Lease::start(term, now, claim.ttl, keeper)))
    }
}

fn disconnected() -> BackboneError {
    BackboneError::Disconnected(CUT.to_owned())
}

/// An answer that never comes is waited for, as over a network.
async fn answered(answer: oneshot::Receiver<Result<Message, EdgeError>>) -> Result<Message, EdgeError> {
    match answer.await {
        Ok(result) => result,
        Err(_) => std::future::pending().await,
    }
}

impl Backbone for LocalBackbone {
    fn request<'a>(&'a self, to: &'a Subject, message: Message, timeout: Duration) -> BoxFuture<'a, Result<Message, BackboneError>> {
        self.ask(to, message, timeout).boxed()
    }

    fn serve<'a>(&'a self, subjects: &'a Subjects, concurrency: usize, handler: Handler) -> BoxFuture<'a, Result<Service, BackboneError>> {
        async move {
            let counter = Counter::new(concurrency, handler)?;
            let route = Route { member: self.id.clone(), to: Arc::clone(&counter) };
            let number = self.network.state.lock().services.add(subjects.clone(), route);
            let (network, subjects) = (self.network.clone(), subjects.clone());
            let feed = OnDrop(Some(move || network.state.lock().services.remove(&subjects, number)));
            Ok(Service::new(counter, Box::new(feed)))
        }
        .boxed()
    }

    fn publish<'a>(&'a self, to: &'a Subject, message: Message) -> BoxFuture<'a, Result<(), BackboneError>> {
        async move {
            message.check(to)?;
            self.ups()?;
            let state = self.network.state.lock();
            for route in state.subscriptions.all(to).filter(|route| !state.cut.contains(&route.member)) {
                // The subscription counts what it has no room for.
                let _ = route.to.push((Instant::now(), Received { subject: to.clone(), message: message.clone() }), message.bytes());
            }
            Ok(())
        }
        .boxed()
    }

    fn subscribe<'a>(&'a self, subjects: &'a Subjects) -> BoxFuture<'a, Result<Subscription, BackboneError>> {
        async move {
            let buffer = Arc::new(Buffer::new());
            let route = Route { member: self.id.clone(), to: Arc::clone(&buffer) };
            let number = self.network.state.lock().subscriptions.add(subjects.clone(), route);
            let (network, subjects) = (self.network.clone(), subjects.clone());
            let feed = OnDrop(Some(move || network.state.lock().subscriptions.remove(&subjects, number)));
            Ok(Subscription::new(buffer, Box::new(feed)))
        }
        .boxed()
    }

    fn lease(&self, claim: Claim) -> BoxFuture<'_, Result<Claimed, BackboneError>> {
        async move { self.claim(claim) }.boxed()
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }
}

/// Does something when it is dropped.
struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(act) = self.0.take() {
            act();
        }
    }
}

struct LocalKeeper {
    member: LocalBackbone,
    name: Name,
    term: u64,
    ttl: Duration,
}

impl Keeper for LocalKeeper {
    fn renew(&mut self) -> BoxFuture<'_, Result<bool, BackboneError>> {
        async {
            self.member.ups()?;
            let mut state = self.member.network.state.lock();
            let now = Instant::now();
            let ours = state.leases.get_mut(&self.name).filter(|held| held.term == self.term && now < held.until);
            Ok(ours.map(|held| held.until = now + self.ttl).is_some())
        }
        .boxed()
    }

    fn release(&mut self) -> BoxFuture<'_, ()> {
        async {
            let mut state = self.member.network.state.lock();
            if self.member.ups().is_ok()
                && let Some(held) = state.leases.get_mut(&self.name).filter(|held| held.term == self.term)
            {
                held.until = Instant::now();
            }
        }
        .boxed()
    }
}
