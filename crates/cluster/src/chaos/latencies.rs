//! How long calls took, in classes of which each is a twentieth longer than the one before, so that those of many seconds can be added up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How much longer each class is.
const GROWTH: f64 = 1.05;
/// The shortest time that is told apart, in milliseconds.
const SHORTEST_MS: f64 = 0.01;
/// The longest class: more than a day.
const CLASS_MAX: u16 = 500;

/// Counts of calls by how long they took. A quantile is right to a twentieth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latencies(BTreeMap<u16, u64>);

impl Latencies {
    /// Adds so many calls that took so long, in milliseconds.
    pub fn add(&mut self, millis: f64, count: u64) {
        if count > 0 {
            *self.0.entry(class(millis)).or_default() += count;
        }
    }

    /// Adds all calls of another one.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(class, count)| *self.0.entry(*class).or_default() += count);
    }

    /// How many calls there are.
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// How long the 95th of a hundred took, in milliseconds; none without calls.
    pub fn p95_ms(&self) -> Option<f64> {
        let count = self.count();
        let rank = (count * 95).div_ceil(100);
        let mut passed = 0;
        let class = self.0.iter().find(|(_, count)| {
            passed += **count;
            passed >= rank
        });
        // The middle of the class, by proportion.
        class.filter(|_| count > 0).map(|(class, _)| SHORTEST_MS * GROWTH.powf(f64::from(*class) - 0.5))
    }

    /// What the slowest took at most, in milliseconds; none without calls.
    pub fn slowest_ms(&self) -> Option<f64> {
        self.0.last_key_value().map(|(class, _)| SHORTEST_MS * GROWTH.powf(f64::from(*class)))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between 0 and the last class")]
fn class(millis: f64) -> u16 {
    // The greater of two of which one is no number is the other.
    let class = (millis.max(SHORTEST_MS) / SHORTEST_MS).log(GROWTH).ceil();
    class.clamp(0.0, f64::from(CLASS_MAX)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_right_to_a_twentieth() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.p95_ms(), None);
        (1..=1000).for_each(|millis| latencies.add(f64::from(millis), 1));
        let p95 = latencies.p95_ms().expect("there are calls");
        assert!((p95 / 950.0 - 1.0).abs() < 0.03, "{p95}");
        let mut other = Latencies::default();
        other.add(2.0, 9000);
        latencies.merge(&other);
        let p95 = latencies.p95_ms().expect("there are calls");
        assert!((p95 / 500.0 - 1.0).abs() < 0.03, "{p95}");
        assert_eq!(latencies.count(), 10_000);
        let slowest = latencies.slowest_ms().expect("there are calls");
        assert!((1000.0..1050.1).contains(&slowest), "{slowest}");
    }

    #[test]
    fn no_time_is_too_short_too_long_or_too_strange() {
        for millis in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300, f64::MIN_POSITIVE] {
            let mut latencies = Latencies::default();
            latencies.add(millis, 1);
            assert!(latencies.p95_ms().expect("a call").is_finite(), "{millis}");
        }
    }
}
