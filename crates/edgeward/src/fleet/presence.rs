//! Whether far nodes are still there while they run calls: one that vanishes answers nothing, and who called would wait out the deadline.
//!
//! A node is asked once for all of its calls, and only while there are such as take long. The more nodes are asked, the less often each. It is asked again before it
//! has answered, as the way to it may be long.

use std::{collections::HashMap, sync::Arc, time::Duration};

use edgeward_cluster::{
    BackboneError, Message, Subject,
    routing::{CallFailure, Leave},
};
use edgeward_model::{
    NodeId,
    limits::{
        FAR_LOOK_TIMEOUT, FAR_PRESENCE_AFTER, FAR_PRESENCE_EVERY, FAR_PRESENCE_PATIENCE, FAR_PRESENCE_SPACING, FAR_SILENCE_GRACE,
        FAR_SILENCE_MAX, FAR_SILENCE_MIN, NODES_MAX,
    },
};
use futures::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::far::FarNode;
use crate::services::{METRICS, NOBODY};

/// What is known of a node is kept for so long when there is no room for others.
const KEPT: Duration = Duration::from_mins(1);

/// What the answers of nodes told of them.
type Known = Arc<Mutex<HashMap<NodeId, Answers>>>;

/// The nodes that are asked.
#[derive(Debug, Default)]
pub(super) struct Presence {
    nodes: Mutex<HashMap<NodeId, watch::Receiver<Seen>>>,
    known: Known,
    /// Each who asks has one.
    asking: Arc<()>,
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    There,
    /// It has answered nothing for a while, or nobody listens where it did just now.
    Silent,
    /// Nobody has listened there for as long as it may take to connect again.
    Gone,
}

impl Presence {
    /// Takes that a call which began then was answered by a node.
    pub(super) fn note_call(&self, node: &NodeId, begun: Instant) {
        note(&self.known, node, |answers| answers.note_call(begun.elapsed()));
    }

    /// Ends when a node is there no more. Who may leave it does so as soon as it is silent, which it also is when its power or its network failed, and nobody is told
    /// of that; others when it had the time to connect again.
    pub(super) async fn lost(&self, node: &FarNode, mut leave: Option<Leave>) -> CallFailure {
        // Most calls are done by then.
        sleep(FAR_PRESENCE_AFTER).await;
        loop {
            let enough = if leave.is_some() { Seen::Silent } else { Seen::Gone };
            // Who asked for others may have ended just now, as nobody listened.
            let mut asked = self.asked(node);
            let Ok(seen) = asked.wait_for(|seen| *seen >= enough).await.map(|seen| *seen) else { continue };
            if leave.take().is_some_and(|leave| leave.take(Instant::now().into_std())) {
                return CallFailure::left();
            }
            if seen == Seen::Gone {
                return CallFailure::vanished();
            }
        }
    }

    fn asked(&self, node: &FarNode) -> watch::Receiver<Seen> {
        let mut nodes = self.nodes.lock();
        // Who has told, or whom nobody listened to, is done.
        nodes.retain(|_, seen| seen.has_changed().is_ok());
        let begin = || {
            let (told, seen) = watch::channel(Seen::There);
            let sight = Sight::new(node.id.clone(), Arc::clone(&self.known));
            tokio::spawn(ask(node.clone(), told, sight, Arc::clone(&self.asking)));
            seen
        };
        nodes.entry(node.id.clone()).or_insert_with(begin).clone()
    }
}

/// Asks a node until it is gone, or nobody wants to know.
async fn ask(node: FarNode, told: watch::Sender<Seen>, mut sight: Sight, asking: Arc<()>) {
    let mut looks = FuturesUnordered::new();
    let mut next = Instant::now();
    while *told.borrow() != Seen::Gone {
        tokio::select! {
            // What came while this process stood still comes first.
            biased;
            Some((asked_at, answer)) = looks.next() => tell(&told, sight.take(asked_at, &answer)),
            () = sleep_until(next) => {
                // One receiver is kept for those who come.
                let is_asked = told.receiver_count() > 1;
                if !is_asked && looks.is_empty() {
                    return;
                }
                // Who did not ask, or could not, has heard nothing for that reason.
                if !is_asked || next.elapsed() > 2 * FAR_PRESENCE_EVERY {
                    sight.forgive();
                }
                if *told.borrow() == Seen::There && sight.is_silent() {
                    if is_broker_there(&node).await {
                        // Where the way stood still for a moment, what was on it comes now.
                        let comes = async {
                            while let Some((asked_at, answer)) = looks.next().await {
                                tell(&told, sight.take(asked_at, &answer));
                            }
                        };
                        let _ = timeout(FAR_SILENCE_GRACE, comes).await;
                        tell(&told, sight.is_silent().then_some(Seen::Silent));
                    } else {
                        sight.forgive();
                    }
                }
                if is_asked {
                    looks.push(look(&node));
                }
                let nodes = u32::try_from(Arc::strong_count(&asking)).unwrap_or(u32::MAX);
                next = Instant::now() + FAR_PRESENCE_EVERY.max(FAR_PRESENCE_SPACING * nodes);
            }
        }
    }
}

async fn look(node: &FarNode) -> (Instant, Result<Message, BackboneError>) {
    let asked_at = Instant::now();
    (asked_at, node.backbone.request(&Subject::to_node(node.id.clone(), METRICS), Message::default(), FAR_LOOK_TIMEOUT).await)
}

/// Whether what is silent is the node, and not the broker or the way to it: then all nodes would be.
async fn is_broker_there(node: &FarNode) -> bool {
    let answer = node.backbone.request(&Subject::to_node(node.id.clone(), NOBODY), Message::default(), FAR_SILENCE_MAX).await;
    matches!(answer, Err(BackboneError::NoResponder(_)))
}

fn tell(told: &watch::Sender<Seen>, news: Option<Seen>) {
    told.send_if_modified(|seen| news.is_some_and(|news| std::mem::replace(seen, news) != news));
}

/// Whether a node is there, by what it is asked.
struct Sight {
    node: NodeId,
    known: Known,
    missing_since: Option<Instant>,
    heard_at: Instant,
}

impl Sight {
    fn new(node: NodeId, known: Known) -> Self {
        Self { node, known, missing_since: None, heard_at: Instant::now() }
    }

    /// Takes an answer to what was asked then, and says what it shows, if anything.
    fn take(&mut self, asked_at: Instant, answer: &Result<Message, BackboneError>) -> Option<Seen> {
        // Of what was asked before it was missed nothing follows.
        let is_newer = self.missing_since.is_none_or(|since| asked_at > since);
        match answer {
            Err(BackboneError::NoResponder(_)) => {
                let since = *self.missing_since.get_or_insert(asked_at);
                Some(if since.elapsed() < FAR_PRESENCE_PATIENCE { Seen::Silent } else { Seen::Gone })
            }
            // One that is too busy says so.
            Ok(_) | Err(BackboneError::Answered(_)) => {
                note(&self.known, &self.node, |answers| answers.note_look(asked_at.elapsed()));
                self.heard_at = Instant::now();
                if is_newer {
                    self.missing_since = None;
                }
                is_newer.then_some(Seen::There)
            }
            // Somebody listens there again.
            Err(BackboneError::Timeout(_)) => {
                if is_newer {
                    self.missing_since = None;
                }
                None
            }
            // It is this member that has no way, or no room.
            Err(_) => {
                self.forgive();
                None
            }
        }
    }

    /// Begins anew to wait for an answer.
    fn forgive(&mut self) {
        self.heard_at = Instant::now();
    }

    fn is_silent(&self) -> bool {
        let known = self.known.lock();
        let answers = known.get(&self.node);
        // A node that answers calls is there, however late it is with this.
        let heard_at = answers.map_or(self.heard_at, |answers| answers.at.max(self.heard_at));
        let (patience, silence) = (answers.map_or(FAR_SILENCE_MAX, Answers::patience), heard_at.elapsed());
        if silence < patience || silence >= FAR_SILENCE_MAX {
            return silence >= patience;
        }
        // So short a silence may be that of the way to all nodes. Then nothing was heard of the others either.
        known.iter().any(|(node, answers)| *node != self.node && answers.at >= heard_at + patience / 2)
    }
}

/// What the answers of a node told.
#[derive(Debug)]
struct Answers {
    at: Instant,
    /// How long answers to looks took, the slow ones of late.
    look: Option<Duration>,
    /// How long calls took, the quick ones of late: the way is no longer.
    call: Option<Duration>,
}

impl Answers {
    fn note_look(&mut self, took: Duration) {
        self.at = Instant::now();
        self.look = Some(self.look.map_or(took, |look| took.max(look * 31 / 32)));
    }

    fn note_call(&mut self, took: Duration) {
        self.at = Instant::now();
        self.call = Some(self.call.map_or(took, |call| took.min(call * 33 / 32)));
    }

    /// How long the node may answer nothing.
    fn patience(&self) -> Duration {
        // A call takes as long as its function does.
        let way = self.look.or(self.call.map(|call| call.min(FAR_SILENCE_MAX / 4)));
        way.map_or(FAR_SILENCE_MAX, |way| (4 * way).clamp(FAR_SILENCE_MIN, FAR_SILENCE_MAX).max(2 * way))
    }
}

/// Takes an answer of a node. What was said long ago makes room.
fn note(known: &Known, node: &NodeId, take: impl Fn(&mut Answers)) {
    let mut known = known.lock();
    if let Some(answers) = known.get_mut(node) {
        return take(answers);
    }
    if known.len() >= NODES_MAX {
        known.retain(|_, answers| answers.at.elapsed() < KEPT);
    }
    if known.len() < NODES_MAX {
        let mut answers = Answers { at: Instant::now(), look: None, call: None };
        take(&mut answers);
        known.insert(node.clone(), answers);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use edgeward_cluster::{
        Backbone, Claim, Claimed, Connection, Handler, Router, Service, Subjects, Subscription,
        routing::{Candidate, RouteSpec, Terms},
    };
    use edgeward_model::{EdgeNode, FunctionId, Resilience};
    use futures::{FutureExt as _, future::BoxFuture};

    use super::*;

    /// A way to a node and its broker, each of which answers after so long, or never.
    struct Way {
        node: Option<Duration>,
        broker: Option<Duration>,
        /// Whether the node was never heard of.
        is_away: bool,
    }

    impl Backbone for Way {
        fn request<'a>(&'a self, to: &'a Subject, _: Message, time: Duration) -> BoxFuture<'a, Result<Message, BackboneError>> {
            let is_node = to.service == METRICS && !self.is_away;
            let takes = if is_node { self.node } else { self.broker };
            async move {
                let answer = async {
                    match takes {
                        Some(takes) => sleep(takes).await,
                        None => pending().await,
                    }
                };
                match timeout(time, answer).await {
                    Ok(()) if is_node => Ok(Message::default()),
                    Ok(()) => Err(BackboneError::NoResponder(to.to_string())),
                    Err(_) => Err(BackboneError::Timeout(to.to_string())),
                }
            }
            .boxed()
        }

        fn serve<'a>(&'a self, _: &'a Subjects, _: usize, _: Handler) -> BoxFuture<'a, Result<Service, BackboneError>> {
            unreachable!("it is asked only")
        }

        fn publish<'a>(&'a self, _: &'a Subject, _: Message) -> BoxFuture<'a, Result<(), BackboneError>> {
            unreachable!("it is asked only")
        }

        fn subscribe<'a>(&'a self, _: &'a Subjects) -> BoxFuture<'a, Result<Subscription, BackboneError>> {
            unreachable!("it is asked only")
        }

        fn lease(&self, _: Claim) -> BoxFuture<'_, Result<Claimed, BackboneError>> {
            unreachable!("it is asked only")
        }

        fn connection(&self) -> watch::Receiver<Connection> {
            watch::channel(Connection::default()).1
        }
    }

    const MILLI: Duration = Duration::from_millis(1);

    fn by(node: Option<Duration>, broker: Option<Duration>) -> FarNode {
        FarNode { id: NodeId::new("a").expect("valid"), backbone: Arc::new(Way { node, broker, is_away: false }) }
    }

    /// A function on this node and another one.
    fn router() -> (Router, FunctionId) {
        let (router, function) = (Router::new(None, Instant::now().into_std()), FunctionId::new("f").expect("valid"));
        let resilience = Resilience { idempotent: true, ..Resilience::default() };
        let candidates = ["a", "b"].map(|id| Candidate::far(&EdgeNode::new(id, id).expect("valid"), false)).to_vec();
        let spec = RouteSpec { resilience, timeout: Duration::from_secs(30), candidates };
        assert!(router.set_all([(function.clone(), spec)]).is_empty(), "there is room");
        (router, function)
    }

    fn leave(router: &Router, function: &FunctionId, node: &FarNode) -> Option<Leave> {
        let now = Instant::now().into_std();
        router.plan(function, Terms::default(), now).expect("it is there").leave(&node.id, now)
    }

    /// After how long, of ten seconds, a call leaves the node.
    async fn left(presence: &Presence, node: &FarNode, may_leave: bool) -> Option<Duration> {
        let (router, function) = router();
        let leave = may_leave.then(|| leave(&router, &function, node).expect("it may"));
        let begun = Instant::now();
        let lost = timeout(Duration::from_secs(10), presence.lost(node, leave)).await;
        let failure = lost.ok()?;
        assert_eq!(failure, if may_leave { CallFailure::left() } else { CallFailure::vanished() });
        Some(begun.elapsed())
    }

    fn is_between(time: Option<Duration>, least: u32, most: u32) -> bool {
        time.is_some_and(|time| time >= MILLI * least && time <= MILLI * most)
    }

    fn is_about(time: Option<Duration>, millis: u32) -> bool {
        is_between(time, millis, millis + 150)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_node_is_left_after_half_a_second_by_who_may_and_one_that_nobody_hears_at_once() {
        let presence = Presence::default();
        let silent = by(None, Some(MILLI));
        assert!(is_about(left(&presence, &silent, true).await, 525));
        assert_eq!(left(&presence, &silent, false).await, None);
        let away = FarNode { backbone: Arc::new(Way { node: None, broker: Some(MILLI), is_away: true }), ..silent };
        let presence = Presence::default();
        assert!(is_about(left(&presence, &away, true).await, 25));
        assert!(is_about(left(&Presence::default(), &away, false).await, 1025));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_far_away_is_no_silent_one() {
        for millis in [0, 60, 300, 450] {
            let time = left(&Presence::default(), &by(Some(MILLI * millis), Some(MILLI * 40)), true).await;
            assert_eq!(time, None, "{millis}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_by_a_satellite_is_known_after_a_first_call() {
        let (presence, node) = (Presence::default(), by(Some(MILLI * 700), Some(MILLI * 700)));
        let known = async || {
            left(&presence, &node, true).await;
            sleep(FAR_LOOK_TIMEOUT).await;
            left(&presence, &node, true).await
        };
        assert_eq!(known().await, None);
        sleep(FAR_LOOK_TIMEOUT * 2).await;
        assert_eq!(left(&presence, &node, true).await, None, "also when nobody has asked for a while");
        sleep(FAR_LOOK_TIMEOUT * 2).await;
        let died = by(None, Some(MILLI));
        assert!(is_about(left(&presence, &died, true).await, 1425), "{:?}", presence.known);
    }

    /// Has another node answer calls all the time.
    async fn beside_another<T>(presence: &Presence, future: impl Future<Output = T>) -> T {
        let other = NodeId::new("other").expect("valid");
        let answers = async {
            loop {
                presence.note_call(&other, Instant::now() - MILLI);
                sleep(MILLI * 5).await;
            }
        };
        tokio::select! {
            done = future => done,
            () = answers => unreachable!("it goes on"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_whose_answers_come_quickly_is_left_sooner_and_one_that_answers_calls_is_not() {
        let (presence, node) = (Presence::default(), by(None, Some(MILLI)));
        presence.note_call(&node.id, Instant::now());
        assert!(is_between(beside_another(&presence, left(&presence, &node, true)).await, 100, 125));
        // Nobody asks any more.
        sleep(FAR_LOOK_TIMEOUT * 2).await;
        let busy = async {
            for _ in 0..100 {
                sleep(MILLI * 70).await;
                presence.note_call(&node.id, Instant::now() - MILLI);
            }
        };
        let (left_after, ()) = beside_another(&presence, async { tokio::join!(left(&presence, &node, true), busy) }).await;
        assert!(left_after.is_some_and(|time| time > MILLI * 7000), "as soon as it answers no more: {left_after:?}");
        // What a function takes says little of the way.
        let slow = FarNode { id: NodeId::new("b").expect("valid"), ..node };
        presence.note_call(&slow.id, Instant::now() - MILLI * 5000);
        assert!(is_between(beside_another(&presence, left(&presence, &slow, true)).await, 525, 650));
    }

    #[tokio::test(start_paused = true)]
    async fn a_way_that_stands_still_for_a_moment_is_no_silent_node() {
        let (presence, node) = (Presence::default(), by(Some(MILLI * 180), Some(MILLI)));
        presence.note_call(&node.id, Instant::now());
        assert_eq!(left(&presence, &node, true).await, None, "of no other node anything was heard");
        let (presence, node) = (Presence::default(), by(Some(MILLI * 110), Some(MILLI * 33)));
        presence.note_call(&node.id, Instant::now());
        let left = beside_another(&presence, left(&presence, &node, true)).await;
        assert_eq!(left, None, "its answer came just after the broker's");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_turns_slow_is_waited_for() {
        let presence = Presence::default();
        for (millis, looked, patience) in [(1, 525, 75), (60, 525, 240), (20, 525, 110), (20, 5000, 80)] {
            let node = by(Some(MILLI * millis), Some(MILLI));
            timeout(MILLI * looked, presence.lost(&node, None)).await.expect_err("it is there");
            let known = presence.known.lock().get("a").expect("it answered").patience();
            assert!(known >= MILLI * patience && known < MILLI * (patience + 40), "{millis}: {known:?}");
            // Nobody asks any more.
            sleep(FAR_LOOK_TIMEOUT * 2).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_retry_a_call_waits_for_its_node() {
        let (presence, node, (router, function)) = (Presence::default(), by(None, Some(MILLI)), router());
        let leave = || leave(&router, &function, &node).expect("it may");
        while leave().take(Instant::now().into_std()) {}
        timeout(Duration::from_secs(5), presence.lost(&node, Some(leave()))).await.expect_err("it waits");
        sleep(Duration::from_secs(10)).await;
        assert_eq!(presence.lost(&node, Some(leave())).await, CallFailure::left());
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_broker_is_silent_no_node_is_taken_for_gone() {
        assert_eq!(left(&Presence::default(), &by(None, None), true).await, None);
    }
}
