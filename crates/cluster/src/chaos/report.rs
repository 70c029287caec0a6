//! What an experiment came to: the verdict, why, and what was seen, as data and as Markdown.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use edgeward_model::{
    Experiment, FunctionId, NodeId,
    chaos::{Demanded, Hypothesis},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    chart,
    observation::{Observation, Sum},
    trial::Trial,
};

/// What an experiment came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every hypothesis held.
    Held,
    /// At least one did not.
    Broken,
    /// One did not hold before anything was injected, and so nothing was.
    NotSteady,
    /// It ended before its time.
    Aborted,
    /// Of at least one nothing is known.
    Inconclusive,
}

impl Verdict {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Broken => "broken",
            Self::NotSteady => "not steady",
            Self::Aborted => "aborted",
            Self::Inconclusive => "inconclusive",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What became of a hypothesis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The hypothesis, for people.
    pub hypothesis: String,
    /// When it must hold.
    pub demanded: Demanded,
    /// What was seen before the faults, with its unit.
    pub before: String,
    /// While they lasted.
    pub during: String,
    /// From when on it held again to the end, after the last fault had ended, in seconds; none if it did not.
    pub recovered_after_seconds: Option<u64>,
    /// Whether it held; none when nothing is known of it.
    pub holds: Option<bool>,
    /// Why not, or why nothing is known; empty otherwise.
    pub why: String,
}

/// A fault that was planned, and where it was injected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultLine {
    /// The fault, for people.
    pub fault: String,
    /// From when on, in seconds since the experiment began.
    pub from_seconds: u64,
    /// Until when.
    pub to_seconds: u64,
    /// The nodes that it hit; none if it was not injected.
    pub nodes: BTreeSet<NodeId>,
}

/// What was seen at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When, in seconds since the experiment began.
    pub at_seconds: f64,
    /// Nodes that were not OFFLINE.
    pub nodes_online: u32,
    /// Of each function that was called, how many of a hundred calls succeeded.
    pub success_percent: BTreeMap<FunctionId, f64>,
    /// Of each function that was called, how long the 95th of a hundred took, in milliseconds.
    pub p95_ms: BTreeMap<FunctionId, f64>,
}

/// The whole report. Its JSON is this as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What it came to.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub reason: String,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in seconds.
    pub took_seconds: f64,
    /// Every hypothesis.
    pub hypotheses: Vec<Judged>,
    /// Every fault.
    pub faults: Vec<FaultLine>,
    /// What was seen.
    pub points: Vec<Point>,
    /// The experiment as it was.
    pub experiment: Experiment,
}

impl Trial {
    /// What it comes to, by what was seen until now.
    pub fn report(&self) -> Report {
        let hypotheses: Vec<_> = self.experiment.steady_state.iter().map(|hypothesis| self.judge(hypothesis)).collect();
        let (verdict, reason) = self.ended.clone().unwrap_or_else(|| {
            let first = |holds| hypotheses.iter().find(|judged| judged.holds == holds);
            if !self.is_over() {
                return (Verdict::Inconclusive, "it is not over".to_owned());
            }
            match (first(Some(false)), first(None)) {
                (Some(broken), _) => (Verdict::Broken, format!("`{}` did not hold: {}", broken.hypothesis, broken.why)),
                (None, Some(unknown)) => (Verdict::Inconclusive, format!("`{}`: {}", unknown.hypothesis, unknown.why)),
                (None, None) => (Verdict::Held, "every hypothesis held".to_owned()),
            }
        });
        let before = self.experiment.before_seconds;
        let fault = |(index, planned): (usize, &edgeward_model::chaos::PlannedFault)| FaultLine {
            fault: planned.fault.to_string(),
            from_seconds: u64::from(before) + planned.span().0.as_secs(),
            to_seconds: u64::from(before) + planned.span().1.as_secs(),
            nodes: self.hit.get(&index).cloned().unwrap_or_default(),
        };
        Report {
            verdict,
            reason,
            started_at: self.started_at,
            took_seconds: self.observations.last().map_or(0.0, |last| last.at.as_secs_f64()),
            hypotheses,
            faults: self.experiment.faults.iter().enumerate().map(fault).collect(),
            points: self.observations.iter().map(Point::of).collect(),
            experiment: self.experiment.clone(),
        }
    }

    fn judge(&self, hypothesis: &Hypothesis) -> Judged {
        let expectation = &hypothesis.expectation;
        let before_end = self.experiment.before();
        let (begin, end) = self.experiment.faulty_span();
        let (begin, end) = (before_end + begin, before_end + end);
        let seen = |from: Option<Duration>, to: Duration| {
            self.observations.iter().filter(move |seen| from.is_none_or(|from| seen.at > from) && seen.at <= to)
        };
        let before = Sum::of(expectation, seen(None, before_end));
        let during = Sum::of(expectation, seen(Some(begin), end));
        let after: Vec<_> = seen(Some(end), Duration::MAX).collect();
        let recovered = recovered_at(hypothesis, &after);
        let in_faults = match expectation.function() {
            Some(_) => during.holds(expectation),
            None => within_tolerance(hypothesis, seen(Some(begin), end)),
        };
        let always = hypothesis.demanded == Demanded::Always;
        let (holds, why) = match (in_faults, recovered) {
            (Some(false), _) if always => (Some(false), format!("while the faults lasted it was {}", during.shown(expectation))),
            (_, Recovered::Not) => {
                let last = Sum::of(expectation, after.last().copied());
                (Some(false), format!("it had not recovered at the end: {}", last.shown(expectation)))
            }
            (None, _) if always => (None, "nothing was seen of it while the faults lasted".to_owned()),
            (_, Recovered::Unknown) => (None, "nothing was seen of it after the faults".to_owned()),
            (_, Recovered::At(_)) => (Some(true), String::new()),
        };
        let recovered_after_seconds = match recovered {
            Recovered::At(at) => Some(at.saturating_sub(end).as_secs()),
            Recovered::Not | Recovered::Unknown => None,
        };
        Judged {
            hypothesis: expectation.to_string(),
            demanded: hypothesis.demanded,
            before: before.shown(expectation),
            during: during.shown(expectation),
            recovered_after_seconds,
            holds,
            why,
        }
    }
}

/// When a hypothesis held again.
#[derive(Clone, Copy)]
enum Recovered {
    /// From here to the end, all together.
    At(Duration),
    /// Not even at the end.
    Not,
    /// Nothing was seen of it.
    Unknown,
}

/// From when on all that was seen to the end, together, is as expected.
fn recovered_at(hypothesis: &Hypothesis, after: &[&Observation]) -> Recovered {
    let (mut sum, mut recovered) = (Sum::default(), Recovered::Unknown);
    for seen in after.iter().rev() {
        sum.add(&hypothesis.expectation, seen);
        match (sum.holds(&hypothesis.expectation), recovered) {
            (Some(true), _) => recovered = Recovered::At(seen.at),
            (Some(false), Recovered::Unknown) => recovered = Recovered::Not,
            (Some(false) | None, _) => {}
        }
    }
    recovered
}

/// Whether it was never otherwise for longer than is tolerated without a break.
fn within_tolerance<'a>(hypothesis: &Hypothesis, seen: impl Iterator<Item = &'a Observation>) -> Option<bool> {
    let tolerance = Duration::from_secs(u64::from(hypothesis.tolerance_seconds));
    let (mut since, mut within) = (None, None);
    for observation in seen {
        match Sum::of(&hypothesis.expectation, [observation]).holds(&hypothesis.expectation) {
            None => {}
            Some(true) => (since, within) = (None, within.or(Some(true))),
            Some(false) => {
                let began: Duration = *since.get_or_insert(observation.at);
                let is_short = tolerance > Duration::ZERO && observation.at.saturating_sub(began) <= tolerance;
                within = Some(within.unwrap_or(true) && is_short);
            }
        }
    }
    within
}

impl Point {
    fn of(observation: &Observation) -> Self {
        let calls = || observation.calls.iter();
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        Self {
            at_seconds: observation.at.as_secs_f64(),
            nodes_online: observation.nodes_online,
            success_percent: calls().filter_map(|(id, calls)| Some((id.clone(), rounded(calls.success_percent()?)))).collect(),
            p95_ms: calls().filter_map(|(id, calls)| Some((id.clone(), rounded(calls.latencies.p95_ms()?)))).collect(),
        }
    }
}

impl Report {
    /// The report as Markdown, with a chart of text.
    pub fn to_markdown(&self) -> String {
        let Self { verdict, reason, started_at, took_seconds, experiment, .. } = self;
        let mut text = format!("# Experiment {}: {verdict}\n\n", experiment.name);
        if !experiment.description.is_empty() {
            text += &format!("{}\n\n", cell(&experiment.description));
        }
        text += &format!("**{}.** It began at {started_at:.0} and took {took_seconds:.0} s.\n\n", cell(reason));
        text +=
            "## Hypotheses\n\n| hypothesis | must hold | before | with faults | held again after | verdict |\n|---|---|---|---|---|---|\n";
        for judged in &self.hypotheses {
            let demanded = match judged.demanded {
                Demanded::Always => "always",
                Demanded::Recovered => "before and after",
            };
            let recovered = judged.recovered_after_seconds.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds} s"));
            let holds = match judged.holds {
                Some(true) => "held".to_owned(),
                Some(false) => format!("**broken**: {}", judged.why),
                None => format!("unknown: {}", judged.why),
            };
            let cells = [&judged.hypothesis, demanded, &judged.before, &judged.during, &recovered, &holds].map(cell);
            text += &format!("| {} |\n", cells.join(" | "));
        }
        text += "\n## Faults\n\n| # | fault | from | to | nodes |\n|---|---|---|---|---|\n";
        for (number, line) in self.faults.iter().enumerate() {
            let nodes: Vec<_> = line.nodes.iter().map(NodeId::as_str).collect();
            let nodes = if nodes.is_empty() { "not injected".to_owned() } else { nodes.join(", ") };
            let (fault, from, to) = (cell(&line.fault), line.from_seconds, line.to_seconds);
            text += &format!("| {} | {fault} | {from} s | {to} s | {nodes} |\n", number + 1);
        }
        text += &format!("\n## What was seen\n\n```text\n{}```\n", chart::draw(self));
        text
    }

    /// The report as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data is JSON")
    }
}

/// A text that stays in its cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}
