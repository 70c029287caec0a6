//! What must hold, and when it is too bad to go on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    error::EdgeError,
    id::{DocumentName, FunctionId},
    limits::{EXPERIMENT_SECONDS_MAX, NODES_MAX},
};

/// What is looked at, and what it must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Expectation {
    /// So many of a hundred calls of a function succeed.
    SuccessRate {
        /// The function.
        function: FunctionId,
        /// How many, 0 to 100.
        at_least_percent: f64,
    },
    /// 95 of a hundred calls of a function take no longer.
    P95 {
        /// The function.
        function: FunctionId,
        /// How long, in milliseconds.
        at_most_ms: f64,
    },
    /// So many nodes are not OFFLINE.
    NodesOnline {
        /// How many.
        at_least: u32,
    },
    /// A document is the same wherever it is.
    Converged {
        /// The document.
        document: DocumentName,
    },
}

/// When a hypothesis must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Demanded {
    /// Before the faults, while they last, and again after them.
    #[default]
    Always,
    /// Before the faults, and again after them.
    Recovered,
}

/// What makes up a steady state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "HypothesisKeys", into = "HypothesisKeys")]
pub struct Hypothesis {
    /// What must hold.
    pub expectation: Expectation,
    /// When.
    pub demanded: Demanded,
    /// How long nodes may be missing or a document differ without a break while the faults last, in seconds. Calls are judged all together.
    pub tolerance_seconds: u32,
}

/// What ends an experiment before its time: an expectation that has not held for so long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "HypothesisKeys", into = "HypothesisKeys")]
pub struct AbortCondition {
    /// What must hold.
    pub expectation: Expectation,
    /// How long it may not, in seconds.
    pub for_seconds: u32,
}

/// Both as they are written: flat, with the keys of what is looked at.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HypothesisKeys {
    probe: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<FunctionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_least_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_most_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_least: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<DocumentName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    demanded: Option<Demanded>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tolerance_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    for_seconds: Option<u32>,
}

impl Expectation {
    /// The word of what it looks at.
    pub fn probe(&self) -> &'static str {
        match self {
            Self::SuccessRate { .. } => "success_rate",
            Self::P95 { .. } => "p95",
            Self::NodesOnline { .. } => "nodes_online",
            Self::Converged { .. } => "converged",
        }
    }

    /// The function whose calls it looks at.
    pub fn function(&self) -> Option<&FunctionId> {
        match self {
            Self::SuccessRate { function, .. } | Self::P95 { function, .. } => Some(function),
            Self::NodesOnline { .. } | Self::Converged { .. } => None,
        }
    }

    /// Checks its bounds.
    pub fn validate(&self) -> Result<(), EdgeError> {
        let (key, range, value) = match self {
            Self::SuccessRate { at_least_percent, .. } => ("at_least_percent", (0.0, 100.0), *at_least_percent),
            Self::P95 { at_most_ms, .. } => ("at_most_ms", (0.001, 3_600_000.0), *at_most_ms),
            Self::NodesOnline { at_least } => ("at_least", (1.0, NODES_MAX as f64), f64::from(*at_least)),
            Self::Converged { .. } => return Ok(()),
        };
        if value >= range.0 && value <= range.1 {
            return Ok(());
        }
        let probe = self.probe();
        Err(EdgeError::invalid(format!("{key} of the probe `{probe}` is {value}; it must be from {} to {}", range.0, range.1)))
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SuccessRate { function, at_least_percent } => write!(f, "success rate of {function} ≥ {at_least_percent}%"),
            Self::P95 { function, at_most_ms } => write!(f, "p95 of {function} ≤ {at_most_ms} ms"),
            Self::NodesOnline { at_least } => write!(f, "nodes online ≥ {at_least}"),
            Self::Converged { document } => write!(f, "{document} is the same everywhere"),
        }
    }
}

impl HypothesisKeys {
    /// Takes the keys of what is looked at.
    fn expectation(&mut self) -> Result<Expectation, EdgeError> {
        let probe = self.probe.clone();
        let missing = |key: &str| EdgeError::invalid(format!("the probe `{probe}` needs `{key}`"));
        let expectation = match probe.as_str() {
            "success_rate" => Expectation::SuccessRate {
                function: self.function.take().ok_or_else(|| missing("function"))?,
                at_least_percent: self.at_least_percent.take().ok_or_else(|| missing("at_least_percent"))?,
            },
            "p95" => Expectation::P95 {
                function: self.function.take().ok_or_else(|| missing("function"))?,
                at_most_ms: self.at_most_ms.take().ok_or_else(|| missing("at_most_ms"))?,
            },
            "nodes_online" => Expectation::NodesOnline { at_least: self.at_least.take().ok_or_else(|| missing("at_least"))? },
            "converged" => Expectation::Converged { document: self.document.take().ok_or_else(|| missing("document"))? },
            other => {
                let shown: String = other.chars().take(32).collect();
                let shown = shown.escape_debug();
                return Err(EdgeError::invalid(format!("there is no probe `{shown}`: write success_rate, p95, nodes_online or converged")));
            }
        };
        expectation.validate()?;
        Ok(expectation)
    }

    /// Refuses what no key was taken by.
    fn nothing_left(&self) -> Result<(), EdgeError> {
        let left = [
            ("function", self.function.is_some()),
            ("at_least_percent", self.at_least_percent.is_some()),
            ("at_most_ms", self.at_most_ms.is_some()),
            ("at_least", self.at_least.is_some()),
            ("document", self.document.is_some()),
            ("demanded", self.demanded.is_some()),
            ("tolerance_seconds", self.tolerance_seconds.is_some()),
            ("for_seconds", self.for_seconds.is_some()),
        ];
        match left.into_iter().find(|(_, is_left)| *is_left) {
            Some((key, _)) => Err(EdgeError::invalid(format!("the probe `{}` takes no `{key}` here", self.probe))),
            None => Ok(()),
        }
    }
}

fn seconds(key: &str, seconds: Option<u32>, default: u32) -> Result<u32, EdgeError> {
    match seconds {
        Some(seconds) if seconds > EXPERIMENT_SECONDS_MAX => {
            Err(EdgeError::invalid(format!("{key} is {seconds}; the most is {EXPERIMENT_SECONDS_MAX}")))
        }
        seconds => Ok(seconds.unwrap_or(default)),
    }
}

impl TryFrom<HypothesisKeys> for Hypothesis {
    type Error = EdgeError;

    fn try_from(mut keys: HypothesisKeys) -> Result<Self, EdgeError> {
        let expectation = keys.expectation()?;
        if expectation.function().is_some() && keys.tolerance_seconds.is_some() {
            let probe = expectation.probe();
            return Err(EdgeError::invalid(format!("the probe `{probe}` takes no `tolerance_seconds`: calls are judged all together")));
        }
        let demanded = keys.demanded.take().unwrap_or_default();
        let tolerance_seconds = seconds("tolerance_seconds", keys.tolerance_seconds.take(), 0)?;
        keys.nothing_left()?;
        Ok(Self { expectation, demanded, tolerance_seconds })
    }
}

impl TryFrom<HypothesisKeys> for AbortCondition {
    type Error = EdgeError;

    fn try_from(mut keys: HypothesisKeys) -> Result<Self, EdgeError> {
        let expectation = keys.expectation()?;
        let for_seconds = seconds("for_seconds", keys.for_seconds.take(), 5)?;
        keys.nothing_left()?;
        Ok(Self { expectation, for_seconds })
    }
}

impl From<Expectation> for HypothesisKeys {
    fn from(expectation: Expectation) -> Self {
        let mut keys = Self { probe: expectation.probe().to_owned(), ..Self::default() };
        match expectation {
            Expectation::SuccessRate { function, at_least_percent } => {
                (keys.function, keys.at_least_percent) = (Some(function), Some(at_least_percent));
            }
            Expectation::P95 { function, at_most_ms } => (keys.function, keys.at_most_ms) = (Some(function), Some(at_most_ms)),
            Expectation::NodesOnline { at_least } => keys.at_least = Some(at_least),
            Expectation::Converged { document } => keys.document = Some(document),
        }
        keys
    }
}

impl From<Hypothesis> for HypothesisKeys {
    fn from(hypothesis: Hypothesis) -> Self {
        let tolerance_seconds = Some(hypothesis.tolerance_seconds).filter(|seconds| *seconds > 0);
        Self { demanded: Some(hypothesis.demanded), tolerance_seconds, ..hypothesis.expectation.into() }
    }
}

impl From<AbortCondition> for HypothesisKeys {
    fn from(condition: AbortCondition) -> Self {
        Self { for_seconds: Some(condition.for_seconds), ..condition.expectation.into() }
    }
}
