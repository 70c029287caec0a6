//! A node of the simulation: it takes the newest order that it hears, gets there in its time or not, keeps its last good revision, is called,
//! and reports.

use std::collections::BTreeSet;

use edgeward_model::NodeId;

use super::fault::{Kind, Kinds};
use crate::{
    planted::{self, Bug},
    random::Random,
    rollout::{Order, Sample, Served},
};

/// Seconds for which a node prepares a revision that it has not, at most.
const PREPARING_MAX: usize = 4;

/// What a node reports.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) node: usize,
    /// Its number; an older one that comes late says nothing.
    pub(super) number: u64,
    /// The number of the order that it is about.
    pub(super) order: u64,
    pub(super) holds: bool,
    pub(super) served: Served,
    pub(super) warm: Served,
    pub(super) sample: Sample,
    pub(super) before: Sample,
    pub(super) has_baked: bool,
}

/// A node.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) index: usize,
    pub(super) wave: usize,
    pub(super) is_online: bool,
    /// Until when it is away, or starts again.
    pub(super) back_at: u64,
    pub(super) down_until: u64,
    pub(super) holds: bool,
    /// Its newest order and the number of that. Kept over a restart, like what it runs.
    pub(super) order: Order,
    pub(super) order_number: u64,
    pub(super) serves: Option<u64>,
    pub(super) warm: Option<u64>,
    /// Since when it serves that; a restart is no end of it.
    pub(super) serves_since: u64,
    /// What it has served since it had nothing.
    pub(super) ever: BTreeSet<u64>,
    /// When what it prepares is ready.
    prepared_at: Option<u64>,
    warmed_at: Option<u64>,
    is_starting: bool,
    /// Since when it has served without a break, and how many seconds of that its order wants.
    baking_since: u64,
    pub(super) bake_seconds: u64,
    served: Served,
    warmed: Served,
    sample: Sample,
    before: Sample,
    calls_per_second: usize,
    reports: u64,
}

impl Node {
    pub(super) fn new(index: usize, wave: usize, random: &mut Random) -> Self {
        Self {
            id: NodeId::new(format!("n{index:02}")).expect("valid"),
            index,
            wave,
            is_online: true,
            back_at: 0,
            down_until: 0,
            holds: false,
            order: Order::default(),
            order_number: 0,
            serves: None,
            warm: None,
            serves_since: 0,
            ever: BTreeSet::new(),
            prepared_at: None,
            warmed_at: None,
            is_starting: false,
            baking_since: 0,
            bake_seconds: 0,
            served: Served::Pending,
            warmed: Served::Pending,
            sample: Sample::default(),
            before: Sample::default(),
            calls_per_second: [0, 1, 3, 8, 8][random.below(5)],
            reports: 0,
        }
    }

    /// Its process ends and begins again: what it counted is lost, and not what it has fetched.
    pub(super) fn restart(&mut self, until: u64) {
        (self.down_until, self.is_starting) = (until, true);
        self.baking_since = until;
        (self.served, self.warmed) = (Served::Pending, Served::Pending);
        (self.sample, self.before) = (Sample::default(), Sample::default());
    }

    /// Hears an order.
    pub(super) fn hear(&mut self, number: u64, order: Order, bake_seconds: u64) {
        if number > self.order_number {
            self.bake_seconds = bake_seconds;
            (self.order_number, self.order) = (number, order);
            (self.served, self.warmed) = (Served::Pending, Served::Pending);
            (self.prepared_at, self.warmed_at) = (None, None);
        }
    }

    /// A second of its life.
    pub(super) fn live(&mut self, now: u64, kinds: &Kinds, random: &mut Random) {
        if now < self.down_until || std::mem::take(&mut self.is_starting) {
            return;
        }
        if self.serves.is_some_and(|serves| kinds.of(serves) == Kind::CrashLoops) && self.sample.calls > 0 {
            return self.restart(now + 2);
        }
        self.follow(now, kinds, random);
        self.be_called(now, kinds, random);
    }

    fn follow(&mut self, now: u64, kinds: &Kinds, random: &mut Random) {
        let Order { serve, warm, .. } = self.order;
        if serve == self.serves {
            self.served = Served::Ready;
        } else if serve.is_none() || serve == self.warm {
            self.switch(now);
        } else if self.holds || self.served == Served::Failed {
            return;
        } else {
            // Two are the most that it has.
            self.warm = None;
            match self.prepared_at {
                None => self.prepared_at = Some(now + random.below(PREPARING_MAX) as u64),
                Some(at) if now < at => {}
                Some(_) if serve.is_some_and(|serve| kinds.of(serve).starts_on(self.index)) => self.switch(now),
                Some(_) => self.served = Served::Failed,
            }
            return;
        }
        if warm == self.warm {
            self.warmed = Served::Ready;
        } else if self.warmed != Served::Failed && (!self.holds || warm.is_none()) {
            self.warm = None;
            match (warm, self.warmed_at) {
                (None, _) => self.warmed = Served::Ready,
                (Some(_), None) => self.warmed_at = Some(now + random.below(PREPARING_MAX) as u64),
                (Some(_), Some(at)) if now < at => {}
                (Some(revision), _) if kinds.of(revision).starts_on(self.index) => {
                    (self.warm, self.warmed) = (warm, Served::Ready);
                }
                _ => self.warmed = Served::Failed,
            }
        }
    }

    /// What was ordered takes the place of what serves, which stays ready if that is wanted.
    fn switch(&mut self, now: u64) {
        let was = self.serves;
        self.serves = self.order.serve;
        self.warm = self.order.warm.filter(|warm| Some(*warm) == was);
        self.serves_since = now;
        if !planted::has(Bug::ServedBeforeCounted) {
            self.baking_since = now;
        }
        match self.serves {
            Some(serves) => drop(self.ever.insert(serves)),
            None => self.ever.clear(),
        }
        self.before = std::mem::take(&mut self.sample);
        self.served = Served::Ready;
    }

    fn be_called(&mut self, now: u64, kinds: &Kinds, random: &mut Random) {
        let Some(serves) = self.serves else { return };
        let kind = kinds.of(serves);
        let crashes = usize::from(kind == Kind::CrashLoops);
        let calls = random.below(self.calls_per_second + 1).max(crashes) as u64;
        let was = self.sample.calls;
        self.sample.calls += calls;
        self.sample.errors +=
            if kind.errs_on(self.index, now - self.serves_since) { calls - calls / 4 } else { self.sample.calls / 40 - was / 40 };
        self.sample.p95_ms = random.below(4) as f64 + if kind == Kind::Slow { 100.0 } else { 10.0 };
    }

    /// What it says of itself now, if it can.
    pub(super) fn report(&mut self, now: u64) -> Option<Report> {
        if !self.is_online || now < self.down_until {
            return None;
        }
        self.reports += 1;
        let is_its_own = self.serves == self.order.serve || planted::has(Bug::FormerCounted);
        Some(Report {
            node: self.index,
            number: self.reports,
            order: self.order_number,
            holds: self.holds,
            served: self.served,
            warm: self.warmed,
            sample: if is_its_own { self.sample } else { Sample::default() },
            before: if is_its_own { self.before } else { Sample::default() },
            has_baked: self.served == Served::Ready && now >= self.baking_since + self.bake_seconds,
        })
    }

    /// What it runs or has ready.
    pub(super) fn has(&self, revision: u64) -> bool {
        self.serves == Some(revision) || self.warm == Some(revision)
    }
}
