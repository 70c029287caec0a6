//! A standby follows a hub, takes over, and the hub that was before comes back as its standby: nothing that was acknowledged is lost.

use std::{path::Path, sync::Arc};

use edgeward_model::{DocumentName, ErrorKind, NodeId, Value};
use edgeward_sync::{Document, Documents, Epoch, Hub, Pattern, Precondition, ReplicaSession, Role, SessionState, Store};
use jiff::Timestamp;
use tempfile::TempDir;

const HUBS: [&str; 2] = ["hub-1", "hub-2"];

fn node(id: &str) -> NodeId {
    NodeId::new(id).expect("valid")
}

fn open(folder: &Path, id: &str, role: Role) -> Arc<Store> {
    Arc::new(Store::open_as(&folder.join(id), node(id), Epoch::draw().expect("random"), role).expect("opens"))
}

fn hub(store: &Arc<Store>) -> Hub {
    let hub = Hub::new(Arc::clone(store)).expect("starts");
    hub.set_standbys(HUBS.map(node));
    hub.set_term(Some(1));
    hub
}

fn document(store: &Arc<Store>, name: &str) -> Document {
    Documents::new(Arc::clone(store)).document(DocumentName::new(name).expect("valid"))
}

fn set(store: &Arc<Store>, name: &str, key: &'static str, value: i64) {
    document(store, name).edit(Precondition::None, move |draft| draft.set(key, &Value::from(value))).expect("edits");
}

fn shown(store: &Arc<Store>, name: &str, key: &str) -> Option<Value> {
    document(store, name).get(key).expect("reads")
}

/// Speaks until nothing is to be said.
fn sync(session: &mut ReplicaSession, hub: &Hub) {
    session.poke();
    while let Some(frame) = session.next_frame().expect("reads") {
        let now = u64::try_from(Timestamp::now().as_millisecond()).expect("after 1970");
        let answer = hub.answer(&frame, now).expect("answers");
        session.receive(&answer, now).expect("applies");
    }
    assert_eq!(session.state(), SessionState::Synced);
}

/// Two hubs, of which the second follows, and two nodes.
struct Fleet {
    folder: TempDir,
    hubs: [Arc<Store>; 2],
    nodes: [(Arc<Store>, ReplicaSession); 2],
}

impl Fleet {
    fn new() -> Self {
        let folder = TempDir::new().expect("made");
        let hubs = [open(folder.path(), HUBS[0], Role::Hub), open(folder.path(), HUBS[1], Role::Standby)];
        let nodes = ["edge-1", "edge-2"].map(|id| {
            let store = open(folder.path(), id, Role::Replica);
            (Arc::clone(&store), ReplicaSession::new(store))
        });
        Self { folder, hubs, nodes }
    }

    fn sync_nodes(&mut self, hub: &Hub) {
        for _ in 0..2 {
            self.nodes.iter_mut().for_each(|(_, session)| sync(session, hub));
        }
    }
}

#[test]
fn a_standby_has_everything_takes_over_and_nodes_go_on_without_comparing() {
    let mut fleet = Fleet::new();
    let first = hub(&fleet.hubs[0]);
    let mut following = ReplicaSession::new(Arc::clone(&fleet.hubs[1]));
    set(&fleet.hubs[0], "edgeward.hub.nodes", "edge-1", 1);
    set(&fleet.nodes[0].0, "cellar", "a", 1);
    fleet.sync_nodes(&first);
    sync(&mut following, &first);
    assert_eq!(shown(&fleet.hubs[1], "edgeward.hub.nodes", "edge-1"), Some(Value::from(1_i64)));
    assert_eq!(shown(&fleet.hubs[1], "cellar", "a"), Some(Value::from(1_i64)));
    assert_eq!(shown(&fleet.nodes[0].0, "edgeward.hub.nodes", "edge-1"), None, "it is for hubs alone");
    let refused = document(&fleet.hubs[1], "cellar").edit(Precondition::None, |draft| draft.set("a", &Value::from(2_i64)));
    assert_eq!(refused.map(drop).expect_err("it stands by").kind(), ErrorKind::Unavailable);

    drop((following, first));
    fleet.hubs[1].promote().expect("promotes");
    let second = hub(&fleet.hubs[1]);
    set(&fleet.nodes[1].0, "cellar", "b", 2);
    for (_, session) in &mut fleet.nodes {
        session.reconnect();
        let now = u64::try_from(Timestamp::now().as_millisecond()).expect("after 1970");
        let hello = session.next_frame().expect("reads").expect("a hello");
        session.receive(&second.answer(&hello, now).expect("answers"), now).expect("applies");
        assert!(!session.is_comparing(), "the standby knew how far it was");
    }
    fleet.sync_nodes(&second);
    assert_eq!(shown(&fleet.nodes[0].0, "cellar", "b"), Some(Value::from(2_i64)));
}

#[test]
fn what_the_old_hub_took_and_the_standby_never_heard_comes_back_with_the_old_hub() {
    let mut fleet = Fleet::new();
    let first = hub(&fleet.hubs[0]);
    let mut following = ReplicaSession::new(Arc::clone(&fleet.hubs[1]));
    set(&fleet.nodes[0].0, "cellar", "early", 1);
    fleet.sync_nodes(&first);
    sync(&mut following, &first);
    // Taken by the old hub alone; then the node that wrote it is gone for good, and with it the only other copy.
    let gone = open(fleet.folder.path(), "edge-3", Role::Replica);
    set(&gone, "attic", "late", 2);
    sync(&mut ReplicaSession::new(gone), &first);
    set(&fleet.hubs[0], "cellar", "of the hub", 3);

    drop((first, following));
    fleet.hubs[1].promote().expect("promotes");
    let second = hub(&fleet.hubs[1]);
    set(&fleet.hubs[1], "cellar", "early", 4);
    fleet.sync_nodes(&second);
    assert_eq!(shown(&fleet.hubs[1], "attic", "late"), None);

    fleet.hubs[0].demote().expect("demotes");
    let mut returning = ReplicaSession::new(Arc::clone(&fleet.hubs[0]));
    sync(&mut returning, &second);
    fleet.sync_nodes(&second);
    for store in fleet.hubs.iter().chain([&fleet.nodes[0].0, &fleet.nodes[1].0]) {
        assert_eq!(shown(store, "attic", "late"), Some(Value::from(2_i64)));
        assert_eq!(shown(store, "cellar", "of the hub"), Some(Value::from(3_i64)));
        assert_eq!(shown(store, "cellar", "early"), Some(Value::from(4_i64)), "what is newer stays");
    }
    assert_eq!(document(&fleet.hubs[1], "cellar").conflicts().expect("reads"), []);

    // And back again.
    drop((returning, second));
    fleet.hubs[0].promote().expect("promotes");
    fleet.hubs[1].demote().expect("demotes");
    let third = hub(&fleet.hubs[0]);
    set(&fleet.nodes[1].0, "cellar", "last", 5);
    fleet.sync_nodes(&third);
    let mut following = ReplicaSession::new(Arc::clone(&fleet.hubs[1]));
    sync(&mut following, &third);
    for store in fleet.hubs.iter().chain([&fleet.nodes[0].0, &fleet.nodes[1].0]) {
        assert_eq!(shown(store, "cellar", "last"), Some(Value::from(5_i64)));
    }
}

#[test]
fn a_store_says_what_it_is_and_changes_only_between_hub_and_standby() {
    let folder = TempDir::new().expect("made");
    let again = |id: &str, role| Store::open_as(&folder.path().join(id), node(id), Epoch::draw().expect("random"), role);
    let store = open(folder.path(), HUBS[0], Role::Hub);
    set(&store, "cellar", "a", 1);
    let old = hub(&store);
    store.demote().expect("demotes");
    let mut session = ReplicaSession::new(open(folder.path(), "edge-1", Role::Replica));
    let hello = session.next_frame().expect("reads").expect("a hello");
    assert_eq!(old.answer(&hello, 1).expect_err("it is deposed").kind(), ErrorKind::Unavailable);
    assert_eq!(store.demote().expect_err("it is none").kind(), ErrorKind::Conflict);
    drop((old, store));

    let store = again(HUBS[0], Role::Hub).expect("is promoted");
    assert_eq!(store.role(), Role::Hub);
    assert_eq!(store.promote().expect_err("it is one").kind(), ErrorKind::Conflict);
    assert_eq!(shown(&Arc::new(store), "cellar", "a"), Some(Value::from(1_i64)));
    assert_eq!(again(HUBS[0], Role::Replica).expect_err("a hub").kind(), ErrorKind::Conflict);
    assert_eq!(again(HUBS[0], Role::Standby).expect("is demoted").role(), Role::Standby);

    drop(session);
    let replica = again("edge-1", Role::Replica).expect("opens");
    assert_eq!(replica.promote().expect_err("it stands by for nobody").kind(), ErrorKind::Conflict);
    drop(replica);
    assert_eq!(again("edge-1", Role::Hub).expect_err("a replica").kind(), ErrorKind::Conflict);
}

#[test]
fn a_replica_takes_what_it_declares_whole_and_keeps_what_it_declares_no_more() {
    let mut fleet = Fleet::new();
    let first = hub(&fleet.hubs[0]);
    let pattern = |text: &str| text.parse::<Pattern>().expect("valid");
    for name in ["site-1", "site-2", "attic"] {
        set(&fleet.hubs[0], name, "a", 1);
    }
    let (store, session) = &mut fleet.nodes[0];
    session.declare([pattern("site-1")]).expect("one");
    sync(session, &first);
    assert_eq!([shown(store, "site-1", "a"), shown(store, "site-2", "a")], [Some(Value::from(1_i64)), None]);
    session.declare([pattern("site-*")]).expect("one");
    sync(session, &first);
    assert_eq!([shown(store, "site-2", "a"), shown(store, "attic", "a")], [Some(Value::from(1_i64)), None]);
    session.declare([]).expect("none");
    set(&fleet.hubs[0], "site-2", "a", 2);
    set(store, "attic", "b", 3);
    sync(session, &first);
    assert_eq!(shown(store, "site-2", "a"), Some(Value::from(2_i64)), "it is held, and kept the same");
    assert_eq!(shown(store, "attic", "a"), Some(Value::from(1_i64)), "it was written, and so it is held");
    assert_eq!(shown(&fleet.hubs[0], "attic", "b"), Some(Value::from(3_i64)));
}
