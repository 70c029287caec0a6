//! The audit log of the fleet: who was refused, and who joined. Its lines have the tracing target `audit`.
//!
//! Who is refused can still make us write, so lines about them are bounded. Their number is told instead.

use std::time::Duration;

use edgeward_model::{EdgeError, NodeId, limits::AUDIT_LINES_PER_SECOND_MAX};
use parking_lot::Mutex;
use tokio::time::Instant;

const TARGET: &str = "audit";

#[derive(Debug, Default)]
pub(super) struct Audit(Mutex<Window>);

/// The lines of the present second.
#[derive(Debug, Default)]
struct Window {
    begun: Option<Instant>,
    lines: u32,
    dropped: u64,
}

impl Audit {
    /// `asked_as` is the id that NATS vouches for: a node's, or a join token's.
    pub(super) fn refused(&self, asked_as: &NodeId, what: &str, why: &EdgeError) {
        self.line(|| tracing::warn!(target: TARGET, asked_as = %asked_as, what, kind = why.kind().as_str(), why = %why, "refused a node"));
    }

    /// What the broker refused, in its own words.
    pub(super) fn broker_refused(&self, said: &str) {
        self.line(|| tracing::warn!(target: TARGET, said, "the NATS server refused a member"));
    }

    fn line(&self, write: impl FnOnce()) {
        let Some(dropped) = self.0.lock().admit(Instant::now()) else { return };
        if dropped > 0 {
            tracing::warn!(target: TARGET, dropped, "more was refused than this log tells");
        }
        write();
    }
}

/// Tells who joined. Only who has a join token can, so nothing bounds it.
pub(super) fn joined(node: &NodeId, join_id: &NodeId, public_key: &str) {
    tracing::info!(target: TARGET, node = %node, join_id = %join_id, public_key, "a node joined");
}

impl Window {
    /// Whether a line may be written now, and how many were not before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
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
        let (mut window, now) = (Window::default(), Instant::now());
        for _ in 0..AUDIT_LINES_PER_SECOND_MAX {
            assert_eq!(window.admit(now), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(window.admit(now + Duration::from_millis(999)), None);
        }
        assert_eq!(window.admit(now + Duration::from_secs(1)), Some(1000));
        assert_eq!(window.admit(now + Duration::from_secs(1)), Some(0));
    }
}
