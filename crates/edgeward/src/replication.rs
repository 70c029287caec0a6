//! Documents on their way between a node and its hub, over the backbone: the node asks, the hub answers and pokes.
//!
//! What is said is the sync protocol's; here is only when. A poke may be lost, so the node also asks now and then.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use edgeward_cluster::{
    Backbone, BackboneError, Message, Service, Subscription, backoff,
    service::{Call, handler},
    subject::{Subject, Subjects},
};
use edgeward_model::{
    DocumentName, EdgeError, ErrorKind, NodeId,
    limits::{COMPARE_EVERY, POKE_PAUSE, PULL_EVERY, SYNC_CONCURRENCY, SYNC_TIMEOUT},
};
use edgeward_runtime::blocking;
use edgeward_sync::{Hub, Pattern, ReplicaSession, Role, SessionState, Store, access::NODE_PREFIXES, policy::FLEET_PREFIX};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::services::{AGAIN, ANEW, POKE, SYNC};

/// Time after which a node asks by itself, half of it at least.
const ASK_EVERY: Duration = if cfg!(test) { Duration::from_millis(400) } else { PULL_EVERY };
/// Time within which nodes that hear of another hub ask it.
const ANEW_PAUSE: Duration = Duration::from_millis(200);
/// Time after which a hub that begins says so once more. By then the broker has noticed that the hub before it stands still: until then it
/// may give that what nodes ask.
const AGAIN_AFTER: Duration = Duration::from_secs(4);
/// What has waited so long for an answer by then may have gone there.
const UNANSWERED: Duration = Duration::from_secs(1);

/// A hub that answers the nodes of a backbone and pokes them when there is something to pull. Dropped, it stops.
pub struct HubService {
    _sync: Service,
    _poking: AbortOnDropHandle<()>,
}

impl HubService {
    /// Begins to answer those nodes that `check` does not refuse, and tells those in `nodes` so: what they asked of an earlier hub that is gone
    /// they need not wait for.
    pub async fn start(
        hub: Arc<Hub>,
        store: Arc<Store>,
        backbone: Arc<dyn Backbone>,
        nodes: Vec<NodeId>,
        check: impl Fn(&NodeId) -> Result<(), EdgeError> + Send + Sync + 'static,
    ) -> Result<Self, BackboneError> {
        let seen_nodes: Arc<Mutex<BTreeMap<NodeId, Instant>>> = Arc::default();
        let commits = store.commits();
        let (seen, asked) = (Arc::clone(&seen_nodes), Arc::clone(&hub));
        let answer = move |call: Call| {
            let (hub, node) = (Arc::clone(&asked), call.subject.node);
            let checked = check(&node);
            if checked.is_ok() {
                seen.lock().insert(node.clone(), Instant::now());
            }
            async move {
                checked?;
                let answer = blocking(move || hub.answer_node(&node, &call.message.payload, millis(Timestamp::now()))).await?;
                Ok(Message::new(answer))
            }
        };
        let sync = backbone.serve(&Subjects::to_hub(SYNC), SYNC_CONCURRENCY, handler(answer)).await?;
        let poking = tokio::spawn(async move {
            tell_all(backbone.as_ref(), &nodes, ANEW).await;
            let again = async {
                tokio::time::sleep(AGAIN_AFTER).await;
                tell_all(backbone.as_ref(), &nodes, AGAIN).await;
            };
            tokio::join!(poke(backbone.as_ref(), hub, seen_nodes, commits), again);
        });
        Ok(Self { _sync: sync, _poking: AbortOnDropHandle::new(poking) })
    }
}

/// Tells every node that asked of late, and for which something was committed.
async fn poke(backbone: &dyn Backbone, hub: Arc<Hub>, nodes: Arc<Mutex<BTreeMap<NodeId, Instant>>>, mut commits: watch::Receiver<u64>) {
    let mut told = 0;
    while commits.changed().await.is_ok() {
        let asked = {
            let mut nodes = nodes.lock();
            // Who has not asked for so long is not there.
            nodes.retain(|_, seen| seen.elapsed() < 2 * PULL_EVERY);
            nodes.keys().cloned().collect::<Vec<_>>()
        };
        let (of, since) = (Arc::clone(&hub), told);
        match blocking(move || of.audience(asked, since)).await {
            Ok((audience, upto)) => {
                told = upto;
                tell_all(backbone, &audience, b"").await;
            }
            Err(error) => tracing::debug!(error = error.chain(), "nobody is poked: who has something to pull could not be read"),
        }
        tokio::time::sleep(POKE_PAUSE).await;
    }
}

async fn tell_all(backbone: &dyn Backbone, nodes: &[NodeId], what: &'static [u8]) {
    for node in nodes {
        if let Err(error) = backbone.publish(&Subject::to_node(node.clone(), POKE), Message::new(what)).await {
            tracing::debug!(error = %error, "failed to poke a node, which asks by itself before long");
        }
    }
}

/// How a node stands to its hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replication {
    /// What it is at.
    pub state: SessionState,
    /// When the hub last had all that is here, and what it had was here.
    pub synced_at: Option<Timestamp>,
    /// Why the last attempt failed; none when it did not.
    pub error: Option<String>,
    /// Whether the hub said that this node does not belong to its fleet.
    pub is_refused: bool,
}

/// Keeps the documents of a node the same as its hub's. Dropped, it stops soon.
pub struct Replicator {
    replication: watch::Receiver<Replication>,
    stop: CancellationToken,
    running: AbortOnDropHandle<()>,
}

impl Replicator {
    /// Begins to replicate, for as long as it is kept. There may be one for a store. A replica gets what it wants, what it holds, and what is
    /// for it alone or for every node; a standby everything.
    ///
    /// # Errors
    /// [`edgeward_model::ErrorKind::TooLarge`] when it wants too many things, and those of [`Backbone::subscribe`].
    pub async fn start(store: Arc<Store>, backbone: Arc<dyn Backbone>, wanted: Vec<Pattern>) -> Result<Self, EdgeError> {
        let node = store.node().clone();
        let pokes = backbone.subscribe(&Subjects::to_node(node.clone(), POKE)).await?;
        let begin = Replication { state: SessionState::Connecting, synced_at: None, error: None, is_refused: false };
        let (sender, replication) = watch::channel(begin);
        let commits = store.commits();
        let is_replica = store.role() == Role::Replica;
        let mut session = ReplicaSession::new(Arc::clone(&store));
        if is_replica {
            let own = NODE_PREFIXES.iter().map(|prefix| Pattern::named(&document_of(prefix, &node)));
            let of_the_fleet = format!("{FLEET_PREFIX}*").parse()?;
            session.declare(wanted.into_iter().chain(own).chain([of_the_fleet]))?;
        }
        let stop = CancellationToken::new();
        let subject = Subject::to_hub(node, SYNC);
        let exchange = Exchange { session: Some(session), store, subject, backbone, told: sender, stop: stop.clone() };
        let running = AbortOnDropHandle::new(tokio::spawn(run(exchange, pokes, commits)));
        Ok(Self { replication, stop, running })
    }

    /// Stops, and returns when nothing of it touches the store any more.
    pub async fn stop(self) {
        self.stop.cancel();
        // It may have failed, which its end has said.
        let _ = self.running.await;
    }

    /// How it stands, as it changes.
    pub fn replication(&self) -> watch::Receiver<Replication> {
        self.replication.clone()
    }
}

/// The document that is between a node and its hub alone.
fn document_of(prefix: &str, node: &NodeId) -> DocumentName {
    DocumentName::new(format!("{prefix}{node}")).expect("the id of a node makes a valid name of a document")
}

/// What wakes a node that has nothing to say.
enum Wake {
    /// Something was written here.
    Commit,
    /// The hub may have something.
    Pull,
    /// The connection came or went.
    Connection,
    Stop,
}

async fn run(mut exchange: Exchange, mut pokes: Subscription, mut commits: watch::Receiver<u64>) {
    let mut connection = exchange.backbone.connection();
    let mut failures = 0_u32;
    let mut compared_at = Instant::now();
    // When it asks by itself. What is written here meanwhile puts that off no further.
    let mut pull_at = None;
    loop {
        let is_up = connection.borrow_and_update().is_up;
        if !is_up {
            pull_at = None;
            // Whatever woke it: nothing is the same as at the hub for sure.
            exchange.session().reconnect();
            exchange.tell();
            let stop = exchange.stop.clone();
            tokio::select! {
                () = stop.cancelled() => return,
                is_up = connection.wait_for(|connection| connection.is_up) => if is_up.is_err() { return },
            }
        }
        if compared_at.elapsed() >= COMPARE_EVERY {
            compared_at = Instant::now();
            exchange.session().compare();
        }
        let speaks_at = match exchange.speak(&mut pokes).await {
            Ok(Spoken::Anew) => {
                exchange.session().reconnect();
                // Nodes of a fleet hear it at once.
                after(backoff::some_of(ANEW_PAUSE))
            }
            Ok(Spoken::All) => {
                failures = 0;
                // Nodes that came at once do not ask at once for ever.
                *pull_at.get_or_insert_with(|| after(ASK_EVERY / 2 + backoff::some_of(ASK_EVERY / 2)))
            }
            Err(error) => {
                exchange.session().reconnect();
                let (why, is_refused) = (error.chain(), error.kind() == ErrorKind::Forbidden);
                exchange.told.send_if_modified(|now| {
                    let is_refused = now.is_refused || is_refused;
                    let is_news = now.error.as_ref() != Some(&why) || now.is_refused != is_refused;
                    (now.error, now.is_refused) = (Some(why), is_refused);
                    is_news
                });
                failures = failures.saturating_add(1);
                after(backoff::pause(failures))
            }
        };
        let stop = exchange.stop.clone();
        let wake = tokio::select! {
            () = stop.cancelled() => Wake::Stop,
            changed = commits.changed(), if failures == 0 => if changed.is_ok() { Wake::Commit } else { Wake::Stop },
            message = pokes.next() => match message {
                Some(poke) if poke.message.payload == ANEW => Wake::Connection,
                Some(_) => Wake::Pull,
                None => Wake::Stop,
            },
            changed = connection.changed() => if changed.is_ok() { Wake::Connection } else { Wake::Stop },
            () = tokio::time::sleep_until(speaks_at) => Wake::Pull,
        };
        if !matches!(wake, Wake::Commit) {
            pull_at = None;
        }
        match wake {
            Wake::Commit => {}
            Wake::Pull => exchange.session().poke(),
            // What was poked meanwhile is lost.
            Wake::Connection => exchange.session().reconnect(),
            Wake::Stop => return,
        }
        exchange.tell();
    }
}

fn after(pause: Duration) -> tokio::time::Instant {
    tokio::time::Instant::now() + pause
}

/// How speaking ended.
enum Spoken {
    /// Nothing is to be said.
    All,
    /// Nobody answers any more: another hub has begun.
    Anew,
}

/// A session and the way to its hub.
struct Exchange {
    /// On another thread while it works.
    session: Option<ReplicaSession>,
    store: Arc<Store>,
    subject: Subject,
    backbone: Arc<dyn Backbone>,
    told: watch::Sender<Replication>,
    /// Ends it between two steps.
    stop: CancellationToken,
}

impl Exchange {
    fn session(&mut self) -> &mut ReplicaSession {
        self.session.as_mut().expect("it comes back from each step")
    }

    /// Speaks until nothing is to be said, or there is another hub to say it to.
    async fn speak(&mut self, pokes: &mut Subscription) -> Result<Spoken, EdgeError> {
        loop {
            let frame = self.step(ReplicaSession::next_frame).await?;
            self.tell();
            let Some(frame) = frame else { return Ok(Spoken::All) };
            let (backbone, stop, mut was_poked) = (Arc::clone(&self.backbone), self.stop.clone(), false);
            let asked_at = Instant::now();
            let mut answering = backbone.request(&self.subject, Message::new(frame), SYNC_TIMEOUT);
            let answer = loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(Spoken::All),
                    answer = &mut answering => break answer?,
                    poke = pokes.next() => match poke {
                        Some(poke) if poke.message.payload == ANEW => return Ok(Spoken::Anew),
                        Some(poke) if poke.message.payload == AGAIN && asked_at.elapsed() >= UNANSWERED => return Ok(Spoken::Anew),
                        Some(_) => was_poked = true,
                        // The connection ended for good, which the request says too.
                        None => return Ok(Spoken::All),
                    },
                }
            };
            drop(answering);
            let now = millis(self.store.now());
            self.step(move |session| session.receive(&answer.payload, now)).await?;
            if was_poked {
                self.session().poke();
            }
        }
    }

    /// Does a step of the session where it may wait for the disk.
    async fn step<T, F>(&mut self, step: F) -> Result<T, EdgeError>
    where
        T: Send + 'static,
        F: FnOnce(&mut ReplicaSession) -> Result<T, EdgeError> + Send + 'static,
    {
        let mut session = self.session.take().expect("it comes back from each step");
        let (session, result) = blocking(move || {
            let result = step(&mut session);
            Ok((session, result))
        })
        .await?;
        self.session = Some(session);
        result
    }

    fn tell(&mut self) {
        let state = self.session().state();
        self.told.send_modify(|now| {
            let was_synced = std::mem::replace(&mut now.state, state) == SessionState::Synced;
            if state == SessionState::Synced && !was_synced {
                (now.synced_at, now.error, now.is_refused) = (Some(Timestamp::now()), None, false);
            }
        });
    }
}

fn millis(now: Timestamp) -> u64 {
    u64::try_from(now.as_millisecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use edgeward_cluster::LocalNetwork;
    use edgeward_model::Value;
    use edgeward_sync::{Document, Documents, Epoch, document::Precondition};
    use tokio::time::{sleep, timeout};

    use super::*;

    fn store(node: &str, role: Role) -> Arc<Store> {
        let id = NodeId::new(node).expect("valid");
        Arc::new(Store::in_memory_as(id, Epoch::draw().expect("a random number"), role).expect("opens"))
    }

    fn document(store: &Arc<Store>, name: &str) -> Document {
        Documents::new(Arc::clone(store)).document(DocumentName::new(name).expect("valid"))
    }

    async fn set(document: &Document, key: &'static str, value: i64) {
        let document = document.clone();
        let edit = move || document.edit(Precondition::None, move |draft| draft.set(key, &value.into()));
        blocking(edit).await.expect("edits");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_that_writes_all_the_time_for_itself_asks_all_the_same() {
        let (network, at_hub, at_node) = (LocalNetwork::new(), store("hub", Role::Hub), store("a", Role::Replica));
        let member = |id: &str| -> Arc<dyn Backbone> { Arc::new(network.member(NodeId::new(id).expect("valid"))) };
        // It pokes nobody.
        let hub = Arc::new(Hub::new(Arc::clone(&at_hub)).expect("starts"));
        let answer = handler(move |call: Call| {
            let hub = Arc::clone(&hub);
            async move {
                let node = call.subject.node;
                let answer = blocking(move || hub.answer_node(&node, &call.message.payload, millis(Timestamp::now()))).await?;
                Ok::<_, EdgeError>(Message::new(answer))
            }
        });
        let _hub = member("hub").serve(&Subjects::to_hub(SYNC), SYNC_CONCURRENCY, answer).await.expect("serves");
        let replicator = Replicator::start(Arc::clone(&at_node), member("a"), vec![Pattern::all()]).await.expect("starts");
        let mut replication = replicator.replication();
        let synced = replication.wait_for(|now| now.state == SessionState::Synced);
        timeout(Duration::from_secs(20), synced).await.expect("in time").expect("it runs");

        set(&document(&at_hub, "prices"), "milk", 1).await;
        let (own, prices, begun) = (document(&at_node, "edgeward.local.beat"), document(&at_node, "prices"), Instant::now());
        for beat in 0.. {
            if prices.get("milk").expect("reads") == Some(Value::from(1_i64)) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "it never asked");
            set(&own, "beat", beat).await;
            sleep(ASK_EVERY / 20).await;
        }
    }
}
