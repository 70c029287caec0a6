//! How many calls there were in the time that has just passed, and how many of them were of one kind. Time goes by in tenths of it.

use std::time::Duration;

use super::nanos;

const BUCKETS: usize = 10;

/// Calls, and those that failed or were retries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) marked: u64,
}

/// The last tenths.
#[derive(Debug, Default)]
pub(super) struct Window {
    bucket_nanos: u64,
    /// The number of the newest tenth, counted from the beginning of time.
    newest: u64,
    buckets: [Counts; BUCKETS],
}

impl Window {
    /// Counts. A moment that is earlier than one before counts as that one.
    pub(super) fn add(&mut self, counts: Counts, window: Duration, now: u64) {
        self.advance(window, now);
        let bucket = &mut self.buckets[position(self.newest)];
        bucket.calls += counts.calls;
        bucket.marked += counts.marked;
    }

    /// What was counted in the window that ends now.
    pub(super) fn sum(&mut self, window: Duration, now: u64) -> Counts {
        self.newest(u64::MAX, window, now)
    }

    /// What was counted in its newest tenths: in so many of them as have enough calls.
    pub(super) fn newest(&mut self, enough: u64, window: Duration, now: u64) -> Counts {
        self.advance(window, now);
        let mut sum = Counts::default();
        for age in 0..BUCKETS as u64 {
            let bucket = self.buckets[position(self.newest + BUCKETS as u64 - age)];
            sum = Counts { calls: sum.calls + bucket.calls, marked: sum.marked + bucket.marked };
            if sum.calls >= enough {
                break;
            }
        }
        sum
    }

    /// Forgets what was counted.
    pub(super) fn clear(&mut self) {
        self.buckets = Default::default();
    }

    fn advance(&mut self, window: Duration, now: u64) {
        let bucket_nanos = (nanos(window) / BUCKETS as u64).max(1);
        if bucket_nanos != self.bucket_nanos {
            *self = Self { bucket_nanos, newest: now / bucket_nanos, buckets: Default::default() };
        }
        let newest = now / bucket_nanos;
        let passed = newest.saturating_sub(self.newest).min(BUCKETS as u64);
        for later in 1..=passed {
            self.buckets[position(self.newest + later)] = Counts::default();
        }
        self.newest = self.newest.max(newest);
    }
}

fn position(bucket: u64) -> usize {
    usize::try_from(bucket % BUCKETS as u64).expect("below the number of buckets")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const WINDOW: Duration = Duration::from_secs(10);

    fn one(marked: u64) -> Counts {
        Counts { calls: 1, marked }
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut window = Window::default();
        window.add(one(1), WINDOW, 0);
        window.add(one(0), WINDOW, 5 * SECOND);
        assert_eq!(window.sum(WINDOW, 9 * SECOND), Counts { calls: 2, marked: 1 });
        assert_eq!(window.sum(WINDOW, 10 * SECOND), Counts { calls: 1, marked: 0 });
        assert_eq!(window.sum(WINDOW, 15 * SECOND), Counts::default());
        window.add(one(1), WINDOW, 1_000_000 * SECOND);
        assert_eq!(window.sum(WINDOW, 1_000_000 * SECOND), one(1));
        window.clear();
        assert_eq!(window.sum(WINDOW, 1_000_000 * SECOND), Counts::default());
    }

    #[test]
    fn of_many_calls_only_the_newest_tell() {
        let mut window = Window::default();
        window.add(Counts { calls: 100, marked: 0 }, WINDOW, 15 * SECOND);
        window.add(Counts { calls: 20, marked: 20 }, WINDOW, 17 * SECOND);
        assert_eq!(window.newest(20, WINDOW, 18 * SECOND), Counts { calls: 20, marked: 20 });
        assert_eq!(window.newest(21, WINDOW, 18 * SECOND), Counts { calls: 120, marked: 20 });
    }

    #[test]
    fn a_window_of_another_length_begins_anew() {
        let mut window = Window::default();
        window.add(one(1), WINDOW, 50 * SECOND);
        assert_eq!(window.sum(WINDOW * 2, 50 * SECOND), Counts::default());
    }

    proptest! {
        #[test]
        fn it_counts_what_a_list_of_all_calls_counts(mut times in proptest::collection::vec((0_u64..60_000, any::<bool>()), 0..200), end in 0_u64..70_000) {
            times.sort_unstable();
            let millis = |time: u64| time * 1_000_000;
            let mut window = Window::default();
            for (time, marked) in &times {
                window.add(one(u64::from(*marked)), WINDOW, millis(*time));
            }
            let end = times.last().map_or(end, |(last, _)| end.max(*last));
            let seen = times.iter().filter(|(time, _)| time / 1000 + 10 > end / 1000);
            let expected = seen.fold(Counts::default(), |sum, (_, marked)| {
                Counts { calls: sum.calls + 1, marked: sum.marked + u64::from(*marked) }
            });
            prop_assert_eq!(window.sum(WINDOW, millis(end)), expected);
        }
    }
}
