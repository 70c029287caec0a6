//! How fast a node is, as its callers see it: what a call of it costs.
//!
//! The estimate jumps up to what is slower and comes down with time (peak EWMA, as in Finagle), so that a node that turns slow is left at once
//! and is tried again later. A failure that comes quickly makes a node no faster.

use std::time::Duration;

use crate::planted::{self, Bug};

/// After so long an estimate has come down to a third.
const DECAY: Duration = Duration::from_secs(5);
/// What a node is taken for of which nothing is known, in microseconds.
const UNKNOWN_MICROS: f64 = 1000.0;
/// How much one call counts in the share of those that did well.
const ONE_CALL: f64 = 0.1;
/// A node that does nothing well is no more expensive than if it were so.
const SHARE_MIN: f64 = 0.1;

/// What is known of one node.
#[derive(Debug)]
pub(super) struct Latency {
    peak_micros: f64,
    /// Of the calls that did well.
    mean_micros: Option<f64>,
    /// The share of calls that did well, by the last ones.
    share: f64,
    at: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { peak_micros: UNKNOWN_MICROS, mean_micros: None, share: 1.0, at: 0 }
    }
}

impl Latency {
    /// What another call costs, when so many are under way.
    pub(super) fn cost(&self, in_flight: u32, now: u64) -> f64 {
        let kept = self.kept(now);
        let share = self.share(kept).max(SHARE_MIN);
        self.peak_micros * kept * f64::from(in_flight + 1) / (share * share)
    }

    /// Takes a call that did well, or did not.
    pub(super) fn record(&mut self, latency: Duration, is_good: bool, now: u64) {
        let micros = latency.as_nanos() as f64 / 1000.0;
        let kept = self.kept(now);
        self.share = self.share(kept);
        self.share += ONE_CALL * (f64::from(u8::from(is_good)) - self.share);
        let is_first = self.mean_micros.is_none();
        let mixed = |before: f64| before * kept + micros * (1.0 - kept);
        if is_good {
            self.mean_micros = Some(self.mean_micros.map_or(micros, mixed));
        }
        if micros > self.peak_micros || (is_first && is_good) {
            self.peak_micros = micros;
        } else if is_good || planted::has(Bug::QuickFailureIsFast) {
            self.peak_micros = mixed(self.peak_micros);
        }
        self.at = self.at.max(now);
    }

    /// Takes that a call had no answer after so long, through no fault of the node.
    pub(super) fn record_at_least(&mut self, latency: Duration, now: u64) {
        let (micros, kept) = (latency.as_nanos() as f64 / 1000.0, self.kept(now));
        if micros > self.peak_micros * kept {
            self.share = self.share(kept);
            self.peak_micros = micros;
            self.at = self.at.max(now);
        }
    }

    /// The mean of calls that did well, those of the last seconds most, in milliseconds; none before the first.
    pub(super) fn mean_ms(&self) -> Option<f64> {
        self.mean_micros.map(|micros| micros / 1000.0)
    }

    /// How much of what was known holds now.
    fn kept(&self, now: u64) -> f64 {
        (-(now.saturating_sub(self.at) as f64) / DECAY.as_nanos() as f64).exp()
    }

    fn share(&self, kept: f64) -> f64 {
        1.0 - (1.0 - self.share) * kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn after(calls: &[(u64, u64, bool)]) -> Latency {
        let mut latency = Latency::default();
        for (at, millis, is_good) in calls {
            latency.record(Duration::from_millis(*millis), *is_good, at * MS);
        }
        latency
    }

    #[test]
    fn it_jumps_up_and_comes_down_with_time() {
        let slow = after(&[(0, 5, true), (1, 500, true)]);
        assert!((slow.cost(0, MS) - 500_000.0).abs() < 1.0, "{slow:?}");
        assert!(slow.cost(0, 5001 * MS) < 200_000.0, "without a call too");
        let again: Vec<_> = (0..10_000).map(|ms| (ms, if ms == 0 { 500 } else { 5 }, true)).collect();
        let cost = after(&again).cost(0, 10_000 * MS);
        assert!((5_000.0..100_000.0).contains(&cost), "{cost}");
    }

    #[test]
    fn each_call_that_is_under_way_costs_as_much_again() {
        let latency = after(&[(0, 8, true)]);
        assert!((latency.cost(3, 0) / latency.cost(0, 0) - 4.0).abs() < 1e-9);
    }

    #[test]
    fn a_failure_makes_a_node_no_faster_and_more_expensive_for_a_while() {
        let good = after(&[(0, 50, true)]);
        let bad = after(&[(0, 50, true), (0, 0, false), (0, 0, false)]);
        assert!(bad.cost(0, 0) > good.cost(0, 0), "{bad:?}");
        let quick: Vec<_> = (0..1000).map(|nth| (nth * 10, if nth == 0 { 50 } else { 0 }, nth == 0)).collect();
        assert!(after(&quick).cost(0, 10_000 * MS) >= good.cost(0, 0), "nor do a thousand");
        let ratio = bad.cost(0, 60_000 * MS) / good.cost(0, 60_000 * MS);
        assert!((ratio - 1.0).abs() < 0.01, "{ratio}");
        let slow = after(&[(0, 50, true), (0, 900, false)]);
        assert!(slow.cost(0, 0) > 10.0 * good.cost(0, 0), "one that fails slowly is slow");
        assert_eq!(slow.mean_ms(), Some(50.0));
        let mut short = after(&[(0, 50, true)]);
        short.record_at_least(Duration::from_millis(10), 0);
        assert!((short.cost(0, 0) - good.cost(0, 0)).abs() < 1e-9, "that it takes 10 ms at least was known");
        short.record_at_least(Duration::from_millis(80), 0);
        assert!((short.cost(0, 0) - 80_000.0).abs() < 1e-6 && short.mean_ms() == Some(50.0), "slower, and no failure: {short:?}");
        let worst = after(&(0..1000).map(|_| (0, 1, false)).collect::<Vec<_>>());
        assert!(worst.cost(0, 0).is_finite() && worst.mean_ms().is_none());
    }
}
