//! Which of the nodes that are equally near takes a call.

use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

use edgeward_model::Balance;

use super::{random::Random, route::Entry};
use crate::planted::{self, Bug};

/// So many nodes are drawn before all are looked at.
const DRAWS: usize = 8;
/// So often the next one is looked for while others take it.
const TURNS: usize = 4;

/// Nodes that are equally near and well, in the order of their sites.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) health: u8,
    pub(super) range: Range<usize>,
}

impl Class {
    /// Those of them that stand at a site.
    pub(super) fn at_site(&self, site: &str, entries: &[Entry]) -> Range<usize> {
        let within = &entries[self.range.clone()];
        let of = |entry: &Entry| entry.candidate.site.as_deref().cmp(&Some(site));
        let start = self.range.start + within.partition_point(|entry| of(entry).is_lt());
        let end = self.range.start + within.partition_point(|entry| of(entry).is_le());
        start..end
    }
}

/// What a choice is made by.
pub(super) struct Choice<'a, F> {
    pub(super) entries: &'a [Entry],
    /// Those of which one is chosen, which are not none.
    pub(super) range: Range<usize>,
    /// For the weighted policy: the sums of the weights up to each node, from the first of all on.
    pub(super) sums: &'a [u64],
    /// Whether a node may take the call.
    pub(super) fits: F,
    /// Which node is next, over all classes.
    pub(super) cursor: &'a AtomicUsize,
    pub(super) now: u64,
}

impl<F: Fn(usize) -> bool> Choice<'_, F> {
    /// A node that fits, by the policy; none when none does.
    pub(super) fn make(&self, balance: Balance, random: &mut Random) -> Option<usize> {
        match balance {
            Balance::PowerOfTwo => self.better_of_two(random),
            Balance::RoundRobin => self.next(),
            Balance::Random => self.any(random, |_| true),
            Balance::Weighted => self.weighted(random),
            Balance::LeastConnections => self.least(random),
        }
    }

    fn better_of_two(&self, random: &mut Random) -> Option<usize> {
        let one = self.any(random, |_| true)?;
        if self.range.len() == 1 || planted::has(Bug::LoadIgnored) {
            return Some(one);
        }
        let Some(other) = self.any(random, |index| index != one) else { return Some(one) };
        let cost = |index: usize| self.entries[index].link.cost(self.now);
        Some(if cost(other) < cost(one) { other } else { one })
    }

    /// Each that fits as likely as any other: a few draws, and then of all.
    fn any(&self, random: &mut Random, may: impl Fn(usize) -> bool) -> Option<usize> {
        let Range { start, end } = self.range.clone();
        if end - start > 1 {
            for _ in 0..DRAWS {
                let index = start + random.index(end - start);
                if may(index) && (self.fits)(index) {
                    return Some(index);
                }
            }
        }
        self.least_by(random, may, |_| 0)
    }

    fn next(&self) -> Option<usize> {
        let Range { start, end } = self.range.clone();
        let mut found = None;
        for _ in 0..TURNS {
            let cursor = self.cursor.load(Ordering::Relaxed);
            let first = if (start..end).contains(&cursor) { cursor } else { start };
            let next = (first..end).chain(start..first).find(|index| (self.fits)(*index))?;
            found = Some(next);
            let after = if planted::has(Bug::TurnNotPassed) { next } else { next + 1 };
            if self.cursor.compare_exchange(cursor, after, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                break;
            }
        }
        found
    }

    fn weighted(&self, random: &mut Random) -> Option<usize> {
        let Range { start, end } = self.range.clone();
        if planted::has(Bug::WeightIgnored) {
            return self.any(random, |_| true);
        }
        let before = start.checked_sub(1).map_or(0, |last| self.sums[last]);
        let total = self.sums[..end].last()? - before;
        for _ in 0..DRAWS {
            let drawn = before + random.below(total);
            let index = self.sums.partition_point(|sum| *sum <= drawn);
            if index < end && (self.fits)(index) {
                return Some(index);
            }
        }
        // Of those that fit, each by its weight: it takes the place of the one before so often as it is a part of the sum so far.
        let (mut found, mut sum) = (None, 0);
        for index in (start..end).filter(|index| (self.fits)(*index)) {
            let weight = u64::from(self.entries[index].candidate.weight);
            sum += weight;
            if random.below(sum) < weight {
                found = Some(index);
            }
        }
        found
    }

    fn least(&self, random: &mut Random) -> Option<usize> {
        self.least_by(random, |_| true, |index| self.entries[index].link.in_flight())
    }

    /// The least that fits; of those that are equal, each as likely as any other.
    fn least_by(&self, random: &mut Random, may: impl Fn(usize) -> bool, key: impl Fn(usize) -> u32) -> Option<usize> {
        let (mut found, mut equal) = (None, 0);
        for index in self.range.clone().filter(|index| may(*index) && (self.fits)(*index)) {
            let key = key(index);
            match found {
                Some((least, _)) if least < key => continue,
                Some((least, _)) if least == key => equal += 1,
                _ => equal = 1,
            }
            if random.below(equal) == 0 {
                found = Some((key, index));
            }
        }
        found.map(|(_, index)| index)
    }
}
