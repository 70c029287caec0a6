//! What is known of one function on one node: its calls that are under way, its breaker, how fast it is. Whether a node may be called is read
//! without a lock as long as the breaker is closed; what a call of it costs, under the lock of this one.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use edgeward_model::{ErrorKind, Resilience, limits::ROUTE_ERROR_BYTES_MAX};
use parking_lot::Mutex;

use super::{
    circuit::{BreakerState, Circuit, Ticket, Verdict},
    failure::{CallFailure, Fault},
    latency::Latency,
    nanos,
};
use crate::planted::{self, Bug};

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended<'a> {
    Well,
    Badly(CallFailure, &'a str),
    /// Whoever called did not wait for it.
    Cancelled,
}

/// Calls by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) successes: u64,
    pub(super) failures: u64,
    pub(super) cancelled: u64,
}

/// The last failure.
#[derive(Clone, Debug)]
pub(super) struct LastError {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
    pub(super) at: u64,
}

/// How a link is at one moment.
#[derive(Debug)]
pub(super) struct LinkFacts {
    pub(super) in_flight: u32,
    pub(super) breaker: BreakerState,
    pub(super) openings: u64,
    pub(super) latency_ms: Option<f64>,
    pub(super) cost: f64,
    pub(super) tally: Tally,
    pub(super) last_error: Option<LastError>,
}

/// One function on one node.
#[derive(Debug, Default)]
pub(super) struct Link {
    in_flight: AtomicU32,
    /// The breaker's gate: the moment from which a call may come through; 0 while it is closed.
    gate: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    circuit: Circuit,
    latency: Latency,
    tally: Tally,
    last_error: Option<LastError>,
}

impl Link {
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether another call may be under way.
    pub(super) fn has_room(&self, calls_max: u32) -> bool {
        self.in_flight() < calls_max
    }

    /// The moment from which the breaker lets a call through.
    pub(super) fn gate(&self) -> u64 {
        self.gate.load(Ordering::Relaxed)
    }

    /// What another call costs. One that waits to be tried again costs nothing: somebody has to.
    pub(super) fn cost(&self, now: u64) -> f64 {
        if self.gate() == 0 { self.inner.lock().latency.cost(self.in_flight(), now) } else { -1.0 }
    }

    /// Takes a place for a call, if there is one and the breaker lets it through.
    pub(super) fn enter(&self, resilience: &Resilience, now: u64) -> Option<Ticket> {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= resilience.bulkhead.calls_per_node_max() && !planted::has(Bug::BulkheadIgnored)
        {
            self.leave();
            return None;
        }
        if self.gate() == 0 {
            return Some(Ticket::Call);
        }
        let mut inner = self.inner.lock();
        let ticket = inner.circuit.admit(&resilience.breaker, now);
        self.gate.store(inner.circuit.gate(&resilience.breaker), Ordering::Relaxed);
        if ticket.is_none() {
            self.leave();
        }
        ticket
    }

    /// Gives the place back, and takes what the call says. Tells what the breaker has become, if it changed.
    pub(super) fn exit(
        &self,
        ticket: Ticket,
        ended: Ended<'_>,
        latency: Duration,
        resilience: &Resilience,
        now: u64,
    ) -> Option<BreakerState> {
        if !(planted::has(Bug::PlaceNotGivenBack) && matches!(ended, Ended::Cancelled)) {
            self.leave();
        }
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let counts = inner.circuit.counts(ticket, now.saturating_sub(nanos(latency)));
        let verdict = match ended {
            _ if !counts => Verdict::Unknown,
            Ended::Well | Ended::Badly(CallFailure { fault: Fault::Call, .. }, _) => Verdict::Good,
            Ended::Badly(CallFailure { fault: Fault::Node | Fault::Left, .. }, _) => Verdict::Bad,
            Ended::Badly(..) | Ended::Cancelled => Verdict::Unknown,
        };
        let before = inner.circuit.state(now);
        inner.circuit.record(ticket, verdict, &resilience.breaker, now);
        let after = inner.circuit.state(now);
        self.gate.store(inner.circuit.gate(&resilience.breaker), Ordering::Relaxed);
        if before != after && after == BreakerState::Closed {
            // What it was like while it failed tells nothing of it now.
            inner.latency = Latency::default();
        }
        match ended {
            // What it was like before it failed, or while it did, tells nothing either.
            _ if !counts => {}
            Ended::Badly(CallFailure { fault: Fault::Full, .. }, _) => inner.latency.record(latency, false, now),
            Ended::Badly(CallFailure { fault: Fault::Caller, .. }, _) => inner.latency.record_at_least(latency, now),
            _ if verdict != Verdict::Unknown => inner.latency.record(latency, verdict == Verdict::Good, now),
            _ => {}
        }
        match ended {
            Ended::Well => inner.tally.successes += 1,
            Ended::Cancelled => inner.tally.cancelled += 1,
            Ended::Badly(failure, message) => {
                inner.tally.failures += 1;
                let message = message[..message.floor_char_boundary(ROUTE_ERROR_BYTES_MAX)].to_owned();
                inner.last_error = Some(LastError { kind: failure.kind, message, at: now });
            }
        }
        (before != after).then_some(after)
    }

    /// The kind of the last failure.
    pub(super) fn last_kind(&self) -> Option<ErrorKind> {
        self.inner.lock().last_error.as_ref().map(|error| error.kind)
    }

    /// How it is.
    pub(super) fn facts(&self, now: u64) -> LinkFacts {
        let inner = self.inner.lock();
        let in_flight = self.in_flight();
        LinkFacts {
            in_flight,
            breaker: inner.circuit.state(now),
            openings: inner.circuit.openings(),
            latency_ms: inner.latency.mean_ms(),
            cost: inner.latency.cost(in_flight, now),
            tally: inner.tally,
            last_error: inner.last_error.clone(),
        }
    }

    fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
