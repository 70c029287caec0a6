//! One node: whether it is heard and how it says it is, as separate facts, and the status that follows from both.
//!
//! What is worse shows at once. What is better does too, unless the node flaps: then it has to last.

use std::{collections::VecDeque, time::Duration};

use edgeward_model::{EdgeNodeStatus, NodeId};
use jiff::{SignedDuration, Timestamp};

use crate::membership::report::{Reason, Report, Timing};

/// A clock that is off by more is wrong.
const CLOCK_OFF_MAX: SignedDuration = SignedDuration::from_secs(60);
/// Of the last eight gaps between heartbeats, so many late ones make a node late; it is no more when none is left.
const LATE_GAPS: u32 = 2;
/// Falls within the window that are flapping.
const FALLS: usize = 3;
/// Falls that are remembered; more say no more.
const FALLS_MAX: usize = 100;
/// A node that has been heard all the time and is behind by more than this has fallen behind; a return needs less.
const BEHIND_MAX: u64 = 1_000;
/// A node that is behind by this at most has caught up: a few changes are always on their way.
const CAUGHT_UP_MAX: u64 = 16;

/// The time as a node is judged by it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) listened: Duration,
    pub(super) wall: Timestamp,
    pub(super) timing: Timing,
}

/// Whether a node is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connectivity {
    /// It is, or its silence says nothing.
    Heard,
    /// It is, but heartbeats come late.
    Late,
    /// It is not.
    Silent,
}

/// A change of a node's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Whose.
    pub node: NodeId,
    /// What it was.
    pub from: EdgeNodeStatus,
    /// What it is.
    pub to: EdgeNodeStatus,
    /// Why it is that; empty for ONLINE.
    pub reasons: Vec<Reason>,
    /// Since when.
    pub at: Timestamp,
}

/// How a node is.
#[derive(Clone, Debug)]
pub struct Standing {
    status: EdgeNodeStatus,
    since: Timestamp,
    reasons: Vec<Reason>,
    connectivity: Connectivity,
    watches_silence: bool,
    /// In listening time; none for a node that was not heard since it was registered as OFFLINE.
    heard_at: Option<Duration>,
    heard_wall: Option<Timestamp>,
    /// One bit for each of the last gaps between heartbeats; set for a late one.
    late_gaps: u8,
    is_catching_up: bool,
    health: Option<Report>,
    clock_off: SignedDuration,
    /// The status that the facts gave the last time; what is shown may be worse.
    facts: EdgeNodeStatus,
    /// When the facts fell to DEGRADED or OFFLINE within the window, in listening time.
    falls: VecDeque<Duration>,
    /// Since when it has been better than it is shown, in listening time.
    better_since: Option<Duration>,
}

impl Standing {
    pub(super) fn new(status: EdgeNodeStatus, watches_silence: bool, clock: Clock) -> Self {
        let is_offline = status == EdgeNodeStatus::Offline;
        Self {
            status,
            since: clock.wall,
            reasons: Vec::new(),
            connectivity: if is_offline { Connectivity::Silent } else { Connectivity::Heard },
            watches_silence,
            heard_at: (!is_offline).then_some(clock.listened),
            heard_wall: None,
            late_gaps: 0,
            is_catching_up: status != EdgeNodeStatus::Online,
            health: None,
            clock_off: SignedDuration::ZERO,
            facts: status,
            falls: VecDeque::new(),
            better_since: None,
        }
    }

    /// Its status.
    pub fn status(&self) -> EdgeNodeStatus {
        self.status
    }

    /// Since when it has this status.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// Why it has this status; empty for ONLINE.
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// Whether it is heard.
    pub fn connectivity(&self) -> Connectivity {
        self.connectivity
    }

    /// What it last said of itself.
    pub fn health(&self) -> Option<&Report> {
        self.health.as_ref()
    }

    /// When it was last heard, by the hub's clock.
    pub fn last_heartbeat(&self) -> Option<Timestamp> {
        self.heard_wall
    }

    /// Assignments and changes that were still to be exchanged at its last heartbeat.
    pub fn behind(&self) -> u64 {
        self.health.as_ref().map_or(0, |report| report.behind)
    }

    pub(super) fn watch_silence(&mut self, watches_silence: bool) {
        self.watches_silence = watches_silence;
    }

    /// Notes a heartbeat.
    pub(super) fn report(&mut self, report: &Report, clock: Clock) {
        let gap = self.heard_at.map(|heard_at| clock.listened.saturating_sub(heard_at));
        match gap {
            Some(gap) if self.connectivity != Connectivity::Silent && gap < clock.timing.offline_after() => {
                let is_late = self.watches_silence && gap > clock.timing.late_after();
                self.late_gaps = (self.late_gaps << 1) | u8::from(is_late);
            }
            // It was away: that is no late heartbeat.
            _ => {
                self.late_gaps = 0;
                self.is_catching_up = true;
            }
        }
        self.heard_at = Some(clock.listened);
        self.heard_wall = Some(clock.wall);
        self.clock_off = report.sent_at.duration_since(clock.wall);
        self.is_catching_up =
            if self.is_catching_up { report.is_syncing || report.behind > CAUGHT_UP_MAX } else { report.behind > BEHIND_MAX };
        self.health = Some(report.clone());
    }

    /// Decides the status anew; tells when it changed.
    pub(super) fn judge(&mut self, id: &NodeId, clock: Clock) -> Option<Transition> {
        self.connectivity = self.connectivity_at(clock);
        let (facts, mut reasons) = self.facts();
        self.note_fall(facts, clock);
        let mut status = facts;
        if rank(facts) < rank(self.status) {
            let better_since = *self.better_since.get_or_insert(clock.listened);
            let is_steady = clock.listened.saturating_sub(better_since) >= clock.timing.steady_after();
            if self.falls.len() >= FALLS && !is_steady {
                reasons.push(Reason::Flapping(u32::try_from(self.falls.len()).unwrap_or(u32::MAX)));
                status = self.status;
            }
        } else {
            self.better_since = None;
        }
        self.reasons = reasons;
        if status == self.status {
            return None;
        }
        self.better_since = None;
        self.since = clock.wall;
        let from = std::mem::replace(&mut self.status, status);
        Some(Transition { node: id.clone(), from, to: status, reasons: self.reasons.clone(), at: clock.wall })
    }

    fn connectivity_at(&self, clock: Clock) -> Connectivity {
        let Some(heard_at) = self.heard_at else { return Connectivity::Silent };
        let is_silent = self.watches_silence && clock.listened.saturating_sub(heard_at) >= clock.timing.offline_after();
        let late_gaps = self.late_gaps.count_ones();
        let is_late = late_gaps >= LATE_GAPS || (late_gaps > 0 && self.connectivity == Connectivity::Late);
        match (is_silent, is_late) {
            (true, _) => Connectivity::Silent,
            (false, true) => Connectivity::Late,
            (false, false) => Connectivity::Heard,
        }
    }

    /// The status that the facts give, and why.
    fn facts(&self) -> (EdgeNodeStatus, Vec<Reason>) {
        if self.connectivity == Connectivity::Silent {
            return (EdgeNodeStatus::Offline, vec![Reason::Silent]);
        }
        // Until it reports, what was known of it holds.
        let Some(report) = &self.health else { return (self.status, Vec::new()) };
        let mut reasons = Vec::new();
        if self.clock_off.abs() > CLOCK_OFF_MAX {
            reasons.push(Reason::Clock(i64::try_from(self.clock_off.as_millis()).unwrap_or(i64::MAX)));
        }
        if report.is_overloaded {
            reasons.push(Reason::Overloaded);
        }
        if report.failing_functions > 0 {
            reasons.push(Reason::FailingFunctions(report.failing_functions));
        }
        let is_ill = !reasons.is_empty();
        if self.is_catching_up {
            reasons.push(Reason::Behind(report.behind));
        }
        let is_late = self.connectivity == Connectivity::Late;
        if is_late {
            reasons.push(Reason::Late);
        }
        // A node with a wrong clock catches up no more: that it is ill says more.
        let status = match (is_ill, self.is_catching_up, is_late) {
            (false, true, _) => EdgeNodeStatus::Syncing,
            (false, false, false) => EdgeNodeStatus::Online,
            _ => EdgeNodeStatus::Degraded,
        };
        (status, reasons)
    }

    /// Counts falls also while something worse is shown: who goes on flapping is held on.
    fn note_fall(&mut self, facts: EdgeNodeStatus, clock: Clock) {
        let before = std::mem::replace(&mut self.facts, facts);
        if rank(facts) > rank(before) && rank(facts) >= rank(EdgeNodeStatus::Degraded) {
            self.falls.push_back(clock.listened);
        }
        let is_old = |fall: &Duration| clock.listened.saturating_sub(*fall) > clock.timing.flapping_window();
        while self.falls.len() > FALLS_MAX || self.falls.front().is_some_and(is_old) {
            self.falls.pop_front();
        }
    }
}

/// The higher, the worse.
fn rank(status: EdgeNodeStatus) -> u8 {
    match status {
        EdgeNodeStatus::Online => 0,
        EdgeNodeStatus::Syncing => 1,
        EdgeNodeStatus::Degraded => 2,
        EdgeNodeStatus::Offline => 3,
    }
}
