//! How many lines of a log a second may take that strangers can cause. What is past that is counted. Time is an argument.

use std::time::{Duration, Instant};

use crate::limits::AUDIT_LINES_PER_SECOND_MAX;

/// The lines of the present second: [`AUDIT_LINES_PER_SECOND_MAX`] of them.
#[derive(Debug, Default)]
pub struct LineLimit {
    begun: Option<Instant>,
    lines: u32,
    dropped: u64,
}

impl LineLimit {
    /// Whether a line may be written now, and how many were not before it.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.begun.is_none_or(|begun| now.duration_since(begun) >= Duration::from_secs(1)) {
            (self.begun, self.lines) = (Some(now), 0);
        }
        if self.lines == AUDIT_LINES_PER_SECOND_MAX {
            self.dropped += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_past_the_bound_are_counted_and_told_with_the_next_one() {
        let (mut limit, now) = (LineLimit::default(), Instant::now());
        for _ in 0..AUDIT_LINES_PER_SECOND_MAX {
            assert_eq!(limit.admit(now), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(limit.admit(now + Duration::from_millis(999)), None);
        }
        assert_eq!(limit.admit(now + Duration::from_secs(1)), Some(1000));
        assert_eq!(limit.admit(now + Duration::from_secs(1)), Some(0));
    }
}
