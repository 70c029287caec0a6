//! The right of a node to run a function of which one node at a time may. Without it an invocation is refused.
//!
//! Time is that since the machine started, also while it slept: a machine that wakes up must not think that it is still allowed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use edgeward_model::{EdgeError, EdgeFunction, ErrorKind};
use rustix::time::{ClockId, clock_gettime};

/// The time since this machine started.
pub fn uptime() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// Until when a function may run here: not at all, unless it is told again and again. All revisions of it share one.
#[derive(Debug, Default)]
pub struct RunLease {
    /// In milliseconds of [`uptime`].
    until_ms: AtomicU64,
    running: AtomicUsize,
}

impl RunLease {
    /// Lets it run until then, if not for longer already.
    pub fn extend(&self, until: Duration) {
        self.until_ms.fetch_max(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Lets no other invocation begin.
    pub fn revoke(&self) {
        self.until_ms.store(0, Ordering::SeqCst);
    }

    /// Whether an invocation may begin now.
    pub fn is_held(&self) -> bool {
        uptime().as_millis() < u128::from(self.until_ms.load(Ordering::SeqCst))
    }

    /// Whether no invocation that began under it still runs.
    pub fn is_idle(&self) -> bool {
        self.running.load(Ordering::SeqCst) == 0
    }

    /// Begins an invocation.
    pub(crate) fn enter(self: &Arc<Self>, function: &EdgeFunction) -> Result<Running, EdgeError> {
        // Counted before it is looked, so that who revokes it and then finds it idle knows that nothing begins.
        self.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(Arc::clone(self));
        if self.is_held() {
            return Ok(running);
        }
        let id = &function.id;
        let message = format!(
            "function `{id}` runs on one node at a time, and this node does not hold its lease now; try again, or ask the node that does"
        );
        Err(EdgeError::new(ErrorKind::Unavailable, message))
    }
}

/// An invocation that runs under a lease.
#[derive(Debug)]
pub(crate) struct Running(Arc<RunLease>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use edgeward_model::{Handler, HandlerName};

    use super::*;

    #[test]
    fn an_invocation_begins_only_while_the_lease_is_held_and_counts_until_it_ends() {
        let function = EdgeFunction::new("f", "f", Handler::Native(HandlerName::new("h").expect("valid"))).expect("valid");
        let lease = Arc::new(RunLease::default());
        assert_eq!(lease.enter(&function).expect_err("nobody gave it").kind(), ErrorKind::Unavailable);
        lease.extend(uptime() + Duration::from_mins(1));
        lease.extend(uptime() + Duration::from_secs(1));
        let running = lease.enter(&function).expect("held");
        lease.revoke();
        assert!(!lease.is_held() && !lease.is_idle() && lease.enter(&function).is_err());
        drop(running);
        assert!(lease.is_idle(), "what was refused does not run");
        lease.extend(uptime().saturating_sub(Duration::from_millis(1)));
        assert!(!lease.is_held(), "it lapsed");
    }
}
