//! Replicas that write while apart and then exchange frames with a hub: what becomes of one key, and which conflicts are listed.

use std::sync::Arc;

use edgeward_model::{
    DocumentName, ErrorKind, NodeId, Object, Value,
    limits::{CONFLICTS_MAX, VALUE_BYTES_MAX},
    python_json,
};
use edgeward_sync::{
    Conflict, ConflictsPage, Document, Documents, Epoch, Hub, Policy, Precondition, ReplicaSession, Resolution, Role, Store, Why,
};
use jiff::Timestamp;
use tempfile::TempDir;

/// A hub and two of its replicas, all with the document `cellar`.
struct Fleet {
    hub: Hub,
    at_hub: Document,
    sessions: [ReplicaSession; 2],
    at: [Document; 2],
    _folder: TempDir,
}

fn cellar(store: &Arc<Store>) -> Document {
    Documents::new(Arc::clone(store)).document(DocumentName::new("cellar").expect("valid"))
}

fn value(json: &str) -> Value {
    python_json::read(json).expect(json)
}

fn set(document: &Document, key: &'static str, json: &str) {
    let value = value(json);
    document.edit(Precondition::None, move |draft| draft.set(key, &value)).expect("edits");
}

/// Sets a key in a later millisecond than all that was set before.
fn set_later(document: &Document, key: &'static str, json: &str) {
    let written = Timestamp::now().as_millisecond();
    while Timestamp::now().as_millisecond() == written {
        std::hint::spin_loop();
    }
    set(document, key, json);
}

impl Fleet {
    /// After a first exchange, so that the replicas know the policies.
    fn new(policies: &[(&str, Policy)]) -> Self {
        let node = |id: &str| NodeId::new(id).expect("valid");
        let epoch = || Epoch::draw().expect("a random number");
        let folder = TempDir::new().expect("made");
        let store = Arc::new(Store::open_as(folder.path(), node("hub"), epoch(), Role::Hub).expect("opens"));
        let (hub, at_hub) = (Hub::new(Arc::clone(&store)).expect("starts"), cellar(&store));
        for (prefix, policy) in policies {
            at_hub.set_policy(prefix, Some(policy)).expect("the hub may");
        }
        let stores = ["edge-1", "edge-2"].map(|id| Arc::new(Store::in_memory(node(id), epoch()).expect("opens")));
        let at = [cellar(&stores[0]), cellar(&stores[1])];
        let mut fleet = Self { hub, at_hub, sessions: stores.map(ReplicaSession::new), at, _folder: folder };
        fleet.sync();
        fleet
    }

    /// Exchanges frames until nobody has anything to tell: what the second replica brings reaches the first in another round.
    fn sync(&mut self) {
        for _ in 0..2 {
            for session in &mut self.sessions {
                session.poke();
                while let Some(frame) = session.next_frame().expect("reads") {
                    let now = u64::try_from(Timestamp::now().as_millisecond()).expect("after 1970");
                    let answer = self.hub.answer(&frame, now).expect("answers");
                    session.receive(&answer, now).expect("applies");
                }
            }
        }
    }

    /// The conflicts, which everybody lists alike.
    fn conflicts(&self) -> Vec<Conflict> {
        let conflicts = self.at_hub.conflicts().expect("reads");
        for document in &self.at {
            assert_eq!(document.conflicts().expect("reads"), conflicts);
        }
        conflicts
    }

    /// What everybody shows for a key.
    fn shown(&self, key: &str) -> Option<Value> {
        let shown = self.at_hub.get(key).expect("reads");
        for document in &self.at {
            assert_eq!(document.get(key).expect("reads"), shown);
        }
        shown
    }

    /// One key written by both replicas while apart, the second later.
    fn apart(&mut self, key: &'static str, first: &str, second: &str) {
        set(&self.at[0], key, first);
        set_later(&self.at[1], key, second);
        self.sync();
    }
}

#[test]
fn of_two_writes_while_apart_the_later_shows_and_the_other_is_listed_once_until_it_is_taken() {
    let mut fleet = Fleet::new(&[]);
    fleet.apart("door", "\"open\"", "\"shut\"");
    let conflicts = fleet.conflicts();
    let [conflict] = &conflicts[..] else { panic!("{conflicts:?}") };
    let winner = conflict.winner.as_ref().expect("there is one");
    assert_eq!((conflict.key.as_str(), conflict.why), ("door", Why::Concurrent));
    assert_eq!((conflict.loser.node.as_str(), &conflict.loser.value), ("edge-1", &Some(value("\"open\""))));
    assert_eq!((winner.node.as_str(), &winner.value), ("edge-2", &Some(value("\"shut\""))));
    assert!(conflict.loser.stamp < winner.stamp);
    assert_eq!(fleet.shown("door"), Some(value("\"shut\"")));
    fleet.sync();
    assert_eq!(fleet.conflicts(), conflicts, "it is listed once");

    fleet.at[1].resolve(&conflict.id, Resolution::Take).expect("resolves");
    fleet.sync();
    assert_eq!((fleet.shown("door"), fleet.conflicts()), (Some(value("\"open\"")), Vec::new()));
    for document in &fleet.at {
        let again = document.resolve(&conflict.id, Resolution::Take).expect_err("it is resolved");
        assert_eq!(again.kind(), ErrorKind::NotFound);
        assert!(again.to_string().contains(&conflict.id), "{again}");
    }
}

#[test]
fn a_conflict_is_resolved_by_what_shows_by_another_value_or_by_none() {
    for (resolution, shown) in
        [(Resolution::Keep, Some(value("2"))), (Resolution::Set(Some(value("[3]"))), Some(value("[3]"))), (Resolution::Set(None), None)]
    {
        let mut fleet = Fleet::new(&[]);
        fleet.apart("n", "1", "2");
        let conflicts = fleet.conflicts();
        assert_eq!(conflicts.len(), 1);
        fleet.at[0].resolve(&conflicts[0].id, resolution.clone()).expect("resolves");
        fleet.sync();
        assert_eq!((fleet.shown("n"), fleet.conflicts()), (shown, Vec::new()), "{resolution:?}");
    }
}

#[test]
fn a_deletion_that_lost_can_be_taken() {
    let mut fleet = Fleet::new(&[]);
    set(&fleet.at[0], "n", "0");
    fleet.sync();
    fleet.at[0].edit(Precondition::None, |draft| draft.remove("n")).expect("edits");
    set_later(&fleet.at[1], "n", "1");
    fleet.sync();
    let conflicts = fleet.conflicts();
    let [conflict] = &conflicts[..] else { panic!("{conflicts:?}") };
    assert_eq!((&conflict.loser.value, conflict.loser.omitted_bytes, fleet.shown("n")), (&None, None, Some(value("1"))));
    fleet.at[1].resolve(&conflict.id, Resolution::Take).expect("resolves");
    fleet.sync();
    assert_eq!((fleet.shown("n"), fleet.conflicts()), (None, Vec::new()));
}

#[test]
fn a_value_too_large_to_be_listed_is_not_taken_for_a_deletion() {
    let mut fleet = Fleet::new(&[]);
    let large: &str = &format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX - 2));
    fleet.apart("n", large, "1");
    let conflicts = fleet.conflicts();
    let [conflict] = &conflicts[..] else { panic!("{} conflicts", conflicts.len()) };
    assert_eq!((&conflict.loser.value, conflict.loser.omitted_bytes), (&None, Some(VALUE_BYTES_MAX as u64)));
    let refused = fleet.at[1].resolve(&conflict.id, Resolution::Take).expect_err("nobody has the value");
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    assert!(refused.to_string().contains("write it anew"), "{refused}");
    fleet.sync();
    assert_eq!((fleet.shown("n"), fleet.conflicts()), (Some(value("1")), conflicts));
}

#[test]
fn what_is_written_after_the_other_was_seen_is_no_conflict() {
    let mut fleet = Fleet::new(&[]);
    set(&fleet.at[0], "door", "\"open\"");
    fleet.sync();
    set(&fleet.at[1], "door", "\"shut\"");
    fleet.sync();
    set(&fleet.at[0], "door", "\"ajar\"");
    // Without an exchange in between, it overwrites its own.
    set(&fleet.at[0], "door", "\"open\"");
    fleet.sync();
    assert_eq!((fleet.shown("door"), fleet.conflicts()), (Some(value("\"open\"")), Vec::new()));
}

#[test]
fn counts_of_both_replicas_add_up() {
    let mut fleet = Fleet::new(&[("n/", Policy::Counter)]);
    fleet.apart("n/visits", "5", "7");
    assert_eq!(fleet.shown("n/visits"), Some(value("12")));
    // A plain number is the increment that leads to it.
    set(&fleet.at[0], "n/visits", "13");
    fleet.at[1].edit(Precondition::None, |draft| draft.increment("n/visits", -2)).expect("edits");
    fleet.sync();
    assert_eq!((fleet.shown("n/visits"), fleet.conflicts()), (Some(value("11")), Vec::new()));
}

#[test]
fn a_count_that_came_after_its_deletion_was_forgotten_is_listed_and_can_be_added() {
    let mut fleet = Fleet::new(&[("visits", Policy::Counter)]);
    let count =
        |document: &Document, by| document.edit(Precondition::None, move |draft| draft.increment("visits", by).map(drop)).expect("counts");
    count(&fleet.at[0], 1);
    fleet.sync();
    fleet.at_hub.edit(Precondition::None, |draft| draft.remove("visits")).expect("removes");
    count(&fleet.at[0], 4);
    let in_31_days = Timestamp::now().as_millisecond().unsigned_abs() + 31 * 86_400_000;
    fleet.hub.collect(in_31_days).expect("collects");
    count(&fleet.at[1], 2);
    fleet.sync();
    assert_eq!(fleet.shown("visits"), Some(value("2")));
    let [conflict] = <[Conflict; 1]>::try_from(fleet.conflicts()).expect("one");
    assert_eq!((conflict.why, &conflict.loser.value), (Why::BelowFloor, &Some(value("5"))));
    fleet.at[1].resolve(&conflict.id, Resolution::Take).expect("resolves");
    fleet.sync();
    assert_eq!((fleet.shown("visits"), fleet.conflicts()), (Some(value("7")), Vec::new()));
}

#[test]
fn a_set_keeps_what_was_added_while_another_removed() {
    let mut fleet = Fleet::new(&[("tags", Policy::Set)]);
    set(&fleet.at[0], "tags", r#"["cold", "dark"]"#);
    fleet.sync();
    fleet.apart("tags", r#"["cold"]"#, r#"["cold", "dark", "wet"]"#);
    assert_eq!(fleet.shown("tags"), Some(value(r#"["cold", "wet"]"#)));
    // Added again, in its place of before, while another removed it: the removal has not seen this addition.
    set(&fleet.at[0], "tags", "[]");
    set(&fleet.at[1], "tags", r#"["cold"]"#);
    set(&fleet.at[1], "tags", r#"["cold", "wet"]"#);
    fleet.sync();
    assert_eq!((fleet.shown("tags"), fleet.conflicts()), (Some(value(r#"["wet"]"#)), Vec::new()));
}

#[test]
fn values_that_are_both_kept_stand_side_by_side_until_one_is_chosen() {
    for (resolution, shown) in [(Resolution::Keep, "2"), (Resolution::Take, "1"), (Resolution::Set(Some(value("3"))), "3")] {
        let mut fleet = Fleet::new(&[("", Policy::KeepBoth)]);
        fleet.apart("n", "1", "2");
        let conflicts = fleet.conflicts();
        let [conflict] = &conflicts[..] else { panic!("{conflicts:?}") };
        assert_eq!((conflict.why, &conflict.loser.value), (Why::Siblings, &Some(value("1"))));
        assert_eq!(conflict.winner.as_ref().expect("it shows").value, fleet.shown("n"));
        fleet.at[0].resolve(&conflict.id, resolution.clone()).expect("resolves");
        fleet.sync();
        assert_eq!((fleet.shown("n"), fleet.conflicts()), (Some(value(shown)), Vec::new()), "{resolution:?}");
    }
}

#[test]
fn the_policies_of_the_hub_hold_at_its_replicas_which_cannot_change_them() {
    let fleet = Fleet::new(&[("", Policy::HubOwned), ("edges/", Policy::LastWriterWins)]);
    let [edge, _] = &fleet.at;
    assert_eq!(edge.policies().expect("reads"), fleet.at_hub.policies().expect("reads"));
    set(edge, "edges/a", "1");
    let refused = edge.edit(Precondition::None, |draft| draft.set("a", &1_i64.into())).expect_err("is the hub's");
    assert!(refused.kind() == ErrorKind::Forbidden && refused.to_string().contains("by the hub alone"), "{refused}");
    let refused = edge.set_policy("", None).expect_err("is the hub's");
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
    assert_eq!(edge.view().expect("reads").expect("there").data, Object::from_iter([("edges/a", 1_i64)]));
}

#[test]
fn conflicts_come_in_parts_and_those_that_nobody_resolves_are_counted_when_they_go() {
    let mut fleet = Fleet::new(&[]);
    for key in ["c", "a", "b"] {
        fleet.apart(key, "1", "2");
    }
    let part = |document: &Document, id: &str, limit| document.conflicts_after(id, limit).expect("reads");
    let keys = |page: &ConflictsPage| page.conflicts.iter().map(|conflict| conflict.key.clone()).collect::<Vec<_>>();
    let first = part(&fleet.at[0], "", 2);
    assert_eq!((keys(&first), first.forgotten), (vec!["c".to_owned(), "a".to_owned()], 0), "in the order in which they were written");
    let next = first.next.expect("there is one more");
    let last = part(&fleet.at[0], &next, 2);
    assert_eq!((keys(&last), &last.next), (vec!["b".to_owned()], &None));

    let now = u64::try_from(Timestamp::now().as_millisecond()).expect("after 1970");
    let day = 24 * 3600 * 1000;
    fleet.hub.collect(now + 29 * day).expect("collects");
    fleet.sync();
    assert_eq!(fleet.conflicts().len(), 3);
    fleet.hub.collect(now + 31 * day).expect("collects");
    fleet.sync();
    assert_eq!(fleet.conflicts(), []);
    assert_eq!(fleet.at.each_ref().map(|document| part(document, "", 2).forgotten), [3, 3]);
}

#[test]
fn past_the_bound_the_conflicts_whose_losers_are_oldest_go_and_are_counted() {
    let mut fleet = Fleet::new(&[]);
    fleet.apart("oldest", "1", "2");
    for (document, json) in fleet.at.iter().zip(["1", "2"]) {
        let value = value(json);
        document
            .edit(Precondition::None, move |draft| (0..=CONFLICTS_MAX).try_for_each(|n| draft.set(&n.to_string(), &value)))
            .expect("edits");
    }
    fleet.sync();
    let page = fleet.at[1].conflicts_after("", usize::MAX).expect("reads");
    assert_eq!((page.conflicts.len(), page.forgotten), (CONFLICTS_MAX, 2));
    assert!(page.conflicts.iter().all(|conflict| conflict.key != "oldest"));
}

#[test]
fn a_hub_takes_documents_of_the_fleet_from_no_node_not_even_where_they_compare_all_they_have() {
    let node = |id: &str| NodeId::new(id).expect("valid");
    let open = |id: &str, role| Arc::new(Store::in_memory_as(node(id), Epoch::draw().expect("random"), role).expect("opens"));
    let keys =
        |store: &Arc<Store>| Documents::new(Arc::clone(store)).document(DocumentName::new("edgeward.fleet.trusted-keys").expect("valid"));
    let exchange = |store: &Arc<Store>, hub: &Hub| {
        let mut session = ReplicaSession::new(Arc::clone(store));
        for _ in 0..3 {
            session.poke();
            while let Some(frame) = session.next_frame().expect("reads") {
                let now = u64::try_from(Timestamp::now().as_millisecond()).expect("after 1970");
                session.receive(&hub.answer(&frame, now).expect("answers"), now).expect("applies");
            }
        }
    };
    let [first, second, edge] = [("hub", Role::Hub), ("hub", Role::Hub), ("edge-1", Role::Replica)].map(|(id, role)| open(id, role));
    set(&keys(&first), "good", "1");
    exchange(&edge, &Hub::new(Arc::clone(&first)).expect("starts"));
    assert_eq!(keys(&edge).get("good").expect("reads"), Some(value("1")));
    let refused = keys(&edge).edit(Precondition::None, |draft| draft.set("evil", &1_i64.into())).expect_err("is the hub's");
    assert_eq!(refused.kind(), ErrorKind::Forbidden);

    // As after a hub was set back: whatever the node has it gives, and says itself who wrote it.
    set(&cellar(&edge), "door", "\"open\"");
    exchange(&edge, &Hub::new(Arc::clone(&second)).expect("starts"));
    assert_eq!(cellar(&second).get("door").expect("reads"), Some(value("\"open\"")));
    assert_eq!(keys(&second).get("good").expect("reads"), None, "a node said whom the fleet trusts");

    // A node that never had a hub writes what it likes at home.
    let rogue = open("edge-2", Role::Replica);
    set(&keys(&rogue), "evil", "1");
    exchange(&rogue, &Hub::new(Arc::clone(&second)).expect("starts"));
    assert_eq!(keys(&second).get("evil").expect("reads"), None);
}
