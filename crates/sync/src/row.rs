//! Rows: the state of one slot of a key, and how two states of it join.
//!
//! Every join takes the greater in a total order, or fields one by one, so that any order of arrival, with any
//! repetition, gives the same row.

use std::{cmp::Ordering, sync::Arc};

use edgeward_model::NodeId;
use serde::{Deserialize, Serialize};

use crate::{
    causality::{Dot, Epoch, Origin, Position},
    clock::Stamp,
    magnitude::Magnitude,
    planted::{self, Bug},
    policy::Policy,
};

/// Which row of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// The one value of the key.
    Register,
    /// What one opening of one replica's store counted.
    Counter(NodeId, Epoch),
    /// An element, as canonical JSON, that one opening of one replica's store added. `keep_both` has one element, named by
    /// no text.
    Member(Arc<str>, NodeId, Epoch),
    /// The whole document, at the empty key.
    Whole,
    /// The floor of the document, at the empty key.
    Floor,
}

/// The state of one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The write that made it, and what that writer had seen.
    pub origin: Origin,
    /// When it was written.
    pub stamp: Stamp,
    /// The version of the document that it made.
    pub version: u64,
    /// The term of the hub that last decided about the key.
    pub term: u64,
    /// What it says.
    pub body: Body,
    /// The places that hubs gave it.
    pub positions: Vec<(Epoch, Position)>,
}

/// What a row says. Values are canonical JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// One value, or none after a delete.
    Register(Register),
    /// A part of a counter.
    Counter(Subtotal),
    /// An addition, a removal, or both.
    Member(Membership),
    /// Up to which position the hub has forgotten tombstones.
    Floor(Position),
}

/// The value of a register, and what ranks it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Register {
    /// The value; none is a tombstone.
    pub value: Option<Arc<str>>,
    /// The bytes that were written, where they are not the value's text.
    pub raw: Option<Arc<[u8]>>,
    /// Stamp and node of the first write of its chain of sequential overwrites; none when it is the first.
    pub root: Option<(Stamp, NodeId)>,
    /// The stamp of the tombstone that it follows.
    pub instance: Option<Stamp>,
}

/// What one opening of one replica's store counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subtotal {
    /// The stamp of the tombstone that it follows.
    pub instance: Option<Stamp>,
    /// The sum of its increments.
    pub sum: i64,
    /// How much of the sum the hub has acknowledged.
    pub acknowledged: i64,
}

/// Whether an element is there, as far as one opening of one replica's store put it there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The last addition.
    pub added: Option<Addition>,
    /// The counter up to which additions were removed.
    pub removed: u64,
}

/// One addition of an element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Addition {
    /// Its dot's counter.
    pub counter: u64,
    /// When it was.
    pub stamp: Stamp,
    /// The element; of one that was removed, nothing.
    pub value: Arc<str>,
}

impl Membership {
    /// Whether an addition stands.
    pub fn is_live(&self) -> bool {
        self.added.as_ref().is_some_and(|added| added.counter > self.removed)
    }

    /// The addition that stands.
    pub fn live(&self) -> Option<&Addition> {
        self.added.as_ref().filter(|added| added.counter > self.removed)
    }

    fn join(self, other: Self) -> Self {
        // One counter names one addition, so equal counters differ only where one forgot the value of what was removed.
        let joined = Self { removed: self.removed.max(other.removed), added: self.added.max(other.added) };
        joined.without_removed_value()
    }

    /// What was removed is not told, so that all replicas say the same of it.
    pub(crate) fn without_removed_value(mut self) -> Self {
        let removed = self.removed;
        if let Some(added) = self.added.as_mut().filter(|added| added.counter <= removed) {
            added.value = Arc::from("");
        }
        self
    }
}

impl Row {
    /// Stamp and node of the first write of its chain of sequential overwrites.
    pub(crate) fn root(&self) -> (Stamp, &NodeId) {
        match &self.body {
            Body::Register(Register { root: Some((stamp, node)), .. }) => (*stamp, node),
            _ => (self.stamp, &self.origin.dot.node),
        }
    }

    /// The value of a live register.
    pub(crate) fn value(&self) -> Option<&Arc<str>> {
        match &self.body {
            Body::Register(register) => register.value.as_ref(),
            _ => None,
        }
    }

    /// Whether it says only that something is gone.
    pub(crate) fn is_dead(&self) -> bool {
        match &self.body {
            Body::Register(register) => register.value.is_none(),
            Body::Member(membership) => !membership.is_live(),
            Body::Counter(_) | Body::Floor(_) => false,
        }
    }

    /// Notes a place that a hub gave it.
    pub(crate) fn place(&mut self, epoch: Epoch, position: Position) {
        if !self.positions.contains(&(epoch, position)) {
            self.positions.push((epoch, position));
            let excess = self.positions.len().saturating_sub(POSITIONS_MAX);
            self.positions.drain(..excess);
        }
    }

    /// Joins two states of one slot.
    #[must_use]
    pub fn join(self, other: Self, policy: &Policy) -> Self {
        let same = self.origin.dot == other.origin.dot;
        let (mut joined, more) = match (self.body, other.body) {
            (Body::Member(left), Body::Member(right)) => {
                let body = left.clone().join(right.clone());
                // A place is that of one state: by another one's the hub would take it for what this one became.
                let positions = if body == left { self.positions } else { Vec::new() };
                let more = if body == right { other.positions } else { Vec::new() };
                // The later of the two writes names the joined state.
                let (stamp, origin) = if (self.stamp, &self.origin.dot) < (other.stamp, &other.origin.dot) {
                    (other.stamp, other.origin)
                } else {
                    (self.stamp, self.origin)
                };
                let (version, term) = (self.version.max(other.version), self.term.max(other.term));
                (Self { origin, stamp, version, term, body: Body::Member(body), positions }, more)
            }
            (left, right) => {
                let left = Self { body: left, ..self };
                let right = Self { body: right, ..other };
                let (joined, lost) = if left.rank(&right, policy).is_lt() { (right, left) } else { (left, right) };
                (joined, if same { lost.positions } else { Vec::new() })
            }
        };
        for (epoch, position) in more {
            joined.place(epoch, position);
        }
        joined
    }

    /// The order in which the greater of two states of one register or counter slot stays. Total: only equal writes are equal.
    fn rank(&self, other: &Self, policy: &Policy) -> Ordering {
        match (&self.body, &other.body) {
            (Body::Register(left), Body::Register(right)) => {
                let by_policy = match policy {
                    Policy::FirstWriterWins => other.root().cmp(&self.root()),
                    Policy::Max => left.magnitude(self.stamp).cmp(&right.magnitude(other.stamp)),
                    Policy::Min => {
                        let (left, right) = (left.magnitude(self.stamp), right.magnitude(other.stamp));
                        left.0.cmp(&right.0).then(left.1.is_some().cmp(&right.1.is_some())).then(right.1.cmp(&left.1))
                    }
                    Policy::VersionWins => self.version.cmp(&other.version),
                    Policy::HubWins | Policy::EdgeWins => self.term.cmp(&other.term),
                    // A register that meets another kind of policy was written before that policy was known.
                    Policy::LastWriterWins | Policy::Counter | Policy::Set | Policy::KeepBoth | Policy::HubOwned | Policy::EdgeOwned(_) => {
                        Ordering::Equal
                    }
                };
                let (mine, theirs) = (&self.origin.dot, &other.origin.dot);
                if planted::has(Bug::UnorderedTieBreak) {
                    return by_policy.then_with(|| self.stamp.cmp(&other.stamp));
                }
                by_policy
                    .then_with(|| (self.stamp, &mine.node, &left.value).cmp(&(other.stamp, &theirs.node, &right.value)))
                    .then_with(|| mine.cmp(theirs))
            }
            (Body::Counter(left), Body::Counter(right)) if planted::has(Bug::CounterJoinedByMaximum) => left.sum.cmp(&right.sum),
            (Body::Counter(_), Body::Counter(_)) => self.origin.dot.counter.cmp(&other.origin.dot.counter),
            (Body::Floor(left), Body::Floor(right)) => left.cmp(right).then_with(|| self.origin.dot.cmp(&other.origin.dot)),
            // Slots keep the kinds apart; a peer that mixes them is held to one order as well.
            (left, right) => {
                left.kind().cmp(&right.kind()).then_with(|| (self.stamp, &self.origin.dot).cmp(&(other.stamp, &other.origin.dot)))
            }
        }
    }
}

/// Places of one row that are kept: one for each hub epoch in which it moved.
const POSITIONS_MAX: usize = 4;

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Self::Register(_) => 0,
            Self::Member(_) => 1,
            Self::Counter(_) => 2,
            Self::Floor(_) => 3,
        }
    }
}

impl Register {
    /// Its instance and its value, as `max` and `min` compare them. A tombstone begins the instance of its own stamp, below
    /// every value of it.
    fn magnitude(&self, stamp: Stamp) -> (Option<Stamp>, Option<Magnitude>) {
        match &self.value {
            Some(value) => (self.instance, Some(Magnitude::new(value))),
            None => (Some(stamp), None),
        }
    }
}

/// What two rows of one slot are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// They are the same write.
    Same,
    /// The writer of the first had seen the second.
    Sequential,
    /// The writer of the second had seen the first.
    Stale,
    /// Neither had seen the other.
    Concurrent,
}

impl Relation {
    /// The relation of `write` to `row`, where `covers` says whether the first had seen the second.
    pub fn of(write: &Dot, row: &Dot, covers: impl Fn(&Dot, &Dot) -> bool) -> Self {
        if write == row {
            Self::Same
        } else if covers(write, row) {
            Self::Sequential
        } else if covers(row, write) {
            Self::Stale
        } else {
            Self::Concurrent
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;
    use crate::causality::Base;

    const POLICIES: [Policy; 5] = [Policy::LastWriterWins, Policy::FirstWriterWins, Policy::Max, Policy::Min, Policy::VersionWins];

    fn node(n: u8) -> NodeId {
        NodeId::new(format!("n{n}")).expect("valid")
    }

    fn of(origin: Origin, stamp: Stamp, body: Body) -> Row {
        Row { origin, stamp, version: 0, term: 0, body, positions: Vec::new() }
    }

    fn addition(counter: u64) -> Addition {
        Addition { counter, stamp: Stamp::from_millis(counter), value: Arc::from(counter.to_string()) }
    }

    /// Few of everything, so that rows meet in every way.
    fn origin() -> impl Strategy<Value = (Origin, Stamp)> {
        (0..3_u8, 0..2_u64, 1..4_u64, 0..4_u64).prop_map(|(n, epoch, counter, stamp)| {
            let dot = Dot { node: node(n), epoch: Epoch(epoch), counter };
            (Origin { dot, base: Base::new(), overwrote: None }, Stamp::from_millis(stamp))
        })
    }

    fn text() -> impl Strategy<Value = Arc<str>> {
        select(vec!["1", "2", "10", "-1", "1.0", "\"a\"", "null", "{not json"]).prop_map(Arc::from)
    }

    fn instance() -> impl Strategy<Value = Option<Stamp>> {
        proptest::option::of((0..3_u64).prop_map(Stamp::from_millis))
    }

    fn register() -> impl Strategy<Value = Row> {
        (origin(), proptest::option::of(text()), 0..3_u64, 0..2_u8, instance(), 0..3_u64).prop_map(
            |((origin, stamp), value, root, root_node, instance, version)| {
                let root = (Stamp::from_millis(root), node(root_node));
                Row { version, ..of(origin, stamp, Body::Register(Register { value, raw: None, root: Some(root), instance })) }
            },
        )
    }

    /// One writer's subtotals: a counter names one state.
    fn subtotal() -> impl Strategy<Value = Row> {
        (1..6_u64).prop_map(|counter| {
            let dot = Dot { node: node(0), epoch: Epoch(0), counter };
            let sum = i64::try_from(counter).expect("small") * 7 % 5;
            let origin = Origin { dot, base: Base::new(), overwrote: None };
            of(origin, Stamp::from_millis(counter), Body::Counter(Subtotal { instance: None, sum, acknowledged: 0 }))
        })
    }

    fn member() -> impl Strategy<Value = Row> {
        (origin(), 0..4_u64, 0..4_u64).prop_map(|((origin, stamp), added, removed)| {
            let added = (added > 0).then(|| addition(added));
            of(origin, stamp, Body::Member(Membership { added, removed }.without_removed_value()))
        })
    }

    fn row() -> impl Strategy<Value = (Row, Row, Row)> {
        prop_oneof![
            4 => (register(), register(), register()),
            1 => (subtotal(), subtotal(), subtotal()),
            2 => (member(), member(), member()),
            1 => (register(), member(), register()),
        ]
    }

    /// What a row says, without the base, which a join may take from either of two equal writes.
    fn says(row: &Row) -> (Stamp, Dot, Body) {
        (row.stamp, row.origin.dot.clone(), row.body.clone())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn joins_are_commutative_associative_and_idempotent((a, b, c) in row(), policy in select(&POLICIES[..])) {
            let join = |left: &Row, right: &Row| left.clone().join(right.clone(), &policy);
            // Two different registers with one dot cannot be: a dot names one write.
            let same_write = |left: &Row, right: &Row| left.origin.dot == right.origin.dot && says(left) != says(right);
            prop_assume!(!same_write(&a, &b) && !same_write(&b, &c) && !same_write(&a, &c) || matches!(a.body, Body::Member(_)));
            prop_assert_eq!(says(&join(&a, &b)), says(&join(&b, &a)));
            prop_assert_eq!(says(&join(&join(&a, &b), &c)), says(&join(&a, &join(&b, &c))));
            prop_assert_eq!(says(&join(&a, &a)), says(&a));
        }
    }

    fn written(n: u8, stamp: u64, value: Option<&str>) -> Row {
        let dot = Dot { node: node(n), epoch: Epoch(0), counter: stamp };
        let stamp = Stamp::from_millis(stamp);
        let body = Body::Register(Register { value: value.map(Arc::from), ..Register::default() });
        of(Origin { dot, base: Base::new(), overwrote: None }, stamp, body)
    }

    fn winner(rows: &[Row], policy: &Policy) -> Option<Arc<str>> {
        let joined = rows.iter().cloned().reduce(|left, right| left.join(right, policy)).expect("some");
        match joined.body {
            Body::Register(register) => register.value,
            _ => panic!("a register"),
        }
    }

    #[test]
    fn each_policy_keeps_the_value_that_it_names() {
        let rows = [written(0, 1, Some("5")), written(1, 2, Some("9")), written(2, 3, Some("7"))];
        for (policy, value) in [(Policy::LastWriterWins, "7"), (Policy::FirstWriterWins, "5"), (Policy::Max, "9"), (Policy::Min, "5")] {
            assert_eq!(winner(&rows, &policy).as_deref(), Some(value), "{policy:?}");
        }
    }

    #[test]
    fn a_sequential_overwrite_of_the_first_write_stays_first() {
        let mut later = written(2, 9, Some("3"));
        if let Body::Register(register) = &mut later.body {
            register.root = Some((Stamp::from_millis(1), node(0)));
        }
        let rows = [written(0, 1, Some("1")), written(1, 2, Some("2")), later];
        assert_eq!(winner(&rows, &Policy::FirstWriterWins).as_deref(), Some("3"));
    }

    #[test]
    fn a_delete_ends_the_greatest_value_and_what_follows_it_begins_anew() {
        for policy in [Policy::Max, Policy::Min] {
            let (old, delete, mut new) = (written(0, 1, Some("5")), written(1, 2, None), written(0, 3, Some("4")));
            assert_eq!(winner(&[old.clone(), delete.clone()], &policy), None, "{policy:?}");
            if let Body::Register(register) = &mut new.body {
                register.instance = Some(delete.stamp);
            }
            assert_eq!(winner(&[new, old, delete], &policy).as_deref(), Some("4"), "{policy:?}");
        }
    }

    #[test]
    fn a_removal_is_not_where_the_addition_was() {
        let row = |membership, position| Row {
            body: Body::Member(membership),
            positions: vec![(Epoch(9), position)],
            ..written(0, position, None)
        };
        let added =
            |counter: u64, removed, position| row(Membership { added: Some(addition(counter)), removed }.without_removed_value(), position);
        let places = |left: Row, right: Row| {
            let [one, other] = [left.clone().join(right.clone(), &Policy::Set), right.join(left, &Policy::Set)].map(|row| row.positions);
            assert_eq!(one, other);
            one
        };
        assert_eq!(places(added(2, 0, 3), added(2, 2, 7)), [(Epoch(9), 7)], "the addition was at 3, and is removed since 7");
        assert_eq!(places(added(4, 0, 3), added(2, 2, 7)), [], "no hub has had both");
    }

    #[test]
    fn an_addition_that_a_removal_did_not_see_stays() {
        let membership = |added: u64, removed| Membership { added: Some(addition(added)), removed };
        assert!(membership(2, 1).is_live());
        assert!(!membership(2, 2).is_live());
        let row = |membership| Row { body: Body::Member(membership), ..written(0, 1, None) };
        let seen_and_removed = row(Membership { added: None, removed: 1 });
        let Body::Member(joined) = row(membership(2, 0)).join(seen_and_removed, &Policy::Set).body else { panic!("a member") };
        assert!(joined.is_live());
    }
}
