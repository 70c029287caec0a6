//! Schedules: what a node starts, what it missed, and when it looks again. Pure: a schedule, how it stands and the time go in; the change goes
//! into the state, and what to start comes out.
//!
//! A due time starts at most once for each try, whatever the clock does: what has been lived through is kept as spans of due times. At most one
//! run of a schedule goes on at a time; what becomes due meanwhile is skipped. The state is plain data and changes only when something
//! happened. It must be kept before what it says is started: then a crash in between is found as an interrupted run, and never starts twice.

mod history;
mod lived;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use edgeward_model::{
    CatchUp, NodeId, Schedule, When,
    limits::{MISSED_COUNTED_MAX, REQUEST_TIMEOUT_MAX, SCHEDULE_LATE_MAX, SCHEDULE_RETRY_PAUSE_MAX, SCHEDULE_RETRY_PAUSE_MIN},
};
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

pub use self::history::{History, Outcome, Run, Totals};
use self::lived::Lived;
use crate::planted::{self, Bug};

/// A try of a due time: what is to be started, or runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Try {
    /// The due time that it is for. With the schedule and `attempt` it names the run.
    pub due_at: Timestamp,
    /// Which try of that due time it is, from 1 on.
    pub attempt: u32,
    /// When it was started.
    pub started_at: Timestamp,
    /// Whether it makes up for a time in which it could not run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_late: bool,
    /// Whether somebody asked for it, at its due time. Such a one is not tried again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_asked: bool,
}

/// Another try that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Retry {
    due_at: Timestamp,
    attempt: u32,
    at: Timestamp,
}

/// How a schedule stands on a node. It begins with the first look, before which nothing is made up for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScheduleState {
    /// What the schedule said of its times at the last look. When that changes it begins anew: only what is due from then on counts.
    timing: String,
    /// The last due time that was decided on, or the time of the first look.
    cursor: Timestamp,
    lived: Lived,
    /// What runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    running: Option<Try>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<Retry>,
    /// Due times that are made up for, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    backlog: Vec<Timestamp>,
    history: History,
}

impl ScheduleState {
    /// What runs now.
    pub fn running(&self) -> Option<&Try> {
        self.running.as_ref()
    }

    /// Due times that are still made up for, oldest first.
    pub fn backlog(&self) -> &[Timestamp] {
        &self.backlog
    }

    /// What ran and what did not.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// To be called once after a start of the process: what ran then does so no more.
    pub fn recover(&mut self, schedule: &Schedule, now: Timestamp) {
        if let Some(running) = self.running.take()
            && !planted::has(Bug::InterruptionForgotten)
        {
            self.over(schedule, &running, Outcome::Interrupted, "the node ended while it ran", now);
        }
    }

    /// Decides what is to be started now. The state must be kept before it is.
    pub fn look(&mut self, schedule: &Schedule, node: &NodeId, now: Timestamp) -> Option<Try> {
        self.notice_timing(schedule, now);
        if !schedule.enabled {
            return None;
        }
        if now < self.cursor {
            // The clock was put back. What it comes to a second time is known.
            self.cursor = just_before(now);
        }
        if self.running.is_some() && !planted::has(Bug::RunsOverlap) {
            return None;
        }
        self.collect(schedule, node, now);
        let (due_at, attempt, is_late) = self.take_next(schedule, node, now)?;
        let start = Try { due_at, attempt, started_at: now, is_late, is_asked: false };
        self.running = Some(start.clone());
        Some(start)
    }

    /// Starts a run that somebody asks for, also of a schedule that is off; none while one runs. The state must be kept before it is started.
    pub fn start_asked(&mut self, now: Timestamp) -> Option<Try> {
        if self.running.is_some() {
            return None;
        }
        let start = Try { due_at: now, attempt: 1, started_at: now, is_late: false, is_asked: true };
        self.running = Some(start.clone());
        Some(start)
    }

    /// A try has ended, and so what became due meanwhile is skipped. One that does not run is ignored.
    pub fn end(&mut self, schedule: &Schedule, node: &NodeId, ended: &Try, result: Result<(), &str>, now: Timestamp) {
        if self.running.as_ref() != Some(ended) {
            return;
        }
        self.running = None;
        match result {
            Ok(()) => self.over(schedule, ended, Outcome::Succeeded, "", now),
            Err(why) => self.over(schedule, ended, Outcome::Failed, why, now),
        }
        if timing_of(schedule) != self.timing || !schedule.enabled || planted::has(Bug::OverrunWaits) {
            return;
        }
        // What became due later than a run can last did so while the clock jumped, and is for the next look.
        let longest = SignedDuration::try_from(REQUEST_TIMEOUT_MAX).expect("about an hour");
        let until = ended.started_at.checked_add(longest).map_or(now, |until| until.min(now));
        let Some(newest) = self.newest(schedule, node, until) else { return };
        let count = self.count(schedule, newest);
        let first = schedule.next_after(self.cursor).unwrap_or(newest);
        self.lived.add(self.lived_from(first), newest);
        self.cursor = newest;
        if count > 0 {
            self.history.pass_over(Outcome::Skipped, newest, count, "the run before was still going");
        }
    }

    /// When to look again, if nothing happens before: when the next run begins. None while one runs, and when nothing is due any more. Clocks
    /// jump: who waits should not wait for long at once.
    pub fn next_look(&self, schedule: &Schedule, node: &NodeId, now: Timestamp) -> Option<Timestamp> {
        if self.running.is_some() {
            return None;
        }
        // That it was switched off is noticed, too.
        if timing_of(schedule) != self.timing {
            return Some(now);
        }
        if !schedule.enabled {
            return None;
        }
        let retry = self.retry_at(now);
        if retry.is_none() && !self.backlog.is_empty() {
            return Some(now);
        }
        let next = self.next_due(schedule, now).map(|due| schedule.begin_of(due, node));
        next.into_iter().chain(retry).min()
    }

    /// The next due time that has not been decided on.
    pub fn next_due(&self, schedule: &Schedule, now: Timestamp) -> Option<Timestamp> {
        let mut after = self.cursor.min(now);
        loop {
            let due = schedule.next_after(after)?;
            match self.lived.end_of(due) {
                Some(end) => after = end,
                None => return Some(due),
            }
        }
    }

    /// A schedule that is new, was changed or was switched on begins with what is due from now on.
    fn notice_timing(&mut self, schedule: &Schedule, now: Timestamp) {
        let timing = timing_of(schedule);
        if self.timing == timing || (planted::has(Bug::ChangeUnnoticed) && !self.timing.is_empty()) {
            return;
        }
        let is_new = self.timing.is_empty();
        self.timing = timing;
        self.cursor = now;
        self.retry = None;
        self.backlog.clear();
        if let When::At(at) = schedule.when
            && is_new
            && at <= now
            && schedule.enabled
        {
            self.history.pass_over(Outcome::Missed, at, 1, "the node got the schedule after its time");
        }
    }

    /// Takes what became due since the last look into the backlog, as the policy says.
    fn collect(&mut self, schedule: &Schedule, node: &NodeId, now: Timestamp) {
        let Some(newest) = self.newest(schedule, node, now) else { return };
        if self.lived.end_of(newest).is_some() {
            self.cursor = newest;
            return;
        }
        let is_in_time = is_in_time(schedule, node, newest, now);
        let runs_max = match schedule.catch_up {
            CatchUp::Skip => usize::from(is_in_time || planted::has(Bug::LateNotSkipped)),
            CatchUp::Once => usize::from(is_in_time || !planted::has(Bug::NothingMadeUpFor)),
            CatchUp::All { runs_max } => usize::try_from(runs_max).expect("32 bits fit"),
        };
        let runs_max = runs_max + usize::from(planted::has(Bug::OneRunTooMany) && runs_max > 1);
        let mut due: Vec<_> = self.back_from(schedule, newest).take(runs_max).collect();
        due.reverse();
        let until = due.first().map_or(newest, |first| just_before(*first));
        let missed = self.count(schedule, until);
        if missed > 0 && !planted::has(Bug::MissedUntold) {
            let last = schedule.last_between(self.cursor, until).unwrap_or(until);
            self.history.pass_over(Outcome::Missed, last, missed, "the node could not run it");
        }
        if let Some(first) = due.first() {
            // What was missed stays open, for a clock that is put back to it.
            let is_whole = missed == 0 || planted::has(Bug::JumpLivedThrough);
            self.lived.add(if is_whole { self.lived_from(*first) } else { *first }, newest);
            // What is newer takes the place of another try of what is older.
            self.retry = None;
        }
        self.cursor = newest;
        self.backlog.extend(due);
        let most = self.backlog.len().saturating_sub(runs_max.max(1));
        let dropped: Vec<_> = self.backlog.drain(..most).collect();
        if let Some(last) = dropped.last() {
            self.history.pass_over(Outcome::Missed, *last, dropped.len() as u64, "newer ones took its place");
        }
    }

    /// The due time to start now, with the number of its try and whether it is late.
    fn take_next(&mut self, schedule: &Schedule, node: &NodeId, now: Timestamp) -> Option<(Timestamp, u32, bool)> {
        if let Some(at) = self.retry_at(now) {
            if at > now {
                return None;
            }
            let Retry { due_at, attempt, .. } = self.retry.take()?;
            return Some((due_at, attempt, !is_in_time(schedule, node, due_at, now)));
        }
        if self.backlog.is_empty() {
            return None;
        }
        let due_at = self.backlog.remove(0);
        Some((due_at, 1, !is_in_time(schedule, node, due_at, now)))
    }

    /// The newest due time after the cursor whose run may begin.
    fn newest(&self, schedule: &Schedule, node: &NodeId, now: Timestamp) -> Option<Timestamp> {
        let newest = schedule.last_between(self.cursor, now)?;
        if schedule.begin_of(newest, node) <= now || planted::has(Bug::JitterIgnored) {
            return Some(newest);
        }
        // The one before begins before this one is due.
        schedule.last_between(self.cursor, just_before(newest))
    }

    /// Where a span begins that follows on what was lived through, or else with this due time.
    fn lived_from(&self, first: Timestamp) -> Timestamp {
        if self.lived.end_of(self.cursor).is_some() { self.cursor } else { first }
    }

    /// The due times after the cursor from this one back, as far as they were not lived through.
    fn back_from(&self, schedule: &Schedule, newest: Timestamp) -> impl Iterator<Item = Timestamp> {
        let before = |due: &Timestamp| schedule.last_between(self.cursor, just_before(*due));
        std::iter::successors(Some(newest), before).take_while(|due| self.lived.end_of(*due).is_none())
    }

    /// When another try begins that waits. A clock that was put back does not hold it up.
    fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        let at = self.retry.as_ref()?.at;
        let wait = at.duration_since(now);
        Some(if wait.is_positive() && wait.unsigned_abs() > SCHEDULE_RETRY_PAUSE_MAX { now } else { at })
    }

    /// Due times after the cursor and until this moment that were not lived through, as far as it is worth counting.
    fn count(&self, schedule: &Schedule, until: Timestamp) -> u64 {
        let (mut count, mut due) = (0, self.cursor);
        while count < MISSED_COUNTED_MAX
            && let Some(next) = schedule.next_after(due).filter(|next| *next <= until)
        {
            let end = self.lived.end_of(next);
            count += u64::from(end.is_none());
            due = end.unwrap_or(next);
        }
        count
    }

    /// A try is over; one that did not do well may be followed by another.
    fn over(&mut self, schedule: &Schedule, run: &Try, outcome: Outcome, message: &str, now: Timestamp) {
        self.history.add(run, outcome, message, now);
        let may_again = (run.attempt < schedule.attempts && !run.is_asked) || planted::has(Bug::TriedForEver);
        if outcome != Outcome::Succeeded && may_again && schedule.enabled {
            let pause = SCHEDULE_RETRY_PAUSE_MIN.saturating_mul(1 << (run.attempt - 1).min(16)).min(SCHEDULE_RETRY_PAUSE_MAX);
            let pause = SignedDuration::try_from(pause).expect("minutes");
            let at = now.checked_add(pause).unwrap_or(now);
            self.retry = Some(Retry { due_at: run.due_at, attempt: run.attempt + 1, at });
        }
    }
}

/// What a schedule says of its times.
fn timing_of(schedule: &Schedule) -> String {
    if !schedule.enabled {
        return "off".to_owned();
    }
    let bound = |bound: Option<Timestamp>| bound.map_or_else(|| "-".to_owned(), |bound| bound.to_string());
    format!("{} {} {} {}", schedule.when, schedule.zone, bound(schedule.starts_at), bound(schedule.ends_at))
}

fn is_in_time(schedule: &Schedule, node: &NodeId, due_at: Timestamp, now: Timestamp) -> bool {
    let late = now.duration_since(schedule.begin_of(due_at, node));
    late.is_negative() || late.unsigned_abs() <= SCHEDULE_LATE_MAX
}

fn just_before(moment: Timestamp) -> Timestamp {
    moment.checked_sub(1.nanosecond()).unwrap_or(moment)
}
