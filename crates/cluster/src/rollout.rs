//! Rollouts: how a revision comes to the nodes of a deployment, is judged, and goes back. Pure: facts and the time go in, orders come out.
//!
//! What is kept of a rollout says how far it may go; where it stands is read from what nodes are ordered and report. So whoever takes it
//! over after a crash goes on from what is true, and what was done twice does no harm. The record is written before the orders that follow
//! from it.

mod decide;
mod facts;
mod gate;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, time::Duration};

use edgeward_model::{EdgeError, ErrorKind, FunctionId, NodeId, limits::REFUSED_NODES_MAX};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::{
    decide::{Decision, Scope, decide},
    facts::{NodeFacts, Observed, Order, Sample, Served},
    gate::{Verdict, judge},
};
use crate::planted::{self, Bug};

/// How a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    /// No node has been ordered to take it: it waits for one that can, or for the rollout before it.
    Pending,
    /// It is on its way, or on its way back.
    InProgress,
    /// No further node gets it until somebody resumes it. What runs is still judged.
    Paused,
    /// The nodes run it. Those that were away get it when they return.
    Completed,
    /// The nodes run the former revision again.
    RolledBack,
    /// There was no former revision to go back to, or it did not come back everywhere.
    Failed,
}

impl RolloutState {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Pending, Self::InProgress, Self::Paused, Self::Completed, Self::RolledBack, Self::Failed];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::RolledBack => "rolled_back",
            Self::Failed => "failed",
        }
    }

    /// Whether it has ended.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::RolledBack | Self::Failed)
    }
}

impl fmt::Display for RolloutState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a rollout does with its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// They get the revision ready beside the one that serves.
    Preparing,
    /// They serve it.
    Updating,
    /// They go back.
    Restoring,
}

/// Whether somebody must agree before it goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// It has not come to that.
    #[default]
    NotYet,
    /// It waits.
    Awaited,
    /// Somebody has.
    Given,
}

/// A rollout, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The function.
    pub function: FunctionId,
    /// The generation of the deployment that it makes real; it names the rollout together with the function.
    pub generation: u64,
    /// The revision that nodes ran before, to go back to; none for the first. It is the same as `to` when only where it runs is to change.
    pub from: Option<u64>,
    /// The revision that it brings.
    pub to: u64,
    /// How it stands.
    pub state: RolloutState,
    /// What it does.
    pub phase: Phase,
    /// The wave that it has come to, from 0 on.
    pub wave: usize,
    /// How many nodes of that wave may have the revision.
    pub allowed: usize,
    /// Whether it brings the revision to all nodes at once, whatever the strategy of its deployment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_once: bool,
    /// Whether somebody must agree.
    #[serde(default)]
    pub approval: Approval,
    /// Why it stands as it does, for people.
    #[serde(default)]
    pub reason: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it last went on.
    pub progressed_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Nodes that came late and did not do well with it, with why; they keep what they had.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<NodeId, String>,
}

impl Rollout {
    /// A rollout that has not begun.
    pub fn new(function: FunctionId, generation: u64, from: Option<u64>, to: u64, now: Timestamp) -> Self {
        Self {
            function,
            generation,
            from,
            to,
            state: RolloutState::Pending,
            phase: Phase::Updating,
            wave: 0,
            allowed: 0,
            at_once: false,
            approval: Approval::NotYet,
            reason: String::new(),
            started_at: now,
            progressed_at: now,
            ended_at: None,
            refused: BTreeMap::new(),
        }
    }

    /// What names it: `FUNCTION:GENERATION`. No id of a function has a colon.
    pub fn id(&self) -> String {
        format!("{}:{}", self.function, self.generation)
    }

    /// The revision that nodes should run now that it is over, from which the next rollout starts.
    pub fn goal(&self) -> Option<u64> {
        match self.state {
            RolloutState::Completed => Some(self.to),
            RolloutState::RolledBack if planted::has(Bug::NewestAfterRollback) => Some(self.to),
            RolloutState::RolledBack | RolloutState::Failed => self.from,
            RolloutState::Pending | RolloutState::InProgress | RolloutState::Paused => None,
        }
    }

    /// Whether it is over and nodes are kept at this revision. Where only the target was to change, and that was called off, they are kept at nothing.
    pub fn keeps(&self, revision: u64) -> bool {
        self.goal() == Some(revision) && (self.state == RolloutState::Completed || self.from != Some(self.to))
    }

    /// Lets no further node get it.
    pub fn pause(&mut self, why: impl Into<String>) -> Result<(), EdgeError> {
        match self.state {
            RolloutState::Pending | RolloutState::InProgress if self.phase != Phase::Restoring => {
                self.state = RolloutState::Paused;
                self.reason = why.into();
                Ok(())
            }
            _ => Err(self.cannot("paused")),
        }
    }

    /// Goes on after a pause.
    pub fn resume(&mut self, now: Timestamp) -> Result<(), EdgeError> {
        if self.state != RolloutState::Paused {
            return Err(self.cannot("resumed"));
        }
        self.state = if self.wave == 0 && self.allowed == 0 { RolloutState::Pending } else { RolloutState::InProgress };
        self.reason.clear();
        self.progressed_at = now;
        Ok(())
    }

    /// Agrees that it goes on.
    pub fn approve(&mut self, now: Timestamp) -> Result<(), EdgeError> {
        if self.state.is_over() || self.phase == Phase::Restoring || self.approval != Approval::Awaited {
            return Err(self.cannot("approved"));
        }
        self.approval = Approval::Given;
        if self.state != RolloutState::Paused {
            self.reason.clear();
        }
        self.progressed_at = now;
        Ok(())
    }

    /// Ends it, and brings the former revision back.
    pub fn abort(&mut self, why: impl Into<String>, now: Timestamp) -> Result<(), EdgeError> {
        if self.state.is_over() || self.phase == Phase::Restoring {
            return Err(self.cannot("aborted"));
        }
        self.restore(why.into(), now);
        Ok(())
    }

    fn restore(&mut self, why: String, now: Timestamp) {
        self.state = RolloutState::InProgress;
        self.phase = Phase::Restoring;
        self.approval = Approval::NotYet;
        self.reason = why;
        self.progressed_at = now;
    }

    fn end(&mut self, state: RolloutState, now: Timestamp) {
        self.state = state;
        self.ended_at = Some(now);
        self.progressed_at = now;
    }

    fn refuse(&mut self, node: NodeId, why: String) {
        if !self.has_no_room() && !planted::has(Bug::RefusalForgotten) {
            self.refused.insert(node, why);
        }
    }

    /// Whether no other refusal could be remembered.
    fn has_no_room(&self) -> bool {
        self.refused.len() >= REFUSED_NODES_MAX
    }

    fn cannot(&self, what: &str) -> EdgeError {
        let how = match (self.state, self.phase) {
            (RolloutState::InProgress, Phase::Restoring) => "is going back to the former revision".to_owned(),
            (RolloutState::InProgress, _) if what == "approved" => "waits for no approval".to_owned(),
            (state, _) => format!("is {}", state.as_str().replace('_', " ")),
        };
        EdgeError::new(ErrorKind::Conflict, format!("rollout `{}` cannot be {what}: it {how}", self.id()))
    }
}

/// The time from one moment to another, none when it goes back.
fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}
