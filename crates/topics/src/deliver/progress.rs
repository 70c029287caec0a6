//! Up to where everything is done, when messages are done in any order.

use std::collections::BTreeMap;

/// The positions that were begun and lie above the first that is not done.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    begun: BTreeMap<u64, bool>,
}

impl Progress {
    pub(crate) fn begin(&mut self, position: u64) {
        self.begun.insert(position, false);
    }

    pub(crate) fn finish(&mut self, position: u64) {
        if let Some(is_done) = self.begun.get_mut(&position) {
            *is_done = true;
        }
        while self.begun.first_key_value().is_some_and(|(_, is_done)| *is_done) {
            self.begun.pop_first();
        }
    }

    /// One below the first that is not done; none when all are.
    pub(crate) fn floor(&self) -> Option<u64> {
        self.begun.first_key_value().map(|(position, _)| position - 1)
    }

    pub(crate) fn len(&self) -> usize {
        self.begun.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_moves_when_everything_below_is_done() {
        let mut progress = Progress::default();
        for position in [3, 5, 9] {
            progress.begin(position);
        }
        progress.finish(5);
        assert_eq!((progress.floor(), progress.len()), (Some(2), 3));
        progress.finish(3);
        assert_eq!((progress.floor(), progress.len()), (Some(8), 1));
        progress.finish(3);
        progress.finish(9);
        assert_eq!((progress.floor(), progress.len()), (None, 0));
    }
}
