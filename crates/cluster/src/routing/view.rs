//! What people and metrics see of the routes: each function with its nodes, how they do, and why a node gets no calls.

use std::{fmt, sync::atomic::Ordering};

use edgeward_model::{Balance, EdgeNodeStatus, ErrorKind, FunctionId, Locality, NodeId};
use serde::{Deserialize, Serialize};

use super::{candidate::Nearness, circuit::BreakerState, link::LinkFacts, route::Route};

/// The way of one function's calls. Counts are since the router began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteView {
    /// The function.
    pub function: FunctionId,
    /// How a node is chosen.
    pub balance: Balance,
    /// Whether near nodes come first.
    pub locality: Locality,
    /// Calls that were planned, each counted once however often it was tried.
    pub calls: u64,
    /// Attempts beside the first.
    pub retries: u64,
    /// Retries that the budget had no room for.
    pub retries_denied: u64,
    /// Attempts that found every place taken.
    pub refused_full: u64,
    /// Attempts that found no node.
    pub refused_unavailable: u64,
    /// Attempts that are under way.
    pub in_flight: u32,
    /// Its nodes, in the order in which they are asked.
    pub candidates: Vec<CandidateView>,
}

/// One function on one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateView {
    /// The node.
    pub node: NodeId,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub site: Option<String>,
    /// How near it is.
    pub nearness: Nearness,
    /// Its health.
    pub status: EdgeNodeStatus,
    /// Whether it is to be left.
    pub is_draining: bool,
    /// Its weight.
    pub weight: u32,
    /// Its breaker.
    pub breaker: BreakerState,
    /// How often that opened.
    pub openings: u64,
    /// Why it gets no calls now; none when it may.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why_not: Option<String>,
    /// Attempts that are under way.
    pub in_flight: u32,
    /// The mean of the last seconds, of attempts that did well, in milliseconds; none before the first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latency_ms: Option<f64>,
    /// What another call costs, as power of two compares it: less is better.
    pub cost: f64,
    /// Attempts for which it was chosen.
    pub picks: u64,
    /// Attempts that did well.
    pub successes: u64,
    /// Attempts that failed, through whose fault ever.
    pub failures: u64,
    /// Attempts for which nobody waited.
    pub cancelled: u64,
    /// The last failure.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error: Option<ErrorView>,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorView {
    /// Its kind.
    pub kind: ErrorKind,
    /// For people, cut.
    pub message: String,
    /// How long ago it was, in seconds.
    pub seconds_ago: f64,
}

/// Why a node gets no calls now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhyNot {
    Offline,
    CutOff,
    Full,
    Open { millis: u64, kind: ErrorKind },
    Probed,
    Weightless,
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline => f.write_str("is offline"),
            Self::CutOff => f.write_str("is out of reach, as this member is cut off"),
            Self::Full => f.write_str("has as many calls under way as it may"),
            Self::Open { millis, kind } => {
                write!(f, "failed too often ({kind}) and is tried again in {:.1} s", *millis as f64 / 1000.0)
            }
            Self::Probed => f.write_str("failed too often and is just being tried again"),
            Self::Weightless => f.write_str("has the weight 0"),
        }
    }
}

impl RouteView {
    pub(super) fn new(route: &Route, now: u64) -> Self {
        let shared = &route.shared;
        let (retries, retries_denied) = shared.budget.spent();
        let candidates = route.entries.iter().map(|entry| {
            let LinkFacts { in_flight, breaker, openings, latency_ms, cost, tally, last_error } = entry.link.facts(now);
            CandidateView {
                node: entry.candidate.node.clone(),
                site: entry.candidate.site.clone(),
                nearness: entry.nearness,
                status: entry.candidate.status,
                is_draining: entry.candidate.is_draining,
                weight: entry.candidate.weight,
                breaker,
                openings,
                why_not: route.why_not(entry, now).map(|why| why.to_string()),
                in_flight,
                latency_ms,
                cost,
                picks: u64::from(in_flight) + tally.successes + tally.failures + tally.cancelled,
                successes: tally.successes,
                failures: tally.failures,
                cancelled: tally.cancelled,
                last_error: last_error.map(|error| ErrorView {
                    kind: error.kind,
                    message: error.message,
                    seconds_ago: now.saturating_sub(error.at) as f64 / 1e9,
                }),
            }
        });
        Self {
            function: route.function.clone(),
            balance: route.resilience.balance,
            locality: route.resilience.locality,
            calls: shared.calls.load(Ordering::Relaxed),
            retries,
            retries_denied,
            refused_full: shared.refused_full.load(Ordering::Relaxed),
            refused_unavailable: shared.refused_unavailable.load(Ordering::Relaxed),
            in_flight: shared.in_flight.load(Ordering::Relaxed),
            candidates: candidates.collect(),
        }
    }
}
