//! What is true of a node with regard to one function: what it was ordered, and what it says.

use edgeward_model::FunctionId;
use serde::{Deserialize, Serialize};

use crate::planted::{self, Bug};

/// What a node is to have of a function, by revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What serves; none when it is to have nothing.
    pub serve: Option<u64>,
    /// What is ready beside it, so that it can take its place at once.
    pub warm: Option<u64>,
    /// Whether it need not go back from what serves any more.
    pub is_confirmed: bool,
}

impl Order {
    /// To serve this alone.
    pub fn only(serve: Option<u64>) -> Self {
        Self { serve, warm: None, is_confirmed: false }
    }

    /// To serve this, and to have this ready beside it.
    pub fn beside(serve: Option<u64>, warm: Option<u64>) -> Self {
        Self { serve, warm, is_confirmed: false }
    }

    /// To serve this alone, which has come to stay.
    pub fn confirmed(serve: u64) -> Self {
        Self { serve: Some(serve), warm: None, is_confirmed: true }
    }
}

/// How far a node is with what it was ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Served {
    /// It has not said, or is at it.
    #[default]
    Pending,
    /// It serves what it was ordered.
    Ready,
    /// It cannot.
    Failed,
}

/// Invocations of one revision on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// How many.
    pub calls: u64,
    /// How many of them failed.
    pub errors: u64,
    /// Their 95th percentile, in milliseconds.
    pub p95_ms: f64,
}

/// What a node says about the order that it has now. What it said about another is not here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// How far it is.
    pub served: Served,
    /// Why it cannot, or what it waits for.
    pub message: String,
    /// How far it is with what is to be warm.
    pub warm: Served,
    /// Invocations of what serves.
    pub sample: Sample,
    /// Those of what served before on the same node.
    pub before: Sample,
    /// Whether it has served for the time that its order says when it told the invocations above.
    pub has_baked: bool,
}

/// A node as a rollout sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// Whether the deployment wants it there.
    pub in_target: bool,
    /// The wave that it belongs to.
    pub wave: usize,
    /// Whether it is heard.
    pub is_reachable: bool,
    /// Whether it, or somebody for it, wants no changes now.
    pub holds: bool,
    /// What it was ordered; none when it has nothing of this function.
    pub ordered: Option<Order>,
    /// Why the order that was given last could not be written, if it could not: to give it again is no progress.
    pub order_failure: Option<String>,
    /// What it says about that order.
    pub observed: Observed,
}

impl NodeFacts {
    /// The revision that it was ordered to serve.
    pub fn serves(&self) -> Option<u64> {
        self.ordered.and_then(|order| order.serve)
    }

    /// The revision that it was ordered to keep ready.
    pub fn warm(&self) -> Option<u64> {
        self.ordered.and_then(|order| order.warm)
    }

    /// What it served before what it is given next, which is `to`: the revision that it goes back to. That is what it was ordered to serve, but
    /// when it has not got there, what it had until then.
    pub(super) fn former(&self, to: u64) -> Option<u64> {
        let is_there = self.observed.served == Served::Ready || planted::has(Bug::FormerOfLateForgotten);
        self.warm().filter(|warm| !is_there && *warm != to).or_else(|| self.serves())
    }

    /// Whether it can be given something now.
    pub fn can_take(&self) -> bool {
        self.is_reachable && (!self.holds || planted::has(Bug::HoldingOrdered))
    }
}

/// The name of a function and a revision of it, for people.
pub(super) fn named(function: &FunctionId, revision: u64) -> String {
    format!("revision {revision} of function `{function}`")
}
