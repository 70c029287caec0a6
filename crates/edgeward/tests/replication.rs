//! Nodes and their hub over a backbone in this process: what is written on either side reaches all, also after a time apart.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use edgeward::{
    Document, DocumentName, Documents, EdgeError, Epoch, Hub, NodeId, Pattern, Role, SessionState, Store, Value,
    cluster::{
        Backbone, LocalNetwork, Message, Subject,
        service::handler,
        subject::{Name, Subjects},
    },
    document::Precondition,
    replication::{HubService, Replicator},
};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

fn id(text: &str) -> NodeId {
    NodeId::new(text).expect("valid")
}

fn store(node: &str, role: Role) -> Arc<Store> {
    Arc::new(Store::in_memory_as(id(node), Epoch::draw().expect("a random number"), role).expect("opens"))
}

fn cellar(store: &Arc<Store>) -> Document {
    Documents::new(Arc::clone(store)).document(DocumentName::new("cellar").expect("valid"))
}

async fn set(document: &Document, key: &'static str, value: i64) {
    let document = document.clone();
    let edit = move || document.edit(Precondition::None, move |draft| draft.set(key, &value.into()));
    edgeward::blocking(edit).await.expect("edits");
}

/// Waits until a key shows a value.
async fn shows(document: &Document, key: &str, value: i64) {
    let mut watch = document.watch();
    let wanted = Some(Value::from(value));
    let waiting = async {
        while document.get(key).expect("reads") != wanted {
            watch.changed().await.expect("reads");
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("`{key}` is not {value} after {PATIENCE:?}"));
}

struct Fleet {
    network: LocalNetwork,
    at_hub: Document,
    _hub: HubService,
}

impl Fleet {
    async fn new() -> Self {
        let network = LocalNetwork::new();
        let store = store("hub", Role::Hub);
        let hub = Arc::new(Hub::new(Arc::clone(&store)).expect("starts"));
        let at_hub = cellar(&store);
        let service = HubService::start(hub, store, Arc::new(network.member(id("hub"))), Vec::new(), |_| Ok(())).await.expect("serves");
        Self { network, at_hub, _hub: service }
    }

    async fn node(&self, node: &str) -> (Document, Replicator) {
        let store = store(node, Role::Replica);
        let document = cellar(&store);
        (document, Replicator::start(store, Arc::new(self.network.member(id(node))), vec![Pattern::all()]).await.expect("starts"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_anywhere_reaches_every_node() {
    let fleet = Fleet::new().await;
    let (one, _replicator) = fleet.node("edge-1").await;
    let (two, _replicator) = fleet.node("edge-2").await;
    set(&one, "one", 1).await;
    set(&two, "two", 2).await;
    set(&fleet.at_hub, "hub", 3).await;
    for document in [&one, &two, &fleet.at_hub] {
        for (key, value) in [("one", 1), ("two", 2), ("hub", 3)] {
            shows(document, key, value).await;
        }
    }
    // Long before a node asks by itself: it was poked.
    let begun = Instant::now();
    set(&one, "one", 11).await;
    shows(&two, "one", 11).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_cut_off_says_so_goes_on_and_catches_up() {
    let fleet = Fleet::new().await;
    let (document, replicator) = fleet.node("edge-1").await;
    let mut replication = replicator.replication();
    set(&document, "before", 1).await;
    shows(&fleet.at_hub, "before", 1).await;
    timeout(PATIENCE, replication.wait_for(|now| now.state == SessionState::Synced)).await.expect("in time").expect("it runs");

    fleet.network.cut_off(&id("edge-1"));
    set(&document, "apart", 2).await;
    set(&fleet.at_hub, "meanwhile", 3).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(fleet.at_hub.get("apart").expect("reads"), None);
    assert_eq!(document.get("meanwhile").expect("reads"), None);
    assert_ne!(replication.borrow().state, SessionState::Synced);

    fleet.network.bring_back(&id("edge-1"));
    shows(&fleet.at_hub, "apart", 2).await;
    shows(&document, "meanwhile", 3).await;
    let synced = timeout(PATIENCE, replication.wait_for(|now| now.state == SessionState::Synced)).await;
    let synced = synced.expect("in time").expect("it runs").clone();
    assert!(synced.synced_at.is_some() && synced.error.is_none(), "{synced:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_speaks_for_itself_only() {
    let fleet = Fleet::new().await;
    let other = store("edge-1", Role::Replica);
    let hello = edgeward::ReplicaSession::new(other).next_frame().expect("reads").expect("a hello");
    let backbone = fleet.network.member(id("edge-2"));
    let to = Subject::to_hub(id("edge-2"), Name::new("sync"));
    let refused: EdgeError = backbone.request(&to, Message::new(hello), PATIENCE).await.expect_err("it is another's").into();
    assert_eq!(refused.kind(), edgeward::ErrorKind::Forbidden, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_hub_that_stands_still_was_asked_is_asked_anew_when_another_begins_and_says_so_once_more() {
    let network = LocalNetwork::new();
    let hub = network.member(id("hub"));
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let still = handler(move |_call| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<Result<Message, EdgeError>>()
    });
    let _service = hub.serve(&Subjects::to_hub(Name::new("sync")), 8, still).await.expect("serves");
    let _replicator = Replicator::start(store("edge-1", Role::Replica), Arc::new(network.member(id("edge-1"))), Vec::new()).await;
    let to = Subject::to_node(id("edge-1"), Name::new("poke"));
    let begun = Instant::now();
    // A request that has just been made may be on its way to who answers, and is not made again.
    for (poke, times) in [("", 1), ("anew", 2), ("again", 3)] {
        while asked.load(Ordering::SeqCst) < times {
            assert!(begun.elapsed() < Duration::from_secs(10), "`{poke}`: it waits for its answer");
            hub.publish(&to, Message::new(poke)).await.expect("sent");
            sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}
