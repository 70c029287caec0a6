//! A node in a folder whose triggers run, and a function that notes what it is given.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use edgeward::{
    EdgeFunction, EdgeNode, FunctionId, Handler, HandlerName, Message, NativeHandler, Node, NodeOptions, Precondition, Redelivery,
    TopicFilter, TopicName, Trigger, TriggerId, TriggerView,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Bench {
    folder: TempDir,
    pub(crate) node: Arc<Node>,
    stop: CancellationToken,
    running: JoinHandle<()>,
    /// What the function was given, in its order.
    pub(crate) given: Arc<Mutex<Vec<String>>>,
}

fn start(folder: &TempDir) -> (Arc<Node>, CancellationToken, JoinHandle<()>) {
    let node = Node::open(NodeOptions::new(EdgeNode::new("edge-01", "test").expect("valid"), folder.path())).expect("opens");
    let stop = CancellationToken::new();
    let (triggers, until) = (Arc::clone(&node), stop.clone());
    (node, stop, tokio::spawn(async move { triggers.topics().run_triggers(until).await }))
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("temp folder");
        let (node, stop, running) = start(&folder);
        Self { folder, node, stop, running, given: Arc::default() }
    }

    /// Stops the triggers, drops the node, and opens its folder again.
    pub(crate) async fn restart(self) -> Self {
        let Self { folder, node, stop, running, given } = self;
        stop.cancel();
        in_time("the triggers end", running).await.expect("no panic");
        drop(Arc::try_unwrap(node).expect("nobody else has the node"));
        let (node, stop, running) = start(&folder);
        Self { folder, node, stop, running, given }
    }

    /// Deploys `f`, which notes what it is given and does what `handle` says.
    pub(crate) async fn deploy<R>(&self, handle: impl Fn(String) -> R + Send + Sync + 'static)
    where
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        let given = Arc::clone(&self.given);
        let handler = NativeHandler::new(move |payload: Bytes| {
            let text = String::from_utf8(payload.to_vec()).expect("text");
            given.lock().push(text.clone());
            let done = handle(text);
            async move { done.await.map(|()| Bytes::new()) }
        });
        let name = HandlerName::new("h").expect("valid");
        self.node.runtime().register(name.clone(), handler);
        let function = EdgeFunction::new("f", "f", Handler::Native(name)).expect("valid");
        self.node.put_function(function, Precondition::None).await.expect("put");
        self.node.reconcile().await;
    }

    pub(crate) async fn put(&self, trigger: Trigger) -> bool {
        in_time("the trigger is put", self.node.topics().put_trigger(trigger)).await.expect("put")
    }

    /// Publishes under this key, or under none.
    pub(crate) async fn publish(&self, topic: &str, key: Option<&str>, payload: &str) -> u64 {
        let message = Message::new(TopicName::new(topic).expect("valid"), payload.to_owned(), Timestamp::now());
        let message = Message { key: key.map(str::to_owned), ..message };
        self.node.topics().publish(message).await.expect("published")
    }

    pub(crate) async fn view(&self) -> TriggerView {
        self.node.topics().triggers().await.expect("listed").remove(0)
    }

    pub(crate) fn given(&self) -> Vec<String> {
        self.given.lock().clone()
    }
}

/// The trigger `t` of the function `f`, which is quick to try again.
pub(crate) fn trigger(filters: &[&str], attempts: u32, concurrency: u32) -> Trigger {
    let filters = filters.iter().map(|text| TopicFilter::new(text).expect("valid")).collect();
    let retry = Redelivery { attempts, pause_min_ms: 2, pause_max_ms: 10 };
    Trigger { retry, concurrency, ..Trigger::new(TriggerId::new("t").expect("valid"), FunctionId::new("f").expect("valid"), filters) }
}

pub(crate) async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
