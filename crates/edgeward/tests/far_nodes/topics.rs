//! Topics between the members of a fleet: forwarded, imported, and kept, whatever is away, killed or slow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use edgeward::{
    ClusterTopics, EdgeError, ErrorKind, FunctionId, HandlerName, Message, NativeHandler, Precondition, TopicFilter, TopicName,
    TopicSharing, Trigger, TriggerId,
    cluster::{
        Backbone, BackboneError, Claim, Claimed, Connection, Handler, Message as Carrier, Name, Service, Subject, Subjects,
        Subscription as Arriving, nats::StreamContent,
    },
};
use edgeward_topics::{LogOptions, TopicLog};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    site::{Site, eventually},
    support::{AtHub, AtNode, id, native},
};

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).expect("valid")
}

fn message(topic: &str, payload: impl Into<String>) -> Message {
    Message::new(TopicName::new(topic).expect("valid"), payload.into(), Timestamp::now())
}

fn sharing(forward: &[&str], import: &[&str]) -> TopicSharing {
    TopicSharing { forward: forward.iter().copied().map(filter).collect(), import: import.iter().copied().map(filter).collect() }
}

/// A node that joined and shares.
async fn start(site: &Site, hub: &AtHub, name: &str, sharing: TopicSharing) -> AtNode {
    hub.cluster.admit(&id(name), None).expect("joins");
    let mut node = AtNode::open(name, tempfile::tempdir().expect("a folder"));
    node.connect_by(site.member(name).await, sharing).await;
    node
}

fn topics(hub: &AtHub) -> ClusterTopics {
    hub.cluster.topics().expect("it has a folder")
}

/// What the fleet has, as payload and the node that it came from.
async fn at_hub(hub: &AtHub) -> Vec<(String, String)> {
    let (mut found, mut next) = (Vec::new(), 1);
    loop {
        let batch = topics(hub).read(next, &filter("#")).await.expect("reads");
        if batch.next == next {
            return found;
        }
        next = batch.next;
        found.extend(batch.messages.iter().map(|message| (text(message), from(message))));
    }
}

fn text(message: &Message) -> String {
    String::from_utf8(message.payload.to_vec()).expect("text")
}

fn from(message: &Message) -> String {
    message.origin.as_ref().map_or_else(|| "hub".to_owned(), |origin| origin.node.to_string())
}

async fn payloads(hub: &AtHub) -> Vec<String> {
    at_hub(hub).await.into_iter().map(|(payload, _)| payload).collect()
}

/// What is in the log of a node.
async fn at_node(node: &AtNode) -> Vec<String> {
    let (log, mut found, mut next) = (node.node.topics().log(), Vec::new(), 1);
    loop {
        let batch = log.read(next, &filter("#")).await.expect("reads");
        if batch.next == next {
            return found;
        }
        next = batch.next;
        found.extend(batch.messages.iter().map(|message| text(message)));
    }
}

async fn publish(node: &AtNode, topic: &str, payload: impl Into<String>) {
    node.node.topics().publish(message(topic, payload)).await.expect("published");
}

/// Publishes `count` messages of several keys, numbered from `first`.
async fn publish_many(node: &AtNode, first: usize, count: usize) {
    let log = node.node.topics().log();
    let mut pending = Vec::new();
    for n in first..first + count {
        let key = Some(format!("k{}", n % 7));
        pending.push(log.enqueue(Message { key, ..message(&format!("site/{}", n % 3), n.to_string()) }).await.expect("handed over"));
    }
    for one in pending {
        one.await.expect("durable");
    }
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

/// A way to the hub that fails as it is told.
struct Bad {
    inner: Arc<dyn Backbone>,
    /// Whether each second answer about forwarded messages is lost.
    loses_answers: bool,
    /// Whether the hub takes nothing.
    refuses: AtomicBool,
    delay: Duration,
    sent: AtomicUsize,
    under_way: AtomicUsize,
    under_way_max: AtomicUsize,
}

impl Bad {
    fn new(inner: Arc<dyn Backbone>) -> Self {
        Self {
            inner,
            loses_answers: false,
            refuses: AtomicBool::new(false),
            delay: Duration::ZERO,
            sent: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            under_way_max: AtomicUsize::new(0),
        }
    }

    async fn forward(&self, to: &Subject, message: Carrier, timeout: Duration) -> Result<Carrier, BackboneError> {
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.under_way_max.fetch_max(under_way, Ordering::SeqCst);
        tokio::time::sleep(self.delay).await;
        let answer = if self.refuses.load(Ordering::SeqCst) {
            Err(BackboneError::Answered(EdgeError::new(ErrorKind::Unavailable, "no room")))
        } else {
            self.inner.request(to, message, timeout).await
        };
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        let sent = self.sent.fetch_add(1, Ordering::SeqCst);
        if self.loses_answers && sent.is_multiple_of(2) { Err(BackboneError::Timeout(to.to_string())) } else { answer }
    }
}

impl Backbone for Bad {
    fn request<'a>(&'a self, to: &'a Subject, message: Carrier, timeout: Duration) -> BoxFuture<'a, Result<Carrier, BackboneError>> {
        if to.service.as_str() == "topics" { self.forward(to, message, timeout).boxed() } else { self.inner.request(to, message, timeout) }
    }

    fn serve<'a>(&'a self, subjects: &'a Subjects, concurrency: usize, handler: Handler) -> BoxFuture<'a, Result<Service, BackboneError>> {
        self.inner.serve(subjects, concurrency, handler)
    }

    fn publish<'a>(&'a self, to: &'a Subject, message: Carrier) -> BoxFuture<'a, Result<(), BackboneError>> {
        self.inner.publish(to, message)
    }

    fn subscribe<'a>(&'a self, subjects: &'a Subjects) -> BoxFuture<'a, Result<Arriving, BackboneError>> {
        self.inner.subscribe(subjects)
    }

    fn lease(&self, claim: Claim) -> BoxFuture<'_, Result<Claimed, BackboneError>> {
        self.inner.lease(claim)
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.inner.connection()
    }
}

/// A node behind a bad way, which forwards all that it publishes.
async fn behind(site: &Site, hub: &AtHub, name: &str, make: impl FnOnce(&mut Bad)) -> (AtNode, Arc<Bad>) {
    hub.cluster.admit(&id(name), None).expect("joins");
    let mut bad = Bad::new(site.member(name).await);
    make(&mut bad);
    let bad = Arc::new(bad);
    let mut node = AtNode::open(name, tempfile::tempdir().expect("a folder"));
    node.connect_by(Arc::clone(&bad) as _, sharing(&["#"], &[])).await;
    (node, bad)
}

/// Waits until the hub has so many messages.
async fn has(hub: &AtHub, count: usize) {
    eventually(&format!("the hub has {count} messages"), async || at_hub(hub).await.len() >= count).await;
}

pub(crate) async fn what_a_node_publishes_reaches_the_hub_and_calls_a_function_on_another_node(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let first = start(&site, &hub, "edge-01", sharing(&["site/#"], &["all/#"])).await;
    let second = start(&site, &hub, "edge-02", sharing(&["#"], &["site/+", "all/#"])).await;
    let given: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&given);
    let note = NativeHandler::new(move |payload: bytes::Bytes| {
        noted.lock().push(String::from_utf8(payload.to_vec()).expect("text"));
        async { Ok::<_, std::io::Error>(bytes::Bytes::new()) }
    });
    second.node.runtime().register(HandlerName::new("note").expect("valid"), note);
    second.node.put_function(native("note", "note"), Precondition::None).await.expect("put");
    let trigger = Trigger::new(TriggerId::new("t").expect("valid"), FunctionId::new("note").expect("valid"), vec![filter("site/+")]);
    second.node.topics().put_trigger(trigger).await.expect("put");
    let running = Arc::clone(&second.node);
    let _running = AbortOnDropHandle::new(tokio::spawn(async move { running.topics().run_triggers(CancellationToken::new()).await }));
    eventually("both have asked", async || second.exchange().importing_failed.is_none() && first.exchange().importing_failed.is_none())
        .await;
    // A node imports what comes after it first asked.
    eventually("both begin", async || {
        let marks = [first.node.topics().log().mark("fleet").await, second.node.topics().log().mark("fleet").await];
        marks.into_iter().all(|mark| mark.expect("reads").is_some())
    })
    .await;

    publish(&first, "own/x", "not shared").await;
    publish(&first, "site/a", "1").await;
    publish(&first, "site/a/deep", "2").await;
    eventually("the function is called", async || *given.lock() == ["1"]).await;
    let position = topics(&hub).publish(message("all/news", "3")).await.expect("published");
    assert_eq!(position, 3);
    has(&hub, 3).await;
    let expected = [("1", "edge-01"), ("2", "edge-01"), ("3", "hub")].map(|(text, from)| (text.to_owned(), from.to_owned()));
    assert_eq!(at_hub(&hub).await, expected);
    eventually("the news reach both", async || at_node(&first).await.len() == 4 && at_node(&second).await.len() == 2).await;
    assert_eq!((at_node(&first).await[3].as_str(), at_node(&second).await), ("3", vec!["1".to_owned(), "3".to_owned()]));
    // What came from the fleet does not go back, though the filter matches it.
    publish(&second, "z", "4").await;
    has(&hub, 4).await;
    assert_eq!(payloads(&hub).await, ["1", "2", "3", "4"]);
    let refused = topics(&hub).publish(message("$SYS/x", "")).await.expect_err("it is nobody's");
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
}

pub(crate) async fn what_was_published_while_a_node_was_away_arrives_once_and_in_order(site: Site) {
    const COUNT: usize = 10_000;
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let node = start(&site, &hub, "edge-01", sharing(&["site/#"], &[])).await;
    publish_many(&node, 0, 10).await;
    has(&hub, 10).await;
    site.cut_off("edge-01").await;
    publish_many(&node, 10, COUNT - 10).await;
    site.bring_back("edge-01").await;
    let begun = std::time::Instant::now();
    while at_hub(&hub).await.len() < COUNT {
        assert!(begun.elapsed() < Duration::from_mins(3), "only {} arrived", at_hub(&hub).await.len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("{COUNT} messages were forwarded in {:?}", begun.elapsed());
    assert_eq!(payloads(&hub).await, numbers(COUNT));
    eventually("the node notes it", async || node.exchange().forwarded_up_to == COUNT as u64).await;
}

pub(crate) async fn what_the_hub_took_and_the_node_did_not_hear_of_comes_once(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let (node, bad) = behind(&site, &hub, "edge-01", |bad| bad.loses_answers = true).await;
    publish_many(&node, 0, 300).await;
    has(&hub, 300).await;
    publish_many(&node, 300, 300).await;
    has(&hub, 600).await;
    eventually("the node notes it", async || node.exchange().forwarded_up_to == 600).await;
    assert!(bad.sent.load(Ordering::SeqCst) > 3, "bundles were sent again");
    // Another process of the hub knows what it has.
    drop(hub);
    let hub = AtHub::start(&site, folder.path()).await;
    publish_many(&node, 600, 300).await;
    has(&hub, 900).await;
    eventually("the node notes it", async || node.exchange().forwarded_up_to == 900).await;
    assert_eq!(payloads(&hub).await, numbers(900));
}

pub(crate) async fn what_is_left_of_a_log_that_gave_up_what_was_not_forwarded_arrives(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let node = start(&site, &hub, "edge-01", sharing(&["site/#"], &[])).await;
    publish_many(&node, 0, 10).await;
    has(&hub, 10).await;
    eventually("the node notes it", async || node.exchange().forwarded_up_to == 10).await;
    let home = node.stop().await;
    // Each opening begins an epoch, and those are forgotten whose messages are gone.
    for round in 1..=3 {
        let options = LogOptions { messages_max: 8, ..LogOptions::default() };
        let log = TopicLog::open(&home.path().join("topics"), options).expect("opens");
        for n in round * 10..round * 10 + 10 {
            log.publish(message("site/0", n.to_string())).await.expect("published");
        }
    }
    let mut node = AtNode::open("edge-01", home);
    node.connect_by(site.member("edge-01").await, sharing(&["site/#"], &[])).await;
    publish(&node, "site/0", "40").await;
    has(&hub, 19).await;
    assert_eq!(payloads(&hub).await, (0..10).chain(32..=40).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(node.exchange().lost, 22);
}

/// A bundle with one message, as it goes over the wire.
fn bundle(node: &str, topic: &str) -> Carrier {
    bundle_of(node, topic, 1..=1)
}

/// The same with a message for each of these positions, whose payloads they are.
fn bundle_of(node: &str, topic: &str, positions: std::ops::RangeInclusive<u64>) -> Carrier {
    let message = |position: u64| {
        format!(r#"{{"topic":"{topic}","bytes":1,"published_at_ms":0,"origin":{{"node":"{node}","epoch":1,"position":{position}}}}}"#)
    };
    let messages: Vec<_> = positions.clone().map(message).collect();
    let json = format!(r#"{{"messages":[{}]}}"#, messages.join(","));
    let mut bytes = u32::try_from(json.len()).expect("short").to_be_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    positions.for_each(|position| bytes.extend_from_slice(position.to_string().as_bytes()));
    Carrier::new(bytes)
}

pub(crate) async fn what_is_sent_after_what_another_hub_overtook_is_not_taken_for_all(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    // In process no other hub can write.
    let Some(stream) = site.topic_stream("hub").await else { return };
    hub.cluster.admit(&id("edge-01"), None).expect("joins");
    let member = site.member("edge-01").await;
    // The hub knows the end of the stream, and another writes there.
    topics(&hub).publish(message("a", "0")).await.expect("published");
    let others = ["a", "b"].map(|payload| StreamContent {
        node: id("other"),
        topic: TopicName::new("a").expect("valid"),
        head: r#"{"published_at_ms":0}"#.to_owned(),
        payload: payload.into(),
    });
    stream.append(others.into(), 1).await.expect("handed over").done().await.expect("appended");
    let send = async |positions| {
        let to = Subject::to_hub(id("edge-01"), Name::new("topics"));
        member.request(&to, bundle_of("edge-01", "a", positions), Duration::from_secs(30)).await.is_ok()
    };
    // The second comes before anybody knows what becomes of the first.
    let (first, second) = tokio::join!(send(1..=3), send(1..=5));
    assert!(!first, "it was overtaken");
    if !second {
        eventually("it is sent again", async || send(1..=5).await).await;
    }
    has(&hub, 8).await;
    let own = at_hub(&hub).await.into_iter().filter(|(_, from)| from == "edge-01").map(|(payload, _)| payload);
    assert_eq!(own.collect::<Vec<_>>(), ["1", "2", "3", "4", "5"]);
}

pub(crate) async fn a_node_that_is_not_who_it_says_or_speaks_for_another_is_refused(site: Site) {
    const TOPICS: Name = Name::new("topics");
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    hub.cluster.admit(&id("edge-01"), None).expect("joins");
    let member = site.member("edge-01").await;
    let ask = async |node: &str, carrier| {
        let to = Subject::to_hub(id(node), TOPICS);
        member.request(&to, carrier, Duration::from_secs(20)).await.map(drop).map_err(|error| error.kind())
    };
    assert_eq!(ask("edge-01", bundle("edge-02", "a")).await, Err(ErrorKind::Forbidden), "it speaks for another");
    assert_eq!(ask("edge-01", bundle("edge-01", "$SYS/a")).await, Err(ErrorKind::Forbidden), "the topic is the node's own");
    assert_eq!(ask("edge-09", bundle("edge-09", "a")).await, Err(ErrorKind::Forbidden), "it never joined");
    assert_eq!(ask("edge-01", bundle("edge-01", "a/#")).await, Err(ErrorKind::InvalidInput), "that is no topic");
    assert_eq!(ask("edge-01", Carrier::new("nonsense")).await, Err(ErrorKind::InvalidInput));
    assert_eq!(ask("edge-01", bundle("edge-01", "a")).await, Ok(()));
    has(&hub, 1).await;
    assert_eq!(at_hub(&hub).await, [("1".to_owned(), "edge-01".to_owned())]);
}

pub(crate) async fn a_slow_hub_is_sent_one_bundle_at_a_time(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let (node, bad) = behind(&site, &hub, "edge-01", |bad| bad.delay = Duration::from_millis(100)).await;
    publish_many(&node, 0, 2000).await;
    has(&hub, 2000).await;
    assert_eq!(bad.under_way_max.load(Ordering::SeqCst), 1);
    assert!(bad.sent.load(Ordering::SeqCst) >= 2000 / 256, "a bundle has a bound");
    assert_eq!(payloads(&hub).await, numbers(2000));
}

pub(crate) async fn a_hub_that_takes_nothing_for_a_while_makes_a_node_lose_nothing(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let (node, bad) = behind(&site, &hub, "edge-01", |bad| *bad.refuses.get_mut() = true).await;
    publish_many(&node, 0, 500).await;
    eventually("the node says why", async || node.exchange().forwarding_failed.is_some_and(|why| why.contains("no room"))).await;
    assert_eq!((at_hub(&hub).await.len(), node.exchange().forwarded), (0, 0));
    bad.refuses.store(false, Ordering::SeqCst);
    has(&hub, 500).await;
    assert_eq!(payloads(&hub).await, numbers(500));
    eventually("it says so no more", async || node.exchange().forwarding_failed.is_none()).await;
}

pub(crate) async fn a_hub_that_starts_again_has_what_was_published_and_goes_on(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let node = start(&site, &hub, "edge-01", sharing(&["site/#"], &[])).await;
    publish_many(&node, 0, 200).await;
    has(&hub, 200).await;
    match &site {
        Site::InProcess(_) => site.cut_off("hub").await,
        // It is killed while messages are on their way, and comes back with its disk.
        Site::OverNats(site) => site.server.lock().await.kill(),
    }
    publish_many(&node, 200, 200).await;
    drop(hub);
    match &site {
        Site::InProcess(_) => site.bring_back("hub").await,
        Site::OverNats(site) => site.server.lock().await.start_again().await,
    }
    let hub = AtHub::start(&site, folder.path()).await;
    has(&hub, 400).await;
    assert_eq!(payloads(&hub).await, numbers(400));
    // Over NATS a hub without a disk of its own has them too.
    if matches!(site, Site::OverNats(_)) {
        drop(hub);
        let other = tempfile::tempdir().expect("a folder");
        let hub = AtHub::start(&site, other.path()).await;
        has(&hub, 400).await;
        assert_eq!(payloads(&hub).await, numbers(400));
    }
}

pub(crate) async fn what_a_node_imported_comes_once_also_when_it_starts_again(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let mut node = start(&site, &hub, "edge-01", sharing(&[], &["news/#"])).await;
    eventually("it begins", async || node.node.topics().log().mark("fleet").await.expect("reads").is_some()).await;
    let tell = async |n: usize| topics(&hub).publish(message("news/x", n.to_string())).await.expect("published");
    for n in 0..5 {
        tell(n).await;
    }
    eventually("it has them", async || at_node(&node).await.len() == 5).await;
    node.disconnect();
    for n in 5..700 {
        tell(n).await;
    }
    node.connect_by(site.member("edge-01").await, sharing(&[], &["news/#"])).await;
    eventually("it has all", async || at_node(&node).await.len() == 700).await;
    let folder = node.stop().await;
    let mut node = AtNode::open("edge-01", folder);
    node.connect_by(site.member("edge-01").await, sharing(&[], &["news/#"])).await;
    tell(700).await;
    eventually("it has the last", async || at_node(&node).await.len() == 701).await;
    assert_eq!(at_node(&node).await, numbers(701));
}

pub(crate) async fn topics_whose_servers_were_emptied_begin_anew_and_nothing_comes_twice(site: Site) {
    let Site::OverNats(servers) = &site else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let from = start(&site, &hub, "edge-01", sharing(&["#"], &[])).await;
    let to = start(&site, &hub, "edge-02", sharing(&[], &["#"])).await;
    eventually("it begins", async || to.node.topics().log().mark("fleet").await.expect("reads").is_some()).await;
    publish_many(&from, 0, 50).await;
    eventually("they arrive", async || at_node(&to).await.len() == 50).await;
    {
        let mut server = servers.server.lock().await;
        server.kill();
        server.delete_data();
        server.start_again().await;
    }
    publish_many(&from, 50, 50).await;
    eventually("what is new arrives", async || at_node(&to).await.len() == 100).await;
    assert_eq!(at_node(&to).await, numbers(100));
    assert_eq!(payloads(&hub).await, numbers(100)[50..], "the servers have no more");
}
