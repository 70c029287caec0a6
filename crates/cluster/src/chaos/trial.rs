//! One run of an experiment: what is to be injected now, and whether it must end.
//!
//! A call belongs to the second in which it was due, however late it ends. What was seen of nodes and documents belongs to the time since the look
//! before, whose word on the faults was in force until then.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use edgeward_model::{
    DocumentName, Experiment, FunctionId, NodeId,
    chaos::{Demanded, Expectation, FaultKind, PlannedFault},
};
use jiff::Timestamp;

use super::{
    judging::within_tolerance,
    observation::{Calls, CallsByDue, Observation, Sum},
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

/// A run. Whoever drives it observes once a second or so, injects what it says, and [settles](Trial::settle) it in the end.
#[derive(Clone, Debug)]
pub struct Trial {
    pub(super) experiment: Experiment,
    pub(super) started_at: Timestamp,
    /// The longest that one of its calls may take.
    call_max: Duration,
    pub(super) seen: Vec<Seen>,
    /// Calls that ended, by the second in which they were due.
    pub(super) calls: BTreeMap<FunctionId, BTreeMap<u64, Calls>>,
    /// Those of them that were due before the faults, and ended after they had begun.
    pub(super) carried: BTreeMap<FunctionId, Calls>,
    /// Which nodes each fault hit, and since when.
    pub(super) hit: BTreeMap<usize, (Duration, BTreeSet<NodeId>)>,
    /// How many seconds each expectation to abort for leaves a call to end.
    patience: Vec<u64>,
    /// Since when each condition to abort has been met.
    abort_since: Vec<Option<Duration>>,
    is_begun: bool,
    /// Why it ended before its time.
    pub(super) ended: Option<(Verdict, String)>,
    is_over: bool,
    pub(super) is_settled: bool,
}

/// Nodes and documents, as they were at one moment.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// When it was looked before.
    pub(super) from: Duration,
    pub(super) at: Duration,
    pub(super) nodes_online: u32,
    pub(super) converged: BTreeMap<DocumentName, bool>,
}

impl Trial {
    /// A run that begins now, of which no call takes longer than this.
    pub fn new(experiment: Experiment, started_at: Timestamp, call_max: Duration) -> Self {
        Self {
            abort_since: vec![None; experiment.abort.len()],
            patience: Vec::new(),
            experiment,
            started_at,
            call_max,
            seen: Vec::new(),
            calls: BTreeMap::new(),
            carried: BTreeMap::new(),
            hit: BTreeMap::new(),
            is_begun: false,
            ended: None,
            is_over: false,
            is_settled: false,
        }
    }

    /// The experiment.
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// When it began.
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// The longest that one of its calls may take.
    pub fn call_max(&self) -> Duration {
        self.call_max
    }

    /// Whether no fault is to be injected any more.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether it ended before its time: calls that are under way tell nothing more.
    pub fn is_cut_short(&self) -> bool {
        self.ended.is_some()
    }

    /// Tells which nodes a fault was injected on, since the last look.
    pub fn hit(&mut self, fault: usize, nodes: BTreeSet<NodeId>) {
        let now = self.last_at();
        self.hit.entry(fault).or_insert_with(|| (now, BTreeSet::new())).1.extend(nodes);
    }

    /// The nodes on which a fault was injected.
    pub(super) fn nodes_hit(&self, fault: usize) -> impl ExactSizeIterator<Item = &NodeId> {
        self.hit.get(&fault).map(|(_, nodes)| nodes.iter()).unwrap_or_default()
    }

    /// Ends it before its time, for a reason from outside.
    pub fn abort(&mut self, why: impl Into<String>) {
        if !self.is_settled {
            self.end(Verdict::Aborted, why.into());
        }
    }

    /// Takes what was seen, and says what to do until the next time.
    pub fn observe(&mut self, Observation { at, calls, nodes_online, converged }: Observation) -> Next {
        if self.is_over {
            return Next::End;
        }
        let (last, before) = (self.last_at(), self.experiment.before());
        if at.saturating_sub(last) > UNSEEN_MAX {
            self.end(Verdict::Aborted, format!("nothing was seen for {} s", at.saturating_sub(last).as_secs()));
        } else if self.seen.len() >= OBSERVATIONS_MAX {
            self.end(Verdict::Aborted, format!("there were more than {OBSERVATIONS_MAX} observations"));
        }
        self.take(calls);
        self.seen.push(Seen { from: last, at, nodes_online, converged });
        if !self.is_over && at >= before {
            if !self.is_begun {
                self.is_begun = true;
                self.patience = self.experiment.abort.iter().map(|condition| self.patience(&condition.expectation)).collect();
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

    /// Takes the calls that ended since the last observation of a run that is over. What has not ended now counts as failed, unless the run ended before
    /// its time.
    pub fn settle(&mut self, calls: CallsByDue, now: Duration) {
        self.take(calls);
        let mut functions: BTreeSet<_> = self.experiment.loads.iter().map(|load| load.function.clone()).collect();
        if self.ended.is_some() {
            functions.clear();
        }
        for function in &functions {
            for second in 0..self.experiment.total().as_secs() {
                let count = self.under_way(function, second);
                let mut given_up = Calls::default();
                given_up.give_up(count, now.saturating_sub(Duration::from_secs(second)).as_secs_f64() * 1e3);
                self.add(second, function.clone(), &given_up);
            }
        }
        self.is_settled = true;
    }

    /// When it was looked last.
    pub(super) fn last_at(&self) -> Duration {
        self.seen.last().map_or(Duration::ZERO, |last| last.at)
    }

    fn take(&mut self, calls: CallsByDue) {
        for (second, of_functions) in calls {
            for (function, calls) in of_functions {
                self.add(second, function, &calls);
            }
        }
    }

    fn add(&mut self, second: u64, function: FunctionId, calls: &Calls) {
        if calls.count() == 0 {
            return;
        }
        let begin = self.faulty_seconds().0;
        // They ended after the last look, which is when the faults began.
        if second < begin && self.last_at() >= Duration::from_secs(begin) {
            self.carried.entry(function.clone()).or_default().merge(calls);
        }
        self.calls.entry(function).or_default().entry(second).or_default().merge(calls);
    }

    /// From which second to which faults are injected.
    pub(super) fn faulty_seconds(&self) -> (u64, u64) {
        let (begin, end) = self.experiment.faulty_span();
        let before = self.experiment.before();
        ((before + begin).as_secs(), (before + end).as_secs())
    }

    /// How many calls were due in a second and have not ended.
    fn under_way(&self, function: &FunctionId, second: u64) -> u64 {
        let loads = self.experiment.loads.iter().filter(|load| load.function == *function);
        let due: u64 = loads.map(|load| u64::from(load.per_second)).sum();
        let ended = self.calls.get(function).and_then(|calls| calls.get(&second)).map_or(0, Calls::count);
        due.saturating_sub(ended)
    }

    /// What an expectation is about, second by second.
    pub(super) fn by_second(&self, expectation: &Expectation) -> Vec<(u64, Sum)> {
        if let Some(function) = expectation.function() {
            let calls = self.calls.get(function).into_iter().flatten();
            return calls.map(|(second, calls)| (*second, Sum::of_calls(calls.clone()))).collect();
        }
        let of = |seen: &Seen| (seen.from.as_secs(), Sum::of_state(expectation, seen.nodes_online, &seen.converged));
        self.seen.iter().map(of).collect()
    }

    /// Nothing is injected into what is not well.
    fn check_steady_state(&mut self) {
        for hypothesis in &self.experiment.steady_state {
            let expectation = &hypothesis.expectation;
            let seen = self.by_second(expectation);
            let sum = Sum::all(seen.iter().map(|(_, sum)| sum));
            let holds = if expectation.function().is_some() { sum.holds(expectation) } else { within_tolerance(hypothesis, &seen) };
            let why = match holds {
                Some(true) => continue,
                Some(false) => format!("`{expectation}` does not hold before anything is injected: {}", sum.shown(expectation)),
                None if hypothesis.demanded == Demanded::Recovered => continue,
                None => format!("nothing is known of `{expectation}`: there are no calls, or nothing was compared"),
            };
            return self.end(Verdict::NotSteady, why);
        }
    }

    /// How many seconds a call may be under way before it counts as too slow, or as failed where nothing says how slow it may be: as long as the slowest
    /// took before the faults, and what they delay it by.
    fn patience(&self, expectation: &Expectation) -> u64 {
        let time = match expectation {
            Expectation::P95 { at_most_ms, .. } => Duration::from_secs_f64(*at_most_ms / 1e3),
            Expectation::SuccessRate { function, .. } => {
                let calls = self.calls.get(function).into_iter().flat_map(BTreeMap::values);
                let slowest = calls.filter_map(|calls| calls.latencies.slowest_ms()).reduce(f64::max);
                let delays = self.experiment.faults.iter().filter_map(|planned| match planned.fault.kind {
                    FaultKind::Latency { delay_ms, jitter_ms } => Some(u64::from(delay_ms) + u64::from(jitter_ms)),
                    _ => None,
                });
                let delay = Duration::from_millis(delays.sum());
                slowest.map_or(self.call_max, |millis| delay + Duration::from_secs_f64(millis / 1e3))
            }
            Expectation::NodesOnline { .. } | Expectation::Converged { .. } => return 0,
        };
        time.min(self.call_max).as_millis().div_ceil(1000).try_into().expect("a call takes no such time")
    }

    /// What an expectation to abort for is about now. Of calls it is those of the last second that left them the time that they need: what is still under
    /// way is too late.
    fn to_abort_for(&self, expectation: &Expectation, patience: u64) -> Option<Sum> {
        let last = self.seen.last()?;
        let Some(function) = expectation.function() else {
            return Some(Sum::of_state(expectation, last.nodes_online, &last.converged));
        };
        let second = last.at.as_secs().checked_sub(1 + patience)?;
        let mut calls = self.calls.get(function).and_then(|calls| calls.get(&second)).cloned().unwrap_or_default();
        calls.give_up(self.under_way(function, second), last.at.saturating_sub(Duration::from_secs(second)).as_secs_f64() * 1e3);
        Some(Sum::of_calls(calls))
    }

    fn check_abort(&mut self) {
        let at = self.last_at();
        let mut why = None;
        for (index, condition) in self.experiment.abort.iter().enumerate() {
            let expectation = &condition.expectation;
            let Some(sum) = self.to_abort_for(expectation, self.patience[index]) else { continue };
            let since = &mut self.abort_since[index];
            match sum.holds(expectation) {
                Some(false) => {
                    let lasted = at.as_secs() - since.get_or_insert(at).as_secs();
                    if lasted >= u64::from(condition.for_seconds) {
                        why = Some(format!("`{expectation}` has not held for {lasted} s: {}", sum.shown(expectation)));
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
        if self.ended.is_none() {
            (self.is_over, self.ended) = (true, Some((verdict, why)));
        }
    }
}
