//! A histogram of durations in constant memory: logarithmic buckets, 16 to an octave.
//!
//! A value is reported as the middle of its bucket, so a quantile is at most 1/32 (3.2 %) off. The layout is
//! that of `HdrHistogram` with four bits of precision.

use crate::reading::Distribution;

/// Upper edges of the buckets of a histogram of durations as it is shown, in seconds.
pub static DURATION_SECONDS: [f64; 12] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0];

const SUB_BITS: u32 = 4;
const SUB: u64 = 1 << SUB_BITS;
/// 2^42 ns is 73 minutes, past the longest deadline; longer durations fall into the last bucket.
const OCTAVES: u32 = 42 - SUB_BITS;
const BUCKETS: usize = ((OCTAVES + 1) as usize) << SUB_BITS;

/// Counts of durations, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Box<[u64; BUCKETS]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into_boxed_slice().try_into().expect("the vector has BUCKETS elements") }
    }
}

fn bucket(nanos: u64) -> usize {
    if nanos < SUB {
        return usize::try_from(nanos).expect("below 16");
    }
    let octave = nanos.ilog2() - SUB_BITS;
    let sub = (nanos >> octave) - SUB;
    let index = (u64::from(octave + 1) << SUB_BITS) + sub;
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// Lowest value of the bucket and the width of it.
fn range(index: usize) -> (u64, u64) {
    let index = index as u64;
    if index < SUB {
        return (index, 1);
    }
    let octave = (index >> SUB_BITS) - 1;
    ((SUB + (index & (SUB - 1))) << octave, 1 << octave)
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts.iter()) {
            *mine += theirs;
        }
    }

    /// What was recorded here and not in an earlier state of it.
    #[must_use]
    pub fn without(&self, earlier: &Self) -> Self {
        let mut left = self.clone();
        for (mine, theirs) in left.counts.iter_mut().zip(earlier.counts.iter()) {
            *mine = mine.saturating_sub(*theirs);
        }
        left
    }

    /// The value below which the fraction `quantile` (0 to 1) of all values lies, in nanoseconds; 0 when empty.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank between 0 and the count")]
    pub fn quantile(&self, quantile: f64) -> u64 {
        let total: u64 = self.counts.iter().sum();
        if total == 0 {
            return 0;
        }
        let rank = ((total as f64 * quantile).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                let (low, width) = range(index);
                return low + width / 2;
            }
        }
        0
    }

    /// Values at or below `nanos`, to the precision of a bucket.
    pub fn count_up_to(&self, nanos: u64) -> u64 {
        self.counts[..=bucket(nanos)].iter().sum()
    }

    /// The same in the buckets of [`DURATION_SECONDS`], with the sum of the durations, which is not known here.
    pub fn in_seconds(&self, sum_nanos: u128) -> Distribution {
        let mut below = 0;
        let mut counts: Vec<_> = DURATION_SECONDS
            .iter()
            .map(|edge| {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small positive constants")]
                let up_to = self.count_up_to((edge * 1e9) as u64);
                up_to - std::mem::replace(&mut below, up_to)
            })
            .collect();
        let count = self.counts.iter().sum();
        counts.push(count - below);
        Distribution { count, sum: sum_nanos as f64 / 1e9, bounds: &DURATION_SECONDS, counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_the_range_of_its_bucket() {
        let mut value = 0_u64;
        while value < 1 << 42 {
            let (low, width) = range(bucket(value));
            assert!((low..low + width).contains(&value), "{value} is not in {low}+{width}");
            value += value / 37 + 1;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_within_a_thirtieth_of_the_truth() {
        let mut histogram = Histogram::default();
        (1..=100_000).for_each(|i| histogram.record(i * 1000));
        for (quantile, truth) in [(0.5, 50_000_000.0), (0.95, 95_000_000.0), (0.99, 99_000_000.0)] {
            let found = histogram.quantile(quantile) as f64;
            assert!((found / truth - 1.0).abs() < 1.0 / 30.0, "{quantile}: {found} against {truth}");
        }
        assert_eq!(Histogram::default().quantile(0.5), 0);
    }
}
