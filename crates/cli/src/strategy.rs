//! The options that say where a deployment goes and how it gets there. What is not given has the default of its strategy.

use edgeward::{Amount, EdgeError, Gate, Probe, Selector, Strategy, StrategyKind, Target};

// No doc comment: it would become the description of each command that takes the options.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Deployment to a fleet")]
pub(crate) struct StrategyArgs {
    /// Which nodes: `all`, `node=ID,node=ID`, labels and capabilities as `site=berlin,capability=gpu`, `count=2,…` of them, or `one,…` for one node at a time under a lease; a hub is asked
    #[arg(long, value_name = "TARGET")]
    pub(crate) to: Option<Target>,
    /// How it gets there: rolling, canary or blue-green [default: rolling]
    #[arg(long, value_name = "KIND")]
    strategy: Option<StrategyKind>,
    /// Nodes that get it first, such as `5` or `10%` [default: rolling 10%, canary 5%]
    #[arg(long, value_name = "AMOUNT")]
    batch: Option<Amount>,
    /// How many times larger each batch of a rolling strategy is than the one before [default: 1]
    #[arg(long, value_name = "FACTOR")]
    growth: Option<u32>,
    /// Nodes on which it may fail to run, or which may go silent, while it goes on [default: 10%, rounded down]
    #[arg(long, value_name = "AMOUNT")]
    max_unavailable: Option<Amount>,
    /// How long a batch must do well before the next, in seconds [default: rolling 5, canary 60, blue-green 30]
    #[arg(long, value_name = "S")]
    bake: Option<f64>,
    /// Time without progress after which it is paused, in seconds [default: 600]
    #[arg(long, value_name = "S")]
    progress: Option<f64>,
    /// Wait for `edgeward rollouts approve` after the first batch
    #[arg(long)]
    approve: bool,
    /// Nodes that get it before the rest, by label or capability; given again, the next wave
    #[arg(long, value_name = "SELECTOR")]
    wave: Vec<Selector>,
    /// Invocations that may fail beyond the share that failed before, in percent [default: 5]
    #[arg(long, value_name = "PERCENT")]
    max_failures: Option<f64>,
    /// How many times slower the 95th percentile may be than before [default: 2]
    #[arg(long, value_name = "FACTOR")]
    max_slower: Option<f64>,
    /// Invocations without which it is not judged [default: 0]
    #[arg(long, value_name = "N")]
    min_samples: Option<u64>,
    /// A path that the function must answer with 2xx before it serves
    #[arg(long, value_name = "PATH")]
    probe: Option<String>,
}

impl StrategyArgs {
    /// The strategy that is given, on top of that of a project.
    pub(crate) fn over(self, project: Option<Strategy>) -> Result<Strategy, EdgeError> {
        let base = match (project, self.strategy) {
            // Another kind has other defaults.
            (Some(project), Some(kind)) if project.kind != kind => {
                Strategy { waves: project.waves, gate: project.gate, approve: project.approve, ..Strategy::new(kind) }
            }
            (Some(project), _) => project,
            (None, kind) => Strategy::new(kind.unwrap_or_default()),
        };
        let strategy = Strategy {
            kind: base.kind,
            batch: self.batch.or(base.batch),
            growth: self.growth.or(base.growth),
            max_unavailable: self.max_unavailable.or(base.max_unavailable),
            bake_seconds: self.bake.or(base.bake_seconds),
            progress_seconds: self.progress.or(base.progress_seconds),
            approve: self.approve || base.approve,
            waves: if self.wave.is_empty() { base.waves } else { self.wave },
            gate: Gate {
                failure_percent: self.max_failures.or(base.gate.failure_percent),
                p95_factor: self.max_slower.or(base.gate.p95_factor),
                min_samples: self.min_samples.or(base.gate.min_samples),
                probe: self.probe.map(|path| Probe { path }).or(base.gate.probe),
            },
        };
        strategy.validate()?;
        Ok(strategy)
    }

    /// Whether anything of a strategy is given.
    pub(crate) fn is_given(&self) -> bool {
        let Self {
            to,
            strategy,
            batch,
            growth,
            max_unavailable,
            bake,
            progress,
            approve,
            wave,
            max_failures,
            max_slower,
            min_samples,
            probe,
        } = self;
        let numbers = [bake, progress, max_failures, max_slower];
        to.is_some()
            || strategy.is_some()
            || batch.is_some()
            || growth.is_some()
            || max_unavailable.is_some()
            || numbers.into_iter().any(Option::is_some)
            || *approve
            || !wave.is_empty()
            || min_samples.is_some()
            || probe.is_some()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        strategy: StrategyArgs,
    }

    fn read(words: &[&str]) -> StrategyArgs {
        Line::try_parse_from(["line"].iter().chain(words)).expect("valid").strategy
    }

    #[test]
    fn what_is_given_wins_over_the_project() {
        let project: Strategy =
            serde_json::from_str(r#"{"kind": "canary", "batch": "20%", "bake_seconds": 9, "gate": {"min_samples": 7}}"#).expect("valid");
        let strategy = read(&["--batch", "2", "--probe", "/health"]).over(Some(project.clone())).expect("valid");
        assert_eq!((strategy.kind, strategy.batch(), strategy.bake_seconds), (StrategyKind::Canary, Amount::Count(2), Some(9.0)));
        assert_eq!((strategy.gate.min_samples(), strategy.gate.probe), (7, Some(Probe { path: "/health".to_owned() })));
        // Of another kind the project's batch says nothing.
        let other = read(&["--strategy", "blue-green"]).over(Some(project)).expect("valid");
        assert_eq!((other.batch, other.bake_seconds, other.gate.min_samples()), (None, None, 7));
    }

    #[test]
    fn nothing_given_is_a_rolling_strategy() {
        assert!(!read(&[]).is_given() && read(&["--to", "all"]).is_given() && read(&["--wave", "site=a"]).is_given());
        assert_eq!(read(&[]).over(None).expect("valid"), Strategy::default());
        assert!(read(&["--strategy", "canary", "--growth", "2"]).over(None).is_err());
    }
}
