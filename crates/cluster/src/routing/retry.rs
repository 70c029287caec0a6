//! Whether and when a call that failed is tried again: what may have run is retried only when that does no harm, within the attempts, the
//! deadline and the budget.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use edgeward_model::{ErrorKind, NodeId};

use super::{
    failure::{CallFailure, Fault},
    route::Route,
};
use crate::{
    backoff,
    planted::{self, Bug},
};

/// The part of a function's time that is as good as all of it: some of it passes on the way to an attempt.
const FULL: f64 = 0.9;

/// What a caller says of its call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// How much time its own caller leaves, as [`crate::deadline`] carries it.
    pub left: Option<Duration>,
    /// Whether this call may run twice, as a GET may, also when its function does not say so.
    pub is_idempotent: bool,
}

/// What becomes of a call after an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another attempt, after this pause.
    After(Duration),
    /// None: the error goes to who called.
    GiveUp(GiveUp),
}

/// Why a call is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// Every node would answer the same.
    SameEverywhere,
    /// It may have run, and must not run twice.
    MayHaveRun,
    /// It was tried as often as it may.
    Attempts,
    /// The pause would last past its deadline.
    Deadline,
    /// There were too many retries of late.
    Budget,
}

impl fmt::Display for GiveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SameEverywhere => "another node would answer the same",
            Self::MayHaveRun => "it may have run, and is not idempotent",
            Self::Attempts => "it was tried as often as it may",
            Self::Deadline => "its deadline is near",
            Self::Budget => "too many calls were retried of late",
        })
    }
}

/// Lets a call that waits for a node leave it for another, as far as there are retries for that.
#[derive(Clone, Debug)]
pub struct Leave {
    route: Arc<Route>,
    node: NodeId,
    tried: Vec<NodeId>,
}

impl Leave {
    /// Takes the retry, if there is one and another node could take the call now; else it had better wait on. Whoever has it ends the attempt with
    /// [`CallFailure::left`].
    pub fn take(&self, now: Instant) -> bool {
        let Self { route, node, tried } = self;
        route.has_other_than(node, tried, now) && route.shared.budget.take(&route.resilience.retry, route.moment(now))
    }
}

/// A call with its deadline and its attempts.
#[derive(Debug)]
pub struct RetryPlan {
    route: Arc<Route>,
    is_idempotent: bool,
    deadline: Instant,
    failed: u32,
    tried: Vec<NodeId>,
}

impl RetryPlan {
    pub(super) fn new(route: Arc<Route>, terms: Terms, now: Instant) -> Self {
        let time = terms.left.map_or(route.deadline, |left| left.min(route.deadline));
        let is_idempotent = terms.is_idempotent || route.resilience.idempotent;
        Self { is_idempotent, deadline: now + time, failed: 0, tried: Vec::new(), route }
    }

    /// Nodes on which it failed: others come first.
    pub fn tried(&self) -> &[NodeId] {
        &self.tried
    }

    /// Whether the call may run twice.
    pub fn is_idempotent(&self) -> bool {
        self.is_idempotent
    }

    /// How the call leaves a node that answers nothing: when it may run twice, and once more, and another node could take it now.
    pub fn leave(&self, node: &NodeId, now: Instant) -> Option<Leave> {
        let is_last = self.failed + 1 >= self.route.resilience.retry.attempts();
        let may_leave = self.is_idempotent && !is_last && !planted::has(Bug::SilentNotLeft);
        (may_leave && self.route.has_other_than(node, &self.tried, now)).then(|| Leave {
            route: Arc::clone(&self.route),
            node: node.clone(),
            tried: self.tried.clone(),
        })
    }

    /// Notes that it failed on a node before it was planned here.
    pub fn failed_before_on(&mut self, node: NodeId) {
        self.tried.push(node);
    }

    /// When the call must have ended.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How much time the call has left.
    pub fn left(&self, now: Instant) -> Duration {
        self.deadline.saturating_duration_since(now)
    }

    /// How long the attempt that begins now may take, and what the node is told of it.
    pub fn attempt_time(&self, now: Instant) -> Duration {
        let left = self.left(now);
        let attempt = self.route.resilience.retry.attempt().filter(|_| self.is_idempotent);
        attempt.map_or(left, |attempt| attempt.min(left))
    }

    /// Whose fault a failure is after an attempt that was given so much time: that a function did not answer in less than it may take says nothing of its
    /// node.
    pub fn judge(&self, failure: CallFailure, time: Duration) -> CallFailure {
        let Route { resilience, timeout, deadline, .. } = &*self.route;
        let full = resilience.retry.attempt().filter(|_| self.is_idempotent).unwrap_or(*timeout).min(*timeout).min(*deadline);
        let is_short = time < full.mul_f64(FULL);
        if failure.kind == ErrorKind::Timeout && failure.fault == Fault::Node && is_short {
            CallFailure { fault: Fault::Caller, ..failure }
        } else {
            failure
        }
    }

    /// Takes an attempt that failed on a node, and says what is next. A retry that it allows is taken from the budget.
    pub fn next_attempt(&mut self, node: &NodeId, failure: CallFailure, now: Instant, random: u64) -> Next {
        self.failed += 1;
        if !self.tried.contains(node) {
            self.tried.push(node.clone());
        }
        let retry = &self.route.resilience.retry;
        if matches!(failure.fault, Fault::Call | Fault::Unsent) {
            return Next::GiveUp(GiveUp::SameEverywhere);
        }
        if failure.may_have_run && !self.is_idempotent && !planted::has(Bug::RunTwice) {
            return Next::GiveUp(GiveUp::MayHaveRun);
        }
        if self.failed >= retry.attempts() {
            return Next::GiveUp(GiveUp::Attempts);
        }
        let pause = self.pause(failure, now, random);
        if pause >= self.left(now) && !planted::has(Bug::DeadlineForgotten) {
            return Next::GiveUp(GiveUp::Deadline);
        }
        if failure.fault != Fault::Left && !self.route.shared.budget.take(retry, self.route.moment(now)) {
            return Next::GiveUp(GiveUp::Budget);
        }
        Next::After(pause)
    }

    /// The first time that a call surely did not run, and whenever it left a silent node, it goes to another at once; a pause would help nobody.
    fn pause(&self, failure: CallFailure, now: Instant, random: u64) -> Duration {
        let has_waited = failure.fault == Fault::Left;
        if (has_waited || self.failed == 1 && !failure.may_have_run) && self.route.has_other(&self.tried, now) {
            return Duration::ZERO;
        }
        let retry = &self.route.resilience.retry;
        let doubled = 1_u32.checked_shl(self.failed - 1).unwrap_or(u32::MAX);
        let most = retry.backoff_min().saturating_mul(doubled).min(retry.backoff_max());
        backoff::part(most, random)
    }
}
