//! What a run of the simulation is like, and what comes of it.

use std::{collections::BTreeMap, time::Duration};

use edgeward_model::Resilience;

use super::{
    super::{BreakerState, RouteView},
    node::Fault,
};

/// What a run is like.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) resilience: Resilience,
    pub(super) deadline: Duration,
    pub(super) callers: usize,
    pub(super) nodes: usize,
    /// A caller waits so long on average before its next call.
    pub(super) pause: Duration,
    /// How many nodes, the first ones, have the fault.
    pub(super) faulty: usize,
    pub(super) fault: Fault,
    pub(super) from: Duration,
    pub(super) until: Duration,
    pub(super) end: Duration,
}

/// What came of a run.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    pub(super) calls: u64,
    pub(super) failed: BTreeMap<String, u64>,
    pub(super) attempts: u64,
    pub(super) cancelled: u64,
    /// How long the calls took that did well, sorted.
    pub(super) micros: Vec<u64>,
    /// Attempts on each node while the fault was there.
    pub(super) in_fault: Vec<u64>,
    /// Attempts on each node in the last fifth of the time.
    pub(super) at_end: Vec<u64>,
    pub(super) view: Option<RouteView>,
}

impl Outcome {
    /// The share of calls that did well.
    pub(super) fn success(&self) -> f64 {
        1.0 - self.failed.values().sum::<u64>() as f64 / self.calls as f64
    }

    /// Of the times that calls took that did well.
    pub(super) fn p99(&self) -> Duration {
        Duration::from_micros(self.micros.get(self.micros.len() * 99 / 100).copied().unwrap_or(u64::MAX))
    }

    /// The longest of them.
    pub(super) fn slowest(&self) -> Duration {
        Duration::from_micros(self.micros.last().copied().unwrap_or_default())
    }
}

/// How the breaker of a node ended.
pub(super) fn breaker(view: &RouteView, node: &str) -> (BreakerState, u64) {
    let candidate = view.candidates.iter().find(|candidate| candidate.node.as_str() == node).expect("it is one of them");
    (candidate.breaker, candidate.openings)
}
