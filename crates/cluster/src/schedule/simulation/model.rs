//! What a schedule must start, told the plain way: every due time is listed, and what became of each is remembered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use edgeward_model::{
    CatchUp, NodeId, Schedule,
    limits::{MISSED_COUNTED_MAX, SCHEDULE_LATE_MAX},
};
use jiff::{SignedDuration, Timestamp};

use super::super::{Outcome, ScheduleState, Totals, Try, just_before};

/// A longer time is not listed; what is started then is only checked for what holds always.
const LISTED: SignedDuration = SignedDuration::from_hours(24 * 40);
/// Pauses before the second try and after.
const PAUSES_SECONDS: [i64; 8] = [5, 10, 20, 40, 80, 160, 300, 300];

/// What became of due times, kept and lost together with the state.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    timing: Option<String>,
    /// Up to where due times were looked at.
    until: Timestamp,
    /// Those that were started, with how often.
    tried: BTreeMap<Timestamp, u32>,
    skipped: BTreeSet<Timestamp>,
    missed: BTreeSet<Timestamp>,
    /// Up to where due times of a schedule that was changed may lie in what was lived through before.
    unsure_until: Timestamp,
    backlog: VecDeque<Timestamp>,
    retry: Option<(Timestamp, u32, Timestamp)>,
    pub(super) running: Option<Try>,
    pub(super) totals: Totals,
}

/// What a look must start.
pub(super) enum Expected {
    Nothing,
    Start(Timestamp, u32),
    /// The clock has been to where it cannot tell.
    Unknown,
}

impl Model {
    /// What must start now.
    pub(super) fn look(&mut self, schedule: &Schedule, node: &NodeId, now: Timestamp) -> Expected {
        let timing = format!("{:?}", schedule.enabled.then_some((&schedule.when, &schedule.zone)));
        if self.timing.as_ref() != Some(&timing) {
            self.timing = Some(timing);
            (self.until, self.retry) = (now, None);
            let soon = now.checked_add(LISTED).expect("in range");
            self.unsure_until = self.tried.range(..soon).next_back().map_or(self.unsure_until, |(due, _)| *due);
            self.backlog.clear();
        }
        if !schedule.enabled {
            return Expected::Nothing;
        }
        if now < self.until {
            self.until = just_before(now);
        }
        if self.running.is_some() {
            return Expected::Nothing;
        }
        if now.duration_since(self.until) > LISTED {
            return Expected::Unknown;
        }
        let due = self.begun(schedule, node, now);
        let open: BTreeSet<_> = due.iter().filter(|due| !self.is_known(**due)).copied().collect();
        let is_open = |due: &Timestamp| open.contains(due);
        if due.iter().any(|due| self.is_unsure(*due)) {
            return Expected::Unknown;
        }
        if let Some(newest) = due.last().copied() {
            self.until = newest;
            if is_open(&newest) {
                let is_in_time = now.duration_since(schedule.begin_of(newest, node)).unsigned_abs() <= SCHEDULE_LATE_MAX;
                let most = match schedule.catch_up {
                    CatchUp::Skip => usize::from(is_in_time),
                    CatchUp::Once => 1,
                    CatchUp::All { runs_max } => usize::try_from(runs_max).expect("few"),
                };
                let taken: Vec<_> = due.iter().rev().take_while(|due| is_open(due)).take(most).copied().collect();
                let passed: Vec<_> = due.iter().filter(|due| is_open(due) && !taken.contains(due)).copied().collect();
                self.totals.missed += (passed.len() as u64).min(MISSED_COUNTED_MAX);
                self.missed.extend(passed);
                if !taken.is_empty() {
                    self.retry = None;
                }
                self.backlog.extend(taken.into_iter().rev());
                while self.backlog.len() > most.max(1) {
                    self.missed.extend(self.backlog.pop_front());
                    self.totals.missed += 1;
                }
            }
        }
        match self.retry {
            Some((due, attempt, at)) if at <= now || at.duration_since(now) > SignedDuration::from_mins(5) => {
                self.retry = None;
                Expected::Start(due, attempt)
            }
            Some(_) => Expected::Nothing,
            None => self.backlog.pop_front().map_or(Expected::Nothing, |due| Expected::Start(due, 1)),
        }
    }

    /// Whether a due time was passed over, or may have been: then both are right, to start it and not to.
    fn is_unsure(&self, due: Timestamp) -> bool {
        self.missed.contains(&due) || due <= self.unsure_until
    }

    /// Whether it was started, is to be, or was skipped.
    fn is_known(&self, due: Timestamp) -> bool {
        self.tried.contains_key(&due) || self.skipped.contains(&due) || self.backlog.contains(&due)
    }

    /// Due times since the last look whose runs may begin.
    fn begun(&self, schedule: &Schedule, node: &NodeId, now: Timestamp) -> Vec<Timestamp> {
        let next = |after: &Timestamp| schedule.next_after(*after).filter(|due| *due <= now);
        let due = std::iter::successors(next(&self.until), next);
        due.filter(|due| schedule.begin_of(*due, node) <= now).collect()
    }

    /// Takes over what was done where it could not tell.
    pub(super) fn follow(&mut self, state: &ScheduleState, schedule: &Schedule, now: Timestamp) {
        self.until = state.cursor;
        self.backlog = state.backlog.iter().copied().collect();
        self.retry = state.retry.as_ref().map(|retry| (retry.due_at, retry.attempt, retry.at));
        // What the decisions count as lived through in what lies ahead is left to them.
        let mut due = now.checked_sub(SignedDuration::from_hours(24 * 3)).expect("in range");
        while let Some(next) = schedule.next_after(due).filter(|next| *next <= now) {
            due = next;
            if !self.tried.contains_key(&due) && state.lived.end_of(due).is_some() {
                self.missed.insert(due);
            }
        }
        self.totals = state.history.totals();
    }

    /// What was started. An error says that it must not have been.
    pub(super) fn started(&mut self, start: &Try, schedule: &Schedule) -> Result<(), String> {
        let tries = self.tried.entry(start.due_at).or_default();
        *tries += 1;
        if start.attempt != *tries {
            return Err(format!("try {} of {} is called the {}.", tries, start.due_at, start.attempt));
        }
        if start.attempt > schedule.attempts {
            return Err(format!("{} is tried {} times", start.due_at, start.attempt));
        }
        if self.running.is_some() {
            return Err(format!("{} is started while another runs", start.due_at));
        }
        self.running = Some(start.clone());
        Ok(())
    }

    /// A run is over.
    pub(super) fn over(&mut self, run: &Try, outcome: Outcome, schedule: &Schedule, now: Timestamp) {
        self.running = None;
        match outcome {
            Outcome::Succeeded => self.totals.succeeded += 1,
            Outcome::Failed => self.totals.failed += 1,
            _ => self.totals.interrupted += 1,
        }
        if outcome != Outcome::Succeeded && run.attempt < schedule.attempts && schedule.enabled {
            let pause = SignedDuration::from_secs(PAUSES_SECONDS[usize::try_from(run.attempt).expect("few") - 1]);
            self.retry = Some((run.due_at, run.attempt + 1, now.checked_add(pause).expect("in range")));
        }
    }

    /// What became due during a run is skipped.
    pub(super) fn skip(&mut self, run: &Try, state: &ScheduleState, schedule: &Schedule, node: &NodeId, now: Timestamp) {
        let timing = format!("{:?}", schedule.enabled.then_some((&schedule.when, &schedule.zone)));
        if self.timing.as_ref() != Some(&timing) || !schedule.enabled {
            return;
        }
        let until = now.min(run.started_at.checked_add(SignedDuration::from_secs(3630)).expect("in range"));
        let due = self.begun(schedule, node, until);
        let Some(newest) = due.last().copied() else { return };
        self.until = newest;
        if due.iter().any(|due| self.is_unsure(*due)) {
            self.totals.skipped = state.history.totals().skipped;
            self.skipped.extend(due);
            return;
        }
        for due in due {
            if !self.is_known(due) && self.skipped.insert(due) {
                self.totals.skipped += 1;
            }
        }
    }

    /// Whether what is told agrees with it.
    pub(super) fn check(&self, state: &ScheduleState) -> Result<(), String> {
        let (told, known) = (state.history.totals(), self.totals);
        if told != known {
            return Err(format!("it tells {told:?}, and there were {known:?}"));
        }
        if state.backlog.iter().ne(self.backlog.iter()) {
            return Err(format!("it makes up for {:?} instead of {:?}", state.backlog, self.backlog));
        }
        Ok(())
    }
}
