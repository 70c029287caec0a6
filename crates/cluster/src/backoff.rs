//! How long to wait before the next attempt: exponential with full jitter, so that a thousand members that lost one
//! broker do not come back in one moment.

use std::time::Duration;

use edgeward_model::limits::{RECONNECT_PAUSE_MAX, RECONNECT_PAUSE_MIN};
use tokio::time::Instant;

/// A connection that held so long was a good one; one that breaks sooner counts as a failed attempt.
const STEADY: Duration = Duration::from_secs(10);

/// The pause before another attempt after so many that failed, one or more.
pub fn pause(failed: u32) -> Duration {
    part(longest(failed.saturating_sub(1)), random())
}

/// A time between none and this one.
pub fn some_of(most: Duration) -> Duration {
    part(most, random())
}

/// Any number; where the system has none, the one that waits longest.
fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX)
}

/// The longest pause after so many attempts.
fn longest(attempts: u32) -> Duration {
    RECONNECT_PAUSE_MIN.saturating_mul(1_u32.checked_shl(attempts.min(31)).unwrap_or(u32::MAX)).min(RECONNECT_PAUSE_MAX)
}

/// The part of a time that the number is of all numbers.
pub(crate) fn part(most: Duration, random: u64) -> Duration {
    let micros = (u128::from(random) * (most.as_micros() + 1)) >> u64::BITS;
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// Pauses between attempts to connect, of which some succeed for a moment only.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
    last: Option<Instant>,
}

impl Backoff {
    /// The pause before an attempt. `was_up` says that the attempt before made a connection.
    pub(crate) fn pause(&mut self, was_up: bool, now: Instant) -> Duration {
        self.pause_by(was_up, now, random())
    }

    fn pause_by(&mut self, was_up: bool, now: Instant, random: u64) -> Duration {
        let Some(last) = self.last.replace(now) else { return Duration::ZERO };
        if was_up && now.duration_since(last) >= STEADY {
            self.attempts = 0;
        }
        let most = longest(self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        part(most, random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(count: usize, was_up: bool, every: Duration, random: u64) -> Vec<Duration> {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        let pause = |_| {
            now += every;
            backoff.pause_by(was_up, now, random)
        };
        (0..count).map(pause).collect()
    }

    #[test]
    fn pauses_double_up_to_the_longest_with_full_jitter() {
        let longest = pauses(100, false, Duration::from_secs(1), u64::MAX);
        assert_eq!(longest[..4], [0, 100, 200, 400].map(Duration::from_millis));
        assert_eq!(longest[99], RECONNECT_PAUSE_MAX);
        assert_eq!(pauses(100, false, Duration::from_secs(1), u64::MAX / 2)[99], RECONNECT_PAUSE_MAX / 2);
        assert_eq!(pauses(100, false, Duration::from_secs(1), 0)[99], Duration::ZERO);
    }

    #[test]
    fn a_connection_that_held_starts_anew_and_one_that_breaks_at_once_does_not() {
        assert!(pauses(50, true, STEADY, u64::MAX).iter().all(|pause| *pause <= RECONNECT_PAUSE_MIN));
        assert_eq!(pauses(50, true, STEADY / 2, u64::MAX)[49], RECONNECT_PAUSE_MAX);
    }
}
