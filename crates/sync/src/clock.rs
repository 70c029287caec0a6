//! The hybrid logical clock: stamps that follow the wall clock and never go back, so that a write made after a value was
//! read has the greater stamp, whatever the wall clocks of the two writers say.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The moment of these milliseconds since 1970; one that no calendar has is 1970.
pub(crate) fn time(millis: u64) -> Timestamp {
    i64::try_from(millis).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok()).unwrap_or_default()
}

/// Bits of a stamp that count writes within one millisecond.
const COUNTER_BITS: u32 = 16;

/// A moment of the hybrid logical clock: 48 bits of milliseconds since 1970, then 16 bits of counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp(u64);

impl Stamp {
    /// Before every write.
    pub const ZERO: Self = Self(0);
    /// The latest stamp there is, in the year 10889.
    pub const MAX: Self = Self(u64::MAX);

    /// The first stamp of a millisecond; one past the year 10889 is that year's last.
    pub fn from_millis(millis: u64) -> Self {
        Self(millis.min(u64::MAX >> COUNTER_BITS) << COUNTER_BITS)
    }

    /// The stamp with these bits.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// All 64 bits; they order as stamps do.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Its milliseconds since 1970.
    pub fn millis(self) -> u64 {
        self.0 >> COUNTER_BITS
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.0 & ((1 << COUNTER_BITS) - 1))
    }
}

/// A clock has no stamp left: it was set to the end of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockExhausted;

/// The clock of one replica. It must be stored in the same transaction as the write that it stamps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    last: Stamp,
}

impl Clock {
    /// The clock of a replica whose greatest stamp is this.
    pub fn new(last: Stamp) -> Self {
        Self { last }
    }

    /// The greatest stamp that this replica has given or seen.
    pub fn last(&self) -> Stamp {
        self.last
    }

    /// A stamp for a write made now, greater than every stamp before. A full counter carries into the milliseconds.
    pub fn tick(&mut self, now_millis: u64) -> Result<Stamp, ClockExhausted> {
        let next = self.last.0.checked_add(1).ok_or(ClockExhausted)?;
        self.last = Stamp(next).max(Stamp::from_millis(now_millis));
        Ok(self.last)
    }

    /// Follows a stamp that came from elsewhere.
    pub fn observe(&mut self, seen: Stamp) {
        self.last = self.last.max(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_follow_the_wall_clock_and_never_go_back() {
        let mut clock = Clock::default();
        let first = clock.tick(1_000).expect("a stamp");
        assert_eq!((first.millis(), first), (1_000, Stamp::from_millis(1_000)));
        let back = clock.tick(10).expect("a stamp");
        assert!(back > first && back.millis() == 1_000);
        assert_eq!(clock.tick(2_000), Ok(Stamp::from_millis(2_000)));
    }

    #[test]
    fn a_write_after_a_value_from_a_fast_clock_is_later() {
        let (mut fast, mut slow) = (Clock::default(), Clock::default());
        let seen = fast.tick(9_000_000).expect("a stamp");
        slow.observe(seen);
        assert!(slow.tick(5).expect("a stamp") > seen);
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let mut clock = Clock::new(Stamp::from_bits((7 << COUNTER_BITS) | 0xffff));
        let stamp = clock.tick(7).expect("a stamp");
        assert_eq!((stamp.millis(), stamp.to_string().as_str()), (8, "8.0"));
    }

    #[test]
    fn at_the_end_of_time_there_is_an_error_and_no_repetition() {
        let mut clock = Clock::new(Stamp::MAX);
        assert_eq!(clock.tick(0), Err(ClockExhausted));
        assert_eq!(Stamp::from_millis(u64::MAX).millis(), u64::MAX >> COUNTER_BITS);
    }
}
