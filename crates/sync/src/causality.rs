//! Who has seen what: dots name writes, a base says which rows a writer had seen.
//!
//! A row that a write covers was seen by its writer: the write is sequential to it, and no conflict.

use edgeward_model::{EdgeError, ErrorKind, NodeId};
use serde::{Deserialize, Serialize};

/// Hub epochs that a base names at most; older ones are forgotten.
pub const BASE_EPOCHS_MAX: usize = 4;

/// A random number drawn at each opening of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// A fresh one, from the operating system's randomness.
    pub fn draw() -> Result<Self, EdgeError> {
        #[cfg(test)]
        if let Some(drawn) = told::next() {
            return Ok(Self(drawn));
        }
        getrandom::u64().map(Self).map_err(|error| {
            EdgeError::new(ErrorKind::Internal, "failed to draw an epoch from the operating system's randomness").with_source(error)
        })
    }
}

/// Epochs that a simulation draws, so that its seed gives them too.
#[cfg(test)]
pub(crate) mod told {
    use std::cell::Cell;

    thread_local! {
        static NEXT: Cell<Option<u64>> = const { Cell::new(None) };
    }

    pub(crate) fn begin(seed: u64) {
        NEXT.set(Some(seed));
    }

    pub(super) fn next() -> Option<u64> {
        let next = NEXT.get()?.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        NEXT.set(Some(next));
        Some(next)
    }
}

/// Place of a row among all rows that a hub took, from 1.
pub type Position = u64;

/// Names one write: no two have the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who wrote.
    pub node: NodeId,
    /// The opening of its store in which it wrote.
    pub epoch: Epoch,
    /// The write in this epoch, from 1.
    pub counter: u64,
}

/// Up to which position a writer had applied its hub's rows, newest epoch first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Base(Vec<(Epoch, Position)>);

impl Base {
    /// The base of a writer that had seen nothing of a hub.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that rows of this hub epoch are applied up to here. An epoch that was not known is the newest.
    pub fn advance(&mut self, epoch: Epoch, applied: Position) {
        if let Some((_, position)) = self.0.iter_mut().find(|(known, _)| *known == epoch) {
            *position = applied.max(*position);
        } else {
            self.0.insert(0, (epoch, applied));
            self.0.truncate(BASE_EPOCHS_MAX);
        }
    }

    /// Counts the newest epoch up to a position only.
    pub fn limit(&mut self, most: Position) {
        if let Some((_, position)) = self.0.first_mut() {
            *position = most.min(*position);
        }
    }

    /// Forgets all but one epoch.
    pub fn keep_only(&mut self, epoch: Epoch) {
        self.0.retain(|(known, _)| *known == epoch);
    }

    /// The epochs and positions, newest epoch first.
    pub fn entries(&self) -> &[(Epoch, Position)] {
        &self.0
    }

    /// Up to where the writer had applied rows that this hub still has.
    pub fn position_in(&self, lineage: &Lineage) -> Position {
        self.0.iter().filter_map(|&(epoch, position)| lineage.reach(epoch, Position::MAX).map(|end| position.min(end))).max().unwrap_or(0)
    }

    /// Whether the writer had applied a row with one of these positions.
    fn reaches(&self, positions: &[(Epoch, Position)], lineage: &Lineage) -> bool {
        self.0.iter().any(|&(seen_in, seen)| {
            positions.iter().any(|&(placed_in, place)| {
                if seen_in == placed_in {
                    place <= seen
                } else {
                    // Positions go on from one hub epoch to the next, up to where the earlier one ended.
                    lineage.shared_end(seen_in, placed_in).is_some_and(|end| place <= seen.min(end))
                }
            })
        })
    }
}

/// The epochs of a hub, oldest first, each with the position at which it ended; the last goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage(Vec<(Epoch, Option<Position>)>);

impl Lineage {
    /// Ends the epoch that went on at `end`, and begins another.
    pub fn begin(&mut self, epoch: Epoch, end: Position) {
        self.end_at(end);
        self.0.push((epoch, None));
    }

    /// Ends the epoch that goes on, and those before it no later.
    fn end_at(&mut self, end: Position) {
        for (_, ended) in &mut self.0 {
            *ended = Some(ended.map_or(end, |ended| ended.min(end)));
        }
    }

    /// Whether this is one of the epochs.
    pub(crate) fn includes(&self, epoch: Epoch) -> bool {
        self.0.iter().any(|(known, _)| *known == epoch)
    }

    /// The epoch that goes on.
    pub fn current(&self) -> Option<Epoch> {
        self.0.last().map(|(epoch, _)| *epoch)
    }

    /// Where an epoch ended: `None` when it is not known or goes on.
    pub fn end(&self, epoch: Epoch) -> Option<Position> {
        self.0.iter().find(|(known, _)| *known == epoch).and_then(|(_, end)| *end)
    }

    /// The position up to which the rows of an epoch are still this hub's, whose feed ends at `feed`; none when it never had it.
    pub fn reach(&self, epoch: Epoch, feed: Position) -> Option<Position> {
        let index = self.0.iter().position(|(known, _)| *known == epoch)?;
        self.0[index..].iter().map(|(_, end)| end.unwrap_or(feed)).min()
    }

    /// The epoch in which a position was given.
    pub fn epoch_at(&self, position: Position) -> Option<Epoch> {
        self.0.iter().find(|(_, end)| end.is_none_or(|end| position <= end)).map(|(epoch, _)| *epoch)
    }

    /// The last position that two epochs have in common: where the earlier one ended.
    fn shared_end(&self, left: Epoch, right: Epoch) -> Option<Position> {
        let index = |epoch| self.0.iter().position(|(known, _)| *known == epoch);
        let (left, right) = (index(left)?, index(right)?);
        // A hub that was set back may have ended a later epoch before an earlier one: the least of them counts.
        self.0[left.min(right)..left.max(right)].iter().map(|(_, end)| end.unwrap_or(0)).min()
    }
}

/// The earlier epochs of a writer, each with the last counter that it knew there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestors(Vec<(Epoch, u64)>);

impl Ancestors {
    /// Adds an epoch in which the store had come to this counter.
    pub fn add(&mut self, epoch: Epoch, counter: u64) {
        self.0.push((epoch, counter));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn includes(&self, epoch: Epoch, counter: u64) -> bool {
        self.0.iter().any(|&(known, last)| known == epoch && counter <= last)
    }
}

/// What a write says of what its writer had seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The write's name.
    pub dot: Dot,
    /// Which rows of its hub the writer had applied.
    pub base: Base,
    /// The row that it replaced.
    pub overwrote: Option<Dot>,
}

impl Origin {
    /// Whether the writer had seen the row of `other`, which its hub gave these positions.
    pub fn covers(&self, other: &Dot, positions: &[(Epoch, Position)], ancestors: &Ancestors, lineage: &Lineage) -> bool {
        let own = self.dot.node == other.node
            && ((self.dot.epoch == other.epoch && other.counter < self.dot.counter) || ancestors.includes(other.epoch, other.counter));
        own || self.overwrote.as_ref() == Some(other) || self.base.reaches(positions, lineage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: Epoch = Epoch(100);
    const NEXT: Epoch = Epoch(200);

    fn dot(node: &str, epoch: u64, counter: u64) -> Dot {
        Dot { node: NodeId::new(node).expect("valid"), epoch: Epoch(epoch), counter }
    }

    fn write(dot: Dot, base: &[(Epoch, Position)], overwrote: Option<Dot>) -> Origin {
        let mut seen = Base::new();
        base.iter().rev().for_each(|&(epoch, position)| seen.advance(epoch, position));
        Origin { dot, base: seen, overwrote }
    }

    #[test]
    fn a_write_covers_what_its_writer_wrote_before_and_not_what_comes_after() {
        let mut ancestors = Ancestors::default();
        ancestors.add(Epoch(1), 5);
        let write = write(dot("a", 2, 7), &[], None);
        let covers = |other| write.covers(&other, &[], &ancestors, &Lineage::default());
        assert!(covers(dot("a", 2, 6)) && covers(dot("a", 1, 5)));
        assert!(!covers(dot("a", 2, 7)) && !covers(dot("a", 2, 8)) && !covers(dot("a", 1, 6)));
        assert!(!covers(dot("b", 2, 1)) && !covers(dot("b", 1, 1)));
    }

    #[test]
    fn a_write_covers_the_row_that_it_replaced_and_those_up_to_its_base() {
        let write = write(dot("a", 1, 1), &[(HUB, 10)], Some(dot("b", 9, 3)));
        let covers = |other, positions: &[_]| write.covers(&other, positions, &Ancestors::default(), &Lineage::default());
        assert!(covers(dot("b", 9, 3), &[]));
        assert!(covers(dot("c", 9, 1), &[(HUB, 10)]) && !covers(dot("c", 9, 1), &[(HUB, 11)]));
        assert!(!covers(dot("c", 9, 1), &[]) && !covers(dot("c", 9, 1), &[(NEXT, 1)]));
    }

    #[test]
    fn a_base_of_an_epoch_that_ended_counts_up_to_its_end() {
        let mut lineage = Lineage::default();
        lineage.begin(HUB, 0);
        lineage.begin(NEXT, 8);
        let write = write(dot("a", 1, 1), &[(HUB, 10)], None);
        let covers = |place| write.covers(&dot("b", 1, 1), &[(NEXT, place)], &Ancestors::default(), &lineage);
        assert!(covers(8), "both epochs have it");
        assert!(!covers(9), "the new epoch gave this place to another row");
        let later = Origin { base: Base(vec![(NEXT, 9)]), ..write };
        let covers = |place| later.covers(&dot("b", 1, 1), &[(HUB, place)], &Ancestors::default(), &lineage);
        assert!(covers(8) && !covers(9), "the rows past the end were lost with the old epoch");
    }

    #[test]
    fn a_base_keeps_the_newest_epochs() {
        let mut base = Base::new();
        (1..=6).for_each(|n| base.advance(Epoch(n), n));
        base.advance(Epoch(6), 3);
        assert_eq!(base.entries(), [(Epoch(6), 6), (Epoch(5), 5), (Epoch(4), 4), (Epoch(3), 3)]);
    }
}
