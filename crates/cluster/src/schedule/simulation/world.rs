//! The world of one seed: a node with a schedule, its clock, its process, and people.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_model::{
    FunctionId, NodeId, Schedule, ScheduleId,
    limits::{CLOCK_JUMPS_MAX, SCHEDULE_RUNS_KEPT_MAX},
};
use jiff::{SignedDuration, Timestamp};

use super::{
    super::{Outcome, ScheduleState, Try},
    model::{Expected, Model},
};
use crate::random::Random;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Whoever waits looks after so long at the latest.
const LOOK_MS: i64 = 10_000;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// The process ends, and comes back.
    Crash,
    /// It ends before it has kept what it decided.
    CrashBeforeKeeping,
    /// It ends between keeping what it decided and doing it, or before it keeps how a run ended.
    CrashAfterKeeping,
    /// The node is off for hours or days.
    LongAway,
    /// The clock is put back by up to two hours.
    PutBack,
    /// It is put back by days.
    PutFarBack,
    /// It is put forward by up to two hours.
    PutForward,
    /// It shows a time years ahead for a while.
    YearsAhead,
    /// A run lasts longer than it should.
    LongRun,
    /// A run fails.
    Failure,
    /// Somebody switches the schedule off, or on.
    Switched,
    /// Somebody changes when it is due.
    Changed,
}

impl Fault {
    pub(super) const ALL: [Self; 12] = [
        Self::Crash,
        Self::CrashBeforeKeeping,
        Self::CrashAfterKeeping,
        Self::LongAway,
        Self::PutBack,
        Self::PutFarBack,
        Self::PutForward,
        Self::YearsAhead,
        Self::LongRun,
        Self::Failure,
        Self::Switched,
        Self::Changed,
    ];
}

/// When schedules are due, with their zone and the days of a run.
const TIMES: [(&str, &str, i64); 9] = [
    ("every 7m", "UTC", 3),
    ("every 1h", "UTC", 28),
    ("every 45s", "UTC", 1),
    ("*/20 * * * *", "Europe/Berlin", 14),
    ("30 2 * * *", "Europe/Berlin", 42),
    ("0 */3 * * *", "America/New_York", 28),
    ("15 1,2,3 * * MON-SAT", "America/New_York", 42),
    ("0 30 2-4 * * *", "Australia/Lord_Howe", 28),
    ("every 26h", "UTC", 60),
];

/// The node.
pub(super) struct World {
    random: Random,
    node: NodeId,
    schedule: Schedule,
    /// Milliseconds that have really passed.
    elapsed: i64,
    /// Milliseconds by which the clock is ahead of that.
    ahead: i64,
    start: Timestamp,
    days: i64,
    state: ScheduleState,
    model: Model,
    /// What was on the disk when the process ended.
    kept: (String, Model),
    /// When the run ends, and how.
    ends: Option<(i64, Try, bool)>,
    /// Every try that was really started.
    started: BTreeSet<(Timestamp, u32)>,
    /// Until when the process is away.
    away_until: Option<i64>,
    /// When a clock that is years ahead is put right.
    right_at: Option<i64>,
    enabled: BTreeSet<Fault>,
    pub(super) faults: BTreeMap<Fault, u64>,
    pub(super) trace: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (when, zone, days) = TIMES[random.below(TIMES.len())];
        let (id, function) = (ScheduleId::new("s").expect("valid"), FunctionId::new("f").expect("valid"));
        let mut schedule = Schedule::new(id, function, when.parse().expect(when));
        schedule.zone = zone.parse().expect(zone);
        schedule.catch_up = ["skip", "once", "all=1", "all=3", "all=20"][random.below(5)].parse().expect("valid");
        schedule.jitter_seconds = [0, 0, 20, 600][random.below(4)];
        schedule.attempts = [1, 1, 2, 4][random.below(4)];
        let starts = ["2026-03-15T00:00:00Z", "2026-10-20T12:34:56.789Z", "2026-06-01T00:00:00Z"];
        let enabled = Fault::ALL.into_iter().filter(|_| random.percent(45)).collect();
        Self {
            node: NodeId::new("n").expect("valid"),
            elapsed: 0,
            ahead: 0,
            start: starts[random.below(3)].parse().expect("a time"),
            days,
            state: ScheduleState::default(),
            model: Model::default(),
            kept: Default::default(),
            ends: None,
            started: BTreeSet::new(),
            away_until: None,
            right_at: None,
            enabled,
            faults: BTreeMap::new(),
            trace: vec![format!(
                "{when} in {zone}, {}, jitter {}, {} tries",
                schedule.catch_up, schedule.jitter_seconds, schedule.attempts
            )],
            random,
            schedule,
        }
    }

    /// Tries that were started.
    pub(super) fn starts(&self) -> u64 {
        self.started.len() as u64
    }

    fn now(&self) -> Timestamp {
        self.start.checked_add(SignedDuration::from_millis(self.elapsed + self.ahead)).expect("in range")
    }

    fn note(&mut self, text: &str) {
        let line = format!("{:9.3} h, {}: {text}", self.elapsed as f64 / HOUR_MS as f64, self.now());
        self.trace.push(line);
    }

    /// Whether this fault, of those that the run has, happens now; so often in a thousand.
    fn happens(&mut self, fault: Fault, often: usize) -> bool {
        let happens = self.enabled.contains(&fault) && self.random.below(1000) < often;
        if happens {
            *self.faults.entry(fault).or_default() += 1;
            self.note(&format!("{fault:?}"));
        }
        happens
    }

    /// The whole run; an error is what did not hold.
    pub(super) fn run(&mut self) -> Result<(), String> {
        let mut next_trouble = self.some_of(DAY_MS);
        self.restore();
        while self.elapsed < self.days * DAY_MS {
            if self.away_until.is_none() {
                self.turn()?;
            }
            let mut next = next_trouble.min(self.wake());
            if self.elapsed >= next_trouble {
                self.trouble();
                next_trouble = self.elapsed + self.some_of(self.days * DAY_MS / 20);
                next = self.elapsed + self.some_of(LOOK_MS);
            }
            self.elapsed = next.max(self.elapsed + 1);
            if self.right_at.is_some_and(|at| at <= self.elapsed) {
                (self.right_at, self.ahead) = (None, 0);
                self.note("the clock is put right");
            }
            if self.away_until.is_some_and(|until| until <= self.elapsed) {
                self.restore();
            }
        }
        Ok(())
    }

    /// When something happens next.
    fn wake(&self) -> i64 {
        let back = self.away_until.or(self.ends.as_ref().map(|(at, ..)| *at));
        let at = |moment: Timestamp| self.elapsed + i64::try_from(moment.duration_since(self.now()).as_millis()).expect("some years");
        let look = if self.away_until.is_none() { self.state.next_look(&self.schedule, &self.node, self.now()).map(at) } else { None };
        [back, look, self.right_at].into_iter().flatten().min().unwrap_or(i64::MAX / 4)
    }

    fn some_of(&mut self, most: i64) -> i64 {
        1 + i64::try_from(self.random.below(usize::try_from(most.max(1)).expect("positive"))).expect("positive")
    }

    /// What the process does when it wakes.
    fn turn(&mut self) -> Result<(), String> {
        if self.ends.as_ref().is_some_and(|(at, ..)| *at <= self.elapsed) {
            let (_, run, is_success) = self.ends.take().expect("it was there");
            self.finish(&run, is_success)?;
        }
        // More than the longest backlog is not started at once.
        for _ in 0..=20 {
            if self.away_until.is_some() || !self.look()? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A look at what is to be started; whether something was that has ended at once.
    fn look(&mut self) -> Result<bool, String> {
        let now = self.now();
        // Now and then the process ends before it has kept what it decides here.
        if self.happens(Fault::CrashBeforeKeeping, 3) {
            let (mut state, before) = (self.state.clone(), self.state.clone());
            state.look(&self.schedule, &self.node, now);
            if state != before {
                self.crash(60_000);
                return Ok(false);
            }
        }
        let expected = self.model.look(&self.schedule, &self.node, now);
        let start = self.state.look(&self.schedule, &self.node, now);
        let found = start.as_ref().map(|start| (start.due_at, start.attempt));
        match expected {
            Expected::Nothing if found.is_none() => {}
            Expected::Start(due_at, attempt) if found == Some((due_at, attempt)) => {}
            Expected::Nothing => return Err(format!("{found:?} is started at {now}, where nothing is to be")),
            Expected::Start(due_at, attempt) => return Err(format!("{found:?} is started at {now} instead of {due_at}, try {attempt}")),
            Expected::Unknown => self.model.follow(&self.state, &self.schedule, now),
        }
        if let Some(start) = &start {
            self.model.started(start, &self.schedule)?;
        }
        self.model.check(&self.state)?;
        self.check_bounds()?;
        if start.is_none() {
            let mut again = self.state.clone();
            if again.look(&self.schedule, &self.node, now).is_some() || again != self.state {
                return Err("a second look at the same time changes something".to_owned());
            }
            if self.state.next_look(&self.schedule, &self.node, now).is_some_and(|next| next <= now) {
                return Err("it wants to look again at once".to_owned());
            }
        }
        let Some(start) = start else { return Ok(false) };
        if self.happens(Fault::CrashAfterKeeping, 8) {
            self.crash(60_000);
            return Ok(false);
        }
        self.begin(start).map(|()| false)
    }

    /// A try really starts.
    fn begin(&mut self, start: Try) -> Result<(), String> {
        self.note(&format!("starts {} try {}{}", start.due_at, start.attempt, if start.is_late { ", late" } else { "" }));
        if !self.started.insert((start.due_at, start.attempt)) {
            return Err(format!("{} try {} is started twice", start.due_at, start.attempt));
        }
        if self.ends.is_some() {
            return Err(format!("{} is started while another runs", start.due_at));
        }
        let lasts = if self.happens(Fault::LongRun, 30) { self.some_of(HOUR_MS) } else { self.some_of(8_000) };
        let is_success = !self.happens(Fault::Failure, 250);
        self.ends = Some((self.elapsed + lasts, start, is_success));
        Ok(())
    }

    /// A run ends.
    fn finish(&mut self, run: &Try, is_success: bool) -> Result<(), String> {
        let now = self.now();
        if self.happens(Fault::CrashAfterKeeping, 4) {
            self.crash(60_000);
            return Ok(());
        }
        self.note(&format!("{} ends, {}", run.due_at, if is_success { "well" } else { "badly" }));
        self.state.end(&self.schedule, &self.node, run, if is_success { Ok(()) } else { Err("it failed") }, now);
        let outcome = if is_success { Outcome::Succeeded } else { Outcome::Failed };
        self.model.over(run, outcome, &self.schedule, now);
        self.model.skip(run, &self.state, &self.schedule, &self.node, now);
        let told = self.state.history().newest_first().take(2).any(|told| {
            (told.due_at, told.attempt, told.outcome, told.started_at) == (run.due_at, run.attempt, outcome, Some(run.started_at))
        });
        if !told {
            return Err(format!("it does not tell of the run of {}", run.due_at));
        }
        self.model.check(&self.state)
    }

    fn check_bounds(&self) -> Result<(), String> {
        let (spans, runs, backlog) = (self.state.lived.len(), self.state.history.newest_first().len(), self.state.backlog.len());
        if spans > CLOCK_JUMPS_MAX || runs > SCHEDULE_RUNS_KEPT_MAX || backlog > 20 {
            return Err(format!("it grows: {spans} spans, {runs} runs, {backlog} due times to make up for"));
        }
        Ok(())
    }

    /// The process ends, and with it what runs and what was not kept.
    fn crash(&mut self, most: i64) {
        let away = self.some_of(most);
        self.ends = None;
        self.kept = (serde_json::to_string(&self.state).expect("plain data"), self.model.clone());
        self.away_until = Some(self.elapsed + away);
        self.note("the process ends");
    }

    /// It starts again, from what is on the disk.
    fn restore(&mut self) {
        self.away_until = None;
        self.note("the process starts");
        let (state, model) = std::mem::take(&mut self.kept);
        self.model = model;
        self.state = if state.is_empty() { ScheduleState::default() } else { serde_json::from_str(&state).expect("its own JSON") };
        let now = self.now();
        self.state.recover(&self.schedule, now);
        if let Some(run) = self.model.running.take() {
            self.model.over(&run, Outcome::Interrupted, &self.schedule, now);
        }
    }

    /// What goes wrong now.
    fn trouble(&mut self) {
        if self.away_until.is_some() {
            return;
        }
        if self.happens(Fault::Crash, 300) {
            return self.crash(2 * HOUR_MS);
        }
        if self.happens(Fault::LongAway, 150) {
            return self.crash(4 * DAY_MS);
        }
        if self.right_at.is_none() {
            if self.happens(Fault::PutBack, 150) {
                self.ahead -= self.some_of(2 * HOUR_MS);
            }
            if self.happens(Fault::PutFarBack, 50) {
                self.ahead -= self.some_of(3 * DAY_MS);
            }
            if self.happens(Fault::PutForward, 150) {
                self.ahead += self.some_of(2 * HOUR_MS);
            }
            if self.happens(Fault::YearsAhead, 50) {
                self.ahead += 365 * DAY_MS * self.some_of(70);
                self.right_at = Some(self.elapsed + self.some_of(6 * HOUR_MS));
            }
        }
        if self.happens(Fault::Switched, 150) {
            self.schedule.enabled = !self.schedule.enabled;
        } else if !self.schedule.enabled && self.random.percent(50) {
            self.schedule.enabled = true;
            self.note("it is switched on");
        }
        if self.happens(Fault::Changed, 60) {
            let (when, zone, _) = TIMES[[1, 4, 5, 8][self.random.below(4)]];
            self.schedule.when = when.parse().expect(when);
            self.schedule.zone = zone.parse().expect(zone);
            self.note(&format!("it is now {when} in {zone}"));
        }
    }
}
