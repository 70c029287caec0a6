//! How a row lies in the store: its slot and its state as bytes, its value as text.

use std::{borrow::Cow, sync::Arc};

use edgeward_model::NodeId;
use serde::{Deserialize, Serialize};

use crate::{
    causality::{Epoch, Origin, Position},
    clock::Stamp,
    row::{Addition, Body, Membership, Register, Row, Slot, Subtotal},
};

/// Version of the encoding of a state.
const STATE_VERSION: u8 = 1;

const COUNTER: u8 = 1;
const MEMBER: u8 = 2;
const WHOLE: u8 = 3;
const FLOOR: u8 = 4;

/// What is encoded of a row beside its value.
#[derive(Serialize, Deserialize)]
struct State<'a> {
    stamp: Stamp,
    origin: Cow<'a, Origin>,
    version: u64,
    term: u64,
    positions: Cow<'a, [(Epoch, Position)]>,
    body: StateBody,
}

#[derive(Serialize, Deserialize)]
enum StateBody {
    Register { raw: Option<Arc<[u8]>>, root: Option<(Stamp, NodeId)>, instance: Option<Stamp> },
    Counter(Subtotal),
    Member { added: Option<(u64, Stamp)>, removed: u64 },
    Floor(Position),
}

/// The bytes of a slot. They order as slots do: the register of a key first. A node's id has no zero byte.
pub(crate) fn slot_bytes(slot: &Slot) -> Vec<u8> {
    let part = |kind: u8, node: &NodeId, epoch: &Epoch, element: &str| {
        let mut bytes = Vec::with_capacity(10 + node.as_str().len() + element.len());
        bytes.push(kind);
        bytes.extend_from_slice(&epoch.0.to_be_bytes());
        bytes.extend_from_slice(node.as_str().as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(element.as_bytes());
        bytes
    };
    match slot {
        Slot::Register => Vec::new(),
        Slot::Counter(node, epoch) => part(COUNTER, node, epoch, ""),
        Slot::Member(element, node, epoch) => part(MEMBER, node, epoch, element),
        Slot::Whole => vec![WHOLE],
        Slot::Floor => vec![FLOOR],
    }
}

/// The slot of these bytes; none when they are damaged.
pub(crate) fn slot_of(bytes: &[u8]) -> Option<Slot> {
    let Some((kind, rest)) = bytes.split_first() else { return Some(Slot::Register) };
    if rest.is_empty() {
        return match *kind {
            WHOLE => Some(Slot::Whole),
            FLOOR => Some(Slot::Floor),
            _ => None,
        };
    }
    let (epoch, rest) = rest.split_first_chunk()?;
    let epoch = Epoch(u64::from_be_bytes(*epoch));
    let end = rest.iter().position(|byte| *byte == 0)?;
    let node = NodeId::new(str::from_utf8(&rest[..end]).ok()?).ok()?;
    let element = str::from_utf8(&rest[end + 1..]).ok()?;
    match *kind {
        COUNTER if element.is_empty() => Some(Slot::Counter(node, epoch)),
        MEMBER => Some(Slot::Member(Arc::from(element), node, epoch)),
        _ => None,
    }
}

/// A row as it is stored: the text that its slot shows, and its state.
pub(crate) fn encode(row: &Row) -> (Option<Arc<str>>, Vec<u8>) {
    let (value, body) = match &row.body {
        Body::Register(Register { value, raw, root, instance }) => {
            (value.clone(), StateBody::Register { raw: raw.clone(), root: root.clone(), instance: *instance })
        }
        Body::Counter(subtotal) => (Some(Arc::from(subtotal.sum.to_string())), StateBody::Counter(subtotal.clone())),
        Body::Member(membership) => {
            let added = membership.added.as_ref().map(|added| (added.counter, added.stamp));
            (membership.live().map(|added| Arc::clone(&added.value)), StateBody::Member { added, removed: membership.removed })
        }
        Body::Floor(position) => (None, StateBody::Floor(*position)),
    };
    let state = State {
        stamp: row.stamp,
        origin: Cow::Borrowed(&row.origin),
        version: row.version,
        term: row.term,
        positions: Cow::Borrowed(&row.positions),
        body,
    };
    (value, postcard::to_extend(&state, vec![STATE_VERSION]).expect("a state has only numbers, texts and lists"))
}

/// The row of a value and a state; none when they are damaged.
pub(crate) fn decode(value: Option<Arc<str>>, state: &[u8]) -> Option<Row> {
    let (STATE_VERSION, bytes) = state.split_first().map(|(version, bytes)| (*version, bytes))? else { return None };
    let (State { stamp, origin, version, term, positions, body }, rest) = postcard::take_from_bytes(bytes).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let body = match body {
        StateBody::Register { raw, root, instance } => Body::Register(Register { value, raw, root, instance }),
        StateBody::Counter(subtotal) => Body::Counter(subtotal),
        StateBody::Member { added, removed } => {
            let value = value.unwrap_or_else(|| Arc::from(""));
            Body::Member(Membership { added: added.map(|(counter, stamp)| Addition { counter, stamp, value }), removed })
        }
        StateBody::Floor(position) => Body::Floor(position),
    };
    Some(Row { origin: origin.into_owned(), stamp, version, term, body, positions: positions.into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causality::{Base, Dot};

    #[test]
    fn slots_and_rows_come_back_as_they_were() {
        let node = NodeId::new("edge-01").expect("valid");
        let epoch = Epoch(u64::MAX - 3);
        let slots = [
            Slot::Register,
            Slot::Counter(node.clone(), epoch),
            Slot::Member(Arc::from("\"a\""), node.clone(), epoch),
            Slot::Member(Arc::from(""), node.clone(), epoch),
            Slot::Whole,
            Slot::Floor,
        ];
        for slot in &slots {
            assert_eq!(slot_of(&slot_bytes(slot)).as_ref(), Some(slot));
        }
        assert!([&[9][..], &[1, 2], &[3, 0], &[1, 0, 0, 0, 0, 0, 0, 0, 0, b'a', 0, b'x']].iter().all(|bytes| slot_of(bytes).is_none()));
        let stamp = Stamp::from_millis(5);
        let mut base = Base::new();
        base.advance(epoch, 7);
        let origin = Origin { dot: Dot { node: node.clone(), epoch, counter: 3 }, base, overwrote: None };
        let added = |counter| Some(Addition { counter, stamp, value: Arc::from("1") });
        let bodies = [
            Body::Register(Register {
                value: Some(Arc::from("1")),
                raw: Some(Arc::from(&b" 1"[..])),
                root: Some((stamp, node)),
                instance: None,
            }),
            Body::Register(Register::default()),
            Body::Counter(Subtotal { instance: Some(stamp), sum: -4, acknowledged: 1 }),
            Body::Member(Membership { added: added(2), removed: 1 }),
            Body::Member(Membership { added: added(1), removed: 1 }.without_removed_value()),
            Body::Floor(9),
        ];
        for body in bodies {
            let row = Row { origin: origin.clone(), stamp, version: 4, term: 1, body, positions: vec![(epoch, 8)] };
            let (value, state) = encode(&row);
            assert_eq!(decode(value.clone(), &state).as_ref(), Some(&row));
            assert!(decode(value.clone(), &state[..state.len() - 1]).is_none());
            assert!(decode(value, &[&state[..], &[0]].concat()).is_none());
        }
    }
}
