//! What comes next: from a rollout as it is kept and its nodes as they are, to the rollout as it is to be kept and the orders that follow.

use std::{collections::BTreeMap, time::Duration};

use edgeward_model::{NodeId, Strategy, StrategyKind};
use jiff::Timestamp;

use super::{
    Approval, Phase, Rollout, RolloutState,
    facts::{NodeFacts, Order, Served, named},
    gate::{Verdict, judge},
    since,
};
use crate::planted::{self, Bug};

/// Nodes that a reason names.
const NAMED_MAX: usize = 3;

/// What a deployment asks of its rollouts.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// How a revision gets to the nodes.
    pub strategy: &'a Strategy,
    /// How many nodes there are to be; none for every one in the target. With a number, a node that is to leave stays until others serve.
    pub wanted: Option<usize>,
    /// Whether a newer deployment waits for the end of the rollout.
    pub is_superseded: bool,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The rollout, which is to be kept before any order is given.
    pub rollout: Rollout,
    /// What nodes are to have, of those that have something else.
    pub orders: BTreeMap<NodeId, Order>,
}

/// Decides, once. It is to be asked again after each change of what is known, and when time has passed.
pub fn decide(rollout: &Rollout, scope: Scope<'_>, nodes: &BTreeMap<NodeId, NodeFacts>, now: Timestamp) -> Decision {
    let mut deciding = Deciding { next: rollout.clone(), scope, nodes, now, orders: BTreeMap::new() };
    if !deciding.next.state.is_over() {
        if deciding.next.phase != Phase::Restoring {
            deciding.watch();
        }
        if deciding.scope.is_superseded && deciding.next.phase != Phase::Restoring {
            deciding.supersede();
        }
        match (deciding.next.state, deciding.next.phase) {
            (state, _) if state.is_over() => {}
            (_, Phase::Restoring) => deciding.restore(),
            (RolloutState::Paused, _) => {}
            _ => deciding.advance(),
        }
        if deciding.next.state == RolloutState::InProgress && deciding.next.phase != Phase::Restoring {
            deciding.fill_earlier();
        }
    }
    if deciding.next.state.is_over() {
        deciding.keep();
    } else {
        deciding.bridge();
    }
    deciding.leave();
    Decision { rollout: deciding.next, orders: deciding.orders }
}

struct Deciding<'a> {
    next: Rollout,
    scope: Scope<'a>,
    nodes: &'a BTreeMap<NodeId, NodeFacts>,
    now: Timestamp,
    orders: BTreeMap<NodeId, Order>,
}

impl<'a> Deciding<'a> {
    /// Nodes that were ordered to serve the new revision.
    fn taken(&self) -> impl Iterator<Item = (&'a NodeId, &'a NodeFacts)> + use<'a> {
        let to = self.next.to;
        self.nodes.iter().filter(move |(_, node)| node.serves() == Some(to))
    }

    /// The nodes of the present wave.
    fn here(&self) -> impl Iterator<Item = (&'a NodeId, &'a NodeFacts)> + use<'a> {
        let wave = self.next.wave;
        self.nodes.iter().filter(move |(_, node)| node.in_target && node.wave == wave)
    }

    /// Those of them that were ordered to serve the new revision.
    fn taken_here(&self) -> impl Iterator<Item = (&'a NodeId, &'a NodeFacts)> + use<'a> {
        let to = self.next.to;
        self.here().filter(move |(_, node)| node.serves() == Some(to))
    }

    /// Those of them that can take it and were not ordered to.
    fn free(&self) -> impl Iterator<Item = (&'a NodeId, &'a NodeFacts)> + use<'a> {
        let to = self.next.to;
        self.here().filter(move |(_, node)| node.can_take() && node.serves() != Some(to))
    }

    fn waves(&self) -> usize {
        self.scope.strategy.waves.len() + 1
    }

    fn order(&mut self, id: &NodeId, mut order: Order) {
        order.is_confirmed |= planted::has(Bug::ConfirmedAtOnce) && order.serve == Some(self.next.to) && order.warm.is_none();
        let ordered = self.nodes[id].ordered.unwrap_or_default();
        // What is confirmed stays so.
        if (ordered.serve, ordered.warm) == (order.serve, order.warm) && (ordered.is_confirmed || !order.is_confirmed) {
            self.orders.remove(id);
        } else {
            self.orders.insert(id.clone(), order);
        }
    }

    /// How many nodes that come late may take a revision now, so that no more than a batch, and those that may lack, are on their way.
    fn room(&self, total: usize, on_their_way: usize) -> usize {
        let batch = if planted::has(Bug::LateAllAtOnce) { total } else { self.scope.strategy.batch().at_least_one_of(total) };
        (batch + self.scope.strategy.max_unavailable().at_most_of(total)).saturating_sub(on_their_way)
    }

    /// Whether a rollout that waits has waited for too long.
    fn is_late(&self) -> bool {
        let patience = self.scope.strategy.bake().saturating_add(self.scope.strategy.progress());
        since(self.next.progressed_at, self.now) > patience
    }

    /// What the gate says of these nodes together.
    fn verdict<'n>(&self, nodes: impl Iterator<Item = &'n NodeFacts>) -> Verdict {
        let seen = if planted::has(Bug::GateOfFirstNode) { 1 } else { usize::MAX };
        judge(&self.scope.strategy.gate, nodes.take(seen).map(|node| (node.observed.sample, node.observed.before)))
    }

    /// Looks whether the revision does badly, and turns back if so.
    fn watch(&mut self) {
        let to = self.next.to;
        let has = |node: &NodeFacts| node.serves() == Some(to) || node.warm() == Some(to);
        let fails = |node: &NodeFacts| {
            (node.serves() == Some(to) && node.observed.served == Served::Failed)
                || (node.warm() == Some(to) && node.observed.warm == Served::Failed)
        };
        let concerned = self.nodes.values().filter(|node| has(node)).count();
        let failing: Vec<_> = self.nodes.iter().filter(|(_, node)| fails(node)).collect();
        // However many may lack, one must run it.
        let too_many = failing.len() > self.scope.strategy.max_unavailable().at_most_of(concerned)
            || (failing.len() == concerned && !planted::has(Bug::NobodyNeedRunIt));
        if !failing.is_empty() && too_many {
            let (first, node) = failing[0];
            let what = named(&self.next.function, to);
            let why = format!("{} of {concerned} nodes cannot run {what}; node `{first}`: {}", failing.len(), node.observed.message);
            return self.next.restore(why, self.now);
        }
        // What is bad in one wave does not hide behind the many invocations of those before it.
        let of_wave = |wave| self.verdict(self.taken().map(|(_, node)| node).filter(|node| node.wave == wave));
        let of_all = self.verdict(self.taken().map(|(_, node)| node));
        let bad = std::iter::once(of_all).chain((0..self.waves()).map(of_wave)).find_map(|verdict| match verdict {
            Verdict::Bad(why) => Some(why),
            _ => None,
        });
        if let Some(why) = bad {
            self.next.restore(why, self.now);
        }
    }

    /// Ends it for a newer deployment, which begins from the former revision. Where there is none it begins from what the nodes have: to take that away
    /// would be to serve nothing.
    fn supersede(&mut self) {
        let why = "superseded by a newer generation".to_owned();
        if self.next.from.is_some() || planted::has(Bug::FirstTakenAway) {
            return self.next.restore(why, self.now);
        }
        (self.next.reason, self.next.approval) = (why, Approval::NotYet);
        self.next.end(RolloutState::Failed, self.now);
    }

    /// Goes on as far as it may.
    fn advance(&mut self) {
        if !self.nodes.values().any(|node| node.in_target && (node.can_take() || node.serves() == Some(self.next.to))) {
            let has_nodes = self.nodes.values().any(|node| node.in_target);
            let why = if has_nodes { "no node of its target can be reached" } else { "no node is in its target" };
            why.clone_into(&mut self.next.reason);
            if self.taken().next().is_none() {
                self.next.state = RolloutState::Pending;
                self.begin_anew();
            }
            return;
        }
        // Each turn of the loop comes to another batch or wave, or ends it.
        loop {
            let total = self.here().count();
            if total > 0 {
                if !self.begin(total) || !self.fill() || !self.is_done() {
                    return;
                }
                let is_batch_left = self.next.allowed < total && self.free().next().is_some();
                if !self.is_approved(is_batch_left) {
                    return;
                }
                let is_next_wave = planted::has(Bug::WaveNotWaitedFor) && self.next.wave + 1 < self.waves();
                if is_batch_left && !is_next_wave {
                    self.next.allowed = self.scope.strategy.next(self.next.allowed.max(self.taken_here().count()), total);
                    self.progress();
                    continue;
                }
            } else if !planted::has(Bug::ApprovalSkipped) && !self.is_approved(false) {
                return;
            }
            if self.next.wave + 1 < self.waves() {
                self.next.wave += 1;
                self.next.allowed = 0;
                self.next.phase = self.first_phase();
                self.progress();
                continue;
            }
            if self.taken().any(|(_, node)| node.in_target) {
                self.next.reason.clear();
                self.next.end(RolloutState::Completed, self.now);
                return;
            }
            // Those that had it are gone, and others are there, of waves that it has passed.
            self.begin_anew();
        }
    }

    fn begin_anew(&mut self) {
        (self.next.wave, self.next.allowed, self.next.phase) = (0, 0, self.first_phase());
    }

    fn first_phase(&self) -> Phase {
        if self.scope.strategy.kind == StrategyKind::BlueGreen { Phase::Preparing } else { Phase::Updating }
    }

    fn progress(&mut self) {
        self.next.progressed_at = self.now;
    }

    /// Begins a wave: allows its first nodes, when the revision is prepared where it is to be. Says whether nodes may take it.
    fn begin(&mut self, total: usize) -> bool {
        if self.next.state == RolloutState::Pending {
            self.next.state = RolloutState::InProgress;
            self.next.phase = self.first_phase();
            self.next.reason.clear();
            self.progress();
        }
        if self.next.phase == Phase::Preparing && !self.prepare() {
            return false;
        }
        if self.next.allowed == 0 {
            self.next.phase = Phase::Updating;
            self.next.allowed = self.scope.strategy.next(0, total);
            self.progress();
        }
        true
    }

    /// Has the revision made ready on the nodes of the wave; says whether it is.
    fn prepare(&mut self) -> bool {
        let to = self.next.to;
        let lacking: Vec<_> = self.here().filter(|(_, node)| node.can_take() && node.serves().is_some_and(|serves| serves != to)).collect();
        let mut waiting = Vec::new();
        for (id, node) in lacking {
            if node.warm() != Some(to) {
                self.order(id, Order::beside(node.former(to), Some(to)));
                waiting.push((id, node));
            } else if node.observed.warm == Served::Pending {
                waiting.push((id, node));
            }
        }
        if waiting.is_empty() || (self.is_late() && self.may_lack(waiting.len(), self.here().count())) {
            return true;
        }
        let why = format!("{} it ready", have_not(&waiting, "made"));
        self.wait(why);
        false
    }

    /// Orders as many nodes of the wave to take the revision as may have it; says whether all of those were ordered before.
    fn fill(&mut self) -> bool {
        let to = self.next.to;
        let more = usize::from(planted::has(Bug::BatchOneTooMany));
        let room = (self.next.allowed + more).saturating_sub(self.taken_here().count());
        let free: Vec<_> = self.free().take(room).collect();
        for (id, node) in &free {
            let warm = node.former(to).filter(|_| !planted::has(Bug::WarmDroppedAtOnce));
            self.order(id, Order::beside(Some(to), warm));
        }
        if free.is_empty() {
            return true;
        }
        let failed: Vec<_> = free.iter().filter_map(|(id, node)| Some((id, node.order_failure.as_ref()?))).collect();
        if let Some((first, why)) = failed.first() {
            self.wait(format!("{} of the nodes could not be ordered to take it; node `{first}`: {why}", failed.len()));
        } else {
            self.next.reason.clear();
            self.progress();
        }
        false
    }

    /// Orders nodes of earlier waves that came late.
    fn fill_earlier(&mut self) {
        let (to, wave) = (self.next.to, self.next.wave);
        let earlier = || self.nodes.iter().filter(move |(_, node)| node.in_target && node.wave < wave);
        let is_on_its_way = |node: &NodeFacts| node.serves() == Some(to) && node.is_reachable && is_unsure(node);
        let room = self.room(self.here().count().max(1), earlier().filter(|(_, node)| is_on_its_way(node)).count());
        let late: Vec<_> = earlier().filter(|(_, node)| node.can_take() && node.serves() != Some(to)).take(room).collect();
        for (id, node) in late {
            self.order(id, Order::beside(Some(to), node.former(to)));
        }
    }

    /// Has nodes that are to serve at all serve the former revision until their turn comes.
    fn bridge(&mut self) {
        let Some(from) = self.next.from.filter(|from| *from != self.next.to && !planted::has(Bug::NothingInBetween)) else { return };
        let nodes = self.nodes.iter().filter(|(_, node)| node.in_target && node.can_take() && node.serves().is_none());
        for (id, _) in nodes {
            if !self.orders.contains_key(id) {
                self.order(id, Order::only(Some(from)));
            }
        }
    }

    /// Whether it may go on without so many of these nodes.
    fn may_lack(&self, lacking: usize, total: usize) -> bool {
        lacking <= self.scope.strategy.max_unavailable().at_most_of(total)
    }

    /// Whether the nodes that took it have done well for long enough. If not, it waits, and is paused when that takes too long.
    fn is_done(&mut self) -> bool {
        let taken: Vec<_> = self.taken_here().collect();
        if taken.is_empty() {
            return true;
        }
        let only = |nodes: &[(&'a NodeId, &'a NodeFacts)], is: &dyn Fn(&NodeFacts) -> bool| -> Vec<_> {
            nodes.iter().filter(|(_, node)| is(node)).copied().collect()
        };
        let is_open = |node: &NodeFacts| is_unsure(node) && (node.is_reachable || !planted::has(Bug::SilentTakenForDone));
        let is_ready = |node: &NodeFacts| node.observed.served == Served::Ready;
        let unsure = only(&taken, &is_open);
        // A node that holds and has not got there says no more than one that is silent.
        let heard = only(&unsure, &|node| node.can_take() || (node.is_reachable && is_ready(node)));
        let starting = only(&heard, &|node| !is_ready(node));
        let has_one = |nodes: &[(_, &NodeFacts)]| nodes.iter().any(|(_, node)| has_passed(node));
        let goes_on = has_one(&taken) && self.may_lack(unsure.len(), taken.len()) && (heard.is_empty() || self.is_late());
        let why = if unsure.is_empty() && !has_one(&self.taken().collect::<Vec<_>>()) && !planted::has(Bug::NobodyNeedRunIt) {
            // These have failed, which is let pass only where others run it.
            Some(have_not(&taken, "come to serve it, and no other has"))
        } else if unsure.is_empty() || goes_on {
            match self.verdict(self.taken().map(|(_, node)| node)) {
                Verdict::TooFew(calls) => {
                    Some(format!("there were {calls} invocations, and {} are needed to judge", self.scope.strategy.gate.min_samples()))
                }
                Verdict::Doubtful(calls) => Some(format!("all of {calls} invocations failed, which are too few to judge")),
                Verdict::Good | Verdict::Bad(_) => None,
            }
        } else if !starting.is_empty() {
            Some(have_not(&starting, "said that they serve it"))
        } else if !heard.is_empty() {
            Some(have_not(&heard, &format!("served it for {} without a break", shown(self.scope.strategy.bake()))))
        } else {
            Some(have_not(&unsure, "been heard since they took it, or hold updates"))
        };
        if let Some(why) = why {
            self.wait(why);
            return false;
        }
        true
    }

    /// Whether it may go on without anybody's agreement, or has it.
    fn is_approved(&mut self, is_batch_left: bool) -> bool {
        let wave = self.next.wave;
        let is_last = !is_batch_left && wave + 1 >= self.waves();
        let is_due = match self.scope.strategy.kind {
            StrategyKind::BlueGreen => is_last,
            // After the first batch: where that is all there is, before the end.
            StrategyKind::Rolling | StrategyKind::Canary => true,
        };
        let has_begun = self.next.approval == Approval::Awaited || self.taken().any(|(_, node)| node.in_target && node.wave <= wave);
        if !self.scope.strategy.approve || self.next.approval == Approval::Given || !is_due || !has_begun {
            return true;
        }
        self.next.approval = Approval::Awaited;
        "it waits for approval".clone_into(&mut self.next.reason);
        false
    }

    /// Says what it waits for; past the time for progress it is paused.
    fn wait(&mut self, why: String) {
        if self.is_late() {
            self.orders.clear();
            self.next.state = RolloutState::Paused;
            self.next.reason = format!("paused, as it did not get on for {}: {why}", shown(self.scope.strategy.progress()));
        } else {
            self.next.reason = why;
        }
    }

    /// Brings the former revision back where the new one is. It waits until those serve it that are heard; one that holds takes it later.
    fn restore(&mut self) {
        self.take_back();
        let is_late = since(self.next.progressed_at, self.now) > self.scope.strategy.progress();
        if !self.orders.is_empty() && !is_late {
            return;
        }
        let here = || self.nodes.values().filter(|node| node.in_target && node.serves().is_some());
        let is_on_its_way = here().any(|node| node.can_take() && node.observed.served == Served::Pending);
        if is_on_its_way && !is_late {
            return;
        }
        let is_back = self.orders.is_empty() && !is_on_its_way && !here().any(|node| node.observed.served == Served::Failed);
        let state = match self.next.from {
            Some(_) if is_back => RolloutState::RolledBack,
            Some(_) => {
                self.next.reason.push_str("; some nodes do not serve the former revision again");
                RolloutState::Failed
            }
            None => RolloutState::Failed,
        };
        self.next.end(state, self.now);
    }

    /// Orders what they had before where the new revision is, heard or not: whoever is away takes the newest order when it returns.
    fn take_back(&mut self) {
        let (to, from) = (self.next.to, self.next.from);
        let from = from.filter(|from| *from != to || !planted::has(Bug::SameRevisionTakenBack));
        for (id, node) in self.nodes {
            if !node.is_reachable && planted::has(Bug::OnlyReachableTakenBack) {
                continue;
            }
            if node.serves() == Some(to) {
                self.order(id, Order::only(node.warm().or(from)));
            } else if node.warm() == Some(to) {
                self.order(id, Order::only(node.serves()));
            }
        }
    }

    /// Keeps the nodes at what the rollout came to: those that come late take it, are judged by themselves, and are confirmed.
    fn keep(&mut self) {
        if self.next.phase == Phase::Restoring {
            self.take_back();
        }
        let Some(goal) = self.next.goal() else { return self.keep_former() };
        if !self.next.keeps(goal) {
            return;
        }
        let in_target = || self.nodes.iter().filter(|(_, node)| node.in_target);
        let mut on_their_way = self.orders.values().filter(|order| order.serve == Some(goal)).count();
        let settling: Vec<_> = self.nodes.iter().filter(|(_, node)| node.serves() == Some(goal)).collect();
        for (id, node) in settling {
            let verdict =
                if node.warm().is_some() && !planted::has(Bug::LateNotJudged) { self.verdict([node].into_iter()) } else { Verdict::Good };
            match (node.observed.served, verdict) {
                (Served::Failed, _) if node.warm().is_none() => {}
                (Served::Failed, _) => self.refuse(id, node, node.observed.message.clone()),
                (_, Verdict::Bad(why)) => self.refuse(id, node, why),
                (_, Verdict::Good | Verdict::TooFew(_)) if has_passed(node) => {
                    self.order(id, Order::confirmed(goal));
                    self.next.refused.remove(id);
                }
                _ if node.is_reachable => on_their_way += 1,
                _ => {}
            }
        }
        if self.next.has_no_room() {
            return;
        }
        let room = self.room(in_target().count(), on_their_way);
        let is_late = |id: &NodeId, node: &NodeFacts| node.can_take() && node.serves() != Some(goal) && !self.next.refused.contains_key(id);
        let late: Vec<_> = in_target().filter(|(id, node)| is_late(id, node) && !self.orders.contains_key(*id)).take(room).collect();
        for (id, node) in late {
            let next =
                self.next.from.filter(|from| node.serves().is_some_and(|serves| serves < *from) && planted::has(Bug::SupersededGiven));
            self.order(id, Order::beside(next.or(Some(goal)), node.former(goal)));
        }
    }

    /// Keeps nodes at what they have of first revisions that were superseded: no other serves in their place.
    fn keep_former(&mut self) {
        let to = self.next.to;
        let nodes = self.nodes.iter().filter(|(_, node)| node.serves().is_some_and(|serves| serves != to) && node.warm().is_some());
        for (id, node) in nodes.filter(|(_, node)| has_passed(node)) {
            if !self.orders.contains_key(id) {
                self.order(id, Order::only(node.serves()));
            }
        }
    }

    /// Gives a node back what it had before it came late.
    fn refuse(&mut self, id: &NodeId, node: &NodeFacts, why: String) {
        self.order(id, Order::only(node.warm()));
        self.next.refuse(id.clone(), why);
    }

    /// Takes the function from nodes that the deployment does not want it on, in so far as others serve in their place.
    fn leave(&mut self) {
        let serves = |node: &NodeFacts| node.is_reachable && node.serves().is_some() && node.observed.served == Served::Ready;
        let leaving: Vec<_> = self.nodes.iter().filter(|(_, node)| !node.in_target && node.ordered.is_some()).collect();
        let surplus = match self.scope.wanted.filter(|_| !planted::has(Bug::LeftBeforeReplaced)) {
            None => leaving.len(),
            Some(wanted) => {
                let staying = self.nodes.values().filter(|node| node.in_target && serves(node)).count();
                let until_then = leaving.iter().filter(|(_, node)| serves(node)).count();
                if staying >= wanted { leaving.len() } else { (staying + until_then).saturating_sub(wanted).min(until_then) }
            }
        };
        let all = surplus == leaving.len();
        let going: Vec<_> = leaving.into_iter().filter(|(_, node)| all || serves(node)).take(surplus).collect();
        for (id, _) in going {
            self.order(id, Order::only(None));
        }
    }
}

/// Whether a node has served for long enough.
fn has_passed(node: &NodeFacts) -> bool {
    node.observed.served == Served::Ready && (node.observed.has_baked || planted::has(Bug::BakeNotWaitedFor))
}

/// Whether it is open how a node that took it does.
fn is_unsure(node: &NodeFacts) -> bool {
    node.observed.served != Served::Failed && !has_passed(node)
}

/// That nodes have not done something, with some of their names.
fn have_not(nodes: &[(&NodeId, &NodeFacts)], done: &str) -> String {
    let names: Vec<_> = nodes.iter().take(NAMED_MAX).map(|(id, _)| format!("`{id}`")).collect();
    let more = if nodes.len() > NAMED_MAX { ", …" } else { "" };
    format!("{} of the nodes ({}{more}) have not {done}", nodes.len(), names.join(", "))
}

/// A time for people.
fn shown(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds >= 120 && seconds.is_multiple_of(60) { format!("{} minutes", seconds / 60) } else { format!("{} s", time.as_secs_f64()) }
}
