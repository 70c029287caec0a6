//! The record beside the protocol: what was written, and what each writer had seen.

/// Sets of writes, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(Vec<u64>);

impl Seen {
    pub(super) fn has(&self, id: usize) -> bool {
        self.0.get(id / 64).is_some_and(|word| word & (1 << (id % 64)) != 0)
    }

    pub(super) fn add(&mut self, id: usize) {
        if self.0.len() <= id / 64 {
            self.0.resize(id / 64 + 1, 0);
        }
        self.0[id / 64] |= 1 << (id % 64);
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }
}

/// What a write did.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    /// A value, or none to delete.
    Value(Option<String>),
    Add(i64),
    Element {
        element: String,
        is_there: bool,
    },
}

/// A write that was acknowledged to its caller.
#[expect(clippy::struct_excessive_bools, reason = "each is another thing that became of it")]
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) key: String,
    pub(super) act: Act,
    /// The writes that its writer had seen.
    pub(super) past: Seen,
    /// Whether it may be gone: its only copy was on a disk that was set back.
    pub(super) is_exempt: bool,
    /// Whether a hub has acknowledged it.
    pub(super) is_taken: bool,
    /// Whether it was made at the hub.
    pub(super) at_hub: bool,
    /// Whether it was on its way when its store was copied: then both copies send it.
    pub(super) is_shared: bool,
    /// Whether a hub had it and was set back: what followed it may come to the hub before it.
    pub(super) was_set_back: bool,
    /// Whether it was made within a pull of several answers, and claims to have seen less than it was told.
    pub(super) is_within_pull: bool,
    /// Whether the hub made it to decide between two others.
    pub(super) is_decision: bool,
}
