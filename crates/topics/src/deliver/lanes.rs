//! One lane for each key: of those in a lane, one is handled at a time, in their order.

use std::collections::{HashMap, VecDeque};

/// A lane is there as long as its first one is being handled; the others wait in it.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    waiting: HashMap<String, VecDeque<T>>,
    count: usize,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), count: 0 }
    }
}

impl<T> Lanes<T> {
    /// Takes one in, and returns it when its turn is now.
    pub(super) fn begin(&mut self, key: String, work: T) -> Option<T> {
        self.count += 1;
        if let Some(lane) = self.waiting.get_mut(&key) {
            lane.push_back(work);
            None
        } else {
            self.waiting.insert(key, VecDeque::new());
            Some(work)
        }
    }

    /// The first one of this lane is done; returns the next, whose turn is now.
    pub(super) fn finish(&mut self, key: &str) -> Option<T> {
        self.count -= 1;
        let next = self.waiting.get_mut(key).and_then(VecDeque::pop_front);
        if next.is_none() {
            self.waiting.remove(key);
        }
        next
    }

    /// Those that were taken in and are not done.
    pub(super) fn len(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_one_key_come_one_after_the_other() {
        let mut lanes = Lanes::default();
        assert_eq!(
            [("a", 1), ("b", 2), ("a", 3), ("a", 4)].map(|(key, work)| lanes.begin(key.to_owned(), work)),
            [Some(1), Some(2), None, None]
        );
        assert_eq!((lanes.finish("a"), lanes.finish("b"), lanes.len()), (Some(3), None, 2));
        assert_eq!((lanes.finish("a"), lanes.finish("a"), lanes.len()), (Some(4), None, 0));
        assert!(lanes.waiting.is_empty());
    }
}
