//! Which due times a schedule has lived through, as spans.

use edgeward_model::limits::CLOCK_JUMPS_MAX;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::planted::{self, Bug};

/// Spans of time, both ends included, in order and apart from each other. A clock that runs on makes one of them longer; only jumps add others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Lived(Vec<(Timestamp, Timestamp)>);

impl Lived {
    /// The end of the span that a moment lies in, if it lies in one.
    pub(super) fn end_of(&self, moment: Timestamp) -> Option<Timestamp> {
        let span = self.0.iter().find(|(from, to)| (*from..=*to).contains(&moment));
        span.map(|(_, to)| *to).filter(|_| !planted::has(Bug::LivedTwice))
    }

    /// Adds a span. With too many the gap between the two oldest counts as lived through.
    pub(super) fn add(&mut self, from: Timestamp, to: Timestamp) {
        let (mut from, mut to) = (from, to);
        self.0.retain(|span| {
            let is_apart = span.1 < from || to < span.0;
            if !is_apart {
                (from, to) = (from.min(span.0), to.max(span.1));
            }
            is_apart
        });
        let index = self.0.partition_point(|span| span.0 < from);
        self.0.insert(index, (from, to));
        if self.0.len() > CLOCK_JUMPS_MAX {
            let (from, _) = self.0.remove(0);
            self.0[0].0 = from;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn spans(lived: &Lived) -> Vec<(i64, i64)> {
        lived.0.iter().map(|(from, to)| (from.as_second(), to.as_second())).collect()
    }

    #[test]
    fn spans_that_meet_become_one_and_others_stay_apart() {
        let mut lived = Lived::default();
        for (from, to) in [(10, 20), (40, 50), (20, 25), (60, 60), (0, 5)] {
            lived.add(at(from), at(to));
        }
        assert_eq!(spans(&lived), [(0, 5), (10, 25), (40, 50), (60, 60)]);
        assert_eq!((lived.end_of(at(25)), lived.end_of(at(26)), lived.end_of(at(60))), (Some(at(25)), None, Some(at(60))));
        lived.add(at(4), at(45));
        assert_eq!(spans(&lived), [(0, 50), (60, 60)]);
    }

    #[test]
    fn of_too_many_spans_the_oldest_become_one() {
        let mut lived = Lived::default();
        (0..100).for_each(|number| lived.add(at(number * 10), at(number * 10 + 1)));
        assert_eq!(lived.len(), CLOCK_JUMPS_MAX);
        assert_eq!(spans(&lived)[0], (0, 841));
    }
}
