//! How a new revision gets to its nodes, and what must hold before it goes on.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    deployment::{Amount, Selector},
    error::EdgeError,
    limits::{BAKE_SECONDS_MAX, PROBE_PATH_BYTES_MAX, PROGRESS_SECONDS_MAX, ROLLOUT_GROWTH_MAX, WAVES_MAX},
};

/// The kind of a strategy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrategyKind {
    /// Batch after batch.
    #[default]
    Rolling,
    /// A few nodes first, and then the rest.
    Canary,
    /// Prepared on every node, then switched at once; the former revision stays warm until it is confirmed.
    BlueGreen,
}

impl StrategyKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Rolling, Self::Canary, Self::BlueGreen];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::Canary => "canary",
            Self::BlueGreen => "blue-green",
        }
    }
}

impl fmt::Display for StrategyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for StrategyKind {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(32).collect();
            EdgeError::invalid(format!("`{}` is no strategy: rolling, canary or blue-green", shown.escape_debug()))
        })
    }
}

/// How a new revision gets to its nodes. What is not said has its default; that of `batch` and `bake_seconds` depends on the kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Strategy {
    /// The kind.
    #[serde(default)]
    pub kind: StrategyKind,
    /// Nodes that get the revision first, of those of a wave: rolling 10%, canary 5%; blue-green has no batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Amount>,
    /// How many times larger each batch of a rolling strategy is than the one before; 1 when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<u32>,
    /// Nodes, of those that have the revision, which may fail to run it or be silent while the rollout goes on; 10% rounded down when it is
    /// not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<Amount>,
    /// How long a batch must do well before the next, in seconds: rolling 5, canary 60, blue-green 30 before the former revision goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake_seconds: Option<f64>,
    /// Time without progress after which the rollout is paused, in seconds; 600 when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_seconds: Option<f64>,
    /// Whether somebody must approve after the first batch, or before a blue-green deployment is confirmed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approve: bool,
    /// Parts of the target that get it one after the other; nodes of none of them come last. Without any, all nodes are one wave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waves: Vec<Selector>,
    /// What is judged.
    #[serde(default, skip_serializing_if = "Gate::is_default")]
    pub gate: Gate,
}

/// What a revision must keep to, against the one before it on the same nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Gate {
    /// Invocations that may fail beyond the share that failed before, in percent of all; 5 when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_percent: Option<f64>,
    /// How many times slower the 95th percentile may be than before; 2 when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95_factor: Option<f64>,
    /// Invocations of the new revision without which it is not judged; with fewer the rollout waits. 0 when it is not said: nodes without
    /// traffic pass by their probe alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_samples: Option<u64>,
    /// What a node asks the function before it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
}

/// A request that a function must answer with a status of 2xx before it serves. Functions that see no requests are invoked with an empty payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Probe {
    /// The path with its query, such as `/health`.
    pub path: String,
}

crate::map_only!(Strategy, Gate, Probe);

crate::written_as_derived!(Strategy, Gate, Probe);

impl Gate {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Failures that are added, in percent.
    pub fn failure_percent(&self) -> f64 {
        self.failure_percent.unwrap_or(5.0)
    }

    /// How many times slower it may be.
    pub fn p95_factor(&self) -> f64 {
        self.p95_factor.unwrap_or(2.0)
    }

    /// Invocations without which nothing is judged.
    pub fn min_samples(&self) -> u64 {
        self.min_samples.unwrap_or(0)
    }
}

impl Strategy {
    /// A strategy of this kind with its defaults.
    pub fn new(kind: StrategyKind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// To all nodes at once, judged by the same gate: for a revision that ran there before.
    #[must_use]
    pub fn at_once(&self) -> Self {
        Self { batch: Some(Amount::ALL), bake_seconds: Some(0.0), gate: self.gate.clone(), ..Self::new(StrategyKind::Rolling) }
    }

    /// Nodes of a wave that get it first.
    pub fn batch(&self) -> Amount {
        self.batch.unwrap_or(match self.kind {
            StrategyKind::Rolling => Amount::Percent(10),
            StrategyKind::Canary => Amount::Percent(5),
            StrategyKind::BlueGreen => Amount::ALL,
        })
    }

    /// How many nodes of a wave may have it after a batch that did well, when `allowed` of `total` had it.
    pub fn next(&self, allowed: usize, total: usize) -> usize {
        match self.kind {
            StrategyKind::Rolling => {
                let first = self.batch().at_least_one_of(total);
                let growth = usize::try_from(self.growth.unwrap_or(1)).unwrap_or(usize::MAX);
                // Batches first, first × growth, first × growth², …: the last one was so large.
                let (mut sum, mut batch) = (0_usize, first.max(1));
                while sum + batch <= allowed {
                    sum += batch;
                    batch = batch.saturating_mul(growth.max(1)).min(total.max(1));
                }
                (sum + batch).min(total)
            }
            StrategyKind::Canary if allowed == 0 => self.batch().at_least_one_of(total),
            StrategyKind::Canary | StrategyKind::BlueGreen => total,
        }
    }

    /// Nodes that may be unavailable.
    pub fn max_unavailable(&self) -> Amount {
        self.max_unavailable.unwrap_or(Amount::Percent(10))
    }

    /// How long a batch must do well.
    pub fn bake(&self) -> Duration {
        seconds(self.bake_seconds.unwrap_or(match self.kind {
            StrategyKind::Rolling => 5.0,
            StrategyKind::Canary => 60.0,
            StrategyKind::BlueGreen => 30.0,
        }))
    }

    /// Time without progress after which it is paused.
    pub fn progress(&self) -> Duration {
        seconds(self.progress_seconds.unwrap_or(600.0))
    }

    /// Checks every field against its bound.
    pub fn validate(&self) -> Result<(), EdgeError> {
        let within = |what: &str, value: Option<f64>, low: f64, high: f64| match value {
            Some(value) if !(low..=high).contains(&value) => {
                Err(EdgeError::invalid(format!("{what} of the strategy is {value}; it must be from {low} to {high}")))
            }
            _ => Ok(()),
        };
        within("bake_seconds", self.bake_seconds, 0.0, BAKE_SECONDS_MAX)?;
        within("progress_seconds", self.progress_seconds, 1.0, PROGRESS_SECONDS_MAX)?;
        within("failure_percent", self.gate.failure_percent, 0.0, 100.0)?;
        within("p95_factor", self.gate.p95_factor, 1.0, 1000.0)?;
        within("growth", self.growth.map(f64::from), 1.0, f64::from(ROLLOUT_GROWTH_MAX))?;
        if self.growth.is_some() && self.kind != StrategyKind::Rolling {
            return Err(EdgeError::invalid(format!("growth is for a rolling strategy, not for {}", self.kind)));
        }
        if self.batch.is_some() && self.kind == StrategyKind::BlueGreen {
            return Err(EdgeError::invalid("a blue-green strategy switches all nodes of a wave at once; it takes no batch"));
        }
        if self.waves.len() > WAVES_MAX {
            return Err(EdgeError::invalid(format!("a strategy has at most {WAVES_MAX} waves, not {}", self.waves.len())));
        }
        self.batch.map_or(Ok(()), Amount::validate)?;
        self.max_unavailable.map_or(Ok(()), Amount::validate)?;
        self.waves.iter().try_for_each(Selector::validate)?;
        self.gate.probe.as_ref().map_or(Ok(()), Probe::validate)
    }
}

impl Probe {
    /// Checks the path.
    pub fn validate(&self) -> Result<(), EdgeError> {
        let is_path = self.path.starts_with('/') && self.path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if is_path && self.path.len() <= PROBE_PATH_BYTES_MAX {
            return Ok(());
        }
        let shown: String = self.path.chars().take(64).collect();
        Err(EdgeError::invalid(format!(
            "the path of a probe, `{}`, is not valid: it begins with `/`, has printable ASCII and at most {PROBE_PATH_BYTES_MAX} bytes",
            shown.escape_debug()
        )))
    }
}

/// A time that was checked, or one that is as long as can be.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(strategy: &Strategy, total: usize) -> Vec<usize> {
        let mut steps = vec![strategy.next(0, total)];
        while steps[steps.len() - 1] < total {
            steps.push(strategy.next(steps[steps.len() - 1], total));
        }
        steps
    }

    #[test]
    fn batches_follow_each_other_to_the_last_node() {
        let rolling = Strategy { batch: Some(Amount::Count(3)), ..Strategy::default() };
        assert_eq!(steps(&rolling, 8), [3, 6, 8]);
        assert_eq!(steps(&Strategy { growth: Some(2), ..rolling.clone() }, 20), [3, 9, 20]);
        assert_eq!(steps(&Strategy::default(), 20), (1..=10).map(|n| n * 2).collect::<Vec<_>>());
        assert_eq!(steps(&Strategy::new(StrategyKind::Canary), 100), [5, 100]);
        assert_eq!(steps(&Strategy::new(StrategyKind::Canary), 1), [1]);
        assert_eq!(steps(&Strategy::new(StrategyKind::BlueGreen), 7), [7]);
        assert_eq!(rolling.next(0, 0), 0);
    }

    #[test]
    fn a_batch_goes_on_from_where_a_fleet_that_grew_stands() {
        let rolling = Strategy { batch: Some(Amount::Percent(10)), ..Strategy::default() };
        // 5 of 50 had it; now there are 100 nodes.
        assert_eq!(rolling.next(5, 100), 10);
        assert_eq!(rolling.next(200, 100), 100);
    }

    #[test]
    fn what_is_past_its_bound_or_makes_no_sense_is_refused() {
        let refused = |strategy: Strategy| strategy.validate().expect_err("refused").to_string();
        let of = Strategy::new;
        assert!(refused(Strategy { bake_seconds: Some(-1.0), ..Strategy::default() }).contains("bake_seconds"));
        assert!(refused(Strategy { bake_seconds: Some(f64::NAN), ..Strategy::default() }).contains("bake_seconds"));
        assert!(refused(Strategy { growth: Some(0), ..Strategy::default() }).contains("growth"));
        assert!(refused(Strategy { growth: Some(2), ..of(StrategyKind::Canary) }).contains("rolling"));
        assert!(refused(Strategy { batch: Some(Amount::ALL), ..of(StrategyKind::BlueGreen) }).contains("no batch"));
        assert!(refused(Strategy { waves: vec![Selector::default(); WAVES_MAX + 1], ..Strategy::default() }).contains("waves"));
        let batch = Some(Amount::Percent(200));
        assert!(refused(Strategy { batch, ..Strategy::default() }).contains("`200%` is no amount"));
        assert!(refused(Strategy { max_unavailable: batch, ..Strategy::default() }).contains("`200%` is no amount"));
        let wave = Selector { capabilities: ["gpu,camera".to_owned()].into(), ..Selector::default() };
        assert!(refused(Strategy { waves: vec![wave], ..Strategy::default() }).contains("`camera`"));
        for path in ["health", "/a b", "/ä", "/a#b"] {
            let gate = Gate { probe: Some(Probe { path: path.to_owned() }), ..Gate::default() };
            assert!(refused(Strategy { gate, ..Strategy::default() }).contains("probe"), "{path}");
        }
        for kind in StrategyKind::ALL {
            of(kind).validate().expect("its defaults are valid");
            assert_eq!(kind.as_str().parse::<StrategyKind>().expect("its word"), kind);
        }
    }

    #[test]
    fn what_is_not_said_is_not_written() {
        assert_eq!(serde_json::to_string(&Strategy::default()).expect("JSON"), r#"{"kind":"rolling"}"#);
        let read: Strategy = serde_json::from_str(r#"{"kind": "canary", "batch": 2, "gate": {"min_samples": 20}}"#).expect("valid");
        assert_eq!((read.batch(), read.gate.min_samples(), read.bake()), (Amount::Count(2), 20, Duration::from_mins(1)));
        assert!(serde_json::from_str::<Strategy>(r#"{"kind": "rolling", "bath": 2}"#).is_err(), "a word that is not known");
        for list in [r#"["canary", 2]"#, r#"{"gate": [50.0]}"#, r#"{"gate": {"probe": ["/health"]}}"#] {
            let error = serde_json::from_str::<Strategy>(list).expect_err("a list").to_string();
            assert!(error.contains("expected fields with their names"), "{error}");
        }
    }
}
