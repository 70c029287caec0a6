//! What a key shows: one value out of the rows of its slots.

use std::sync::Arc;

use edgeward_model::{EdgeError, Value};

use crate::{
    clock::Stamp,
    row::{Addition, Body, Row, Slot, Subtotal},
};

/// Which kind of row a key shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Register,
    Counter,
    /// Elements of a set.
    Set,
    /// Values that nobody overwrote.
    Siblings,
}

/// What a key shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// As canonical JSON.
    pub(crate) value: Arc<str>,
    pub(crate) kind: Kind,
}

/// A value on its way into a key.
#[derive(Clone, Debug)]
pub(crate) struct NewValue {
    /// As canonical JSON.
    pub(crate) text: Arc<str>,
    /// The bytes that were written, where they are not that text.
    pub(crate) raw: Option<Arc<[u8]>>,
}

/// A row with its place in the local feed: in the outbox at a replica, its position at a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) row: Row,
    pub(crate) seq: Option<u64>,
}

/// All rows of one key, in the order of their slots.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyRows(pub(crate) Vec<(Slot, Stored)>);

impl KeyRows {
    pub(crate) fn get(&self, slot: &Slot) -> Option<&Stored> {
        self.0.iter().find(|(known, _)| known == slot).map(|(_, stored)| stored)
    }

    pub(crate) fn put(&mut self, slot: &Slot, stored: Stored) {
        match self.0.iter_mut().find(|(known, _)| known == slot) {
            Some((_, place)) => *place = stored,
            None => self.0.push((slot.clone(), stored)),
        }
    }

    pub(crate) fn remove(&mut self, slot: &Slot) {
        self.0.retain(|(known, _)| known != slot);
    }

    pub(crate) fn register(&self) -> Option<&Stored> {
        self.get(&Slot::Register)
    }

    /// The stamp of the tombstone after which counts count.
    pub(crate) fn tombstone(&self) -> Option<Stamp> {
        self.register().filter(|stored| stored.row.is_dead()).map(|stored| stored.row.stamp)
    }

    /// The counts of the newest instance.
    pub(crate) fn counts(&self) -> impl Iterator<Item = &Subtotal> {
        let subtotals = || {
            self.0.iter().filter_map(|(_, stored)| match &stored.row.body {
                Body::Counter(subtotal) => Some(subtotal),
                _ => None,
            })
        };
        let newest = subtotals().map(|subtotal| subtotal.instance).max().flatten().max(self.tombstone());
        subtotals().filter(move |subtotal| subtotal.instance == newest)
    }

    /// What stands of additions, with their slots.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&Slot, &Stored, &Addition)> {
        self.0.iter().filter_map(|(slot, stored)| match &stored.row.body {
            Body::Member(membership) => membership.live().map(|added| (slot, stored, added)),
            _ => None,
        })
    }

    /// The values of `keep_both` that nobody overwrote, the one that shows first.
    pub(crate) fn siblings(&self) -> Vec<(&Slot, &Addition)> {
        let mut siblings: Vec<_> = self
            .members()
            .filter(|(slot, ..)| matches!(slot, Slot::Member(element, ..) if element.is_empty()))
            .map(|(slot, _, added)| (slot, added))
            .collect();
        siblings.sort_by(|(left_slot, left), (right_slot, right)| (right.stamp, right_slot).cmp(&(left.stamp, left_slot)));
        siblings
    }

    /// What the key shows: a counter before members, members before a register.
    pub(crate) fn shown(&self) -> Option<Shown> {
        if let [(Slot::Register, stored)] = &self.0[..] {
            return stored.row.value().map(|value| Shown { value: Arc::clone(value), kind: Kind::Register });
        }
        let mut counts = self.counts().peekable();
        if counts.peek().is_some() {
            let sum = counts.fold(0_i64, |sum, subtotal| sum.saturating_add(subtotal.sum));
            return Some(Shown { value: Arc::from(sum.to_string()), kind: Kind::Counter });
        }
        if let Some((_, shown)) = self.siblings().first() {
            return Some(Shown { value: Arc::clone(&shown.value), kind: Kind::Siblings });
        }
        let mut elements: Vec<_> = self.members().map(|(_, _, added)| &*added.value).collect();
        if !elements.is_empty() {
            elements.sort_unstable();
            elements.dedup();
            return Some(Shown { value: Arc::from(format!("[{}]", elements.join(", "))), kind: Kind::Set });
        }
        self.register().and_then(|stored| stored.row.value()).map(|value| Shown { value: Arc::clone(value), kind: Kind::Register })
    }
}

/// The bytes of a value that JSON cannot say are shown as an object of this one member.
const BYTES: &str = "$bytes";

/// What a document shows of bytes, and the bytes themselves where that does not say them exactly.
pub(crate) fn of_bytes(bytes: &[u8]) -> Result<NewValue, EdgeError> {
    use base64::Engine as _;
    let json = str::from_utf8(bytes).ok().and_then(|text| edgeward_model::python_json::read(text).ok());
    // An object that says bytes would be taken for them when it is read.
    if let Some(value) = json.filter(|value| value.is_finite() && bytes_of(value).is_none()) {
        let text = edgeward_model::python_json::write(&value)?;
        let raw = (text.as_bytes() != bytes).then(|| Arc::from(bytes));
        return Ok(NewValue { text: Arc::from(text), raw });
    }
    let text = format!("{{\"{BYTES}\": \"{}\"}}", base64::engine::general_purpose::STANDARD.encode(bytes));
    Ok(NewValue { text: Arc::from(text), raw: None })
}

/// The bytes that a value says, where it is an object of that one member.
pub(crate) fn bytes_of(value: &Value) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let Value::Object(object) = value else { return None };
    match (object.0.len(), object.0.get(BYTES)) {
        (1, Some(Value::String(text))) => base64::engine::general_purpose::STANDARD.decode(text).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_json_where_they_are_json_and_come_back_exactly() {
        for (bytes, shown, is_exact) in [
            (&b"5"[..], "5", true),
            (b"{\"a\":1}", "{\"a\": 1}", false),
            (b" 1", "1", false),
            (b"\xff", "{\"$bytes\": \"/w==\"}", true),
            (b"", "{\"$bytes\": \"\"}", true),
            (b"{\"$bytes\": \"/w==\"}", "{\"$bytes\": \"eyIkYnl0ZXMiOiAiL3c9PSJ9\"}", true),
            (b"NaN", "{\"$bytes\": \"TmFO\"}", true),
            (b"{\"$bytes\": 1}", "{\"$bytes\": 1}", true),
        ] {
            let NewValue { text, raw } = of_bytes(bytes).expect("shown");
            assert_eq!((&*text, raw.is_none()), (shown, is_exact));
            let value = edgeward_model::python_json::read(&text).expect("canonical");
            let back = raw.map(|raw| raw.to_vec()).or_else(|| bytes_of(&value)).unwrap_or_else(|| text.as_bytes().to_vec());
            assert_eq!(back, bytes);
        }
    }
}
