//! The world of one seed: a hub, nodes, people who deploy, and what goes wrong between them, second after second.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_model::{Amount, Gate, Selector, Strategy, StrategyKind};

use super::{
    check::{self, Decided, Model},
    fault::{Fault, Kind, Kinds},
    hub::{Deployment, Hub},
    node::{Node, Report},
};
use crate::{
    random::Random,
    rollout::{Phase, RolloutState, decide},
};

/// Seconds of a run before everything is healed.
const STEPS: u64 = 240;
/// The same for one that had fewer than three kinds of faults until then.
const STEPS_MAX: u64 = 10_000;
/// Seconds in which everything must have come to rest.
const REST_MAX: u64 = 1500;
/// Seconds without any change after which everything has: longer than a rollout waits before it is paused.
const QUIET: u64 = 45;
/// How many times people resume a rollout before they end it.
const RESUMED_MAX: usize = 3;

pub(super) struct World {
    random: Random,
    pub(super) now: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) hub: Hub,
    /// How each revision does.
    pub(super) kinds: Kinds,
    pub(super) model: Model,
    /// Reports on their way, with when they arrive.
    wires: Vec<(u64, Report)>,
    pub(super) faults: BTreeMap<Fault, u64>,
    enabled: BTreeSet<Fault>,
    waves: usize,
    /// Whether people approve and resume in the end.
    pub(super) is_willing: bool,
    resumed: usize,
    /// Whether a first rollout was superseded, so that nodes may have what they had of it.
    pub(super) is_let_go: bool,
    changed_at: u64,
    /// What happened, when it is wanted.
    pub(super) trace: Vec<String>,
    pub(super) is_traced: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let waves = random.below(3);
        let nodes: Vec<_> = (0..3 + random.below(8)).map(|index| Node::new(index, random.below(waves + 1), &mut random)).collect();
        let mut enabled = BTreeSet::new();
        while enabled.len() < 11 {
            enabled = Fault::ALL.into_iter().filter(|_| random.percent(60)).collect();
        }
        Self {
            now: 0,
            hub: Hub::new(nodes.len()),
            nodes,
            kinds: Kinds::default(),
            model: Model::default(),
            wires: Vec::new(),
            faults: BTreeMap::new(),
            enabled,
            waves,
            is_willing: random.percent(50),
            resumed: 0,
            is_let_go: false,
            changed_at: 0,
            trace: Vec::new(),
            is_traced: false,
            random,
        }
    }

    fn note(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.is_traced {
            let line = format!("{:4} {}", self.now, text(self));
            self.trace.push(line);
        }
    }

    fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Whether this fault, of those that the run has, happens now; so often in a thousand.
    fn happens(&mut self, fault: Fault, often: usize) -> bool {
        self.enabled.contains(&fault) && self.random.below(1000) < often
    }

    /// The whole run; an error is what did not hold.
    pub(super) fn run(&mut self) -> Result<(), String> {
        self.deploy();
        while self.now < STEPS || (self.faults.len() < 3 && self.now < STEPS_MAX) {
            self.people();
            self.trouble();
            self.second()?;
        }
        self.heal();
        let healed_at = self.now;
        while self.now < self.changed_at + QUIET {
            if self.now > healed_at + REST_MAX {
                return Err(format!("it does not come to rest: {:?}", self.hub.rollout));
            }
            if self.is_willing {
                self.agree();
            }
            self.second()?;
        }
        check::at_rest(self)
    }

    /// Everything works from now on.
    fn heal(&mut self) {
        self.note(|_| "everything works from now on".to_owned());
        self.enabled.clear();
        for node in &mut self.nodes {
            (node.is_online, node.holds) = (true, false);
        }
        self.hub.down_until = 0;
        self.changed_at = self.now;
    }

    fn second(&mut self) -> Result<(), String> {
        self.now += 1;
        for index in 0..self.nodes.len() {
            self.live(index);
        }
        self.arrive();
        if self.now >= self.hub.down_until {
            self.tick()?;
        }
        check::nodes(self)
    }

    fn live(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if !node.is_online && self.now >= node.back_at {
            node.is_online = true;
        }
        let was = (node.serves, node.warm, node.order_number);
        // The newest order is what it hears, whatever there was in between.
        if node.is_online && self.now >= node.down_until && self.now >= self.hub.down_until && self.random.percent(70) {
            let (number, order) = self.hub.orders[index];
            let bake = self.hub.current().map_or(0, |deployment| deployment.strategy.bake().as_secs());
            node.hear(number, order, bake);
        }
        node.live(self.now, &self.kinds, &mut self.random);
        let is = (node.serves, node.warm, node.order_number);
        let report = node.report(self.now);
        if was != is {
            self.changed_at = self.now;
            self.note(|world| {
                let node = &world.nodes[index];
                format!("{} serves {:?} warm {:?}, ordered {:?}", node.id, node.serves, node.warm, node.order)
            });
        }
        let Some(report) = report else { return };
        if self.happens(Fault::Loss, 100) {
            self.fault(Fault::Loss);
        } else if self.happens(Fault::Reordering, 150) {
            self.fault(Fault::Reordering);
            let late = 2 + self.random.below(6) as u64;
            self.wires.push((self.now + late, report));
        } else {
            self.wires.push((self.now, report));
        }
    }

    /// Reports arrive, and are lost when there is no hub.
    fn arrive(&mut self) {
        let now = self.now;
        for (at, report) in std::mem::take(&mut self.wires) {
            if at > now {
                self.wires.push((at, report));
            } else if now >= self.hub.down_until {
                self.hub.hear(report, now);
            }
        }
    }

    /// The hub looks at everything and decides.
    fn tick(&mut self) -> Result<(), String> {
        self.hub.renew(self.now);
        let facts = self.hub.facts(&self.nodes, self.now);
        let before = self.hub.rollout.clone().expect("there is one");
        let scope = self.hub.scope().expect("there is one");
        let mut model = std::mem::take(&mut self.model);
        model.watch(&before, &self.nodes, self.now);
        self.model = model;
        let decision = decide(&before, scope, &facts, self.hub.clock(self.now));
        Decided { world: self, before: &before, scope, facts: &facts, decision: &decision }.check()?;
        if scope.is_superseded && before.phase != Phase::Restoring && !before.state.is_over() {
            self.is_let_go |= decision.rollout.state.is_over() && decision.rollout.phase != Phase::Restoring;
            self.fault(Fault::Superseded);
            self.note(|_| "it is superseded".to_owned());
        }
        if before != decision.rollout || !decision.orders.is_empty() {
            self.changed_at = self.now;
            self.note(|_| {
                let crate::rollout::Rollout { from, to, state, phase, wave, allowed, approval, reason, .. } = &decision.rollout;
                let orders: Vec<_> =
                    decision.orders.iter().map(|(id, order)| format!("{id}: {:?}/{:?}", order.serve, order.warm)).collect();
                format!("{from:?}→{to} {state} {phase:?} wave {wave}, {allowed} allowed, {approval:?}, `{reason}`: {}", orders.join(" "))
            });
        }
        let crashes = self.happens(Fault::HubCrash, 15);
        if crashes && self.random.percent(30) {
            self.crash();
            return Ok(());
        }
        // The record is kept before any order is given.
        self.hub.rollout = Some(decision.rollout);
        let mut missing = 0;
        for (id, order) in decision.orders {
            let index = self.nodes.iter().position(|node| node.id == id).expect("it is known");
            if (crashes || (self.enabled.contains(&Fault::OrdersHalfGiven) && self.random.percent(5))) && self.random.percent(50) {
                missing += 1;
            } else {
                self.hub.order(index, order);
            }
        }
        if missing > 0 {
            self.fault(Fault::OrdersHalfGiven);
        }
        if crashes || missing > 0 {
            self.crash();
        }
        Ok(())
    }

    fn crash(&mut self) {
        self.fault(Fault::HubCrash);
        self.hub.forget();
        self.hub.down_until = self.now + 1 + self.random.below(8) as u64;
        if self.happens(Fault::Takeover, 500) {
            self.fault(Fault::Takeover);
            // Its clock is not the same.
            self.hub.ahead = self.hub.ahead.saturating_sub(2) + self.random.below(5) as u64;
        }
        self.note(|_| "the hub ends".to_owned());
    }

    /// What goes wrong in this second.
    fn trouble(&mut self) {
        if self.happens(Fault::ClockJump, 4) {
            self.fault(Fault::ClockJump);
            self.hub.ahead += 5 + self.random.below(600) as u64;
            self.note(|_| "the clock of the hub jumps".to_owned());
        }
        for index in 0..self.nodes.len() {
            if self.happens(Fault::Offline, 8) {
                self.away(index, Fault::Offline, 30);
            }
            if self.happens(Fault::LongAway, 2) {
                self.away(index, Fault::LongAway, 250);
            }
            if self.happens(Fault::Restart, 6) {
                self.fault(Fault::Restart);
                let until = self.now + 1 + self.random.below(4) as u64;
                self.nodes[index].restart(until);
                self.note(|world| format!("{} restarts", world.nodes[index].id));
            }
            if self.nodes[index].holds {
                self.nodes[index].holds = self.random.below(100) < 95;
            } else if self.happens(Fault::Hold, 6) {
                self.fault(Fault::Hold);
                self.nodes[index].holds = true;
                self.note(|world| format!("{} holds", world.nodes[index].id));
            }
        }
        self.replace();
    }

    fn away(&mut self, index: usize, fault: Fault, seconds: usize) {
        if self.nodes[index].is_online {
            self.fault(fault);
            self.nodes[index].is_online = false;
            self.nodes[index].back_at = self.now + 1 + self.random.below(seconds) as u64;
            self.note(|world| format!("{} is away", world.nodes[index].id));
        }
    }

    /// A function of which there are to be so many goes from one node to another.
    fn replace(&mut self) {
        if !self.happens(Fault::Moved, 15) {
            return;
        }
        let current = self.hub.rollout.as_ref().map_or(0, |rollout| rollout.generation);
        let Some(deployment) = usize::try_from(current).ok().and_then(|current| self.hub.deployments.get_mut(current.checked_sub(1)?))
        else {
            return;
        };
        let target = &mut deployment.target;
        let (from, to) = (self.random.below(target.len()), self.random.below(target.len()));
        if deployment.wanted.is_some() && target[from] && !target[to] {
            (target[from], target[to]) = (false, true);
            self.fault(Fault::Moved);
            self.note(|world| format!("what {} has goes to {}", world.nodes[from].id, world.nodes[to].id));
        }
    }

    /// What people do in this second.
    fn people(&mut self) {
        let clock = self.hub.clock(self.now);
        let Some(rollout) = &mut self.hub.rollout else { return };
        let is_over = rollout.state.is_over();
        if rollout.state == RolloutState::Paused && self.random.percent(8) {
            rollout.resume(clock).expect("it is paused");
        }
        if rollout.approve(clock).is_ok() {
            if self.random.percent(15) {
                self.model.is_approved = true;
                self.note(|_| "it is approved".to_owned());
            } else {
                rollout.approval = crate::rollout::Approval::Awaited;
            }
        }
        if !is_over && self.happens(Fault::Pause, 12) && self.hub.rollout.as_mut().expect("there is one").pause("somebody said so").is_ok()
        {
            self.fault(Fault::Pause);
            self.note(|_| "it is paused".to_owned());
        }
        if !is_over
            && self.happens(Fault::Abort, 6)
            && self.hub.rollout.as_mut().expect("there is one").abort("somebody said so", clock).is_ok()
        {
            self.fault(Fault::Abort);
            self.note(|_| "it is aborted".to_owned());
        }
        let is_newest = self.hub.rollout.as_ref().is_some_and(|rollout| rollout.generation == self.hub.deployments.len() as u64);
        let often = if is_over { 60 } else { 8 };
        if is_newest && self.random.below(1000) < often && (is_over || self.enabled.contains(&Fault::Superseded) || self.now > STEPS) {
            self.deploy();
        }
    }

    /// People who want it to end: they approve, resume a few times, and end what does not get on.
    fn agree(&mut self) {
        let clock = self.hub.clock(self.now);
        let Some(rollout) = &mut self.hub.rollout else { return };
        if rollout.approve(clock).is_ok() {
            self.model.is_approved = true;
        }
        if rollout.state == RolloutState::Paused {
            self.resumed += 1;
            if self.resumed <= RESUMED_MAX {
                rollout.resume(clock).expect("it is paused");
            } else if rollout.phase != Phase::Restoring {
                rollout.abort("somebody said so", clock).expect("it is paused");
            }
        }
    }

    /// Somebody deploys: a new revision, or one that was there, in some way, to some nodes.
    fn deploy(&mut self) {
        let newest = self.kinds.newest();
        let is_old = newest > 0 && self.random.percent(20);
        let revision = if is_old {
            1 + self.random.next() % newest
        } else {
            let kind = self.kind();
            self.kinds.add(kind)
        };
        let kind = self.kinds.of(revision);
        if let Some(fault) = kind.fault() {
            self.fault(fault);
        }
        let strategy = self.strategy();
        let count = self.nodes.len();
        let wanted = (self.enabled.contains(&Fault::Moved) && self.random.percent(60)).then(|| 1 + self.random.below(count - 1));
        let last = self.hub.deployments.last();
        let mut target = match (wanted, last) {
            (Some(wanted), Some(last)) if last.wanted == Some(wanted) => last.target.clone(),
            (Some(wanted), _) => {
                let first = self.random.below(count);
                (0..count).map(|index| (index + count - first) % count < wanted).collect()
            }
            (None, _) => vec![true; count],
        };
        if wanted.is_none() && self.random.percent(15) {
            let out = self.random.below(count);
            target[out] = false;
        }
        // A share of nodes that come and go cannot be told from outside.
        let strategy = match (wanted, strategy.batch) {
            (Some(_), Some(Amount::Percent(_)) | None) if strategy.kind != StrategyKind::BlueGreen => {
                Strategy { batch: Some(Amount::Count(1)), ..strategy }
            }
            _ => strategy,
        };
        self.note(|_| format!("revision {revision}, {kind:?}, is deployed with {strategy:?} to {target:?}, {wanted:?}"));
        self.hub.deployments.push(Deployment { revision, strategy, target, wanted });
    }

    fn kind(&mut self) -> Kind {
        let few = self.random.below(4);
        let kind = match self.random.below(14) {
            0 => Kind::CannotStart,
            1 => Kind::CannotStartOn(few),
            2 => Kind::Errs,
            3 => Kind::ErrsOn(few),
            4 => Kind::ErrsAfter(1 + self.random.below(30) as u64),
            5 => Kind::Slow,
            6 => Kind::CrashLoops,
            _ => Kind::Good,
        };
        if kind.fault().is_none_or(|fault| self.enabled.contains(&fault)) { kind } else { Kind::Good }
    }

    fn strategy(&mut self) -> Strategy {
        let kind = StrategyKind::ALL[self.random.below(3)];
        let amounts = [Amount::Count(1), Amount::Count(2), Amount::Percent(20), Amount::Percent(40)];
        let batch = amounts[self.random.below(4)];
        let lacking = [None, None, Some(Amount::Count(0)), Some(Amount::Count(1)), Some(Amount::Percent(30))];
        let gate = Gate { min_samples: self.random.percent(25).then(|| 1 + self.random.below(60) as u64), ..Gate::default() };
        Strategy {
            kind,
            batch: (kind != StrategyKind::BlueGreen).then_some(batch),
            growth: (kind == StrategyKind::Rolling && self.random.percent(40)).then_some(2),
            max_unavailable: lacking[self.random.below(5)],
            bake_seconds: Some((2 + self.random.below(6)) as f64),
            progress_seconds: Some((12 + self.random.below(18)) as f64),
            approve: self.random.percent(25),
            waves: vec![Selector::default(); self.waves],
            gate,
        }
    }

    pub(super) fn kind_of(&self, revision: Option<u64>) -> Option<Kind> {
        revision.map(|revision| self.kinds.of(revision))
    }
}
