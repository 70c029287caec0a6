//! A node that was chosen for one attempt. What becomes of the attempt is told to it; dropped, it was cancelled.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use edgeward_model::NodeId;

use super::{
    candidate::{Candidate, Nearness},
    circuit::{BreakerState, Ticket},
    failure::CallFailure,
    link::Ended,
    route::Route,
};

/// A node that was chosen for one attempt, with its place there.
#[must_use = "dropped, it tells the router that nobody waited for the answer"]
pub struct Picked {
    route: Arc<Route>,
    index: usize,
    ticket: Ticket,
    begun: u64,
    is_ended: bool,
}

impl Picked {
    pub(super) fn new(route: Arc<Route>, index: usize, ticket: Ticket, begun: u64) -> Self {
        Self { route, index, ticket, begun, is_ended: false }
    }

    /// The node.
    pub fn node(&self) -> &NodeId {
        &self.candidate().node
    }

    /// Whether it is this process.
    pub fn is_local(&self) -> bool {
        self.candidate().is_local
    }

    /// How near it is.
    pub fn nearness(&self) -> Nearness {
        self.route.entries[self.index].nearness
    }

    /// Whether the call tries a node again that had failed.
    pub fn is_probe(&self) -> bool {
        self.ticket != Ticket::Call
    }

    /// The attempt did well. Tells what the node's breaker has become, if it changed.
    pub fn succeed(mut self, now: Instant) -> Option<BreakerState> {
        self.end(Ended::Well, Some(now))
    }

    /// The attempt failed; what people see of it is kept, cut. Tells what the node's breaker has become, if it changed.
    pub fn fail(mut self, failure: CallFailure, message: &str, now: Instant) -> Option<BreakerState> {
        self.end(Ended::Badly(failure, message), Some(now))
    }

    fn candidate(&self) -> &Candidate {
        &self.route.entries[self.index].candidate
    }

    fn end(&mut self, ended: Ended<'_>, now: Option<Instant>) -> Option<BreakerState> {
        self.is_ended = true;
        let now = now.map_or(self.begun, |now| self.route.moment(now));
        let latency = Duration::from_nanos(now.saturating_sub(self.begun));
        self.route.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.route.entries[self.index].link.exit(self.ticket, ended, latency, &self.route.resilience, now)
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        if !self.is_ended {
            self.end(Ended::Cancelled, None);
        }
    }
}

impl fmt::Debug for Picked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picked").field("function", &self.route.function).field("node", self.node()).finish_non_exhaustive()
    }
}
