//! What an experiment came to: the verdict, why, and what was seen, as data and as Markdown.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use edgeward_model::{Experiment, FunctionId, NodeId, chaos::Demanded, limits::REPORT_NODES_MAX};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    chart,
    judging::Judged,
    observation::Calls,
    trial::{Seen, Trial},
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
    /// It is not over.
    Running,
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
            Self::Running => "running",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A fault that was planned, and where it was injected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultLine {
    /// The fault, for people.
    pub fault: String,
    /// From when on, in seconds since the experiment began; as it was planned if it was not injected.
    pub from_seconds: u64,
    /// Until when.
    pub to_seconds: u64,
    /// The nodes that it hit, the first of them by name; none if it was not injected.
    pub nodes: BTreeSet<NodeId>,
    /// How many more it hit.
    #[serde(default)]
    pub more_nodes: usize,
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
            if !self.is_settled {
                return (Verdict::Running, "it is not over".to_owned());
            }
            // What holds without a fault says nothing of it.
            let missed = (0..self.experiment.faults.len()).find(|index| self.nodes_hit(*index).len() == 0);
            match (first(Some(false)), missed, first(None)) {
                (Some(broken), ..) => (Verdict::Broken, format!("`{}` did not hold: {}", broken.hypothesis, broken.why)),
                (None, Some(index), _) => (Verdict::Inconclusive, format!("fault {} was injected on no node", index + 1)),
                (None, None, Some(unknown)) => (Verdict::Inconclusive, format!("`{}`: {}", unknown.hypothesis, unknown.why)),
                (None, None, None) => (Verdict::Held, "every hypothesis held".to_owned()),
            }
        });
        Report {
            verdict,
            reason,
            started_at: self.started_at,
            took_seconds: self.seen.last().map_or(0.0, |last| last.at.as_secs_f64()),
            hypotheses,
            faults: (0..self.experiment.faults.len()).map(|index| self.fault_line(index)).collect(),
            points: self.seen.iter().map(|seen| self.point(seen)).collect(),
            experiment: self.experiment.clone(),
        }
    }

    /// What became of a fault, by its place.
    pub fn fault_line(&self, index: usize) -> FaultLine {
        let planned = &self.experiment.faults[index];
        let (from, to) = planned.span();
        let (from, to) = ((self.experiment.before() + from).as_secs(), (self.experiment.before() + to).as_secs());
        let hit = self.nodes_hit(index);
        FaultLine {
            fault: planned.fault.to_string(),
            from_seconds: self.hit.get(&index).map_or(from, |(since, _)| since.as_secs()),
            // The last look ended what was left.
            to_seconds: if hit.len() > 0 && self.ended.is_some() { to.min(self.last_at().as_secs()) } else { to },
            more_nodes: hit.len().saturating_sub(REPORT_NODES_MAX),
            nodes: hit.take(REPORT_NODES_MAX).cloned().collect(),
        }
    }

    /// What was seen last.
    pub fn last_point(&self) -> Option<Point> {
        self.seen.last().map(|seen| self.point(seen))
    }

    /// What was seen at one moment, with the calls that were due since the one before.
    fn point(&self, seen: &Seen) -> Point {
        let calls = self.calls.iter().filter_map(|(function, calls)| {
            let mut sum = Calls::default();
            calls.range(seen.from.as_secs()..seen.at.as_secs()).for_each(|(_, calls)| sum.merge(calls));
            Some((function, sum.success_percent()?, sum.latencies.p95_ms()?))
        });
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        let (mut success_percent, mut p95_ms) = (BTreeMap::new(), BTreeMap::new());
        for (function, percent, millis) in calls {
            success_percent.insert(function.clone(), rounded(percent));
            p95_ms.insert(function.clone(), rounded(millis));
        }
        Point { at_seconds: seen.at.as_secs_f64(), nodes_online: seen.nodes_online, success_percent, p95_ms }
    }
}

impl Point {
    /// The worst of two, at the time of the later one.
    fn worst(self, later: Self) -> Self {
        let merge = |mut some: BTreeMap<FunctionId, f64>, others: BTreeMap<FunctionId, f64>, worse: fn(f64, f64) -> f64| {
            for (function, value) in others {
                some.entry(function).and_modify(|known| *known = worse(*known, value)).or_insert(value);
            }
            some
        };
        Self {
            at_seconds: later.at_seconds,
            nodes_online: self.nodes_online.min(later.nodes_online),
            success_percent: merge(self.success_percent, later.success_percent, f64::min),
            p95_ms: merge(self.p95_ms, later.p95_ms, f64::max),
        }
    }
}

impl FaultLine {
    /// The nodes that it hit, for people.
    pub fn shown_nodes(&self) -> String {
        let mut nodes: Vec<_> = self.nodes.iter().map(NodeId::to_string).collect();
        nodes.extend((self.more_nodes > 0).then(|| format!("{} more", self.more_nodes)));
        nodes.join(", ")
    }
}

impl Report {
    /// Leaves half as many points: of each two the worst of both.
    pub fn halve_points(&mut self) {
        let mut points = std::mem::take(&mut self.points).into_iter();
        while let Some(point) = points.next() {
            self.points.push(match points.next() {
                Some(later) => point.worst(later),
                None => point,
            });
        }
    }

    /// Whether the experiment is over.
    pub fn is_over(&self) -> bool {
        self.verdict != Verdict::Running
    }

    /// Says of an experiment that it ended before its time.
    pub fn cut_short(&mut self, why: &str) {
        (self.verdict, self.reason) = (Verdict::Aborted, why.to_owned());
    }

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
            let nodes = if line.nodes.is_empty() { "not injected".to_owned() } else { line.shown_nodes() };
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
