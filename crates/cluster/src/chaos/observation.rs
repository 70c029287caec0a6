//! What was seen of a fleet at one moment of an experiment.

use std::{collections::BTreeMap, time::Duration};

use edgeward_model::{DocumentName, FunctionId, chaos::Expectation};
use serde::{Deserialize, Serialize};

use super::latencies::Latencies;

/// Calls of a function.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calls {
    /// How many failed.
    pub failed: u64,
    /// How long all of them took.
    pub latencies: Latencies,
}

/// Calls that ended, by the second of the experiment in which each was due: its first second is 0.
pub type CallsByDue = BTreeMap<u64, BTreeMap<FunctionId, Calls>>;

/// What was seen, once a second or so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// When, since the experiment began, by a clock that never goes back.
    pub at: Duration,
    /// Calls that ended since the observation before.
    pub calls: CallsByDue,
    /// Nodes that are not OFFLINE.
    pub nodes_online: u32,
    /// Whether documents are the same wherever they are; of those that were compared.
    pub converged: BTreeMap<DocumentName, bool>,
}

/// What observations come to, added up.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    calls: Calls,
    nodes_online_min: Option<u32>,
    compared: u64,
    differed: u64,
}

impl Calls {
    /// Adds a call that took so long, in milliseconds.
    pub fn add(&mut self, is_success: bool, millis: f64) {
        self.failed += u64::from(!is_success);
        self.latencies.add(millis, 1);
    }

    /// Adds so many that have not ended after so long, in milliseconds: they count as failed.
    pub(super) fn give_up(&mut self, count: u64, millis: f64) {
        self.failed += count;
        self.latencies.add(millis, count);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.latencies.count()
    }

    /// Adds all of another one.
    pub fn merge(&mut self, other: &Self) {
        self.failed += other.failed;
        self.latencies.merge(&other.latencies);
    }

    /// How many of a hundred succeeded; none without calls.
    pub fn success_percent(&self) -> Option<f64> {
        let count = self.latencies.count();
        (count > 0).then(|| 100.0 * (count.saturating_sub(self.failed)) as f64 / count as f64)
    }
}

impl Sum {
    /// Of calls.
    pub(super) fn of_calls(calls: Calls) -> Self {
        Self { calls, ..Self::default() }
    }

    /// Of the nodes and documents of one moment, as far as an expectation is about them.
    pub(super) fn of_state(expectation: &Expectation, nodes_online: u32, converged: &BTreeMap<DocumentName, bool>) -> Self {
        let mut sum = Self { nodes_online_min: Some(nodes_online), ..Self::default() };
        if let Expectation::Converged { document } = expectation
            && let Some(converged) = converged.get(document)
        {
            (sum.compared, sum.differed) = (1, u64::from(!converged));
        }
        sum
    }

    /// Adds all of another one.
    pub(super) fn merge(&mut self, other: &Self) {
        self.calls.merge(&other.calls);
        self.nodes_online_min = self.nodes_online_min.into_iter().chain(other.nodes_online_min).min();
        self.compared += other.compared;
        self.differed += other.differed;
    }

    /// All of these together.
    pub(super) fn all<'a>(sums: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        sums.into_iter().for_each(|sum| all.merge(sum));
        all
    }

    /// The same, as if one call fewer had failed.
    pub(super) fn but_for_one_call(mut self) -> Self {
        self.calls.failed = self.calls.failed.saturating_sub(1);
        self
    }

    /// The number that is judged: percent, milliseconds, or nodes; none when nothing is known.
    pub(super) fn value(&self, expectation: &Expectation) -> Option<f64> {
        match expectation {
            Expectation::SuccessRate { .. } => self.calls.success_percent(),
            Expectation::P95 { .. } => self.calls.latencies.p95_ms(),
            Expectation::NodesOnline { .. } => self.nodes_online_min.map(f64::from),
            Expectation::Converged { .. } => {
                (self.compared > 0).then(|| 100.0 * (self.compared - self.differed) as f64 / self.compared as f64)
            }
        }
    }

    /// Whether it is as expected; none when nothing is known.
    pub(super) fn holds(&self, expectation: &Expectation) -> Option<bool> {
        let value = self.value(expectation)?;
        Some(match expectation {
            Expectation::SuccessRate { at_least_percent, .. } => value >= *at_least_percent,
            Expectation::P95 { at_most_ms, .. } => value <= *at_most_ms,
            Expectation::NodesOnline { at_least } => value >= f64::from(*at_least),
            Expectation::Converged { .. } => self.differed == 0,
        })
    }

    /// The number with its unit, for people.
    pub(super) fn shown(&self, expectation: &Expectation) -> String {
        let Some(value) = self.value(expectation) else { return "–".to_owned() };
        match expectation {
            Expectation::SuccessRate { .. } => format!("{value:.2}%"),
            Expectation::P95 { .. } if value < 10.0 => format!("{value:.2} ms"),
            Expectation::P95 { .. } => format!("{value:.0} ms"),
            Expectation::NodesOnline { .. } => format!("{value:.0}"),
            Expectation::Converged { .. } if self.differed == 0 => "always".to_owned(),
            Expectation::Converged { .. } => format!("{value:.0}% of the time"),
        }
    }
}
