//! One run of an experiment: what is to be injected now, and whether it must end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use edgeward_model::{
    Experiment, NodeId,
    chaos::{Demanded, PlannedFault},
};
use jiff::Timestamp;

use super::{
    observation::{Observation, Sum},
    report::Verdict,
};

/// A longer time without an observation ends an experiment: nobody would see that it goes wrong.
const UNSEEN_MAX: Duration = Duration::from_secs(10);
/// Observations of one experiment: more than one a second for the longest one.
const OBSERVATIONS_MAX: usize = 20_000;

/// What to do until the next observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Have these faults of the experiment injected, by their places, and no others.
    Inject(BTreeSet<usize>),
    /// Remove every fault: it is over.
    End,
}

/// A run. Whoever drives it observes once a second or so, and injects what it says.
#[derive(Clone, Debug)]
pub struct Trial {
    pub(super) experiment: Experiment,
    pub(super) started_at: Timestamp,
    pub(super) observations: Vec<Observation>,
    /// Which nodes each fault hit.
    pub(super) hit: BTreeMap<usize, BTreeSet<NodeId>>,
    /// Since when each condition to abort has been met.
    abort_since: Vec<Option<Duration>>,
    is_begun: bool,
    /// Why it ended before its time.
    pub(super) ended: Option<(Verdict, String)>,
    is_over: bool,
}

impl Trial {
    /// A run that begins now.
    pub fn new(experiment: Experiment, started_at: Timestamp) -> Self {
        Self {
            abort_since: vec![None; experiment.abort.len()],
            experiment,
            started_at,
            observations: Vec::new(),
            hit: BTreeMap::new(),
            is_begun: false,
            ended: None,
            is_over: false,
        }
    }

    /// The experiment.
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Tells which nodes a fault was injected on, for the report.
    pub fn hit(&mut self, fault: usize, nodes: BTreeSet<NodeId>) {
        self.hit.entry(fault).or_default().extend(nodes);
    }

    /// Ends it before its time, for a reason from outside.
    pub fn abort(&mut self, why: impl Into<String>) {
        self.end(Verdict::Aborted, why.into());
    }

    /// Takes what was seen, and says what to do until the next time.
    pub fn observe(&mut self, observation: Observation) -> Next {
        if self.is_over {
            return Next::End;
        }
        let (at, before) = (observation.at, self.experiment.before());
        let last = self.observations.last().map_or(Duration::ZERO, |last| last.at);
        if at.saturating_sub(last) > UNSEEN_MAX {
            self.end(Verdict::Aborted, format!("nothing was seen for {} s", at.saturating_sub(last).as_secs()));
        } else if self.observations.len() >= OBSERVATIONS_MAX {
            self.end(Verdict::Aborted, format!("there were more than {OBSERVATIONS_MAX} observations"));
        }
        self.observations.push(observation);
        if !self.is_over && at >= before {
            if !self.is_begun {
                self.is_begun = true;
                self.check_steady_state();
            }
            self.check_abort();
        }
        if at >= self.experiment.total() {
            self.is_over = true;
        }
        if self.is_over {
            return Next::End;
        }
        let Some(since) = at.checked_sub(before) else { return Next::Inject(BTreeSet::new()) };
        let spans = self.experiment.faults.iter().map(PlannedFault::span).enumerate();
        Next::Inject(spans.filter(|(_, (from, to))| *from <= since && since < *to).map(|(index, _)| index).collect())
    }

    /// Nothing is injected into what is not well.
    fn check_steady_state(&mut self) {
        for hypothesis in &self.experiment.steady_state {
            let expectation = &hypothesis.expectation;
            let sum = Sum::of(expectation, &self.observations);
            let why = match sum.holds(expectation) {
                Some(true) => continue,
                Some(false) => format!("`{expectation}` does not hold before anything is injected: {}", sum.shown(expectation)),
                None if hypothesis.demanded == Demanded::Recovered => continue,
                None => format!("nothing is known of `{expectation}`: there are no calls, or nothing was compared"),
            };
            return self.end(Verdict::NotSteady, why);
        }
    }

    fn check_abort(&mut self) {
        let Some(last) = self.observations.last() else { return };
        let mut why = None;
        for (condition, since) in self.experiment.abort.iter().zip(&mut self.abort_since) {
            let sum = Sum::of(&condition.expectation, [last]);
            match sum.holds(&condition.expectation) {
                Some(false) => {
                    let began = *since.get_or_insert(last.at);
                    let lasted = last.at.saturating_sub(began).as_secs();
                    if lasted >= u64::from(condition.for_seconds) {
                        let (expectation, value) = (&condition.expectation, sum.shown(&condition.expectation));
                        why = Some(format!("`{expectation}` has not held for {lasted} s: {value}"));
                    }
                }
                Some(true) => *since = None,
                // What is not known is no reason, and no comfort.
                None => {}
            }
        }
        if let Some(why) = why {
            self.end(Verdict::Aborted, why);
        }
    }

    fn end(&mut self, verdict: Verdict, why: String) {
        if !self.is_over {
            (self.is_over, self.ended) = (true, Some((verdict, why)));
        }
    }
}
