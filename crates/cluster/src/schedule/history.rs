//! What ran of a schedule, and what did not.

use std::{collections::VecDeque, fmt};

use edgeward_model::limits::{RUN_MESSAGE_BYTES_MAX, SCHEDULE_RUNS_KEPT_MAX};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Try;
use crate::planted::{self, Bug};

/// What became of a due time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The function did what was asked.
    Succeeded,
    /// It did not.
    Failed,
    /// The node ended while it ran.
    Interrupted,
    /// Another run was still going.
    Skipped,
    /// The node was not there, or too late.
    Missed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Succeeded, Self::Failed, Self::Interrupted, Self::Skipped, Self::Missed];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A run, or due times that had none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its due time; of several the last.
    pub due_at: Timestamp,
    /// How many due times it tells of.
    pub count: u64,
    /// Which try it was; 0 where there was none.
    pub attempt: u32,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended, or was found to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, for people; empty where all is well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// How often which outcome came, since the schedule is on the node. Of due times without a run the count is a lower bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Runs that did what was asked.
    pub succeeded: u64,
    /// Runs that did not.
    pub failed: u64,
    /// Runs that the end of the node interrupted.
    pub interrupted: u64,
    /// Due times during another run.
    pub skipped: u64,
    /// Due times at which the node was not there.
    pub missed: u64,
}

impl Totals {
    /// How often this outcome came.
    pub fn of(&self, outcome: Outcome) -> u64 {
        match outcome {
            Outcome::Succeeded => self.succeeded,
            Outcome::Failed => self.failed,
            Outcome::Interrupted => self.interrupted,
            Outcome::Skipped => self.skipped,
            Outcome::Missed => self.missed,
        }
    }

    fn add(&mut self, outcome: Outcome, count: u64) {
        let total = match outcome {
            Outcome::Succeeded => &mut self.succeeded,
            Outcome::Failed => &mut self.failed,
            Outcome::Interrupted => &mut self.interrupted,
            Outcome::Skipped => &mut self.skipped,
            Outcome::Missed => &mut self.missed,
        };
        *total = total.saturating_add(count);
    }
}

/// The last runs of a schedule, and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Oldest first.
    runs: VecDeque<Run>,
    /// Of all, those included that are not kept.
    totals: Totals,
}

impl History {
    /// The runs that are kept, newest first.
    pub fn newest_first(&self) -> impl DoubleEndedIterator<Item = &Run> + ExactSizeIterator {
        self.runs.iter().rev()
    }

    /// How many there were.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn add(&mut self, run: &Try, outcome: Outcome, message: &str, now: Timestamp) {
        let Try { due_at, attempt, started_at, .. } = *run;
        let (started_at, ended_at) = (Some(started_at), Some(now));
        self.push(Run { due_at, count: 1, attempt, started_at, ended_at, outcome, message: cut(message) });
    }

    /// Due times up to this one had no run. Those of one kind that follow each other are told as one.
    pub(super) fn pass_over(&mut self, outcome: Outcome, due_at: Timestamp, count: u64, why: &str) {
        if let Some(last) = self.runs.back_mut()
            && last.outcome == outcome
            && last.message == why
        {
            last.due_at = due_at;
            last.count = last.count.saturating_add(count);
            self.totals.add(outcome, count);
            return;
        }
        self.push(Run { due_at, count, attempt: 0, started_at: None, ended_at: None, outcome, message: why.to_owned() });
    }

    fn push(&mut self, run: Run) {
        self.totals.add(run.outcome, run.count);
        self.runs.push_back(run);
        if self.runs.len() > SCHEDULE_RUNS_KEPT_MAX && !planted::has(Bug::AllKept) {
            self.runs.pop_front();
        }
    }
}

fn cut(message: &str) -> String {
    message[..message.floor_char_boundary(RUN_MESSAGE_BYTES_MAX)].to_owned()
}
