//! A histogram of durations in constant memory: logarithmic buckets, 16 to an octave.
//!
//! A value is reported as the middle of its bucket, so a quantile is at most 1/32 (3.2 %) off. The layout is
//! that of `HdrHistogram` with four bits of precision.

const SUB_BITS: u32 = 4;
const SUB: u64 = 1 << SUB_BITS;
/// 2^42 ns is 73 minutes, past the longest deadline; longer durations fall into the last bucket.
const OCTAVES: u32 = 42 - SUB_BITS;
const BUCKETS: usize = ((OCTAVES + 1) as usize) << SUB_BITS;

/// Counts of durations, in nanoseconds.
#[derive(Clone)]
pub(crate) struct Histogram {
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
    pub(crate) fn record(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts.iter()) {
            *mine += theirs;
        }
    }

    /// What was recorded here and not in an earlier state of it.
    pub(crate) fn without(&self, earlier: &Self) -> Self {
        let mut left = self.clone();
        for (mine, theirs) in left.counts.iter_mut().zip(earlier.counts.iter()) {
            *mine = mine.saturating_sub(*theirs);
        }
        left
    }

    /// The value below which the fraction `quantile` (0 to 1) of all values lies, in nanoseconds; 0 when empty.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank between 0 and the count")]
    pub(crate) fn quantile(&self, quantile: f64) -> u64 {
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
    pub(crate) fn count_up_to(&self, nanos: u64) -> u64 {
        self.counts[..=bucket(nanos)].iter().sum()
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
