//! What all calls of a function together may be retried: a share of the calls of the last seconds, and a few. So retries cannot become the
//! load that makes the next calls fail.

use edgeward_model::{
    Retry,
    limits::{RETRIES_PER_SECOND_FREE, RETRY_WINDOW},
};
use parking_lot::Mutex;

use super::window::{Counts, Window};
use crate::planted::{self, Bug};

/// Calls, and those of them that were retries.
#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<Spent>);

#[derive(Debug, Default)]
struct Spent {
    window: Window,
    retries: u64,
    denied: u64,
}

impl Budget {
    /// Counts a call, which brings a part of a retry.
    pub(super) fn call(&self, now: u64) {
        self.0.lock().window.add(Counts { calls: 1, marked: 0 }, RETRY_WINDOW, now);
    }

    /// Takes a retry, if there is one.
    pub(super) fn take(&self, retry: &Retry, now: u64) -> bool {
        let mut spent = self.0.lock();
        let Counts { calls, marked } = spent.window.sum(RETRY_WINDOW, now);
        let free = f64::from(RETRIES_PER_SECOND_FREE) * RETRY_WINDOW.as_secs_f64();
        let has_one = (marked + 1) as f64 <= retry.budget() * calls as f64 + free || planted::has(Bug::BudgetNotSpent);
        if has_one {
            spent.window.add(Counts { calls: 0, marked: 1 }, RETRY_WINDOW, now);
            spent.retries += 1;
        } else {
            spent.denied += 1;
        }
        has_one
    }

    /// Retries that were taken, and those that were denied.
    pub(super) fn spent(&self) -> (u64, u64) {
        let spent = self.0.lock();
        (spent.retries, spent.denied)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_function_that_is_called_seldom_has_a_few_retries_and_one_with_many_calls_a_share() {
        let (budget, retry) = (Budget::default(), Retry::default());
        budget.call(0);
        assert_eq!((0..1000).filter(|_| budget.take(&retry, 0)).count(), 100);
        assert_eq!((0..1000).filter(|_| budget.take(&retry, 10_000 * MS)).count(), 100, "a window later again");
        let budget = Budget::default();
        (0..1000).for_each(|_| budget.call(0));
        assert_eq!((0..1000).filter(|_| budget.take(&retry, 0)).count(), 300);
        assert_eq!(budget.spent(), (300, 700));
    }

    proptest! {
        #[test]
        fn over_any_time_retries_are_no_more_than_the_share_and_the_few(
            steps in proptest::collection::vec((0_u64..3000, 0_u32..40, 0_u32..200), 1..60),
            percent in 0.0_f64..100.0,
        ) {
            let retry = Retry { budget_percent: Some(percent), ..Retry::default() };
            let (budget, mut now, mut calls, mut retries) = (Budget::default(), 0, 0_u32, 0_u32);
            for (pause, more, wanted) in steps {
                now += pause;
                (0..more).for_each(|_| budget.call(now * MS));
                calls += more;
                retries += u32::try_from((0..wanted).filter(|_| budget.take(&retry, now * MS)).count()).expect("few");
            }
            // Each ten seconds that have begun have their few.
            let free = 100.0 * (now / 10_000 + 2) as f64;
            prop_assert!(f64::from(retries) <= f64::from(calls) * percent / 100.0 + free, "{retries} of {calls}");
        }
    }
}
