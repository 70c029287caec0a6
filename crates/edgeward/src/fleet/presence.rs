//! Whether far nodes are still there while they run calls: one that vanishes answers nothing, and who called would wait out the deadline.
//!
//! A node is asked once for all of its calls, and only while there are such as take long. The more nodes are asked, the less often each. It is asked again before it
//! has answered, as the way to it may be long.

use std::{collections::HashMap, sync::Arc, time::Duration};

use edgeward_cluster::{BackboneError, Message, Subject};
use edgeward_model::{
    NodeId,
    limits::{
        FAR_LOOK_TIMEOUT, FAR_PRESENCE_AFTER, FAR_PRESENCE_EVERY, FAR_PRESENCE_PATIENCE, FAR_PRESENCE_SPACING, FAR_SILENCE_MAX, NODES_MAX,
    },
};
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::far::FarNode;
use crate::services::{METRICS, NOBODY};

/// How long the answers of nodes take, of those to which the way is so long that they might be taken for silent.
type Slow = Arc<Mutex<HashMap<NodeId, Duration>>>;

/// The nodes that are asked.
#[derive(Debug, Default)]
pub(super) struct Presence {
    nodes: Mutex<HashMap<NodeId, watch::Receiver<Seen>>>,
    slow: Slow,
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
    /// Ends when a node is there no more. Who may leave it does so as soon as it is silent, which it also is when its power or its network failed, and nobody is told
    /// of that; others when it had the time to connect again.
    pub(super) async fn gone(&self, node: &FarNode, may_leave: bool) {
        // Most calls are done by then.
        sleep(FAR_PRESENCE_AFTER).await;
        let enough = if may_leave { Seen::Silent } else { Seen::Gone };
        // Who asked for others may have ended just now, as nobody listened.
        while self.asked(node).wait_for(|seen| *seen >= enough).await.is_err() {}
    }

    fn asked(&self, node: &FarNode) -> watch::Receiver<Seen> {
        let mut nodes = self.nodes.lock();
        // Who has told, or whom nobody listened to, is done.
        nodes.retain(|_, seen| seen.has_changed().is_ok());
        let begin = || {
            let (told, seen) = watch::channel(Seen::There);
            let sight = Sight::new(node.id.clone(), Arc::clone(&self.slow));
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
                if !is_asked || next.elapsed() > FAR_PRESENCE_EVERY {
                    sight.forgive();
                }
                if *told.borrow() == Seen::There && sight.is_silent() {
                    if is_broker_there(&node).await {
                        while let Some(Some((asked_at, answer))) = looks.next().now_or_never() {
                            tell(&told, sight.take(asked_at, &answer));
                        }
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

/// What the answers of a node say.
struct Sight {
    node: NodeId,
    slow: Slow,
    missing_since: Option<Instant>,
    heard_at: Instant,
    /// How long its answers took, those of late.
    took: Duration,
}

impl Sight {
    fn new(node: NodeId, slow: Slow) -> Self {
        let took = slow.lock().get(&node).copied().unwrap_or_default();
        Self { node, slow, missing_since: None, heard_at: Instant::now(), took }
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
                self.note(asked_at.elapsed());
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
        self.heard_at.elapsed() >= FAR_SILENCE_MAX.max(2 * self.took)
    }

    /// Notes how long an answer took. What is long is known to who asks later, too.
    fn note(&mut self, took: Duration) {
        self.took = took.max(self.took * 7 / 8);
        let mut slow = self.slow.lock();
        if 2 * self.took <= FAR_SILENCE_MAX {
            slow.remove(&self.node);
        } else if slow.len() < NODES_MAX || slow.contains_key(&self.node) {
            slow.insert(self.node.clone(), self.took);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use edgeward_cluster::{Backbone, Claim, Claimed, Connection, Handler, Service, Subjects, Subscription};
    use futures::future::BoxFuture;
    use tokio::time::timeout;

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

    /// After how long, of ten seconds, a call leaves the node.
    async fn left(presence: &Presence, node: &FarNode, may_leave: bool) -> Option<Duration> {
        let begun = Instant::now();
        let gone = timeout(Duration::from_secs(10), presence.gone(node, may_leave)).await;
        gone.is_ok().then(|| begun.elapsed())
    }

    fn is_about(time: Option<Duration>, millis: u32) -> bool {
        time.is_some_and(|time| time >= MILLI * millis && time <= MILLI * (millis + 150))
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
        assert!(is_about(left(&presence, &died, true).await, 1425), "{:?}", presence.slow);
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_broker_is_silent_no_node_is_taken_for_gone() {
        assert_eq!(left(&Presence::default(), &by(None, None), true).await, None);
    }
}
